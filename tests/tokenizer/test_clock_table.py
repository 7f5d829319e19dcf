"""Items on one clock found by columns are those found sample by sample."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tokenizer.toy_layouts import CASES, Case, sample_of
from tokenizer import clock
from tokenizer.item import Item, ItemTable

MERGING = [case for case in CASES if case.layout.spec.merge.of != "none"]


def one_by_one(case: Case, table: ItemTable, shown: list[int]) -> list[list[int]]:
    found: list[list[int]] = []
    for first, last in pairwise(table.offsets.tolist()):
        here = [m for m in shown if first <= m < last]
        stretches = [clock.Stretch.of_table(table, m) for m in here]
        found += [[here[g] for g in group] for group in clock.groups(case.layout, stretches)]
    return found


@st.composite
def timed_samples(draw: st.DrawFn, case: Case) -> list[list[Item]]:
    """Films and sounds of the case's codecs side by side, with all that may keep them apart."""
    sounds = [c.name for c in case.layout.codecs if c.kind == "audio"] + ["elsewhere@1"]
    pictures = [c.name for c in case.layout.codecs if c.kind in ("image", "video")]
    books = {c.name: len(c.codebooks) for c in case.layout.codecs}
    seconds = st.sampled_from([float("nan"), 0.0, 0.5, 1.0, 2.0, float("inf")])

    def item() -> Item:
        count, codec = draw(st.integers(0, 4)), draw(st.sampled_from(sounds))
        times = np.array(draw(st.lists(seconds, min_size=count, max_size=count)), np.float32)
        times = times if draw(st.booleans()) else times[:1]
        if draw(st.booleans()) and pictures:
            codec = draw(st.sampled_from(pictures))
            codes = None if draw(st.integers(0, 4)) == 0 else np.zeros((count, books[codec]), np.int32)
            return Item("video", codec, codes, (count, 1, 1), times=times)
        codes = np.zeros((count, books.get(codec, 1)), np.int32)
        return Item("audio", codec, codes, (count, 0, 0), draw(seconds), draw(seconds), times=times)

    return [[item() for _ in range(draw(st.integers(0, 6)))] for _ in range(draw(st.integers(0, 4)))]


@pytest.mark.parametrize("case", MERGING, ids=repr)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_groups_by_columns_are_those_of_each_sample(case: Case, data: Any) -> None:
    drawn = data.draw(st.one_of(timed_samples(case), st.lists(sample_of(case), max_size=4)))
    table = ItemTable.of(drawn)
    shown = [m for m in range(len(table.kind)) if data.draw(st.integers(0, 9))]
    found = clock.groups_in_table(case.layout, table, np.array(shown, np.int64))
    assert found == one_by_one(case, table, shown)
