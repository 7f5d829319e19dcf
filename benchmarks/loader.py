"""The loader measured: python benchmarks/loader.py [speed | start | memory | sources | all] [--quick] [--work DIR]

* speed (the default): ours, other loaders and the limit on the same 100,000 documents, in turn, several times over
* start: seconds from `Loader(...)` to the first batch, 1 million samples in 1,000 shards, plan cached, imports excluded
* memory: resident memory over 100,000 batches
* sources: threads and memory of 35 sources against one

It runs in the environment that `make bench-env` makes. What it writes for the systems is kept in DIR (runs/bench), what
it finds goes to stdout and, as JSON with every single run, to DIR/WHAT.json. benchmarks/README.md says what is measured
and how to read it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

from comparison import Settings, compare, lines_of
from drawn import documents
from jobs import ask
from peers.ours import has_workers
from upkeep import prepare_sources, prepare_start

PEERS = ("datasets", "litdata", "mosaicml-streaming", "torch", "webdataset")
PACKAGES = ("mmdata", "array_record", "grain", "jax", "numba", "numpy", "pyarrow", *PEERS)


def speed(args: argparse.Namespace) -> dict[str, Any]:
    settings = Settings(
        args.documents, args.seconds, args.warm, args.repetitions, tuple(args.only or ()), check=args.check
    )
    found = compare(args.work / f"documents-{args.documents}", settings)
    print("\n".join(lines_of(found)))
    return found


def start(args: argparse.Namespace) -> dict[str, Any]:
    samples, shards = (20_000, 20) if args.quick else (1_000_000, 1_000)
    job = {"do": "start", "folder": str(prepare_start(args.work, samples, shards)), "state": None}
    first = ask("upkeep.py", job)  # makes the plan if it is not there
    epoch = int(first["steps_an_epoch"])
    print(f"{samples:,} samples in {shards:,} shards, {epoch:,} steps an epoch; the first time, in which the plan is")
    print(f"made if it is not there: {first['seconds']:.2f} s")
    out: dict[str, Any] = {"samples": samples, "shards": shards, "first": first["seconds"], "steps": {}}
    for step in (0, epoch // 2, 1_000_000, 1_000_000 + epoch // 2):
        state = {**first["state"], "step": step} if step else None
        found = [ask("upkeep.py", {**job, "state": state}) for _ in range(args.repetitions)]
        seconds, made = [f["seconds"] for f in found], [f["loader"] for f in found]
        out["steps"][step] = {"median": statistics.median(seconds), "seconds": seconds, "loader": made}
        print(
            f"step {step:9,}: {statistics.median(seconds):.2f} s to the first batch ({min(seconds):.2f} to"
            f" {max(seconds):.2f}), of them Loader(...) {statistics.median(made):.2f}"
        )
    return out


def memory(args: argparse.Namespace) -> dict[str, Any]:
    work, batches = args.work / f"documents-{args.documents}", 2_000 if args.quick else 100_000
    documents(work, args.documents)
    ask(
        "timing.py",
        {"do": "prepare", "work": str(work), "documents": args.documents, "system": "ours", "processes": 1},
    )
    job = {"do": "memory", "folder": str(work / "ours" / "documents"), "seq_len": 256, "batch_size": 4}
    job |= {"batches": batches, "every": batches // 100}
    out = {}
    for name, more in {"1 process": {}, **({"2 processes": {"workers": 2}} if has_workers() else {})}.items():
        out[name] = found = ask("upkeep.py", {**job, "more": more})
        print(
            f"{batches:,} batches of 4 rows of 256, {name}: resident {found['rss_first']:.0f} MB after the first,"
            f" {found['rss_last']:.0f} MB after the last, {found['anonymous_last']:.0f} MB of it no file's; slope over"
            f" the last 80 %, MB in 100,000 batches: {found['rss_slope'] * 1e5:+.1f}, no file's"
            f" {found['anonymous_slope'] * 1e5:+.1f}"
        )
    return out


def sources(args: argparse.Namespace) -> dict[str, Any]:
    folder = prepare_sources(args.work, 35, 200 if args.quick else 2_000)
    out = {}
    for name, source in (("35 sources", ""), ("1 source", "s00")):
        job = {"do": "sources", "folder": str(folder), "source": source, "batches": 50 if args.quick else 500}
        ask("upkeep.py", {**job, "batches": 1})  # makes the plans if they are not there
        out[name] = found = ask("upkeep.py", job)
        print(
            f"{name:10}: {found['threads']} threads, {found['threads_before']} of them before reading; resident"
            f" {found['rss']:.0f} MB, {found['anonymous']:.0f} MB of it no file's"
        )
    return out


def machine() -> dict[str, Any]:
    """What ran this: processor, cores, versions."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    info = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), platform.processor())
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "packages": found}


WHAT = {"speed": speed, "start": start, "memory": memory, "sources": sources}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=[*WHAT, "all"], default="speed")
    parser.add_argument("--quick", action="store_true", help="small, to see that everything works; not for figures")
    parser.add_argument("--work", type=Path, default=Path("runs/bench"))
    parser.add_argument("--documents", type=int)
    parser.add_argument("--seconds", type=float, help="of a measurement")
    parser.add_argument("--warm", type=float, help="seconds of reading before it")
    parser.add_argument("--repetitions", type=int)
    parser.add_argument("--only", nargs="*", help="parts of the names of systems")
    parser.add_argument("--no-check", dest="check", action="store_false", help="do not read an epoch of each first")
    args = parser.parse_args()
    usual = (10_000, 1.0, 0.5, 1) if args.quick else (100_000, 4.0, 2.0, 5)
    for name, value in zip(("documents", "seconds", "warm", "repetitions"), usual):
        if getattr(args, name) is None:
            setattr(args, name, value)
    args.work.mkdir(parents=True, exist_ok=True)
    for what in WHAT if args.what == "all" else (args.what,):
        begin, load = time.time(), os.getloadavg()[0]
        found = WHAT[what](args)
        value = {"what": what, "time": begin, "quick": args.quick, "load": load, "machine": machine(), **found}
        (args.work / f"{what}.json").write_text(json.dumps(value, indent=1))
        print(f"({what}: {time.time() - begin:.0f} s, load {load:.1f} before; {args.work / what}.json)", flush=True)


if __name__ == "__main__":
    main()
