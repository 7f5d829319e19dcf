"""The walk over the chunks of a mapped Riegeli file: where each record lies. Compiled; imports numba, so it is imported
when it is first needed. `mmdata/mapped.py` says what the form of the file is.
"""

from __future__ import annotations

import numba
import numpy as np

from mmdata.mapped import BLOCK, BLOCK_HEADER

CHUNK_HEADER = 40  # bytes
_RECORDS = 114  # "r", the type of a chunk of records


@numba.njit(cache=True, nogil=True)
def walk(data, starts, sizes):  # type: ignore[no-untyped-def]
    """Where records 0, 1, ... of a mapped file lie, written to int64 [n] `starts` and `sizes`; returns how many were
    found, fewer than n where a chunk is none of one uncompressed record."""
    at, found = 0, 0
    head = np.empty(CHUNK_HEADER, np.uint8)
    while found < len(starts):
        after = _copy_out(data, at, CHUNK_HEADER, head)
        if after < 0:
            return found
        size, num_records = _number(head, 8), _number(head, 24) >> 8
        end = _end_of(after, size) if 0 <= size <= len(data) else -1
        if end < 0 or end > len(data):
            return found
        if head[24] == _RECORDS:
            record, length = _record_in(data, after, size)
            if num_records != 1 or record < 0:
                return found
            starts[found], sizes[found] = record, length
            found += 1
        at = end
    return found


@numba.njit(cache=True, nogil=True)
def _record_in(data, at, size):  # type: ignore[no-untyped-def]
    """(first byte, bytes) of the one record of a chunk whose body of `size` bytes begins at `at`; (-1, 0): compressed.
    The body: type of compression, how many bytes the sizes take, the size of the record, the record."""
    left, value, numbers, shift = size, np.int64(0), 0, 0
    while numbers < 3:
        if left == 0 or shift > 56:
            return -1, 0
        if at % BLOCK == 0:
            at += BLOCK_HEADER
        byte = np.int64(data[at])
        at, left = at + 1, left - 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            if numbers == 0 and value != 0:
                return -1, 0
            numbers += 1
            if numbers < 3:
                value, shift = np.int64(0), 0
    if value != left:
        return -1, 0
    return at + BLOCK_HEADER if at % BLOCK == 0 else at, left


@numba.njit(cache=True, nogil=True)
def _end_of(at, size):  # type: ignore[no-untyped-def]
    """Where `size` bytes from `at` on end, block headers not counted."""
    while size > 0:
        if at % BLOCK == 0:
            at += BLOCK_HEADER
        some = min(size, BLOCK - at % BLOCK)
        at, size = at + some, size - some
    return at


@numba.njit(cache=True, nogil=True)
def _copy_out(data, at, size, out):  # type: ignore[no-untyped-def]
    """Copy `size` bytes from `at` on without block headers; returns where they end, -1 beyond the end of the file."""
    done = 0
    while done < size:
        if at % BLOCK == 0:
            at += BLOCK_HEADER
        some = min(size - done, BLOCK - at % BLOCK)
        if at + some > len(data):
            return -1
        out[done : done + some] = data[at : at + some]
        at, done = at + some, done + some
    return at


@numba.njit(cache=True, nogil=True)
def _number(head, offset):  # type: ignore[no-untyped-def]
    value = np.int64(0)
    for b in range(8):
        value |= np.int64(head[offset + b]) << (8 * b)
    return value
