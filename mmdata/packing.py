"""Packing: entries of some length into rows of one capacity, best-fit-decreasing, compiled (docs/format.md, "Plan").

Part of the plan's version 1, fixed for good: longest entry first (equal ones in their order); each goes into the open
row with the smallest gap that holds it within every limit, among equal gaps the row that came to that gap last;
otherwise into a new row. Rows are numbered in the order in which they were opened.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np


def pack(
    lengths: np.ndarray,  # int32 [m], each in [1, capacity]
    capacity: int,
    costs: np.ndarray | None = None,  # int64 [m, c], each at most its limit
    limits: np.ndarray | None = None,  # int64 [c]
) -> np.ndarray:  # int32 [m]: the row of each entry
    """The row of each entry.

    >>> pack(np.array([5, 9, 3, 3, 8, 1], np.int32), capacity=12).tolist()
    [2, 0, 0, 1, 1, 1]
    """
    if costs is None or limits is None:
        costs, limits = np.zeros((len(lengths), 0), np.int64), np.zeros(0, np.int64)
    if len(lengths) and (int(lengths.min()) < 1 or int(lengths.max()) > capacity or (costs > limits).any()):
        raise ValueError(f"an entry fits no row: lengths {lengths.min()} to {lengths.max()}, capacity {capacity}")
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    return _compiled()(lengths.astype(np.int32), order, capacity, costs.astype(np.int64), limits.astype(np.int64))


@cache
def _compiled() -> Callable[..., np.ndarray]:
    """The loop below, compiled when first needed: importing numba takes a while."""
    import numba

    return numba.njit(cache=True)(_pack)


def _pack(lengths, order, capacity, costs, limits):  # type: ignore[no-untyped-def]
    # Open rows hang in one list a gap; `present` (a bit a gap) and `above` (a bit a word) find the next gap in use.
    num, num_limits = len(lengths), len(limits)
    words = capacity // 64 + 1
    present, above = np.zeros(words, np.uint64), np.zeros(words // 64 + 1, np.uint64)
    head, following = np.full(capacity + 1, -1, np.int32), np.full(num + 1, -1, np.int32)
    used = np.zeros((num if num_limits else 0, num_limits), np.int64)
    out = np.empty(num, np.int32)
    one, rows = np.uint64(1), 0
    for e in order:
        length = lengths[e]
        gap, row, before = length, -1, -1
        while gap <= capacity:
            # The next gap >= `gap` that some row has.
            word = gap >> 6
            bits = present[word] >> np.uint64(gap & 63)
            if bits == 0:
                word += 1
                high = word >> 6
                if high >= len(above):
                    break
                bits = (above[high] >> np.uint64(word & 63)) << np.uint64(word & 63)
                while bits == 0 and high + 1 < len(above):
                    high += 1
                    bits = above[high]
                if bits == 0:
                    break
                word = high << 6
                while bits & one == 0:
                    bits >>= one
                    word += 1
                bits = present[word]
                gap = word << 6
            while bits & one == 0:
                bits >>= one
                gap += 1
            # The first row of that gap which every limit allows.
            before, row = -1, head[gap]
            while row >= 0:
                fits = True
                for k in range(num_limits):
                    if used[row, k] + costs[e, k] > limits[k]:
                        fits = False
                        break
                if fits:
                    break
                before, row = row, following[row]
            if row >= 0:
                break
            gap += 1
        if row >= 0:
            if before < 0:
                head[gap] = following[row]
            else:
                following[before] = following[row]
            if head[gap] < 0:
                present[gap >> 6] &= ~(one << np.uint64(gap & 63))
                if present[gap >> 6] == 0:
                    above[gap >> 12] &= ~(one << np.uint64((gap >> 6) & 63))
        else:
            row, gap = rows, capacity
            rows += 1
        out[e] = row
        for k in range(num_limits):
            used[row, k] += costs[e, k]
        gap -= length
        if gap > 0:
            following[row] = head[gap]
            head[gap] = row
            present[gap >> 6] |= one << np.uint64(gap & 63)
            above[gap >> 12] |= one << np.uint64((gap >> 6) & 63)
    return out
