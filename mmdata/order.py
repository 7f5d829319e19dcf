"""The order of a source's rows in each epoch: keyed bijections, forwards and back (docs/format.md, "Order").

Windows are permuted, and the rows inside a group of G neighbouring windows, so that consecutive rows touch few shards.
No index is held but a few numbers a window. Fixed for good: the test vectors of docs/format.md hold it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

_WINDOWS = -1  # the `group` of the key that permutes windows
_KEPT = 4  # epochs whose tables an Order keeps


def round_keys(seed: int, fingerprint: str, epoch: int, groups: Iterable[int]) -> np.ndarray:  # uint64 [groups, 8]
    """Eight round keys a group: blake2b-512 of "mmdata order 1/seed/fingerprint/epoch/group", little-endian."""
    common = hashlib.blake2b(f"mmdata order 1/{seed}/{fingerprint}/{epoch}/".encode())
    digests = []
    for group in groups:
        digest = common.copy()
        digest.update(b"%d" % group)
        digests.append(digest.digest())
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64).reshape(-1, 8)


def permute(keys: np.ndarray, n: int, x: np.ndarray) -> np.ndarray:  # uint64 [8], int64 [m] in [0, n) -> the same
    """Where the keyed permutation of [0, n) sends each x: a Feistel network, walked until it lands below n."""
    from mmdata import arithmetic

    return arithmetic.permute(keys, n, x.astype(np.int64))


def unpermute(keys: np.ndarray, n: int, y: np.ndarray) -> np.ndarray:  # uint64 [8], int64 [m] in [0, n) -> the same
    """The inverse of `permute`."""
    from mmdata import arithmetic

    return arithmetic.unpermute(keys, n, y.astype(np.int64))


@dataclass(frozen=True, eq=False)
class Epoch:
    """What `rows` and `positions` of one epoch need; never changed once made, so that threads may share it."""

    starts: np.ndarray  # int64 [w], first row of the window at each place
    spots: np.ndarray  # int64 [w], the place of each window
    sums: np.ndarray  # int64 [w+1], rows at the places before each
    keys: np.ndarray  # uint64 [groups, 8]


@dataclass(frozen=True, eq=False)
class Order:
    """The order of the rows of one plan. `rows(epoch, ...)` and `positions(epoch, ...)` are inverses of one another."""

    windows: np.ndarray  # int64 [w+1], first row of each window: Plan.windows
    group_windows: int
    seed: int
    fingerprint: str  # of the source
    num_rows: int = field(init=False)
    _epochs: dict[int, Epoch] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "windows", np.array(self.windows, np.int64))  # not read-only: compiled for one type
        object.__setattr__(self, "num_rows", int(self.windows[-1]))

    def rows(self, epoch: int, positions: np.ndarray) -> np.ndarray:  # int64 [m] -> int64 [m]
        """The plan rows at these positions of an epoch."""
        from mmdata import arithmetic

        table = self.epoch(epoch)
        return arithmetic.rows(self._checked(positions), table.starts, table.sums, table.keys, self.group_windows)

    def past(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # int64 [m], ascending
        """(epoch, plan row) int64 [m] of rows by their number in the source's whole past: epoch 0, 1, ... in turn."""
        from mmdata import arithmetic

        first, last = int(numbers[0]) // self.num_rows, int(numbers[-1]) // self.num_rows
        epochs, rows, begin = np.empty_like(numbers), np.empty_like(numbers), 0
        for epoch in range(first, last + 1):
            base = epoch * self.num_rows
            end = len(numbers) if epoch == last else int(np.searchsorted(numbers, base + self.num_rows))
            if begin < end:
                table, here = self.epoch(epoch), numbers[begin:end] - base
                rows[begin:end] = arithmetic.rows(here, table.starts, table.sums, table.keys, self.group_windows)
                epochs[begin:end] = epoch
            begin = end
        return epochs, rows

    def positions(self, epoch: int, rows: np.ndarray) -> np.ndarray:  # int64 [m] -> int64 [m]
        """The positions in an epoch at which these plan rows come."""
        from mmdata import arithmetic

        table, rows = self.epoch(epoch), self._checked(rows)
        return arithmetic.positions(rows, self.windows, table.spots, table.sums, table.keys, self.group_windows)

    def group(self, epoch: int, position: int) -> tuple[np.ndarray, int, int]:
        """(windows int64, first position, last position + 1) of the group which holds a position of an epoch."""
        table = self.epoch(epoch)
        place = int(np.searchsorted(table.sums, position, side="right")) - 1
        low = place - place % self.group_windows
        high = min(low + self.group_windows, len(table.spots))
        windows = np.flatnonzero((table.spots >= low) & (table.spots < high))
        return windows[np.argsort(table.spots[windows])], int(table.sums[low]), int(table.sums[high])

    def epoch(self, epoch: int) -> Epoch:
        """The tables of an epoch; the last few are kept."""
        found = self._epochs.get(epoch)
        if found is None:
            found = self._make(epoch)
            for old in list(self._epochs)[: 1 - _KEPT]:
                self._epochs.pop(old, None)
            self._epochs[epoch] = found
        return found

    def _make(self, epoch: int) -> Epoch:
        num = len(self.windows) - 1
        keys = round_keys(self.seed, self.fingerprint, epoch, range(_WINDOWS, -(-num // self.group_windows)))
        window = permute(keys[0], num, np.arange(num))  # at each place
        spots = np.empty(num, np.int64)
        spots[window] = np.arange(num)
        sums = np.zeros(num + 1, np.int64)
        np.cumsum(np.diff(self.windows)[window], out=sums[1:])
        return Epoch(self.windows[window], spots, sums, keys[1:])

    def _checked(self, numbers: np.ndarray) -> np.ndarray:
        numbers = np.array(numbers, np.int64)
        if len(numbers) and (int(numbers.min()) < 0 or int(numbers.max()) >= self.num_rows):
            raise IndexError(f"a row outside [0, {self.num_rows})")
        return numbers
