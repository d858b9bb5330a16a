"""The graph on an NVIDIA GPU: the fastest way that works and answers as recorded, the next one otherwise, said in the log.

CUDA: with CUDA graphs, else without. TensorRT: in half precision, else in single precision.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO
from typing import Literal

from formats.bundle import MAX_K, Bundle
from formats.errors import WorkFailed
from formats.runtime import import_onnxruntime
from service.ranking.bound_session import BoundSession, CountRun
from service.ranking.buckets import Buckets
from service.ranking.fixed_k import with_fixed_k
from service.ranking.session import CPU, CUDA, TENSORRT, new_session, one_line
from service.settings import Settings

log = logging.getLogger(__name__)

DEVICE: Literal["cuda", "cpu"] = "cuda"  # where the buffers are; tests without a GPU have them elsewhere

Options = Mapping[str, Mapping[str, str]]


class NoSuchProvider(WorkFailed):
    """The provider does not work on this machine, whatever its options."""


@dataclass(frozen=True)
class Way:
    """One way to run the graph.

    name: for the log.
    providers: of the session, with their options; the first one must be what it then runs on.
    unbound: of another session, for batches that no bucket holds; None: the same session runs them.
    graphs: whether it records CUDA graphs.
    """

    name: str
    providers: Options
    unbound: Options | None
    graphs: bool


def is_wanted(settings: Settings) -> bool:
    """Whether to try a GPU: it was asked for, or ONNX Runtime is of the kind that can use one."""
    if settings.providers == "auto":
        return CUDA in import_onnxruntime().get_available_providers()
    return settings.providers != "cpu"


def ways(settings: Settings) -> list[Way]:
    """What to try, the fastest first."""
    cuda = {
        "device_id": "0",
        # Ask the card for what is needed, not for the next power of two: two models are loaded while one follows the other.
        "arena_extend_strategy": "kSameAsRequested",
        # TF32 keeps 10 bits of a factor: enough to change the order of a list.
        "use_tf32": "0",
        **({"gpu_mem_limit": str(settings.gpu_memory_bytes)} if settings.gpu_memory_bytes else {}),
    }
    plain: Options = {CUDA: cuda, CPU: {}}
    if settings.providers != "tensorrt":
        recording: Options = {CUDA: cuda | {"enable_cuda_graph": "1"}, CPU: {}}
        return [
            Way("CUDA with CUDA graphs", recording, None, graphs=True),
            Way("CUDA without CUDA graphs", plain, None, graphs=False),
        ]
    engine = {
        "device_id": "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(settings.tensorrt_cache_dir),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(settings.tensorrt_cache_dir),
    }
    half: Options = {TENSORRT: engine | {"trt_fp16_enable": "1"}, **plain}
    # An engine is built anew, for minutes, when a size is outside of what it has seen: such batches go to CUDA.
    return [
        Way("TensorRT in half precision", half, plain, graphs=False),
        Way("TensorRT in single precision", {TENSORRT: engine, **plain}, plain, graphs=False),
    ]


def open_gpu_session(
    bundle: Bundle, settings: Settings, count: CountRun, check: Callable[[BoundSession], None]
) -> BoundSession | None:
    """Load the graph in the first way that works. The calling thread must also be the one that runs it.

    Args:
        bundle: whose graph.
        settings: `providers` and what belongs to a GPU.
        count: is told how each batch ran.
        check: warms a session up and raises WorkFailed if its answers are not those recorded.
    Returns:
        None if `providers` is `auto` and there is no GPU that works.
    Raises:
        WorkFailed: no way works.
    """
    model = with_fixed_k(bundle.graph.read_bytes(), MAX_K)

    def opened(way: Way) -> BoundSession:
        session = open_way(way, model, bundle, settings, count)
        check(session)
        return session

    tried = ways(settings)
    last_resort = CPU if settings.providers == "auto" else None
    for way, following in zip(tried, [*(one.name for one in tried[1:]), last_resort], strict=True):
        try:
            return opened(way)
        except Exception as error:  # ONNX Runtime's errors have no common base below Exception
            instead = last_resort if isinstance(error, NoSuchProvider) else following
            if instead is None:
                raise _refused(bundle, way, error) from error
            log.warning(
                "%s does not work for model %s, %s is next: %s",
                way.name,
                bundle.manifest.model_version,
                instead,
                one_line(error),
            )
            if instead == CPU:
                break
    return None


def open_way(way: Way, model: bytes, bundle: Bundle, settings: Settings, count: CountRun) -> BoundSession:
    """A session that runs in this way, not warm yet.

    Raises:
        NoSuchProvider: ONNX Runtime takes another provider than the first.
        WorkFailed: it refuses the graph or the options.
    """
    _load_libraries()
    if TENSORRT in way.providers:
        settings.tensorrt_cache_dir.mkdir(parents=True, exist_ok=True)
    try:
        session = new_session(model, bundle.graph, settings.threads, way.providers)
    except WorkFailed as error:
        # Without its libraries CUDA is left out, but TensorRT raises this.
        if "install TensorRT libraries" in str(error.__cause__):
            raise NoSuchProvider(
                f"SYNCREC_PROVIDERS={settings.providers}: the libraries of TensorRT are not found, see docs/gpu.md"
            ) from error
        raise
    # Decided by what the session runs on, never by get_available_providers(): the GPU wheel lists CUDA without a GPU.
    wanted, got = next(iter(way.providers)), session.get_providers()[0]
    if got != wanted:
        raise NoSuchProvider(
            f"SYNCREC_PROVIDERS={settings.providers}: {wanted} does not work here, ONNX Runtime took {got}"
        )
    unbound = session if way.unbound is None else new_session(model, bundle.graph, settings.threads, way.unbound)
    return BoundSession(
        settings.providers,
        session,
        unbound,
        bundle.manifest,
        Buckets.up_to(settings.max_batch),
        device=DEVICE,
        graphs=way.graphs,
        count=count,
    )


@cache
def _load_libraries() -> None:
    """Load CUDA's libraries from where PyPI's packages put them, which ONNX Runtime does not search by itself."""
    onnxruntime = import_onnxruntime()
    if not hasattr(onnxruntime, "preload_dlls"):
        return
    with redirect_stdout(StringIO()) as told:  # where a JSON result may be going
        onnxruntime.preload_dlls()
    if told.getvalue():
        log.warning("libraries of CUDA: %s", " ".join(told.getvalue().split()))


def _refused(bundle: Bundle, way: Way, error: Exception) -> WorkFailed:
    if isinstance(error, WorkFailed):
        return error
    return WorkFailed(f"{bundle.graph}: {way.name} does not work: {one_line(error)}")
