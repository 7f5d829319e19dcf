"""Slow twins: order and mixture in plain integers, row after row, as docs/format.md words them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence

MASK = (1 << 64) - 1


def slow_keys(seed: int, fingerprint: str, epoch: int, group: int) -> list[int]:
    digest = hashlib.blake2b(f"mmdata order 1/{seed}/{fingerprint}/{epoch}/{group}".encode("ascii")).digest()
    return [int.from_bytes(digest[i : i + 8], "little") for i in range(0, 64, 8)]


def slow_permute(keys: Sequence[int], n: int, x: int) -> int:
    if n == 1:
        return x
    half = max(3, ((n - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = x >> half, x & mask
        for key in keys:
            z = (right + key) & MASK
            z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
            z ^= z >> 31
            left, right = right, left ^ (z & mask)
        x = (left << half) | right
        if x < n:
            return x


def slow_order(windows: Sequence[int], group: int, seed: int, fingerprint: str, epoch: int) -> list[int]:
    """All plan rows of an epoch in their order, without the closed form."""
    num = len(windows) - 1
    keys = slow_keys(seed, fingerprint, epoch, -1)
    places = [slow_permute(keys, num, j) for j in range(num)]
    out = []
    for g, low in enumerate(range(0, num, group)):
        rows = [r for w in places[low : low + group] for r in range(windows[w], windows[w + 1])]
        keys = slow_keys(seed, fingerprint, epoch, g)
        out += [rows[slow_permute(keys, len(rows), i)] for i in range(len(rows))]
    return out


def slow_counts(weights: Sequence[int], t: int) -> list[int]:
    """How many of the first t rows of a stage come from each source."""
    counts = []
    for k in range(len(weights) - 1, 0, -1):
        left = t * sum(weights[:k]) // sum(weights[: k + 1]) if sum(weights[: k + 1]) else 0
        counts.append(t - left)
        t = left
    return [t, *reversed(counts)]


def slow_stream(
    stages: Sequence[tuple[int, int, dict[int, int]]],  # (from_step, batch_size, {source: weight})
    last_step: int,
) -> Iterator[list[tuple[int, int]]]:
    """Step by step, the (source, number of the row in its whole past) of each row of the global batch."""
    past: Counter[int] = Counter()
    for (begin, size, weights), end in zip(stages, [*(stage[0] for stage in stages[1:]), last_step]):
        counts = slow_counts([weights[k] for k in sorted(weights)], 0)
        for step in range(begin, min(end, last_step)):
            batch = []
            for t in range((step - begin) * size + 1, (step - begin + 1) * size + 1):
                grown = slow_counts([weights[k] for k in sorted(weights)], t)
                (source,) = (k for k, a, b in zip(sorted(weights), counts, grown) if b > a)
                batch.append((source, past[source]))
                past[source] += 1
                counts = grown
            yield batch
