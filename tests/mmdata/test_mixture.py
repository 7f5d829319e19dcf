"""Mixture and schedule: integers only, forwards and back, against brute force and the vectors of the format."""

import re
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.errors import UserError
from mmdata.mixture import Mixture, Shares, exact, row_weights
from mmdata.schedule import Schedule, Stage, StagePlan, Timeline

WEIGHTS = st.lists(st.integers(0, 1 << 32), min_size=1, max_size=6).filter(any)


@given(WEIGHTS)
@settings(max_examples=80, deadline=None)
def test_picks_count_up_without_gaps_and_invert(weights: list[int]) -> None:
    split = Shares(tuple(weights))
    seen: Counter[int] = Counter()
    for t in range(200):
        assert split.counts(t) == [seen[k] for k in range(len(weights))]
        source, i = split.pick(t)
        assert i == seen[source] and split.place(source, i) == t
        seen[source] += 1
    assert all(not seen[k] for k, weight in enumerate(weights) if not weight)


@given(WEIGHTS, st.integers(0, 1 << 50))
@settings(max_examples=80, deadline=None)
def test_counts_are_the_weights_to_one_row_a_level(weights: list[int], t: int) -> None:
    counts = Shares(tuple(weights)).counts(t)
    assert sum(counts) == t and min(counts) >= 0
    for count, weight in zip(counts, weights):
        assert abs(count - Fraction(t * weight, sum(weights))) <= len(weights)


@given(WEIGHTS, st.integers(0, 1 << 60))
@settings(max_examples=80, deadline=None)
def test_rows_far_away_invert_too(weights: list[int], t: int) -> None:
    split = Shares(tuple(weights))
    assert split.place(*split.pick(t)) == t


def test_row_weights_are_token_weights_over_tokens_a_row() -> None:
    weights = row_weights([exact(0.5), exact(0.5)], tokens=[1000, 500], rows=[10, 10])
    assert weights == [round(Fraction(1, 3) * 2**32), 2**32 - round(Fraction(1, 3) * 2**32)]
    assert sum(row_weights([exact(w) for w in (0.1, 0.2, 0.7)], [7, 11, 13], [3, 5, 8])) == 2**32
    assert row_weights([exact(0), exact(3)], [0, 5], [0, 5]) == [0, 2**32]


def test_weights_are_exact_decimals() -> None:
    assert exact(0.1) == Fraction(1, 10) and exact("1e-3") == Fraction(1, 1000) and exact(2) == 2
    for bad in ("x", -1, float("nan"), float("inf"), None):
        with pytest.raises(UserError, match="weight"):
            exact(bad, "web")
    with pytest.raises(UserError, match="below 1 row"):
        row_weights([exact("1e-12"), exact(1)], [1, 1], [1, 1])


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    num = draw(st.integers(1, 4))
    steps = sorted({0, *draw(st.lists(st.integers(1, 30), max_size=3))})
    stages = []
    for step in steps:
        sources = tuple(sorted(draw(st.sets(st.integers(0, num - 1), min_size=1))))
        weights = draw(st.lists(st.integers(0, 9), min_size=len(sources), max_size=len(sources)).filter(any))
        stages.append(StagePlan(step, draw(st.integers(1, 8)), sources, Shares(tuple(weights))))
    return Timeline(tuple(stages), num)


@given(timelines())
@settings(max_examples=80, deadline=None)
def test_sources_go_on_where_they_were_over_all_stages(timeline: Timeline) -> None:
    seen: Counter[int] = Counter()
    for step in range(45):
        assert timeline.counts(step) == tuple(seen[k] for k in range(timeline.num_sources))
        stage = timeline.stages[timeline.stage_at(step)]
        for row in range(stage.batch_size):
            source, number = timeline.pick(step, row)
            assert source in stage.sources and number == seen[source]
            assert timeline.place(source, number) == (step, row)
            seen[source] += 1


@given(timelines(), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_a_stage_appended_changes_nothing_before_it(timeline: Timeline, step: int) -> None:
    kept = tuple(stage for stage in timeline.stages if stage.from_step < step)
    other = Timeline((*kept, StagePlan(step, 5, (0,), Shares((1,)))), timeline.num_sources)
    for earlier in range(step):
        for row in range(timeline.stages[timeline.stage_at(earlier)].batch_size):
            assert other.pick(earlier, row) == timeline.pick(earlier, row)


def test_wrong_mixtures_and_schedules_are_refused_with_the_fix() -> None:
    with pytest.raises(UserError, match="at least one source"):
        Mixture({})
    with pytest.raises(UserError, match="no weight for 'b'"):
        Mixture({"a": "a", "b": "b"}, weights={"a": 1})
    with pytest.raises(UserError, match="name 'c'"):
        Mixture({"a": "a"}, weights={"a": 1, "c": 1})
    with pytest.raises(UserError, match="all weights"):
        Mixture({"a": "a"}, weights={"a": 0})
    mixture = Mixture({"a": "a"})
    with pytest.raises(UserError, match="batch_size 0"):
        Stage(0, mixture, 0)
    with pytest.raises(UserError, match="max_epochs names 'b'"):
        Stage(0, mixture, 1, max_epochs={"b": 1})
    for steps in ((), (1,), (0, 5, 5), (0, 7, 3)):
        with pytest.raises(UserError, match="begin at step 0"):
            Schedule([Stage(step, mixture, 1) for step in steps])


def test_the_vectors_of_the_format_hold(root: Path) -> None:
    text = "\n".join(path.read_text("utf-8") for path in [root / "docs/format.md"])
    found = re.search(r"row_weights = \[([\d, ]+)\]", text)
    assert found
    weights = row_weights([exact(0.7), exact(0.2), exact(0.1)], [1000, 500, 900], [10, 10, 10])
    assert weights == [int(v) for v in found[1].split(",")]
    picks = re.findall(r"pick\(weights=([\d, ]+)\): ((?:\(\d+, \d+\)[, ]*)+)", text)
    assert len(picks) == 2
    for given_, pairs in picks:
        split = Shares(tuple(int(v) for v in given_.split(",")))
        expected = [(int(a), int(b)) for a, b in re.findall(r"\((\d+), (\d+)\)", pairs)]
        assert [split.pick(t) for t in range(len(expected))] == expected
