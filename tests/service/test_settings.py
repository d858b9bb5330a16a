"""Settings, and .env.example, which describes each of them."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from formats.errors import WrongUse
from service.settings import Settings, as_environment, read_settings

EXAMPLE = Path(__file__).parents[2] / ".env.example"
UNITS = {"_ms": "milliseconds", "_bytes": "bytes", "_days": "days"}


def described():
    """Variable -> (unit, sentence, default) of .env.example."""
    found = re.findall(r"^# \[(.+?)\] (.+)\n# ?(SYNCREC_\w+)=(.*)$", EXAMPLE.read_text(), flags=re.MULTILINE)
    return {name: (unit, sentence, default) for unit, sentence, name, default in found}


def test_env_example_names_exactly_the_settings_in_their_order():
    assert list(described()) == [f"SYNCREC_{name.upper()}" for name in Settings.model_fields]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_env_example_gives_unit_sentence_and_default(name):
    unit, sentence, default = described()[f"SYNCREC_{name.upper()}"]
    field = Settings.model_fields[name]
    assert sentence == field.description
    assert sentence.endswith(".")
    assert next((word for suffix, word in UNITS.items() if name.endswith(suffix)), unit) == unit
    if name == "data_dir":
        assert default == "~/.local/share/syncrec"
    else:
        assert default == str(field.default)


def test_every_setting_is_read_from_its_variable(monkeypatch):
    other = Settings(
        models_dir="m", redis_url="redis://h", data_dir="d", providers="cuda", threads=2, max_batch=3, max_wait_ms=4,
        queue_limit=5, request_timeout_ms=6, redis_timeout_ms=7, redis_connections=8, history_limit=9, history_days=10,
        body_limit_bytes=1100, log_level="error",
    )  # fmt: skip
    assert all(getattr(other, name) != getattr(Settings(), name) for name in Settings.model_fields)
    for name, value in as_environment(other).items():
        monkeypatch.setenv(name, value)
    assert Settings() == other


def test_the_command_line_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("SYNCREC_REDIS_URL", "redis://environment")
    assert read_settings(redis_url=None).redis_url == "redis://environment"
    assert read_settings(redis_url="redis://line").redis_url == "redis://line"


def test_a_variable_that_cannot_be_meant_is_named(monkeypatch):
    monkeypatch.setenv("SYNCREC_MAX_BATCH", "many")
    with pytest.raises(WrongUse, match=r"^SYNCREC_MAX_BATCH: "):
        read_settings()


def test_settings_are_frozen_and_unknown_ones_refused():
    with pytest.raises(ValidationError):
        Settings().threads = 2
    with pytest.raises(ValidationError):
        Settings(thread=2)


def test_a_data_folder_below_home_may_be_written_with_a_tilde():
    assert Settings(data_dir="~/data").data_dir == Path.home() / "data"
