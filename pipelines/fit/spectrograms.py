"""A picture of sounds: log-mel spectrograms, a row a clip and a column a codec, drawn with Pillow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tokenizer.audio import log_mel

_LOWEST, _HIGHEST = -9.0, 1.0  # natural log of mel magnitudes: black and white
_SCALE = 2  # pixels a band
_GAP = 6
_TITLE = 16


def draw(path: Path, names: Sequence[str], columns: Mapping[str, Sequence[np.ndarray]]) -> None:
    """names: of the clips; columns: title -> a sound float32 [n] at 16 kHz a clip. Time runs to the right, 20 ms a
    pixel."""
    from PIL import Image, ImageDraw

    tiles = [[_tile(sound) for sound in sounds] for sounds in columns.values()]
    width = max(tile.shape[1] for column in tiles for tile in column) + _GAP
    height = tiles[0][0].shape[0] + _TITLE
    picture = Image.new("L", (width * len(tiles), height * len(names)), 255)
    pen = ImageDraw.Draw(picture)
    for x, (title, column) in enumerate(zip(columns, tiles)):
        for y, (name, tile) in enumerate(zip(names, column)):
            picture.paste(Image.fromarray(tile), (x * width, y * height + _TITLE))
            pen.text((x * width + 2, y * height + 2), f"{name}: {title}", fill=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def _tile(sound: np.ndarray) -> np.ndarray:  # uint8 [bands * scale, T], low bands at the bottom
    level = (log_mel(sound) - _LOWEST) / (_HIGHEST - _LOWEST)
    return np.repeat((255 * np.clip(level, 0, 1)).astype(np.uint8).T[::-1], _SCALE, 0)
