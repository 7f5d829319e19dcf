"""Files that benchmarks of codecs and builds read: pictures and sounds of one size each, made from real media."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
SOUNDS = frozenset({".wav", ".ogg", ".flac", ".mp3", ".opus"})
SIDE, QUALITY = 512, 85
RATE_HZ, SECONDS = 48_000, 10


def make_pictures(media: Path, folder: Path, count: int) -> None:
    """`count` JPEG files of 512x512 pixels in `folder`: middles of real pictures, in turns."""
    from PIL import Image, ImageOps

    from pipelines.ingest.decode_image import decode_image
    from pipelines.ingest.media import MediaError

    made: list[Any] = []
    for path in _spread(media, PICTURES):
        try:
            pixels = decode_image(path)
        except MediaError:
            continue
        if min(pixels.shape[:2]) >= SIDE // 2:  # a flat or tiny picture is no measure
            made.append(ImageOps.fit(Image.fromarray(pixels), (SIDE, SIDE)))
        if len(made) == count:
            break
    if not made:
        raise SystemExit(f"no picture of {SIDE // 2} pixels in {media}: give another folder with --media")
    for i in range(count):
        made[i % len(made)].save(folder / f"{i:04d}.jpg", quality=QUALITY)


def make_sounds(media: Path, folder: Path, count: int, ending: str = ".wav") -> None:
    """`count` mono files of 16 bits, 10 s at 48 kHz, in `folder`: real recordings, one after the other."""
    import soundfile

    from pipelines.ingest.decode_audio import decode_audio
    from pipelines.ingest.media import MediaError

    length, sounds, got = RATE_HZ * SECONDS, [], 0
    for path in _spread(media, SOUNDS):
        try:
            sounds.append(decode_audio(path, RATE_HZ)[: 2 * length])
        except MediaError:
            continue
        got += len(sounds[-1])
        if got >= count * length:
            break
    if not got:
        raise SystemExit(f"no recording in {media}: give another folder with --media")
    joined = np.resize(np.concatenate(sounds), count * length)
    for i in range(count):
        wave = (joined[i * length :][:length] * 32767).astype(np.int16)
        soundfile.write(folder / f"{i:04d}{ending}", wave, RATE_HZ, subtype="PCM_16")


def _spread(media: Path, endings: frozenset[str]) -> list[Path]:
    """Its files of these kinds, in an order that takes from every part of the folder and is the same each time."""
    found = sorted(path for path in media.rglob("*") if path.suffix.lower() in endings and path.is_file())
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))]
