"""The memory of a batch: every array of any layout's batch has a place of its own in it."""

import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmdata.batch import Batch, BatchForm, clear, empty_batch

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
SOFT = st.dictionaries(st.sampled_from(["image", "audio", "video"]), st.tuples(SHAPES, st.sampled_from(["u1", "f4"])))
FORMS = st.builds(BatchForm, st.integers(1, 9), st.integers(1, 3), st.integers(1, 3), st.booleans(), SOFT)


def arrays_of(batch: Batch) -> list[np.ndarray]:
    return jax.tree.leaves(batch)


@given(FORMS, st.integers(1, 5))
def test_arrays_have_the_documented_shapes_and_do_not_share_memory(form: BatchForm, num_rows: int) -> None:
    memory = np.full(form.size_bytes(num_rows), 7, np.uint8)
    batch = clear(form.batch_in(memory, num_rows))
    b, n, k, p = num_rows, form.seq_len, form.num_codebooks, form.num_positions
    ids = (b, n) if k == 1 else (b, n, k)
    assert batch.tokens.shape == batch.targets.shape == batch.loss_weights.shape == ids
    assert batch.positions.shape == ((b, n) if p == 1 else (b, p, n))
    assert batch.segment_ids.shape == batch.kinds.shape == (b, n)
    assert (batch.blocks is None) == (not form.blocks) and (batch.soft_index is None) == (not form.soft)
    assert {name: (a.shape[1:], a.dtype) for name, a in batch.soft.items()} == form.soft
    for number, array in enumerate(arrays_of(batch), 1):
        assert (array == (-1 if array is batch.soft_index else 0)).all()
        array[:] = number
    for number, array in enumerate(arrays_of(batch), 1):
        assert (array == number).all() and array.ctypes.data % array.itemsize == 0


def test_an_empty_batch_is_padding() -> None:
    batch = empty_batch(2, 5, num_codebooks=3, blocks=True, soft={"image": ((5, 2), np.uint8)})
    assert batch.soft_index is not None and (batch.soft_index == -1).all()
    assert sum(int(np.abs(array).sum()) for array in arrays_of(batch)) == batch.soft_index.size
