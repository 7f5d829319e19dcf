"""Refusing item tables: one passes only if `tokenizer/render.py` would take its items; the first bad one is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tokenizer import refusals
from tokenizer.ambiguity import sides
from tokenizer.grammar import MEDIA
from tokenizer.item import IMAGE, KINDS, NONE, VIDEO, ItemTable

if TYPE_CHECKING:
    from tokenizer.layout import KindPlan, Layout

Where = Callable[
    [np.ndarray], tuple[int, str]
]  # the first item of a mask: its number in the table, and where it stands


def check_table(layout: Layout, table: ItemTable, used: np.ndarray) -> None:
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


def _check_pictures(layout: Layout, plan: KindPlan, table: ItemTable, here: np.ndarray, where: Where) -> None:
    """Grids of one kind, as `refusals.check_grid` and `render.check_soft` see them."""
    name = plan.kind
    hard = here & (table.codec >= 0)
    softly = here & (table.codec < 0)
    if plan.only_soft and hard.any():
        raise refusals.only_soft(layout, where(hard)[1], name)
    bad = hard & (table.t.astype(np.int64) * table.h * table.w != table.T)
    if bad.any():
        m, place = where(bad)
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
    if name == "video" and not (plan.says_grid and plan.marked):  # without frames it shows not, or says no grid
        bad &= table.t > 0
    if bad.any():
        m, place = where(bad)
        raise refusals.wrong_size(layout, plan, place, int(h[m]), int(w[m]))
    if not softly.any():
        return
    rule = layout.spec.soft.image if name == "image" else layout.spec.soft.video
    if name == "image" and layout.spec.soft.image.size:
        want = sides(layout.spec.soft.image.size)
        wrong = softly & ((h != want[0]) | (w != want[1]))
        if wrong.any():
            m, place = where(wrong)
            raise refusals.wrong_pixels(layout, place, int(h[m]), int(w[m]))
    high, wide = -(-h // rule.patch), -(-w // rule.patch)
    bad = (np.minimum(high, wide) < 1) | (np.maximum(high, wide) >= most if plan.num_sizes else False)
    bad &= softly
    if bad.any():
        m, place = where(bad)
        raise refusals.wrong_size(layout, plan, place, int(high[m]), int(wide[m]))
