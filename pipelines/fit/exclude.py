"""What must not be trained on: files told apart by content, by look and by sound.

`--exclude FILE_OR_FOLDER` names evaluation media and test corpora. A training file is dropped when its sha256 is that
of an excluded file (or stands in a column `sha256` of an excluded tsv), when its perceptual hash is within 5 bits of
64, or when its first second of sound rises and falls in the same bands (shorter sounds: all of it). Flat pictures,
whose hash says nothing, and sounds under a fifth of a second count by sha256 only.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.fit.recordings import read_recording

if TYPE_CHECKING:
    from PIL import Image

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
SOUNDS = frozenset({".wav", ".ogg", ".oga", ".opus", ".flac", ".mp3", ".m4a", ".aac", ".g722", ".sln16"})

PHASH_BITS = 5  # distance of 64 bits at which two pictures are the same one
# Share of the bits. Measured on the 54 telephone prompts of the sample corpus against 527 to 568 of each language:
# copies in another format at most 0.09 (49 found; the others are too short), the nearest other prompt 0.26
AUDIO_DISTANCE = 0.25

_AUDIO_RATE_HZ = 8000
_AUDIO_FRAME = 1024
_AUDIO_HOP = 128
_AUDIO_FRAMES = 64
_AUDIO_LEAST = 6  # frames
_AUDIO_MARGIN = 512  # samples before the first sound and after the last
_AUDIO_SHIFTS = tuple(range(-512, 513, 64))
_AUDIO_BANDS = 33


@dataclass(frozen=True, eq=False)
class AudioHash:
    """What `audio_distance` compares: 32 bits a frame of 16 ms, at one or several shifts, and how long the sound is."""

    bits: np.ndarray  # uint32 [shifts, frames]
    seconds: float  # from the first to the last sound above silence


@dataclass(frozen=True, eq=False)
class Exclusions:
    """Hashes of all that is excluded. `Exclusions.of(paths)` reads files and folders; `of([])` excludes nothing."""

    sha256: dict[str, str]  # hex -> where it came from
    phashes: np.ndarray  # uint64 [n]
    phash_names: tuple[str, ...]
    sounds: tuple[AudioHash, ...]
    sound_names: tuple[str, ...]

    @classmethod
    def of(cls, paths: Sequence[Path], kinds: Sequence[str] = ("image", "audio")) -> Exclusions:
        """Read files, folders (all files below) and lists (tsv with a column `sha256`).

        Looks are taken when `kinds` has "image", sounds when it has "audio"; bytes always.
        """
        sha256: dict[str, str] = {}
        # Lists of pairs: two files of one name in folders of one name are two files.
        pictures: list[tuple[str, int]] = []
        sounds: list[tuple[str, AudioHash]] = []
        for path in _files(paths):
            name = path.name if path.parent.name == "" else f"{path.parent.name}/{path.name}"
            sha256.setdefault(digest(path), name)
            if path.suffix.lower() == ".tsv":
                sha256.update(_manifest(path))
            elif "image" in kinds and path.suffix.lower() in IMAGES:
                look = phash(path)
                if look is not None:
                    pictures.append((name, look))
            elif "audio" in kinds and path.suffix.lower() in SOUNDS:
                sound = audio_hash(path, _AUDIO_SHIFTS)
                if sound is not None:
                    sounds.append((name, sound))
        return cls(
            sha256=sha256,
            phashes=np.array([look for _, look in pictures], np.uint64),
            phash_names=tuple(name for name, _ in pictures),
            sounds=tuple(sound for _, sound in sounds),
            sound_names=tuple(name for name, _ in sounds),
        )

    def matches(self, path: Path) -> str | None:
        """Why this file may not be trained on, or None."""
        if not self.sha256:
            return None
        same = self.sha256.get(digest(path))
        if same is not None:
            return f"same bytes as {same}"
        if len(self.phashes) and path.suffix.lower() in IMAGES:
            return self._looks_like(path)
        if self.sounds and path.suffix.lower() in SOUNDS:
            return self._sounds_like(path)
        return None

    def split(self, paths: Iterable[Path]) -> tuple[list[Path], dict[Path, str]]:
        """(kept, dropped with its reason), both in the order given."""
        kept: list[Path] = []
        dropped: dict[Path, str] = {}
        for path in paths:
            reason = self.matches(path)
            if reason is None:
                kept.append(path)
            else:
                dropped[path] = reason
        return kept, dropped

    def _looks_like(self, path: Path) -> str | None:
        look = phash(path)
        if look is None:
            return None
        distance = np.bitwise_count(self.phashes ^ np.uint64(look))
        nearest = int(distance.argmin())
        if distance[nearest] > PHASH_BITS:
            return None
        return f"looks like {self.phash_names[nearest]} ({distance[nearest]} of 64 bits differ)"

    def _sounds_like(self, path: Path) -> str | None:
        sound = audio_hash(path)
        if sound is None:
            return None
        distances = [audio_distance(other, sound) for other in self.sounds]
        nearest = int(np.argmin(distances))
        if distances[nearest] > AUDIO_DISTANCE:
            return None
        return f"sounds like {self.sound_names[nearest]} ({distances[nearest]:.2f} of the bits differ)"


def digest(path: Path) -> str:
    """sha256 of the file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def phash(path: Path) -> int | None:
    """64-bit perceptual hash; None for what does not open as a picture or is flat."""
    import imagehash
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.draft("RGB", (256, 256))  # a JPEG is decoded small: eight times faster, same hash to a bit or so
            small = _over_white(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    if np.asarray(small.convert("L").resize((16, 16))).std() < 4:
        return None
    bits = imagehash.phash(small).hash.ravel()
    return int(np.packbits(bits).view(">u8")[0])


def audio_hash(path: Path, shifts: Sequence[int] = (0,)) -> AudioHash | None:
    """Which of 32 neighbouring bands rise against the frame before (Haitsma and Kalker 2002), one row a shift.

    Taken from the first sound above silence, so that leading silence and loudness do not matter; `shifts` (in samples)
    because that first sound is found a few milliseconds elsewhere in another format. None for what does not open, is
    silent, or is shorter than a fifth of a second.
    """
    samples = read_recording(path, _AUDIO_RATE_HZ)
    if samples is None:
        return None
    loud = np.flatnonzero(np.abs(samples) > 0.1 * np.abs(samples).max(initial=0.0))
    if not len(loud):
        return None
    padded = np.pad(samples, (2 * _AUDIO_MARGIN, 2 * _AUDIO_MARGIN))
    first, last = int(loud[0]) + _AUDIO_MARGIN, int(loud[-1]) + 3 * _AUDIO_MARGIN
    count = min(_AUDIO_FRAMES, (last - first - _AUDIO_FRAME) // _AUDIO_HOP)
    if count < _AUDIO_LEAST:
        return None
    bits = [_band_slopes(padded[first + shift :], count) for shift in shifts]
    return AudioHash(np.stack(bits), (loud[-1] - loud[0]) / _AUDIO_RATE_HZ)


def audio_distance(excluded: AudioHash, sound: AudioHash) -> float:
    """Share of the common bits that differ, at the best shift; 1 where one sound is longer than the other by 15 %."""
    longer = max(excluded.seconds, sound.seconds)
    if abs(excluded.seconds - sound.seconds) > 0.15 * longer:
        return 1.0
    count = min(excluded.bits.shape[1], sound.bits.shape[1])
    differing = np.bitwise_count(excluded.bits[:, :count] ^ sound.bits[:1, :count])
    return float(differing.mean(1).min() / 32)


def _band_slopes(samples: np.ndarray, count: int) -> np.ndarray:  # uint32 [count]
    frames = np.lib.stride_tricks.sliding_window_view(samples, _AUDIO_FRAME)[::_AUDIO_HOP][: count + 1]
    power = np.abs(np.fft.rfft(frames * np.hanning(_AUDIO_FRAME), axis=1)) ** 2
    edges = np.geomspace(300, 3000, _AUDIO_BANDS + 1) * _AUDIO_FRAME / _AUDIO_RATE_HZ
    bands = np.add.reduceat(power, edges.astype(int), axis=1)[:, :_AUDIO_BANDS]
    slope = np.diff(np.log(bands + 1e-9), axis=1)
    bits = np.diff(slope, axis=0) > 0  # [count, 32]
    return np.packbits(bits, axis=1).view(">u4").ravel().astype(np.uint32)


def _over_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    image.thumbnail((512, 512))
    rgba = image.convert("RGBA")
    under = Image.new("RGBA", rgba.size, "white")
    under.alpha_composite(rgba)
    return under.convert("RGB")


def _manifest(path: Path) -> dict[str, str]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return {row["sha256"]: row.get("path") or path.name for row in rows if row.get("sha256")}


def _files(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.is_file())
        elif path.is_file():
            found.append(path)
        else:
            raise ValueError(f"--exclude {path}: no such file or folder")
    return found
