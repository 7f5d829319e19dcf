"""Video as timed frames: which moments are kept, and the frames' image codes as one video item's codes.

A video item's codec is an image codec applied to frames; its sound is an audio item of its own on the same clock.
Decoding of files is not done here (`pipelines.ingest.decode_video` reads frames by presentation time).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tokenizer.codec import Codes, Shape


def sample_times(duration_s: float, fps: float, max_frames: int) -> list[float]:
    """Seconds at which frames are kept: 0, 1/fps, 2/fps ... below the duration; where these are more than `max_frames`,
    that many evenly spread.

    >>> sample_times(2.5, 1.0, 16), sample_times(100.0, 1.0, 4)
    ([0.0, 1.0, 2.0], [0.0, 25.0, 50.0, 75.0])
    """
    if fps <= 0 or max_frames < 1:
        raise ValueError(f"fps {fps} must be above 0 and max_frames {max_frames} at least 1")
    step = 1.0 / fps
    count = max(1, math.ceil(duration_s / step - 1e-6))
    if count > max_frames:
        step, count = duration_s / max_frames, max_frames
    return [i * step for i in range(count)]


def join_frames(frames: Sequence[Codes], times: np.ndarray) -> Codes:
    """Image codes of t frames of one grid, and their times in seconds, as codes int32 [t*h*w, K] of one video."""
    if len(frames) == 0 or len(frames) != len(times):
        raise ValueError(
            f"{len(frames)} frames with {len(times)} times; a video has at least one frame, each with a time"
        )
    first = frames[0].shape
    if any((f.shape.h, f.shape.w) != (first.h, first.w) for f in frames):
        raise ValueError("the frames of one video must have one grid; resize them first")
    codes = np.concatenate([f.codes for f in frames])
    return Codes(codes, Shape(len(codes), first.K, len(frames), first.h, first.w), np.asarray(times, np.float32))


def split_frames(video: Codes) -> list[Codes]:
    """The image codes of each frame, the inverse of `join_frames`."""
    t, h, w = video.shape.t, video.shape.h, video.shape.w
    shape = Shape(h * w, video.codes.shape[1], 1, h, w)
    return [Codes(frame, shape) for frame in video.codes.reshape(t, h * w, -1)]
