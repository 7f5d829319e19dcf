"""How a picture or a video looks: perceptual hashes (imagehash), which resizing and recompressing change little.

Flat pictures have no look: their hash would say nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.ingest.media import CANNOT_DECODE, Limits, MediaError

if TYPE_CHECKING:
    from PIL import Image

NEAR_BITS = 5  # of 64, at which two pictures are the same one
FRAMES = 8  # of a video, evenly spread over its length
NEAR_SECONDS = 0.05  # share by which the lengths of two videos that are the same one may differ

_SMALL = 256  # pixels; hashes are of 32x32
_FLAT = 4  # standard deviation of grays


@dataclass(frozen=True)
class Look:
    """What is kept of a picture: `bits` None where it is flat."""

    bits: int | None
    pixels: int  # of the whole picture


@dataclass(frozen=True, eq=False)
class VideoLook:
    """What is kept of a video. Flat frames have the hash 0."""

    frames: np.ndarray  # uint64 [FRAMES]
    seconds: float
    pixels: int


def look_of(medium: bytes | Path, limits: Limits) -> Look:
    """The look of an image. Raises MediaError."""
    from PIL import Image

    from pipelines.ingest.decode_image import decode_image

    whole: list[int] = []

    def need(height: int, width: int) -> tuple[int, int]:
        whole.append(height * width)
        return _SMALL, _SMALL

    pixels = decode_image(medium, limits, need=need)
    return Look(hash_of(Image.fromarray(pixels)), whole[0] if whole else pixels.shape[0] * pixels.shape[1])


def video_look(medium: bytes | Path, limits: Limits) -> VideoLook:
    """The looks of a video's frames at eight times. Raises MediaError."""
    from PIL import Image

    from pipelines.ingest.decode_video import decode_video, probe

    header = probe(medium, limits)
    if header.duration_s <= 0:
        raise MediaError(CANNOT_DECODE, "the header gives no length")
    times = [(i + 0.5) / FRAMES * header.duration_s for i in range(FRAMES)]
    clip = decode_video(medium, times=times, size=_SMALL, limits=limits)
    found = [hash_of(Image.fromarray(frame)) or 0 for frame in clip.frames]
    found += [0] * (FRAMES - len(found))
    return VideoLook(np.array(found, np.uint64), clip.duration_s, header.height * header.width)


def hash_of(image: Image.Image) -> int | None:
    """64 bits of an opened image, laid over white; None where it is flat."""
    import imagehash

    small = _over_white(image)
    if np.asarray(small.convert("L").resize((16, 16))).std() < _FLAT:
        return None
    bits = imagehash.phash(small).hash.ravel()
    return int(np.packbits(bits).view(">u8")[0])


def _over_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    image.thumbnail((512, 512))
    rgba = image.convert("RGBA")
    under = Image.new("RGBA", rgba.size, "white")
    under.alpha_composite(rgba)
    return under.convert("RGB")
