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

import numpy as np

from pipelines.dedup.sounds import NEAR_SHARE, RATE_HZ, SHIFTS, AudioHash, audio_bits, audio_distance
from pipelines.fit.recordings import read_recording
from pipelines.ingest.looks import NEAR_BITS, hash_of

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
SOUNDS = frozenset({".wav", ".ogg", ".oga", ".opus", ".flac", ".mp3", ".m4a", ".aac", ".g722", ".sln16"})


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
                sound = audio_hash(path, SHIFTS)
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
        if distance[nearest] > NEAR_BITS:
            return None
        return f"looks like {self.phash_names[nearest]} ({distance[nearest]} of 64 bits differ)"

    def _sounds_like(self, path: Path) -> str | None:
        sound = audio_hash(path)
        if sound is None:
            return None
        distances = [audio_distance(other, sound) for other in self.sounds]
        nearest = int(np.argmin(distances))
        if distances[nearest] > NEAR_SHARE:
            return None
        return f"sounds like {self.sound_names[nearest]} ({distances[nearest]:.2f} of the bits differ)"


def digest(path: Path) -> str:
    """sha256 of the file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def phash(path: Path) -> int | None:
    """64-bit perceptual hash; None for what does not open as a picture or is flat."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.draft("RGB", (256, 256))  # a JPEG is decoded small: eight times faster, same hash to a bit or so
            return hash_of(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def audio_hash(path: Path, shifts: Sequence[int] = (0,)) -> AudioHash | None:
    """How the file sounds (`pipelines/dedup/sounds.py`); None for what does not open, is silent or too short."""
    samples = read_recording(path, RATE_HZ)
    return None if samples is None else audio_bits(samples, shifts)


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
