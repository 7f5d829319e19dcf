"""The documents that every system of the loader's benchmark reads, drawn once from a fixed seed and kept.

100,000 texts whose lengths are lognormal (sigma 1, mean 640), 64 million token ids below 16,000, as one uint16 array
and its offsets. Each system then writes them with its own writer, once (`prepared`).
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SEQ_LEN = 4096
BATCH = 16
RING = 24  # batches that the reader holds at any time
NUM_SHARDS = 8  # of every format that lets one choose
MOST = 16_000  # ids are below this


@dataclass(frozen=True)
class Documents:
    """tokens[offsets[i]:offsets[i + 1]] is document i."""

    tokens: np.ndarray  # uint16 [sum of lengths], mapped
    offsets: np.ndarray  # int64 [documents + 1]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.of(range(len(self)))

    def of(self, numbers: range | np.ndarray) -> Iterator[np.ndarray]:
        """Documents by number, each uint16 [n]."""
        for i in numbers:
            yield self.tokens[self.offsets[i] : self.offsets[i + 1]]

    def shards(self) -> list[np.ndarray]:
        """Numbers of the documents of each shard."""
        return np.array_split(np.arange(len(self)), NUM_SHARDS)

    def cut(self) -> Documents:
        """The same tokens with documents cut at the row: for what takes none longer."""
        ends = [np.append(np.arange(a, b, SEQ_LEN)[1:], b) for a, b in zip(self.offsets[:-1], self.offsets[1:])]
        return Documents(self.tokens, np.concatenate([[0], *ends]))

    def rows(self) -> np.ndarray:
        """uint16 [rows, SEQ_LEN]: all documents end to end, cut at the row wherever that falls; the rest is dropped."""
        num = len(self.tokens) // SEQ_LEN
        return self.tokens[: num * SEQ_LEN].reshape(num, SEQ_LEN)


def documents(work: Path, num: int) -> Documents:
    """The first time drawn and written, then mapped."""
    folder = prepared(work, "drawn", lambda folder: _draw(folder, num))
    return Documents(np.load(folder / "tokens.npy", mmap_mode="r"), np.load(folder / "offsets.npy"))


def prepared(work: Path, name: str, write: Callable[[Path], object]) -> Path:
    """WORK/NAME, written by `write` unless an earlier run finished it."""
    folder, done = work / name, work / f"{name}.done"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write(folder)
        done.touch()
    return folder


def warm(folder: Path) -> None:
    """Read every file below a folder, so that it lies in the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(1 << 24):
                    pass


def _draw(folder: Path, num: int) -> None:
    rng = np.random.default_rng(0)
    lengths = np.maximum(1, rng.lognormal(math.log(640) - 0.5, 1, num).astype(np.int64))
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]))
    np.save(folder / "tokens.npy", rng.integers(0, MOST, lengths.sum(), dtype=np.uint16))
