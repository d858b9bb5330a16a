"""ACMoE, the asymmetric cooperative mixture of experts (paper section 3.3)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.transformer import attention_bias


class ACMoE(nn.Module):
    """K experts that both tasks read and only one task each teaches.

    Experts 1..j learn from SDSR, experts j+1..K from CDSR: for the other task their outputs are constants (stop-gradient).
    Gates and embedding learn from every task that uses them.

    With `stop_gradient` off, for the ablation, both tasks teach all experts; the same weights give the same outputs.
    """

    def __init__(
        self, experts: Sequence[nn.Module], single_experts: int, domains: int, dim: int, stop_gradient: bool = True
    ) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self.single_learners = range(single_experts if stop_gradient else len(experts))
        self.cross_learners = range(single_experts if stop_gradient else 0, len(experts))
        # The gates g^1..g^D as blocks of rows of one matrix: a domain's block gets gradients from its own tokens only.
        self.single_gates = nn.Linear(dim, domains * len(experts))
        self.cross_gate = nn.Linear(dim, len(experts))

    def single(self, embedded: Tensor, attend: Tensor, domain: Tensor, last: int | None = None) -> Tensor:
        """The mixture for SDSR, before the towers h^d.

        Args:
            embedded: [batch, seq, dim].
            attend: `transformer.may_attend`, [batch, seq, seq].
            domain: whose single-domain sequence each position belongs to, 0-based, [batch, seq].
            last: answer only the last so many positions.
        Returns:
            [batch, seq, dim], or [batch, last, dim].
        """
        pooled, domain = _mean_so_far(embedded, attend)[:, _tail(last)], domain[:, _tail(last)]
        logits = self.single_gates(pooled).unflatten(-1, (-1, len(self.experts)))  # [batch, seq, domain, expert]
        chosen = domain[..., None, None].expand(-1, -1, 1, logits.shape[-1])
        gate = logits.gather(2, chosen).squeeze(2).softmax(-1)
        return self._mix(embedded, attend, gate, self.single_learners, last)

    def cross(self, embedded: Tensor, attend: Tensor, last: int | None = None) -> Tensor:
        """The mixture for CDSR, before the tower h^cross; arguments and result as in `single`."""
        gate = self.cross_gate(_mean_so_far(embedded, attend)[:, _tail(last)]).softmax(-1)
        return self._mix(embedded, attend, gate, self.cross_learners, last)

    def _mix(self, embedded: Tensor, attend: Tensor, gate: Tensor, learners: range, last: int | None) -> Tensor:
        bias = attention_bias(attend, embedded.dtype)
        mixed = torch.zeros((), dtype=embedded.dtype, device=embedded.device)
        for number, expert in enumerate(self.experts):
            # Stop-gradient of the whole expert. no_grad instead of detach(): the same gradients without keeping a graph.
            with torch.set_grad_enabled(torch.is_grad_enabled() and number in learners):
                out = expert(embedded, bias, last)  # [batch, seq, dim]
            mixed = mixed + gate[..., number : number + 1] * out
        return mixed


class Tower(nn.Module):
    """Feed-forward net of width 4 dim with residual and LayerNorm: h^d or h^cross."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.widen = nn.Linear(dim, 4 * dim)
        self.narrow = nn.Linear(4 * dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, mixed: Tensor) -> Tensor:
        """[..., dim] -> [..., dim]."""
        widened = self.narrow(F.gelu(self.widen(mixed)))
        out: Tensor = self.norm(mixed + F.dropout(widened, self.dropout, self.training))
        return out


def _mean_so_far(embedded: Tensor, attend: Tensor) -> Tensor:
    """Mean of the embeddings that each position may see: the gate's causal view of a sequence, [batch, seq, dim]."""
    share = attend.to(embedded.dtype)
    return (share / share.sum(-1, keepdim=True)) @ embedded


def _tail(last: int | None) -> slice:
    return slice(None) if last is None else slice(-last, None)
