"""What a run serves: CDSR alone, as the paper does, or the mixture, as `default` does."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model.mixed_ranker import CROSS, Weights
from training.cases import contexts
from training.config import RunConfig, TrainingConfig
from training.dataset import Dataset
from training.members import NAMES, Members, fit_members
from training.memory import bounded_memory
from training.methods import syncrec_config
from training.mixture import MixtureScorer, fit_mixture, read_mixture, write_mixture
from training.ranking import Catalogue, Scorer
from training.run import TrainedRun, open_trained
from training.task import catalogue_of, drawn_cases, drops_repeats

MIXED: Final = "mixture"
# Per domain; their candidates' shares are kept while the domain's weights are searched for: about 100 MB.
FITTED_CASES: Final = 3000


@dataclass(frozen=True)
class ServedMixture:
    """The members, fitted on the run's dataset, and their weights per domain."""

    members: Members
    weights: list[Weights]


def serves_mixture(config: RunConfig) -> bool:
    """Whether runs with this config serve a mixture."""
    return isinstance(config, TrainingConfig) and config.mixture


def served_mixture(trained: TrainedRun) -> ServedMixture:
    """The mixture of a run.

    Raises:
        WorkFailed: its weights are missing or damaged.
    """
    weights = read_mixture(trained.run.path, trained.dataset.domains, NAMES)
    return ServedMixture(fit_members(trained.dataset, syncrec_config(trained.run.config).max_history), weights)


def scorers_of(trained: TrainedRun, catalogue: Catalogue) -> dict[str, Scorer]:
    """What a run can rank by; the first is what it serves."""
    network = trained.objective.scorers(catalogue)
    if not serves_mixture(trained.run.config):
        return network
    mixture = served_mixture(trained)
    return {MIXED: MixtureScorer(mixture.members.scorers(network), mixture.weights), **network}


def choose_mixture(path: Path, dataset_path: Path | None = None) -> list[Weights]:
    """Fit the weights of a finished run on its validation events and keep them beside it.

    Args:
        path: of the run.
        dataset_path: where the dataset is now, if it was moved.
    """
    trained = open_trained(path, dataset_path)
    members = fit_members(trained.dataset, syncrec_config(trained.run.config).max_history)
    network = trained.objective.scorers(catalogue_of(trained.dataset))
    weights = weights_on_validation(trained.dataset, members.scorers(network))
    write_mixture(path, trained.dataset.domains, weights)
    return weights


def weights_on_validation(dataset: Dataset, members: Mapping[str, Scorer]) -> list[Weights]:
    """Weights of these members, CDSR among them, chosen on a dataset's validation events; see `fit_mixture`."""
    cases = contexts(dataset, "validation")
    cases = cases.take(drawn_cases(cases, FITTED_CASES, seed=0))
    with bounded_memory():
        return fit_mixture(members, cases, catalogue_of(dataset), drops_repeats(dataset), default=CROSS)
