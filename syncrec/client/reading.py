"""JSON -> frozen dataclasses by their annotations. Fields that a newer service adds are passed over."""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")
Reader = Callable[[Any], Any]


class NotAsPromised(ValueError):  # noqa: N818
    """JSON that lacks a field or has one of another type; says which."""

    def __init__(self, wrong: str, place: str = "") -> None:
        self.wrong, self.place = wrong, place
        super().__init__(f"{place or 'the answer'} {wrong}")

    def within(self, step: str) -> "NotAsPromised":
        """The same, seen from one step further out: places are only put together when something is wrong."""
        joint = "." if self.place and not self.place.startswith("[") else ""
        return NotAsPromised(self.wrong, f"{step}{joint}{self.place}")


def read(kind: Callable[..., T], value: object) -> T:
    """A value of JSON as an object of this dataclass.

    Its annotations may be str, int, float, bool, another such dataclass, tuple[X, ...], Mapping[str, X] and X | None.

    Raises:
        NotAsPromised: names the field.
    """
    found: T = _reader(kind)(value)
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

    def read_it(value: Any) -> object:
        _check(isinstance(value, dict), "an object")
        found = {}
        for name, reader, required in fields:
            if name in value:
                found[name] = _inside(name, reader, value[name])
            elif required:
                raise NotAsPromised("is missing", name)
        return kind(**found)

    return read_it


def _tuple_reader(of: Reader) -> Reader:
    def read_it(value: Any) -> tuple[object, ...]:
        _check(isinstance(value, list), "a list")
        return tuple(_inside(index, of, one) for index, one in enumerate(value))

    return read_it


def _mapping_reader(of: Reader) -> Reader:
    def read_it(value: Any) -> Mapping[str, object]:
        _check(isinstance(value, dict), "an object")
        return types.MappingProxyType({name: _inside(name, of, one) for name, one in value.items()})

    return read_it


def _optional_reader(of: Reader) -> Reader:
    return lambda value: None if value is None else of(value)


def _plain_reader(kind: type) -> Reader:
    # JSON has one kind of number: 1 is a float too. By exact type, for True, which Python counts as an int, is no number.
    accepted = {int, float} if kind is float else {kind}

    def read_it(value: Any) -> object:
        if type(value) not in accepted:
            raise NotAsPromised(f"is not {kind.__name__}")
        return value

    return read_it


def _inside(step: str | int, reader: Reader, value: Any) -> Any:
    try:
        return reader(value)
    except NotAsPromised as error:
        raise error.within(step if isinstance(step, str) else f"[{step}]") from None


def _check(holds: bool, wanted: str) -> None:
    if not holds:
        raise NotAsPromised(f"is not {wanted}")
