"""The closing words of examples/demo.sh: what was learnt, what was made, where it is, what to try next.

Exit code 1, with a line for each, where a validation loss is not below its bar or a sample does not open: text has to
beat the unigram entropy of the validation text, images and sound ln(number of codes) by 0.3 nats.
"""

from __future__ import annotations

import argparse
import json
import sys
import wave
from pathlib import Path
from typing import Any

MARGINS = {"text": 0.0, "image": 0.3, "audio": 0.3}  # nats below the baseline; other kinds are shown only


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder that examples/demo.sh was given")
    parser.add_argument("--seconds", type=int, default=0, help="how long the demo took")
    parser.add_argument("--shortened", action="store_true", help="a trial of few steps: show the bars, do not hold")
    asked = parser.parse_args()
    summary = json.loads((asked.folder / "run" / "summary.json").read_text("utf-8"))

    print(f"Training: {summary['steps']} steps, loss {summary['first_loss']:.2f} -> {summary['last_loss']:.2f} nats.")
    print("On validation documents, which it never saw:")
    print(f"  {'kind':8}{'loss':>8}{'baseline':>10}   which baseline")
    for kind, row in summary["validation"].items():
        baseline = f"{row['baseline']:.2f}" if row["baseline"] is not None else ""
        print(f"  {kind:8}{row['loss']:8.2f}{baseline:>10}   {row['baseline_name']}")

    print("\nMade:")
    missing = print_made(asked.folder)
    print("\nTry next:")
    for line in suggestions(asked.folder):
        print(f"  {line}")
    if asked.seconds:
        print(f"\n{asked.seconds // 60} min {asked.seconds % 60} s in all.")

    above = [] if asked.shortened else losses_above(summary["validation"])
    for line in (*missing, *above):
        print(f"demo: {line}", file=sys.stderr)
    sys.exit(1 if missing or above else 0)


def losses_above(validation: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each kind whose loss is not below its bar, or was not measured."""
    lines = []
    for kind, margin in MARGINS.items():
        if kind not in validation:
            lines.append(f"no validation loss of {kind}: the validation split holds none")
            continue
        bar = validation[kind]["baseline"] - margin
        if not validation[kind]["loss"] < bar:
            lines.append(f"the validation loss of {kind} is {validation[kind]['loss']:.3f}, not below {bar:.3f}")
    return lines


def print_made(folder: Path) -> list[str]:
    """What lies where, a line each; returns a line for each thing that is missing or does not open."""
    report = json.loads((folder / "data" / "report.json").read_text("utf-8"))
    documents = sum(source["documents"] for source in report["sources"])
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in codes_by_kind(report).items() if n)
    print(f"  {folder / 'data'}: {documents:,} documents of {len(report['sources'])} sources; codes: {kinds}")
    problems = []
    samples = folder / "run" / "samples"
    openers = {samples / "text.txt": open_text, samples / "image.png": open_image, samples / "audio.wav": open_sound}
    for page in ("data.html", "run.html"):
        openers[folder / page] = open_page
    for path, opener in openers.items():
        try:
            print(f"  {path}: {opener(path)}")
        except Exception as error:
            problems.append(f"{path} does not open ({error})")
    return problems


def codes_by_kind(report: dict[str, Any]) -> dict[str, int]:
    """Codes of all sources together."""
    total: dict[str, int] = {}
    for source in report["sources"]:
        for kind, count in source["codes"].items():
            total[kind] = total.get(kind, 0) + count
    return total


def open_text(path: Path) -> str:
    words = " ".join(path.read_text("utf-8").split())
    return f"{words[:70]!r}"


def open_image(path: Path) -> str:
    from PIL import Image

    with Image.open(path) as image:
        image.load()
        return f"{image.width} x {image.height} pixels"


def open_sound(path: Path) -> str:
    with wave.open(str(path)) as sound:
        return f"{sound.getnframes() / sound.getframerate():.1f} s at {sound.getframerate()} Hz"


def open_page(path: Path) -> str:
    if "</html>" not in path.read_text("utf-8")[-200:]:
        raise ValueError("the page is cut off")
    return f"open it in a browser ({path.stat().st_size / 1e6:.1f} MB)"


def suggestions(folder: Path) -> list[str]:
    tries = {
        f"mmdata stats {folder / 'data'}": "what the dataset holds",
        f"mmdata explain {folder / 'run'} --step 2 --row 0": "which documents a training step saw",
        f"mmdata sample {folder / 'run'} --kind image --prompt 'A red apple.'": "another picture, in its samples/",
        "examples/demo.toml": "a recipe to start from: your own folders in its [[source]] tables",
    }
    width = max(map(len, tries))
    return [f"{command:{width}}   {words}" for command, words in tries.items()]


if __name__ == "__main__":
    main()
