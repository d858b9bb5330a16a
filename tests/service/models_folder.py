"""A models folder that a test may change: bundles of different item vectors, whole or damaged."""

from formats.bundle import GRAPH
from tests.service.small_bundle import make_bundle


def add_bundle(folder, number, **more):
    """A bundle whose answers differ from every other's; newer ones have higher numbers."""
    return make_bundle(folder, version=f"model-{number}", seed=number, created=60 * number, **more)


def damage(folder, version, name=GRAPH):
    """Flip a bit in one of a bundle's files."""
    path = folder / version / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
