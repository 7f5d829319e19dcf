"""Items on one clock that are written as one: frames and their sound in chunks, or unit streams of several codecs.

A *group* is consecutive items which the layout merges. Its units have an order of their own, that of the clock, and
places inside it count in that order: so a cut at a second cuts picture and sound at the same second. Everything here
works on plain columns, so that items (rendering) and item tables (planning) give the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tokenizer.item import AUDIO, KINDS, VIDEO, Item, ItemTable

if TYPE_CHECKING:
    from tokenizer.layout import Layout


@dataclass(frozen=True, slots=True)
class Stretch:
    """What the clock needs to know of an item."""

    kind: int
    codec: str  # "" soft
    count: int  # units
    start_s: float
    end_s: float
    times: np.ndarray  # float32 [count], or empty

    @classmethod
    def of(cls, item: Item, kind: int) -> Stretch:
        if item.codes is None:
            return cls(kind, "", 1, item.start_s, item.end_s, item.times)
        count = item.grid[0] if kind == VIDEO else len(item.codes)
        return cls(kind, item.codec, count, item.start_s, item.end_s, item.times)

    @classmethod
    def of_table(cls, table: ItemTable, m: int) -> Stretch:
        codec = table.codecs[table.codec[m]] if table.codec[m] >= 0 else ""
        count = int(table.t[m] if table.kind[m] == VIDEO else table.T[m])
        times = table.times[table.times_offsets[m] : table.times_offsets[m + 1]]
        return cls(int(table.kind[m]), codec, count, float(table.start_s[m]), float(table.end_s[m]), times)

    def known(self, layout: Layout) -> bool:
        """Whether every unit has a time."""
        if len(self.times) == self.count and self.count:
            return True
        return self.kind == AUDIO and math.isfinite(self.start_s) and self.rate(layout) > 0

    def rate(self, layout: Layout) -> float:
        return layout.rate(self.codec, self.count, self.start_s, self.end_s)


def groups(layout: Layout, stretches: Sequence[Stretch]) -> list[list[int]]:
    """Indices of items that are written as one, in the order of their first; only groups of two or more.

    `stretches` are of the items that show in a row (`shows`), one after the other.
    """
    of = layout.spec.merge.of
    found: list[list[int]] = []
    i = 0
    while i < len(stretches):
        first = stretches[i]
        group = [i]
        if of == "video_audio" and first.kind == VIDEO and first.codec and _frames_known(first):
            second = stretches[i + 1] if i + 1 < len(stretches) else None
            if second is not None and _sound_joins(layout, second):
                group.append(i + 1)
        elif of == "units" and first.kind == AUDIO and _unit_stream(layout, first):
            names = {first.codec}
            for j in range(i + 1, len(stretches)):
                other = stretches[j]
                if other.kind != AUDIO or other.codec in names or not _unit_stream(layout, other):
                    break
                if not (other.start_s < first.end_s and other.end_s > first.start_s):
                    break
                names.add(other.codec)
                group.append(j)
        if len(group) > 1:
            found.append(group)
        i += len(group)
    return found


def _frames_known(video: Stretch) -> bool:
    return video.count == 0 or (len(video.times) == video.count and bool(np.isfinite(video.times).all()))


def _sound_joins(layout: Layout, sound: Stretch) -> bool:
    return (
        sound.kind == AUDIO
        and bool(sound.codec)
        and sound.count > 0
        and math.isfinite(sound.start_s)
        and _codec_rate(layout, sound) > 0  # one by its own times would be lost with them
    )


def _codec_rate(layout: Layout, sound: Stretch) -> float:
    index = layout.codec_index.get(sound.codec)
    return layout.codecs[index].rate if index is not None else 0.0


def _unit_stream(layout: Layout, sound: Stretch) -> bool:
    return bool(sound.codec) and sound.count > 0 and sound.known(layout) and math.isfinite(sound.end_s - sound.start_s)


def shows(layout: Layout, kind: str, num_codes: int) -> bool:
    """Whether an item without soft media leaves a trace in a row: without codes only a control can."""
    plan = layout.kinds.get(kind)
    return num_codes > 0 or plan is None or plan.marked


@dataclass(frozen=True, eq=False)
class Merged:
    """The units of a group in the order of its clock."""

    member: np.ndarray  # int64 [n], which item of the group
    unit: np.ndarray  # int64 [n], which unit of that item
    second: np.ndarray  # int64 [n], whole seconds of the clock: where it may be cut

    def split(self, place: int, members: int) -> list[int]:
        """Units of each of so many members before a place of the group."""
        return np.bincount(self.member[:place], minlength=members).tolist()


def merged(layout: Layout, group: Sequence[Stretch]) -> Merged:
    """The order of a group. In chunks of `chunk_s` frames, then sound; units by time, ties in the items' order."""
    merge = layout.spec.merge
    keys, members, units, seconds = [], [], [], []
    for number, stretch in enumerate(group):
        times = unit_times(layout, stretch)
        if stretch.kind == VIDEO:  # a frame that thinning leaves out stands with the one before it
            shown = layout.shown_frames(stretch.times)
            if shown is not None:
                times = times[np.maximum.accumulate(np.where(shown, np.arange(len(times)), 0))]
        if merge.of == "video_audio":
            key = np.maximum.accumulate(np.floor(times / merge.chunk_s + 1e-6))
            second = key * merge.chunk_s
        else:
            key = np.maximum.accumulate(times)
            second = np.floor(key + 1e-6)
        keys.append(key)
        members.append(np.full(len(times), number, np.int64))
        units.append(np.arange(len(times)))
        seconds.append(second)
    member, unit = np.concatenate(members), np.concatenate(units)
    key, second = np.concatenate(keys), np.concatenate(seconds)
    order = np.lexsort((unit, member, key))
    return Merged(member[order], unit[order], np.floor(second[order] + 1e-6).astype(np.int64))


def unit_times(layout: Layout, stretch: Stretch) -> np.ndarray:  # float64 [count]
    """Seconds of each unit, as a row tells them: frames and starts of sounds to the quantum where it writes them."""
    if stretch.kind == VIDEO:
        return layout.frame_steps(stretch.times) * layout.frame_quantum_s
    if len(stretch.times) == stretch.count and layout.spec.merge.of == "units":
        return np.asarray(stretch.times, np.float64)
    start = stretch.start_s
    if layout.spec.merge.of == "video_audio":
        start = layout.quantised(start)
    return start + np.arange(stretch.count) / stretch.rate(layout)


def shows_in_table(layout: Layout, table: ItemTable) -> np.ndarray:  # bool [m]
    """Which items of a table leave a trace in a row: `shows`, but for those that are left out."""
    empty = (table.T == 0) & (table.codec >= 0)
    hidden = np.zeros(len(table.kind), bool)
    for plan in layout.kinds.values():
        if not plan.marked:
            hidden |= empty & (table.kind == plan.number)
    for number, kind in enumerate(KINDS[1:5], 1):
        for soft in (False, True):
            if layout.leaves_out(kind, soft):
                hidden |= (table.kind == number) & ((table.codec < 0) == soft)
    return ~hidden


def groups_in_table(layout: Layout, table: ItemTable, shown: np.ndarray) -> list[list[int]]:
    """`groups` of all samples of a table, by columns: numbers of items. shown: int64, the items that show in a row."""
    of = layout.spec.merge.of
    if of == "none" or not len(shown):
        return []
    sample = np.repeat(np.arange(len(table)), np.diff(table.offsets))[shown]
    follows = sample[1:] == sample[:-1]
    if of == "video_audio":
        pairs = np.flatnonzero(follows & _videos(table)[shown[:-1]] & _sounds(layout, table)[shown[1:]])
        return np.stack([shown[pairs], shown[pairs + 1]], axis=1).tolist()
    streams = _streams(layout, table)[shown]
    joined = np.concatenate([[False], follows & streams[1:] & streams[:-1], [False]])
    edges = np.flatnonzero(joined[1:] != joined[:-1]).reshape(-1, 2)  # first and last of each run of unit streams
    found: list[list[int]] = []
    numbers, codec = shown.tolist(), table.codec[shown].tolist()
    start, end = table.start_s[shown].tolist(), table.end_s[shown].tolist()
    for first, last in edges.tolist():
        i = first
        while i <= last:
            names, j = {codec[i]}, i + 1
            while j <= last and codec[j] not in names and start[j] < end[i] and end[j] > start[i]:
                names.add(codec[j])
                j += 1
            if j - i > 1:
                found.append(numbers[i:j])
            i = j
    return found


def _videos(table: ItemTable) -> np.ndarray:  # bool [m]
    """As `_frames_known`: videos in codes, each of whose frames has a time."""
    num_times = np.diff(table.times_offsets)
    endless = np.concatenate([[0], np.cumsum(~np.isfinite(table.times))])[table.times_offsets]
    known = (table.t == 0) | ((num_times == table.t) & (np.diff(endless) == 0))
    return (table.kind == VIDEO) & (table.codec >= 0) & known


def _sounds(layout: Layout, table: ItemTable) -> np.ndarray:  # bool [m]
    """As `_sound_joins`."""
    hard = (table.kind == AUDIO) & (table.codec >= 0) & (table.T > 0)
    return hard & np.isfinite(table.start_s) & (_rates(layout, table) > 0)


def _streams(layout: Layout, table: ItemTable) -> np.ndarray:  # bool [m]
    """As `_unit_stream`."""
    hard = (table.kind == AUDIO) & (table.codec >= 0) & (table.T > 0)
    with np.errstate(invalid="ignore"):
        seconds = table.end_s - table.start_s
        rated = np.isfinite(table.start_s) & ((_rates(layout, table) > 0) | (np.isfinite(seconds) & (seconds > 0)))
    return hard & ((np.diff(table.times_offsets) == table.T) | rated) & np.isfinite(seconds)


def _rates(layout: Layout, table: ItemTable) -> np.ndarray:  # float64 [m]
    """Code frames a second of each item's codec; 0 where it has none."""
    found = [layout.codec_index.get(name) for name in table.codecs]
    return np.array([*(layout.codecs[i].rate if i is not None else 0.0 for i in found), 0.0])[table.codec]
