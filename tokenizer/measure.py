"""Lengths and cuts over item tables: columnar, reading no codes, at millions of samples a second.

What they say is what `tokenizer/render.py` does: a table passes `_check_table` only if render would take its items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tokenizer import refusals
from tokenizer.grammar import MEDIA
from tokenizer.item import AUDIO, IMAGE, KINDS, TEXT, VIDEO, ItemTable

if TYPE_CHECKING:
    from tokenizer.layout import Layout


def lengths(
    layout: Layout, table: ItemTable, pieces: np.ndarray | None = None, samples: np.ndarray | None = None
) -> np.ndarray:  # int32 [n]
    """See Layout.lengths."""
    tokens, per_unit, closes = _measure(layout, table)
    ends = np.zeros(len(tokens) + 1, np.int64)
    np.cumsum(tokens, out=ends[1:])
    if pieces is None:
        whole = ends[table.offsets]
        return (whole[1:] - whole[:-1] + 2).astype(np.int32)
    pieces = np.asarray(pieces, np.int64).reshape(-1, 2)
    which = np.arange(len(pieces)) if samples is None else np.asarray(samples, np.int64)
    if len(which) != len(pieces) or (samples is None and len(pieces) != len(table)):
        raise ValueError(f"{len(pieces)} pieces for {len(table)} samples; say with `samples` whose piece each is")
    lo, hi = table.offsets[which], table.offsets[which + 1]
    units = np.zeros(len(tokens) + 1, np.int64)
    np.cumsum(table.num_units(), out=units[1:])
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
    length = 2 + ends[j] - ends[i]
    if len(tokens):
        last = np.maximum(j - 1, 0)
        skipped, left = np.maximum(start - units[i], 0), np.maximum(units[j] - stop, 0)
        cut = skipped * per_unit[np.minimum(i, len(tokens) - 1)] + left * per_unit[last] + (left > 0) * closes[last]
        length -= np.where(j > i, cut, 0)
    return length.astype(np.int32)


def cuts(layout: Layout, table: ItemTable) -> tuple[np.ndarray, np.ndarray]:  # int32 [c], uint8 [c]
    """See Layout.cuts."""
    if len(table) != 1:
        raise ValueError(f"cuts are of one sample, got a table of {len(table)}")
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
    places = np.flatnonzero(ranks < 255)
    return places.astype(np.int32), ranks[places]


def _measure(layout: Layout, table: ItemTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each item: its tokens, tokens a unit where it may be cut, tokens of its close. int64 [m] each, columnar."""
    kind = table.kind
    used = np.bincount(kind, minlength=len(KINDS))
    _check_table(layout, table, used)
    frame, close, times = np.zeros((3, len(KINDS)), np.int64)
    for plan in layout.kinds.values():
        close[plan.number] = plan.close >= 0
        frame[plan.number] = 1 + plan.num_sizes + close[plan.number]
        times[plan.number] = plan.num_times
    per_unit = table.K.astype(np.int64)
    tokens = frame[kind] + table.T * per_unit
    has_start = np.isfinite(table.start_s)
    if has_start.any():
        has_start &= times[kind] > 0
        has_end = has_start & (times[kind] == 2) & np.isfinite(table.end_s)
        tokens += 2 * (has_start.astype(np.int64) + has_end)
    if used[VIDEO]:
        video = np.flatnonzero(kind == VIDEO)
        per_unit[video] *= table.h[video].astype(np.int64) * table.w[video]
        if layout.spec.video.times == "frames":
            num_times = table.times_offsets[video + 1] - table.times_offsets[video]
            timed = (num_times == table.t[video]) & (num_times > 0)
            per_unit[video] += 2 * timed
            tokens[video] += 2 * timed * table.t[video]
    soft = np.flatnonzero(table.codec < 0)
    if len(soft):
        tokens[soft] += _soft_tokens(layout, table, soft)
    return tokens, per_unit, close[kind]


def _soft_tokens(layout: Layout, table: ItemTable, soft: np.ndarray) -> np.ndarray:
    patch, samples = layout.spec.soft.patch or 1, layout.spec.soft.samples or 1
    images = -(-table.h[soft].astype(np.int64) // patch) * -(-table.w[soft].astype(np.int64) // patch)
    return np.where(table.kind[soft] == IMAGE, images, -(-table.t[soft].astype(np.int64) // samples))


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
    expected[0, IMAGE] = 0 if spec.soft.patch else -1
    expected[0, AUDIO] = 0 if spec.soft.samples else -1
    bad = expected.reshape(-1)[(table.codec + 1) * len(KINDS) + kind] != table.K
    if bad.any():
        m, place = where(bad)
        if table.codec[m] < 0:
            raise refusals.no_soft(layout, f"{place} ({KINDS[kind[m]]})")
        raise refusals.stranger(layout, place, KINDS[kind[m]], table.codecs[table.codec[m]], int(table.K[m]))
    if not (used[IMAGE] or used[VIDEO]):
        return
    pictures = (kind == IMAGE) | (kind == VIDEO)
    hard = pictures & (table.codec >= 0)
    bad = hard & (table.t.astype(np.int64) * table.h * table.w != table.T)
    if bad.any():
        m, place = where(bad)
        grid = (int(table.t[m]), int(table.h[m]), int(table.w[m]))
        raise refusals.wrong_grid(place, KINDS[kind[m]], grid, int(table.T[m]))
    patch = np.where(table.codec < 0, spec.soft.patch or 1, 1)
    high, wide = -(-table.h // patch), -(-table.w // patch)
    bad = pictures & ((np.maximum(high, wide) >= spec.vocabulary.sizes) | (np.minimum(high, wide) < 1))
    if bad.any():
        m, place = where(bad)
        raise refusals.wrong_size(layout, place, KINDS[kind[m]], int(high[m]), int(wide[m]))
    if used[VIDEO] and spec.video.times == "frames" and not np.isfinite(table.times).all():
        counts = np.diff(table.times_offsets)
        lost = np.zeros(len(kind), bool)
        lost[np.repeat(np.arange(len(kind)), counts)[~np.isfinite(table.times)]] = True
        lost &= (kind == VIDEO) & (counts == table.t)
        if lost.any():
            raise refusals.no_time(where(lost)[1])
