"""JSON -> frozen dataclasses by their annotations. Fields that a newer service adds are passed over."""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")
Reader = Callable[[Any, str], Any]


class NotAsPromised(ValueError):  # noqa: N818
    """JSON that lacks a field or has one of another type; says which."""


def read(kind: Callable[..., T], value: object) -> T:
    """A value of JSON as an object of this dataclass.

    Its annotations may be str, int, float, bool, another such dataclass, tuple[X, ...], Mapping[str, X] and X | None.

    Raises:
        NotAsPromised: names the field.
    """
    found: T = _reader(kind)(value, "")
    return found


@cache
def _reader(kind: Any) -> Reader:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass_reader(typing.cast("type[object]", kind))
    if origin is tuple:
        return _tuple_reader(_reader(arguments[0]))
    if origin is Mapping:
        return _mapping_reader(_reader(arguments[1]))
    if origin in {types.UnionType, typing.Union}:
        return _optional_reader(_reader(next(one for one in arguments if one is not type(None))))
    return _plain_reader(kind)


def _dataclass_reader(kind: type[object]) -> Reader:
    hints = typing.get_type_hints(kind)
    fields = [
        (field.name, _reader(hints[field.name]), field.default is dataclasses.MISSING)
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
    ]

    def read_it(value: Any, place: str) -> object:
        _check(isinstance(value, dict), "an object", place)
        found = {}
        for name, reader, required in fields:
            if name in value:
                found[name] = reader(value[name], f"{place}.{name}" if place else name)
            elif required:
                raise NotAsPromised(f"{place}.{name} is missing" if place else f"{name} is missing")
        return kind(**found)

    return read_it


def _tuple_reader(of: Reader) -> Reader:
    def read_it(value: Any, place: str) -> tuple[object, ...]:
        _check(isinstance(value, list), "a list", place)
        return tuple(of(one, f"{place}[{index}]") for index, one in enumerate(value))

    return read_it


def _mapping_reader(of: Reader) -> Reader:
    def read_it(value: Any, place: str) -> Mapping[str, object]:
        _check(isinstance(value, dict), "an object", place)
        return types.MappingProxyType({name: of(one, f"{place}.{name}") for name, one in value.items()})

    return read_it


def _optional_reader(of: Reader) -> Reader:
    return lambda value, place: None if value is None else of(value, place)


def _plain_reader(kind: type) -> Reader:
    # JSON has one kind of number: 1 is a float too; but True, which Python counts as an int, is no number.
    accepted = (int, float) if kind is float else (kind,)

    def read_it(value: Any, place: str) -> object:
        _check(isinstance(value, accepted) and isinstance(value, bool) == (kind is bool), kind.__name__, place)
        return value

    return read_it


def _check(holds: bool, wanted: str, place: str) -> None:
    if not holds:
        raise NotAsPromised(f"{place or 'the answer'} is not {wanted}")
