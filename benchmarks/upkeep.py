"""What a Loader costs beside speed: its start, its memory over many batches, and many sources. Each in a fresh process.

`python benchmarks/upkeep.py JSON` does one job and prints one line of JSON; `benchmarks/loader.py` asks for them.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from drawn import BATCH, MOST, SEQ_LEN, Documents, prepared
from peers.ours import write_source

# What the Loader imports when it is first used: not part of its start.
IMPORTS = (
    "numba",
    "grain",
    "jax",
    "pyarrow.parquet",
    "array_record.python.array_record_module",
    "psutil",
    "mmdata.loader",
)


def short_documents(num: int, mean: int, seed: int) -> Documents:
    rng = np.random.default_rng(seed)
    lengths = np.maximum(1, rng.lognormal(math.log(mean) - 0.5, 1, num).astype(np.int64))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Documents(rng.integers(0, MOST, offsets[-1], dtype=np.uint16), offsets)


def prepare_start(work: Path, samples: int, shards: int) -> Path:
    """A source of short samples (32 tokens on average) in many shards."""

    def write(folder: Path) -> None:
        write_source(folder, "many", short_documents(samples, 32, 2), np.array_split(np.arange(samples), shards))

    return prepared(work, f"start-{samples}-{shards}", write) / "many"


def prepare_sources(work: Path, sources: int, samples: int) -> Path:
    """A dataset of so many sources, four shards each."""

    def write(folder: Path) -> None:
        from mmdata.manifest import write_dataset_manifest

        names = [f"s{i:02d}" for i in range(sources)]
        for i, name in enumerate(names):
            write_source(folder, name, short_documents(samples, 320, 100 + i), np.array_split(np.arange(samples), 4))
        write_dataset_manifest(folder, names)

    return prepared(work, f"sources-{sources}-{samples}", write)


def start(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds from `Loader(...)` to the first batch, at the beginning or from a state."""
    for name in IMPORTS:
        importlib.import_module(name)
    import mmdata

    begin = time.perf_counter()
    loader = mmdata.Loader(job["folder"], seq_len=SEQ_LEN, batch_size=BATCH)
    made = time.perf_counter()
    if job["state"]:
        loader.restore(job["state"])
    batch = next(loader)
    end = time.perf_counter()
    assert batch.tokens.shape == (BATCH, SEQ_LEN)
    stage = next(iter(loader.report()["stages"][0]["sources"].values()))
    state = loader.state()
    return {"seconds": end - begin, "loader": made - begin, "steps_an_epoch": stage["steps_an_epoch"], "state": state}


def memory(job: dict[str, Any]) -> dict[str, Any]:
    """Resident memory over many batches: all of it, and what is no file's (a mapped shard counts as resident)."""
    import mmdata

    loader = mmdata.Loader(job["folder"], seq_len=job["seq_len"], batch_size=job["batch_size"], **job["more"])
    samples = []
    for i in range(job["batches"] + 1):
        next(loader)
        if i % job["every"] == 0:
            samples.append((i, *_resident()))
    at, rss, anonymous = np.array(samples, np.float64).T
    late = at >= job["batches"] * 0.2  # caches are full by then
    return {
        "rss_first": rss[0],
        "rss_last": rss[-1],
        "anonymous_last": anonymous[-1],
        "rss_slope": float(np.polyfit(at[late], rss[late], 1)[0]),
        "anonymous_slope": float(np.polyfit(at[late], anonymous[late], 1)[0]),
        "samples": samples,
    }


def sources(job: dict[str, Any]) -> dict[str, Any]:
    """Threads and resident memory after some batches of a dataset, or of its first source."""
    import mmdata

    data = Path(job["folder"]) / job["source"] if job["source"] else Path(job["folder"])
    loader = mmdata.Loader(data, seq_len=SEQ_LEN, batch_size=BATCH)
    before = _threads()
    for _ in range(job["batches"]):
        next(loader)
    rss, anonymous = _resident()
    return {"threads": _threads(), "threads_before": before, "rss": rss, "anonymous": anonymous}


def _resident() -> tuple[float, float]:
    """MB of this process and its children: resident, and of that no file's."""
    import psutil

    rss = anonymous = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                rss += int(line.split()[1]) / 1024
            if line.startswith("RssAnon"):
                anonymous += int(line.split()[1]) / 1024
    return rss, anonymous


def _threads() -> int:
    import psutil

    return sum(process.num_threads() for process in (psutil.Process(), *psutil.Process().children(recursive=True)))


def main() -> None:
    job = json.loads(sys.argv[1])
    print(json.dumps({"start": start, "memory": memory, "sources": sources}[job["do"]](job)), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
