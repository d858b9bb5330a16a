"""What `syncrec bench gpu` measures: every way to run a bundle's graph, its answers beside the CPU's, its time beside floors.

A run is timed from arrays in memory to arrays in memory: padding and the copies to and from the card are part of it.

Floors, for a batch of `rows`; no implementation of this graph in float32 can be faster than either:

    memory       (bytes of the graph file + 2 · 4 · rows · items) / bandwidth: every weight is read once, every score written
                 and read once
    arithmetic   2 · rows · items · dim / rate: the product of the histories with all items, without the network before it
"""

import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from formats.bundle import MAX_K, Bundle
from formats.errors import WorkFailed
from formats.runtime import import_onnxruntime
from service.ranking.bound_session import BoundSession
from service.ranking.buckets import ROWS, Buckets
from service.ranking.catalog import NO_ITEMS, Catalog, read_catalog
from service.ranking.fixed_k import with_fixed_k
from service.ranking.gpu_session import NoSuchProvider, open_way, ways
from service.ranking.query import Query
from service.ranking.ranker import make_batch, rank_batch
from service.ranking.session import CPU, GraphSession, new_session, one_line, open_session
from service.ranking.warmup import difference, recorded_query, with_ids
from service.settings import Settings

ON_CPU = "CPU"
RANDOM_HISTORIES = 500

# Part of the card's name, GB/s, TFLOP/s in float32 without tensor cores: NVIDIA's data sheets. The first that fits.
CARDS = (
    ("H200", 4800.0, 67.0),
    ("H100 NVL", 3900.0, 60.0),
    ("H100 PCIe", 2000.0, 51.0),
    ("H100", 3350.0, 67.0),
    ("A100-SXM4-80GB", 2039.0, 19.5),
    ("A100 80GB", 1935.0, 19.5),
    ("A100", 1555.0, 19.5),
    ("L40S", 864.0, 91.6),
    ("L40", 864.0, 90.5),
    ("L4", 300.0, 30.3),
    ("A10", 600.0, 31.2),
    ("T4", 320.0, 8.1),
    ("V100", 900.0, 15.7),
    ("RTX 4090", 1008.0, 82.6),
    ("RTX 3090", 936.0, 35.6),
)


@dataclass(frozen=True)
class Card:
    """A GPU by its data sheet. bandwidth_gb_s, tflops: None where the table does not have it."""

    name: str
    bandwidth_gb_s: float | None
    tflops: float | None


@dataclass(frozen=True)
class BucketTime:
    """Batches of so many requests. Of so many runs: median and 99th percentile, and requests per second at the median."""

    rows: int
    runs: int
    p50_ms: float
    p99_ms: float
    users_per_s: float


@dataclass(frozen=True)
class Agreement:
    """One way's lists beside the CPU's.

    lists: compared, one per request and domain, of MAX_K items or as many as there are.
    near_ties: of these, lists that differ only in the order of nearly equal scores.
    differing: lists that differ in more. first_difference: of them.
    largest_score_difference: of the same rank, relative to the list's first score or to 1, whichever is more.
    """

    lists: int
    near_ties: int
    differing: int
    first_difference: str | None
    largest_score_difference: float


@dataclass(frozen=True)
class WayMeasured:
    """One way. problem: why it did not run; then there is neither agreement nor time. load_s: until every bucket was warm."""

    name: str
    problem: str | None
    load_s: float | None
    agreement: Agreement | None
    times: tuple[BucketTime, ...]


@dataclass(frozen=True)
class Floor:
    """The least time of a batch on the card. Milliseconds."""

    rows: int
    memory_ms: float
    arithmetic_ms: float


@dataclass(frozen=True)
class GpuBench:
    """The whole result."""

    model_version: str
    items: int
    dim: int
    graph_bytes: int
    card: Card | None
    floors: tuple[Floor, ...]
    ways: tuple[WayMeasured, ...]
    versions: dict[str, str]

    @property
    def differing(self) -> list[str]:
        """One line for each way whose answers are not the CPU's."""
        return [
            f"{way.name}: {way.agreement.differing} of {way.agreement.lists} lists: {way.agreement.first_difference}"
            for way in self.ways
            if way.agreement is not None and way.agreement.differing
        ]


def measure_gpu(
    bundle: Bundle, provider: Literal["gpu", "cpu"], settings: Settings, seconds: float, tell: Callable[[str], None]
) -> GpuBench:
    """Compare and time every way.

    Args:
        bundle: the model.
        provider: `cpu`: the CPU with and without buckets, on a machine without a GPU.
        settings: threads, limits and folders; its provider and largest batch do not matter.
        seconds: for each bucket of each way.
        tell: is told what is under way.
    Raises:
        WorkFailed: there is no GPU that works, or the bundle cannot be loaded.
    """
    bench = _Bench(bundle, settings.model_copy(update={"max_batch": ROWS[-1]}), seconds)
    card = None if provider == "cpu" else find_card()
    tell(ON_CPU)
    measured = [bench.reference()]
    for candidate in bench.on_cpu() if provider == "cpu" else bench.on_gpu():
        tell(candidate.name)
        measured.append(bench.measured(candidate))
    manifest, size = bundle.manifest, bundle.graph.stat().st_size
    return GpuBench(
        model_version=manifest.model_version,
        items=manifest.items,
        dim=manifest.dim,
        graph_bytes=size,
        card=card,
        floors=floors(card, size, manifest.items, manifest.dim) if card is not None else (),
        ways=tuple(measured),
        versions={"python": platform.python_version(), "onnxruntime": import_onnxruntime().__version__},
    )


@dataclass(frozen=True)
class _Candidate:
    """A way to measure. is_needed: without its provider there is nothing to measure at all."""

    name: str
    open: Callable[[], BoundSession]
    is_needed: bool


class _Bench:
    """The requests, and what the CPU answers them."""

    def __init__(self, bundle: Bundle, settings: Settings, seconds: float) -> None:
        self._bundle, self._settings, self._seconds = bundle, settings, seconds
        self._catalog, self._recent = read_catalog(bundle), bundle.recent()
        self._queries = _queries(bundle, self._catalog)
        self._plain = open_session(bundle, "cpu", settings.threads)
        self._wanted = self._lists(self._plain)

    def reference(self) -> WayMeasured:
        return WayMeasured(ON_CPU, None, None, None, self._times(self._plain))

    def on_cpu(self) -> Iterator[_Candidate]:
        yield _Candidate(f"{ON_CPU}, fixed buffers", self._open_on_cpu, is_needed=True)

    def on_gpu(self) -> Iterator[_Candidate]:
        model = with_fixed_k(self._bundle.graph.read_bytes(), MAX_K)
        for providers in ("cuda", "tensorrt"):
            settings = self._settings.model_copy(update={"providers": providers})
            for way in ways(settings):
                opened = partial(open_way, way, model, self._bundle, settings, lambda _: None)
                yield _Candidate(way.name, opened, is_needed=providers == "cuda")

    def measured(self, candidate: _Candidate) -> WayMeasured:
        start = time.perf_counter()
        nobody = Query(NO_ITEMS, NO_ITEMS, (False,) * len(self._catalog.domains), NO_ITEMS, 1)
        try:
            session = candidate.open()
            session.warm(make_batch(self._catalog, self._recent, [nobody]))
            load_s = time.perf_counter() - start
            return WayMeasured(candidate.name, None, load_s, self._agreement(session), self._times(session))
        except Exception as error:  # ONNX Runtime's errors have no common base; the other ways are measured
            if candidate.is_needed and isinstance(error, NoSuchProvider):
                raise WorkFailed(f"no GPU to measure; --provider cpu measures the CPU alone ({error})") from error
            return WayMeasured(candidate.name, one_line(error), None, None, ())

    def _open_on_cpu(self) -> BoundSession:
        graph, manifest = self._bundle.graph, self._bundle.manifest
        session = new_session(with_fixed_k(graph.read_bytes(), MAX_K), graph, self._settings.threads, {CPU: {}})
        buckets = Buckets.up_to(ROWS[-1])
        return BoundSession(
            "cpu", session, session, manifest, buckets, device="cpu", graphs=False, count=lambda _: None
        )

    def _lists(self, session: GraphSession) -> list[dict[str, float]]:
        """One per request and domain, in batches of all sizes from 1 to the largest."""
        lists, first, size = [], 0, 1
        while first < len(self._queries):
            answers = rank_batch(self._catalog, session, self._recent, self._queries[first : first + size])
            lists += [with_ids(self._catalog, answer) for ranked in answers for answer in ranked]
            first, size = first + size, size % ROWS[-1] + 1
        return lists

    def _agreement(self, session: BoundSession) -> Agreement:
        shares = self._bundle.manifest.mixture is not None
        near_ties, largest, differences = 0, 0.0, []
        for ours, wanted in zip(self._lists(session), self._wanted, strict=True):
            if differs := difference(ours, wanted, shares):
                differences.append(differs)
            elif list(ours) != list(wanted):
                near_ties += 1
            if wanted and len(ours) == len(wanted):
                mine, theirs = (np.array(list(scores.values())) for scores in (ours, wanted))
                scale = abs(theirs[0]) if shares else max(1.0, abs(theirs[0]))
                largest = max(largest, float(np.abs(mine - theirs).max() / scale) if scale else 0.0)
        return Agreement(
            len(self._wanted), near_ties, len(differences), differences[0] if differences else None, largest
        )

    def _times(self, session: GraphSession) -> tuple[BucketTime, ...]:
        times = []
        for rows in ROWS:
            # One request is not as the next: the same ones for every way.
            batch = make_batch(self._catalog, self._recent, (self._queries * rows)[:rows])
            spans = _timed(partial(session.run, batch), self._seconds)
            p50, p99 = np.percentile(spans, [50, 99]).tolist()
            times.append(BucketTime(rows, len(spans), p50 * 1000, p99 * 1000, rows / p50))
        return tuple(times)


def _timed(run: Callable[[], object], seconds: float) -> NDArray[np.float64]:
    """Seconds of each of many runs, after three that do not count."""
    for _ in range(3):
        run()
    spans: list[float] = []
    end = time.perf_counter() + seconds
    while len(spans) < 10 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        spans.append(time.perf_counter() - start)
    return np.array(spans)


def _queries(bundle: Bundle, catalog: Catalog) -> list[Query]:
    """The recorded requests, and random histories of all lengths, what was seen left out; all with the largest k."""
    recorded = [recorded_query(catalog, request) for request in bundle.warmup()]
    chance = np.random.default_rng(0)
    lengths = chance.integers(1, catalog.max_history + 1, size=RANDOM_HISTORIES)
    histories: Sequence[NDArray[np.int32]] = [
        *(query.history for query in recorded),
        *(chance.integers(1, catalog.items + 1, size=length).astype(np.int32) for length in lengths),
    ]
    nowhere = (False,) * len(catalog.domains)
    return [Query(history, history, nowhere, NO_ITEMS, MAX_K) for history in histories]


def floors(card: Card, graph_bytes: int, items: int, dim: int) -> tuple[Floor, ...]:
    """The floors of every bucket, as the module says; none for a card that the table does not have."""
    if card.bandwidth_gb_s is None or card.tflops is None:
        return ()
    return tuple(
        Floor(
            rows,
            memory_ms=(graph_bytes + 2 * 4 * rows * items) / (card.bandwidth_gb_s * 1e9) * 1000,
            arithmetic_ms=2 * rows * items * dim / (card.tflops * 1e12) * 1000,
        )
        for rows in ROWS
    )


def find_card() -> Card | None:
    """The first card by its driver's tool; None where that is not installed, as in some containers.

    Raises:
        WorkFailed: the tool does not answer.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-gpu=name", "--format=csv,noheader"]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if asked.returncode or not asked.stdout.strip():
        raise WorkFailed(f"nvidia-smi does not name a card: {one_line(Exception(asked.stderr or asked.stdout))}")
    return card_of(asked.stdout.splitlines()[0].strip())


def card_of(name: str) -> Card:
    """A card's figures by the name that the driver gives it."""
    found = next(((bandwidth, tflops) for part, bandwidth, tflops in CARDS if part in name), (None, None))
    return Card(name, *found)
