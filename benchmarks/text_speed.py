"""Text MB/s of a codec against the sentencepiece library itself, on the same strings, in one thread.

    python benchmarks/text_speed.py DIR [--codec text-spm16k] [--rounds 9]

DIR holds text files of many languages (pages of HTML are read as their text). They are given as whole documents, and as
paragraphs. The library is asked as one calls it: a list of texts, or text by text, for lists of ids (the faster of the
two counts); and for arrays, which is the fastest that it has. All take turns in each round, in another order each time.
Figures are of CPU seconds, the median of the rounds; ratios are taken within a round. What ours does on top: arrays
[T, 1] of one's own, and the proof that each text comes back. A MB is a million bytes of UTF-8.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor

from pipelines.fit.evaluate_text import texts_of
from tokenizer.codecs import load_codec

LISTS = ("library, a list", "library, text by text")
ARRAYS = ("library, a list, arrays", "library, text by text, arrays")
LEAST_SECONDS = 0.3  # of a measurement: short ones are repeated


def documents(folder: Path) -> list[str]:
    """The texts of a folder, whatever their language, without those that are mostly digits."""
    texts = [text for _, text in texts_of(folder)]
    return [text for text in texts if sum(map(str.isdigit, text)) < len(text) / 3]


def paragraphs(texts: list[str]) -> list[str]:
    return [part for text in texts for part in text.split("\n\n") if part.strip()]


def ways(codec: Any, texts: list[str]) -> dict[str, dict[str, Callable[[], Any]]]:
    """What is measured: "encode" and "decode", each ours and the library's."""
    library = SentencePieceProcessor(model_proto=codec.model)
    codes = codec.encode_batch(texts)
    lists = library.encode(texts, num_threads=1)
    arrays = library.encode(texts, num_threads=1, return_type="numpy")
    return {
        "encode": {
            "ours, a batch": lambda: codec.encode_batch(texts),
            "ours, text by text": lambda: [codec.encode(text) for text in texts],
            "library, a list, arrays": lambda: library.encode(texts, num_threads=1, return_type="numpy"),
            "library, a list": lambda: library.encode(texts, num_threads=1),
            "library, text by text": lambda: [library.encode(text) for text in texts],
        },
        "decode": {
            "ours": lambda: [codec.decode(each) for each in codes],
            "library, a list": lambda: library.decode(lists, num_threads=1),
            "library, text by text": lambda: [library.decode(ids) for ids in lists],
            "library, text by text, arrays": lambda: [library.decode(ids) for ids in arrays],
        },
    }


def measured(asked: dict[str, Callable[[], Any]], size: int, rounds: int) -> dict[str, list[float]]:
    """MB/s of each, round by round."""
    order = random.Random(0)
    repeats = {name: max(1, round(LEAST_SECONDS / _seconds(run))) for name, run in asked.items()}
    rates: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(rounds):
        for name in order.sample(list(asked), len(asked)):
            seconds = min(_seconds(asked[name]) for _ in range(repeats[name]))
            rates[name].append(size / seconds / 1e6)
    return rates


def lines_of(does: str, rates: dict[str, list[float]]) -> list[str]:
    """Each way's median, and the median of its ratios to the library's lists and arrays."""
    lines = []
    of = {
        form: [max(row) for row in zip(*(each for name, each in rates.items() if name in names))]
        for form, names in (("lists", LISTS), ("arrays", ARRAYS))
    }
    for name, each in rates.items():
        shares = [statistics.median(a / b for a, b in zip(each, of[form])) for form in ("lists", "arrays")]
        words = f"{shares[0]:5.2f} of its lists {shares[1]:5.2f} of its arrays"
        lines.append(f"  {does} {name:30} {statistics.median(each):6.1f} MB/s {words}")
    return lines


def _seconds(run: Callable[[], Any]) -> float:
    begun = time.process_time()
    run()
    return time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--codec", default="text-spm16k")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, help="every single figure, as JSON")
    asked = parser.parse_args()
    codec: Any = load_codec(asked.codec)
    found: dict[str, Any] = {}
    whole = documents(asked.folder)
    for what, texts in (("documents", whole), ("paragraphs", paragraphs(whole))):
        size = sum(len(text.encode()) for text in texts)
        print(f"{len(texts):,} {what}, {size:,} bytes")
        for does, runs in ways(codec, texts).items():
            rates = measured(runs, size, asked.rounds)
            found[f"{what} {does}"] = rates
            print(*lines_of(does, rates), sep="\n")
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
