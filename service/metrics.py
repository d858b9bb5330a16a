"""What Prometheus sees. One registry per application, so that two in one process do not mix. Never a user id."""

import os
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from service.ranking.batcher import BatchTimes

# prometheus_client keeps the counts of all processes in this folder, if it is set before its import.
MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
# Seconds. A batch of one takes about 0.2 ms, the default deadline is 1 s.
BUCKETS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
STAGES = ("history", "queue", "inference", "rest")
SOURCES = ("model", "popularity", "degraded")


class Metrics:
    """The counters and histograms of one application."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._recommendations = Counter(
            "syncrec_recommendations",
            "Answers of /recommend by where they came from and by model.",
            ["source", "model_version"],
            registry=registry,
        )
        self._responses = Counter(
            "syncrec_http_responses", "Responses by route and status.", ["route", "status"], registry=registry
        )
        self._request_seconds = Histogram(
            "syncrec_recommend_seconds",
            "From the body's arrival to the answer, of each request that was answered.",
            ["source", "model_version"],
            registry=registry,
            buckets=BUCKETS_S,
        )
        # Looked up once: .labels() costs more than observe().
        self._of_answers: dict[tuple[str, str], tuple[Counter, Histogram]] = {}
        stage = Histogram(
            "syncrec_stage_seconds",
            "Time in one stage of /recommend: history (Redis), queue (waiting for the model), inference (one batch), rest.",
            ["stage"],
            registry=registry,
            buckets=BUCKETS_S,
        )
        self._history, self._queue, self._inference, self._rest = (stage.labels(name) for name in STAGES)
        self._batch_size = Histogram(
            "syncrec_batch_size", "Requests ranked in one run of the model.", registry=registry, buckets=BATCH_BUCKETS
        )
        self._queued = Gauge(
            "syncrec_queue_requests",
            "Requests that wait for the model.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._failures = Counter(
            "syncrec_part_failures",
            "Requests answered without a part that failed: history or model.",
            ["part", "reason"],
            registry=registry,
        )
        self._events = Counter(
            "syncrec_events",
            "Events of /events by what became of them: accepted, duplicate or rejected.",
            ["outcome"],
            registry=registry,
        )
        self._left = Counter(
            "syncrec_abandoned_requests", "Requests whose client left before the answer.", registry=registry
        )
        self._provider = Gauge(
            "syncrec_provider_info",
            "1 for the ONNX Runtime provider that was asked for and the one that runs the model.",
            ["asked", "got"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._runs = Counter(
            "syncrec_gpu_runs",
            "Runs of the model on a GPU: graph (a CUDA graph was replayed), bound (fixed buffers, no CUDA graph) or unbound.",
            ["kind"],
            registry=registry,
        )
        self._model = Gauge(
            "syncrec_model_info",
            "1 for the served model.",
            ["model_version"],
            registry=registry,
            multiprocess_mode="livemax",
        )

    def serves(self, model_version: str, asked: str, got: str) -> None:
        """Which model is served, and on what."""
        self._model.labels(model_version).set(1)
        self._provider.labels(asked, got).set(1)
        for source in SOURCES:  # so that a rate exists from the first scrape on
            self._answers(source, model_version)

    def retires(self, model_version: str) -> None:
        """A model is served no longer."""
        self._model.labels(model_version).set(0)

    def batch(self, times: BatchTimes) -> None:
        """One run of the model."""
        self._batch_size.observe(times.size)
        self._inference.observe(times.run_s)
        self._queued.set(times.left)
        for queued_s in times.queued_s:
            self._queue.observe(queued_s)

    def gpu_run(self, kind: str) -> None:
        """One run of the model on a GPU."""
        self._runs.labels(kind).inc()

    def history(self, seconds: float) -> None:
        """One read of a history, successful or not."""
        self._history.observe(seconds)

    def failure(self, part: str, reason: str) -> None:
        """One request that goes on without `part`."""
        self._failures.labels(part, reason).inc()

    def answered(self, source: str, model_version: str, total_s: float, rest_s: float) -> None:
        """One answer of /recommend, and how much of its time neither Redis nor the ranker took."""
        counter, seconds = self._answers(source, model_version)
        counter.inc()
        seconds.observe(total_s)
        self._rest.observe(rest_s)

    def abandoned(self) -> None:
        """One request whose client left."""
        self._left.inc()

    def events(self, outcome: str, count: int) -> None:
        """So many events of one call."""
        self._events.labels(outcome).inc(count)

    def response(self, route: str, status: int) -> None:
        """One HTTP response."""
        self._responses.labels(route, str(status)).inc()

    def _answers(self, source: str, model_version: str) -> tuple[Counter, Histogram]:
        key = source, model_version
        if key not in self._of_answers:
            self._of_answers[key] = self._recommendations.labels(*key), self._request_seconds.labels(*key)
        return self._of_answers[key]

    def exposition(self) -> bytes:
        """Everything as text for Prometheus; of all workers, where the command made a folder for their counts."""
        if MULTIPROCESS_DIR not in os.environ:
            return generate_latest(self.registry)
        _forget_the_dead(os.environ[MULTIPROCESS_DIR])
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)


def _forget_the_dead(folder: str) -> None:
    """What a worker that was killed said of itself, such as which model it serves, is true no more."""
    for file in Path(folder).glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            mark_process_dead(pid)  # type: ignore[no-untyped-call]
