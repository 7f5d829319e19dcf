"""How fast codecs are, a core: python benchmarks/codecs.py [--codec NAME ...] [--media DIR] [--jpeg whole]

Pictures come from 512x512 JPEG files (quality 85), sounds from 48 kHz 16-bit mono WAV files of 10 s. Both are made from
real media: those of --media, else of MMDATA_FIT_MEDIA, else examples/media.

* encode: the encode stage of a build, from files to stored samples (`pipelines.build.encode.encode`): decoding and
  resizing or resampling in threads, batches, codes, records. Pictures are resized to 256x256.
* decode: `codec.decode_batch`, or `decode`, from codes to pixels or samples.
* network: the compiled functions of the codec alone, on the very arrays that the codec gave them, which lie ready.
  `share` is the rate of the path divided by that of its network: 100 % where all else hides behind it.

One core: a process pinned to one. Two: two such processes at a time, as a build has a worker a core; rates are added.
Rates are by CPU seconds of the process, which other work on the machine changes little; `wall` is by the clock. Paths
and networks take turns, round by round, and the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jobs import HERE, ask
from made_media import make_pictures, make_sounds


def measure(codec: str, files: Path, work: Path, rounds: int, jpeg: str, cores: int) -> dict[str, dict[str, float]]:
    """{"encode" | "decode" | "encode network" | ...: {"a_core": units a CPU second, "wall": units a second of all}}"""
    pinned = sorted(os.sched_getaffinity(0))[-cores:]
    if len(pinned) < cores:
        raise SystemExit(f"{cores} cores are asked for, and this process may use {len(pinned)}")
    jobs = []
    for core in pinned:
        (work / f"{cores}-{core}").mkdir()
        jobs.append({"codec": codec, "files": str(files), "work": str(work / f"{cores}-{core}"), "core": core,
                     "rounds": rounds, "jpeg": jpeg})  # fmt: skip
    with ThreadPoolExecutor(cores) as pool:
        found = list(pool.map(lambda job: ask("codec_job.py", job), jobs))
    return {
        what: {
            "a_core": statistics.mean(each["measured"][what]["cpu"] for each in found),
            "wall": sum(each["measured"][what]["wall"] for each in found),
        }
        for what in found[0]["measured"]
    }


def print_measured(codec: str, cores: int, unit: str, found: dict[str, dict[str, float]]) -> None:
    for what in ("encode", "decode"):
        path, network = found[what], found.get(f"{what} network")
        words = f"{codec:16} {what} {cores} core{'s' if cores > 1 else ' '} {path['a_core']:9.1f} {unit}/s a core"
        words += f" ({path['wall']:9.1f} by the clock)"
        if network:
            words += f"  network {network['a_core']:9.1f}  share {100 * path['a_core'] / network['a_core']:5.1f} %"
        print(words, flush=True)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--codec", action="append", help="a codec's name (repeatable); else all that are shipped")
    words.add_argument("--media", type=Path, help="a folder of pictures and recordings")
    words.add_argument("--jpeg", choices=("scaled", "whole"), default="scaled", help="as in the [image] of a recipe")
    words.add_argument("--pictures", type=int, default=48)
    words.add_argument("--sounds", type=int, default=12)
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    words.add_argument("--json", type=Path, help="write every figure there")
    args = words.parse_args()
    media = args.media or Path(os.environ.get("MMDATA_FIT_MEDIA") or HERE.parent / "examples" / "media")
    codecs = args.codec or ["image-fsq16", "speech-melfsq", "jpeg-bytes", "dmel"]
    answers = []
    with tempfile.TemporaryDirectory(prefix="mmdata-") as temporary:
        folder = Path(temporary)
        for name in ("image", "audio"):
            (folder / name).mkdir()
        make_pictures(media, folder / "image", args.pictures)
        make_sounds(media, folder / "audio", args.sounds)
        from tokenizer.codecs import full_name, load_codec

        for name in map(full_name, codecs):
            kind = load_codec(name).kind
            for cores in args.cores:
                (folder / name).mkdir(exist_ok=True)
                found = measure(name, folder / kind, folder / name, args.rounds, args.jpeg, cores)
                print_measured(name, cores, {"image": "images", "audio": "audio seconds"}[kind], found)
                answers.append({"codec": name, "cores": cores, "jpeg": args.jpeg, **found})
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(answers, indent=1))


if __name__ == "__main__":
    main()
