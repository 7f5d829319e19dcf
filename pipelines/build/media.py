"""One part of a document to arrays: bytes are decoded and resized here, in the threads beside the codec."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.build.recipe import ImageOptions, VideoOptions
from pipelines.ingest.document import Part
from pipelines.ingest.media import CHANGED, EMPTY, OVER_LIMIT, Limits, MediaError, one_line, opened
from tokenizer.image import ResizePolicy, resize


@dataclass(frozen=True)
class AsResized:
    """The resize policy handed to a codec for media that `decode` has brought to their grid: it changes nothing."""

    multiple: int

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return height // self.multiple, width // self.multiple


@dataclass(frozen=True)
class MediaSettings:
    """All that decides the arrays of a medium."""

    image: ImageOptions
    video: VideoOptions
    sample_rate_hz: int
    resizing: Mapping[str, ResizePolicy]  # "image", and "video" for its frames
    limits: Limits


@dataclass(frozen=True, eq=False)
class Decoded:
    """A part ready to be encoded. `media`: one array, or one a frame; none for a text."""

    media: tuple[np.ndarray, ...] = ()  # uint8 [H, W, 3] or float32 [n]
    times: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))  # float32 [t], of frames
    seconds: float = float("nan")  # how long it lasts


def decode(part: Part, settings: MediaSettings, digest: str = "") -> Decoded:
    """The part's arrays. Raises MediaError, and nothing else for bad bytes.

    digest: the sha256 that the part is known by; of a file that holds other bytes by now nothing is taken.
    """
    if part.path is None or not digest:
        return _decoded(part, settings)
    with _unchanged(part.path, digest, settings.limits):
        return _decoded(part, settings)


def _decoded(part: Part, settings: MediaSettings) -> Decoded:
    if part.kind == "text":
        if not part.text:
            raise MediaError(EMPTY, "no text")
        return Decoded()
    medium = _medium(part)
    if part.kind == "image":
        return _image(medium, settings)
    if part.kind == "audio":
        return _audio(medium, settings)
    return _video(medium, settings)


def original(part: Part, digest: str) -> bytes:
    """The bytes that the part is known by. Raises MediaError where its file holds others by now."""
    if part.path is None:
        return part.read()
    try:
        data = part.path.read_bytes()
    except OSError as error:
        raise MediaError(CHANGED, one_line(error)) from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise MediaError(CHANGED, "its sha256 is another than before")
    return data


@contextmanager
def _unchanged(path: Path, digest: str, limits: Limits) -> Iterator[None]:
    """Raises MediaError where the file's bytes are not those of the digest, or change in the body of the `with`."""
    with opened(path, limits) as file:
        before = _stamp(path)
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:  # type: ignore[arg-type]
            raise MediaError(CHANGED, "its sha256 is another than before")
    try:
        yield
    finally:  # what a file that is half written does not decode to is no verdict on it
        if _stamp(path) != before:
            raise MediaError(CHANGED, "it was written while it was read")


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_mtime_ns


def to_pcm(wave: np.ndarray) -> np.ndarray:
    """float32 [n] in [-1, 1] -> int16 [n]."""
    return np.clip(np.round(wave * 32767.0), -32768, 32767).astype(np.int16)


def _medium(part: Part) -> bytes | Path:
    if part.data is not None:
        return part.data
    if part.path is None:
        raise MediaError(EMPTY, "no bytes")
    return part.path


def _image(medium: bytes | Path, settings: MediaSettings) -> Decoded:
    from pipelines.ingest.decode_image import decode_image

    policy = settings.resizing["image"]
    if settings.image.jpeg == "whole":
        image = decode_image(medium, settings.limits, settings.image.background)
        return Decoded((_resize(image, policy),))
    goal = _Goal(policy)
    image = decode_image(medium, settings.limits, settings.image.background, need=goal.need)
    return Decoded((_resize(image, goal.policy),))


def _audio(medium: bytes | Path, settings: MediaSettings) -> Decoded:
    from pipelines.ingest.decode_audio import decode_audio

    wave = decode_audio(medium, settings.sample_rate_hz, settings.limits)
    if not len(wave):
        raise MediaError(EMPTY, "no sound")
    return Decoded((wave,), seconds=len(wave) / settings.sample_rate_hz)


def _video(medium: bytes | Path, settings: MediaSettings) -> Decoded:
    from pipelines.ingest.decode_video import decode_video

    video, policy = settings.video, settings.resizing["video"]
    # Frames wait for the codec all at once: at twice the size they are resized to, a long 4K film still fits in memory.
    clip = decode_video(
        medium, fps=video.fps, max_frames=video.max_frames, size=2 * _short_side(policy), limits=settings.limits
    )
    frames = tuple(_resize(frame, policy) for frame in clip.frames)
    return Decoded(frames, np.asarray(clip.times, np.float32), clip.duration_s)


class _Goal:
    """The grid of one image, kept from its whole size: of a JPEG that is decoded small the policy sees the small one,
    whose sides are rounded."""

    def __init__(self, policy: ResizePolicy) -> None:
        self.policy: Any = policy

    def need(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) in pixels, for `decode_image`."""
        try:
            h, w = self.policy.grid(height, width)
        except ValueError as error:
            raise MediaError(OVER_LIMIT, str(error)) from None
        self.policy = _OneGrid(self.policy.kind, self.policy.multiple, (h, w))
        return h * self.policy.multiple, w * self.policy.multiple


@dataclass(frozen=True)
class _OneGrid:
    """A resize policy that gives one grid, whatever the picture's size."""

    kind: str
    multiple: int
    size: tuple[int, int]  # codes

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return self.size


def _short_side(policy: ResizePolicy) -> int:
    """Pixels that the short side of no resized picture passes."""
    if policy.kind == "stretch":
        return max(policy.size)
    if policy.kind == "area":
        return math.isqrt(policy.max_pixels) + policy.multiple
    return policy.multiple * (math.isqrt(policy.tokens) + 1)


def _resize(image: np.ndarray, policy: Any) -> np.ndarray:  # uint8 [H, W, 3]
    try:
        return resize(image, policy)
    except ValueError as error:
        raise MediaError(OVER_LIMIT, str(error)) from None
