"""Feeds: a schedule's sources opened, planned and ordered, and the schedule in numbers.

Turns what the user names (a folder, a Mixture, a Schedule) into `Feeds`, from which the row at any step follows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.dataset import Dataset, Source, open_dataset, open_source
from mmdata.errors import UserError
from mmdata.mixture import Mixture, Shares, exact, row_weights
from mmdata.order import Order
from mmdata.plan import Plan
from mmdata.schedule import Schedule, Stage, StagePlan, Timeline
from tokenizer.codec import CodecSpec, spec_of
from tokenizer.codecs import load_codec


@dataclass(frozen=True, eq=False)
class Opened:
    """A stage whose sources are open. `weights` None: by tokens."""

    from_step: int
    batch_size: int
    sources: dict[str, Source]
    weights: dict[str, Fraction] | None
    max_epochs: dict[str, Fraction]


@dataclass(frozen=True, eq=False)
class Feed:
    """One source on its way to rows."""

    name: str
    source: Source
    plan: Plan
    order: Order


@dataclass(frozen=True, eq=False)
class Located:
    """Where rows of batches come from, step by step. Past the one epoch of a validation split all are -1."""

    feed: np.ndarray  # int32 [m]
    epoch: np.ndarray  # int64 [m]
    row: np.ndarray  # int64 [m], of the feed's plan
    offsets: np.ndarray  # int64 [steps+1], first of each step's rows

    def step(self, i: int) -> Located:
        """The rows of the i-th step alone."""
        a, b = self.offsets[i : i + 2].tolist()
        return Located(self.feed[a:b], self.epoch[a:b], self.row[a:b], np.array([0, b - a]))


@dataclass(frozen=True, eq=False)
class Places:
    """Where plan rows of one feed come, by step and row."""

    step: np.ndarray  # int64 [m]
    row: np.ndarray  # int64 [m], of the step's global batch
    epoch: np.ndarray  # int64 [m]
    plan_row: np.ndarray  # int64 [m]


@dataclass(frozen=True, eq=False)
class Feeds:
    """All sources of a schedule, in the order of their fingerprints, and the arithmetic that picks from them."""

    feeds: tuple[Feed, ...]
    timeline: Timeline
    stages: tuple[Opened, ...]
    num_rows: int | None  # of the one epoch of a validation split; None = endless

    def numbers(self, step: int, rows: range) -> list[tuple[int, int] | None]:
        """(feed, row number in its whole past) of rows of a step's global batch; None past the end of one epoch."""
        stage = self.timeline.stages[self.timeline.stage_at(step)]
        first = (step - stage.from_step) * stage.batch_size
        past = [self.num_rows is not None and first + row >= self.num_rows for row in rows]
        return [None if gone else self.timeline.pick(step, row) for gone, row in zip(past, rows)]

    def locate(self, step: int, num_steps: int = 1, shard: tuple[int, int] = (0, 1)) -> Located:
        """The rows of data shard (i, n) of a run of steps, i*B/n to (i+1)*B/n of each global batch, across stages.

        UserError where an epoch cap would be passed by then; `capped_at` says beforehand how far a run may go.
        """
        index, of = shard
        parts = []
        for number, first, count in self.timeline.runs(step, num_steps):
            size = self.timeline.stages[number].batch_size
            parts.append((number, first, count, range(index * size // of, (index + 1) * size // of)))
        return self._locate(parts)

    def locate_rows(self, step: int, rows: range) -> Located:
        """Rows of one step's global batch."""
        return self._locate([(self.timeline.stage_at(step), step, 1, rows)])

    def places(self, feed: int, plan_rows: np.ndarray, last_step: int) -> Places:  # int64 [m]
        """Every place before `last_step` at which one of these plan rows of a feed comes, in order."""
        order, count = self.feeds[feed].order, self.counts(last_step)[feed]
        plan_rows = np.array(plan_rows, np.int64)
        epochs = -(-count // order.num_rows) if len(plan_rows) else 0
        found = [epoch * order.num_rows + order.positions(epoch, plan_rows) for epoch in range(epochs)]
        numbers = np.concatenate([np.zeros(0, np.int64), *found])
        kept = np.flatnonzero(numbers < count)
        kept = kept[np.argsort(numbers[kept])]
        step, row = self.timeline.places(feed, numbers[kept])
        return Places(step, row, kept // max(len(plan_rows), 1), plan_rows[kept % max(len(plan_rows), 1)])

    def counts(self, step: int) -> tuple[int, ...]:
        """How many rows of each feed all batches before `step` hold."""
        if self.num_rows is None:
            return self.timeline.counts(step)
        stage = self.timeline.stages[0]
        found = stage.shares.counts(min(step * stage.batch_size, self.num_rows))
        return tuple(dict(zip(stage.sources, found)).get(feed, 0) for feed in range(len(self.feeds)))

    def cap(self, stage: int, feed: int) -> int | None:
        """The most rows of a feed that may have come by the end of a stage; None without a cap."""
        opened = self.stages[stage]
        for name, source in opened.sources.items():
            if source.fingerprint == self.feeds[feed].source.fingerprint and name in opened.max_epochs:
                return int(opened.max_epochs[name] * self.feeds[feed].order.num_rows)
        return None

    def capped_at(self, step: int) -> int | None:
        """The first step from `step` on which an epoch cap refuses; None if none does."""
        for number, refused in enumerate(self._refused):
            if refused and number >= self.timeline.stage_at(step):
                return max(step, refused[0])
        return None

    def check(self, last_step: int) -> None:
        """UserError if an epoch cap would be passed before `last_step`."""
        for number, refused in enumerate(self._refused):
            if refused and refused[0] < last_step:
                step, feed, cap = refused
                following = self.timeline.stages[number + 1 :][:1]
                end = min(last_step, following[0].from_step) if following else last_step
                count = self.timeline.counts_in(number, end)[feed]
                raise UserError(
                    f"source {self.feeds[feed].name!r} would give {count} rows by step {end}, its max_epochs allow"
                    f" {cap} ({self.feeds[feed].order.num_rows} an epoch), which step {step} passes: lower its weight,"
                    " raise the cap, or stop earlier"
                )

    @cached_property
    def _refused(self) -> list[tuple[int, int, int] | None]:
        """By stage: (first step that would pass a cap, feed, cap)."""
        out: list[tuple[int, int, int] | None] = []
        for number, (stage, bases) in enumerate(zip(self.timeline.stages, self.timeline.bases)):
            following = self.timeline.stages[number + 1 :][:1]
            found = []
            for k, feed in enumerate(stage.sources):
                cap = self.cap(number, feed)
                if cap is None or not stage.shares.weights[k]:
                    continue
                t = stage.shares.place(k, max(cap - bases[feed], 0))
                step = stage.from_step + t // stage.batch_size
                if not following or step < following[0].from_step:
                    found.append((step, feed, cap))
            out.append(min(found, default=None))
        return out

    def _locate(self, parts: Sequence[tuple[int, int, int, range]]) -> Located:
        """Of (stage, first step, number of steps, rows of each of their batches) in turn."""
        feeds: list[np.ndarray] = [np.zeros(0, np.int32)]
        past: list[np.ndarray] = [np.zeros(0, np.int64)]
        sizes = [np.zeros(1, np.int64)]
        for number, first, count, rows in parts:
            self._refuse(number, first, first + count)
            feed, numbers = self.timeline.picks(number, first, count, rows)
            if self.num_rows is not None:
                size = self.timeline.stages[0].batch_size
                t = (first + np.arange(count))[:, None] * size + np.arange(rows.start, rows.stop)
                feed[t.reshape(-1) >= self.num_rows] = -1
            feeds.append(feed)
            past.append(numbers)
            sizes.append(np.full(count, len(rows), np.int64))
        feed, numbers = np.concatenate(feeds), np.concatenate(past)
        epoch, row = self._plan_rows(feed, numbers)
        return Located(feed, epoch, row, np.cumsum(np.concatenate(sizes)))

    def _refuse(self, number: int, first: int, end: int) -> None:
        """UserError if an epoch cap of a stage is passed before step `end`, the steps asked for begin at `first`."""
        refused = self._refused[number]
        if refused and end > refused[0]:
            step, feed, cap = refused
            raise UserError(
                f"source {self.feeds[feed].name!r} has given all rows that its max_epochs allow ({cap}) at step"
                f" {max(step, first)}: end the run, or append a stage without it"
            )

    def _plan_rows(self, feed: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(epoch, plan row) int64 [m] of rows in the order of their steps, of feed int32 [m] (-1: -1) and int64 [m]."""
        by_feed = np.argsort(feed, kind="stable")
        bounds = np.searchsorted(feed[by_feed], np.arange(len(self.feeds) + 1)).tolist()
        epochs, rows = np.full(len(feed), -1, np.int64), np.full(len(feed), -1, np.int64)
        for number, (begin, end) in enumerate(pairwise(bounds)):
            if begin < end:
                mine = by_feed[begin:end]
                epochs[mine], rows[mine] = self.feeds[number].order.past(numbers[mine])
        return epochs, rows


def open_stages(data: Any, batch_size: int | None) -> list[Opened]:
    """The stages of what a Loader was given, sources open."""
    opened: dict[Any, Source] = {}
    if isinstance(data, Schedule):
        if batch_size is not None:
            raise UserError("a Schedule names the batch_size of each stage: give the Loader none")
        return [_open(stage, opened) for stage in data.stages]
    if batch_size is None:
        raise UserError("give the Loader a batch_size (rows of all data shards together)")
    if isinstance(data, str | Path):
        data = open_dataset(data)
    if isinstance(data, Source):
        data = Mixture({data.name: data})
    elif isinstance(data, Dataset):
        data = Mixture(dict(data.sources))
    if not isinstance(data, Mixture):
        raise UserError(f"a Loader reads a folder, a Dataset, a Mixture or a Schedule, not {type(data).__name__}")
    return [_open(Stage(from_step=0, mixture=data, batch_size=batch_size), opened)]


def as_folders(stages: Sequence[Opened]) -> Schedule:
    """The same stages with their sources by folder, for another process: `open_stages` opens them."""
    return Schedule(
        [
            Stage(
                from_step=stage.from_step,
                mixture=Mixture({name: source.folder for name, source in stage.sources.items()}, stage.weights),
                batch_size=stage.batch_size,
                max_epochs=dict[str, Any](stage.max_epochs),
            )
            for stage in stages
        ]
    )


def codecs_of(stages: list[Opened], named: Sequence[str] = ()) -> tuple[CodecSpec, ...]:
    """The codecs of all sources, and of those `named` the shipped ones that no source has yet; UserError where one name
    stands for two different ones, or for none."""
    found: dict[str, tuple[CodecSpec, str]] = {}
    for stage in stages:
        for name, source in stage.sources.items():
            for codec in source.codecs:
                other, where = found.setdefault(codec.name, (codec, name))
                if other.fingerprint != codec.fingerprint:
                    raise UserError(
                        f"codec {codec.name} of source {name!r} is not that of {where!r} (fingerprints"
                        f" {codec.fingerprint[:12]} and {other.fingerprint[:12]}): build both with one version"
                    )
    for name in named:
        if name not in found:
            try:
                found[name] = (spec_of(load_codec(name)), "")
            except ValueError as error:
                raise UserError(f"codecs names {name!r}, which no source has: {error}") from None
    return tuple(codec for codec, _ in sorted(found.values(), key=lambda f: f[0].name))


def load_from(stages: list[Opened]) -> Callable[[str], Any]:
    """A codec by its name: that of the source that has it, else a shipped one."""

    def load(name: str) -> Any:
        for stage in stages:
            for source in stage.sources.values():
                if any(codec.name == name for codec in source.codecs):
                    return source.load_codec(name)
        return load_codec(name)

    return load


def make_feeds(stages: list[Opened], split: str, seed: int, plan_of: Callable[[Source], Plan]) -> Feeds:
    """Plan every source that gives rows, and put the schedule in numbers. A validation split is read once, each
    source in proportion to its rows, whatever the weights."""
    once = split != "train"
    by_print: dict[str, Feed] = {}
    by_name: dict[str, str] = {}
    for stage in stages:
        for name, source in stage.sources.items():
            if by_name.setdefault(name, source.fingerprint) != source.fingerprint:
                raise UserError(
                    f"{name!r} is another source from step {stage.from_step} on (fingerprints {by_name[name][:12]} and"
                    f" {source.fingerprint[:12]}): new data is a new source, give it a name of its own"
                )
            if source.fingerprint not in by_print:
                plan = plan_of(source)
                order = Order(plan.windows, plan.settings.group_windows, seed, source.fingerprint)
                by_print[source.fingerprint] = Feed(name, source, plan, order)
    feeds = tuple(by_print[fingerprint] for fingerprint in sorted(by_print))
    numbers = {feed.source.fingerprint: i for i, feed in enumerate(feeds)}
    plans = []
    for stage in stages:
        names = {numbers[source.fingerprint]: name for name, source in stage.sources.items()}
        used = tuple(sorted(names))
        weights = _row_weights([feeds[i] for i in used], [names[i] for i in used], stage, split)
        plans.append(StagePlan(stage.from_step, stage.batch_size, used, Shares(tuple(weights))))
    timeline = Timeline(tuple(plans), len(feeds))
    return Feeds(feeds, timeline, tuple(stages), sum(plans[0].shares.weights) if once else None)


def _row_weights(feeds: list[Feed], names: list[str], stage: Opened, split: str) -> list[int]:
    rows = [feed.plan.num_rows for feed in feeds]
    if not sum(rows):
        raise UserError(f"no source of {names} has a row in its {split} split: nothing to read")
    if split != "train":
        wanted = [stage.weights is None or stage.weights[name] > 0 for name in names]
        return [r if want else 0 for r, want in zip(rows, wanted)]
    if stage.weights is None:
        weights = [Fraction(feed.plan.num_tokens) for feed in feeds]
    else:
        weights = [stage.weights[name] for name in names]
        for name, weight, count in zip(names, weights, rows):
            if weight and not count:
                raise UserError(f"source {name!r} has weight {weight} and no row in split {split}: give it weight 0")
    return row_weights(weights, [feed.plan.num_tokens for feed in feeds], rows)


def _open(stage: Stage, opened: dict[Any, Source]) -> Opened:
    sources: dict[str, Source] = {}
    for name, value in stage.mixture.sources.items():
        if isinstance(value, Source):
            sources[name] = value
            continue
        if value not in opened:
            opened[value] = open_source(value)
        sources[name] = opened[value]
    by_print: dict[str, str] = {}
    for name, source in sources.items():
        if (other := by_print.setdefault(source.fingerprint, name)) != name:
            raise UserError(f"{other!r} and {name!r} are the same source ({source.fingerprint[:12]}): name it once")
    given: Mapping[str, Any] | None = stage.mixture.weights
    weights = None if given is None else {name: exact(given[name], name) for name in sources}
    caps = {name: exact(cap, name) for name, cap in (stage.max_epochs or {}).items()}
    return Opened(stage.from_step, stage.batch_size, sources, weights, caps)
