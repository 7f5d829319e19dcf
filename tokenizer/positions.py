"""Position plans: where each token of a row stands, on one axis or several.

linear        0, 1, 2, ...
grid          [2, n]: text on both axes alike; a code at (base + row, base + column)
three_axis    [3, n]: time, height, width (Qwen2-VL's M-RoPE); time by steps or by absolute seconds (Qwen2.5-VL)
one_per_item  all tokens of an image (or of a frame) share one position (BAGEL)
restart       each frame of a video begins again where its first frame began
After a grid text goes on behind the largest position of all axes (`after = "max"`, as Qwen's own code), or of height
and width only (`after = "side"`, as transformers 5.23).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tokenizer.bodies import BodyOrder, cell_of
from tokenizer.item import Item

if TYPE_CHECKING:
    from tokenizer.grammar import PositionRule

_RASTER = BodyOrder()
_AXES = {"grid": 2, "three_axis": 3}


class Places:
    """Positions of a row on its way; told what is written, in order."""

    def __init__(self, rule: PositionRule) -> None:
        self.rule = rule
        self.axes = _AXES.get(rule.plan, 1)
        self.next = 0
        self._arrays: list[np.ndarray] = []  # int64 [axes, n]
        self._grid_end = 0  # where the next token stands once the open grid is done; 0: none is open
        self._inside = False  # an item
        self._frame_base = -1
        self._frame_end = 0

    def begin_item(self) -> None:
        self._inside, self._frame_base, self._frame_end = True, -1, self.next

    def end_item(self) -> None:
        self._inside = False
        if self.rule.plan == "one_per_item":
            self.next += 1
        elif self.rule.plan == "restart":
            self.next = max(self.next, self._frame_end)

    def begin_frame(self) -> None:
        """The next tokens, up to the next call or the item's end, are one frame's."""
        first = self._frame_base < 0
        if self.rule.plan == "one_per_item":
            self.next += 0 if first else 1
            self._frame_base = self.next
        elif self.rule.plan == "restart":
            if first:
                self._frame_base = self.next
            self._frame_end = max(self._frame_end, self.next)
            self.next = self._frame_base

    def text(self, count: int) -> None:
        """Tokens one after the other."""
        if self.rule.plan == "one_per_item" and self._inside:
            self._arrays.append(np.full((1, count), self.next, np.int64))
            return
        self._arrays.append(np.broadcast_to(np.arange(self.next, self.next + count), (self.axes, count)))
        self.next += count

    def grid(
        self,
        t: int,
        h: int,
        w: int,
        K: int = 1,
        row_end: bool = False,
        order: BodyOrder = _RASTER,
        frame: int = 0,
        seconds_a_step: float = 1.0,
    ) -> None:
        """t frames of h x w cells of K codebooks in this order, with a separator after each row or not.

        frame: the number of the first of these frames where earlier ones of the same grid came before.
        """
        if self.axes == 1:
            self.text(t * h * (w * K + row_end))
            return
        if row_end:
            row, column = np.divmod(np.arange(h * (w * K + 1)), w * K + 1)
            column = np.where(column == w * K, w, column // K)
            wide = w + 1
        else:
            cell = np.arange(h * w) if K == 1 and order.plain else cell_of(order, h, w, K)
            row, column = np.divmod(cell, w)
            wide = w
        if self.axes == 2:
            for _ in range(t):
                self._arrays.append(self.next + np.stack([row, column]))
                self.next += max(h, wide)
            return
        step = np.arange(frame, frame + t, dtype=np.float32)
        if self.rule.time == "seconds":
            # In float32, as the original: float64 gives other ids near whole numbers
            step = step * np.float32(np.float32(self.rule.per_second) * np.float32(seconds_a_step))
        time = np.minimum(step, 2.0**30).astype(np.int64)
        size = len(row)
        self._arrays.append(
            self.next + np.stack([np.repeat(time, size), np.tile(row, t), np.tile(column, t)]).astype(np.int64)
        )
        sides = max(h, wide)
        last = sides if self.rule.after == "side" else max(sides, int(time.max(initial=0)) + 1)
        self._grid_end = max(self._grid_end, self.next + last)

    def grid_done(self) -> None:
        """What comes next stands behind the grid."""
        self.next = max(self.next, self._grid_end)
        self._grid_end = 0

    def array(self) -> np.ndarray:  # int32 [n] or [axes, n]
        whole = np.concatenate(self._arrays, axis=1) if self._arrays else np.zeros((self.axes, 0), np.int64)
        return (whole[0] if self.axes == 1 else whole).astype(np.int32)


def seconds_a_step(item: Item, merged: int = 1) -> float:
    """Seconds from one time step of a video to the next, `merged` frames each.

    By the stretch that its frames stand for (as transformers' second_per_grid_ts: 2 / sampled frames a second), else by
    the mean distance of their times, else 1.
    """
    count = item.grid[0]
    seconds = item.end_s - item.start_s
    if math.isfinite(seconds) and seconds > 0 and count:
        return merged * seconds / count
    if len(item.times) == count and count > 1:
        spacing = float(item.times[-1] - item.times[0]) / (count - 1)
        if math.isfinite(spacing) and spacing > 0:
            return merged * spacing
    return 1.0
