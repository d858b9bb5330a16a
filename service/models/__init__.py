"""Models in use: loaded, checked, switched without a dropped request, the same on every replica."""
