"""A shard as a memory map: where each record lies, found by one walk over the file's chunks.

An ArrayRecord file is a Riegeli file: chunks of one record each (options `group_size:1,uncompressed`), with a header
of 24 bytes at every multiple of 64 KiB (github.com/google/riegeli, doc/riegeli_records_file_format.md). The walk checks
no chunk hash, so a shard is mapped only once its sha256 was found to be the manifest's (`mmdata/opened.py`). The
ArrayRecord reader, which starts 64 threads and costs a fixed amount a call, is what reads any other shard.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BLOCK, BLOCK_HEADER = 1 << 16, 24  # bytes


@dataclass(frozen=True, eq=False)
class Mapped:
    """The records of a mapped file: record i is `sizes[i]` bytes from byte `starts[i]` on, but for block headers."""

    data: np.ndarray  # uint8 [bytes of the file], read-only
    starts: np.ndarray  # int64 [n]
    sizes: np.ndarray  # int64 [n]

    def record(self, i: int) -> bytes:
        """Record i."""
        start, size = int(self.starts[i]), int(self.sizes[i])
        room = BLOCK - start % BLOCK
        if size <= room:
            return self.data[start : start + size].tobytes()
        parts = []
        while size:
            parts.append(self.data[start : start + min(size, room)].tobytes())
            size -= len(parts[-1])
            start += len(parts[-1]) + BLOCK_HEADER
            room = BLOCK - BLOCK_HEADER
        return b"".join(parts)


def map_file(path: Path) -> np.ndarray:  # uint8 [bytes of the file]
    """The bytes of a file, mapped; it stays mapped as long as the array or a view of it lives."""
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return np.zeros(0, np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def find_records(data: np.ndarray, num_records: int) -> Mapped:
    """The first `num_records` records of a mapped file of chunks of one uncompressed record each; ValueError where it
    is no such file."""
    from mmdata.chunks import walk

    starts, sizes = np.zeros(num_records, np.int64), np.zeros(num_records, np.int64)
    found = walk(data, starts, sizes)
    if found != num_records:
        raise ValueError(f"{found} of {num_records} records found as chunks of one uncompressed record")
    return Mapped(data, starts, sizes)
