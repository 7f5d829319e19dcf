"""Kept media of a dataset as files, so that a codec is fitted on them like on any folder.

A dataset whose recipe has `keep_media` holds what its items were made of. Media of the train split are written once,
under their digests; those that the validation split has are left out.
"""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from mmdata.errors import UserError
from mmdata.media import Media


def is_dataset(path: Path) -> bool:
    """Whether a folder is a dataset, or one source of it."""
    return (path / "manifest.json").is_file()


def unpack_media(path: Path, kind: str, to: Path) -> Path:
    """The folder `to` with the kept media of `kind` (image or audio) of a dataset or source; UserError where it kept
    none. Pictures kept as arrays become PNG, sound 16-bit WAV: nothing is lost."""
    import mmdata

    sources = list(mmdata.open(path).values())
    if all(source.manifest.media.form == "none" for source in sources):
        raise UserError(f"{path} keeps no media to learn from: build it with keep_media = 'resized' or 'original'")
    to.mkdir(parents=True, exist_ok=True)
    for source in sources:
        held = {item.digest for sample in source.validation for item in sample.items}
        suffixes = {item.digest: Path(item.uri).suffix.lower() for s in source.train for item in s.items}
        for digest, its_kind in source.media:
            if its_kind == kind and digest in suffixes and digest not in held:
                _write(source.media.get(digest, kind), to, suffixes[digest])
    return to


def _write(medium: Media, to: Path, suffix: str) -> None:
    data = medium.data
    if isinstance(data, bytes):
        path = to / f"{medium.digest}{suffix}"
    else:
        path = to / f"{medium.digest}.{'png' if medium.kind == 'image' else 'wav'}"
    if path.exists():
        return
    part = path.with_name(f"{path.name}.part")
    if isinstance(data, bytes):
        part.write_bytes(data)
    elif medium.kind == "image":
        from PIL import Image

        Image.fromarray(data).save(part, "PNG")
    else:
        _write_wav(part, data, medium.sample_rate_hz)
    part.replace(path)


def _write_wav(path: Path, samples: np.ndarray, sample_rate_hz: int) -> None:  # int16 [n]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes(samples.astype("<i2").tobytes())
