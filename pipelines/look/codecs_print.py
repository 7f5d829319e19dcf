"""Image codecs side by side: the table of `mmdata evaluate image`, and its picture of originals and what came back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape

from pipelines.look.tables import console, plain_table

_MOST_ROWS = 16  # pictures in the picture: one of a folder of thousands would not open
_LABEL = 18  # pixels of height of the words under a picture
_NARROWEST = 180  # pixels that the words need
_GAP = 4


def print_images(answer: dict[str, Any]) -> None:
    """The answer of `evaluate_images` as a table: each codec, the files nearest in size, what others published."""
    out = console()
    files = answer.get("files", [])
    table = plain_table("codec", "bits/pixel", "PSNR dB", "SSIM", "distinct codes", "level bits")
    for row in answer["codecs"]:
        levels = f"{row['level_bits']:.2f} of {row['most_level_bits']:.2f}" if "level_bits" in row else ""
        table.add_row(escape(row["codec"]), *_figures(row), f"{row['distinct_codes']:,}", levels)
        for file in (file for file in files if file["nearest_to"] == row["codec"]):
            table.add_row(f"  {file['file']} at the nearest size", *_figures(file), "", "")
    out.print(table)
    skipped = f", {answer['skipped']} too small or broken" if answer["skipped"] else ""
    out.print(f"{answer['images']} centre crops of {answer['set']}{skipped}; means of the figures of each picture")
    if published := answer.get("published"):
        table = plain_table("published, on other pictures", "bits/pixel", "PSNR dB", "SSIM", "rFID", words=("set",))
        for row in published:
            table.add_row(escape(row["codec"]), *_figures(row), f"{row['rfid']:.2f}", escape(row["set"]))
        out.print(table)
        for source in dict.fromkeys(row["source"] for row in published):
            out.print(f"source: {source}")


class Sheet:
    """Originals beside reconstructions, a row a picture, for a PNG file."""

    def __init__(self) -> None:
        self._rows: list[np.ndarray] = []

    def add(self, name: str, picture: np.ndarray, shown: list[tuple[str, np.ndarray, float]]) -> None:
        """A row; rows after the first sixteen are left out."""
        if len(self._rows) < _MOST_ROWS:
            cells = [(name, picture), *((f"{what}: {db:.2f} dB", back) for what, back, db in shown)]
            self._rows.append(np.concatenate([_cell(words, pixels) for words, pixels in cells], axis=1))

    def save(self, path: Path) -> None:
        """Write the PNG file."""
        from mmdata.commit import write_bytes
        from pipelines.look.media import png

        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, png(np.concatenate(self._rows)))


def _cell(words: str, pixels: np.ndarray) -> np.ndarray:  # uint8, a picture over its words
    from PIL import Image, ImageDraw

    height, width = pixels.shape[:2]
    cell = Image.new("RGB", (max(width, _NARROWEST) + _GAP, height + _LABEL + _GAP), "white")
    cell.paste(Image.fromarray(pixels), (0, 0))
    ImageDraw.Draw(cell).text((2, height + 3), words, fill="black")
    return np.asarray(cell)


def _figures(row: dict[str, Any]) -> tuple[str, str, str]:
    return f"{row['bits_per_pixel']:.4f}", f"{row['psnr_db']:.2f}", f"{row['ssim']:.3f}"
