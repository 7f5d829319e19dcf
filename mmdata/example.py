"""The wire form of a flat `tf.train.Example`: written by hand, so that neither TensorFlow nor protobuf is needed.

Holds bytes, int64 and float features and nothing nested (docs/format.md, "Example"). Features are written in the order
given, so the same values make the same bytes, and a reader may rely on the first feature being the first. Python
protobuf took about 5 microseconds a record only to find one field; this parser is numpy over the record's bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

Feature = Sequence[bytes] | np.ndarray  # bytes features; int64 [n] or float32 [n] for the other two kinds

_BYTES, _FLOAT, _INT64 = 1, 2, 3  # field numbers of Feature.kind


def encode_example(features: Mapping[str, Feature]) -> bytes:
    """Record of the features in their order. int arrays become int64 lists, float arrays float32 lists.

    >>> decode_example(encode_example({"ids": np.array([3, -1])}))["ids"].tolist()
    [3, -1]
    """
    body = [_field(1, _field(1, name.encode()) + _field(2, _encode_feature(name, f))) for name, f in features.items()]
    return _field(1, b"".join(body))


def decode_example(record: bytes) -> dict[str, list[bytes] | np.ndarray]:
    """Features of a record by name, in the order they were written; ValueError where it is no flat Example."""
    try:
        (number, start, stop), *more = list(_fields(record, 0, len(record)))
        if number != 1 or more:
            raise ValueError("more than one field")
        return dict(_decode_entry(record, a, b) for _, a, b in _fields(record, start, stop))
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"not a tf.train.Example of flat features ({len(record)} bytes): {error}") from None


def first_bytes(record: bytes) -> memoryview:
    """The one value of the first feature, a bytes feature, without parsing the others (the codes of a sample)."""
    try:
        _, start, _ = next(_fields(record, 0, len(record)))  # Features
        _, start, stop = next(_fields(record, start, len(record)))  # first entry
        _, (_, start, stop) = list(_fields(record, start, stop))  # its name and its Feature
        _, start, stop = next(_fields(record, start, stop))  # BytesList
        _, start, stop = next(_fields(record, start, stop))
    except (ValueError, IndexError, StopIteration):
        raise ValueError(f"not a tf.train.Example that begins with bytes ({len(record)} bytes)") from None
    return memoryview(record)[start:stop]


def _encode_feature(name: str, feature: Feature) -> bytes:
    if isinstance(feature, np.ndarray):
        if feature.ndim != 1:
            raise ValueError(f"feature {name!r} is flat, got shape {list(feature.shape)}")
        if feature.dtype.kind in "iub":
            return _field(_INT64, _field(1, _varints(feature)))
        return _field(_FLOAT, _field(1, feature.astype("<f4").tobytes()))
    return _field(_BYTES, b"".join(_field(1, value) for value in feature))


def _decode_entry(record: bytes, start: int, stop: int) -> tuple[str, list[bytes] | np.ndarray]:
    (_, a, b), (_, c, d) = list(_fields(record, start, stop))
    name = record[a:b].decode()
    number, c, d = next(_fields(record, c, d))
    if number == _BYTES:
        return name, [record[e:f] for _, e, f in _fields(record, c, d)]
    spans = [record[e:f] for _, e, f in _fields(record, c, d)]
    packed = spans[0] if len(spans) == 1 else b"".join(spans)
    if number == _FLOAT:
        return name, np.frombuffer(packed, "<f4").astype(np.float32)
    return name, _unpack_varints(packed)


def _field(number: int, value: bytes) -> bytes:
    """A length-delimited field."""
    return bytes((number << 3 | 2,)) + _varint(len(value)) + value


def _varint(n: int) -> bytes:
    if n < 0x80:
        return bytes((n,))
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def _varints(values: np.ndarray) -> bytes:
    """Packed varints of int64; negative numbers take ten bytes, as protobuf has it."""
    if not len(values):
        return b""
    if values.min() >= 0 and values.max() < 0x80:
        return values.astype(np.uint8).tobytes()
    return b"".join(_varint(n & 0xFFFFFFFFFFFFFFFF) for n in values.tolist())


def _unpack_varints(packed: bytes) -> np.ndarray:  # int64 [n]
    data = np.frombuffer(packed, np.uint8)
    last = data < 0x80
    if last.all():
        return data.astype(np.int64)
    if not last[-1]:
        raise ValueError("a varint has no end")
    starts = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    place = np.arange(len(data)) - np.repeat(starts, np.diff(np.append(starts, len(data))))
    parts = (data & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.add.reduceat(parts, starts).view(np.int64)


def _fields(record: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """(field number, start, stop of its bytes) of the length-delimited fields in record[start:stop]."""
    while start < stop:
        tag = record[start]
        if tag & 7 != 2 or tag > 0x7F:
            raise ValueError(f"tag {tag:#x} at byte {start}")
        length, shift, start = 0, 0, start + 1
        while True:
            byte = record[start]
            start += 1
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        if start + length > stop:
            raise ValueError(f"a field of {length} bytes at byte {start} passes its end")
        yield tag >> 3, start, start + length
        start += length
