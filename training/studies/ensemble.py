"""The control for the mixture: two single-domain models that differ in their seeds, their shares averaged.

What a mixture of a single-domain and a cross-domain model gains over the former may be nothing but two models instead of one.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from training.case_results import CaseResults, case_results
from training.cases import contexts
from training.members import shares_of_logits
from training.memory import bounded_memory
from training.mixture import MixtureScorer
from training.ranking import rank_cases
from training.run import open_trained
from training.task import catalogue_of, drawn_cases


def ensemble(runs: Sequence[Path]) -> CaseResults:
    """Results on the test events of what the runs serve together, on the cases of the first one's evaluation.

    Raises:
        WorkFailed: no run, no checkpoint yet, or a damaged file.
    """
    first = case_results(runs[0], "test")
    trained = [open_trained(run) for run in runs]
    dataset = trained[0].dataset
    catalogue = catalogue_of(dataset)
    members = {
        str(run.run.path): shares_of_logits(next(iter(run.objective.scorers(catalogue).values()))) for run in trained
    }
    weights = [dict.fromkeys(members, 1 / len(members)) for _ in dataset.domains]
    cases = contexts(dataset, "test")
    cases = cases.take(drawn_cases(cases, first.protocol.max_cases, seed=0))
    with bounded_memory():
        ranks = rank_cases(cases, MixtureScorer(members, weights), catalogue, first.protocol.exclude_seen)
    return replace(first, name=" and ".join(run.name for run in runs), ranks=ranks)
