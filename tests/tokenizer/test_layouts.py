"""The functions of every layout agree: lengths, cuts, choose, render, apply and parse, over random samples and ids."""

import itertools
import pickle
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tokenizer.toy_layouts import CASES, Case, medium_of, sample_of, text_item
from tokenizer.item import KINDS, Item, ItemTable
from tokenizer.layout import PLAIN, Choice, Row

cases = pytest.mark.parametrize("case", CASES, ids=repr)


def fields(found: Sequence[Item]) -> list[tuple]:
    """Items as comparable values, every field of them; NaN is spelled out."""
    return [
        (
            i.kind,
            i.codec,
            None if i.codes is None else (i.codes.shape, i.codes.dtype.str, i.codes.tobytes()),
            i.grid,
            str(i.start_s),
            str(i.end_s),
            i.times.tolist(),
            i.unit_times.tolist(),
            (i.role, i.stream, i.group, i.group_role, i.digest, i.uri, i.text),
        )
        for i in found
    ]


def check_row(case: Case, sample: list[Item], choice: Choice, piece: tuple[int, int] | None) -> Row:
    """What holds of every row; returns it."""
    layout = case.layout
    row = layout.render(sample, choice, piece, medium_of)
    n = len(row)
    assert {a.shape[0] for a in (row.tokens, row.loss_weights, row.kinds)} == {n} and row.positions.shape[-1] == n
    assert row.tokens.dtype == np.int32 and row.loss_weights.dtype == np.float32 and row.positions.dtype == np.int32
    assert (layout.vocabulary.range_index(row.tokens.reshape(-1)) >= 0).all()
    assert (row.loss_weights >= 0).all() and row.loss_weights.shape == row.tokens.shape
    check_spans(row)
    check_positions(case, row)
    check_blocks(case, row)
    for kind, vectors in row.soft.items():
        shape, dtype = layout.soft_shapes[kind]
        assert vectors.shape[1:] == shape and vectors.dtype == dtype
        here = (row.soft_index >= 0) & (row.kinds == {"image": 2, "audio": 3, "video": 4}[kind])
        assert row.soft_index[here].tolist() == list(range(len(vectors)))
    found, problems = layout.parse(row.tokens)
    assert problems == []
    assert fields(found) == fields(layout.apply(sample, choice, piece))
    if piece is None:
        again = layout.render(found, media=medium_of)
        np.testing.assert_array_equal(again.tokens, row.tokens)
        np.testing.assert_array_equal(again.kinds, row.kinds)
        if not case.groups_weighed and not case.roles_lost:
            np.testing.assert_array_equal(again.loss_weights, row.loss_weights)
        if not case.shapes_lost and not _seconds_lost(case, sample):
            np.testing.assert_array_equal(again.positions, row.positions)
    return row


def _seconds_lost(case: Case, sample: list[Item]) -> bool:
    return case.layout.spec.positions.time == "seconds" and any(i.kind == "video" for i in sample)


def check_spans(row: Row) -> None:
    """Spans lie in the row, and two of them are apart or one is inside the other."""
    spans = [(int(s["start"]), int(s["stop"])) for s in row.spans]
    assert all(0 <= a <= b <= len(row) for a, b in spans)
    for (a, b), (c, d) in itertools.combinations(spans, 2):
        assert b <= c or d <= a or (a <= c and d <= b) or (c <= a and b <= d)


def check_positions(case: Case, row: Row) -> None:
    """Monotone where the plan says so, and never negative."""
    plan, p = case.layout.spec.positions.plan, row.positions
    assert (p >= 0).all()
    if plan == "linear":
        assert p.tolist() == list(range(len(row)))
    elif plan == "one_per_item":
        assert (np.diff(p) >= 0).all() and (np.diff(p) <= 1).all()
    elif plan == "restart":
        assert (np.diff(p[row.kinds == KINDS.index("text")]) > 0).all()
    elif plan in ("grid", "three_axis"):
        assert p.shape[0] == {"grid": 2, "three_axis": 3}[plan]
        words = np.isin(row.kinds, [1])  # text stands on all axes alike, and never goes back
        assert (p[:, words] == p[:1, words]).all() and (np.diff(p[0, words]) > 0).all()


def check_blocks(case: Case, row: Row) -> None:
    """Blocks are there where the layout has them, and each is one stretch of places or more of one item."""
    assert (row.blocks is not None) == case.layout.needs_blocks
    if row.blocks is not None:
        assert row.blocks.shape == (len(row),) and (row.blocks >= 0).all()
        runs = row.blocks[np.flatnonzero(np.diff(row.blocks, prepend=0))]
        runs = runs[runs > 0].tolist()
        separated = any(case.layout.kinds[k].row_end >= 0 for k in case.layout.kinds)
        assert separated or len(set(runs)) == len(runs), "a block is one stretch"
        if not separated and not case.layout.spec.attention.prefix and not case.layout.spec.attention.delimiters:
            media = np.isin(row.kinds, [KINDS.index(k) for k in case.layout.spec.attention.blocks])
            np.testing.assert_array_equal(row.blocks > 0, media)


@cases
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_what_was_rendered_comes_back_and_has_the_length_foretold(case, data):
    sample = data.draw(sample_of(case))
    table = ItemTable.of([sample])
    length = int(case.layout.lengths(table)[0])
    assert len(check_row(case, sample, PLAIN, None)) == length
    choice = case.layout.choose(sample, 7, "id", data.draw(st.integers(0, 5)))
    assert len(check_row(case, sample, choice, None)) <= length


@cases
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_pieces_cover_every_code_once_and_have_the_length_foretold(case, data):
    layout, sample = case.layout, data.draw(sample_of(case))
    table = ItemTable.of([sample])
    places, ranks = layout.cuts(table)
    assert places[0] == 0 and (np.diff(places) > 0).all() and ranks[0] == ranks[-1] == 0
    assert places[-1] == table.num_units().sum()
    inner = data.draw(st.lists(st.sampled_from(places.tolist()), max_size=3))
    edges = sorted({0, int(places[-1]), *inner})
    pieces = list(itertools.pairwise(edges)) or [(0, 0)]
    lengths = layout.lengths(table, np.array(pieces), samples=np.zeros(len(pieces), int))
    choice = layout.choose(sample, 1, "id", 0) if data.draw(st.booleans()) else PLAIN
    counts: dict[bytes, int] = {}
    for piece, length in zip(pieces, lengths):
        row = check_row(case, sample, PLAIN, piece)
        assert len(row) == length
        assert len(check_row(case, sample, choice, piece)) <= length
        for item in layout.apply(sample, PLAIN, piece):
            count_codes(item, counts)
    whole: dict[bytes, int] = {}
    for item in layout.apply(sample):
        count_codes(item, whole)
    assert counts == whole
    check_units(case, table, pieces)


def count_codes(item: Item, counts: dict) -> None:
    """Each code frame once more, by codec; soft items by their size."""
    if item.codes is None:
        counts[item.kind, item.grid[1:]] = counts.get((item.kind, item.grid[1:]), 0) + item.grid[0]
        return
    for row in item.codes:
        key = (item.kind if item.kind == "audio" else "", item.codec, row.tobytes())
        counts[key] = counts.get(key, 0) + 1


def check_units(case: Case, table: ItemTable, pieces: list[tuple[int, int]]) -> None:
    """`units` says what pieces hold: of each item as many units as it has, in all pieces together."""
    starts, stops = np.array(pieces).T
    _, item, units = case.layout.units(table, np.zeros(len(pieces), int), starts, stops)
    total = np.zeros(len(table.kind), np.int64)
    np.add.at(total, item, units)
    soft = table.codec < 0
    want = table.num_units().tolist()
    for m, (kind, is_soft) in enumerate(zip(table.kind, soft)):
        times = table.times[table.times_offsets[m] : table.times_offsets[m + 1]]
        if case.layout.leaves_out(KINDS[kind], bool(is_soft)):
            want[m] = 0
        elif KINDS[kind] == "video" and not is_soft and len(times) == table.t[m]:
            shown = case.layout.shown_frames(times)
            want[m] = want[m] if shown is None else int(shown.sum())
    assert total.tolist() == want


@cases
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_lengths_of_many_samples_are_those_of_each(case, data):
    many = data.draw(st.lists(sample_of(case), max_size=4))
    lengths = case.layout.lengths(ItemTable.of(many))
    assert lengths.dtype == np.int32
    assert lengths.tolist() == [len(case.layout.render(sample, media=medium_of)) for sample in many]
    whole = np.array([[0, ItemTable.of([s]).num_units().sum()] for s in many]).reshape(-1, 2)
    np.testing.assert_array_equal(case.layout.lengths(ItemTable.of(many), whole), lengths)


def wild_ids(case: Case) -> st.SearchStrategy[list[int]]:
    """Ids that look like a row often enough to reach every branch of the parser."""
    layout = case.layout
    near = [
        st.sampled_from(sorted(layout.controls.values())),
        st.integers(0, layout.vocabulary.size + 3),
        st.integers(-(2**63), 2**63 - 1),
        st.sampled_from([r.start for r in layout.vocabulary.ranges if r.size]),
    ]
    if layout.spec.vocabulary.sizes:
        near.append(st.integers(layout.size_start, layout.size_start + 5))
    if layout.spec.vocabulary.time_hi:
        near += [st.integers(s, s + 2) for s in (layout.time_hi_start, layout.time_lo_start)]
    return st.lists(st.one_of(*near), max_size=40)


def in_shape(case: Case, ids: np.ndarray) -> np.ndarray:
    """As a row of this layout: [n], or [n, K] of parallel streams."""
    K = case.layout.num_streams
    return ids if K == 1 else ids[: len(ids) // K * K].reshape(-1, K)


def check_strange(case: Case, ids: np.ndarray) -> None:
    """Any ids parse to items, each a good one, and to problems with a place in the row."""
    ids = in_shape(case, ids)
    found, problems = case.layout.parse(ids)
    assert all(0 <= p.position <= len(ids) and p.what for p in problems)
    row = case.layout.render(found, media=medium_of)
    assert fields(case.layout.parse(row.tokens)[0]) == fields(case.layout.apply(found))


@cases
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_ids_parse_to_items_that_render(case, data):
    check_strange(case, np.array(data.draw(wild_ids(case)), np.int64))


@cases
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_truncated_shuffled_and_changed_rows_are_reported_or_parse_to_other_items(case, data):
    sample = data.draw(sample_of(case))
    layout = case.layout
    tokens = layout.render(sample, media=medium_of).tokens
    if not len(tokens):
        return
    cut = data.draw(st.integers(0, len(tokens) - 1))
    if layout.spec.document.end:
        assert layout.parse(tokens[:cut])[1], "a row without its end is malformed"
    changed = tokens.copy()
    place = tuple(data.draw(st.integers(0, n - 1)) for n in tokens.shape)
    changed[place] = data.draw(st.integers(0, layout.vocabulary.size - 1))
    found, problems = layout.parse(changed)
    same = fields(found) == fields(layout.apply(sample))
    piece = changed[place] == layout.controls[layout.spec.document.continued]  # at either end it says: a piece
    assert problems or not same or changed[place] == tokens[place] or piece
    order = np.array(data.draw(st.permutations(range(len(tokens))))) if len(tokens) < 60 else np.arange(len(tokens))
    for strange in (tokens[:cut], changed, tokens[order]):
        check_strange(case, strange.reshape(-1))


@cases
def test_no_form_of_input_makes_parse_raise(case):
    for ids in ([], np.zeros((2, 0), int), np.array([2**64 - 1], np.uint64), [np.nan], ["a"], None, [[[-1]]]):
        found, problems = case.layout.parse(ids)
        assert found == [] and (problems or not case.layout.spec.document.end)


@cases
def test_a_bound_layout_survives_pickling(case):
    again = pickle.loads(pickle.dumps(case.layout))
    assert again.digest == case.layout.digest and repr(again) == repr(case.layout)
    items = case.layout.parse(case.layout.render([text_item("hi")]).tokens)[0]
    np.testing.assert_array_equal(again.render(items).tokens, case.layout.render([text_item("hi")]).tokens)
