"""Configs as people write them: files and `key=value` words -> checked values of a config's fields."""

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from formats.errors import WorkFailed, WrongUse

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")


def configured(config: Config, file: Path | None, assignments: Sequence[str]) -> Config:
    """A preset's config, changed by a TOML or JSON file, changed by `key=value` words.

    Raises:
        WrongUse: an unknown key (the nearest known one is named) or a value of another type.
    """
    if file is not None:
        config = changed(config, _read(file), str(file))
    values = {}
    for word in assignments:
        key, equals, text = word.partition("=")
        if not equals:
            raise WrongUse(f"--set {word}: must be key=value")
        values[key] = text
    # All at once: two values may be right together only.
    return changed(config, values, "--set")


def changed(config: Config, changes: Mapping[str, Any], where: str) -> Config:
    """A config with other values.

    Args:
        config: what is changed.
        changes: key -> value; text is read as the key's type.
        where: what the changes come from, for errors.
    Raises:
        WrongUse: an unknown key (the nearest known one is named) or a value of another type.
    """
    known = {field.name: type(getattr(config, field.name)) for field in fields(config)}
    values: dict[str, Any] = {}
    for key, value in changes.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise WrongUse(f"{where}: unknown key '{key}'; {hint}")
        values[key] = _as(known[key], value, f"{where}: {key}")
    return replace(config, **values)


def _read(file: Path) -> Mapping[str, Any]:
    try:
        text = file.read_text()
        content = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:  # both parsers' errors are ValueErrors
        raise WorkFailed(f"{file}: {error}") from error
    if not isinstance(content, dict):
        raise WorkFailed(f"{file}: must hold key = value pairs")
    return content


def _as(kind: type, value: object, where: str) -> object:
    if isinstance(value, str):
        try:
            return {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
        except (KeyError, ValueError) as error:
            raise WrongUse(f"{where}: '{value}' is no {kind.__name__}") from error
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise WrongUse(f"{where}: {value!r} is no {kind.__name__}")
    return value
