"""The loader's benchmark measures what it says: the limit makes our six arrays, and every document is there once."""

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdata.batch import empty_batch, put_row
from tokenizer.row import Row

ARRAYS = ("tokens", "targets", "loss_weights", "segment_ids", "positions", "kinds")


@pytest.fixture
def bench(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The folder benchmarks on the path, as its programs have it."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import drawn
    import peers

    yield drawn, peers
    for name in [name for name in sys.modules if name.split(".")[0] in ("drawn", "peers")]:
        del sys.modules[name]


def test_documents_are_the_same_each_time_and_cut_at_the_row(bench: Any, tmp_path: Path) -> None:
    drawn, _ = bench
    first, second = drawn.documents(tmp_path / "a", 300), drawn.documents(tmp_path / "b", 300)
    np.testing.assert_array_equal(first.tokens, second.tokens)
    cut = first.cut()
    assert np.diff(cut.offsets).max() <= drawn.SEQ_LEN and np.diff(cut.offsets).min() > 0
    assert set(first.offsets.tolist()) <= set(cut.offsets.tolist()) and cut.offsets[-1] == len(first.tokens)
    assert np.concatenate(first.shards()).tolist() == list(range(300))


def test_the_limit_makes_the_six_arrays_of_a_batch(bench: Any, tmp_path: Path) -> None:
    drawn, peers = bench
    system = peers.systems()["limit"]
    documents = drawn.documents(tmp_path, 300)
    rows, length = documents.rows(), drawn.SEQ_LEN
    system.prepare(documents, drawn.prepared(tmp_path, "limit", lambda folder: None))
    made = next(iter(system.open(tmp_path / "limit", 1, 0).epoch()))
    order = np.random.default_rng(1).permutation(len(rows))[: drawn.BATCH]
    expected = empty_batch(len(order), length)
    for b, r in enumerate(order):
        starts = [r * length, *(o for o in documents.offsets if r * length < o < (r + 1) * length), (r + 1) * length]
        pieces = []
        for x, y in itertools.pairwise(starts):
            ids, n = documents.tokens[x:y].astype(np.int32), int(y - x)
            row = Row(ids, np.ones(n, np.float32), np.arange(n, dtype=np.int32), np.ones(n, np.uint8), ())
            pieces.append((int(x - r * length), row))
        put_row(expected, b, pieces)
    for name, array in zip(ARRAYS, made):
        assert array.dtype == getattr(expected, name).dtype
        np.testing.assert_array_equal(array, getattr(expected, name), err_msg=name)
