"""How well an image codec gives pictures back: PSNR and SSIM on centre crops.

The named set is the seven photographs of scikit-image and scikit-learn that no shipped codec was trained on:
astronaut, chelsea, coffee, rocket, motorcycle, china, flower, each its centre 256x256 pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.fit.exclude import IMAGES
from tokenizer.codec import Codec

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle", "china", "flower")


def evaluate_image(codec: str | Codec, folder: Path | None = None, size: int = 256) -> dict[str, Any]:
    """{"codec", "set", "images", "psnr_db", "ssim", "bits_per_pixel", "distinct_codes", "each": {name: figures}}

    `folder` None means the seven photographs (extra `eval`).
    """
    from skimage.metrics import structural_similarity

    from tokenizer.codecs import load_codec

    codec = load_codec(codec) if isinstance(codec, str) else codec
    pictures = dict(photographs(size) if folder is None else folder_crops(folder, size))
    if not pictures:
        raise ValueError(f"no pictures of at least {size}x{size} pixels in {folder}")
    each: dict[str, dict[str, float]] = {}
    seen: set[int] = set()
    bits = 0.0
    for name, picture in pictures.items():
        codes = codec.encode(picture)
        back = codec.decode(codes)
        if back.shape != picture.shape:
            raise ValueError(f"{codec.name} gave {back.shape} for {picture.shape}: use a resize policy that keeps it")
        seen.update(codes.codes.ravel().tolist())
        bits += codes.codes.shape[0] * float(np.log2(codec.codebooks).sum()) / (size * size)
        similar = structural_similarity(picture, back, channel_axis=-1, data_range=255)
        each[name] = {"psnr_db": round(psnr(picture, back), 3), "ssim": round(float(similar), 4)}
    return {
        "codec": f"{codec.name}@{codec.revision}",
        "set": "skimage and sklearn photographs" if folder is None else folder.name,
        "images": len(each),
        "psnr_db": round(float(np.mean([v["psnr_db"] for v in each.values()])), 3),
        "ssim": round(float(np.mean([v["ssim"] for v in each.values()])), 4),
        "bits_per_pixel": round(bits / len(each), 4),
        "distinct_codes": len(seen),
        "each": each,
    }


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal to noise ratio of two uint8 pictures, dB; equal pictures give 99."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return 99.0 if error == 0 else float(10 * np.log10(255.0**2 / error))


def photographs(size: int = 256) -> Iterator[tuple[str, np.ndarray]]:
    """The named set: (name, uint8 [size, size, 3]), from the files inside the two packages, nothing fetched."""
    paths = {path.stem: path for folder in photo_folders() for path in sorted(folder.iterdir())}
    for name in PHOTOS:
        path = paths.get(name) or paths.get(f"{name}_left")
        if path is None:
            raise ValueError(f"the picture {name!r} is not in the installed scikit-image or scikit-learn")
        yield name, centre_crop(_read(path), size)


def photo_folders() -> list[Path]:
    """The folders of pictures of scikit-image and scikit-learn; ValueError names the extra when they are missing."""
    import importlib.util

    folders = []
    for package, inside in (("skimage", "data"), ("sklearn", "datasets/images")):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise ValueError(f"{package} is not installed: pip install 'mmdata[eval]'")
        folders.append(Path(spec.origin).parent / inside)
    return folders


def folder_crops(folder: Path, size: int) -> Iterator[tuple[str, np.ndarray]]:
    """(relative path, centre crop) of each picture of the folder that is large enough, in order of path."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder of pictures")
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGES:
            image = _read(path)
            if min(image.shape[:2]) >= size:
                yield path.relative_to(folder).as_posix(), centre_crop(image, size)


def centre_crop(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 [size, size, 3] from the middle."""
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return np.ascontiguousarray(image[top : top + size, left : left + size])


def _read(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
