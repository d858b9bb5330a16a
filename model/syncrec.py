"""SyNCRec (Park et al., SIGIR 2024, figure 2): shared embedding -> ACMoE -> towers, for two tasks side by side.

SDSR predicts a user's next item in a domain from that user's items of the same domain, CDSR from the items of all domains.
Both read one embedding and all experts; `acmoe.py` says who learns what.

Dimensions: batch = rows; seq = slots of a row; dim = r; target = the targets of a batch, sorted by domain.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.acmoe import ACMoE, Tower
from model.config import SyNCRecConfig
from model.initial import initialise
from model.transformer import Encoder, may_attend


class Sequences(NamedTuple):
    """Input sequences, several to a row.

    item: item index, SOS (items + 1) at the start of each sequence, 0 = padding, [batch, seq].
    position: place in its sequence, SOS at 0, [batch, seq].
    segment: number of its sequence, from 1; 0 = padding, [batch, seq].
    domain: whose single-domain sequence this is, 0-based; 0 where nothing depends on it, [batch, seq].
    """

    item: Tensor
    position: Tensor
    segment: Tensor
    domain: Tensor


class Predictions(NamedTuple):
    """Representations of the users at their targets, [target, dim] each; row n of both belongs to target n."""

    single: Tensor
    cross: Tensor


class SyNCRec(nn.Module):
    """The network. Scores are dot products with the item embeddings: `item_vectors`."""

    def __init__(
        self, items_per_domain: tuple[int, ...], positions: int, acmoe: ACMoE, dim: int, dropout: float
    ) -> None:
        super().__init__()
        domains, items = len(items_per_domain), sum(items_per_domain)
        self.items = items
        self.dropout = dropout
        self.item_embedding = nn.Embedding(items + 2, dim, padding_idx=0)
        self.domain_embedding = nn.Embedding(domains + 1, dim, padding_idx=0)
        self.position_embedding = nn.Embedding(positions, dim)
        self.embedding_norm = nn.LayerNorm(dim)
        self.acmoe = acmoe
        self.single_towers = nn.ModuleList(Tower(dim, dropout) for _ in range(domains))
        self.cross_tower = Tower(dim, dropout)
        # Domain of every index, from 1; padding and SOS have none, so that with one domain both tasks read the same.
        of_item = torch.repeat_interleave(torch.arange(1, domains + 1), torch.tensor(items_per_domain))
        self.item_domain: Tensor
        self.register_buffer("item_domain", F.pad(of_item, (1, 1)), persistent=False)
        self.apply(initialise)

    def forward(
        self,
        single: Sequences,
        cross: Sequences,
        single_slot: Tensor,
        cross_slot: Tensor,
        targets_per_domain: list[int],
    ) -> Predictions:
        """Both tasks' representations for every target of a batch.

        Args:
            single: all users' single-domain sequences of all domains, one pass.
            cross: the same users' mixed sequences.
            single_slot: where in `single` the input stands that predicts target n, flat over [batch, seq], [target].
            cross_slot: the same for `cross`.
            targets_per_domain: targets are sorted by domain; so many each.
        """
        mixed = self.acmoe.single(self.embed(single), may_attend(single.segment), single.domain).flatten(0, 1)
        of_domain = mixed[single_slot].split(targets_per_domain)
        towers = zip(self.single_towers, of_domain, strict=True)
        single_out = torch.cat([tower(states) for tower, states in towers])
        mixed = self.acmoe.cross(self.embed(cross), may_attend(cross.segment)).flatten(0, 1)
        return Predictions(single_out, self.cross_tower(mixed[cross_slot]))

    def embed(self, sequences: Sequences) -> Tensor:
        """E = Dropout(LayerNorm(item + domain + position)), [batch, seq, dim]."""
        summed = (
            self.item_embedding(sequences.item)
            + self.domain_embedding(self.item_domain[sequences.item])
            + self.position_embedding(sequences.position)
        )
        return F.dropout(self.embedding_norm(summed), self.dropout, self.training)

    def single_next(self, history: Tensor, domain: int) -> Tensor:
        """SDSR's representation of users after their last event of a domain.

        Args:
            history: `formats.history.encode_histories` of this domain's items alone, [batch, slots].
            domain: 0-based.
        Returns:
            [batch, dim].
        """
        sequences = one_per_row(history, domain)
        attend = may_attend(sequences.segment)
        mixed = self.acmoe.single(self.embed(sequences), attend, sequences.domain, last=1)
        out: Tensor = self.single_towers[domain](mixed[:, -1])
        return out

    def singles_next(self, history: Tensor, domains: Sequence[int]) -> Tensor:
        """`single_next` for several domains in one pass, from mixed histories: SOS and own events of each, one segment each.

        Args:
            history: `formats.history.encode_histories`, [batch, slots].
            domains: 0-based, ascending.
        Returns:
            [batch, domains asked for, dim].
        """
        asked, numbers = torch.tensor(domains), torch.arange(1, len(domains) + 1)
        history = history.long()
        own = self.item_domain[history].unsqueeze(-1) == asked + 1  # [batch, slots, asked]
        number = (own * numbers).sum(-1)  # segment of each event; 0: of no domain asked for
        place = (own.long().cumsum(1) * own).sum(-1)
        leading = numbers.expand(history.shape[0], -1)
        segment = torch.cat([leading, number], dim=1)
        item = torch.cat([torch.full_like(leading, self.items + 1), history * (number > 0)], dim=1)
        position = torch.cat([torch.zeros_like(leading), place], dim=1)
        # The newest slot of each domain goes to the end of the row, so that the last layer computes no more than these.
        slots = torch.arange(segment.shape[1])[:, None]
        newest = ((segment.unsqueeze(-1) == numbers) * slots).amax(1)  # [batch, asked]
        item, position, segment = (
            torch.cat([of_slot.scatter(1, newest, 0), of_slot.gather(1, newest)], dim=1)
            for of_slot in (item, position, segment)
        )
        sequences = Sequences(item, position, segment, domain=F.pad(asked, (1, 0))[segment])
        mixed = self.acmoe.single(self.embed(sequences), may_attend(segment), sequences.domain, last=len(domains))
        towers = [self.single_towers[domain](mixed[:, number]) for number, domain in enumerate(domains)]
        return torch.stack(towers, dim=1)

    def cross_next(self, history: Tensor) -> Tensor:
        """CDSR's representation of users after their last event; the path that is exported.

        Args:
            history: `formats.history.encode_histories`, [batch, slots].
        Returns:
            [batch, dim].
        """
        sequences = one_per_row(history, domain=0)
        mixed = self.acmoe.cross(self.embed(sequences), may_attend(sequences.segment), last=1)
        out: Tensor = self.cross_tower(mixed[:, -1])
        return out

    def item_vectors(self) -> Tensor:
        """Vectors of padding (zero), all items and SOS, [items + 2, dim]; an item's score is its product with a user's."""
        return self.item_embedding.weight


def build_syncrec(config: SyNCRecConfig) -> SyNCRec:
    """The network of these sizes, freshly initialised: K separate experts, D gates and towers."""
    experts = [
        Encoder(config.dim, config.heads, config.layers, config.dropout, config.attention_dropout)
        for _ in range(config.experts)
    ]
    acmoe = ACMoE(experts, config.single_experts, config.domains, config.dim, config.stop_gradient)
    return SyNCRec(config.items_per_domain, config.max_history + 1, acmoe, config.dim, config.dropout)


def one_per_row(history: Tensor, domain: int) -> Sequences:
    """Histories as sequences of one domain, or of all.

    Args:
        history: `formats.history.encode_histories`, [batch, slots].
        domain: 0-based; 0 where nothing depends on it.
    """
    history = history.long()
    real = history != 0
    # From SOS on, not from the newest event back: a place counted from the end would tell how much future there is.
    position = (real.long().cumsum(1) - 1).clamp(min=0)
    return Sequences(history, position, real.long(), torch.full_like(history, domain, dtype=torch.long))
