"""Lengths and cuts over item tables: columnar, reading no codes, at millions of samples a second.

What they say is what `tokenizer/render.py` does: `check_table.py` passes a table only if render would take its items.
The one thing that is not columnar is a piece that cuts items on one clock (`tokenizer/clock.py`): such pieces are
measured one by one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tokenizer import clock, streams
from tokenizer.grammar import MEDIA
from tokenizer.item import AUDIO, KINDS, NONE, ROLES, TEXT, VIDEO, Item, ItemTable, ranges
from tokenizer.item_tokens import ItemTokens, groups_of, item_tokens, shown_in_table
from tokenizer.row import PLAIN

if TYPE_CHECKING:
    from tokenizer.layout import Layout


def lengths(
    layout: Layout, table: ItemTable, pieces: np.ndarray | None = None, samples: np.ndarray | None = None
) -> np.ndarray:  # int32 [n]
    """See Layout.lengths."""
    if layout.spec.streams.sounds:
        return streams.lengths(layout, table, pieces, samples)
    whole_table, table = table, _without(layout, table)
    m = item_tokens(layout, table)
    ends = np.zeros(len(m.tokens) + 1, np.int64)
    np.cumsum(m.tokens, out=ends[1:])
    begin, end = int(bool(layout.spec.document.begin)), int(bool(layout.spec.document.end))
    if pieces is None:
        whole = ends[table.offsets]
        task = _task_tokens(layout, table, m, table.offsets[:-1], table.offsets[1:])
        return (whole[1:] - whole[:-1] + task + (begin + end)).astype(np.int32)
    pieces = np.asarray(pieces, np.int64).reshape(-1, 2)
    which = np.arange(len(pieces)) if samples is None else np.asarray(samples, np.int64)
    if len(which) != len(pieces) or (samples is None and len(pieces) != len(table)):
        raise ValueError(f"{len(pieces)} pieces for {len(table)} samples; say with `samples` whose piece each is")
    lo, hi = table.offsets[which], table.offsets[which + 1]
    units = np.zeros(len(m.tokens) + 1, np.int64)
    np.cumsum(whole_table.num_units(), out=units[1:])
    start, stop = units[lo] + pieces[:, 0], units[lo] + pieces[:, 1]
    wrong = (pieces[:, 0] < 0) | (pieces[:, 0] > pieces[:, 1]) | (stop > units[hi])
    if wrong.any():
        n = int(np.argmax(wrong))
        raise ValueError(f"piece {pieces[n].tolist()} of a sample with places 0 .. {units[hi[n]] - units[lo[n]]}")
    # Items i .. j of the piece. One without units lies at one place and belongs to the piece that starts there, or to
    # the last one.
    i = np.minimum(np.searchsorted(units[1:], start, "right"), np.searchsorted(units[:-1], start, "left"))
    i = np.clip(i, lo, hi)
    j = np.where(stop == units[hi], hi, np.clip(np.searchsorted(units[:-1], stop, "left"), i, hi))
    begins, finishes = start == units[lo], stop == units[hi]
    length = np.where(begins, begin + _task_tokens(layout, table, m, i, j), 1)  # 1: the continued control
    length += np.where(finishes, end, 1) + ends[j] - ends[i]
    if len(m.tokens):
        length += _cut_tokens(table, m, i, j, units, start, stop)
        if m.turn_open is not None:
            length += _turn_tokens(layout, table, m, i, j, lo, hi, finishes, units, stop)
    length = length.astype(np.int32)
    for n in sorted({piece for piece, _ in _cut_groups(m.groups, units, start, stop)}):
        length[n] = _rendered(layout, whole_table, int(which[n]), (int(pieces[n, 0]), int(pieces[n, 1])))
    return length


def cuts(layout: Layout, table: ItemTable) -> tuple[np.ndarray, np.ndarray]:  # int32 [c], uint8 [c]
    """See Layout.cuts."""
    if len(table) != 1:
        raise ValueError(f"cuts are of one sample, got a table of {len(table)}")
    return all_cuts(layout, table)[:2]


def all_cuts(
    layout: Layout, table: ItemTable
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # int32 [c], uint8 [c], int64 [n+1]
    """See Layout.all_cuts."""
    if layout.spec.streams.sounds:
        return streams.all_cuts(layout, table)
    num_units = table.num_units()
    units = np.zeros(len(num_units) + 1, np.int64)
    np.cumsum(num_units, out=units[1:])
    offsets = np.asarray(table.offsets, np.int64)
    bounds = units[offsets] + np.arange(len(offsets))  # the places of sample s, its end included, are bounds[s]:..[s+1]
    begin = units[:-1] + np.repeat(np.arange(len(table)), np.diff(offsets))  # first place of each item
    ranks = np.full(int(bounds[-1]), 255, np.uint8)
    _ranks_inside(layout, table, num_units, begin, ranks)
    ranks[begin], ranks[bounds[1:] - 1] = 0, 0
    if layout.spec.document.unwritten != "refuse":
        shown = clock.shows_in_table(layout, table)
        sums = np.concatenate([[0], np.cumsum(~shown)])
        for s in np.flatnonzero(sums[offsets[1:]] > sums[offsets[:-1]]):
            items = slice(int(offsets[s]), int(offsets[s + 1]))
            places = np.append(begin[items], bounds[s + 1] - 1) - bounds[s]
            _no_cut_at_what_is_left_out(shown[items], places, ranks[bounds[s] : bounds[s + 1]])
    for group in groups_of(layout, table):
        first = int(begin[group[0]])
        order = clock.merged(layout, [clock.Stretch.of_table(table, m) for m in group])
        ranks[first + 1 : int(begin[group[-1]] + num_units[group[-1]])] = 255
        ranks[first + 1 + np.flatnonzero(np.diff(order.second))] = 1
    found = np.flatnonzero(ranks < 255)
    ends = np.searchsorted(found, bounds)
    places = found - np.repeat(bounds[:-1], np.diff(ends))
    return places.astype(np.int32), ranks[found], ends


def _ranks_inside(
    layout: Layout, table: ItemTable, num_units: np.ndarray, begin: np.ndarray, ranks: np.ndarray
) -> None:
    """Sets the ranks of places inside items: whole seconds of sound, frames, sentences, tokens."""
    some = (num_units > 1) & (table.codec >= 0)
    text = np.flatnonzero(some & (table.kind == TEXT))
    ranks[ranges(begin[text], num_units[text])] = 3
    num_ends = np.diff(table.sentence_offsets)[text]
    ends = table.sentence_ends[ranges(table.sentence_offsets[:-1][text], num_ends)]
    place, most = np.repeat(begin[text], num_ends), np.repeat(num_units[text], num_ends)
    inside = (ends > 0) & (ends < most)
    ranks[place[inside] + ends[inside]] = 2
    sound = np.flatnonzero(some & (table.kind == AUDIO))
    rates = np.array(
        [
            layout.rate(table.codecs[table.codec[m]], int(num_units[m]), float(table.start_s[m]), float(table.end_s[m]))
            for m in sound.tolist()
        ],
        np.float64,
    )
    timed = rates > 0
    frames = np.concatenate([np.flatnonzero(some & (table.kind == VIDEO)), sound[~timed]])
    ranks[ranges(begin[frames], num_units[frames])] = 1
    sound, rates = sound[timed], rates[timed]
    seconds = (num_units[sound] / rates).astype(np.int64)
    at = np.ceil(ranges(np.ones_like(seconds), seconds) * np.repeat(rates, seconds) - 1e-9).astype(np.int64)
    inside = at < np.repeat(num_units[sound], seconds)
    ranks[(np.repeat(begin[sound], seconds) + at)[inside]] = 1


def units(
    layout: Layout, table: ItemTable, samples: np.ndarray, starts: np.ndarray, stops: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """See Layout.units."""
    samples = np.asarray(samples, np.int64)
    starts, stops = np.asarray(starts, np.int64), np.asarray(stops, np.int64)
    if layout.spec.streams.sounds:
        return streams.units(layout, table, samples, starts, stops)
    offsets = np.asarray(table.offsets, np.int64)
    counts = (offsets[1:] - offsets[:-1])[samples]
    last = np.cumsum(counts)
    item = np.arange(int(last[-1]) if len(last) else 0) + np.repeat(offsets[samples] - (last - counts), counts)
    piece = np.repeat(np.arange(len(samples)), counts)
    size = table.num_units().astype(np.int64)
    sums = np.concatenate([[0], np.cumsum(size)])
    begin = (sums[:-1] - np.repeat(sums[offsets[:-1]], np.diff(offsets)))[item]  # first place of the item
    first = np.maximum(starts[piece] - begin, 0)  # of the units of each item, those of the piece
    last = np.clip(stops[piece] - begin, first, size[item])
    groups = groups_of(layout, table)
    base = np.concatenate([[0], np.cumsum(counts)])  # where the items of each piece stand in `item`
    place = sums[offsets[samples]]
    for p, g in _cut_groups(groups, sums, place + starts, place + stops):
        group = groups[g]
        at, total = int(sums[group[0]]), int(size[group].sum())
        lo, hi = (int(np.clip(place[p] + x[p] - at, 0, total)) for x in (starts, stops))
        order = clock.merged(layout, [clock.Stretch.of_table(table, m) for m in group])
        here = base[p] + np.array(group) - offsets[samples[p]]
        first[here], last[here] = order.split(lo, len(group)), order.split(hi, len(group))
    overlap = last - np.minimum(first, last)
    if layout.spec.document.unwritten == "leave_out":
        overlap[~clock.shows_in_table(layout, table)[item]] = 0
    if "video" in layout.kinds and layout.kinds["video"].rule.max_rate:
        _only_shown(layout, table, item, first, last, overlap)
    return piece, item, overlap


def _cut_groups(
    groups: list[list[int]], units: np.ndarray, start: np.ndarray, stop: np.ndarray
) -> list[tuple[int, int]]:
    """(piece, group) where a piece begins or ends inside items on one clock; units: places before each item."""
    if not groups:
        return []
    first = units[np.array([group[0] for group in groups])]
    last = units[np.array([group[-1] + 1 for group in groups])]
    found: set[tuple[int, int]] = set()
    for place in (start, stop):
        group = np.searchsorted(first, place, "left") - 1  # the last group that begins before it
        cut = np.flatnonzero((group >= 0) & (place < last[np.maximum(group, 0)]))
        found.update(zip(cut.tolist(), group[cut].tolist()))
    return sorted(found)


def _only_shown(
    layout: Layout, table: ItemTable, item: np.ndarray, first: np.ndarray, last: np.ndarray, overlap: np.ndarray
) -> None:
    """Sets the frames of videos to those that thinning leaves."""
    counts = np.diff(table.times_offsets)
    timed = (table.kind == VIDEO) & (table.codec >= 0) & (counts == table.t)
    frame = np.repeat(np.arange(len(counts)), counts)
    mine, shown = np.flatnonzero(timed[frame]), np.zeros(len(frame), bool)
    shown[mine] = shown_in_table(layout, table.times[mine], frame[mine])
    before = np.concatenate([[0], np.cumsum(shown)])
    here = np.flatnonzero(timed[item] & (overlap > 0))
    begin = table.times_offsets[item[here]]
    overlap[here] = before[begin + last[here]] - before[begin + first[here]]


def _without(layout: Layout, table: ItemTable) -> ItemTable:
    """The table with items that are left out as items of no kind, which take no tokens."""
    if layout.spec.document.unwritten == "refuse":
        return table
    out = np.zeros(len(table.kind), bool)
    for number, kind in enumerate(MEDIA, 1):
        for softly in (False, True):
            if layout.leaves_out(kind, softly):
                out |= (table.kind == number) & ((table.codec < 0) == softly)
    if not out.any():
        return table
    zero: dict[str, Any] = {n: np.where(out, 0, getattr(table, n)).astype(np.int32) for n in ("T", "K", "t", "h", "w")}
    codec = np.where(out, -1, table.codec).astype(np.int32)
    return replace(table, kind=np.where(out, NONE, table.kind).astype(np.uint8), codec=codec, **zero)


def _no_cut_at_what_is_left_out(shown: np.ndarray, units: np.ndarray, ranks: np.ndarray) -> None:
    """Items that are left out stay with what is before them, or at the beginning after: no piece holds only such.

    shown: bool [m] of the items of one sample; units: first place of each, and the last place; ranks: of its places"""
    for m in np.flatnonzero(~shown):
        first, last = int(units[m]), int(units[m + 1])
        ranks[first + 1 : last] = 255
        if first > 0 and (shown[:m].any() or last == units[-1]):
            ranks[first] = 255
        elif last < units[-1]:
            ranks[last] = 255
    ranks[[0, -1]] = 0


def _task_tokens(
    layout: Layout, table: ItemTable, m: ItemTokens, i: np.ndarray, j: np.ndarray
) -> np.ndarray | int:  # int64 [n]
    """Whether a document which begins with items i .. j has a task control."""
    if layout.tasks is None:
        return 0
    if layout.tasks[0] >= 0:
        return 1
    media = table.kind != TEXT
    if len(m.shows):
        media &= m.shows
    sums = np.concatenate([[0], np.cumsum(media)])
    return (sums[j] > sums[i]).astype(np.int64)


def _cut_tokens(
    table: ItemTable,
    m: ItemTokens,
    i: np.ndarray,
    j: np.ndarray,
    units: np.ndarray,
    start: np.ndarray,
    stop: np.ndarray,
) -> np.ndarray:
    """What a piece has less than all of its items i .. j."""
    top = len(m.tokens) - 1
    first, last = np.minimum(i, top), np.clip(j - 1, 0, top)
    skipped, left = np.maximum(start - units[i], 0), np.maximum(units[j] - stop, 0)
    cut = skipped * m.per_unit[first] + left * m.per_unit[last] + (left > 0) * m.closes[last]
    if m.frame_ends is not None:
        ends, offsets = m.frame_ends, table.times_offsets
        for item, before, after in (
            (first, skipped, np.where(first == last, left, 0)),
            (last, np.zeros_like(left), np.where(first == last, 0, left)),
        ):
            timed = (before + after > 0) & (table.kind[item] == VIDEO) & (m.per_unit[item] == 0)
            a, d = np.where(timed, offsets[item], 0), np.where(timed, offsets[item + 1], 0)
            b, c = np.where(timed, a + before, 0), np.where(timed, d - after, 0)
            cut += ends[0, b] - ends[0, a] + ends[0, d] - ends[0, c]
            if len(m.separator):  # between frames that are shown: none of them, no separator less
                none = timed & (ends[1, c] == ends[1, b])
                cut -= np.where(none, m.separator[item], 0)
    if len(m.shows):
        hidden = ~m.shows[last] & (left > 0)
        cut = np.where(hidden, 0, cut)
    return np.where(j > i, -cut, 0)


def _turn_tokens(
    layout: Layout,
    table: ItemTable,
    m: ItemTokens,
    i: np.ndarray,
    j: np.ndarray,
    lo: np.ndarray,
    hi: np.ndarray,
    finishes: np.ndarray,
    units: np.ndarray,
    stop: np.ndarray,
) -> np.ndarray:
    """What a piece has more or less for its turns: one that it continues is opened anew, one it cuts is not closed."""
    assert m.turn_open is not None and m.turn_close is not None and m.turn_first is not None
    n = len(m.tokens)
    shown = m.shows if len(m.shows) else np.ones(n, bool)
    # The first and the last item of the piece that shows
    following = np.where(shown, np.arange(n), n)
    following = np.minimum.accumulate(following[::-1])[::-1]
    before = np.maximum.accumulate(np.where(shown, np.arange(n), -1))
    first = np.where(i < n, following[np.minimum(i, n - 1)], n)
    last = np.where(j > 0, before[np.maximum(j - 1, 0)], -1)
    has = (first < j) & (last >= i) & (j > i)
    f, z = np.minimum(first, n - 1), np.maximum(last, 0)
    more = np.where(has & ~m.turn_first[f] & (table.role[f] > 0), m.turn_open[f], 0)
    cut = has & (units[np.minimum(z + 1, len(units) - 1)] > stop)  # its last item is not whole
    return more - np.where(cut, m.turn_close[z], 0)


def _rendered(layout: Layout, table: ItemTable, sample: int, piece: tuple[int, int]) -> int:
    """The length of one piece by rendering it with codes of 0."""
    from tokenizer.render import render

    items = []
    for m in range(int(table.offsets[sample]), int(table.offsets[sample + 1])):
        hard = table.codec[m] >= 0
        codes = np.zeros((int(table.T[m]), int(table.K[m])), np.int32) if hard else None
        items.append(
            Item(
                KINDS[table.kind[m]],
                table.codecs[table.codec[m]] if hard else "",
                codes,
                (int(table.t[m]), int(table.h[m]), int(table.w[m])),
                float(table.start_s[m]),
                float(table.end_s[m]),
                role=ROLES[table.role[m]],
                times=table.times[table.times_offsets[m] : table.times_offsets[m + 1]],
            )
        )
    return len(render(layout, items, PLAIN, piece, None, dry=True))
