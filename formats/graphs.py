"""What a bundle's ONNX file may be, read from its bytes: its own numbers, ONNX's own operators, the inputs and outputs wanted.

Neither `onnx` nor ONNX Runtime is asked: the service has no `onnx`, and ONNX Runtime opens other files while it loads. Before
1.24 it read whatever file a tensor named, and a node of TensorRT may name an engine to this day.

The file is one protobuf message. Its fields, by number, are those of onnx.proto; only what is looked at is named here.
"""

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from formats.errors import WorkFailed

# Message -> field -> message within it, wherever a tensor or a node can stand.
_WITHIN = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse", 11: "input", 12: "output"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a tensor
_DOMAIN = 7  # of a node
_DTYPES = {1: "float32", 6: "int32", 7: "int64", 9: "bool"}


@dataclass(frozen=True)
class GraphValue:
    """An input or output as the file declares it. shape: a string is a free dimension; None: nothing is said of it."""

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None


def read_graph(file: Path) -> tuple[tuple[GraphValue, ...], tuple[GraphValue, ...]]:
    """Check an ONNX file, whose numbers are skipped, not read.

    Returns:
        The inputs and the outputs of its graph.
    Raises:
        WorkFailed: it is no ONNX file, keeps numbers elsewhere, or uses operators that are not ONNX's own.
    """
    try:
        with file.open("rb") as stream:
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        return _checked(file, memoryview(content))
    except _NoMessage as error:
        raise WorkFailed(f"{file}: not an ONNX file: {error}") from error
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise WorkFailed(f"{file}: {error}") from error


class _NoMessage(Exception):  # noqa: N818 (as the other failures)
    """These bytes are no protobuf message."""


def _checked(file: Path, whole: memoryview) -> tuple[tuple[GraphValue, ...], tuple[GraphValue, ...]]:
    values: dict[str, list[GraphValue]] = {"input": [], "output": []}
    # A stack, not recursion: how deep graphs may be within graphs is up to the file. The first graph within the model is the graph.
    waiting = [("model", whole, 0)]
    while waiting:
        kind, message, depth = waiting.pop()
        for number, value in _fields(message):
            if kind == "tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value)):
                raise WorkFailed(f"{file}: external_data: a tensor is kept in another file, and no other is read")
            if kind == "node" and number == _DOMAIN and _text(value) not in {"", "ai.onnx"}:
                raise WorkFailed(f"{file}: domain: '{_text(value)[:64]}' of a node: only ONNX's own operators are run")
            inner = _WITHIN.get(kind, {}).get(number)
            if inner is None or isinstance(value, int):
                continue
            if inner not in values:
                waiting.append((inner, value, depth + 1))
            elif depth == 1:
                values[inner].append(_graph_value(value))
    return tuple(values["input"]), tuple(values["output"])


def _graph_value(message: memoryview) -> GraphValue:
    tensor = [of_type for kind in _messages(message, 2) for of_type in _messages(kind, 1)]
    dtype = [value for part in tensor for number, value in _fields(part) if number == 1]
    shapes = [shape for part in tensor for shape in _messages(part, 2)]
    names = [_text(value) for number, value in _fields(message) if number == 1]
    return GraphValue(
        name=names[-1] if names else "",
        dtype=_DTYPES.get(dtype[-1], "another type") if dtype and isinstance(dtype[-1], int) else "no tensor",
        shape=tuple(_size(size) for size in _messages(shapes[-1], 1)) if shapes else None,
    )


def _size(message: memoryview) -> int | str:
    """One dimension: a number, or a name; "" where nothing is said."""
    size: int | str = ""
    for number, value in _fields(message):
        if number == 1 and isinstance(value, int):
            size = value
        elif number == 2:
            size = _text(value)
    return size


def _messages(message: memoryview, wanted: int) -> Sequence[memoryview]:
    return [value for number, value in _fields(message) if number == wanted and not isinstance(value, int)]


def _text(value: int | memoryview) -> str:
    return "" if isinstance(value, int) else str(value, "utf-8", errors="replace")


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field: an integer, or the bytes of a text, message or packed array. Floats come as bytes."""
    place, end = 0, len(message)
    while place < end:
        tag, place = _varint(message, place)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, place = _varint(message, place)
            yield number, value
            continue
        if wire == 2:
            size, place = _varint(message, place)
        elif wire in {1, 5}:
            size = 8 if wire == 1 else 4
        else:
            raise _NoMessage(f"wire type {wire}")
        if size > end - place:
            raise _NoMessage("it is cut off")
        yield number, message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise _NoMessage("it is cut off")
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), place
    raise _NoMessage("a number without an end")
