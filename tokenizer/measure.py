"""Lengths and cuts over item tables: columnar, reading no codes, at millions of samples a second.

What they say is what `tokenizer/render.py` does: a table passes `_check_table` only if render would take its items.
The one thing that is not columnar is a piece that cuts items on one clock (`tokenizer/clock.py`): such pieces are
measured one by one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tokenizer import clock, refusals, soft, streams
from tokenizer.grammar import MEDIA
from tokenizer.item import AUDIO, IMAGE, KINDS, NONE, ROLES, TEXT, VIDEO, ItemTable

if TYPE_CHECKING:
    from tokenizer.layout import KindPlan, Layout


@dataclass(eq=False)
class _Measure:
    """Of each item of a table, in tokens."""

    tokens: np.ndarray  # int64 [m], all of it, turns included where it begins or ends one
    per_unit: np.ndarray  # int64 [m], a unit where it may be cut
    closes: np.ndarray  # int64 [m], its close
    separator: np.ndarray  # int64 [m], between two of its frames
    frame_ends: np.ndarray | None  # int64 [2, sum + 1]: tokens and number of shown frames before each, where they vary
    shows: np.ndarray  # bool [m]
    turn_open: np.ndarray | None  # int64 [m], what opens a turn of its role; None: no turns
    turn_close: np.ndarray | None  # int64 [m], what its turn's close takes, where it ends one
    turn_first: np.ndarray | None  # bool [m], whether it begins a turn
    groups: list[list[int]]  # items on one clock


def lengths(
    layout: Layout, table: ItemTable, pieces: np.ndarray | None = None, samples: np.ndarray | None = None
) -> np.ndarray:  # int32 [n]
    """See Layout.lengths."""
    if layout.spec.streams.sounds:
        return streams.lengths(layout, table, pieces, samples)
    whole_table, table = table, _without(layout, table)
    m = _measure(layout, table)
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
    for n in _inside_groups(m, units, start, stop):
        length[n] = _rendered(layout, whole_table, int(which[n]), (int(pieces[n, 0]), int(pieces[n, 1])))
    return length


def cuts(layout: Layout, table: ItemTable) -> tuple[np.ndarray, np.ndarray]:  # int32 [c], uint8 [c]
    """See Layout.cuts."""
    if len(table) != 1:
        raise ValueError(f"cuts are of one sample, got a table of {len(table)}")
    if layout.spec.streams.sounds:
        return streams.cuts(layout, table)
    units = np.concatenate([[0], np.cumsum(table.num_units(), dtype=np.int64)])
    ranks = np.full(int(units[-1]) + 1, 255, np.uint8)
    for m in np.flatnonzero((np.diff(units) > 1) & (table.codec >= 0)):
        inside = ranks[units[m] : units[m + 1]]
        if table.kind[m] == TEXT:
            inside[:] = 3
            ends = table.sentence_ends[table.sentence_offsets[m] : table.sentence_offsets[m + 1]]
            inside[ends[(ends > 0) & (ends < len(inside))]] = 2
            continue
        rate = 0.0
        if table.kind[m] == AUDIO:
            rate = layout.rate(table.codecs[table.codec[m]], len(inside), table.start_s[m], table.end_s[m])
        if rate:
            seconds = np.arange(1, int(len(inside) / rate) + 1)
            places = np.ceil(seconds * rate - 1e-9).astype(np.int64)
            inside[places[places < len(inside)]] = 1
        else:
            inside[:] = 1
    ranks[units] = 0
    _no_cut_at_what_is_left_out(layout, table, units, ranks)
    for group in _groups(layout, table):
        first, last = int(units[group[0]]), int(units[group[-1] + 1])
        order = clock.merged(layout, [clock.Stretch.of_table(table, m) for m in group])
        ranks[first + 1 : last] = 255
        ranks[first + 1 + np.flatnonzero(np.diff(order.second))] = 1
    places = np.flatnonzero(ranks < 255)
    return places.astype(np.int32), ranks[places]


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
    for group in _groups(layout, table):
        order = None
        sample = int(np.searchsorted(offsets, group[0], "right")) - 1
        at = int(sums[group[0]] - sums[offsets[sample]])
        total = int(size[group].sum())
        for p in np.flatnonzero(samples == sample):
            lo, hi = (int(np.clip(x - at, 0, total)) for x in (starts[p], stops[p]))
            if (lo, hi) in ((0, total), (0, 0), (total, total)):
                continue
            order = order or clock.merged(layout, [clock.Stretch.of_table(table, m) for m in group])
            before, after = order.split(lo, len(group)), order.split(hi, len(group))
            for k, m in enumerate(group):
                here = (piece == p) & (item == m)
                first[here], last[here] = before[k], after[k]
    overlap = last - np.minimum(first, last)
    if layout.spec.document.unwritten == "leave_out":
        overlap[~clock.shows_in_table(layout, table)[item]] = 0
    if "video" in layout.kinds and layout.kinds["video"].rule.max_rate:
        _only_shown(layout, table, item, first, last, overlap)
    return piece, item, overlap


def _only_shown(
    layout: Layout, table: ItemTable, item: np.ndarray, first: np.ndarray, last: np.ndarray, overlap: np.ndarray
) -> None:
    """Sets the frames of videos to those that thinning leaves."""
    counts: dict[int, np.ndarray] = {}
    for x in np.flatnonzero((table.kind[item] == VIDEO) & (overlap > 0) & (table.codec[item] >= 0)):
        m = int(item[x])
        if m not in counts:
            times = table.times[table.times_offsets[m] : table.times_offsets[m + 1]]
            shown = layout.shown_frames(times) if len(times) == table.t[m] else None
            counts[m] = np.cumsum(np.concatenate([[0], np.ones(int(table.t[m]), int) if shown is None else shown]))
        overlap[x] = counts[m][last[x]] - counts[m][first[x]]


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


def _no_cut_at_what_is_left_out(layout: Layout, table: ItemTable, units: np.ndarray, ranks: np.ndarray) -> None:
    """Items that are left out stay with what is before them, or at the beginning after: no piece holds only such."""
    if layout.spec.document.unwritten == "refuse":
        return
    shown = clock.shows_in_table(layout, table)
    for m in np.flatnonzero(~shown):
        first, last = int(units[m]), int(units[m + 1])
        ranks[first + 1 : last] = 255
        if first > 0 and (shown[:m].any() or last == units[-1]):
            ranks[first] = 255
        elif last < units[-1]:
            ranks[last] = 255
    ranks[[0, -1]] = 0


def _measure(layout: Layout, table: ItemTable) -> _Measure:
    kind = table.kind
    used = np.bincount(kind, minlength=len(KINDS))
    _check_table(layout, table, used)
    frame, close, times = np.zeros((3, len(KINDS)), np.int64)
    for plan in layout.kinds.values():
        close[plan.number] = len(plan.close)
        frame[plan.number] = len(plan.open) + plan.num_sizes + len(plan.after_header) + close[plan.number]
        times[plan.number] = plan.num_times
    per_unit = table.K.astype(np.int64)
    tokens = frame[kind] + table.T * per_unit
    has_start = np.isfinite(table.start_s)
    if has_start.any():
        has_start &= times[kind] > 0
        has_end = has_start & (times[kind] == 2) & np.isfinite(table.end_s)
        tokens += 2 * (has_start.astype(np.int64) + has_end)
    separator, frame_ends = np.zeros(0, np.int64), None
    if used[VIDEO] or (used[IMAGE] and layout.kinds["image"].row_end >= 0) or _image_as_video(layout):
        separator = np.zeros(len(kind), np.int64)
        frame_ends = _pictures(layout, table, tokens, per_unit, separator, used)
    if used[IMAGE] or used[VIDEO]:
        _size_texts(layout, table, tokens)
    softly = np.flatnonzero((table.codec < 0) & (kind != NONE))
    if len(softly):
        _soft(layout, table, tokens, softly)
    shows = np.ones(0, bool)
    if any(not plan.marked for plan in layout.kinds.values()) or layout.spec.document.unwritten == "leave_out":
        shows = clock.shows_in_table(layout, table) & (kind != NONE)
        tokens[~shows] = 0
    found = _groups(layout, table, shows if len(shows) else None)
    for group in found:
        for m in group[1:]:
            tokens[m] = table.T[m] * table.K[m] + (2 if layout.spec.merge.of == "video_audio" else 0)
    result = _Measure(tokens, per_unit, close[kind], separator, frame_ends, shows, None, None, None, found)
    if layout.turn_open or layout.turn_close.mark >= 0:
        _turns(layout, table, result)
    return result


def _image_as_video(layout: Layout) -> bool:
    return "image" in layout.kinds and layout.kinds["image"].as_video


def _pictures(
    layout: Layout,
    table: ItemTable,
    tokens: np.ndarray,
    per_unit: np.ndarray,
    separator: np.ndarray,
    used: np.ndarray,
) -> np.ndarray | None:
    """Adds rows' ends, frames' delimiters, separators and times; returns where the frames of each video end."""
    kind, hard = table.kind, table.codec >= 0
    image = layout.kinds.get("image")
    if used[IMAGE] and image is not None:
        some = np.flatnonzero((kind == IMAGE) & hard)
        if image.row_end >= 0:
            tokens[some] += table.h[some]
        if image.as_video:
            tokens[some] += len(image.frame_open) + len(image.frame_close)
    if not used[VIDEO]:
        return None
    plan = layout.kinds["video"]
    video = np.flatnonzero((kind == VIDEO) & hard)
    t = table.t[video].astype(np.int64)
    per_unit[video] *= table.h[video].astype(np.int64) * table.w[video]
    extra = len(plan.frame_open) + len(plan.frame_close) + (plan.separator >= 0)
    if plan.row_end >= 0:
        per_unit[video] += table.h[video]
    num_times = table.times_offsets[video + 1] - table.times_offsets[video]
    timed = (num_times == t) & (num_times > 0) & plan.frame_times
    per_unit[video] += extra + 2 * (timed & (plan.time_text is None))
    separator[video] = plan.separator >= 0
    head = len(plan.open) + plan.num_sizes + len(plan.after_header) + len(plan.close)
    tokens[video] = head + t * per_unit[video] - separator[video] * (t > 0)
    if not plan.varies or not timed.any():
        return None
    each = np.zeros(len(table.times), np.int64)  # tokens of each frame that has a time
    item = np.repeat(np.arange(len(kind)), np.diff(table.times_offsets))
    here = np.isin(item, video[timed])
    each[here] = per_unit[item[here]]
    if plan.time_text:
        steps = layout.frame_steps(table.times[here])
        unique, inverse = np.unique(steps, return_inverse=True)
        sizes = np.array([len(layout.words.ids(plan.time_text.write(int(s)))) for s in unique], np.int64)
        each[here] += sizes[inverse]
    if plan.rule.max_rate:
        for m in video[timed]:
            span = slice(int(table.times_offsets[m]), int(table.times_offsets[m + 1]))
            shown = layout.shown_frames(table.times[span])
            if shown is not None:
                each[span] *= shown
    ends = np.zeros((2, len(each) + 1), np.int64)
    np.cumsum(each, out=ends[0, 1:])
    np.cumsum(each > 0, out=ends[1, 1:])
    with_times = video[timed]
    tokens[with_times] = head + ends[0, table.times_offsets[with_times + 1]] - ends[0, table.times_offsets[with_times]]
    if plan.separator >= 0:
        tokens[with_times] -= 1
    per_unit[with_times] = 0  # they are counted frame by frame
    return ends


def _size_texts(layout: Layout, table: ItemTable, tokens: np.ndarray) -> None:
    """Adds grids that are written as text."""
    for plan in layout.kinds.values():
        if not plan.size_text:
            continue
        some = np.flatnonzero(table.kind == plan.number)
        high, wide = _grid_sides(layout, table, some)
        pairs, inverse = np.unique(high * (1 << 20) + wide, return_inverse=True)
        written = [plan.size_text.write(int(p >> 20), int(p & ((1 << 20) - 1))) for p in pairs]
        tokens[some] += np.array([len(layout.words.ids(w)) for w in written], np.int64)[inverse]


def _grid_sides(layout: Layout, table: ItemTable, some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Height and width in codes, or in positions of soft items."""
    high, wide = table.h[some].astype(np.int64), table.w[some].astype(np.int64)
    softly = table.codec[some] < 0
    for number, patch in ((IMAGE, layout.spec.soft.image.patch), (VIDEO, layout.spec.soft.video.patch)):
        here = softly & (table.kind[some] == number)
        if patch and here.any():
            high[here], wide[here] = -(-high[here] // patch), -(-wide[here] // patch)
    return high, wide


def _soft(layout: Layout, table: ItemTable, tokens: np.ndarray, some: np.ndarray) -> None:
    """Sets the tokens of soft items."""
    rule = layout.spec.soft
    high, wide = _grid_sides(layout, table, some)
    kind = table.kind[some]
    count = high * wide
    samples = soft.samples_a_position(rule) or 1
    count[kind == AUDIO] = -(-table.t[some][kind == AUDIO].astype(np.int64) // samples)
    video = np.flatnonzero(kind == VIDEO)
    if len(video):
        plan = layout.kinds["video"]
        groups = -(-table.t[some][video].astype(np.int64) // rule.video.frames)
        count[video] *= groups
        if len(plan.frame_open) or plan.frame_times:
            count[video] += groups * (len(plan.frame_open) + len(plan.frame_close))
        else:
            count[video] += len(plan.frame_open) + len(plan.frame_close)
        for n in video.tolist() if plan.frame_times else ():
            m = int(some[n])
            seconds = table.times[table.times_offsets[m] : table.times_offsets[m + 1]]
            steps = layout.time_steps(soft.group_times(seconds, rule.video.frames), plan.time_text)
            if plan.time_text:
                count[n] += sum(len(layout.words.ids(plan.time_text.write(int(s)))) for s in steps)
            else:
                count[n] += 2 * len(steps)
    head = np.zeros(len(KINDS), np.int64)
    for p in layout.kinds.values():
        head[p.number] = len(p.open) + p.num_sizes + len(p.after_header) + len(p.close)
    extra = np.zeros(len(some), np.int64)
    for i, m in enumerate(some.tolist()):
        p = layout.kinds[KINDS[table.kind[m]]]
        if p.num_times and np.isfinite(table.start_s[m]):
            extra[i] = 2 * (1 + (p.num_times == 2 and bool(np.isfinite(table.end_s[m]))))
        if p.size_text:
            extra[i] += len(layout.words.ids(p.size_text.write(int(high[i]), int(wide[i]))))
    tokens[some] = head[kind] + count + extra


def _groups(layout: Layout, table: ItemTable, shows: np.ndarray | None = None) -> list[list[int]]:
    """Items of the table that are written as one."""
    if layout.spec.merge.of == "none":
        return []
    found: list[list[int]] = []
    visible = clock.shows_in_table(layout, table) if shows is None else shows
    for sample in clock.group_candidates(layout, table).tolist():
        here = range(int(table.offsets[sample]), int(table.offsets[sample + 1]))
        shown = [m for m in here if visible[m]]
        stretches = [clock.Stretch.of_table(table, m) for m in shown]
        found += [[shown[g] for g in group] for group in clock.groups(layout, stretches)]
    return found


def _turns(layout: Layout, table: ItemTable, m: _Measure) -> None:
    """Adds the delimiters of turns to the items that begin and end them."""
    role = table.role.astype(np.int64)
    for group in m.groups:
        role[group] = role[group[0]]
    opens = np.array([len(layout.turn_open[r]) if r in layout.turn_open else 0 for r in ROLES], np.int64)
    shown = np.flatnonzero(m.shows) if len(m.shows) else np.arange(len(role))
    sample = np.repeat(np.arange(len(table)), np.diff(table.offsets))[shown]
    of = role[shown]
    new = np.ones(len(shown), bool)
    new[1:] = (of[1:] != of[:-1]) | (sample[1:] != sample[:-1])
    last = np.ones(len(shown), bool)
    last[:-1] = new[1:]
    m.turn_open, m.turn_close = opens[role], np.zeros(len(role), np.int64)
    m.turn_first = np.zeros(len(role), bool)
    m.turn_first[shown] = new & (of > 0)
    m.turn_close[shown] = np.where(last & (of > 0), len(layout.turn_close), 0)
    m.tokens += np.where(m.turn_first, m.turn_open, 0) + m.turn_close


def _task_tokens(
    layout: Layout, table: ItemTable, m: _Measure, i: np.ndarray, j: np.ndarray
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
    m: _Measure,
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
    m: _Measure,
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


def _inside_groups(m: _Measure, units: np.ndarray, start: np.ndarray, stop: np.ndarray) -> list[int]:
    """Pieces that begin or end inside items on one clock."""
    if not m.groups:
        return []
    first = units[np.array([group[0] for group in m.groups])]
    last = units[np.array([group[-1] + 1 for group in m.groups])]
    bad = np.zeros(len(start), bool)
    for place in (start, stop):
        group = np.searchsorted(first, place, "left") - 1  # the last group that begins before it
        bad |= (group >= 0) & (place < last[np.maximum(group, 0)])
    return np.flatnonzero(bad).tolist()


def _rendered(layout: Layout, table: ItemTable, sample: int, piece: tuple[int, int]) -> int:
    """The length of one piece by rendering it with codes of 0."""
    from tokenizer.item import Item
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
    from tokenizer.row import PLAIN

    return len(render(layout, items, PLAIN, piece, None, dry=True))


def _check_table(layout: Layout, table: ItemTable, used: np.ndarray) -> None:
    """Refuses a table which render could not render, naming the first such item."""
    spec, kind = layout.spec, table.kind

    def where(bad: np.ndarray) -> tuple[int, str]:
        m = int(np.flatnonzero(bad)[0])
        sample = int(np.searchsorted(table.offsets, m, "right")) - 1
        return m, f"item {m - int(table.offsets[sample])} of sample {sample}"

    for number, name in enumerate(MEDIA, 1):
        if used[number] and name not in layout.kinds:
            raise refusals.not_written(layout, where(kind == number)[1], name)
    # Codebooks that (kind, codec) must have: -1 for a pair that does not go together. Row 0 is no codec.
    expected = np.full((len(table.codecs) + 1, len(KINDS)), -1, np.int32)
    for index, codec in enumerate(table.codecs):
        bound = layout.codec_index.get(codec)
        if bound is not None:
            for number, name in enumerate(MEDIA, 1):
                if refusals.codes_for(layout.codecs[bound], name):
                    expected[index + 1, number] = len(layout.code_sizes[bound])
    for number, name in enumerate(MEDIA, 1):
        expected[0, number] = 0 if name in layout.soft_shapes else -1
    expected[0, NONE] = 0  # left out
    bad = expected.reshape(-1)[(table.codec + 1) * len(KINDS) + kind] != table.K
    if bad.any():
        m, place = where(bad)
        if table.codec[m] < 0:
            raise refusals.no_soft(layout, f"{place} ({KINDS[kind[m]]})")
        raise refusals.stranger(layout, place, KINDS[kind[m]], table.codecs[table.codec[m]], int(table.K[m]))
    if not (used[IMAGE] or used[VIDEO]):
        return
    for name, number in (("image", IMAGE), ("video", VIDEO)):
        if used[number]:
            _check_pictures(layout, layout.kinds[name], table, kind == number, where)
    if used[VIDEO] and spec.video.times == "frames":
        counts = np.diff(table.times_offsets)
        videos = kind == VIDEO
        plan = layout.kinds["video"]
        if plan.time_text or (table.codec[videos] < 0).any():
            untimed = videos & (counts != table.t) & ((table.codec < 0) | (plan.time_text is not None))
            if untimed.any():
                raise refusals.untimed(layout, where(untimed)[1])
        if not np.isfinite(table.times).all():
            lost = np.zeros(len(kind), bool)
            lost[np.repeat(np.arange(len(kind)), counts)[~np.isfinite(table.times)]] = True
            lost &= videos & (counts == table.t)
            if lost.any():
                raise refusals.no_time(where(lost)[1])


def _check_pictures(layout: Layout, plan: KindPlan, table: ItemTable, here: np.ndarray, where: object) -> None:
    """Grids of one kind, as `refusals.check_grid` and `render.check_soft` see them."""
    name = plan.kind
    hard = here & (table.codec >= 0)
    softly = here & (table.codec < 0)
    if plan.only_soft and hard.any():
        raise refusals.only_soft(layout, where(hard)[1], name)  # type: ignore[operator]
    bad = hard & (table.t.astype(np.int64) * table.h * table.w != table.T)
    if bad.any():
        m, place = where(bad)  # type: ignore[operator]
        raise refusals.wrong_grid(place, name, (int(table.t[m]), int(table.h[m]), int(table.w[m])), int(table.T[m]))
    h, w = table.h, table.w
    unit, most = plan.rule.size_unit, layout.spec.vocabulary.sizes
    bad = (h < 1) | (w < 1)
    if plan.num_sizes:
        bad |= (h // unit >= most) | (w // unit >= most)
        if unit > 1:
            bad |= (h % unit != 0) | (w % unit != 0)
    if plan.fixed[0]:
        bad |= (h != plan.fixed[0]) | (w != plan.fixed[1])
    elif plan.rule.grid == "square":
        bad |= h != w
    bad &= hard
    if name == "video" and not plan.says_grid:
        bad &= table.t > 0
    if bad.any():
        m, place = where(bad)  # type: ignore[operator]
        raise refusals.wrong_size(layout, plan, place, int(h[m]), int(w[m]))
    if not softly.any():
        return
    rule = layout.spec.soft.image if name == "image" else layout.spec.soft.video
    if name == "image" and layout.spec.soft.image.size:
        from tokenizer.ambiguity import sides

        want = sides(layout.spec.soft.image.size)
        wrong = softly & ((h != want[0]) | (w != want[1]))
        if wrong.any():
            m, place = where(wrong)  # type: ignore[operator]
            raise refusals.wrong_pixels(layout, place, int(h[m]), int(w[m]))
    high, wide = -(-h // rule.patch), -(-w // rule.patch)
    bad = (np.minimum(high, wide) < 1) | (np.maximum(high, wide) >= most if plan.num_sizes else False)
    bad &= softly
    if bad.any():
        m, place = where(bad)  # type: ignore[operator]
        raise refusals.wrong_size(layout, plan, place, int(high[m]), int(wide[m]))
