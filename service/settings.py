"""What an operator can set: environment variables with the prefix SYNCREC_, described in .env.example."""

import json
import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from formats.errors import WrongUse

Providers = Literal["auto", "cpu", "cuda", "tensorrt"]


def default_data_dir() -> Path:
    """Where programs of this user keep their data ($XDG_DATA_HOME), so that the current folder does not matter."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "syncrec"


def _origins(given: object) -> object:
    """`["https://a"]` or `https://a,https://b` as a tuple; a browser's origin has neither path nor closing slash."""
    if not isinstance(given, str):
        return given
    if given.lstrip().startswith("["):
        return tuple(json.loads(given))
    return tuple(word.strip() for word in given.split(",") if word.strip())


def _all_are_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        if not re.fullmatch(r"https?://[^/\s?#@*]+", origin):
            raise ValueError(f"{origin} is not an origin such as https://shop.example; each one has to be named")
    return origins


class Settings(BaseSettings):
    """One frozen object, made at the edge and passed as values. Units are in the names."""

    # Pydantic's messages would repeat what was given, and that may be a secret.
    model_config = SettingsConfigDict(env_prefix="SYNCREC_", frozen=True, extra="forbid", hide_input_in_errors=True)

    models_dir: Path = Field(default=Path("models"), description="Folder of bundles; the newest one is served.")
    redis_url: str = Field(
        default="embedded",
        min_length=1,
        repr=False,  # it may hold a password
        description="Where user histories are, in one of the forms of docs/redis.md; embedded starts a private server.",
    )
    data_dir: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        default_factory=default_data_dir,
        description="Folder of the embedded server's data; unused with a Redis of your own.",
    )
    providers: Providers = Field(
        default="auto",
        description="What runs the model: cpu, cuda or tensorrt, or start-up fails; auto takes CUDA if it works.",
    )
    threads: int = Field(
        default=1, ge=1, le=256, description="Threads of ONNX Runtime within one operation, per worker."
    )
    gpu_memory_bytes: int = Field(
        default=0, ge=0, description="Memory of the GPU that one model may take; 0 is no limit; a switch needs two."
    )
    tensorrt_cache_dir: Path = Field(
        default=Path("tensorrt"), description="Folder where TensorRT keeps its engines, which take minutes to build."
    )
    max_batch: int = Field(default=32, ge=1, le=1024, description="Requests that the model ranks in one run at most.")
    max_wait_ms: float = Field(
        default=0, ge=0, le=1000, description="How long a batch waits to fill up; 0 takes what is queued at once."
    )
    queue_limit: int = Field(
        default=1024, ge=1, description="Requests that may wait for the model; more are answered 429 at once."
    )
    request_timeout_ms: float = Field(
        default=1000, gt=0, description="Time for one request from the door to the answer; over it, 503."
    )
    redis_timeout_ms: float = Field(
        default=50, gt=0, description="Time for reading one history; over it, the answer is by popularity and degraded."
    )
    write_timeout_ms: float = Field(
        default=1000, gt=0, description="Time for one write to Redis; over it, POST /events and changes answer 503."
    )
    redis_connections: int = Field(
        default=4,
        ge=1,
        le=1024,
        description="Connections to Redis per worker; each carries the reads of many requests at once.",
    )
    history_limit: int = Field(default=1000, ge=1, le=100_000, description="Newest events kept per user in Redis.")
    history_days: int = Field(
        default=90, ge=1, le=36_500, description="Days after its last write at which Redis forgets a user's history."
    )
    keep_repeats: bool = Field(
        default=False, description="Whether a user's later events of an item are kept too, as `prepare --repeats keep`."
    )
    popularity_half_life_days: float = Field(
        default=7, gt=0, le=3650, description="Days in which an event loses half its weight for the popularity lists."
    )
    event_queue_limit: int = Field(
        default=10_000,
        ge=1,
        description="Rows of the event log that wait for Redis per worker; more are dropped and missed.",
    )
    event_stream_limit: int = Field(
        default=500_000,
        ge=1,
        description="Rows of the event log that Redis keeps until they are drained, about; older go.",
    )
    body_limit_bytes: int = Field(default=1_048_576, ge=1024, description="Largest request body; over it, 413.")
    api_keys: str = Field(
        default="",
        repr=False,
        description="Keys as NAME:ROLE:HASH, comma between; role read, write or read+write; see docs/security.md.",
    )
    admin_keys: str = Field(
        default="",
        repr=False,
        description="Keys of administrators as NAME:HASH, comma between; they may also read and write.",
    )
    allow_without_keys: bool = Field(
        default=False, description="Whether to listen beyond loopback although no key is configured."
    )
    rate_limit_per_s: float = Field(
        default=0, ge=0, le=1e6, description="Requests of one key in the long run, per worker; 0 is no limit."
    )
    rate_burst: int = Field(
        default=100, ge=1, le=10**6, description="Requests of one key at once before its rate limit holds, per worker."
    )
    admin_host: str = Field(default="127.0.0.1", min_length=1, description="Address that the admin port listens on.")
    admin_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="Port that alone serves the admin routes; 0 serves them on the public one.",
    )
    docs: bool = Field(default=True, description="Whether the public port serves /docs and /openapi.json.")
    metrics: bool = Field(default=True, description="Whether the public port serves /metrics.")
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_origins), AfterValidator(_all_are_origins)] = (
        Field(default=(), description="Origins of web pages that may call the service, as JSON list or comma between.")
    )
    drain_notice_ms: float = Field(
        default=1000,
        ge=0,
        description="How long after SIGTERM connections are still taken while /readyz says draining.",
    )
    drain_timeout_ms: float = Field(
        default=10_000, gt=0, description="How long after that the requests under way may take before they are cut off."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe log line that is written."
    )


def read_settings(**given: object) -> Settings:
    """The environment's settings, with what was given on a command line (not None) in their place.

    Raises:
        WrongUse: names the variable that cannot be meant.
    """
    try:
        # By name, since the environment is read for the fields that are left out.
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        raise WrongUse(f"SYNCREC_{str(first['loc'][0]).upper()}: {first['msg']}") from error


def as_environment(settings: Settings) -> dict[str, str]:
    """The variables that make these settings in another process."""
    return {f"SYNCREC_{name.upper()}": as_text(value) for name, value in settings.model_dump().items()}


def as_text(value: object) -> str:
    """A setting as its variable holds it."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else str(value)
