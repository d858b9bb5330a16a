"""The bundle: what training hands to the service, one folder per model version, never changed afterwards.

    <model_version>/
        manifest.json    Manifest below
        ranker.onnx      encoded history -> top-k items per domain
        items.parquet    item_index, item_id, domain, popularity, optional recent_*d, title and category
        warmup.jsonl     real requests, one WarmupRequest a line, with the answers that the checkpoint gives
        vectors.npy      optional, with neighbours.npy: what is similar to an item (formats/vectors.py)
        neighbours.npy   (formats/neighbours.py)
        README.md        model card

No pickles. Item indices run from 1, contiguous per domain in the order of `Manifest.domains`, within a domain by falling
popularity, so that the graph's ties go to the more popular item.
"""

import hashlib
import json
import math
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from formats.errors import WorkFailed
from formats.folders import new_folder
from formats.graphs import GraphValue, read_graph
from formats.manifests import checked, read_json_object, sha256_of
from formats.neighbours import NEIGHBOURS, read_neighbours
from formats.vectors import VECTORS, read_vectors

SCHEMA_VERSION: Literal[1] = 1
MAX_K = 100
# Export writes about 0.1 MB. Each line costs a run of the graph at every start and switch.
WARMUP_LIMIT_BYTES = 8 * 2**20
MANIFEST, GRAPH, ITEMS, WARMUP, CARD = "manifest.json", "ranker.onnx", "items.parquet", "warmup.jsonl", "README.md"


class TensorSpec(BaseModel):
    """Name, element type and shape of one input or output of the graph; a string in the shape is a free dimension."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    dtype: Literal["int32", "int64", "float32", "bool"]
    shape: tuple[int | str, ...]


def graph_inputs(domains: int, slots: int, recent: tuple[int, int] = (0, 0)) -> tuple[TensorSpec, ...]:
    """What a ranker reads.

    history: encoded by `formats.history.encode_histories`.
    exclude: item indices that must not be answered, 0 = none.
    restricted: whether only `include` may be answered in this domain.
    include: item indices that may be answered in restricted domains, 0 = none. `exclude` wins over `include`.
    k: items per domain, 1 to MAX_K.
    recent: only if the mixture counts recent events, of this shape, [half-lives, items + 2]: how often each item was chosen
        lately, an event losing half its weight in each row's half-life; one for the whole batch.
    """
    return (
        TensorSpec(name="history", dtype="int32", shape=("batch", slots)),
        TensorSpec(name="exclude", dtype="int32", shape=("batch", "excluded")),
        TensorSpec(name="restricted", dtype="bool", shape=("batch", domains)),
        TensorSpec(name="include", dtype="int32", shape=("batch", "included")),
        TensorSpec(name="k", dtype="int64", shape=()),
        *([TensorSpec(name="recent", dtype="float32", shape=recent)] if recent[0] else []),
    )


def recent_column(half_life_days: float) -> str:
    """The column of items.parquet with the decayed counts of events at the time of the export, and that member's name."""
    return f"recent_{half_life_days:g}d"


def graph_outputs(domains: int) -> tuple[TensorSpec, ...]:
    """What every ranker answers: scores, falling, and item indices. A place without a candidate: -inf and 0."""
    return (
        TensorSpec(name="scores", dtype="float32", shape=("batch", domains, "k")),
        TensorSpec(name="item_index", dtype="int32", shape=("batch", domains, "k")),
    )


class Manifest(BaseModel):
    """`manifest.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    schema_version: Literal[1] = SCHEMA_VERSION
    model_version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    created_at: AwareDatetime
    domains: tuple[str, ...] = Field(min_length=1)
    items_per_domain: dict[str, int]
    max_history: int = Field(ge=1)
    dim: int = Field(ge=1)
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    mixture: dict[str, dict[str, float]] | None = Field(default=None, description="domain -> member -> weight")
    recent_half_lives_days: tuple[float, ...] = Field(
        default=(), description="of the rows of the graph's input `recent`"
    )
    training_config: dict[str, Any]
    dataset_fingerprint: str
    evaluation: dict[str, Any]
    opset: int
    files: dict[str, str] = Field(description="SHA-256 of every other file of the bundle")
    manifest_sha256: str = Field(default="", description="SHA-256 of this file without it, see `sealed_manifest`")

    @property
    def items(self) -> int:
        """Number of items over all domains."""
        return sum(self.items_per_domain.values())


class WarmupRequest(BaseModel):
    """One real history and what the checkpoint answers to it: the first `k` per domain, seen items excluded."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    user_id: str
    history: list[tuple[str, str]] = Field(description="(domain, item_id), oldest first")
    k: int = Field(ge=1, le=MAX_K)
    answer: dict[str, list[tuple[str, float]]] = Field(description="domain -> (item_id, score), best first")


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and found whole."""

    path: Path
    manifest: Manifest

    @property
    def graph(self) -> Path:
        """The ONNX file."""
        return self.path / GRAPH

    def items(self) -> pl.DataFrame:
        """The catalogue in order of item_index, which starts at 1.

        Raises:
            WorkFailed: it cannot be read, or holds another number of items than the manifest says.
        """
        file, wanted = self.path / ITEMS, self.manifest.items
        try:
            # Before they are read: a few kilobytes of Parquet can hold billions of equal rows.
            rows = pl.scan_parquet(file).select(pl.len()).collect().item()
            if rows != wanted:
                raise WorkFailed(f"{file}: domain: {rows} rows, not the {wanted} of {MANIFEST}")
            return pl.read_parquet(file)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise WorkFailed(f"{file}: cannot be read as Parquet: {' '.join(str(error).split())[:300]}") from error

    def recent(self) -> NDArray[np.float32]:
        """The graph's input `recent` as it was at the export, [half-lives, items + 2]; no rows if it reads none."""
        items = self.items()
        columns = [items[recent_column(days)].to_numpy() for days in self.manifest.recent_half_lives_days]
        rows = np.zeros((len(columns), self.manifest.items + 2), dtype=np.float32)
        if columns:
            rows[:, 1:-1] = columns
        return rows

    def vectors(self) -> NDArray[np.float32] | None:
        """Vectors of all items, memory-mapped, [items, dim]; row n is of item_index n + 1. None if the bundle has none."""
        if VECTORS not in self.manifest.files:
            return None
        return read_vectors(self.path / VECTORS, self.manifest.items, self.manifest.dim)

    def neighbours(self) -> NDArray[np.int32] | None:
        """Neighbours of all items, memory-mapped, [items, domain, NEIGHBOURS_KEPT], 0 = none. None if the bundle has none."""
        if NEIGHBOURS not in self.manifest.files:
            return None
        return read_neighbours(self.path / NEIGHBOURS, tuple(self.manifest.items_per_domain.values()))

    def warmup(self) -> list[WarmupRequest]:
        """The recorded requests.

        Raises:
            WorkFailed: names the line and the field that do not fit.
        """
        file, requests = self.path / WARMUP, []
        if (size := file.stat().st_size) > WARMUP_LIMIT_BYTES:
            raise WorkFailed(f"{file}: {size} bytes, at most {WARMUP_LIMIT_BYTES} are asked again")
        # Of bytes: of a text, the separators of Unicode, which may stand in an id, would end a line, too.
        for number, line in enumerate(file.read_bytes().splitlines(), start=1):
            try:
                requests.append(WarmupRequest.model_validate_json(line))
            except ValidationError as error:
                first = error.errors(include_input=False, include_url=False)[0]
                raise WorkFailed(f"{file}:{number}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        return requests


def write_bundle(
    models: Path, manifest: Callable[[dict[str, str]], Manifest], version: str, fill: Callable[[Path], None]
) -> Bundle:
    """Write `models/<version>/` whole or not at all.

    Args:
        models: the models folder; made if missing.
        manifest: makes the manifest once the checksums of all other files are known.
        version: the model_version.
        fill: writes every file but the manifest into the folder it is given, and checks them.
    Raises:
        WrongUse: the version exists already.
        WorkFailed: the disk is full or cannot be written.
    """
    with new_folder(models / version) as folder:
        fill(folder)
        files = {file.name: sha256_of(file) for file in sorted(folder.iterdir())}
        (folder / MANIFEST).write_bytes(sealed_manifest(manifest(files).model_dump(mode="json")))
        read_bundle(folder)
    return read_bundle(models / version)


def read_bundle(path: Path) -> Bundle:
    """Read and check a bundle: schema, checksums, every file, and that the graph was made with this version's inputs.

    Raises:
        WorkFailed: names the file and the field that do not fit.
    """
    manifest = _read_manifest(path / MANIFEST)
    present = _files(path) - {MANIFEST}
    similar = {VECTORS, NEIGHBOURS}
    for name in (GRAPH, ITEMS, WARMUP, CARD, *(sorted(similar) if similar & manifest.files.keys() else ())):
        if name not in manifest.files:
            raise WorkFailed(f"{path / MANIFEST}: files: {name} is missing")
    if present != set(manifest.files):
        odd = ", ".join(sorted(present ^ set(manifest.files)))
        raise WorkFailed(f"{path}: files and {MANIFEST} differ: {odd}")
    for name, checksum in manifest.files.items():
        if sha256_of(path / name) != checksum:
            raise WorkFailed(f"{path / name}: SHA-256 differs from {MANIFEST}: the file was changed or damaged")
    for field, wanted in (
        ("inputs", _inputs(manifest)),
        ("outputs", graph_outputs(len(manifest.domains))),
    ):
        if getattr(manifest, field) != wanted:
            raise WorkFailed(f"{path / MANIFEST}: {field}: not those of schema version {SCHEMA_VERSION}")
    graph_reads, graph_answers = read_graph(path / GRAPH)
    _check_values(path / GRAPH, "input", graph_reads, manifest.inputs)
    _check_values(path / GRAPH, "output", graph_answers, manifest.outputs)
    bundle = Bundle(path, manifest)
    _check_items(bundle)
    bundle.vectors()  # to read these is to check them
    bundle.neighbours()
    bundle.warmup()
    return bundle


def newest_bundle(models: Path) -> Bundle:
    """The bundle with the newest `created_at` in the models folder.

    Raises:
        WorkFailed: there is none, or the newest is damaged.
    """
    if not models.is_dir():
        raise WorkFailed(f"{models}: no such models folder; `syncrec export` makes it")
    manifests = [(_read_manifest(file), file.parent) for file in models.glob(f"[!.]*/{MANIFEST}")]
    if not manifests:
        raise WorkFailed(f"{models}: holds no bundle; `syncrec export RUN --out {models}` makes one")
    _, path = max(manifests, key=lambda found: found[0].created_at)
    return read_bundle(path)


def list_bundles(models: Path) -> dict[str, Manifest | WorkFailed]:
    """What the models folder holds, newest first: folder name -> manifest, or what is wrong with it; those come last."""
    found: dict[str, Manifest | WorkFailed] = {}
    for file in sorted(models.glob(f"[!.]*/{MANIFEST}")):
        try:
            found[file.parent.name] = _read_manifest(file)
        except WorkFailed as error:
            found[file.parent.name] = error

    def age(name: str) -> float:
        manifest = found[name]
        return math.inf if isinstance(manifest, WorkFailed) else -manifest.created_at.timestamp()

    return {name: found[name] for name in sorted(found, key=age)}


def _read_manifest(file: Path) -> Manifest:
    text, content = read_json_object(file, SCHEMA_VERSION, missing="")
    if not _is_sealed(text, content.get("manifest_sha256")):
        raise WorkFailed(f"{file}: manifest_sha256: does not fit the rest of the file: it was changed or damaged")
    manifest = checked(file, content, Manifest)
    if list(manifest.items_per_domain) != list(manifest.domains):
        raise WorkFailed(f"{file}: items_per_domain: not the domains in order")
    if any("/" in name or "\\" in name or name in {".", ".."} for name in manifest.files):
        raise WorkFailed(f"{file}: files: a name leaves the bundle's folder")
    return manifest


def sealed_manifest(content: dict[str, Any]) -> bytes:
    """`manifest.json` as it is written: JSON that carries the SHA-256 of its own bytes without it."""
    unsealed = json.dumps({**content, "manifest_sha256": ""}, indent=2) + "\n"
    digest = hashlib.sha256(unsealed.encode()).hexdigest()
    return json.dumps({**content, "manifest_sha256": digest}, indent=2).encode() + b"\n"


def _is_sealed(text: bytes, digest: object) -> bool:
    if not isinstance(digest, str):
        return False
    return hashlib.sha256(text.replace(digest.encode(), b"", 1)).hexdigest() == digest


def _inputs(manifest: Manifest) -> tuple[TensorSpec, ...]:
    recent = (len(manifest.recent_half_lives_days), manifest.items + 2)
    return graph_inputs(len(manifest.domains), manifest.max_history + 1, recent)


def _files(path: Path) -> set[str]:
    """The names in a bundle's folder, each of a file of its own: a link could lead out of it, a pipe never ends."""
    names = set()
    for file in path.iterdir():
        if not stat.S_ISREG(file.lstat().st_mode):
            raise WorkFailed(f"{file}: not a regular file")
        names.add(file.name)
    return names


def _check_values(file: Path, side: str, found: Sequence[GraphValue], wanted: Sequence[TensorSpec]) -> None:
    """Compare the graph's inputs or outputs with the manifest's; their free dimensions may have other names."""
    by_name = {value.name: value for value in found}
    for spec in wanted:
        value = by_name.pop(spec.name, None)
        if value is None:
            raise WorkFailed(f"{file}: {side} {spec.name}: missing")
        if value.dtype != spec.dtype:
            raise WorkFailed(f"{file}: {side} {spec.name}: of {value.dtype}, not {spec.dtype}")
        if value.shape is None or _sizes(value.shape) != _sizes(spec.shape):
            raise WorkFailed(f"{file}: {side} {spec.name}: of shape {value.shape}, not {spec.shape}")
    if by_name:
        raise WorkFailed(f"{file}: {side} {next(iter(by_name))}: not one of schema version {SCHEMA_VERSION}")


def _sizes(shape: tuple[int | str, ...]) -> list[int | None]:
    return [size if isinstance(size, int) else None for size in shape]


def _check_items(bundle: Bundle) -> None:
    file, manifest = bundle.path / ITEMS, bundle.manifest
    items = bundle.items()
    recent = map(recent_column, manifest.recent_half_lives_days)
    for column in ("item_index", "item_id", "domain", "popularity", *recent):
        if column not in items.columns:
            raise WorkFailed(f"{file}: {column}: column is missing")
        kind = items.schema[column]
        if not (_is_text(kind) if column in {"item_id", "domain"} else kind.is_numeric()):
            raise WorkFailed(f"{file}: {column}: holds {kind}")
        if items[column].has_nulls():
            raise WorkFailed(f"{file}: {column}: a value is missing")
    for column in {"title", "category"} & set(items.columns):
        if not _is_text(items.schema[column]):
            raise WorkFailed(f"{file}: {column}: holds {items.schema[column]}")
    wanted = pl.Series(
        "domain", [name for name, count in manifest.items_per_domain.items() for _ in range(count)], dtype=pl.String
    )
    if not items["domain"].equals(wanted, null_equal=False):
        raise WorkFailed(f"{file}: domain: does not follow items_per_domain of {MANIFEST}")
    if not items["item_index"].cast(pl.Int64).equals(pl.int_range(1, len(items) + 1, eager=True).rename("item_index")):
        raise WorkFailed(f"{file}: item_index: not 1 to {len(items)} in order")


def _is_text(kind: pl.DataType) -> bool:
    return isinstance(kind, pl.String | pl.Categorical | pl.Enum)
