"""Events -> dataset -> run -> bundle."""
