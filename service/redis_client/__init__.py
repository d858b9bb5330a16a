"""Redis as operators run it: one server, Sentinel or Cluster, with TLS and users."""
