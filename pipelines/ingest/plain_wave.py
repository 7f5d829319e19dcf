"""The commonest sound file of all, read without FFmpeg: WAV with one channel of 16-bit samples and an honest header.

Ten seconds of 48 kHz take 1.2 ms this way, resampling included, and 3.2 as a container. Anything else, and any doubt,
is left to FFmpeg: several channels (which may hide another format), other samples, sizes that are no
multiple of a sample or larger than the file.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

_AT_ONCE = 1 << 16  # samples, which stay in the cache while they are resampled: 2^20 take three times as long
_MOST_CHUNKS = 64  # before the samples


def plain_wave(file: BinaryIO) -> tuple[int, Iterator[np.ndarray]] | None:
    """(samples a second, the samples in pieces of float32 [n] in [-1, 1)); None of any other file, or of no samples."""
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    rate = 0
    for _ in range(_MOST_CHUNKS):
        chunk = file.read(8)
        if len(chunk) < 8:
            return None
        name, size = chunk[:4], struct.unpack("<I", chunk[4:])[0]
        if name == b"data":
            begin = file.tell()
            left = file.seek(0, os.SEEK_END) - begin
            file.seek(begin)
            good = rate and 0 < size <= left and size % 2 == 0
            return (rate, _samples(file, size // 2)) if good else None
        body = file.read(size + size % 2) if size < 1 << 20 else b""
        if len(body) < size:
            return None
        if name == b"fmt ":
            if size < 16 or rate:
                return None
            form, channels, rate, _, align, bits = struct.unpack("<HHIIHH", body[:16])
            if (form, channels, align, bits) != (1, 1, 2, 16) or not rate:
                return None
    return None


def _samples(file: BinaryIO, count: int) -> Iterator[np.ndarray]:
    while count > 0:
        data = file.read(2 * min(count, _AT_ONCE))
        if not data:
            return
        count -= len(data) // 2
        yield np.frombuffer(data, "<i2").astype(np.float32) * np.float32(1 / 32768)
