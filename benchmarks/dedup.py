"""MinHash dedup, documents a second: ours against datatrove's, on the same drawn texts, each in one process.

    python benchmarks/dedup.py [--documents 1000 10000 100000] [--peer PYTHON] [--rounds 3]

datatrove wants other versions of packages than we do, so it has an environment of its own: `python3 -m venv
.venv-dedup`, `.venv-dedup/bin/pip install -e '.[bench-dedup]'`, then `--peer .venv-dedup/bin/python`.

Texts are of made-up words, Zipf, 400 a text (lognormal); one in ten is another with one word in fifty changed, one in
twenty an exact copy. Both read JSON lines, use word 5-grams and 14 bands of 8 hashes, and end with the list of what to
drop. datatrove runs twice: with its English words (spaCy), and with words parted by white space, to leave its hashing.
Rates are by CPU seconds, the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
SYSTEMS = ("ours", "datatrove", "datatrove, white space")
_WORDS = 50_000


def draw_texts(documents: int, path: Path) -> None:
    """`documents` texts as JSON lines; the same ones on every machine."""
    random = np.random.default_rng(1)
    names = np.array([_name(i) for i in range(_WORDS)])
    earlier: list[np.ndarray] = []
    with path.open("w", encoding="utf-8") as file:
        for i in range(documents):
            kind = random.random() if earlier else 1.0
            if kind < 0.15:
                words = earlier[random.integers(len(earlier))].copy()
                if kind < 0.1:
                    words[random.random(len(words)) < 0.02] = random.integers(_WORDS)
            else:
                size = int(np.clip(random.lognormal(np.log(330), 0.6), 20, 5_000))
                words = np.minimum(random.zipf(1.2, size), _WORDS) - 1
            if len(earlier) < 10_000:
                earlier.append(words)
            file.write(json.dumps({"id": str(i), "text": " ".join(names[words])}) + "\n")


def _name(number: int) -> str:
    """A made-up word, short for small numbers."""
    word = ""
    number += 1
    while number:
        number, digit = divmod(number, 85)
        word += "bcdfghjklmnprstvz"[digit % 17] + "aeiou"[digit // 17]
    return word


def ask(python: str, job: dict[str, Any]) -> dict[str, Any]:
    """The answer of dedup_job.py; `error` where there is none."""
    command = [python, str(HERE / "dedup_job.py"), json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no word"])[-1][:300]}
    return json.loads(done.stdout.splitlines()[-1])


def measured(documents: int, systems: dict[str, str], rounds: int) -> dict[str, Any]:
    """Every single run of each system on so many texts."""
    runs: dict[str, Any] = {name: [] for name in systems}
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts" / "texts.jsonl"
        texts.parent.mkdir()
        draw_texts(documents, texts)
        for number in range(rounds):
            for name, python in systems.items():
                work = Path(folder) / f"{name}-{number}"
                runs[name].append(ask(python, {"system": name, "texts": str(texts), "work": str(work)}))
    return runs


def print_runs(documents: int, runs: dict[str, Any]) -> None:
    rates = {}
    for name, each in runs.items():
        if errors := [run["error"] for run in each if "error" in run]:
            print(f"{documents:9,} documents, {name:24} failed: {errors[0]}")
            continue
        seconds = statistics.median(run["cpu_s"] for run in each)
        rates[name] = documents / seconds
        stages = ", ".join(f"{stage} {1e6 * s / documents:.0f}" for stage, s in each[0]["stages"].items())
        print(
            f"{documents:9,} documents, {name:24} {rates[name]:8,.0f} documents a CPU second ({stages} us each);"
            f" {each[0]['dropped']:,} dropped, {max(run['peak_mb'] for run in each):,.0f} MB at most"
        )
    for name in list(rates)[1:]:
        print(f"{'':9} ours / {name}: {rates['ours'] / rates[name]:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--documents", type=int, nargs="+", default=[20_000])
    parser.add_argument("--peer", help="the python of an environment with the extra bench-dedup")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="every single figure, as JSON")
    asked = parser.parse_args()
    systems = {
        name: sys.executable if name == "ours" else asked.peer for name in SYSTEMS if name == "ours" or asked.peer
    }
    found = {}
    for documents in asked.documents:
        found[documents] = measured(documents, systems, asked.rounds)
        print_runs(documents, found[documents])
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
