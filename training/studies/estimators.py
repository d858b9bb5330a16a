"""Which estimate says best where crossing domains helps and hurts, and which is the best remedy's guide?

Example:
  syncrec study estimators --work truth
  syncrec study estimators --work quick-truth --quick

LC-NTG's gap of training losses against others, cheaper and dearer: each is a number for every domain, is held against the oracle gap of
a world whose truth is known, and then takes the place of lambda in the same remedy. The work folder may be that of `syncrec study
truth`, whose trainings are then used. docs/studies/estimators.md says what came out. The figure estimators.png is kept there.
"""

import argparse
from typing import Any

from training.studies.estimator_findings import COSTS, ORACLE, Findings, Tried, find
from training.studies.known_truth import network_settings
from training.studies.outcome import Outcome, StudyTable
from training.studies.truth import add_arguments as add_truth_arguments
from training.studies.truth import asked


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments, which are those of `syncrec study truth`."""
    add_truth_arguments(parser)


def run(arguments: argparse.Namespace) -> Outcome:
    """Train what is missing, and say what it shows."""
    effort, seeds = asked(arguments)
    found = find(arguments.work, effort, seeds)
    from training.studies.estimator_figure import draw_estimators  # noqa: PLC0415 (matplotlib takes a second to load)

    draw_estimators(found, arguments.work / "estimators.png")
    content = {
        "users": effort.users,
        "seeds": list(seeds),
        "network": network_settings(effort, seeds[0]),
        "domains": list(found.domains),
        "oracle_gap": found.oracle.tolist(),
        "harm_of_joint_training": found.harm.tolist(),
        "estimators": {one.name: _content(one) for one in found.tried},
    }
    return Outcome([_table(found), _estimates_table(found)], content)


def _content(one: Tried) -> dict[str, Any]:
    return {
        "estimates": one.estimates.tolist(),
        "weights": one.weights.tolist(),
        "spearman": one.spearman.tolist(),
        "harm_after_remedy": one.harm.tolist(),
        "ndcg_changes_after_remedy": one.changes.tolist(),
    }


def _table(found: Findings) -> StudyTable:
    rows = [["(plain joint training)", "", "", f"{found.harm.mean():.4f}", "", "", ""]]
    for one in found.tried:
        cut = 1 - one.harm / found.harm
        rows.append(
            [
                one.name,
                f"{one.spearman.mean():+.2f}",
                f"{one.spearman.min():+.2f}",
                f"{one.harm.mean():.4f}",
                f"{-cut.mean():+.1%}",
                f"{-cut.max():+.1%} to {-cut.min():+.1%}",
                "" if one.name == ORACLE else COSTS[one.name],
            ]
        )
    header = ["estimator", "Spearman", "least", "harm after remedy", "change", "of the seeds", "costs"]
    return StudyTable(
        "rank correlation with the oracle gap; harm: NDCG@10 lost to independent models, summed over domains that lose",
        header,
        rows,
        left=(0, 6),
    )


def _estimates_table(found: Findings) -> StudyTable:
    rows = []
    for one in found.tried:
        rows.append([one.name, *(f"{value:+.3g}" for value in one.estimates.mean(axis=0))])
        rows.append(["  weights", *(f"{value:.2f}" for value in one.weights.mean(axis=0))])
    return StudyTable("estimates and the weights made of them, means of the seeds", ["", *found.domains], rows)
