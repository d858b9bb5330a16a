"""Settings, and .env.example, which describes each of them."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from formats.errors import WrongUse
from service.settings import Settings, as_environment, as_text, read_settings

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
        assert default == as_text(field.default)


def test_every_setting_is_read_from_its_variable(monkeypatch):
    other = Settings(
        models_dir="m", redis_url="redis://h", data_dir="d", providers="cuda", threads=2, max_batch=3, max_wait_ms=4,
        queue_limit=5, request_timeout_ms=6, redis_timeout_ms=7, redis_connections=8, history_limit=9, history_days=10,
        body_limit_bytes=1100, api_keys="k", admin_keys="a", allow_without_keys=True, rate_limit_per_s=0.5, rate_burst=11,
        admin_host="h", admin_port=12, docs=False, metrics=False, cors_origins=("https://a", "http://b:1"),
        write_timeout_ms=15, keep_repeats=True, popularity_half_life_days=16,
        drain_notice_ms=13, drain_timeout_ms=14, log_level="error",
        gpu_memory_bytes=17, tensorrt_cache_dir="t", event_queue_limit=18, event_stream_limit=19,
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


def test_origins_may_be_a_json_list_or_have_commas_between(monkeypatch):
    for text in ("https://a.example, http://b:1", '["https://a.example", "http://b:1"]'):
        monkeypatch.setenv("SYNCREC_CORS_ORIGINS", text)
        assert Settings().cors_origins == ("https://a.example", "http://b:1")
    monkeypatch.setenv("SYNCREC_CORS_ORIGINS", "")
    assert Settings().cors_origins == ()


@pytest.mark.parametrize(
    "text", ["*", "https://*.example", "shop.example", "https://a/", "https://a/path", '["https://a"']
)
def test_what_is_no_origin_is_refused(monkeypatch, text):
    monkeypatch.setenv("SYNCREC_CORS_ORIGINS", text)
    with pytest.raises(WrongUse, match=r"^SYNCREC_CORS_ORIGINS: "):
        read_settings()


def test_no_secret_is_shown(monkeypatch):
    secrets = {"redis_url": "redis://:s3cret@h", "api_keys": "s3cret", "admin_keys": "s3cret"}
    assert "s3cret" not in repr(Settings(**secrets))
    assert "s3cret" not in str(Settings(**secrets))
    with pytest.raises(ValidationError) as refused:
        Settings(**secrets, max_batch="s3cret")
    assert "s3cret" not in str(refused.value)
