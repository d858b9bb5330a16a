"""What an operator can set: environment variables with the prefix SYNCREC_, described in .env.example."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from formats.errors import WrongUse

Providers = Literal["auto", "cpu", "cuda", "tensorrt"]


def default_data_dir() -> Path:
    """Where programs of this user keep their data ($XDG_DATA_HOME), so that the current folder does not matter."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "syncrec"


class Settings(BaseSettings):
    """One frozen object, made at the edge and passed as values. Units are in the names."""

    model_config = SettingsConfigDict(env_prefix="SYNCREC_", frozen=True, extra="forbid")

    models_dir: Path = Field(default=Path("models"), description="Folder of bundles; the newest one is served.")
    redis_url: str = Field(
        default="embedded",
        min_length=1,
        description="Where user histories are: redis://, rediss:// or unix:// URL; embedded starts a private server.",
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
    body_limit_bytes: int = Field(default=262_144, ge=1024, description="Largest request body; over it, 413.")
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
    return {f"SYNCREC_{name.upper()}": str(value) for name, value in settings.model_dump().items()}
