"""The cuts of many samples at once are those of each alone."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tokenizer.toy_layouts import CASES, Case, sample_of
from tokenizer.item import ItemTable


@pytest.mark.parametrize("case", CASES, ids=repr)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_cuts_of_many_samples_are_those_of_each_alone(case: Case, data: Any) -> None:
    samples = data.draw(st.lists(sample_of(case), max_size=4))
    places, ranks, offsets = case.layout.all_cuts(ItemTable.of(samples))
    assert (places.dtype, ranks.dtype, offsets.dtype) == (np.int32, np.uint8, np.int64)
    assert len(offsets) == len(samples) + 1 and offsets[-1] == len(places) == len(ranks)
    for sample, (first, last) in zip(samples, pairwise(offsets.tolist())):
        alone, their_ranks = case.layout.cuts(ItemTable.of([sample]))
        assert places[first:last].tolist() == alone.tolist() and ranks[first:last].tolist() == their_ranks.tolist()
