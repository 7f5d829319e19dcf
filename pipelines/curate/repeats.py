"""How much of a text is said more than once: lines, paragraphs, n-grams of words or characters.

n-grams are numbered exactly (no hash that could collide): one of n units is a pair of the powers of two that cover
it, so each length costs one sort in NumPy instead of a Python loop over tuples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def repeated(pieces: Sequence[str]) -> tuple[float, float]:
    """Of lines or paragraphs: the share of them that occurred before, and the share of the characters in those.

    >>> repeated(["a", "b", "a", "a"])
    (0.5, 0.5)
    """
    seen: set[str] = set()
    count = chars = 0
    for piece in pieces:
        if piece in seen:
            count += 1
            chars += len(piece)
        seen.add(piece)
    total = sum(map(len, pieces))
    return (count / len(pieces), chars / total if total else 0.0) if pieces else (0.0, 0.0)


class Grams:
    """The n-grams of a sequence of units (words, or characters)."""

    def __init__(self, units: Iterable[str]) -> None:
        units = list(units)
        numbers: dict[str, int] = {}
        ids = [numbers.setdefault(unit, len(numbers)) for unit in units]
        self._powers = {1: np.array(ids, np.int64)}  # length -> int64 [n - length + 1], equal where n-grams are
        self._lengths = np.array([len(unit) for unit in units], np.int64)

    def top_share(self, n: int) -> float:
        """Share of the characters inside the most frequent n-gram, counted once where occurrences overlap; 0 where no
        n-gram occurs twice. Among equally frequent ones the longest counts."""
        codes = self._codes(n)
        if not len(codes):
            return 0.0
        counts = np.bincount(codes)
        if counts.max() < 2:
            return 0.0
        ends = np.concatenate([[0], np.cumsum(self._lengths)])
        chars = np.where(counts[codes] == counts.max(), ends[n:] - ends[:-n], -1)
        return self._covered(codes == codes[chars.argmax()], n)

    def repeated_share(self, n: int) -> float:
        """Share of the characters inside n-grams that occurred before, each character once."""
        codes = self._codes(n)
        if not len(codes):
            return 0.0
        _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        return self._covered(first[inverse] != np.arange(len(codes)), n)

    def repeated_count_share(self, n: int) -> float:
        """Share of the n-grams that occur more than once, the first occurrence included, as ROOTS counts."""
        codes = self._codes(n)
        return float((np.bincount(codes)[codes] > 1).mean()) if len(codes) else 0.0

    def frequent_share(self, n: int) -> float:
        """Share of the n-grams that are among the most frequent sqrt(distinct) ones and occur more than once: ROOTS'
        ratio of repeated characters."""
        codes = self._codes(n)
        if not len(codes):
            return 0.0
        counts = np.sort(np.bincount(codes))[::-1]
        most = min(int(np.sqrt(len(counts))), int((counts > 1).sum()))
        return float(counts[:most].sum() / len(codes))

    def _codes(self, n: int) -> np.ndarray:  # int64 [max(0, units - n + 1)], from 0 without a gap
        if n not in self._powers:
            if len(self._powers[1]) < n:
                return np.zeros(0, np.int64)
            half = 1 << (n.bit_length() - 1)
            half = half // 2 if half == n else half
            codes = self._codes(half)
            last = len(self._powers[1]) - n + 1
            pairs = codes[:last] * len(self._powers[1]) + codes[n - half : n - half + last]
            self._powers[n] = np.unique(pairs, return_inverse=True)[1].astype(np.int64)
        return self._powers[n]

    def _covered(self, starts: np.ndarray, n: int) -> float:  # bool [units - n + 1]
        edges = np.zeros(len(self._lengths) + 1, np.int64)
        edges[: len(starts)] += starts
        edges[n : n + len(starts)] -= starts
        return float(self._lengths[np.cumsum(edges)[:-1] > 0].sum() / max(1, self._lengths.sum()))
