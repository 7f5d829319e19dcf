"""Soft positions: how many a kept medium takes, and the vectors that stand there in place of ids.

A picture is cut into squares, a video into squares of merged frames, sound into runs of log-mel frames or of samples.
No decoder is needed: kept media are arrays at the size they were resized to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tokenizer import refusals
from tokenizer.ambiguity import sides
from tokenizer.item import Item

if TYPE_CHECKING:
    from tokenizer.grammar import SoftRule
    from tokenizer.layout import Layout

MEL_RATE_HZ = 16_000  # of sound that becomes mel frames
_BANDS = 80  # of tokenizer.audio.log_mel
_HOP = 320  # samples of one of its frames, 20 ms


def soft_shapes(rule: SoftRule) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Kind -> shape and type of the vector of one position."""
    shapes: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
    if rule.image.patch:
        shapes["image"] = ((rule.image.patch, rule.image.patch, 3), np.dtype(np.uint8))
    if rule.video.patch:
        shapes["video"] = ((rule.video.frames, rule.video.patch, rule.video.patch, 3), np.dtype(np.uint8))
    if rule.audio.frames:
        shapes["audio"] = ((rule.audio.frames, _BANDS), np.dtype(np.float32))
    elif rule.audio.samples:
        shapes["audio"] = ((rule.audio.samples,), np.dtype(np.int16))
    return shapes


def samples_a_position(rule: SoftRule) -> int:
    """Samples of sound of one position; 0 where sound is not soft."""
    return rule.audio.samples or rule.audio.frames * _HOP


def soft_grid(layout: Layout, item: Item, where: str) -> tuple[int, int, int]:
    """(groups of frames, patches down, patches across); of sound (positions, 1, 1). ValueError where not taken."""
    rule = layout.spec.soft
    size, high, wide = item.grid
    if item.kind == "image" and rule.image.patch:
        if rule.image.size and (high, wide) != sides(rule.image.size):
            raise refusals.wrong_pixels(layout, where, high, wide)
        return 1, -(-high // rule.image.patch), -(-wide // rule.image.patch)
    if item.kind == "video" and rule.video.patch:
        return -(-size // rule.video.frames), -(-high // rule.video.patch), -(-wide // rule.video.patch)
    if item.kind == "audio" and (samples := samples_a_position(rule)):
        return -(-size // samples), 1, 1
    raise refusals.no_soft(layout, f"{where} ({item.kind})")


def group_times(times: np.ndarray, frames: int) -> np.ndarray:  # float64 [groups]
    """The mean of the first and the last time of each group of merged frames; a short last group repeats its last.

    As Qwen3-VL's processor: the mean of the first and last frame that a position merges.
    """
    values = np.round(np.asarray(times, np.float64), 4)  # float32 0.15 is 0.15000000596: what was meant
    first = values[::frames]
    last = values[np.minimum(np.arange(len(first)) * frames + frames - 1, len(values) - 1)] if len(values) else first
    return (first + last) / 2


def vectors(layout: Layout, item: Item, medium: np.ndarray, grid: tuple[int, int, int]) -> np.ndarray:
    """[positions, ...] of a kept medium, in the order of the row; ValueError where it is not of its item's size."""
    rule = layout.spec.soft
    found: tuple[int, ...] = medium.shape
    if item.kind == "image":
        said: tuple[int, ...] = item.grid[1:]
        cut = _patches(medium[None], rule.image.patch, 1)[:, 0] if medium.ndim == 3 else medium[:0]
        found = found[:2]
    elif item.kind == "video":
        said = item.grid
        cut = _patches(medium, rule.video.patch, rule.video.frames) if medium.ndim == 4 else medium[:0]
        found = found[:3]
    else:
        said = item.grid[:1]
        cut = _runs(medium, rule)
    if found != said:
        what = f"{item.kind} {item.digest or item.uri!r}"
        raise ValueError(
            f"the kept medium of {what} is of {list(found)}, its item says {list(said)}; `mmdata verify` the data"
        )
    assert len(cut) == grid[0] * grid[1] * grid[2]
    return cut


def _patches(frames: np.ndarray, patch: int, merged: int) -> np.ndarray:  # uint8 [t * h * w, merged, patch, patch, 3]
    """Squares of uint8 [T, H, W, 3] in raster order, black beyond the edges; a short last group repeats its frame."""
    T, H, W, channels = frames.shape
    t, h, w = -(-T // merged), -(-H // patch), -(-W // patch)
    full = np.zeros((t * merged, h * patch, w * patch, channels), frames.dtype)
    full[:T, :H, :W] = frames
    full[T:, :H, :W] = frames[-1:]
    squares = full.reshape(t, merged, h, patch, w, patch, channels).transpose(0, 2, 4, 1, 3, 5, 6)
    return squares.reshape(t * h * w, merged, patch, patch, channels)


def _runs(sound: np.ndarray, rule: SoftRule) -> np.ndarray:
    """int16 [n, samples], or float32 [n, frames, bands]: silent beyond the end."""
    samples = samples_a_position(rule)
    full = np.zeros(-(-len(sound) // samples) * samples, sound.dtype)
    full[: len(sound)] = sound
    if rule.audio.samples:
        return full.reshape(-1, samples)
    from tokenizer.audio import log_mel  # needs no JAX

    return log_mel(full.astype(np.float32) / 32768).reshape(-1, rule.audio.frames, _BANDS)
