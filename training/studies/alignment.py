"""What SC-MIM does to the representations: how much those of a user's two tasks say about each other, with it and without.

Example:
  syncrec study alignment with.run without.run --json alignment.json

Both runs are SyNCRec's on one dataset; the second is best trained with --set mutual_information=0. Of each domain, one event per
user is represented by both towers. Told are a lower bound of their mutual information (InfoNCE with a bilinear critic that was
fitted to other users; at most log of the users in a comparison) and linear CKA (1: equal up to rotation and scale). Writes
RUN/alignment.png.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from formats.errors import WrongUse
from formats.history import encode_histories
from model.losses import MutualInformation
from model.syncrec import SyNCRec
from training.cases import Cases, contexts
from training.config import TrainingConfig
from training.dataset import Dataset
from training.memory import bounded_memory
from training.methods import syncrec_config, syncrec_of
from training.ranking import CASES_PER_BATCH
from training.run import TrainedRun, open_trained
from training.studies.drawing import colour, drawn, legend, title
from training.studies.outcome import Outcome, StudyTable
from training.task import drawn_cases

FIGURE: Final = "alignment.png"
# Users that are told from each other at a time; the bound cannot exceed the log of it, 4.16 nats.
COMPARED: Final = 64
FEWEST_USERS: Final = 4 * COMPARED
CRITIC_STEPS: Final = 300
SHOWN_USERS: Final = 120
_NORMAL_95 = 1.959964


@dataclass(frozen=True)
class Pairs:
    """Both tasks' representations of the same users after the same events, [user, dim] each."""

    single: NDArray[np.float32]
    cross: NDArray[np.float32]

    def take(self, which: NDArray[np.int64]) -> "Pairs":
        """Of these users."""
        return Pairs(self.single[which], self.cross[which])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", type=Path, metavar="RUN", help="of SyNCRec")
    parser.add_argument("other", type=Path, metavar="RUN2", help="on the same dataset, for instance without SC-MIM")
    parser.add_argument(
        "--max-users", type=int, default=2000, metavar="N", help="of each domain at most (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> Outcome:
    """Measure both, and draw."""
    runs = [open_trained(path) for path in (arguments.run, arguments.other)]
    if runs[0].run.fingerprint != runs[1].run.fingerprint:
        raise WrongUse(f"{arguments.other} is of another dataset than {arguments.run}")
    names = [f"η = {_config(one).mutual_information:g} ({one.run.path.name})" for one in runs]
    with bounded_memory():
        pairs = {name: representations(one, arguments.max_users) for name, one in zip(names, runs, strict=True)}
        found = {name: {domain: measures(own) for domain, own in of.items()} for name, of in pairs.items()}
    _draw(arguments.run / FIGURE, pairs, found)
    content = {
        "max_users": arguments.max_users,
        "compared": COMPARED,
        "most": float(np.log(COMPARED)),
        "runs": {
            name: {"mutual_information_weight": _config(one).mutual_information, "domains": found[name]}
            for name, one in zip(names, runs, strict=True)
        },
    }
    return Outcome([_table(found)], content)


def representations(trained: TrainedRun, max_users: int) -> dict[str, Pairs]:
    """By domain, of one test event per user."""
    network, config, dataset = syncrec_of(trained.objective).network, _config(trained), trained.dataset
    cases = _one_per_user(dataset, config.max_history)
    cases = cases.take(drawn_cases(cases, max_users, seed=0))
    return {
        name: _pairs(network, cases.take(np.flatnonzero(cases.target_domain == number)), number - 1, config.max_history)
        for number, name in enumerate(dataset.domains, start=1)
    }


def measures(pairs: Pairs) -> dict[str, Any]:
    """Bound, its standard error, and CKA; without the bound where there are too few users to tell from each other."""
    users = len(pairs.single)
    bound = mutual_information(pairs) if users >= FEWEST_USERS else None
    return {
        "users": users,
        "mutual_information": bound and bound[0],
        "standard_error": bound and bound[1],
        "cka": linear_cka(pairs) if users > 1 else None,
    }


def linear_cka(pairs: Pairs) -> float:
    """Linear centred kernel alignment (Kornblith et al., ICML 2019), 0 to 1; with few users for the width it is too high."""
    single, cross = (
        values.astype(np.float64) - values.mean(0, dtype=np.float64) for values in (pairs.single, pairs.cross)
    )
    shared = np.square(single.T @ cross).sum()
    own = np.linalg.norm(single.T @ single) * np.linalg.norm(cross.T @ cross)
    return float(shared / own) if own else 0.0


def mutual_information(pairs: Pairs, seed: int = 0) -> tuple[float, float]:
    """InfoNCE's lower bound of the mutual information (van den Oord et al. 2018), nats, and its standard error.

    Each half of the users is measured by a bilinear critic that was fitted to the other half.
    """
    order = np.random.default_rng(seed).permutation(len(pairs.single))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    bounds: list[float] = []
    for fitted, measured in (halves, halves[::-1]):
        critic, scaled = _critic(pairs.take(fitted), seed), _scaled(pairs.take(measured), pairs.take(fitted))
        with torch.inference_mode():
            groups = zip(scaled[0].split(COMPARED), scaled[1].split(COMPARED), strict=True)
            bounds += [
                float(np.log(COMPARED) - critic(*_of_one_domain(*own))) for own in groups if len(own[0]) == COMPARED
            ]
    return float(np.mean(bounds)), float(np.std(bounds, ddof=1) / np.sqrt(len(bounds)))


def _critic(pairs: Pairs, seed: int) -> MutualInformation:
    torch.manual_seed(seed)
    single, cross = _scaled(pairs, pairs)
    critic = MutualInformation(single.shape[1])
    # As many parameters as there are numbers in a few hundred users: without decay they would be learnt by heart.
    optimizer = torch.optim.AdamW(critic.parameters(), lr=0.01, weight_decay=0.3)
    random = torch.Generator().manual_seed(seed)
    for _ in range(CRITIC_STEPS):
        drawn_users = torch.randperm(len(single), generator=random)[:COMPARED]
        optimizer.zero_grad()
        critic(*_of_one_domain(single[drawn_users], cross[drawn_users])).backward()
        optimizer.step()
    return critic.eval()


def _of_one_domain(single: Tensor, cross: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return single[:, None], cross[:, None], torch.ones(len(single), 1, dtype=torch.bool)


def _scaled(pairs: Pairs, fitted: Pairs) -> tuple[Tensor, Tensor]:
    """Both, centred and of length about √dim, as the critic of the loss meets them after a LayerNorm."""
    found = [
        (own - of.mean(0)) / (of.std(0).mean() + 1e-12)
        for own, of in ((pairs.single, fitted.single), (pairs.cross, fitted.cross))
    ]
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


def _one_per_user(dataset: Dataset, max_history: int) -> Cases:
    """The newest test event of every user and domain, if its user has an event of the domain in the window before it."""
    cases = contexts(dataset, "test")
    _, newest = np.unique((cases.user * (1 + len(dataset.domains)) + cases.target_domain)[::-1], return_index=True)
    cases = cases.take(np.sort(len(cases) - 1 - newest))
    item_domain = dataset.item_domain()
    known = [
        (item_domain[history[history > 0][-max_history:]] == domain).any()
        for history, domain in zip(cases.histories(), cases.target_domain, strict=True)
    ]
    return cases.take(np.flatnonzero(known))


@torch.inference_mode()
def _pairs(network: SyNCRec, cases: Cases, domain: int, max_history: int) -> Pairs:
    found = np.zeros((2, len(cases), network.item_vectors().shape[1]), dtype=np.float32)
    for first in range(0, len(cases), CASES_PER_BATCH):
        which = np.arange(first, min(first + CASES_PER_BATCH, len(cases)))
        history = torch.from_numpy(encode_histories(cases.take(which).histories(), max_history, network.items))
        found[0, which] = network.singles_next(history, [domain])[:, 0].numpy()
        found[1, which] = network.cross_next(history).numpy()
    return Pairs(*found)


def _config(trained: TrainedRun) -> TrainingConfig:
    return syncrec_config(trained.run.config)


def _table(found: Mapping[str, Mapping[str, dict[str, Any]]]) -> StudyTable:
    domains = list(next(iter(found.values())))
    rows = [
        [domain, f"{next(iter(found.values()))[domain]['users']:,}"]
        + [_told(of[domain], key) for key in ("mutual_information", "cka") for of in found.values()]
        for domain in domains
    ]
    header = ["domain", "users", *(f"{what}, {name}" for what in ("bound (nats)", "CKA") for name in found)]
    return StudyTable("SDSR's and CDSR's representations of the same users", header, rows)


def _told(found: dict[str, Any], key: str) -> str:
    if found[key] is None:
        return "–"
    error = f" ±{found['standard_error']:.2f}" if key == "mutual_information" else ""
    return f"{found[key]:.2f}{error}"


def _draw(
    file: Path, pairs: Mapping[str, Mapping[str, Pairs]], found: Mapping[str, Mapping[str, dict[str, Any]]]
) -> None:
    with drawn(file, 2, 2, (11, 9)) as (figure, panels):
        for axes, (name, of_run) in zip(panels[0], pairs.items(), strict=True):
            _picture(axes, of_run)
            title(axes, name, "first principal component", "second")
        legend(figure, panels[0, 0], columns=min(5, len(next(iter(pairs.values())))))  # a domain's two in one column
        for axes, key, text, unit in (
            (
                panels[1, 0],
                "mutual_information",
                f"mutual information, lower bound (at most {np.log(COMPARED):.2f})",
                "nats",
            ),
            (panels[1, 1], "cka", "linear CKA", ""),
        ):
            _bars(axes, found, key)
            title(axes, text, "", unit)
        panels[1, 1].set_ylim(0, 1.2)  # room for the legend
        panels[1, 1].legend(loc="upper center", ncols=2, frameon=False)


def _picture(axes: Axes, of_run: Mapping[str, Pairs]) -> None:
    """The plane in which the representations of both tasks differ most; a user's two are joined."""
    shown = {name: pairs.take(np.arange(min(SHOWN_USERS, len(pairs.single)))) for name, pairs in of_run.items()}
    everything = np.concatenate([values for pairs in shown.values() for values in (pairs.single, pairs.cross)])
    centre = everything.mean(0)
    plane = np.linalg.svd(everything - centre, full_matrices=False)[2][:2].T
    for number, (name, pairs) in enumerate(shown.items()):
        single, cross = (pairs.single - centre) @ plane, (pairs.cross - centre) @ plane
        axes.plot(*np.stack([single, cross]).transpose(2, 0, 1), color=colour(number), linewidth=0.3, alpha=0.25)
        axes.scatter(single[:, 0], single[:, 1], s=9, color=colour(number), label=f"{name}, SDSR")
        axes.scatter(
            cross[:, 0], cross[:, 1], s=12, color=colour(number), marker="x", linewidths=0.8, label=f"{name}, CDSR"
        )


def _bars(axes: Axes, found: Mapping[str, Mapping[str, dict[str, Any]]], key: str) -> None:
    domains: Sequence[str] = list(next(iter(found.values())))
    for number, (name, of_run) in enumerate(found.items()):
        present = [(place, of_run[domain]) for place, domain in enumerate(domains) if of_run[domain][key] is not None]
        places = [place + 0.4 * (number - 0.5) for place, _ in present]
        values = [one[key] for _, one in present]
        ends = [_NORMAL_95 * one["standard_error"] for _, one in present] if key == "mutual_information" else None
        axes.bar(places, values, 0.38, yerr=ends, capsize=2, color=colour(number), label=name)
    axes.set_xticks(range(len(domains)), domains)
