"""Packing: entries of some length into rows of one capacity, best-fit-decreasing, compiled (docs/format.md, "Plan").

Fixed for good: longest entry first (equal ones in their order); each goes into the open row with the smallest gap that
holds it within every limit, among equal gaps the row that came to that gap last; otherwise into a new row. Rows are
numbered in the order in which they were opened.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

_NO_GAPS = np.zeros(0, np.int64)
# The number of the lowest set bit of b is _BIT_OF[(b & -b) * _DE_BRUIJN >> 58]. A loop over bits took two thirds of the
# whole time at rows of 32,768.
_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
_BIT_OF = np.zeros(64, np.int64)
_BIT_OF[[int(_DE_BRUIJN) * (1 << bit) % (1 << 64) >> 58 for bit in range(64)]] = np.arange(64)


def pack(
    lengths: np.ndarray,  # int32 [m], each in [1, capacity]
    capacity: int,
    costs: np.ndarray | None = None,  # int64 [m, c], each at most its limit
    limits: np.ndarray | None = None,  # int64 [c]
    gaps: np.ndarray = _NO_GAPS,  # int64 [r], tokens left in rows that are open already, the last row the latest
    used: np.ndarray | None = None,  # int64 [r, c], what those rows hold of each limit
) -> np.ndarray:  # int32 [m]: the row of each entry
    """The row of each entry; new rows are numbered from the number of `gaps` on.

    >>> pack(np.array([5, 9, 3, 3, 8, 1], np.int32), capacity=12).tolist()
    [2, 0, 0, 1, 1, 1]
    """
    if costs is None or limits is None:
        costs, limits = np.zeros((len(lengths), 0), np.int64), np.zeros(0, np.int64)
    if len(lengths) and (int(lengths.min()) < 1 or int(lengths.max()) > capacity or (costs > limits).any()):
        raise ValueError(f"an entry fits no row: lengths {lengths.min()} to {lengths.max()}, capacity {capacity}")
    if used is None:
        used = np.zeros((len(gaps), len(limits)), np.int64)
    return _compiled(_pack)(
        lengths.astype(np.int32),
        longest_first(lengths, capacity),
        capacity,
        costs.astype(np.int64),
        limits.astype(np.int64),
        gaps.astype(np.int64),
        used.astype(np.int64),
    )


def longest_first(lengths: np.ndarray, capacity: int) -> np.ndarray:  # int32 [m]
    """The order of entries by length, the longest first, equal ones in their order."""
    return _compiled(_counting_order)(capacity - lengths.astype(np.int64), capacity + 1)


def in_rows(row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # int32 [m], int64 [rows]
    """(the entries row by row, in each row in their order; how many each row has) of the row of each entry."""
    num = int(row.max()) + 1 if len(row) else 0
    return _compiled(_counting_order)(row.astype(np.int64), num), np.bincount(row, minlength=num).astype(np.int64)


@cache
def _compiled(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """One of the loops below, compiled when first needed: importing numba takes a while."""
    import numba

    return numba.njit(cache=True)(function)


def _counting_order(keys, num):  # type: ignore[no-untyped-def]
    """A stable argsort of whole numbers below `num`, in one pass over the keys."""
    place = np.zeros(num + 1, np.int64)
    for key in keys:
        place[key + 1] += 1
    for key in range(num):
        place[key + 1] += place[key]
    order = np.empty(len(keys), np.int32)
    for e in range(len(keys)):
        order[place[keys[e]]] = e
        place[keys[e]] += 1
    return order


def _pack(lengths, order, capacity, costs, limits, gaps, held):  # type: ignore[no-untyped-def]
    # Open rows hang in one list a gap; `present` (a bit a gap) and `above` (a bit a word) find the next gap in use.
    num, num_limits, rows = len(lengths), len(limits), len(gaps)
    words = capacity // 64 + 1
    present, above = np.zeros(words, np.uint64), np.zeros(words // 64 + 1, np.uint64)
    head, following = np.full(capacity + 1, -1, np.int32), np.full(num + rows + 1, -1, np.int32)
    used = np.zeros((num + rows if num_limits else 0, num_limits), np.int64)
    out = np.empty(num, np.int32)
    one, top = np.uint64(1), np.uint64(58)
    for row in range(rows):
        if num_limits:
            used[row] = held[row]
        gap = gaps[row]
        if gap > 0:
            following[row] = head[gap]
            head[gap] = row
            present[gap >> 6] |= one << np.uint64(gap & 63)
            above[gap >> 12] |= one << np.uint64((gap >> 6) & 63)
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
                word = (high << 6) + _BIT_OF[((bits & (~bits + one)) * _DE_BRUIJN) >> top]
                bits = present[word]
                gap = word << 6
            gap += _BIT_OF[((bits & (~bits + one)) * _DE_BRUIJN) >> top]
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
