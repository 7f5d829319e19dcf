"""What must not be trained on: files told apart by content, by look and by sound.

`--exclude FILE_OR_FOLDER` names evaluation media and test corpora. A training file is dropped when its sha256 is that
of an excluded file (or is listed in a MANIFEST.tsv column `sha256`), when its perceptual hash is within 5 bits of 64,
or when its first second of sound rises and falls in the same bands. Flat pictures, whose hash says nothing, and
sounds shorter than that count by sha256 only.
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
# Share of 64 frames x 32 bits. Measured on telephone prompts: copies in another format 0.02-0.19, other prompts of the
# same speaker 0.28 at the nearest of 12 thousand pairs, 0.5 in the middle
AUDIO_DISTANCE = 0.25

_AUDIO_RATE_HZ = 8000
_AUDIO_FRAME = 1024
_AUDIO_HOP = 128
_AUDIO_FRAMES = 64
_AUDIO_BANDS = 33


@dataclass(frozen=True, eq=False)
class Exclusions:
    """Hashes of all that is excluded. `Exclusions.of(paths)` reads files and folders; `of([])` excludes nothing."""

    sha256: dict[str, str]  # hex -> where it came from
    phashes: np.ndarray  # uint64 [n]
    phash_names: tuple[str, ...]
    sounds: np.ndarray  # uint32 [m, 64]
    sound_names: tuple[str, ...]

    @classmethod
    def of(cls, paths: Sequence[Path], kinds: Sequence[str] = ("image", "audio")) -> Exclusions:
        """Read files, folders (all files below) and the MANIFEST.tsv lists in them.

        Looks are taken when `kinds` has "image", sounds when it has "audio"; bytes always.
        """
        sha256: dict[str, str] = {}
        pictures: dict[str, int] = {}
        sounds: dict[str, np.ndarray] = {}
        for path in _files(paths):
            name = path.name if path.parent.name == "" else f"{path.parent.name}/{path.name}"
            sha256.setdefault(digest(path), name)
            if path.name == "MANIFEST.tsv":
                sha256.update(_manifest(path))
            elif "image" in kinds and path.suffix.lower() in IMAGES:
                look = phash(path)
                if look is not None:
                    pictures[name] = look
            elif "audio" in kinds and path.suffix.lower() in SOUNDS:
                sound = audio_hash(path)
                if sound is not None:
                    sounds[name] = sound
        return cls(
            sha256=sha256,
            phashes=np.array(list(pictures.values()), np.uint64),
            phash_names=tuple(pictures),
            sounds=np.array(list(sounds.values()), np.uint32).reshape(-1, _AUDIO_FRAMES),
            sound_names=tuple(sounds),
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
        if len(self.sounds) and path.suffix.lower() in SOUNDS:
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
        distance = np.bitwise_count(self.sounds ^ sound).mean(1) / 32
        nearest = int(distance.argmin())
        if distance[nearest] > AUDIO_DISTANCE:
            return None
        return f"sounds like {self.sound_names[nearest]} ({distance[nearest]:.2f} of the bits differ)"


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


def audio_hash(path: Path) -> np.ndarray | None:
    """uint32 [64]: which of 32 neighbouring bands rise against the frame before (Haitsma and Kalker 2002).

    Taken from the first sound above silence, so that leading silence and loudness do not matter.
    None for what does not open, is silent, or is shorter than 1.2 seconds.
    """
    samples = read_recording(path, _AUDIO_RATE_HZ)
    if samples is None:
        return None
    loud = np.flatnonzero(np.abs(samples) > 0.1 * np.abs(samples).max(initial=0.0))
    need = _AUDIO_FRAME + _AUDIO_FRAMES * _AUDIO_HOP
    if not len(loud) or len(samples) - loud[0] < need:
        return None
    window = samples[loud[0] : loud[0] + need]
    frames = np.lib.stride_tricks.sliding_window_view(window, _AUDIO_FRAME)[::_AUDIO_HOP][: _AUDIO_FRAMES + 1]
    power = np.abs(np.fft.rfft(frames * np.hanning(_AUDIO_FRAME), axis=1)) ** 2
    edges = np.geomspace(300, 3000, _AUDIO_BANDS + 1) * _AUDIO_FRAME / _AUDIO_RATE_HZ
    bands = np.add.reduceat(power, edges.astype(int), axis=1)[:, :_AUDIO_BANDS]
    slope = np.diff(np.log(bands + 1e-9), axis=1)
    bits = np.diff(slope, axis=0) > 0  # [64, 32]
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
        return {row["sha256"]: row.get("path", path.name) for row in rows if row.get("sha256")}


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
