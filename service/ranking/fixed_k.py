"""A graph whose input `k` is a constant: what a GPU can run without asking the host anything.

`k` is an input that TopK reads on the host, and the exporter puts a Reshape between the two, which runs on the GPU: ONNX Runtime
would copy k there and back in every run and refuse to record a CUDA graph, and TensorRT wants TopK's k as a constant. As a
constant it is folded away at load. Edited here byte by byte, since the service has no `onnx` to do it with.

The part of the format that is read: a message is a row of fields, each a tag (number and kind), then a length and so many
bytes for kind 2. Of ModelProto field 7 is the graph; of GraphProto field 5 an initialiser and field 11 an input; field 1 of an
input is its name; TensorProto's fields 2, 8 and 9 are type, name and data.
"""

import struct
from collections.abc import Iterator

from formats.errors import WorkFailed

_MODEL_GRAPH, _GRAPH_INITIALIZER, _GRAPH_INPUT, _INPUT_NAME = 7, 5, 11, 1
_TENSOR_TYPE, _TENSOR_NAME, _TENSOR_DATA = 2, 8, 9
_INT64 = 7
_NUMBER, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5


def with_fixed_k(model: bytes, k: int) -> bytes:
    """The same model with `k` as a constant in place of an input.

    Raises:
        WorkFailed: this is no ONNX model, or it has no input `k`.
    """
    try:
        edited, found = bytearray(), False
        for number, field, body in _fields(memoryview(model)):
            if number != _MODEL_GRAPH:
                edited += field
                continue
            graph = bytearray()
            for part, inner, content in _fields(body):
                if part == _GRAPH_INPUT and _name_of(content) == b"k":
                    found = True
                else:
                    graph += inner
            graph += _field(_GRAPH_INITIALIZER, _constant(b"k", k))
            edited += _field(_MODEL_GRAPH, graph)
    except (IndexError, ValueError) as error:
        raise WorkFailed(f"this is no ONNX model: {error}") from error
    if not found:
        raise WorkFailed("this model has no input k")
    return bytes(edited)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Number, whole bytes and content of every field."""
    place = 0
    while place < len(message):
        start = place
        tag, place = _varint(message, place)
        number, kind = tag >> 3, tag & 7
        size = 0
        if kind == _NUMBER:
            _, place = _varint(message, place)
        elif kind in {_EIGHT_BYTES, _FOUR_BYTES}:
            size = 8 if kind == _EIGHT_BYTES else 4
        elif kind == _BYTES:
            size, place = _varint(message, place)
        else:
            raise ValueError(f"field kind {kind} at byte {start}")
        if place + size > len(message):
            raise ValueError(f"it ends within the field at byte {start}")
        yield number, message[start : place + size], message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number, seven bits a byte, lowest first, and the place after it."""
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7


def _name_of(value_info: memoryview) -> bytes:
    return next((bytes(content) for number, _, content in _fields(value_info) if number == _INPUT_NAME), b"")


def _constant(name: bytes, value: int) -> bytes:
    """A TensorProto that holds one int64 without a dimension."""
    return (
        _tag(_TENSOR_TYPE, _NUMBER)
        + _encoded(_INT64)
        + _field(_TENSOR_NAME, name)
        + _field(_TENSOR_DATA, struct.pack("<q", value))
    )


def _field(number: int, content: bytes | bytearray) -> bytes:
    return _tag(number, _BYTES) + _encoded(len(content)) + bytes(content)


def _tag(number: int, kind: int) -> bytes:
    return _encoded(number << 3 | kind)


def _encoded(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
