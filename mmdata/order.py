"""The order of a source's rows in each epoch: keyed bijections, forwards and back (docs/format.md, "Order").

Windows are permuted, and the rows inside a group of G neighbouring windows, so that consecutive rows touch few shards.
No index is held but one prefix sum over windows. Fixed for good: the test vectors of docs/format.md hold it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

ROUNDS = 8
MIN_HALF_BITS = 3  # a Feistel network over fewer than 6 bits mixes badly; cycle walking pays for the rest
_WINDOWS = -1  # the `group` of the key that permutes windows


@lru_cache(maxsize=4096)
def round_keys(seed: int, fingerprint: str, epoch: int, group: int) -> tuple[int, ...]:
    """Eight 64-bit round keys: blake2b-512 of "mmdata order 1/seed/fingerprint/epoch/group", little-endian."""
    text = f"mmdata order 1/{seed}/{fingerprint}/{epoch}/{group}"
    return tuple(np.frombuffer(hashlib.blake2b(text.encode()).digest(), "<u8").tolist())


def permute(keys: tuple[int, ...], n: int, x: np.ndarray) -> np.ndarray:  # int64 [m] in [0, n) -> the same
    """Where the keyed permutation of [0, n) sends each x: a Feistel network, walked until it lands below n."""
    return _walk(_forward, keys, n, x)


def unpermute(keys: tuple[int, ...], n: int, y: np.ndarray) -> np.ndarray:  # int64 [m] in [0, n) -> the same
    """The inverse of `permute`."""
    return _walk(_backward, keys, n, y)


@dataclass(frozen=True, eq=False)
class Order:
    """The order of the rows of one plan. `row(epoch, p)` and `position(epoch, row)` are inverses of one another."""

    windows: np.ndarray  # int64 [w+1], first row of each window: Plan.windows
    group_windows: int
    seed: int
    fingerprint: str  # of the source
    _epochs: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        return int(self.windows[-1])

    def rows(self, epoch: int, positions: np.ndarray) -> np.ndarray:  # int64 [m] -> int64 [m]
        """The plan rows at these positions of an epoch."""
        places, sums = self._epoch(epoch)
        q = self._within_groups(epoch, sums, np.asarray(positions, np.int64), permute)
        place = np.searchsorted(sums, q, side="right") - 1
        return self.windows[places[place]] + q - sums[place]

    def positions(self, epoch: int, rows: np.ndarray) -> np.ndarray:  # int64 [m] -> int64 [m]
        """The positions in an epoch at which these plan rows come."""
        places, sums = self._epoch(epoch)
        rows = np.asarray(rows, np.int64)
        window = np.searchsorted(self.windows, rows, side="right") - 1
        place = np.empty(len(places), np.int64)
        place[places] = np.arange(len(places))
        q = sums[place[window]] + rows - self.windows[window]
        return self._within_groups(epoch, sums, q, unpermute)

    def group(self, epoch: int, position: int) -> tuple[np.ndarray, int, int]:
        """(windows int64, first position, last position + 1) of the group which holds a position of an epoch."""
        places, sums = self._epoch(epoch)
        place = int(np.searchsorted(sums, position, side="right")) - 1
        low = place - place % self.group_windows
        high = min(low + self.group_windows, len(places))
        return places[low:high], int(sums[low]), int(sums[high])

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(window at each place int64 [w], prefix sum of their rows int64 [w+1]) of an epoch; the last few are kept."""
        found = self._epochs.get(epoch)
        if found is None:
            num = len(self.windows) - 1
            keys = round_keys(self.seed, self.fingerprint, epoch, _WINDOWS)
            places = permute(keys, num, np.arange(num))
            found = places, np.concatenate([[0], np.cumsum(np.diff(self.windows)[places])]).astype(np.int64)
            for old in list(self._epochs)[:-3]:
                self._epochs.pop(old, None)
            self._epochs[epoch] = found
        return found

    def _within_groups(self, epoch: int, sums: np.ndarray, q: np.ndarray, move: object) -> np.ndarray:
        """Apply each group's own permutation (or its inverse) to the positions q that lie in it."""
        if len(q) and (int(q.min()) < 0 or int(q.max()) >= self.num_rows):
            raise IndexError(f"a row outside [0, {self.num_rows})")
        group = (np.searchsorted(sums, q, side="right") - 1) // self.group_windows
        out = np.empty_like(q)
        for g in np.unique(group).tolist():
            low = int(sums[g * self.group_windows])
            high = int(sums[min((g + 1) * self.group_windows, len(sums) - 1)])
            mine = group == g
            keys = round_keys(self.seed, self.fingerprint, epoch, g)
            out[mine] = low + move(keys, high - low, q[mine] - low)  # type: ignore[operator]
        return out


def _walk(step: object, keys: tuple[int, ...], n: int, x: np.ndarray) -> np.ndarray:
    half = max(MIN_HALF_BITS, ((n - 1).bit_length() + 1) // 2)
    out = np.asarray(x).astype(np.uint64)
    todo = np.arange(len(out)) if n > 1 else np.zeros(0, np.int64)
    while len(todo):
        out[todo] = step(keys, half, out[todo])  # type: ignore[operator]
        todo = todo[out[todo] >= n]
    return out.astype(np.int64)


def _forward(keys: tuple[int, ...], half: int, x: np.ndarray) -> np.ndarray:
    h, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = x >> h, x & mask
    for key in keys:
        left, right = right, left ^ (_mix(right, key) & mask)
    return (left << h) | right


def _backward(keys: tuple[int, ...], half: int, x: np.ndarray) -> np.ndarray:
    h, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = x >> h, x & mask
    for key in reversed(keys):
        left, right = right ^ (_mix(left, key) & mask), left
    return (left << h) | right


def _mix(x: np.ndarray, key: int) -> np.ndarray:
    """The finaliser of SplitMix64 over x + key, modulo 2^64."""
    z = x + np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
