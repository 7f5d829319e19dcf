"""Memory that processes share, in slots of one size: an anonymous file without a name, which goes with its last user.

`os.memfd_create` gives a file that no folder lists, so nothing can be left behind, however a process ends; where the
system has none, a temporary file without a name stands for it. A worker inherits the open file. Both sides map it in
blocks which double, so that thousands of slots take a dozen maps. A slot is used again once nothing refers to it
(mmdata/ring.py); free ones beyond a few give their memory back to the system. A forked child of the consumer maps the
same memory, in which its parent goes on to read: nothing that ends there frees any.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections import deque
from itertools import count

import numpy as np

from mmdata.ring import Lease

_FIRST = 8  # slots of the first block, and of the second; each later block is as large as all before it
_PAGE = mmap.PAGESIZE


class Slots:
    """The slots of an open file, mapped as they are asked for. Before the first one lie a page which begins with
    `generation`, and `note_bytes` of a note that every process reads."""

    def __init__(self, file: int, slot_bytes: int, note_bytes: int) -> None:
        self.file, self.slot_bytes, self.note_bytes = file, slot_bytes, note_bytes
        self.first = _PAGE + _whole_pages(note_bytes)  # bytes before the first slot
        self._blocks: dict[int, tuple[mmap.mmap, np.ndarray]] = {}
        self.generation = np.frombuffer(mmap.mmap(file, _PAGE), np.int64, 1)  # int64 [1]

    def note(self) -> bytes:
        """What all processes were told."""
        return os.pread(self.file, self.note_bytes, _PAGE)

    def __getitem__(self, slot: int) -> np.ndarray:  # uint8 [slot_bytes]
        _, block = self._block(block_of(slot)[0])
        start = block_of(slot)[1] * self.slot_bytes
        return block[start : start + self.slot_bytes]

    def empty(self, slot: int) -> None:
        """Give the slot's memory back to the system: it is cleared when it is next written."""
        if hasattr(mmap, "MADV_REMOVE"):
            block, place = block_of(slot)
            self._block(block)[0].madvise(mmap.MADV_REMOVE, place * self.slot_bytes, self.slot_bytes)

    def _block(self, block: int) -> tuple[mmap.mmap, np.ndarray]:
        if block not in self._blocks:
            first, num = _slots_of(block)
            mapped = mmap.mmap(self.file, num * self.slot_bytes, offset=self.first + first * self.slot_bytes)
            self._blocks[block] = mapped, np.frombuffer(mapped, np.uint8)
        return self._blocks[block]


class SharedRing:
    """The slots of a new file, handed out by number. One thread takes; slots come back from any. All is of the process
    that made it: in a forked child nothing is freed."""

    def __init__(self, size: int, keep: int, note: bytes = b"") -> None:
        self._size, self._keep, self._pid = size, keep, os.getpid()
        file = _anonymous_file()
        weakref.finalize(self, os.close, file)
        os.truncate(file, _PAGE)
        os.pwrite(file, note, _PAGE)
        self.slots = Slots(file, _whole_pages(size), len(note))
        self._free: deque[int] = deque()  # with memory; the one used last is in the processor's cache
        self._empty: deque[int] = deque()  # without
        self._new = count()

    @property
    def is_ours(self) -> bool:
        """Whether this process made it, and is no forked child of the one that did."""
        return os.getpid() == self._pid

    def take(self) -> int:
        """A slot that no one else has, of any content."""
        for free in (self._free, self._empty):
            try:
                return free.pop()
            except IndexError:
                continue
        slot = next(self._new)
        first, num = _slots_of(block_of(slot)[0])
        if slot == first:
            os.truncate(self.slots.file, self.slots.first + (first + num) * self.slots.slot_bytes)
        return slot

    def lend(self, slot: int) -> np.ndarray:  # uint8 [size]
        """The memory of a slot that was taken; it is given back when the last array that refers to it is gone."""
        return np.asarray(Lease(slot, self.slots[slot].ctypes.data, self._size, self.give_back))

    def give_back(self, slot: int) -> None:
        """The slot is not used any more."""
        if not self.is_ours:
            return
        if len(self._free) < self._keep:
            self._free.append(slot)
        else:
            self.slots.empty(slot)
            self._empty.append(slot)

    def trim(self) -> None:
        """Give the memory of all free slots back to the system."""
        while self.is_ours and self._free:
            slot = self._free.pop()
            self.slots.empty(slot)
            self._empty.append(slot)

    def allocated_bytes(self) -> int:
        """Memory that the slots take now."""
        return os.fstat(self.slots.file).st_blocks * 512


def block_of(slot: int) -> tuple[int, int]:
    """(block, place in it) of a slot."""
    block = (slot // _FIRST).bit_length()
    return block, slot - _slots_of(block)[0]


def _slots_of(block: int) -> tuple[int, int]:
    """(first slot, number of slots) of a block."""
    return (_FIRST << block - 1, _FIRST << block - 1) if block else (0, _FIRST)


def _whole_pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("mmdata", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
