"""Memory and time of fitting a text codec on a stream of text: 10 GB that are made as they are read, none on disk.

    python benchmarks/text_stream.py [--bytes 10e9] [--sample-bytes 24e6] [--pieces 16384]

Two sets, each half of the stream, with weights 3 and 1: words of Latin and Greek letters, and of Cyrillic, Devanagari
and Chinese ones, drawn by Zipf's law from a seed and put together to lines of about 110 bytes, most of which come once.
It is what `mmdata fit text` does after it has listed its files: sampling, then training. Peak memory is that of the
whole process, making the text included; what making alone takes is measured by itself on a twentieth of the stream.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator
from functools import partial

import numpy as np

from pipelines.fit.text import TextConfig, sample_sets, train_spm
from pipelines.fit.text_sources import BLOCK_BYTES, TextFile, TextSet
from tokenizer.text import TextSpm

LETTERS = {
    "latin, greek": ("abcdefghijklmnopqrstuvwxyzäéñøß", "αβγδεζηθικλμνξοπρστυφχψω"),
    "cyrillic, devanagari, chinese": (
        "абвгдежзиклмнопрстуфхцчшщыэюя",
        "अआइईउऊएऐओऔकखगघचछजझटठडढतथदधनपफबभमयरलवशषसह",
        "".join(map(chr, range(0x4E00, 0x5200))),
    ),
}
WORDS = 200_000  # of each alphabet
PHRASES = 1 << 16  # of some words; a line is two of them


def phrases(alphabets: tuple[str, ...], seed: int) -> tuple[list[bytes], list[bytes]]:
    """Beginnings and ends of lines: any two make a line."""
    random = np.random.default_rng(seed)
    words = [
        "".join(letters[i] for i in random.zipf(1.3, length) % len(letters))
        for letters in alphabets
        for length in random.integers(2, 10 if len(letters) < 100 else 4, WORDS)
    ]
    rank = random.permutation(len(words))
    made = []
    for end in (b" ", b"\n"):
        drawn = rank[(random.zipf(1.05, (PHRASES, 5)) - 1) % len(words)]
        made.append([" ".join([words[i] for i in row]).encode() + end for row in drawn.tolist()])
    return made[0], made[1]


def stream(begins: list[bytes], ends: list[bytes], size: int, seed: int) -> Iterator[bytes]:
    """About `size` bytes of lines, block by block."""
    random = np.random.default_rng(seed)
    length = (sum(map(len, begins)) + sum(map(len, ends))) // PHRASES
    while size > 0:
        count = min(BLOCK_BYTES, size) // length + 1
        pairs = random.integers(0, PHRASES, (2, count)).tolist()
        parts: list[bytes] = [b""] * (2 * count)
        parts[::2], parts[1::2] = map(begins.__getitem__, pairs[0]), map(ends.__getitem__, pairs[1])
        block = b"".join(parts)
        size -= len(block)
        yield block


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bytes", type=float, default=10e9)
    parser.add_argument("--sample-bytes", type=float, default=24e6)
    parser.add_argument("--pieces", type=int, default=16_384)
    asked = parser.parse_args()
    half = int(asked.bytes / 2)
    sets = []
    for number, (name, weight) in enumerate(zip(LETTERS, (3.0, 1.0))):
        made = partial(stream, *phrases(LETTERS[name], number), seed=number)
        sets.append(TextSet(name, weight, [TextFile(name, partial(made, size=half), half)], {}))
        begun = time.process_time()
        size = sum(map(len, made(size=half // 20)))
        print(f"{name}: made alone at {size / (time.process_time() - begun) / 1e6:.0f} MB a CPU-second")
    print(f"before: peak {peak_mb():,.0f} MB")
    begun, cpu = time.perf_counter(), time.process_time()
    samples = sample_sets(sets, int(asked.sample_bytes))
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    for name, found in samples.items():
        chosen = found.sample.chosen
        size = sum(len(line.encode()) for line in chosen)
        print(f"{name}: {len(chosen):,} lines of {size:,} bytes chosen, {len(found.sample.held):,} held out")
    print(
        f"sampled {2 * half / 1e9:.2f} GB in {seconds:.0f} s, {cpu:.0f} CPU-s ({2 * half / cpu / 1e6:.0f} MB a CPU-s)"
    )
    print(f"sampled: peak {peak_mb():,.0f} MB")
    begun, cpu = time.perf_counter(), time.process_time()
    lines = [line for found in samples.values() for line in found.sample.chosen]
    config = TextConfig(
        name="stream", licence="", pieces=asked.pieces, data=[{"name": "s", "paths": [], "licence": ""}]
    )
    model = train_spm(lines, config)
    print(
        f"learnt {asked.pieces:,} pieces in {time.perf_counter() - begun:.0f} s, {time.process_time() - cpu:.0f} CPU-s"
    )
    print(f"learnt: peak {peak_mb():,.0f} MB")
    codec = TextSpm.of("stream", 1, model)
    held = [line for found in samples.values() for line in found.sample.held]
    codes = codec.encode_batch(held)
    size, tokens = sum(len(line.encode()) for line in held), sum(len(each.codes) for each in codes)
    exact = sum(codec.decode(each) == line for line, each in zip(held, codes))
    print(f"held out: {size / tokens:.2f} bytes a token, {exact:,} of {len(held):,} lines come back exactly")


if __name__ == "__main__":
    main()
