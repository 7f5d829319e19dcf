"""Order: keyed bijections, forwards and back, against slow twins and the vectors of the format."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.order import Order, permute, round_keys, unpermute
from tests.mmdata.slow_rows import slow_keys, slow_order, slow_permute


@given(st.integers(1, 3000), st.integers(-5, 5), st.integers(0, 3), st.integers(-1, 5))
@settings(max_examples=60, deadline=None)
def test_permute_is_a_bijection_which_unpermute_turns_back(n: int, seed: int, epoch: int, group: int) -> None:
    keys = round_keys(seed, "ab", epoch, [group])[0]
    y = permute(keys, n, np.arange(n))
    assert sorted(y.tolist()) == list(range(n))
    np.testing.assert_array_equal(unpermute(keys, n, y), np.arange(n))


@given(st.integers(2, 1 << 62), st.integers(0, 1 << 62))
@settings(max_examples=60, deadline=None)
def test_permute_equals_its_slow_twin(n: int, x: int) -> None:
    keys = round_keys(7, "c0ffee", 2, [0])[0]
    y = slow_permute(slow_keys(7, "c0ffee", 2, 0), n, x % n)
    assert permute(keys, n, np.array([x % n])).tolist() == [y]
    assert unpermute(keys, n, np.array([y])).tolist() == [x % n]


@given(st.lists(st.integers(0, 12), min_size=1, max_size=20), st.integers(1, 6), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_every_row_comes_once_an_epoch_and_is_found_again(sizes: list[int], group: int, epoch: int) -> None:
    windows = np.cumsum([0, *sizes])
    order = Order(windows, group, 3, "f1")
    got = order.rows(epoch, np.arange(windows[-1]))
    assert got.tolist() == slow_order(windows.tolist(), group, 3, "f1", epoch)
    assert sorted(got.tolist()) == list(range(windows[-1]))
    np.testing.assert_array_equal(order.positions(epoch, got), np.arange(windows[-1]))


def test_epochs_seeds_and_sources_have_orders_of_their_own() -> None:
    windows = np.arange(0, 1001, 100)
    orders = {
        (seed, print_, epoch): tuple(Order(windows, 5, seed, print_).rows(epoch, np.arange(1000)).tolist())
        for seed in (0, 1)
        for print_ in ("aa", "bb")
        for epoch in (0, 1)
    }
    assert len(set(orders.values())) == len(orders)


def test_consecutive_rows_stay_within_a_group_of_windows() -> None:
    order = Order(np.arange(0, 4001, 100), 5, 0, "aa")
    rows = order.rows(0, np.arange(500))
    assert len({r // 100 for r in rows.tolist()}) == 5


def test_first_places_of_small_permutations_are_spread_evenly() -> None:
    for n in (3, 7, 64):
        firsts = [int(permute(round_keys(seed, "x", 0, [0])[0], n, np.array([0]))[0]) for seed in range(100 * n)]
        counts = np.bincount(firsts, minlength=n)
        assert ((counts - 100) ** 2 / 100).sum() / (n - 1) < 2.5  # chi-squared a degree of freedom


def test_a_row_outside_the_epoch_is_an_index_error() -> None:
    with pytest.raises(IndexError, match="outside"):
        Order(np.array([0, 5]), 5, 0, "aa").rows(0, np.array([5]))


def test_the_vectors_of_the_format_hold(root: Path) -> None:
    text = "\n".join(path.read_text("utf-8") for path in [root / "docs/format.md"])
    keys = re.search(r"round_keys\(0, \"aa\", 0, -1\) = \[(.*?)\]", text, re.S)
    assert keys
    assert [int(k, 16) for k in keys[1].replace("\n", " ").split(",")] == round_keys(0, "aa", 0, [-1])[0].tolist()
    digest = hashlib.blake2b(b"mmdata order 1/0/aa/0/-1").digest()
    assert int.from_bytes(digest[:8], "little") == round_keys(0, "aa", 0, [-1])[0][0]
    found = re.findall(r"permute\(n=(\d+)\): ([\d ]+)", text)
    assert len(found) == 2
    for n, values in found:
        expected = [int(v) for v in values.split()]
        assert permute(round_keys(0, "aa", 0, [-1])[0], int(n), np.arange(len(expected))).tolist() == expected
    rows = re.findall(r"rows of epoch (\d): ([\d ]+)", text)
    assert len(rows) == 2
    for epoch, values in rows:
        order = Order(np.array([0, 4, 4, 9, 12, 14]), 2, 0, "aa")
        assert order.rows(int(epoch), np.arange(14)).tolist() == [int(v) for v in values.split()]
