"""Byte pair encoding of byte strings that are not text (Gage 1994): a few whole strings and learnt pairs beside the 256
bytes. Exact for any bytes: `decode(encode(data)) == data`. Text has its own codecs (`tokenizer.text`).

The vocabulary is a small text file, a line a code from 256 on: a string in hex, or the two codes that a pair joins.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_BYTES = 256
_SEAM = -1  # between strings, so that no pair spans two of them


@dataclass(frozen=True)
class BytePairs:
    """Codes 0 to 255 are the bytes, then come `strings`, then `pairs`: pair k is code 256 + len(strings) + k.

    >>> vocabulary = BytePairs((b"head",), ((97, 97), (257, 98)))     # 257 = "aa", 258 = "aab"
    >>> vocabulary.encode(b"headaaab").tolist()
    [256, 257, 97, 98]
    """

    strings: tuple[bytes, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        first = _BYTES + len(self.strings)
        for k, pair in enumerate(self.pairs):
            if min(pair) < 0 or max(pair) >= first + k:
                raise ValueError(f"pair {k} joins {pair}; it may join codes 0 to {first + k - 1}, those before it")
        if not all(self.strings):
            raise ValueError("an empty string cannot be a code")

    @property
    def size(self) -> int:
        """Number of codes."""
        return _BYTES + len(self.strings) + len(self.pairs)

    @functools.cached_property
    def table(self) -> tuple[bytes, ...]:
        """The bytes of each code."""
        table = [bytes([value]) for value in range(_BYTES)] + list(self.strings)
        for left, right in self.pairs:
            table.append(table[left] + table[right])
        return tuple(table)

    def encode(self, data: bytes) -> np.ndarray:  # int32 [n]
        """Strings first, from the left; then the pairs, each wherever it stands, in the order they were learnt."""
        codes = self._strings_of(data)
        for k, (left, right) in enumerate(self.pairs):
            codes = _joined(codes, left, right, _BYTES + len(self.strings) + k)
        return codes

    def decode(self, codes: np.ndarray) -> bytes:
        """int [n], each in [0, size) -> the bytes that they spell. Any codes spell some."""
        return b"".join([self.table[code] for code in codes.tolist()])

    def lines(self) -> str:
        """The vocabulary as a file."""
        return "".join([f"{s.hex()}\n" for s in self.strings] + [f"{a} {b}\n" for a, b in self.pairs])

    @classmethod
    def of(cls, lines: str) -> BytePairs:
        """The inverse of `lines`; ValueError names the line that is neither a string in hex nor a pair."""
        strings: list[bytes] = []
        pairs: list[tuple[int, int]] = []
        for number, line in enumerate(lines.splitlines(), 1):
            words = line.split()
            try:
                if len(words) == 1 and not pairs:
                    strings.append(bytes.fromhex(words[0]))
                else:
                    left, right = map(int, words)
                    pairs.append((left, right))
            except ValueError:
                raise ValueError(f"line {number} is {line[:40]!r}: no string in hex and no pair of codes") from None
        return cls(tuple(strings), tuple(pairs))

    def _strings_of(self, data: bytes) -> np.ndarray:  # int32 [n]
        parts: list[np.ndarray] = []
        begin = 0
        for k, string in enumerate(self.strings):  # each once, in the order of the vocabulary: parts of a header
            at = data.find(string, begin)
            if at >= 0:
                parts += [np.frombuffer(data[begin:at], np.uint8), np.array([_BYTES + k])]
                begin = at + len(string)
        return np.concatenate([*parts, np.frombuffer(data[begin:], np.uint8)]).astype(np.int32)


def learn(data: Sequence[bytes], size: int, strings: tuple[bytes, ...] = ()) -> BytePairs:
    """A vocabulary of at most `size` codes: the most frequent pair is joined, again and again; of equals the lowest.

    Fewer codes where no pair comes twice any more. The same data give the same vocabulary.
    """
    plain = BytePairs(strings)
    if size < plain.size:
        raise ValueError(f"a vocabulary of {size} codes has no room for 256 bytes and {len(strings)} strings")
    rows = [part for string in data for part in (plain.encode(string), np.array([_SEAM], np.int32))]
    codes = np.concatenate(rows) if rows else np.zeros(0, np.int32)
    pairs: list[tuple[int, int]] = []
    while plain.size + len(pairs) < size:
        both = (codes[:-1] >= 0) & (codes[1:] >= 0)
        counts = np.bincount(codes[:-1][both].astype(np.int64) * size + codes[1:][both], minlength=1)
        best = int(counts.argmax())
        if counts[best] < 2:
            break
        pairs.append(divmod(best, size))
        codes = _joined(codes, *pairs[-1], plain.size + len(pairs) - 1)
    return BytePairs(strings, tuple(pairs))


def _joined(codes: np.ndarray, left: int, right: int, new: int) -> np.ndarray:  # int32 [m]
    """Every `left right` becomes `new`; in a run of one code pairs are taken from the left."""
    at = np.flatnonzero((codes[:-1] == left) & (codes[1:] == right))
    if not len(at):
        return codes
    if left == right:
        starts = np.flatnonzero(np.diff(at, prepend=at[0] - 2) != 1)  # of runs of overlapping pairs
        begin = np.repeat(at[starts], np.diff(np.append(starts, len(at))))
        at = at[(at - begin) % 2 == 0]
    joined = codes.copy()
    joined[at] = new
    return np.delete(joined, at + 1)
