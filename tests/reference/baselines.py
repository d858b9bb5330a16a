"""Baselines the slow and obvious way: one sequence at a time, one position after the other."""

import torch

from tests.reference.network import SlowNetwork


class SlowReader(SlowNetwork):
    """Reads the parameters of a baseline's `encoder` by name; the layers are those of SyNCRec's experts."""

    def __init__(self, network, heads):
        self.p = dict(network.named_parameters())
        self.heads = heads

    def causal(self, sequence):
        """States of all positions of a sequence of indices, each looking at those up to itself, [positions, dim]."""
        return self._states(sequence, lambda states, t: states[: t + 1])

    def both_ways(self, sequence):
        """The same, each looking at all."""
        return self._states(sequence, lambda states, t: torch.cat([states[:t], states[t + 1 :], states[t : t + 1]]))

    def _states(self, sequence, seen):
        """`seen` gives what a position looks at, itself last; the order of the others changes nothing."""
        items, places = self.p["encoder.item_embedding.weight"], self.p["encoder.position_embedding.weight"]
        states = torch.stack(
            [self._norm(items[item] + places[place], "encoder.embedding_norm") for place, item in enumerate(sequence)]
        )
        layers = 1 + max(int(name.split(".")[3]) for name in self.p if name.startswith("encoder.layers."))
        for layer in range(layers):
            name = f"encoder.layers.layers.{layer}"
            states = torch.stack([self._layer(seen(states, t), name) for t in range(len(states))])
        return states

    def tower(self, state, name):
        """A `model.acmoe.Tower`."""
        return self._norm(state + self._feed_forward(state, name), f"{name}.norm")

    def mixture(self, state, experts, gate):
        """Experts of these names, weighed by the gate of this name."""
        share = torch.softmax(self._linear(state, gate), 0)
        return sum(share[k] * self.tower(state, name) for k, name in enumerate(experts))


def lively(network, seed=0):
    """The network in float64 with parameters far from their initial values, so that every part of it matters."""
    generator = torch.Generator().manual_seed(seed)
    network = network.double().eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(1 + 0.3 * drawn if name.endswith("norm.weight") else 0.5 * drawn)
            if name.endswith("item_embedding.weight"):
                parameter[0] = 0
    return network
