"""The limit: the six arrays of a batch expanded from a packed memory map by one compiled function, and nothing else.

The file is the documents end to end as uint16, and where each row's documents begin. No format, no check, no plan, no
layout; rows in a drawn order; the batches of the ring are allocated once and written over in turn.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from drawn import BATCH, RING, SEQ_LEN, Documents

from peers.system import Stream, System


def _prepare(documents: Documents, folder: Path) -> None:
    rows = documents.rows()
    starts = np.union1d(documents.offsets[documents.offsets < rows.size], np.arange(0, rows.size, SEQ_LEN))
    np.save(folder / "rows.npy", rows)
    np.save(folder / "starts.npy", np.append(starts, rows.size))
    np.save(folder / "first.npy", np.searchsorted(starts, np.arange(len(rows) + 1) * SEQ_LEN))


def _open(folder: Path, processes: int, rank: int) -> Stream:
    rows = np.load(folder / "rows.npy", mmap_mode="r")
    starts, first = np.load(folder / "starts.npy"), np.load(folder / "first.npy")
    expand, size = _compiled(), BATCH // processes
    ring = itertools.cycle([_empty(size) for _ in range(RING + 1)])  # one is written while the reader holds the others

    def epoch() -> Iterator[Any]:
        order = np.random.default_rng(1).permutation(len(rows))[rank::processes]
        for at in range(0, len(order), size):
            batch = next(ring)
            chosen = order[at : at + size]
            expand(rows, starts, first, chosen, *batch)
            yield batch if len(chosen) == size else tuple(array[: len(chosen)] for array in batch)

    return Stream(epoch, lambda batch: batch[0].size, lambda batch: batch[0].ravel().copy())


def _empty(size: int) -> tuple[np.ndarray, ...]:
    kinds = (np.int32, np.int32, np.float32, np.int32, np.int32, np.uint8)  # in the order of mmdata.Batch
    return tuple(np.zeros((size, SEQ_LEN), kind) for kind in kinds)


def _compiled() -> Any:
    import numba

    @numba.njit(nogil=True)
    def piece(codes, segment, tokens, targets, weights, segments, positions, kinds):  # type: ignore
        n = len(codes)  # a loop an array: each becomes one of vector instructions
        for i in range(n):
            tokens[i] = codes[i]
        for i in range(n - 1):
            targets[i] = codes[i + 1]
        targets[n - 1] = 0
        weights[: n - 1] = 1
        weights[n - 1] = 0
        segments[:] = segment
        for i in range(n):
            positions[i] = i
        kinds[:] = 1

    @numba.njit(nogil=True)
    def expand(rows, starts, first, chosen, tokens, targets, weights, segments, positions, kinds):  # type: ignore
        for b in range(len(chosen)):
            r = chosen[b]
            for s in range(first[r], first[r + 1]):
                x, y = starts[s] - r * SEQ_LEN, starts[s + 1] - r * SEQ_LEN
                piece(
                    rows[r, x:y],
                    s - first[r] + 1,
                    tokens[b, x:y],
                    targets[b, x:y],
                    weights[b, x:y],
                    segments[b, x:y],
                    positions[b, x:y],
                    kinds[b, x:y],
                )

    return expand


SYSTEMS = (
    System(
        "limit",
        "limit",
        "uint16 map -> six arrays, 21 B a token, one compiled function",
        _prepare,
        _open,
        "limit",
        True,
    ),
)
