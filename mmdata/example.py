"""The wire form of a flat `tf.train.Example`: written by hand, so that neither TensorFlow nor protobuf is needed.

Holds bytes, int64 and float features and nothing nested (docs/format.md, "Example"). Features are written in the order
given, so the same values make the same bytes, and a reader may rely on the first feature being the first. Python
protobuf took about 5 microseconds a record only to find one field; this parser is numpy over the record's bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np

Feature = Sequence[bytes] | np.ndarray  # bytes features; int64 [n] or float32 [n] for the other two kinds

# Tags of the length-delimited fields 1, 2 and 3, which an Example is made of; of a Feature: bytes, floats, int64
_FIRST, _SECOND, _THIRD = 0x0A, 0x12, 0x1A
_ONE_BYTE = [bytes((n,)) for n in range(0x80)]  # varints below 128
_FEW = 32  # ints up to so many are written, and bytes read, one by one: numpy's calls cost more than they save


def encode_example(features: Mapping[str, Feature]) -> bytes:
    """Record of the features in their order. int arrays become int64 lists, float arrays float32 lists.

    >>> decode_example(encode_example({"ids": np.array([3, -1])}))["ids"].tolist()
    [3, -1]
    """
    parts: list[bytes] = []
    for name, feature in features.items():
        key, value = _name(name), _field(_SECOND, _encode_feature(name, feature))
        parts += (_ONE_BYTE[_FIRST], _varint(len(key) + len(value)), key, value)
    return _field(_FIRST, b"".join(parts))


def decode_example(record: bytes) -> dict[str, list[bytes] | np.ndarray]:
    """Features of a record by name, in the order they were written; ValueError where it is no flat Example."""
    try:
        at, end = _span(record, 0, len(record), _FIRST)
        if end != len(record):
            raise ValueError("more than one field")
        features = {}
        while at < end:
            start, stop = _span(record, at, end, _FIRST)
            begin, key_end = _span(record, start, stop, _FIRST)
            value, value_end = _span(record, key_end, stop, _SECOND)
            if value_end != stop:
                raise ValueError(f"more than a name and a value before byte {stop}")
            features[record[begin:key_end].decode()] = _decode_feature(record, value, value_end)
            at = stop
        return features
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"not a tf.train.Example of flat features ({len(record)} bytes): {error}") from None


def first_bytes(record: bytes) -> memoryview:
    """The one value of the first feature, a bytes feature, without parsing the others (the codes of a sample)."""
    try:
        start, stop = _span(record, 0, len(record), _FIRST)  # Features
        start, stop = _span(record, start, stop, _FIRST)  # first entry
        _, start = _span(record, start, stop, _FIRST)  # its name
        for tag in (_SECOND, _FIRST, _FIRST):  # its Feature, the BytesList, the bytes
            start, stop = _span(record, start, stop, tag)
    except (ValueError, IndexError):
        raise ValueError(f"not a tf.train.Example that begins with bytes ({len(record)} bytes)") from None
    return memoryview(record)[start:stop]


@functools.lru_cache(maxsize=1024)
def _name(name: str) -> bytes:
    """The field of a feature's name: a dataset has a few dozen."""
    return _field(_FIRST, name.encode())


def _encode_feature(name: str, feature: Feature) -> bytes:
    if isinstance(feature, np.ndarray):
        if feature.ndim != 1:
            raise ValueError(f"feature {name!r} is flat, got shape {list(feature.shape)}")
        if feature.dtype.kind in "iub":
            return _field(_THIRD, _field(_FIRST, _varints(feature)))
        return _field(_SECOND, _field(_FIRST, feature.astype("<f4").tobytes()))
    return _field(_FIRST, b"".join([_field(_FIRST, value) for value in feature]))


def _decode_feature(record: bytes, start: int, stop: int) -> list[bytes] | np.ndarray:
    tag = record[start]
    at, end = _span(record, start, stop, tag)
    if end != stop or tag not in (_FIRST, _SECOND, _THIRD):
        raise ValueError(f"a feature of no known kind at byte {start}")
    spans = []
    while at < end:
        begin, at = _span(record, at, end, _FIRST)
        spans.append(record[begin:at])
    if tag == _FIRST:
        return spans
    packed = spans[0] if len(spans) == 1 else b"".join(spans)
    if tag == _SECOND:
        return np.frombuffer(packed, "<f4").astype(np.float32)
    return _unpack_varints(packed)


def _field(tag: int, value: bytes) -> bytes:
    """A length-delimited field."""
    size = len(value)
    return _ONE_BYTE[tag] + (_ONE_BYTE[size] if size < 0x80 else _varint(size)) + value


def _varint(n: int) -> bytes:
    if n < 0x80:
        return _ONE_BYTE[n]
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def _varints(values: np.ndarray) -> bytes:
    """Packed varints of int64; negative numbers take ten bytes, as protobuf has it."""
    if len(values) > _FEW and values.min() >= 0 and values.max() < 0x80:
        return values.astype(np.uint8).tobytes()
    return b"".join([_ONE_BYTE[n] if 0 <= n < 0x80 else _varint(n & 0xFFFFFFFFFFFFFFFF) for n in values.tolist()])


def _unpack_varints(packed: bytes) -> np.ndarray:  # int64 [n]
    data = np.frombuffer(packed, np.uint8)
    if packed.isascii():  # below 128 each
        return data.astype(np.int64)
    if len(packed) <= _FEW:
        return _few_varints(packed)
    last = data < 0x80
    if not last[-1]:
        raise ValueError("a varint has no end")
    starts = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    place = np.arange(len(data)) - np.repeat(starts, np.diff(np.append(starts, len(data))))
    parts = (data & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.add.reduceat(parts, starts).view(np.int64)


def _few_varints(packed: bytes) -> np.ndarray:  # int64 [n]
    values, value, shift = [], 0, 0
    for byte in packed:
        value |= (byte & 0x7F) << shift
        if byte > 0x7F:
            shift += 7
            continue
        values.append(value)
        value = shift = 0
    if packed[-1] > 0x7F:
        raise ValueError("a varint has no end")
    return np.array([n & 0xFFFFFFFFFFFFFFFF for n in values], np.uint64).view(np.int64)


def _span(record: bytes, at: int, end: int, tag: int) -> tuple[int, int]:
    """(start, stop) of the bytes of the length-delimited field `tag` that begins at `at`; it may not pass `end`."""
    if at >= end or record[at] != tag:
        raise ValueError(f"no tag {tag:#x} at byte {at}")
    length = record[at + 1]
    at += 2
    if length > 0x7F:
        length &= 0x7F
        shift = 7
        while True:
            byte = record[at]
            at += 1
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
    if at + length > end:
        raise ValueError(f"a field of {length} bytes at byte {at} passes its end")
    return at, at + length
