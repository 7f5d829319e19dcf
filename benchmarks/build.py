"""A whole build against its libraries, and what a document costs as builds grow.

    python benchmarks/build.py limits [--media DIR] [--pictures 4000] [--sounds 400] [--texts 20000] [--rounds 3]
    python benchmarks/build.py scale [--documents 1000 10000 100000 1000000] [--dedup]

limits: `mmdata build` with two workers, a core each, of 512x512 JPEGs, 48 kHz FLACs of 10 s and JSON lines of text, to
shards of the default codecs. Beside it, in the same run, what the libraries alone take for the same items, pinned to
the same two cores with nothing else on them:
  sentencepiece   the texts to ids, text by text
  Pillow          each JPEG opened at the scale it is needed at, to RGB, resized to 256x256
  PyAV            each FLAC decoded and resampled to 16 kHz mono
  network         the forward pass of the codec's encoder on arrays that lie ready
The share is (sum of their core seconds) / (seconds of the build by the clock) / 2 cores: 100 % would be a build that
does nothing but call them. The clock runs from the start of the process to its end: imports, compilation, ingestion,
digests, shuffle and writing are in it. The build and the limits take turns; the medians of the rounds count.
Each library has a line of its own beside the step of the encode stage that does its work, of the build's own report
(texts to ids; a JPEG or a FLAC to an array; arrays to codes, the codec's compilation included), both in CPU seconds.

scale: builds of generated texts (100 words), without media, so that all but the tokenizer's work is the pipeline's own.
A line each: seconds by the clock and CPU seconds a document, start of the processes included and left out (that of a
build of one document), and the highest sum of resident memory of all its processes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jobs import HERE, ask
from made_media import make_pictures, make_sounds

CODECS = {"text": "text-spm16k", "image": "image-fsq16", "audio": "speech-melfsq"}
LIMITS = {
    "sentencepiece": "text",
    "Pillow": "image",
    "PyAV": "audio",
    "image network": "image",
    "audio network": "audio",
}
STEPS = {  # what of a build's encode stage does the work of each library
    "sentencepiece": "encode text",
    "Pillow": "decode image",
    "image network": "encode image",
    "PyAV": "decode audio",
    "audio network": "encode audio",
}
SAMPLED = {"image": 256, "audio": 24, "text": 1_000_000}  # items that a limit is taken on; their time is scaled
CORES = 2


def write_texts(folder: Path, count: int, sentences: list[str], mean: int) -> None:
    """`count` texts of about `mean` sentences as JSON lines, 5,000 a file; the same on every machine."""
    random = np.random.default_rng(0)
    for first in range(0, count, 5_000):
        with (folder / f"{first // 5_000:05d}.jsonl").open("w", encoding="utf-8") as file:
            for number in range(first, min(count, first + 5_000)):
                size = max(1, int(random.lognormal(np.log(mean), 0.6)))
                text = " ".join(sentences[i] for i in random.integers(len(sentences), size=size))
                file.write(json.dumps({"id": str(number), "text": text}) + "\n")


def sentences_of(folder: Path) -> list[str]:
    """Sentences of the text files in a folder, as they are written."""
    text = "\n".join(path.read_text("utf-8", "replace") for path in sorted(folder.rglob("*.md")))
    found = [" ".join(one.split()) for one in re.split(r"(?<=[.!?])\s+|\n\n+", text)]
    return [one for one in found if len(one.split()) >= 5]


def recipe(folder: Path, sources: list[str], more: str = "") -> Path:
    formats = {"texts": "jsonl", "pictures": "captions", "sounds": "speech"}
    lines = [f'{kind} = "{name}"' for kind, name in CODECS.items()]
    tables = [f'[[source]]\nname = "{n}"\nformat = "{formats[n]}"\npath = "{folder / n}"\n' for n in sources]
    path = folder / "recipe.toml"
    path.write_text("\n".join(["[codecs]", *lines, "", "[image]", "tokens = 256", "", more, *tables]), "utf-8")
    return path


def run_build(recipe: Path, out: Path) -> dict[str, Any]:
    """{"wall", "cpu", "peak_bytes", "report"} of `mmdata build` in a process of its own, with two workers."""
    shutil.rmtree(out, ignore_errors=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.monotonic()
    command = [sys.executable, "-m", "pipelines.cli", "build", str(recipe), "--out", str(out), "--workers", str(CORES)]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        watch = _Memory(process.pid)
        code = process.wait()
        wall = time.monotonic() - begun
        watch.stop()
        if code:
            said.seek(0)
            raise SystemExit(f"the build ended with {code}: {said.read().decode(errors='replace')[-600:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    report = json.loads((out / "report.json").read_text())
    return {"wall": wall, "cpu": cpu, "peak_bytes": watch.peak, "report": report}


class _Memory:
    """The highest sum of proportional set sizes of a process and its descendants: pages that they share count once."""

    def __init__(self, root: int) -> None:
        self.root, self.peak, self._over = root, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            self.peak = max(self.peak, sum(map(_pss, _family(self.root))))


def _family(root: int) -> list[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (ValueError, OSError):
            continue  # no process, or one that has ended
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _pss(pid: int) -> int:
    try:
        words = Path(f"/proc/{pid}/smaps_rollup").read_text().split()
    except OSError:
        return 0
    return int(words[words.index("Pss:") + 1]) * 1024


def limit_seconds(folder: Path, counts: dict[str, int]) -> dict[str, dict[str, float]]:
    """Core seconds that each library takes for all items, of two processes at a time: {"libraries": by the clock,
    "libraries_cpu": of the CPU}."""
    seconds: dict[str, dict[str, float]] = {"libraries": {}, "libraries_cpu": {}}
    cores = sorted(os.sched_getaffinity(0))[-CORES:]
    for what, kind in LIMITS.items():
        job = {"what": what, "codec": CODECS[kind], "folder": str(folder), "most": SAMPLED[kind]}
        with ThreadPoolExecutor(CORES) as pool:
            found = list(pool.map(lambda core, job=job: ask("build_job.py", {**job, "core": core}), cores))  # type: ignore[misc]
        for name, clock in (("libraries", "seconds"), ("libraries_cpu", "cpu_seconds")):
            seconds[name][what] = counts[kind] * statistics.mean(each[clock] / each["items"] for each in found)
    return seconds


def limits(args: argparse.Namespace) -> dict[str, Any]:
    counts = {"text": args.texts, "image": args.pictures, "audio": args.sounds}
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="mmdata-") as temporary:
        folder = Path(temporary)
        for name in ("texts", "pictures", "sounds"):
            (folder / name).mkdir()
        write_texts(folder / "texts", args.texts, sentences_of(args.prose), 12)
        make_pictures(args.media, folder / "pictures", args.pictures)
        make_sounds(args.media, folder / "sounds", args.sounds, ".flac")
        file = recipe(folder, ["texts", "pictures", "sounds"])
        for _ in range(args.rounds):
            libraries = limit_seconds(folder, counts)
            rounds.append({**libraries, **run_build(file, folder / "out")})
            print_round(rounds[-1])
    return {"counts": counts, "rounds": rounds, "share": statistics.median(map(share, rounds))}


def share(found: dict[str, Any]) -> float:
    return float(sum(found["libraries"].values()) / found["wall"] / CORES)


def by_library(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Of each library: the CPU seconds that it takes `alone`, those that the `build` spent in that step, `share` of the
    first in the second."""
    spent: dict[str, float] = {}
    for row in found["report"]["stages"]:
        for step, seconds in row["cpu_seconds"].items():
            spent[step] = spent.get(step, 0.0) + seconds
    return {
        library: {"alone": alone, "build": spent[STEPS[library]], "share": alone / spent[STEPS[library]]}
        for library, alone in found["libraries_cpu"].items()
    }


def print_round(found: dict[str, Any]) -> None:
    stages = found["report"]["stages"]
    print(f"{'step':14} {'library':14} {'build':>9} {'library':>9} {'share':>7}   (CPU seconds)")
    for library, row in by_library(found).items():
        numbers = f"{row['build']:9.2f} {row['alone']:9.2f} {100 * row['share']:6.1f}%"
        print(f"{STEPS[library]:14} {library:14} {numbers}")
    print(f"{'stage':14} {'source':14} {'build':>9}   (core seconds; CPU seconds of its steps)")
    for row in sorted(stages, key=lambda row: -row["seconds"]):
        if row["seconds"] >= 0.05:
            within = ", ".join(f"{step} {spent:.1f}" for step, spent in row["cpu_seconds"].items())
            print(f"{row['stage']:14} {row['source']:14} {row['seconds']:9.2f}" + (f"   ({within})" if within else ""))
    idle = CORES * found["wall"] - sum(row["seconds"] for row in stages)
    print(f"{'start, waiting, the supervisor':29} {idle:9.2f}")
    print(
        f"the build: {found['wall']:.1f} s by the clock, {found['cpu']:.1f} CPU s, at most"
        f" {found['peak_bytes'] / 1e9:.2f} GB; the libraries are {100 * share(found):.1f} % of {CORES} cores\n",
        flush=True,
    )


def scale(args: argparse.Namespace) -> dict[str, Any]:
    sentences = sentences_of(args.prose)
    more = '[dedup]\nexact = "drop"\ntext = "minhash"\n' if args.dedup else ""
    found: dict[int, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="mmdata-", dir=args.work) as temporary:
        for count in [1, *args.documents]:
            folder = Path(temporary) / str(count)
            (folder / "texts").mkdir(parents=True)
            write_texts(folder / "texts", count, sentences, 6)
            size = sum(path.stat().st_size for path in (folder / "texts").iterdir())
            found[count] = run_build(recipe(folder, ["texts"], more), folder / "out") | {"input_bytes": size}
            found[count].pop("report")
            shutil.rmtree(folder)
            if count > 1:
                print_scale(count, found)
    return {"dedup": args.dedup, "documents": found}


def print_scale(count: int, found: dict[int, dict[str, Any]]) -> None:
    one, many = found[1], found[count]
    each = {what: (1e6 * many[what] / count, 1e6 * (many[what] - one[what]) / count) for what in ("wall", "cpu")}
    print(
        f"{count:9,} documents of {many['input_bytes'] / count:,.0f} bytes: {each['wall'][0]:8,.0f} us each by the"
        f" clock ({each['wall'][1]:,.0f} without start), {each['cpu'][0]:8,.0f} us of CPU ({each['cpu'][1]:,.0f}),"
        f" {many['wall']:.1f} s in all, at most {many['peak_bytes'] / 1e9:.2f} GB",
        flush=True,
    )


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("which", choices=("limits", "scale"))
    words.add_argument("--media", type=Path, help="a folder of pictures and recordings")
    words.add_argument(
        "--prose", type=Path, default=HERE.parent / "docs", help="a folder of .md files to take sentences of"
    )
    words.add_argument("--pictures", type=int, default=4_000)
    words.add_argument("--sounds", type=int, default=400)
    words.add_argument("--texts", type=int, default=20_000)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--documents", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    words.add_argument("--dedup", action="store_true", help="scale: with MinHash dedup")
    words.add_argument("--work", type=Path, help="a folder on a disk with room")
    words.add_argument("--json", type=Path, help="write every figure there")
    args = words.parse_args()
    args.media = args.media or Path(os.environ.get("MMDATA_FIT_MEDIA") or HERE.parent / "examples" / "media")
    answer = limits(args) if args.which == "limits" else scale(args)
    if args.which == "limits":
        print(f"the median share: {100 * answer['share']:.1f} %")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(answer, indent=1))


if __name__ == "__main__":
    main()
