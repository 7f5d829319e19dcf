"""Images: any file that Pillow reads safely -> uint8 [H, W, 3] RGB. The home of Pillow in ingestion.

Orientation follows EXIF; CMYK, palette, gray, 1-bit, LAB and YCbCr become RGB; 16- and 32-bit samples are scaled to 8;
alpha is laid over a stated background; of an animated or many-paged file one frame is taken. ICC profiles are not
applied. Formats that run another program (EPS) or are drawings (SVG) are not read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import BmpImagePlugin, IcoImagePlugin, Image, ImageOps, PngImagePlugin

from pipelines.ingest.media import CANNOT_DECODE, OUT_OF_MEMORY, OVER_LIMIT, Limits, MediaError, one_line, opened

# Tried by content, never by name: a wrong extension does not matter. (MPO, a JPEG of several frames, comes with JPEG.)
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "TGA", "TIFF", "WEBP")

_SCALED = ("JPEG", "MPO")
_LYING = (5, 6, 7, 8)  # EXIF orientations that turn the image by a quarter

# `Limits.max_pixels` is checked before a pixel is decoded; Pillow's own check would warn, and is for the whole process.
Image.MAX_IMAGE_PIXELS = None


def decode_image(
    medium: bytes | Path,
    limits: Limits | None = None,
    background: tuple[int, int, int] = (255, 255, 255),
    frame: int = 0,
    need: Callable[[int, int], tuple[int, int]] | None = None,
) -> np.ndarray:  # uint8 [H, W, 3]
    """The image upright in RGB, alpha over `background`. Raises only MediaError.

    `need` gives, of the upright image's (height, width), the size that it is needed at: a JPEG is then decoded at 1/2,
    1/4 or 1/8 of its size where that is still no smaller, by the transform itself. Several times faster than whole,
    and other pixels than whole ones scaled down.
    """
    limits = limits or Limits()
    with opened(medium, limits) as file:
        try:
            with _open(file, limits) as image:
                _check_size(image, limits)
                if frame:
                    image.seek(frame)
                    _check_size(image, limits)  # pages of a TIFF have each their own
                elif need is not None and image.format in _SCALED:
                    _scale(image, need)
                image.load()
                return _rgb(_upright(image), background)
        except MediaError:
            raise
        except MemoryError as error:
            raise MediaError(OUT_OF_MEMORY, one_line(error)) from None
        # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, IndexError, ... on broken files.
        except Exception as error:
            raise MediaError(CANNOT_DECODE, _without_address(one_line(error))) from None


def image_size(medium: bytes | Path, limits: Limits | None = None) -> tuple[int, int]:
    """(height, width) as stored, without decoding: for filters. Raises only MediaError."""
    return image_header(medium, limits)[1:]


def image_header(medium: bytes | Path, limits: Limits | None = None) -> tuple[str, int, int]:
    """(format in lower case, height, width) as stored, without decoding: for filters. Raises only MediaError.

    A JPEG of several frames (MPO) is a JPEG.
    """
    limits = limits or Limits()
    with opened(medium, limits) as file:
        try:
            with _open(file, limits) as image:
                name = (image.format or "").lower()
                return "jpeg" if name == "mpo" else name, image.size[1], image.size[0]
        except MediaError:
            raise
        except Exception as error:  # as above
            raise MediaError(CANNOT_DECODE, _without_address(one_line(error))) from None


def _open(file: BinaryIO, limits: Limits) -> Image.Image:
    """The image with its pixels still to be decoded; of an icon they are, once its size is known to be in the limit.

    Raises MediaError for the size of an icon, and what Pillow raises.
    """
    try:
        icon = IcoImagePlugin.IcoFile(file)
        file.seek(icon.entry[0].offset)
        is_png = file.read(8) == b"\x89PNG\r\n\x1a\n"
        file.seek(icon.entry[0].offset)
        inner = PngImagePlugin.PngImageFile(file) if is_png else BmpImagePlugin.DibImageFile(file)
    except Exception:  # no icon; or a broken one, in which Pillow finds no picture either
        pass
    else:
        _check_size(inner, limits)  # its own, which need not be what the icon says
    return Image.open(file, formats=FORMATS)


def _check_size(image: Image.Image, limits: Limits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise MediaError(OVER_LIMIT, f"{width} x {height} pixels, the limit max_pixels is {limits.max_pixels:,}")


def _scale(image: Any, need: Callable[[int, int], tuple[int, int]]) -> None:
    """Have a JPEG that is not loaded yet decoded small."""
    width, height = image.size
    if _orientation(image) in _LYING:
        h, w = need(width, height)
        h, w = w, h
    else:
        h, w = need(height, width)
    image.draft(image.mode, (w, h))


def _orientation(image: Any) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # EXIF that cannot be parsed says nothing on the orientation
        return 1


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image) or image
    except Exception:  # EXIF that cannot be parsed says nothing on the orientation
        return image


def _rgb(image: Image.Image, background: tuple[int, int, int]) -> np.ndarray:  # uint8 [H, W, 3]
    if image.mode.startswith(("I", "F")):
        gray = _to_8_bits(np.asarray(image))
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        under = Image.new("RGBA", image.size, (*background, 255))
        image = Image.alpha_composite(under, image)
    return np.array(image.convert("RGB"), np.uint8)


def _to_8_bits(values: np.ndarray) -> np.ndarray:  # any [H, W] -> uint8 [H, W]
    """16-bit by 65535; 32-bit integers too where they pass 255; floats in [0, 1], or in [0, 255] where they pass 1."""
    if values.dtype.kind == "f":
        values = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    top: Any = values.max(initial=0)
    if values.dtype.kind == "f":
        scaled = values * 255 if top <= 1 else values
    elif values.dtype.itemsize == 2 or top > 255:
        scaled = values.astype(np.float64) * (255 / 65535)
    else:
        scaled = values.astype(np.float64)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _without_address(words: str) -> str:
    """Pillow names the file object by its address, which would make two ledgers differ."""
    return "not an image that can be read" if words.startswith("cannot identify image file") else words
