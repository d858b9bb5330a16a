"""What `syncrec bench serve` measures with: a bundle nobody trained, users, servers to compare with, and a load generator."""
