"""Tokens of each item of a table, turns included: the columns from which lengths of samples and pieces are sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tokenizer import clock, soft
from tokenizer.check_table import check_table
from tokenizer.item import AUDIO, IMAGE, KINDS, NONE, ROLES, VIDEO, ItemTable, ranges

if TYPE_CHECKING:
    from tokenizer.layout import Layout
    from tokenizer.literals import SizeText


@dataclass(eq=False)
class ItemTokens:
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


def item_tokens(layout: Layout, table: ItemTable) -> ItemTokens:
    kind = table.kind
    used = np.bincount(kind, minlength=len(KINDS))
    check_table(layout, table, used)
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
    found = groups_of(layout, table, shows if len(shows) else None)
    if found:
        _, after = _leaders(found)
        tokens[after] = table.T[after] * per_unit[after] + (2 if layout.spec.merge.of == "video_audio" else 0)
    result = ItemTokens(tokens, per_unit, close[kind], separator, frame_ends, shows, None, None, None, found)
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
        each[here] *= shown_in_table(layout, table.times[here], item[here])
    ends = np.zeros((2, len(each) + 1), np.int64)
    np.cumsum(each, out=ends[0, 1:])
    np.cumsum(each > 0, out=ends[1, 1:])
    with_times = video[timed]
    tokens[with_times] = head + ends[0, table.times_offsets[with_times + 1]] - ends[0, table.times_offsets[with_times]]
    if plan.separator >= 0:
        tokens[with_times] -= 1
    per_unit[with_times] = 0  # they are counted frame by frame
    return ends


def shown_in_table(layout: Layout, times: np.ndarray, item: np.ndarray) -> np.ndarray:  # bool [n]
    """Which frames thinning leaves, of videos one after the other: `item` is each frame's."""
    shown = layout.shown_frames(times)
    if shown is None:
        return np.ones(len(times), bool)
    shown[1:] |= item[1:] != item[:-1]
    return shown


def _size_texts(layout: Layout, table: ItemTable, tokens: np.ndarray) -> None:
    """Adds grids that are written as text."""
    for plan in layout.kinds.values():
        if plan.size_text:
            some = np.flatnonzero(table.kind == plan.number)
            tokens[some] += _size_tokens(layout, plan.size_text, *_grid_sides(layout, table, some))


def _size_tokens(layout: Layout, text: SizeText, high: np.ndarray, wide: np.ndarray) -> np.ndarray:  # int64 [n]
    pairs, inverse = np.unique(high * (1 << 20) + wide, return_inverse=True)
    written = [text.write(int(p >> 20), int(p & ((1 << 20) - 1))) for p in pairs]
    return np.array([len(layout.words.ids(w)) for w in written], np.int64)[inverse]


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
        if plan.frame_times:
            count[video] += _soft_times(layout, table, some[video])
    head = np.zeros(len(KINDS), np.int64)
    for p in layout.kinds.values():
        head[p.number] = len(p.open) + p.num_sizes + len(p.after_header) + len(p.close)
    tokens[some] = head[kind] + count
    has_start, has_end = np.isfinite(table.start_s[some]), np.isfinite(table.end_s[some])
    for p in layout.kinds.values():
        here = kind == p.number
        if p.num_times:
            begun = here & has_start
            tokens[some[begun]] += 2 + 2 * (has_end[begun] & (p.num_times == 2))
        if p.size_text and here.any():
            tokens[some[here]] += _size_tokens(layout, p.size_text, high[here], wide[here])


def _soft_times(layout: Layout, table: ItemTable, videos: np.ndarray) -> np.ndarray:  # int64 [n]
    """Tokens of the times of a soft video's groups of frames, as `soft.group_times` has them."""
    plan, frames = layout.kinds["video"], layout.spec.soft.video.frames
    begin, num = table.times_offsets[:-1][videos], np.diff(table.times_offsets)[videos]
    groups = -(-num // frames)
    if not plan.time_text:
        return 2 * groups
    first = np.repeat(begin, groups) + ranges(np.zeros_like(groups), groups) * frames
    last = np.minimum(first + frames - 1, np.repeat(begin + num - 1, groups))
    values = np.round(table.times.astype(np.float64), 4)
    seconds, inverse = np.unique((values[first] + values[last]) / 2, return_inverse=True)
    steps = layout.time_steps(seconds, plan.time_text).tolist()
    sizes = np.array([len(layout.words.ids(plan.time_text.write(step))) for step in steps], np.int64)
    sums = np.concatenate([[0], np.cumsum(sizes[inverse])])
    ends = np.cumsum(groups)
    return sums[ends] - sums[ends - groups]


def groups_of(layout: Layout, table: ItemTable, shows: np.ndarray | None = None) -> list[list[int]]:
    """Items of the table that are written as one."""
    if layout.spec.merge.of == "none":
        return []
    visible = clock.shows_in_table(layout, table) if shows is None else shows
    return clock.groups_in_table(layout, table, np.flatnonzero(visible))


def _leaders(groups: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:  # int64 [x] each
    """(the first of its group, the item) of the items of groups that are not the first."""
    sizes = np.array([len(group) - 1 for group in groups], np.int64)
    first = np.array([group[0] for group in groups], np.int64)
    return np.repeat(first, sizes), np.array([m for group in groups for m in group[1:]], np.int64)


def _turns(layout: Layout, table: ItemTable, m: ItemTokens) -> None:
    """Adds the delimiters of turns to the items that begin and end them."""
    role = table.role.astype(np.int64)
    if m.groups:
        first, after = _leaders(m.groups)
        role[after] = role[first]
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
