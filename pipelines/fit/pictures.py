"""Pictures to train on: read from folders or datasets, kept in memory at a few sizes, and random crops of them.

One picture of 16, by its sha256, is held out: crops of its middle say how training goes and which weights are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mmdata.errors import UserError
from pipelines.config import expand
from pipelines.fit.card import Data
from pipelines.fit.evaluate_images import centre_crop, photo_folders
from pipelines.fit.exclude import IMAGES, Exclusions, digest
from pipelines.fit.kept_media import is_dataset, unpack_media

Sets = list[tuple[float, list[list[np.ndarray]]]]  # weight, pictures, sizes of one picture: uint8 [H, W, 3]

_ONE_OF = 16  # pictures, of which one is held out
_SIDE = 256  # pixels of a crop held out, where a set has pictures of that size


class DataConfig(BaseModel):
    """One set of training pictures."""

    model_config = ConfigDict(extra="forbid")
    name: str
    path: str  # a folder, or a dataset with kept media; relative to the config file; ${VARIABLE} is expanded
    include: list[str] = ["**/*"]
    origin: str = ""
    licence: str
    weight: float = Field(1.0, gt=0)
    min_bytes: int = Field(20_000, ge=0)
    short_sides: list[int] = Field([192, 256, 352, 480, 640], min_length=1)


@dataclass(frozen=True)
class Pictures:
    """What a codec learns from."""

    sets: Sets
    held_out: list[np.ndarray]  # uint8 [side, side, 3], in turn from the sets
    held_files: list[tuple[str, str]]  # (path, sha256)
    reports: list[Data]  # for the card


def load_pictures(
    configs: Sequence[DataConfig], base: Path, exclude: Sequence[Path], unpacked: Path, crop: int, step: int
) -> Pictures:
    """Read all sets. `base`: of relative paths; `unpacked`: where kept media of datasets go; `crop`: pixels of the
    crops to come; `step`: pixels of a code, which sides of crops held out are multiples of. UserError names a set
    without a usable picture."""
    for data in configs:
        if min(data.short_sides) < crop:
            raise UserError(
                f"data {data.name!r}: short_sides has {min(data.short_sides)}, less than crop: give {crop} or more"
            )
    files = [picture_files(d.name, d.path, d.include, base, unpacked / d.name) for d in configs]
    exclusions = Exclusions.of([*exclude, *photo_folders()], kinds=("image",))
    side = min(_SIDE, max(side for data in configs for side in data.short_sides)) // step * step
    found = [_load_set(data, *listed, exclusions, crop, side) for data, listed in zip(configs, files, strict=True)]
    crops = [image for row in zip_longest(*(one.held_out for one in found)) for image in row if image is not None]
    return Pictures(
        [pair for one in found for pair in one.sets],
        crops,
        [file for one in found for file in one.held_files],
        [report for one in found for report in one.reports],
    )


def _load_set(
    data: DataConfig, root: Path, paths: Sequence[Path], exclusions: Exclusions, crop: int, side: int
) -> Pictures:
    paths = [path for path in paths if path.stat().st_size >= data.min_bytes]
    kept, excluded = exclusions.split(paths)
    left_out = {_name(path, root): reason for path, reason in excluded.items()}
    pictures: list[list[np.ndarray]] = []
    listed: list[tuple[str, str]] = []
    held_out: list[np.ndarray] = []
    held_files: list[tuple[str, str]] = []
    for path in kept:
        name, sha256 = _name(path, root), digest(path)
        sizes = _pyramid(path, data.short_sides, crop)
        if not sizes:
            left_out[name] = f"does not open, or is smaller than crop ({crop} pixels)"
        elif is_held_out(sha256):
            middle = [centre_crop(image, side) for image in sizes if min(image.shape[:2]) >= side][:1]
            left_out[name] = "held out" if middle else f"held out, and too small to measure on ({side} pixels)"
            held_out += middle
            held_files.append((name, sha256))
        else:
            pictures.append(sizes)
            listed.append((name, sha256))
    if not pictures:
        raise UserError(
            f"data {data.name!r} has no picture left to train on in {root}: of {len(paths)} files that match include"
            f" and min_bytes, {len(excluded)} are excluded, {len(held_files)} are held out, and the others do not open"
            f" or are smaller than crop ({crop} pixels)"
        )
    report = Data(data.name, data.licence, data.origin, listed, left_out)
    return Pictures([(data.weight, pictures)], held_out, held_files, [report])


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def random_crop(random: np.random.Generator, sets: Sets, size: int, augment: bool) -> np.ndarray:
    """One random crop uint8 [size, size, 3]: a set by its weight, then a picture, a size, a place, a side."""
    shares = np.array([weight for weight, _ in sets])
    pyramids = sets[int(random.choice(len(sets), p=shares / shares.sum()))][1]
    sizes = pyramids[int(random.integers(len(pyramids)))]
    image = sizes[int(random.integers(len(sizes)))]
    top = int(random.integers(image.shape[0] - size + 1))
    left = int(random.integers(image.shape[1] - size + 1))
    crop = image[top : top + size, left : left + size]
    crop = crop[:, ::-1] if random.random() < 0.5 else crop
    return _another(random, crop) if augment else crop


def _another(random: np.random.Generator, crop: np.ndarray) -> np.ndarray:
    """A crop that is no less natural: turned, its channels in another order, their brightness and contrast changed.
    A few hundred photographs are learnt by heart otherwise."""
    if random.random() < 0.5:
        crop = crop.transpose(1, 0, 2)
    if random.random() < 0.25:
        crop = crop[::-1]
    if random.random() < 0.5:
        crop = crop[:, :, random.permutation(3)]
    if random.random() < 0.7:
        gain = random.uniform(0.75, 1.2) * random.uniform(0.9, 1.1, 3)
        lift = random.uniform(-25, 25)
        crop = np.clip(crop * gain.astype(np.float32) + np.float32(lift), 0, 255).astype(np.uint8)
    return crop


def _pyramid(path: Path, short_sides: Sequence[int], smallest: int) -> list[np.ndarray]:
    """The picture uint8 at each short side that does not enlarge it (or at its own size); [] when it will not open,
    or is smaller than `smallest`."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            short = max(short_sides)
            file.draft("RGB", (2 * short, 2 * short))
            rgba = _eight_bits(file).convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return []
    under = Image.new("RGBA", rgba.size, "white")
    under.alpha_composite(rgba)
    image = under.convert("RGB")
    own = min(image.size)
    sizes = []
    for side in [s for s in short_sides if s <= own] or [own]:
        scaled = [max(smallest, round(x * side / own)) for x in image.size]
        sizes.append(np.asarray(image if side == own else image.resize(scaled, Image.Resampling.LANCZOS)))
    return [array for array in sizes if min(array.shape[:2]) >= smallest]


def _eight_bits(image: Any) -> Any:
    """A Pillow image of 16 bits a pixel brought to 8, which `convert` would clip; any other as it is."""
    if not image.mode.startswith("I"):
        return image
    from PIL import Image

    return Image.fromarray((np.asarray(image, np.int64) >> 8).clip(0, 255).astype(np.uint8))


def picture_files(name: str, path: str, include: Sequence[str], base: Path, unpacked: Path) -> tuple[Path, list[Path]]:
    """(a folder, the picture files in it that match `include`, sorted) of the set `name`: its folder, or the kept media
    of a dataset, written to `unpacked`. UserError where there is no such folder."""
    root = base / expand(path, f"data {name!r}")
    if not root.is_dir():
        raise UserError(f"data {name!r}: there is no folder {root}")
    if is_dataset(root):
        root = unpack_media(root, "image", unpacked)
    found = {path for pattern in include for path in root.glob(pattern)}
    return root, sorted(p for p in found if p.suffix.lower() in IMAGES and p.is_file() and not p.is_symlink())


def is_held_out(sha256: str) -> bool:
    """Whether a picture of this digest is for validation: one of 16."""
    return int(sha256[:8], 16) % _ONE_OF == 0
