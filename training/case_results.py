"""The rank of every case, kept beside the run, so that comparing runs scores nothing twice.

RUN/cases-<part>.parquet: the table of `training.case_table`, and in its metadata what it was made of and how.
"""

import json
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Literal

import polars as pl
from polars.exceptions import PolarsError

from formats.errors import WorkFailed, WrongUse
from formats.files import replace_file
from formats.manifests import sha256_of
from training.case_table import KEY, ranks_of
from training.evaluate import Evaluation, Protocol, score_part
from training.metrics import Ranks
from training.mixture import MIXTURE
from training.run import BEST, open_trained
from training.task import drops_repeats

Part = Literal["validation", "test"]
_ABOUT: Final = "syncrec"
_SCHEMA_VERSION: Final = 1


@dataclass(frozen=True)
class CaseResults:
    """Ranks of one scorer of one run.

    name: for a reader.
    fingerprint: of the dataset.
    protocol: how the cases were scored.
    cases: user_id, domain (an Enum of all domains) and place; together they say which case it is, [cases].
    ranks: of the targets, [cases].
    """

    name: str
    fingerprint: str
    protocol: Protocol
    cases: pl.DataFrame
    ranks: Ranks


def write_case_results(path: Path, evaluation: Evaluation) -> None:
    """Keep the results of a run's evaluation; those of an earlier one of the same part are replaced.

    Raises:
        WorkFailed: the file cannot be written.
    """
    about = {
        "schema_version": _SCHEMA_VERSION,
        "fingerprint": evaluation.dataset.fingerprint,
        "model": _model(path),
        "protocol": asdict(evaluation.protocol),
        "scorers": list(evaluation.answers),
    }
    content = BytesIO()  # written by Python, which raises OSError on a full disk; Polars raises something of its own
    evaluation.table().write_parquet(content, metadata={_ABOUT: json.dumps(about)})
    replace_file(_file(path, evaluation.protocol.part), content.getbuffer())


def case_results(path: Path, part: Part, scorer: str | None = None, dataset: Path | None = None) -> CaseResults:
    """Ranks of a run's cases; it is evaluated first where that was not done yet, or its model has changed since.

    Args:
        path: of the run.
        part: of the dataset.
        scorer: one of those that the run can rank by, or `popularity`; None: what the run serves.
        dataset: where the dataset is now, if it was moved.
    Raises:
        WrongUse: there is no such scorer.
        WorkFailed: no run, no checkpoint yet, or a damaged file.
    """
    file = _file(path, part)
    about, table = _read(file)
    if about.get("schema_version") != _SCHEMA_VERSION or about["model"] != _model(path):
        trained = open_trained(path, dataset)
        write_case_results(path, score_part(trained, Protocol(part, drops_repeats(trained.dataset))))
        about, table = _read(file)
    scorer = scorer or about["scorers"][0]
    if scorer not in about["scorers"]:
        raise WrongUse(f"{path}: ranks by {', '.join(about['scorers'])}, not by {scorer}")
    return CaseResults(
        name=f"{path.name}:{scorer}",
        fingerprint=about["fingerprint"],
        protocol=Protocol(**about["protocol"]),
        cases=table.select(KEY),
        ranks=ranks_of(table, scorer),
    )


def _file(path: Path, part: Part) -> Path:
    return path / f"cases-{part}.parquet"


def _read(file: Path) -> tuple[dict[str, Any], pl.DataFrame]:
    """What the file says of itself, and its table; nothing if there is none."""
    if not file.exists():
        return {}, pl.DataFrame()
    try:
        return json.loads(pl.read_parquet_metadata(file).get(_ABOUT, "{}")), pl.read_parquet(file, glob=False)
    except (PolarsError, OSError, ValueError) as error:
        raise WorkFailed(f"{file}: damaged: {str(error).splitlines()[0]}; remove it to evaluate again") from error


def _model(path: Path) -> dict[str, str]:
    """Says what the run answers by; a run that was trained on says something else."""
    return {name: sha256_of(path / name) for name in (BEST, MIXTURE) if (path / name).exists()}
