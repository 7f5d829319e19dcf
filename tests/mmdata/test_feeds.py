"""Feeds: from steps to plan rows and back, over random schedules, against slow twins; epoch caps; the vectors."""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata import arithmetic
from mmdata.errors import UserError
from mmdata.feeds import Feeds, Opened, make_feeds
from mmdata.mixture import Shares, exact
from mmdata.schedule import StagePlan, Timeline
from tests.mmdata.slow_rows import slow_order, slow_stream

SEED = 5
STEPS = 40  # that random cases are followed for
WEIGHTS = (0, "0.000001", "0.01", "0.3", 1, 7)


def toy_source(name: str, sizes: list[int]) -> Any:
    """A source whose plan has windows of these many rows; row i of it is i."""
    plan = SimpleNamespace(
        windows=np.cumsum([0, *sizes]),
        num_rows=sum(sizes),
        num_tokens=100 * sum(sizes),
        settings=SimpleNamespace(group_windows=2, seq_len=128),
    )
    splits = {"train": range(sum(sizes)), "validation": range(sum(sizes))}
    return SimpleNamespace(name=name, fingerprint=hashlib.sha256(name.encode()).hexdigest(), plan=plan, splits=splits)


def feeds_of(stages: list[Opened], split: str = "train") -> Feeds:
    return make_feeds(stages, split, SEED, lambda source: source.plan)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Case:
    """A schedule, and the data shards that its batches divide by."""

    feeds: Feeds
    shards: int

    def stream(self, last_step: int = STEPS) -> list[list[tuple[int, int, int]]]:
        """By step: (feed, epoch, plan row) of each row of the global batch, by the slow twins."""
        stages = [
            (stage.from_step, stage.batch_size, dict(zip(stage.sources, stage.shares.weights)))
            for stage in self.feeds.timeline.stages
        ]
        orders: dict[tuple[int, int], list[int]] = {}

        def row(feed: int, number: int) -> tuple[int, int, int]:
            order = self.feeds.feeds[feed].order
            epoch, position = divmod(number, order.num_rows)
            if (feed, epoch) not in orders:
                windows, print_ = order.windows.tolist(), self.feeds.feeds[feed].source.fingerprint
                orders[feed, epoch] = slow_order(windows, order.group_windows, SEED, print_, epoch)
            return feed, epoch, orders[feed, epoch][position]

        return [[row(*pair) for pair in batch] for batch in slow_stream(stages, last_step)]


@st.composite
def cases(draw: st.DrawFn, caps: bool = False) -> Case:
    sizes = st.lists(st.integers(0, 9), min_size=1, max_size=7).filter(any)
    sources = {f"s{i}": toy_source(f"s{i}", draw(sizes)) for i in range(draw(st.integers(1, 6)))}
    shards = draw(st.integers(1, 3))
    stages = []
    for step in sorted({0, *draw(st.lists(st.integers(1, STEPS - 1), max_size=3))}):
        used = {name: sources[name] for name in sorted(draw(st.sets(st.sampled_from(sorted(sources)), min_size=1)))}
        some = st.lists(st.sampled_from(WEIGHTS), min_size=len(used), max_size=len(used)).filter(lambda w: any(w))
        chosen = draw(st.none() | some)
        weights = None if chosen is None else {name: exact(w) for name, w in zip(used, chosen)}
        limits = st.dictionaries(st.sampled_from(sorted(used)), st.sampled_from([None, 0, 0.5, 1, 2.25]), max_size=2)
        given_ = {k: None if c is None else Fraction(c) for k, c in (draw(limits) if caps else {}).items()}
        stages.append(Opened(step, shards * draw(st.integers(1, 4)), used, weights, given_))
    return Case(feeds_of(stages), shards)


def rows_of(found: Any) -> list[tuple[int, int, int]]:
    return list(zip(found.feed.tolist(), found.epoch.tolist(), found.row.tolist()))


@given(cases(), st.integers(0, STEPS - 1), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_any_run_of_steps_of_any_data_shard_is_the_slow_twins(case: Case, step: int, num_steps: int) -> None:
    stream = case.stream(step + num_steps)
    for index in range(case.shards):
        wanted, sizes = [], [0]
        for batch in stream[step:]:
            wanted += batch[index * len(batch) // case.shards : (index + 1) * len(batch) // case.shards]
            sizes.append(len(wanted))
        found = case.feeds.locate(step, num_steps, (index, case.shards))
        assert rows_of(found) == wanted and found.offsets.tolist() == sizes
        assert [a.dtype.name for a in (found.feed, found.epoch, found.row, found.offsets)] == ["int32"] + ["int64"] * 3
    batch = stream[-1]
    rows = range(len(batch) // 3, len(batch))
    assert rows_of(case.feeds.locate_rows(len(stream) - 1, rows)) == batch[rows.start :]


@given(cases())
@settings(max_examples=60, deadline=None)
def test_each_row_comes_once_an_epoch_whatever_the_stages(case: Case) -> None:
    found = case.feeds.locate(0, STEPS)
    seen = Counter(rows_of(found))
    assert set(seen.values()) == {1}
    counts = case.feeds.counts(STEPS)
    for number, feed in enumerate(case.feeds.feeds):
        whole, rest = divmod(counts[number], feed.order.num_rows)
        for epoch in range(whole + bool(rest)):
            rows = {r for f, e, r in seen if (f, e) == (number, epoch)}
            assert len(rows) == (feed.order.num_rows if epoch < whole else rest)


@given(cases(), st.integers(0, STEPS))
@settings(max_examples=60, deadline=None)
def test_every_place_of_every_row_is_found_again(case: Case, last_step: int) -> None:
    wanted: dict[int, list[tuple[int, int, int, int]]] = {}
    for step, batch in enumerate(case.stream(last_step)):
        for row, (feed, epoch, plan_row) in enumerate(batch):
            wanted.setdefault(feed, []).append((step, row, epoch, plan_row))
    for number, feed in enumerate(case.feeds.feeds):
        some = np.arange(feed.order.num_rows)[::2]
        for rows in (np.arange(feed.order.num_rows), some, some[:0]):
            found = case.feeds.places(number, rows, last_step)
            got = list(zip(*(a.tolist() for a in (found.step, found.row, found.epoch, found.plan_row))))
            assert got == [place for place in wanted.get(number, []) if place[3] in rows]


@given(cases(), st.integers(0, STEPS))
@settings(max_examples=60, deadline=None)
def test_counts_in_a_stage_are_its_weights_to_one_row_a_level(case: Case, step: int) -> None:
    timeline = case.feeds.timeline
    number = timeline.stage_at(step)
    stage = timeline.stages[number]
    rows = (step - stage.from_step) * stage.batch_size
    for k, source in enumerate(stage.sources):
        count = timeline.counts(step)[source] - timeline.bases[number][source]
        share = Fraction(rows * stage.shares.weights[k], stage.shares.sums[-1])
        assert abs(count - share) <= len(stage.sources) - max(k - 1, 0)  # levels that the source's rows pass


def first_past_a_cap(case: Case) -> int | None:
    """The first step whose batch holds a row that a cap forbids, row by row."""
    most: dict[str, int | float] = {}  # fingerprint -> rows
    past: Counter[str] = Counter()
    for step, batch in enumerate(case.stream()):
        for stage in case.feeds.stages:
            if stage.from_step == step:
                for name, cap in stage.caps.items():
                    source: Any = stage.sources[name]
                    most[source.fingerprint] = math.inf if cap is None else math.floor(cap * source.plan.num_rows)
        here = [case.feeds.feeds[feed].source.fingerprint for feed, _, _ in batch]
        past.update(here)
        if any(past[source] > most.get(source, math.inf) for source in here):
            return step
    return None


@given(cases(caps=True))
@settings(max_examples=120, deadline=None)
def test_a_cap_is_refused_when_planned_and_at_the_very_step(case: Case) -> None:
    feeds, first = case.feeds, first_past_a_cap(case)
    at = feeds.capped_at(0)
    if first is None:
        assert at is None or at >= STEPS
        feeds.check(STEPS)
        assert len(feeds.locate(0, STEPS).offsets) == STEPS + 1
        return
    assert at == first
    feeds.check(first)
    with pytest.raises(UserError, match=rf"its max_epochs allow \d+ .* which step {first} passes"):
        feeds.check(first + 1)
    if first:
        feeds.locate(0, first)
    for run in ((first, 1), (0, first + 1), (first // 2, STEPS)):
        with pytest.raises(UserError, match=rf"has given all rows that its max_epochs allow \(\d+\) at step {first}:"):
            feeds.locate(*run)


def test_a_cap_counts_earlier_stages_and_holds_until_another_is_given() -> None:
    a, b = toy_source("a", [6, 4]), toy_source("b", [10])

    def feeds(*caps: dict[str, Fraction | None]) -> Feeds:
        both = {"a": a, "b": b}
        return feeds_of(
            [Opened(4 * i, 2, both, {"a": Fraction(1), "b": Fraction(1)}, cap) for i, cap in enumerate(caps)]
        )

    assert feeds({"a": Fraction(1)}, {}, {}).capped_at(0) == 10
    assert feeds({}, {"a": Fraction("0.5")}, {}).capped_at(0) == 5  # 4 rows came before its stage
    assert feeds({}, {}, {"a": Fraction("0.5")}).capped_at(0) == 8  # more than it allows did
    assert feeds({"a": Fraction(1)}, {}, {"a": Fraction(2)}).capped_at(0) == 20
    assert feeds({"a": Fraction(1)}, {}, {"a": None}).capped_at(0) is None
    capped = feeds({"a": Fraction("0.2")}, {"a": None})
    assert capped.capped_at(0) == 2 and capped.capped_at(3) == 3 and capped.capped_at(4) is None


@st.composite
def far(draw: st.DrawFn) -> tuple[tuple[int, ...], int]:
    """Row weights of sum 2^32, small ones among them, and a row far away."""
    cuts = draw(st.lists(st.integers(0, 1 << 32) | st.integers(0, 9), max_size=6))
    ends = [0, *sorted(cuts), 1 << 32]
    return tuple(b - a for a, b in pairwise(ends)), draw(st.integers(0, (1 << 61)) | st.integers(0, 1 << 34))


@given(far())
@settings(max_examples=200, deadline=None)
def test_compiled_arithmetic_is_that_of_whole_numbers_far_away(drawn: tuple[tuple[int, ...], int]) -> None:
    weights, t = drawn
    shares, sums = Shares(weights), np.array(Shares(weights).sums, np.uint64)
    sources, bases = np.arange(len(weights)), np.zeros(len(weights), np.int64)
    for first in (t, (1 << 62) - 1 - t % 1000):
        feed, number = arithmetic.pick(sums, sources, bases, first, 1 << 20, 5, 1)
        assert list(zip(feed.tolist(), number.tolist())) == [shares.pick(first + i) for i in range(5)]
    for k, i in zip(*arithmetic.pick(sums, sources, bases, t, 3, 3, 4)):
        assert arithmetic.place(sums, k, np.array([i])).tolist() == [shares.place(int(k), int(i))]
    for k, weight in enumerate(weights):
        if weight:
            there, found = shares.place(k, t), int(arithmetic.place(sums, k, np.array([t]))[0])
            assert found == there if there < 1 << 61 else found in (there, -1)


@given(st.lists(st.integers(0, 1 << 40), min_size=2, max_size=4).filter(lambda w: sum(w) > 1 << 32), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_sums_beyond_64_bit_products_are_reckoned_in_whole_numbers(weights: list[int], step: int) -> None:
    timeline = Timeline((StagePlan(0, 8, tuple(range(len(weights))), Shares(tuple(weights))),), len(weights))
    feed, number = timeline.picks(0, step << 30, 2, range(3, 7))
    wanted = [timeline.pick((step << 30) + s, row) for s in range(2) for row in range(3, 7)]
    assert list(zip(feed.tolist(), number.tolist())) == wanted
    for (k, i), (s, row) in zip(wanted, ((s, row) for s in range(2) for row in range(3, 7))):
        assert [int(a[0]) for a in timeline.places(k, np.array([i]))] == [(step << 30) + s, row]


def test_a_step_beyond_what_64_bits_count_is_refused() -> None:
    feeds = feeds_of([Opened(0, 16, {"a": toy_source("a", [5])}, None, {})])
    last = (1 << 58) - 1
    assert len(feeds.locate(last - 3, 3).row) == 48
    for run in ((last, 2), (1 << 70, 1)):
        with pytest.raises(UserError, match="no step"):
            feeds.locate(*run)


@given(st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=4), min_size=1, max_size=4), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_a_validation_split_is_one_epoch_of_every_source(sizes: list[list[int]], batch_size: int) -> None:
    total = sum(map(sum, sizes))
    if not total:
        return
    sources = {f"s{i}": toy_source(f"s{i}", windows) for i, windows in enumerate(sizes)}
    feeds = feeds_of([Opened(0, batch_size, sources, None, {})], "validation")
    found = feeds.locate(0, -(-total // batch_size) + 2)
    rows = rows_of(found)
    assert rows[total:] == [(-1, -1, -1)] * (len(rows) - total)
    assert sorted(rows[:total]) == [
        (number, 0, row) for number, feed in enumerate(feeds.feeds) for row in range(feed.order.num_rows)
    ]
    for number, feed in enumerate(feeds.feeds):
        back = feeds.places(number, np.arange(feed.order.num_rows), 1000)
        there = [step * batch_size + row for step, row in zip(back.step.tolist(), back.row.tolist())]
        assert [rows[t] for t in there] == [(number, 0, row) for row in back.plan_row.tolist()]
        assert len(there) == feed.order.num_rows and not back.epoch.any()


def test_threads_that_share_feeds_get_what_one_would() -> None:
    sources = {f"s{i}": toy_source(f"s{i}", [3, 0, 2 + i]) for i in range(5)}  # epochs of a step: tables come and go
    steps = list(range(0, 400, 7))
    alone = [rows_of(feeds_of([Opened(0, 12, sources, None, {})]).locate(step, 4)) for step in steps]
    shared = feeds_of([Opened(0, 12, sources, None, {})])
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(lambda step: rows_of(shared.locate(step, 4)), steps)) == alone


def vectors(text: str) -> Iterator[tuple[int, int, str, int, int]]:
    """(step, row, source, epoch, plan row) of the schedule in docs/format.md."""
    for step, batch in re.findall(r"^step (\d+): (.*)$", text, re.M):
        for row, found in enumerate(re.findall(r"\((\w), (\d+), (\d+)\)", batch)):
            yield int(step), row, found[0], int(found[1]), int(found[2])


def test_the_schedule_of_the_format_holds(root: Path) -> None:
    wanted = list(vectors((root / "docs/format.md").read_text("utf-8")))
    assert len(wanted) == 3 * 4 + 3 * 6
    a, b, c = (toy_source(name, sizes) for name, sizes in (("a", [4, 0, 3]), ("b", [2, 2]), ("c", [5])))
    for source, print_ in ((a, "aa"), (b, "bb"), (c, "cc")):
        source.fingerprint = print_
    first = Opened(0, 4, {"a": a, "b": b}, {"a": exact("0.75"), "b": exact("0.25")}, {})
    then = Opened(3, 6, {"b": b, "c": c}, {"b": exact("0.5"), "c": exact("0.5")}, {})
    feeds = make_feeds([first, then], "train", 0, lambda source: source.plan)  # type: ignore[attr-defined]
    names = [feed.name for feed in feeds.feeds]
    found = feeds.locate(0, 6)
    got = []
    for step in range(6):
        here = slice(found.offsets[step], found.offsets[step + 1])
        for row, (f, e, r) in enumerate(zip(found.feed[here], found.epoch[here], found.row[here])):
            got.append((step, row, names[f], int(e), int(r)))
    assert got == wanted
