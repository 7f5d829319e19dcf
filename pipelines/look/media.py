"""Decoded items as files a browser or a player opens: PNG and WAV bytes, and data addresses of both."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Callable
from typing import Any

import numpy as np

from tokenizer.codec import Codes, Shape
from tokenizer.item import Item
from tokenizer.video import split_frames

Load = Callable[[str], Any]  # a codec by its name: `load_codec` of the source that an item is from


def decode_item(item: Item, load: Load) -> Any:
    """The medium that an item's codes stand for: str, uint8 [H, W, 3], float32 [n], or uint8 [t, H, W, 3]."""
    if item.codes is None:
        raise ValueError(f"item {item.uri!r} is soft: it has no codes to decode")
    if item.kind == "text" and item.text is not None:
        return item.text
    codec = load(item.codec)
    t, h, w = item.grid
    codes = Codes(item.codes, Shape(item.codes.shape[0], item.codes.shape[1], t, h, w))
    if item.kind == "video":
        return np.stack([codec.decode(frame) for frame in split_frames(codes)])
    return codec.decode(codes)


def sample_rate_of(codec_name: str, load: Load) -> int:
    """Samples a second of what an audio codec decodes to."""
    return int(load(codec_name).sample_rate_hz)


def png(image: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as a PNG file."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def wav(sound: np.ndarray, sample_rate_hz: int) -> bytes:
    """float32 [n] mono in [-1, 1] as a 16-bit WAV file; values outside are clipped."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())
    return out.getvalue()


def data_address(data: bytes, mime: str) -> str:
    """`data:` address, so that a page is one file."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def text_pieces(item: Item, load: Load) -> list[str]:
    """What each code of a text item adds to the text; a character split over bytes comes with its last byte."""
    assert item.codes is not None
    codec = load(item.codec)
    pieces, waiting = [], b""
    for code in item.codes[:, 0].tolist():
        waiting += codec.token_bytes(code)
        piece = waiting.decode("utf-8", "replace")
        if "\ufffd" not in piece:
            pieces.append(piece)
            waiting = b""
    return [*pieces, waiting.decode("utf-8", "replace")] if waiting else pieces


def at_most(image: np.ndarray, side: int) -> np.ndarray:
    """The picture scaled down so that its longer side is at most `side` pixels."""
    from PIL import Image

    height, width = image.shape[:2]
    if max(height, width) <= side:
        return image
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
