"""Slots of shared memory: used again only when nothing refers to them, and gone with their last user."""

import gc
import os

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.shared_memory import SharedRing, Slots, block_of

SIZE = 5000  # not a whole number of pages


def lent(ring: SharedRing, value: int) -> tuple[int, np.ndarray]:
    slot = ring.take()
    array = ring.lend(slot)
    array[:] = value
    return slot, array


@given(st.integers(0, 10**6))
def test_slots_lie_one_after_the_other_over_all_blocks(slot: int) -> None:
    (block, place), (following, next_place) = block_of(slot), block_of(slot + 1)
    assert (following, next_place) in ((block, place + 1), (block + 1, 0))
    assert block < 20


def test_no_slot_is_used_again_while_an_array_refers_to_it() -> None:
    ring = SharedRing(SIZE, keep=4)
    held = [lent(ring, i)[1][100:200].view(np.int16) for i in range(100)]
    for i, array in enumerate(held):
        assert (array.view(np.uint8) == i).all()
    assert ring.allocated_bytes() >= 100 * SIZE
    del held, array
    gc.collect()
    assert ring.allocated_bytes() <= 6 * 2 * SIZE  # 4 slots and the page before them
    again = [lent(ring, i) for i in range(100)]
    assert len({slot for slot, _ in again}) == 100 and max(slot for slot, _ in again) < 100


def test_a_slot_is_free_once_its_arrays_are_gone() -> None:
    ring = SharedRing(SIZE, keep=4)
    slot, array = lent(ring, 1)
    part = array[:10]
    del array
    assert ring.take() != slot
    del part
    assert ring.take() == slot


def test_jax_on_the_cpu_keeps_the_memory_that_it_may_share() -> None:
    ring = SharedRing(1 << 20, keep=4)
    kept = [jax.device_put(lent(ring, i)[1]) for i in range(10)]
    for i in range(10):
        lent(ring, 100 + i)
    assert [int(array.max()) for array in kept] == [int(array.min()) for array in kept] == list(range(10))


def test_what_is_lent_outlives_the_ring() -> None:
    ring = SharedRing(SIZE, keep=4)
    arrays = [lent(ring, i)[1] for i in range(20)]
    ring.trim()
    del ring
    gc.collect()
    assert [int(array.max()) for array in arrays] == list(range(20))


def test_another_process_sees_the_slots_and_the_note() -> None:
    ring = SharedRing(SIZE, keep=4, note=b"x" * 10_000)
    arrays = [lent(ring, i)[1] for i in range(30)]
    theirs = Slots(os.dup(ring.slots.file), ring.slots.slot_bytes, ring.slots.note_bytes)
    ring.slots.generation[0] = 7
    assert theirs.note() == b"x" * 10_000 and theirs.generation[0] == 7
    theirs[29][:SIZE] = 99
    assert (arrays[29] == 99).all() and (arrays[28] == 28).all()
    os.close(theirs.file)


def test_nothing_is_freed_in_a_forked_child(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = SharedRing(SIZE, keep=1)
    slots = [ring.take() for _ in range(9)]
    arrays = [ring.lend(slot) for slot in slots]
    for array in arrays:
        array[:] = 7
    pid = os.getpid()
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: pid + 1)
        for slot in slots:
            ring.give_back(slot)
        ring.trim()
    assert all((array == 7).all() for array in arrays) and ring.take() not in slots


def test_the_file_has_no_name_and_is_closed_with_the_ring() -> None:
    ring = SharedRing(SIZE, keep=4)
    lent(ring, 1)
    file = ring.slots.file
    assert os.fstat(file).st_nlink == 0
    del ring
    gc.collect()
    with pytest.raises(OSError):
        os.fstat(file)
