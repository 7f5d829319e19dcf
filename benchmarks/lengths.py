"""How full rows are, and how fast they are packed: python benchmarks/lengths.py [--windows 8] [--samples 4000000]

Draws documents from fixed seeds and packs them as the planner does, in windows of 65,536:
* text: lognormal lengths, sigma 1, mean 665 tokens;
* interleaved: 1 to 6 images (uniform), of 256 or of 576 tokens in all of a document, at uniform places of such a text.
A document longer than the row is cut, in text or between items, never in an image. Nothing but codes takes tokens here.

Prints for rows of 4,096 and 32,768: the fill; the share of documents split, of those that would fit a row and of all;
and M samples a CPU-second of one core. `pack` is packing alone, lengths in, rows out: the bar is 20. `window` is all
that planning a window does beside reading the catalog: measuring, cutting what is longer than a row, packing and
pouring. Drawing is in neither. Then a plan of --samples documents of text, of which only one window is held at a time.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from mmdata.packing import pack
from mmdata.pieces import NO_LIMIT, Packable, Pieces, pieces_of_window, places_of
from mmdata.pouring import packed_and_poured
from tokenizer.item import IMAGE, TEXT, ItemTable

WINDOW = 65_536
MOST_IMAGES = 6
NO_LIMITS = np.full(3, NO_LIMIT, np.int64)


class Plain:
    """A layout that writes codes and nothing else."""

    def lengths(
        self, table: ItemTable, pieces: np.ndarray | None = None, samples: np.ndarray | None = None
    ) -> np.ndarray:
        tokens = sums(table.T)
        if pieces is None:
            return np.diff(tokens[table.offsets]).astype(np.int32)
        which = np.arange(len(table)) if samples is None else samples
        units, image = sums(table.num_units()), table.kind == IMAGE
        place = units[table.offsets[which]][:, None] + pieces
        item = np.clip(np.searchsorted(units, place, "right") - 1, 0, len(image) - 1)
        inside = (place - units[item]) * np.where(image[item], table.T[item], 1)
        at = tokens[item] + inside
        return (at[:, 1] - at[:, 0]).astype(np.int32)

    def all_cuts(self, table: ItemTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every place: between tokens of text, and on both sides of an image, which has one place."""
        num = places_of(table) + 1
        offsets = sums(num)
        places = np.arange(offsets[-1]) - np.repeat(offsets[:-1], num)
        rank = np.full(len(places), 3, np.uint8)
        begin = sums(table.num_units())[:-1] + np.repeat(np.arange(len(table)), np.diff(table.offsets))
        rank[begin], rank[offsets[1:] - 1] = 0, 0
        return places.astype(np.int32), rank, offsets


def sums(counts: np.ndarray) -> np.ndarray:  # int64 [n+1]
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def text(number: int) -> ItemTable:
    """Window `number` of documents of text."""
    rng = np.random.default_rng([1, number])
    return table_of(np.arange(WINDOW + 1), np.full(WINDOW, TEXT), words(rng))


def interleaved(number: int) -> ItemTable:
    """Window `number` of documents of text with images in it."""
    rng = np.random.default_rng([2, number])
    total, images = words(rng), rng.integers(1, MOST_IMAGES + 1, (WINDOW, 1))
    size = rng.choice([256, 576], (WINDOW, 1))
    has = np.arange(MOST_IMAGES) < images
    # Images stand at sorted places of the text, those that are not there at its end: text, image, text, ... text
    at = np.sort(np.where(has, rng.integers(0, total[:, None] + 1, has.shape), total[:, None]), axis=1)
    tokens = np.zeros((WINDOW, 2 * MOST_IMAGES + 1), np.int64)
    tokens[:, 0::2] = np.diff(at, axis=1, prepend=0, append=total[:, None])
    tokens[:, 1::2] = np.where(has, size, 0)
    kind = np.broadcast_to(np.where(np.arange(tokens.shape[1]) % 2, IMAGE, TEXT), tokens.shape)
    there = tokens > 0
    return table_of(sums(there.sum(1)), kind[there], tokens[there])


def words(rng: np.random.Generator) -> np.ndarray:  # int64 [WINDOW]
    """Tokens of text: lognormal, sigma 1, mean exp(6.5) = 665."""
    return np.maximum(1, rng.lognormal(6, 1, WINDOW).astype(np.int64))


def table_of(offsets: np.ndarray, kind: np.ndarray, tokens: np.ndarray) -> ItemTable:
    """Items of one codebook and so many codes."""
    none, image = np.zeros(len(kind), np.int32), (kind == IMAGE).astype(np.int32)
    return ItemTable(
        offsets=offsets.astype(np.int64),
        kind=kind.astype(np.uint8),
        codec=image,
        T=tokens.astype(np.int32),
        K=none + 1,
        t=image,
        h=image,
        w=(tokens * image).astype(np.int32),
        start_s=np.full(len(kind), np.nan),
        end_s=np.full(len(kind), np.nan),
        role=none.astype(np.uint8),
        stream=none,
        group=none - 1,
        group_role=none.astype(np.uint8),
        times=np.zeros(0, np.float32),
        times_offsets=np.zeros(len(kind) + 1, np.int64),
        sentence_ends=np.zeros(0, np.int32),
        sentence_offsets=np.zeros(len(kind) + 1, np.int64),
        codecs=("text", "image"),
    )


@dataclass
class Figures:
    """What windows add up to. `share` None: version 1 of the plan."""

    capacity: int
    share: float | None
    documents: int = 0
    fitting: int = 0
    split: int = 0
    split_fitting: int = 0
    rows: int = 0
    tokens: int = 0
    pack_s: float = 0.0
    window_s: float = 0.0

    def add(self, table: ItemTable) -> None:
        """Pack a window and count it in."""
        begin = time.process_time()
        window = Packable(table, Plain(), self.capacity, NO_LIMITS, {})
        pieces, _ = pieces_of_window(window)
        whole = (pieces.start == 0) & (pieces.stop == places_of(table)[pieces.sample])
        if self.share is None:
            packed, row = pieces, self.pack(pieces)
        else:
            packed, row = packed_and_poured(window, pieces, whole, int(self.share * int(whole.sum())))
        self.window_s += time.process_time() - begin
        split = np.bincount(packed.sample, minlength=len(table)) > 1
        self.documents += len(table)
        self.fitting += int(whole.sum())
        self.split += int(split.sum())
        self.split_fitting += int(split[pieces.sample[whole]].sum())
        self.rows += int(row.max()) + 1
        self.tokens += int(packed.length.sum(dtype=np.int64))

    def pack(self, pieces: Pieces) -> np.ndarray:
        """Packing alone, on the clock."""
        begin = time.process_time()
        row = pack(pieces.length, self.capacity)
        self.pack_s += time.process_time() - begin
        return row

    @property
    def fill(self) -> float:
        return self.tokens / (self.rows * self.capacity)

    def __str__(self) -> str:
        packing = f"{self.documents / self.pack_s / 1e6:6.1f}" if self.pack_s else "     -"
        window = f"{self.documents / self.window_s / 1e6:5.2f}"
        return (
            f"fill {self.fill:8.4%}   split, of those that fit {self.split_fitting / self.fitting:6.2%}, of all"
            f" {self.split / self.documents:6.2%}   pack {packing}, window {window} M/s"
        )


def measure(draw: Callable[[int], ItemTable], figures: Figures, numbers: Iterator[int] | range) -> Figures:
    """The figures of windows, one of which is held at a time."""
    for number in numbers:
        figures.add(draw(number))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=8, help="of 65,536 documents, for each line; 0: no lines")
    parser.add_argument("--samples", type=int, default=4_000_000, help="documents of the large plan; 0 leaves it out")
    given = parser.parse_args()
    modes = {"whole (version 1)": None, "long ones poured, share 0": 0.0, "share 2 %": 0.02}
    for name, draw in {"text": text, "interleaved": interleaved}.items() if given.windows else ():
        for capacity in (4096, 32_768):
            for mode, share in modes.items():
                measure(draw, Figures(capacity, share), range(1))  # compiled, or loaded from numba's cache
                figures = measure(draw, Figures(capacity, share), range(given.windows))
                print(f"{name:11} rows of {capacity:6,}  {mode:26} {figures}", flush=True)
    if given.samples:
        begin = time.perf_counter()
        figures = measure(text, Figures(4096, None), range(-(-given.samples // WINDOW)))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"text, {figures.documents:,} documents drawn, packed and dropped: {figures.rows:,} rows of 4,096, fill"
            f" {figures.fill:.4%}, {time.perf_counter() - begin:.0f} s, peak {peak:.0f} MB"
        )


if __name__ == "__main__":
    main()
