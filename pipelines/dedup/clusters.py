"""Clusters out of collisions: rows that meet in a band, or differ in few bits, and what is connected by them.

Plain arrays in and out, and no order that a worker could change: a cluster is named by its smallest row. Memory is a
few numbers a row (and source), whatever meets whatever; pairs come in runs and are never held all at once.

Rows of several sources follow one another, and `ends` says where each source's end. Then a row is connected by rows of
its own source and of those before it only: a source that is added joins the clusters there are, and changes none, not
even where a row of it is near to two of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from pipelines.dedup.words import BANDS, ROWS

Pairs = tuple[np.ndarray, np.ndarray]  # int64 [n], int64 [n]: rows that belong together

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def connected(
    num_rows: int, pairs: Iterable[Pairs], alive: Callable[[], object] = lambda: None, ends: Sequence[int] = ()
) -> np.ndarray:  # int64 [num_rows]
    """Of each row the smallest row that it is connected with (union-find, a run of pairs at a time), by rows before the
    end of its source. `alive` is called at each run: it says that this goes on."""
    parents = [np.arange(end) for end in sorted({*ends, num_rows})]
    for one, other in pairs:
        alive()
        last = np.maximum(one, other)
        for parent in parents:
            inside = last < len(parent)
            _join(parent, one[inside], other[inside])
    found = parents[-1]
    for parent in reversed(parents):
        _flatten(parent)
        found[: len(parent)] = parent
    return found


def _join(parent: np.ndarray, one: np.ndarray, other: np.ndarray) -> None:
    while len(one):
        _flatten(parent)
        low, high = np.minimum(parent[one], parent[other]), np.maximum(parent[one], parent[other])
        if not (apart := low != high).any():
            break
        parent[high[apart]] = low[apart]  # of several, any: the next round sees to the others


def _flatten(parent: np.ndarray) -> None:
    """Every row points at its root."""
    while True:
        above = parent[parent]
        if np.array_equal(above, parent):
            return
        parent[:] = above


def band_pairs(signatures: Iterable[np.ndarray], rows: np.ndarray) -> Iterator[Pairs]:
    """Rows whose MinHash signatures agree in all hashes of a band.

    signatures: uint32 [n, 112] arrays that follow one another (memory maps: a band of all is read at a time); rows:
    bool, which take part.
    """
    parts = list(signatures)
    chosen = np.flatnonzero(rows)
    for band in range(BANDS):
        keys = np.concatenate([_band_keys(part[:, band * ROWS : (band + 1) * ROWS]) for part in parts])[chosen]
        order = np.argsort(keys, kind="stable")
        same = keys[order[1:]] == keys[order[:-1]]
        yield chosen[order[:-1][same]], chosen[order[1:][same]]


def _band_keys(columns: np.ndarray) -> np.ndarray:  # uint32 [n, ROWS] -> uint64 [n]
    keys = np.zeros(len(columns), np.uint64)
    for i in range(columns.shape[1]):
        keys = keys * _MULTIPLIER + columns[:, i]
        keys ^= keys >> np.uint64(31)
    return keys


def near_pairs(hashes: np.ndarray, bits: int, most: int = 0) -> Iterator[Pairs]:
    """All pairs of 64-bit hashes that differ in at most `bits` bits.

    Of bits + 1 pieces of such a pair one is equal, so only hashes with an equal piece are compared. With `most`, only
    with so many of the next ones that share it, in the order of rows.
    """
    edges = [round(64 * i / (bits + 1)) for i in range(bits + 2)]
    for low, high in itertools.pairwise(edges):
        piece = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        for one, other in meeting(piece, most):
            near = np.bitwise_count(hashes[one] ^ hashes[other]) <= bits
            yield one[near], other[near]  # a run of none too: it says that this goes on


def meeting(keys: np.ndarray, most: int = 0) -> Iterator[Pairs]:
    """Rows with equal keys: all pairs, or each row with at most `most` of the next ones."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    places, distance = np.arange(len(keys)), 0
    while len(places) and (distance < most or not most):
        distance += 1
        places = places[places + distance < len(keys)]
        places = places[ordered[places] == ordered[places + distance]]
        if len(places):
            yield order[places], order[places + distance]


def connected_hashes(
    hashes: np.ndarray, bits: int, alive: Callable[[], object] = lambda: None, ends: Sequence[int] = ()
) -> np.ndarray:  # int64 [n]
    """`connected` for hashes within `bits` bits; equal ones are compared once, however many there are, and are one."""
    values, first, places = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(first)  # values in the order of the rows where they come first
    place_of = np.empty_like(order)
    place_of[order] = np.arange(len(order))
    values, first = values[order], first[order]
    pairs = near_pairs(values, bits) if len(values) > 1 else ()
    roots = connected(len(values), pairs, alive, np.searchsorted(first, ends).tolist())
    return first[roots][place_of[places]]
