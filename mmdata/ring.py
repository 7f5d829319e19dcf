"""The memory of batches: used again once nothing refers to it any more, and never before.

A batch belongs to its receiver, who may hold it, or hand it to JAX, which on CPU keeps the very memory. So no count of
batches says when a buffer is free: what says it is the end of the last array that refers to it. Buffers are kept, since
new pages cost more than filling them (the system clears each).
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes: what JAX on CPU takes without a copy
KEEP = 32  # free buffers kept at most; more were alive at once, and may go


class Lease:
    """Memory lent to arrays: `freed` is called when the last of them is gone. NumPy keeps it as their base."""

    __slots__ = ("__array_interface__", "_freed", "_memory")

    def __init__(self, memory: Any, address: int, size: int, freed: Callable[[Any], None]) -> None:
        self._memory, self._freed = memory, freed
        self.__array_interface__ = {"version": 3, "shape": (size,), "typestr": "|u1", "data": (address, False)}

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if not ending():  # when Python ends, what `freed` needs may be gone, and so is all memory
            self._freed(self._memory)


class Ring:
    """Buffers of one size."""

    def __init__(self, size: int, keep: int = KEEP) -> None:
        self.size, self._keep = size, keep
        self._free: deque[np.ndarray] = deque()

    def take(self) -> np.ndarray:  # uint8 [size], aligned; of any content
        """Memory that no one else has."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(self.size + ALIGNMENT, np.uint8)
        address = -(-memory.ctypes.data // ALIGNMENT) * ALIGNMENT
        return np.asarray(Lease(memory, address, self.size, self._give_back))

    def _give_back(self, memory: np.ndarray) -> None:
        if len(self._free) < self._keep:
            self._free.append(memory)
