"""Sequences and rows the slow and obvious way: plain lists, one user at a time."""

from dataclasses import dataclass

import torch

from model.syncrec import Sequences


@dataclass(frozen=True)
class Pair:
    """A target and what each task reads before it (SOS not written out)."""

    target: int
    domain: int
    single_input: tuple[int, ...]
    cross_input: tuple[int, ...]


def pairs(window, domain_of):
    """Every target of a window with the inputs of both tasks, in order of time (paper section 3.1).

    domain_of: item -> domain, 0-based.
    """
    return [
        Pair(
            target=target,
            domain=domain_of(target),
            single_input=tuple(item for item in window[:place] if domain_of(item) == domain_of(target)),
            cross_input=tuple(window[:place]),
        )
        for place, target in enumerate(window)
    ]


def rows_of(sequences, slots, start):
    """Sequences of a row each -> the network's input, right-aligned.

    sequences: per row a list of (items, domain), packed behind each other, SOS not written out.
    """
    filled = torch.zeros(4, len(sequences), slots, dtype=torch.int64)
    places = []
    for row, parts in enumerate(sequences):
        tokens = []
        for segment, (items, domain) in enumerate(parts, start=1):
            tokens += [(item, place, segment, domain) for place, item in enumerate([start, *items])]
        first = slots - len(tokens)
        for place, token in enumerate(tokens):
            filled[:, row, first + place] = torch.tensor(token)
        places.append(range(first, slots))
    return Sequences(*filled), places


def inputs_of(sequences: Sequences, place: int):
    """What the input at a flat place stands behind: the items of its segment up to it, SOS first."""
    slots = sequences.item.shape[1]
    row, column = divmod(place, slots)
    segment = sequences.segment[row]
    assert segment[column] > 0, "the place is padding"
    return tuple(
        int(item)
        for slot, item in enumerate(sequences.item[row].tolist())
        if slot <= column and segment[slot] == segment[column]
    )
