"""How far the order is from a full shuffle, and what it fetches: python benchmarks/remote.py [--documents 2000000]

Two tables, for several window_shards (w) and group_windows (G). The first: 200 shards of drawn text (lognormal, mean
665, longer ones split at the row), packed into rows of 4,096 and put in order by the Loader's own code; over 400
batches of 16 rows anywhere in an epoch, the chance that two documents of a batch lie in one shard (all pairs, and pairs
from different rows: those of one row always come from one window), and the shards that a group is in. A full shuffle
of documents has 1/200. The second: a source of 200 small shards behind a URL (fsspec's memory://, no network), read for
two epochs and a little ahead through the Loader, with the smallest cache that is not refused: how often a shard was
fetched, and the most that were kept at a time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import numpy as np

import mmdata
from mmdata.folder import RemoteFolder
from mmdata.manifest import finish_source
from mmdata.order import Order
from mmdata.packing import pack
from mmdata.sample import Sample
from mmdata.shards import write_shard
from tokenizer.codec import CodecSpec
from tokenizer.item import Item

SHARDS, ROW, BATCH = 200, 4096, 16
CHOICES = ((1, 1), (2, 1), (2, 2), (2, 5), (1, 10), (2, 10), (2, 100))  # w, G


def pieces(documents: int) -> tuple[np.ndarray, np.ndarray]:
    """(document int64 [m], length int32 [m]) of drawn documents, split at the row."""
    rng = np.random.default_rng(0)
    lengths = np.maximum(1, rng.lognormal(np.log(665) - 0.5, 1, documents)).astype(np.int64)
    parts = -(-lengths // ROW)
    document = np.repeat(np.arange(documents), parts)
    last = np.cumsum(parts) - 1
    length = np.full(len(document), ROW, np.int64)
    length[last] = lengths - (parts - 1) * ROW
    return document, length


def packed(document: np.ndarray, length: np.ndarray, documents: int, w: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """(first row of each window int64 [windows+1], the documents of each row) of windows of w shards."""
    edges = np.searchsorted(document, np.append(np.arange(0, SHARDS, w), SHARDS) * (documents // SHARDS))
    windows, rows = [0], []
    for first, stop in pairwise(edges.tolist()):
        row = pack(length[first:stop].astype(np.int32), ROW)
        order = np.argsort(row, kind="stable")
        rows += np.split(document[first:stop][order], np.cumsum(np.bincount(row))[:-1])
        windows.append(len(rows))
    return np.array(windows, np.int64), rows


def shared(windows: np.ndarray, rows: list[np.ndarray], documents: int, G: int) -> tuple[float, float, float]:
    """(P two documents of a batch share a shard, the same for documents of different rows, shards of a group)."""
    order, rng = Order(windows, G, 0, "drawn"), np.random.default_rng(1)
    same, pairs, across, across_pairs, in_use = 0, 0, 0, 0, []
    for start in rng.integers(0, order.num_rows - BATCH, 400).tolist():
        found = [rows[r] // (documents // SHARDS) for r in order.rows(0, np.arange(start, start + BATCH)).tolist()]
        inside = [np.bincount(shards, minlength=SHARDS) for shards in found]
        whole = np.sum(inside, axis=0)
        equal, all_pairs = (int(c @ (c - 1)) for c in (whole, np.array([whole.sum()])))
        within = sum(int(c @ (c - 1)) for c in inside)
        within_pairs = sum(len(shards) * (len(shards) - 1) for shards in found)
        same, pairs = same + equal, pairs + all_pairs
        across, across_pairs = across + equal - within, across_pairs + all_pairs - within_pairs
        in_use.append(len(order.group(0, start)[0]))
    return same / pairs, across / across_pairs, float(np.mean(in_use))


def small_source(folder: Path) -> Path:
    """A source of 200 shards of 8 documents."""
    rng = np.random.default_rng(0)

    def sample(i: int) -> Sample:
        codes = rng.integers(0, 200, (int(rng.integers(1, 120)), 1)).astype(np.int32)
        return Sample(id=f"{i:032x}", cluster=f"{i:032x}", source="text", items=(Item("text", "text@1", codes),))

    shards = [
        write_shard(folder / "text", "text", "train", s, SHARDS, (sample(s * 8 + i) for i in range(8)))
        for s in range(SHARDS)
    ]
    finish_source(folder / "text", "text", shards, [CodecSpec("text@1", "text", (200,), "drawn", True)], {})
    return folder / "text"


def fetched(url: str, w: int, G: int) -> tuple[float, int, int, int]:
    """(fetches a shard and epoch, most of one shard in both epochs, most kept, cache_shards) of two epochs."""
    gets: Counter[str] = Counter()
    files = fsspec.filesystem("memory")
    plain = type(files).get_file

    def counted(self: Any, path: str, to: str, **more: Any) -> None:
        gets[path] += 1
        plain(self, path, to, **more)

    type(files).get_file = counted
    cache_shards, most = min(2 * w * G, SHARDS), 0
    with tempfile.TemporaryDirectory() as cache:
        os.environ["MMDATA_CACHE"] = cache
        options: dict[str, Any] = {"window_shards": w, "group_windows": G, "cache_shards": cache_shards}
        loader = mmdata.Loader(url, seq_len=128, batch_size=8, **options)
        (feed,) = loader.feeds.feeds
        assert isinstance(feed.source.files, RemoteFolder)
        for _ in range(2 * feed.plan.num_rows // 8):
            next(loader)
            most = max(most, feed.source.files.num_kept())
        loader.close()
        time.sleep(0.5)  # threads that fetch end before their folder does
    type(files).get_file = plain
    counts = [n for path, n in gets.items() if "array_record" in path]
    return sum(counts) / (2 * SHARDS), max(counts), most, cache_shards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=2_000_000)
    documents = parser.parse_args().documents // SHARDS * SHARDS
    document, length = pieces(documents)
    print("w    G  shards of a group  P(share a shard)  of different rows")
    for w, G in CHOICES:
        windows, rows = packed(document, length, documents, w)
        same, across, in_use = shared(windows, rows, documents, G)
        print(f"{w}  {G:3}  {in_use * w:17.1f}  {same:16.4f}  {across:17.4f}", flush=True)
    print("\nw    G  cache  most kept  fetches a shard and epoch  most of one shard in two epochs")
    with tempfile.TemporaryDirectory() as folder:
        fsspec.filesystem("memory").put(str(small_source(Path(folder))), "/bench/text", recursive=True)
        for w, G in CHOICES[2:]:  # the groups of the first two are smaller here than a batch
            mean, top, most, cache_shards = fetched("memory://bench/text", w, G)
            print(f"{w}  {G:3}  {cache_shards:5}  {most:9}  {mean:25.3f}  {top:31}", flush=True)


if __name__ == "__main__":
    main()
