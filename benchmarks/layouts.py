"""What layouts cost on one core: python benchmarks/layouts.py [DIR] [--layout NAME ...]

Reads DIR (a dataset), or draws 2,000 documents of text, pictures and sound. Prints, all in one run:
* rendering: tokens a second of all samples, by layout, items already in memory;
* a text-only sample: its rendering against a plain copy of the same arrays (tokens, weights, positions, kinds), and the
  microseconds above twice that copy: the bar is 20;
* lengths: samples a second over item tables of the default layout, whole and in pieces: the bar is 5 million; and of
  each layout, over all these samples and over films with their sound and films kept soft, where it takes them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

import mmdata
from tokenizer.codec import CodecSpec
from tokenizer.item import Item, ItemTable
from tokenizer.layout import Layout, load_layout, shipped_layouts

CODECS = (
    CodecSpec("text-spm16k@1", "text", (16_384,), "", True),
    CodecSpec("image-fsq16@1", "image", (15_360,), "", False),
    CodecSpec("speech-melfsq@1", "audio", (15_360,), "", False, 50.0),
)


def drawn(num: int) -> list[list[Item]]:
    """Documents of lognormal text, some with a square picture and some with a sound."""
    rng = np.random.default_rng(0)

    def codes(size: int, most: int) -> np.ndarray:
        return rng.integers(0, most, (size, 1)).astype(np.int32)

    documents = []
    for i in range(num):
        items = [Item("text", "text-spm16k@1", codes(max(1, int(rng.lognormal(6, 1))), 16_000))]
        if i % 3 == 1:
            items.append(Item("image", "image-fsq16@1", codes(256, 15_360), (1, 16, 16)))
        if i % 3 == 2:
            items.append(Item("audio", "speech-melfsq@1", codes(200, 15_360), (200, 0, 0), 0.0, 4.0))
        documents.append(items)
    return documents


def films(soft: bool) -> list[list[Item]]:
    """A text and a film of eight seconds: frames in codes with their sound, or kept soft."""
    text = Item("text", "text-spm16k@1", np.zeros((50, 1), np.int32))
    times = np.arange(8, dtype=np.float32)
    if soft:
        return [[text, Item("video", "", None, (8, 224, 224), times=times)]]
    frames = Item("video", "image-fsq16@1", np.zeros((8 * 256, 1), np.int32), (8, 16, 16), times=times)
    return [[text, frames, Item("audio", "speech-melfsq@1", np.zeros((400, 1), np.int32), (400, 0, 0), 0.0, 8.0)]]


def written(layout: Layout, documents: Sequence[Sequence[Item]]) -> list[list[Item]]:
    """Of each document what the layout takes."""
    kept = []
    for items in documents:
        some = []
        for item in items:
            try:
                layout.render([item])
                some.append(item)
            except ValueError:
                pass
        if some and len(some) == len(items):
            kept.append(some)
    return kept


def best(act: Callable[[], object], seconds: float = 1.0, clock: Callable[[], float] = time.perf_counter) -> float:
    """Median seconds of a call, over about so long."""
    times = []
    begin = clock()
    while clock() - begin < seconds or len(times) < 3:
        at = clock()
        act()
        times.append(clock() - at)
    return statistics.median(times)


def rendering(name: str, layout: Layout, documents: Sequence[Sequence[Item]]) -> None:
    some = written(layout, documents)
    if not some:
        print(f"{name:12} takes none of these documents")
        return
    tokens = sum(layout.render(items).tokens.size for items in some)
    seconds = best(lambda: [layout.render(items) for items in some])
    print(
        f"{name:12} {tokens / seconds / 1e6:8.1f} M tokens/s  {seconds / len(some) * 1e6:7.1f} us a sample "
        f" ({len(some):,} of {len(documents):,} samples)"
    )


def copies(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [array.copy() for array in arrays]


def text_only(layout: Layout) -> None:
    for size in (100, 1_000, 10_000, 100_000):
        codes = np.random.default_rng(1).integers(0, 16_000, (size, 1)).astype(np.int32)
        items = [Item("text", "text-spm16k@1", codes)]
        row = layout.render(items)
        arrays = (row.tokens, row.loss_weights, row.positions, row.kinds)
        rendered = best(partial(layout.render, items), 0.5)
        copied = best(partial(copies, arrays), 0.5)
        over = (rendered - 2 * copied) * 1e6
        print(
            f"text of {size:7,} tokens: rendered in {rendered * 1e6:7.1f} us, its arrays copied in {copied * 1e6:6.1f}"
            f" us: {over:+.1f} us over twice the copy"
        )


def measuring(name: str, layout: Layout, documents: Sequence[Sequence[Item]]) -> None:
    found = []
    for what, some in {"these": documents, "films": films(False), "soft films": films(True)}.items():
        if taken := [items for items in some if measured(layout, items)]:
            table = ItemTable.of([taken[i % len(taken)] for i in range(50_000)])
            seconds = best(partial(layout.lengths, table), 0.3, time.process_time)
            found.append(f"{what} {len(table) / seconds / 1e6:.1f}")
    print(f"{name:12} lengths, M samples a CPU-second: {', '.join(found)}")


def measured(layout: Layout, items: Sequence[Item]) -> bool:
    """Whether the layout takes a document."""
    try:
        layout.lengths(ItemTable.of([items]))
    except ValueError:
        return False
    return True


def lengths(layout: Layout, documents: Sequence[Sequence[Item]]) -> None:
    table = ItemTable.of([documents[i % len(documents)] for i in range(200_000)])
    seconds = best(lambda: layout.lengths(table))
    print(
        f"lengths, whole: {len(table) / seconds / 1e6:.1f} M samples/s ({len(table.kind) / len(table):.2f} items each)"
    )
    units = table.num_units().astype(np.int64)
    ends = np.concatenate([[0], np.cumsum(units)])
    total = ends[table.offsets[1:]] - ends[table.offsets[:-1]]
    pieces = np.stack([total // 4, total // 2], axis=1)
    seconds = best(lambda: layout.lengths(table, pieces))
    print(f"lengths, pieces: {len(table) / seconds / 1e6:.1f} M samples/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--layout", nargs="*", default=shipped_layouts())
    given = parser.parse_args()
    if given.data is None:
        documents, codecs = drawn(2_000), CODECS
    else:
        sources = mmdata.open(given.data).sources.values()
        documents = [list(sample.items) for source in sources for sample in source.train]
        codecs = tuple({c.name: c for source in sources for c in source.codecs}.values())
    for name in given.layout:
        rendering(name, load_layout(name).bind(codecs), documents)
    for name in given.layout:
        measuring(name, load_layout(name).bind(codecs), documents)
    default = load_layout("mmdata").bind(CODECS)
    text_only(default)
    lengths(default, drawn(2_000))


if __name__ == "__main__":
    main()
