"""Pieces: samples that fit a row are one piece; longer ones are cut at the best legal places (docs/format.md, "Plan").

All long documents of a window are cut together, one bisection over their cuts at a time, since a layout's lengths are
columnar. Part of the plan's version 1, fixed for good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokenizer.item import AUDIO, IMAGE, KINDS, TEXT, VIDEO, ItemTable

_PLACES_AT_ONCE = 1 << 20


@dataclass(frozen=True, eq=False)
class Pieces:
    """Ranges of places of samples, in the order of (sample, start)."""

    sample: np.ndarray  # int64 [e], row of the item table
    start: np.ndarray  # int32 [e]
    stop: np.ndarray  # int32 [e]
    length: np.ndarray  # int32 [e], tokens

    @classmethod
    def of(cls, rows: list[tuple[np.ndarray, ...]]) -> Pieces:
        """All of them, sorted."""
        sample, start, stop, length = (
            np.concatenate([np.zeros(0, np.int64), *(np.asarray(row[c], np.int64) for row in rows)]) for c in range(4)
        )
        order = np.lexsort((start, sample))
        return cls(sample[order], *(a[order].astype(np.int32) for a in (start, stop, length)))


@dataclass(frozen=True, eq=False)
class Packable:
    """A window's item table, and what a row holds of it."""

    table: ItemTable
    layout: Any  # a bound layout
    capacity: int
    limits: np.ndarray  # int64 [3], as `costs_of`
    rates: Mapping[str, float]  # code frames a second of each audio codec

    def measure(self, samples: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(tokens int64 [m], whether it fits a row bool [m]) of pieces."""
        part = take(self.table, samples)
        pieces = np.stack([starts, stops], axis=1).astype(np.int32)
        lengths = np.asarray(self.layout.lengths(part, pieces)).astype(np.int64)
        costs, _ = costs_of(self.layout, part, np.arange(len(samples)), starts, stops, self.rates)
        return lengths, (lengths <= self.capacity) & (costs <= self.limits).all(axis=1)


def pieces_of_window(window: Packable) -> tuple[Pieces, Pieces]:
    """(pieces that go into rows, parts that fit no row) of all samples of the table."""
    table = window.table
    samples = np.arange(len(table))
    total = places_of(table)
    lengths = np.asarray(window.layout.lengths(table)).astype(np.int64)
    costs, _ = costs_of(window.layout, table, samples, np.zeros_like(total), total, window.rates)
    long = (lengths > window.capacity) | (costs > window.limits).any(axis=1)
    whole = np.flatnonzero(~long & (lengths > 0))
    cut: list[tuple[np.ndarray, ...]] = []
    left_out: list[tuple[np.ndarray, ...]] = []
    documents = np.flatnonzero(long)
    # Cuts may be as many as tokens: some documents at a time, so that memory stays bounded.
    for some in np.split(documents, np.flatnonzero(np.diff(np.cumsum(total[documents]) // _PLACES_AT_ONCE)) + 1):
        pieces, lost = _cut(window, some)
        cut, left_out = cut + pieces, left_out + lost
    return Pieces.of([(whole, np.zeros(len(whole)), total[whole], lengths[whole]), *cut]), Pieces.of(left_out)


def _cut(window: Packable, long: np.ndarray) -> tuple[list[tuple[np.ndarray, ...]], list[tuple[np.ndarray, ...]]]:
    """(pieces, parts left out) of the samples `long`; each round gives one of either for every sample not done."""
    cuts = [window.layout.cuts(take(window.table, np.array([s]))) for s in long]
    sizes = np.array([len(places) for places, _ in cuts], np.int64)
    base = np.concatenate([[0], np.cumsum(sizes)])[:-1].astype(np.int64)  # first cut of each document
    places = np.concatenate([np.zeros(0, np.int64), *(p for p, _ in cuts)]).astype(np.int64)
    # best[r, i]: the nearest cut at or before i with rank <= r, so that a look-up is one step
    rank = np.concatenate([np.zeros(0, np.uint8), *(r for _, r in cuts)])
    rank[base[sizes > 0]] = 0  # a document's begin is an item's begin: no look-up passes it
    best = np.stack([np.maximum.accumulate(np.where(rank <= r, np.arange(len(rank)), 0)) for r in range(3)])
    pieces: list[tuple[np.ndarray, ...]] = []
    left_out: list[tuple[np.ndarray, ...]] = []
    at = base.copy()
    todo = np.flatnonzero(sizes > 1)
    while len(todo):
        begin, end = at[todo], base[todo] + sizes[todo] - 1
        low, high = begin.copy(), end + 1  # the farthest cut that fits lies in [low, high)
        while (open_ := np.flatnonzero(high - low > 1)).size:
            middle = (low[open_] + high[open_]) // 2
            _, fits = window.measure(long[todo[open_]], places[begin[open_]], places[middle])
            low[open_[fits]], high[open_[~fits]] = middle[fits], middle[~fits]
        stuck = low == begin
        stop = np.where(stuck, begin + 1, low)
        lengths, _ = window.measure(long[todo], places[begin], places[stop])
        farthest, chosen = lengths.copy(), stuck | (stop == end)
        for r in range(len(best)):  # the lowest rank whose piece is at least half as long as the longest one
            candidate = np.where(chosen, stop, best[r, stop])
            usable = np.flatnonzero(~chosen & (candidate > begin))
            if usable.size:
                tokens, _ = window.measure(long[todo[usable]], places[begin[usable]], places[candidate[usable]])
                good = tokens * 2 >= farthest[usable]
                stop[usable[good]], lengths[usable[good]] = candidate[usable[good]], tokens[good]
                chosen[usable[good]] = True
        rows = (long[todo], places[begin], places[stop], lengths)
        pieces.append(tuple(a[~stuck & (lengths > 0)] for a in rows))
        left_out.append(tuple(a[stuck] for a in rows))
        at[todo] = stop
        todo = todo[stop < end]
    return pieces, left_out


def costs_of(
    layout: Any,
    table: ItemTable,
    samples: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
    rates: Mapping[str, float],
) -> tuple[np.ndarray, dict[str, int]]:
    """(int64 [m, 3]: images, video frames and milliseconds of sound of each piece; codes of all pieces by kind)."""
    units = table.num_units().astype(np.int64)
    piece, item, overlap = layout.units(table, samples, starts, stops)
    kind = table.kind[item]
    each = np.stack(
        [
            np.where(kind == IMAGE, overlap > 0, False).astype(np.int64),
            np.where((kind == VIDEO) & (table.codec[item] >= 0), overlap, np.where(kind == VIDEO, table.t[item], 0)),
            np.where(kind == AUDIO, overlap * _milliseconds(table, rates, units)[item], 0.0).round().astype(np.int64),
        ],
        axis=1,
    )
    each[overlap == 0] = 0
    costs = np.zeros((len(samples), 3), np.int64)
    np.add.at(costs, piece, each)
    codes = overlap * (table.T.astype(np.int64) * table.K // np.maximum(units, 1))[item]
    return costs, {KINDS[k]: int(codes[kind == k].sum()) for k in (TEXT, IMAGE, AUDIO, VIDEO)}


def places_of(table: ItemTable) -> np.ndarray:  # int64 [n]
    """How many places each sample has."""
    return np.diff(_sums(table.num_units())[table.offsets])


def take(table: ItemTable, samples: np.ndarray) -> ItemTable:
    """The item table of some samples, in the order given; repeats allowed."""
    samples = np.asarray(samples, np.int64)
    starts = np.asarray(table.offsets, np.int64)[samples]
    counts = np.asarray(table.offsets, np.int64)[samples + 1] - starts
    item = ranges(starts, counts)
    times, times_offsets = _take_ragged(table.times, table.times_offsets, item)
    ends, ends_offsets = _take_ragged(table.sentence_ends, table.sentence_offsets, item)
    plain = ("kind", "codec", "T", "K", "t", "h", "w", "start_s", "end_s", "role", "stream", "group", "group_role")
    return ItemTable(
        offsets=_sums(counts),
        times=times,
        times_offsets=times_offsets,
        sentence_ends=ends,
        sentence_offsets=ends_offsets,
        codecs=table.codecs,
        streams=table.streams,
        **{name: getattr(table, name)[item] for name in plain},
    )


def ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:  # int64 [sum of counts]
    """[s0, s0+1, ... (c0 of them), s1, ...]"""
    ends = np.cumsum(counts, dtype=np.int64)
    return np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)


def _milliseconds(table: ItemTable, rates: Mapping[str, float], units: np.ndarray) -> np.ndarray:  # float64 [m]
    """Of one unit of each audio item: by its codec's rate, else by the item's own times."""
    rate = np.array([*(rates.get(name, 0.0) for name in table.codecs), 0.0])[table.codec]  # codec -1: the last
    with np.errstate(divide="ignore", invalid="ignore"):
        timed = np.nan_to_num((table.end_s - table.start_s) * 1000 / np.maximum(units, 1))
        return np.where(rate > 0, 1000 / rate, timed)


def _take_ragged(values: np.ndarray, offsets: np.ndarray, item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    starts = np.asarray(offsets, np.int64)[item]
    counts = np.asarray(offsets, np.int64)[item + 1] - starts
    return values[ranges(starts, counts)], _sums(counts)


def _sums(counts: np.ndarray) -> np.ndarray:  # int64 [n+1]
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
