"""Pieces: samples that fit a row are one piece; longer ones are cut at the best legal places (docs/format.md, "Plan").

All long documents of a window are cut together, one bisection over their cuts at a time, since a layout's lengths are
columnar. Fixed for good, in both versions of the plan; `pouring.py` may cut some of these pieces further.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from tokenizer.item import AUDIO, IMAGE, KINDS, TEXT, VIDEO, ItemTable, ranges

NO_LIMIT = np.iinfo(np.int64).max // 2
_PLACES_AT_ONCE = 1 << 22


@dataclass(frozen=True, eq=False)
class Pieces:
    """Ranges of places of samples."""

    sample: np.ndarray  # int64 [e], row of the item table
    start: np.ndarray  # int32 [e]
    stop: np.ndarray  # int32 [e]
    length: np.ndarray  # int32 [e], tokens

    def __len__(self) -> int:
        return len(self.sample)

    def __getitem__(self, which: np.ndarray | slice) -> Pieces:
        """Some of them: by number, by a mask, or a slice."""
        return Pieces(self.sample[which], self.start[which], self.stop[which], self.length[which])

    @classmethod
    def joined(cls, parts: list[Pieces]) -> Pieces:
        """One after the other."""
        empty = cls.of(*np.zeros((4, 0)))
        return cls(*(np.concatenate([getattr(p, f.name) for p in [empty, *parts]]) for f in fields(cls)))

    @classmethod
    def of(cls, sample: np.ndarray, start: np.ndarray, stop: np.ndarray, length: np.ndarray) -> Pieces:
        """From columns of any number type."""
        return cls(sample.astype(np.int64), *(a.astype(np.int32) for a in (start, stop, length)))

    def order(self) -> np.ndarray:  # int64 [e]
        """What sorts them by (sample, start)."""
        return np.lexsort((self.start, self.sample))


@dataclass(frozen=True, eq=False)
class Packable:
    """A window's item table, and what a row holds of it."""

    table: ItemTable
    layout: Any  # a bound layout
    capacity: int
    limits: np.ndarray  # int64 [3]: images, video frames, milliseconds of sound; NO_LIMIT where there is none
    rates: Mapping[str, float]  # code frames a second of each audio codec

    @cached_property
    def limited(self) -> np.ndarray:  # int64 [c]
        """The columns that have a limit."""
        return np.flatnonzero(self.limits < NO_LIMIT)

    @cached_property
    def most(self) -> np.ndarray:  # int64 [c]
        """The limits of these columns."""
        return self.limits[self.limited]

    def costs(self, pieces: Pieces) -> np.ndarray:  # int64 [m, c]
        """What pieces of the table hold of that which is limited."""
        return self._costs(self.table, pieces.sample, pieces.start, pieces.stop)

    def measure(
        self, part: ItemTable, samples: np.ndarray, starts: np.ndarray, stops: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:  # int64 [m], int64 [m, c]
        """(tokens, what they hold of that which is limited) of pieces of a part of the table."""
        pieces = np.stack([starts, stops], axis=1).astype(np.int32)
        lengths = np.asarray(self.layout.lengths(part, pieces, samples)).astype(np.int64)
        return lengths, self._costs(part, samples, starts, stops)

    def fits(self, lengths: np.ndarray, costs: np.ndarray) -> np.ndarray:  # bool [m]
        """Whether an empty row holds pieces of these tokens and costs."""
        return (lengths <= self.capacity) & (costs <= self.most).all(axis=1)

    def _costs(self, table: ItemTable, samples: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        if not len(self.limited):
            return np.zeros((len(samples), 0), np.int64)
        return costs_of(self.layout, table, samples, starts, stops, self.rates)[0][:, self.limited]


@dataclass(frozen=True, eq=False)
class Cuts:
    """Where ranges of places may be cut, ranges one after the other: cut i of a range is `places[base + i]`."""

    places: np.ndarray  # int32 [sum], begin and end of each range included
    rank: np.ndarray  # uint8 [sum], as Layout.cuts
    base: np.ndarray  # int64 [n], first cut of each range
    sizes: np.ndarray  # int64 [n]

    @classmethod
    def of_samples(cls, layout: Any, part: ItemTable) -> Cuts:
        """Of the samples of a table, whole."""
        places, rank, offsets = layout.all_cuts(part)
        return cls(places, rank, offsets[:-1], np.diff(offsets))

    @classmethod
    def of(cls, layout: Any, part: ItemTable, samples: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> Cuts:
        """Of ranges of a part of the table, in the order of their samples."""
        places, ranks, sizes = [np.zeros(0, np.int32)], [np.zeros(0, np.uint8)], [np.zeros(0, np.int64)]
        for some in in_chunks(places_of(part)):
            found, rank, offsets = layout.all_cuts(take(part, some))
            here = slice(*np.searchsorted(samples, [some[0], some[-1] + 1]))
            sample = np.repeat(np.arange(len(some)), np.diff(offsets))
            key = sample << 32 | found  # in one order over all samples, as places are below 2^31
            mine = (samples[here] - some[0]) << 32
            first, last = np.searchsorted(key, mine | starts[here]), np.searchsorted(key, mine | stops[here], "right")
            inside = ranges(first, last - first)
            places.append(found[inside])
            ranks.append(rank[inside])
            sizes.append(last - first)
        num = np.concatenate(sizes)
        return cls(np.concatenate(places), np.concatenate(ranks), _sums(num)[:-1], num)


def in_chunks(places: np.ndarray) -> list[np.ndarray]:
    """The numbers of samples with so many places, parted where a chunk has enough: cuts may be as many as tokens."""
    if not len(places):
        return []
    return np.split(np.arange(len(places)), np.flatnonzero(np.diff(np.cumsum(places) // _PLACES_AT_ONCE)) + 1)


def pieces_of_window(window: Packable) -> tuple[Pieces, Pieces]:
    """(pieces that go into rows, parts that fit no row) of all samples of the table, ordered by (sample, start)."""
    table = window.table
    total = places_of(table)
    lengths = np.asarray(window.layout.lengths(table)).astype(np.int64)
    whole = Pieces.of(np.arange(len(table)), np.zeros_like(total), total, lengths)
    fits = window.fits(lengths, window.costs(whole))
    cut: list[Pieces] = []
    left_out: list[Pieces] = []
    documents = np.flatnonzero(~fits)
    for chunk in in_chunks(total[documents]):
        some = documents[chunk]
        pieces, lost = _cut(window, some)
        cut, left_out = cut + pieces, left_out + lost
    kept = whole[fits & (lengths > 0)]
    if len(documents):
        kept = Pieces.joined([kept, *cut])
        kept = kept[kept.order()]
    lost_parts = Pieces.joined(left_out)
    return kept, lost_parts[lost_parts.order()]


def _cut(window: Packable, long: np.ndarray) -> tuple[list[Pieces], list[Pieces]]:
    """(pieces, parts left out) of the samples `long`; each round gives one of either for every sample not done."""
    part, mine = take(window.table, long), np.arange(len(long))
    cuts = Cuts.of_samples(window.layout, part)
    places, base, sizes = cuts.places, cuts.base, cuts.sizes
    cuts.rank[base[sizes > 0]] = 0  # a document's begin is an item's begin: no look-up passes it
    ranked = [np.flatnonzero(cuts.rank <= r) for r in range(3)]  # tokens, rank 3, are not among them: few cuts are
    pieces: list[Pieces] = []
    left_out: list[Pieces] = []
    at = base.copy()
    todo = np.flatnonzero(sizes > 1)
    while len(todo):
        if len(todo) * 2 < len(part):  # a few very long ones are left: the others need not be measured with them
            part, mine[todo] = take(window.table, long[todo]), np.arange(len(todo))
        begin, end = at[todo], base[todo] + sizes[todo] - 1
        low, high = begin.copy(), end + 1  # the farthest cut that fits lies in [low, high)
        while (open_ := np.flatnonzero(high - low > 1)).size:
            middle = (low[open_] + high[open_]) // 2
            fits = window.fits(*window.measure(part, mine[todo[open_]], places[begin[open_]], places[middle]))
            low[open_[fits]], high[open_[~fits]] = middle[fits], middle[~fits]
        stuck = low == begin
        stop = np.where(stuck, begin + 1, low)
        lengths, _ = window.measure(part, mine[todo], places[begin], places[stop])
        farthest, chosen = lengths.copy(), stuck | (stop == end)
        for some in ranked:  # the lowest rank whose piece is at least half as long as the longest one
            candidate = np.where(chosen, stop, some[np.searchsorted(some, stop, "right") - 1])
            usable = np.flatnonzero(~chosen & (candidate > begin))
            if usable.size:
                tokens, _ = window.measure(part, mine[todo[usable]], places[begin[usable]], places[candidate[usable]])
                good = tokens * 2 >= farthest[usable]
                stop[usable[good]], lengths[usable[good]] = candidate[usable[good]], tokens[good]
                chosen[usable[good]] = True
        found = Pieces.of(long[todo], places[begin], places[stop], lengths)
        pieces.append(found[~stuck & (lengths > 0)])
        left_out.append(found[stuck])
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
    costs = np.zeros((len(samples), 3), np.int64)
    for column, number in enumerate((IMAGE, VIDEO, AUDIO)):
        here = np.flatnonzero((kind == number) & (overlap > 0))
        some, much = item[here], overlap[here]
        if number == IMAGE:
            much = np.ones_like(much)
        elif number == VIDEO:
            much = np.where(table.codec[some] >= 0, much, table.t[some])
        else:
            much = (much * _milliseconds(table, rates, units)[some]).round()
        # float64 sums are exact below 2^53
        costs[:, column] = np.bincount(piece[here], much, minlength=len(samples))
    codes = overlap * (table.T.astype(np.int64) * table.K // np.maximum(units, 1))[item]
    sums = np.bincount(kind, codes, minlength=len(KINDS))
    return costs, {KINDS[k]: int(sums[k]) for k in (TEXT, IMAGE, AUDIO, VIDEO)}


def places_of(table: ItemTable) -> np.ndarray:  # int64 [n]
    """How many places each sample has."""
    return np.diff(_sums(table.num_units())[table.offsets])


_COLUMNS = ("kind", "codec", "T", "K", "t", "h", "w", "start_s", "end_s", "role", "stream", "group", "group_role")


def take(table: ItemTable, samples: np.ndarray) -> ItemTable:
    """The item table of some samples, in the order given; repeats allowed."""
    samples = np.asarray(samples, np.int64)
    starts = np.asarray(table.offsets, np.int64)[samples]
    counts = np.asarray(table.offsets, np.int64)[samples + 1] - starts
    item = ranges(starts, counts)
    times, times_offsets = _take_ragged(table.times, table.times_offsets, item)
    ends, ends_offsets = _take_ragged(table.sentence_ends, table.sentence_offsets, item)
    return ItemTable(
        offsets=_sums(counts),
        times=times,
        times_offsets=times_offsets,
        sentence_ends=ends,
        sentence_offsets=ends_offsets,
        codecs=table.codecs,
        streams=table.streams,
        **{name: getattr(table, name)[item] for name in _COLUMNS},
    )


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
    sums = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=sums[1:])
    return sums
