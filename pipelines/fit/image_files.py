"""What image codecs are held against: JPEG, WebP and AVIF files of about the same size, and published figures."""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np

# Settings of Pillow's writers: the best of each for its size, at whatever quality
FORMATS: dict[str, dict[str, Any]] = {
    "JPEG": {"optimize": True, "subsampling": "4:2:0"},
    "WebP": {"method": 6},
    "AVIF": {"speed": 4},
}
_QUALITIES = range(0, 96)  # above 95 JPEG only grows; no codec is near


def nearest_file(kind: str, picture: np.ndarray, num_bytes: float) -> tuple[bytes, np.ndarray]:
    """(the file, its pixels) of the quality whose size is nearest to `num_bytes`, header and all; the smallest that the
    format reaches where all are larger. picture: uint8 [H, W, 3]"""
    from PIL import Image

    @functools.cache
    def file(quality: int) -> bytes:
        out = io.BytesIO()
        Image.fromarray(picture).save(out, kind.upper(), quality=quality, **FORMATS[kind])
        return out.getvalue()

    low, high = _QUALITIES[0], _QUALITIES[-1]
    while low < high:  # the best quality that is not larger, sizes growing with quality
        middle = (low + high + 1) // 2
        if len(file(middle)) <= num_bytes:
            low = middle
        else:
            high = middle - 1
    near = [quality for quality in (low, low + 1) if quality in _QUALITIES]
    data = min(map(file, near), key=lambda data: abs(len(data) - num_bytes))
    with Image.open(io.BytesIO(data)) as image:
        return data, np.asarray(image.convert("RGB"))


def published() -> list[dict[str, Any]]:
    """Figures that others published, on pictures of 256x256 of their own: none on those measured here. SSIM has more
    than one formula: compare it inside one source only."""
    paper = "Sun et al. 2024, arXiv 2406.06525, as in arXiv 2410.04081, table 2"
    docs = "github.com/TencentARC/SEED-Voken, docs/Open-MAGVIT2.md"
    rows = [
        ("LlamaGen VQ-16", "ImageNet validation, 50,000", 20.79, 0.675, 2.19, paper),
        ("LlamaGen VQ-16", "COCO 2017 validation, 5,000", 20.42, 0.678, 8.11, paper),
        ("LlamaGen VQ-16, trained on other pictures", "ImageNet validation", 20.65, 0.54, 2.47, docs),
        ("LlamaGen VQ-16, trained on other pictures", "COCO validation", 20.28, 0.55, 8.40, docs),
        ("LlamaGen VQ-8", "ImageNet validation, 50,000", 24.45, 0.813, 0.59, paper),
        ("LlamaGen VQ-8", "COCO 2017 validation, 5,000", 24.20, 0.822, 4.19, paper),
    ]
    bits = {"LlamaGen VQ-16": 14 / 256, "LlamaGen VQ-8": 14 / 64}  # 16,384 codes
    return [
        {
            "codec": name, "set": pictures, "psnr_db": db, "ssim": ssim, "rfid": rfid,
            "bits_per_pixel": round(bits[name.partition(",")[0]], 4), "source": source,
        }
        for name, pictures, db, ssim, rfid, source in rows
    ]  # fmt: skip
