"""The loader's speed on one process: python benchmarks/loader.py [DIR] [--seq-len 4096] [--batch-size 16] [--steps 200]

Reads DIR, or 20,000 drawn text documents written through the build's own writer. Prints what the plan took, the time to
the first batch (plan cached), and tokens a second through the public Loader, every array of the batch made.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

import mmdata
from mmdata.manifest import finish_source
from mmdata.sample import Sample
from mmdata.shards import write_shard
from tokenizer.codec import CodecSpec
from tokenizer.item import Item


def write_documents(folder: Path, num: int, num_shards: int = 4) -> Path:
    """A source of text documents with lognormal lengths, mean about 665 tokens."""
    rng = np.random.default_rng(0)

    def sample(i: int) -> Sample:
        codes = rng.integers(0, 16_384, (max(1, int(rng.lognormal(6, 1))), 1)).astype(np.int32)
        return Sample(id=f"{i:032x}", cluster=f"{i:032x}", source="text", items=(Item("text", "text@1", codes),))

    parts = np.array_split(np.arange(num), num_shards)
    shards = [
        write_shard(folder / "text", "text", "train", index, num_shards, (sample(int(i)) for i in part))
        for index, part in enumerate(parts)
    ]
    finish_source(folder / "text", "text", shards, [CodecSpec("text@1", "text", (16_384,), "drawn", True)], {})
    return folder / "text"


def measure(data: Path, seq_len: int, batch_size: int, steps: int, threads: int) -> None:
    """Print the figures."""

    def loader() -> mmdata.Loader:
        return mmdata.Loader(data, seq_len=seq_len, batch_size=batch_size, threads=threads)

    next(loader())  # imports, compilation, and the plan put into its cache
    begin = time.perf_counter()
    ours = loader()
    next(ours)
    print(f"first batch, plan cached: {time.perf_counter() - begin:.2f} s")
    begin, cpu, tokens = time.perf_counter(), time.process_time(), 0
    for _ in range(steps):
        tokens += int((next(ours).segment_ids > 0).sum())
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    ours.close()
    fill = tokens / (steps * seq_len * batch_size)
    print(f"{tokens / wall / 1e6:.1f} M tokens/s, {tokens / cpu / 1e6:.1f} M a CPU-second, fill {fill:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, help="a dataset or a source; without it, documents are drawn")
    parser.add_argument("--seq-len", type=int, default=4096)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = args.data or write_documents(Path(folder), args.documents)
        measure(data, args.seq_len, args.batch_size, args.steps, args.threads)


if __name__ == "__main__":
    main()
