"""The model card: the README.md of a bundle."""

from datetime import datetime
from typing import Any, Final

from training.config import TrainingConfig
from training.dataset import Dataset

# In the order of the table: what is served stands first.
SCORERS: Final = {"mixture": "mixture", "cross": "CDSR", "single": "SDSR", "popularity": "popularity"}


def model_card(
    version: str, created: datetime, dataset: Dataset, config: TrainingConfig, evaluation: dict[str, Any]
) -> str:
    """What the model is, what it was trained on, how good it is and what it does not know."""
    shown = [name for name in SCORERS if name in evaluation["macro"]]
    rows = [
        f"| {name} | {size:,} | {table['n']:,} | {' | '.join(_cell(table[scorer]) for scorer in shown)} "
        f"| {table['lambda']:+.4f} | {table['weight']:.3f} |"
        for (name, table), size in zip(evaluation["domains"].items(), dataset.items_per_domain, strict=True)
    ]
    return "\n".join(
        [
            f"# SyNCRec model {version}",
            "",
            f"Made {created:%Y-%m-%d %H:%M} UTC. Reads a user's newest {config.max_history} events of all domains and answers the "
            f"items of each domain that fit next best. {dataset.items:,} items in {len(dataset.domains)} domains, "
            f"{dataset.train.events:,} training events of {dataset.train.users:,} users.",
            "",
            f"Evaluated on the {evaluation['part']} events, ranking {evaluation['ranking']}, seen items "
            f"{evaluation['seen_items']}. NDCG@10 of what is served, {SCORERS[shown[0]]}, and of the rest to compare with. CDSR is the "
            "cross-domain task of the network, SDSR its single-domain task"
            + (
                "; the mixture adds recent popularity and item kNN, with the weights per domain that are in manifest.json:"
                if config.mixture
                else ":"
            ),
            "",
            f"| domain | items | events | {' | '.join(SCORERS[name] for name in shown)} | gap λ | weight |",
            f"| --- | ---: | ---: | {'---: | ' * len(shown)}---: | ---: |",
            *rows,
            "",
            "λ below 0: the cross-domain task fits this domain worse than the single-domain task (negative transfer), so its "
            "loss had less weight in training.",
            "",
            "It does not know items that came after its training events, and recommends nothing to users without known "
            "events: the service answers those by popularity and says so.",
            "",
        ]
    )


def _cell(metrics: dict[str, float] | None) -> str:
    return "–" if metrics is None else f"{metrics['ndcg@10']:.4f}"
