"""Packing: the compiled one equals its slow twin, with limits and into rows that are open already."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.packing import in_rows, longest_first, pack
from tests.mmdata.slow_packing import OpenRow, pack_slowly


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """Entries, limits and open rows; of up to 9,000 tokens, so that the search for a gap leaves its first words."""
    capacity = draw(st.sampled_from([50, 64, 100, 4096, 9000]))
    limits = draw(st.lists(st.integers(2, 6), max_size=3))
    some = draw(st.lists(st.integers(1, capacity), max_size=60))
    lengths = [min(n, capacity) for n in some] + draw(st.lists(st.integers(1, 1 + capacity // 5), max_size=40))
    costs = [[draw(st.integers(0, 2)) for _ in limits] for _ in lengths]
    gaps = draw(st.lists(st.integers(0, capacity), max_size=10))
    used = [[draw(st.integers(0, most)) for most in limits] for _ in gaps]
    return {"lengths": lengths, "capacity": capacity, "costs": costs, "limits": limits, "gaps": gaps, "used": used}


@given(cases())
@settings(max_examples=150, deadline=None)
def test_packing_equals_its_slow_twin(case: dict[str, Any]) -> None:
    num = len(case["limits"])
    rows = [OpenRow(gap, list(used), since) for since, (gap, used) in enumerate(zip(case["gaps"], case["used"]))]
    expected = pack_slowly(case["lengths"], case["capacity"], case["costs"], case["limits"], rows)
    found = pack(
        np.array(case["lengths"], np.int32),
        case["capacity"],
        np.array(case["costs"], np.int64).reshape(len(case["lengths"]), num),
        np.array(case["limits"], np.int64),
        np.array(case["gaps"], np.int64),
        np.array(case["used"], np.int64).reshape(len(case["gaps"]), num),
    )
    assert found.tolist() == expected


@given(st.lists(st.integers(1, 30), max_size=80))
@settings(deadline=None)
def test_the_longest_come_first_and_equal_ones_in_their_order(lengths: list[int]) -> None:
    expected = sorted(range(len(lengths)), key=lambda e: (-lengths[e], e))
    assert longest_first(np.array(lengths, np.int32), 30).tolist() == expected


@given(st.lists(st.integers(0, 9), max_size=40))
@settings(deadline=None)
def test_entries_are_collected_row_by_row(row: list[int]) -> None:
    order, sizes = in_rows(np.array(row, np.int32))
    assert order.tolist() == sorted(range(len(row)), key=lambda e: (row[e], e))
    assert sizes.tolist() == [row.count(r) for r in range(max(row, default=-1) + 1)]


def test_an_entry_that_fits_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match="fits no row"):
        pack(np.array([5, 13], np.int32), 12)
    with pytest.raises(ValueError, match="fits no row"):
        pack(np.array([5], np.int32), 12, np.array([[3]]), np.array([2]))
