"""A sample of the lines of a stream, in memory that the sample bounds and not the stream (bottom-k by hash).

Of all lines, each once however often it comes, those with the smallest hashes: which ones they are does not depend on
the order of reading, on blocks, files or processes. It is exact, but for two lines of the same 64-bit hash, which count
as one (the first by its bytes; among 10^8 lines there is such a pair with probability 0.0003). A line whose hash is a
multiple of 64 is held out. No line is compared with all others: what is kept are at most twice the bytes asked for,
and a line above the ceiling, the hash where the sample was last full, costs its hash alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b

import numpy as np

HELD_OUT = 64  # one line of 64, by its hash
MOST_HELD = 2_000  # lines
MOST_CHARACTERS = 1_000  # a longer line is given in parts: SentencePiece would leave it out


@dataclass(frozen=True)
class Sample:
    """Lines to train on and lines held out, both in the order of their hashes."""

    chosen: tuple[str, ...]
    held: tuple[str, ...]


class LineSample:
    """Told all lines, block by block; `sample()` is the same for the same lines, and another for another seed.

    max_bytes: UTF-8 bytes of the lines to train on, the last of them whole
    """

    def __init__(self, max_bytes: int, seed: int = 0) -> None:
        self._hash = partial(blake2b, digest_size=8, salt=seed.to_bytes(16, "big"))
        self._chosen = _Smallest(max_bytes, len)
        self._held = _Smallest(MOST_HELD, lambda line: 1)

    def add(self, block: bytes) -> None:
        """Lines in UTF-8, "\\n" between them."""
        lines = lines_of(block)
        digests = b"".join([made.digest() for made in map(self._hash, lines)])
        keys = np.frombuffer(digests, ">u8").astype(np.uint64)
        held = keys % HELD_OUT == 0
        for smallest, ours in ((self._held, held), (self._chosen, ~held)):
            for i in np.flatnonzero(ours & (keys <= smallest.ceiling)).tolist():
                smallest.add(int(keys[i]), lines[i])

    def sample(self) -> Sample:
        return Sample(self._chosen.in_order(), self._held.in_order())


class _Smallest:
    """The lines of the smallest keys whose costs reach a budget: none where that is 0."""

    def __init__(self, budget: int, cost: Callable[[bytes], int]) -> None:
        self.ceiling = np.uint64(2**64 - 1)  # no larger key can be among them
        self._budget, self._cost = budget, cost
        self._lines: dict[int, bytes] = {}
        self._spent = 0

    def add(self, key: int, line: bytes) -> None:
        known = self._lines.get(key)
        if known is not None and known <= line:
            return
        self._lines[key] = line
        self._spent += self._cost(line) - (0 if known is None else self._cost(known))
        if self._spent > 2 * self._budget:
            self._trim()

    def in_order(self) -> tuple[str, ...]:
        self._trim()
        return tuple(line.decode() for line in self._lines.values())

    def _trim(self) -> None:
        kept: dict[int, bytes] = {}
        spent = 0
        for key in sorted(self._lines):
            if spent >= self._budget:
                self.ceiling = np.uint64(next(reversed(kept), 0))
                break
            kept[key] = self._lines[key]
            spent += self._cost(kept[key])
        self._lines, self._spent = kept, spent


def lines_of(block: bytes) -> list[bytes]:
    """The lines of a block without those that are empty, long ones in parts, without NULs."""
    lines = block.split(b"\n")
    if max(map(len, lines)) > MOST_CHARACTERS:  # bytes, which are no fewer
        lines = [part for line in lines for part in _parts(line)]
    if b"\0" in block:
        lines = [line.replace(b"\0", b"") for line in lines]
    return [line for line in lines if line]


def _parts(line: bytes) -> list[bytes]:
    if len(line) <= MOST_CHARACTERS:
        return [line]
    text = line.decode()
    return [text[start : start + MOST_CHARACTERS].encode() for start in range(0, len(text), MOST_CHARACTERS)]
