"""What a second worker brings: python benchmarks/executors.py [--codec NAME] [--media DIR] [--pictures N] [--rounds N]

The encode stage of a build of real pictures with one worker, pinned to a core, and with two, each pinned to its own, in
turns. Seconds are by the clock from the moment the first unit begins to the last marker, so the start of JAX and of the
codec in each worker is in them; the codec's functions are compiled before. The bar is 1.8. A figure counts only from
a machine of two quiet cores: `load` is the mean number of processes that wanted to run in the last minute, ours too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


def copy_pictures(media: Path, folder: Path, count: int) -> None:
    """`count` copies of the pictures of `media`, in turns, each with a caption."""
    found = sorted(path for path in media.rglob("*") if path.suffix.lower() in PICTURES)
    if not found:
        raise SystemExit(f"no picture in {media}: give another folder with --media")
    for i in range(count):
        path = found[i % len(found)]
        shutil.copy(path, folder / f"{i:05d}{path.suffix.lower()}")
        (folder / f"{i:05d}.txt").write_text(f"picture {i}", "utf-8")


def build(folder: Path, out: Path, codec: str, workers: int) -> None:
    from pipelines.build.engine import build as run_build
    from pipelines.build.recipe import parse_recipe

    table: dict[str, Any] = {
        "codecs": {"image": codec},
        "shards": {"unit_inputs": 16},
        "source": [{"name": "pictures", "format": "captions", "path": str(folder)}],
    }
    run_build(parse_recipe(table, folder), out, workers, progress=False)


def encode_seconds(out: Path) -> float:
    """From the begin of the first unit of the encode stage to the last marker; a marker is written when a unit ends."""
    ended = [(p.stat().st_mtime, json.loads(p.read_text())["seconds"]) for p in out.glob(".work/encode/*/*.done.json")]
    return max(end for end, _ in ended) - min(end - seconds for end, seconds in ended)


def measure(folder: Path, out: Path, codec: str, rounds: int) -> dict[int, list[float]]:
    """Seconds of the encode stage by workers, after a build that compiles."""
    build(folder, out, codec, 2)
    taken: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for workers, seconds in taken.items():
            shutil.rmtree(out / ".work" / "encode")  # what comes after has its inputs' digests, and stays
            build(folder, out, codec, workers)
            seconds.append(encode_seconds(out))
    return taken


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--codec", default="image-fsq16")
    words.add_argument("--media", type=Path, default=HERE.parent / "examples" / "media")
    words.add_argument("--pictures", type=int, default=4096)
    words.add_argument("--rounds", type=int, default=3)
    args = words.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("this process may use one core only: two workers need two")
    with tempfile.TemporaryDirectory(prefix="mmdata-") as temporary:
        folder, out = Path(temporary) / "pictures", Path(temporary) / "out"
        folder.mkdir()
        copy_pictures(args.media, folder, args.pictures)
        taken = measure(folder, out, args.codec, args.rounds)
    one, two = (statistics.median(taken[workers]) for workers in (1, 2))
    print(f"{args.codec}: {args.pictures} pictures, one worker {one:.1f} s, two {two:.1f} s: {one / two:.2f} times")
    print(json.dumps({"seconds": taken, "load": os.getloadavg()[0]}))


if __name__ == "__main__":
    main()
