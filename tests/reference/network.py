"""SyNCRec the slow and obvious way: one sequence at a time, one position after the other, no masks, packing or padding."""

import math

import torch


class SlowNetwork:
    """Reads the parameters of a `model.syncrec.SyNCRec` by name; never calls its code."""

    def __init__(self, network, items_per_domain, heads, single_experts):
        self.p = dict(network.named_parameters())
        self.start = sum(items_per_domain) + 1
        self.domain_of = [0]
        for number, size in enumerate(items_per_domain, start=1):
            self.domain_of += [number] * size
        self.domain_of.append(0)
        self.heads = heads
        self.single_experts = single_experts
        self.experts = 1 + max(int(name.split(".")[2]) for name in self.p if name.startswith("acmoe.experts."))

    def single(self, items, domain):
        """SDSR after SOS, after the first item, ... of one domain's items, [1 + items, dim]."""
        rows = slice(domain * self.experts, (domain + 1) * self.experts)
        weight, bias = self.p["acmoe.single_gates.weight"][rows], self.p["acmoe.single_gates.bias"][rows]
        return self._answers(items, weight, bias, f"single_towers.{domain}", range(self.single_experts))

    def cross(self, items):
        """CDSR after SOS, after the first item, ..., [1 + items, dim]."""
        weight, bias = self.p["acmoe.cross_gate.weight"], self.p["acmoe.cross_gate.bias"]
        return self._answers(items, weight, bias, "cross_tower", range(self.single_experts, self.experts))

    def _answers(self, items, weight, bias, tower, learners):
        sequence = [self.start, *items]
        embedded = torch.stack([self._embed(item, place) for place, item in enumerate(sequence)])
        outs = [self._expert(embedded, number) for number in range(self.experts)]
        answers = []
        for t in range(len(sequence)):
            gate = torch.softmax(weight @ embedded[: t + 1].mean(0) + bias, 0)
            read = [outs[k][t] if k in learners else outs[k][t].detach() for k in range(self.experts)]
            mixed = sum(gate[k] * read[k] for k in range(self.experts))
            answers.append(self._norm(mixed + self._feed_forward(mixed, tower), f"{tower}.norm"))
        return torch.stack(answers)

    def _embed(self, item, place):
        summed = self.p["item_embedding.weight"][item] + self.p["position_embedding.weight"][place]
        if self.domain_of[item]:  # SOS has no domain
            summed = summed + self.p["domain_embedding.weight"][self.domain_of[item]]
        return self._norm(summed, "embedding_norm")

    def _expert(self, states, number):
        layers = 1 + max(
            int(name.split(".")[4]) for name in self.p if name.startswith(f"acmoe.experts.{number}.layers.")
        )
        for layer in range(layers):
            name = f"acmoe.experts.{number}.layers.{layer}"
            states = torch.stack([self._layer(states[: t + 1], name) for t in range(len(states))])
        return states

    def _layer(self, past, name):
        """The newest of these states after the layer; it looks at all of them."""
        dim = past.shape[1]
        width = dim // self.heads
        query = self._linear(past[-1], f"{name}.query")
        both = [self._linear(state, f"{name}.key_value") for state in past]
        read = []
        for head in range(self.heads):
            part = slice(head * width, (head + 1) * width)
            keys = torch.stack([pair[:dim][part] for pair in both])
            values = torch.stack([pair[dim:][part] for pair in both])
            share = torch.softmax(keys @ query[part] / math.sqrt(width), 0)
            read.append(share @ values)
        state = self._norm(past[-1] + self._linear(torch.cat(read), f"{name}.attended"), f"{name}.attention_norm")
        return self._norm(state + self._feed_forward(state, name), f"{name}.norm")

    def _feed_forward(self, state, name):
        wide = self._linear(state, f"{name}.widen")
        return self._linear(wide * 0.5 * (1 + torch.erf(wide / math.sqrt(2))), f"{name}.narrow")

    def _linear(self, state, name):
        return self.p[f"{name}.weight"] @ state + self.p[f"{name}.bias"]

    def _norm(self, state, name):
        centred = state - state.mean()
        scaled = centred / torch.sqrt((centred**2).mean() + 1e-5)
        return scaled * self.p[f"{name}.weight"] + self.p[f"{name}.bias"]


def lively(network, seed=0):
    """The network in float64 with parameters far from their initial values, so that every part of it matters."""
    generator = torch.Generator().manual_seed(seed)
    network = network.double().eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(1 + 0.3 * drawn if name.endswith("norm.weight") else 0.5 * drawn)
        network.item_embedding.weight[0] = 0
        network.domain_embedding.weight[0] = 0
    return network
