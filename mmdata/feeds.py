"""Feeds: a schedule's sources opened, planned and ordered, and the schedule in numbers.

Turns what the user names (a folder, a Mixture, a Schedule) into `Feeds`, from which the row at any step follows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from math import floor, inf
from typing import Any, NamedTuple

import numpy as np

from mmdata.dataset import Dataset, Source, open_dataset, open_source
from mmdata.errors import UserError
from mmdata.folder import CACHE_SHARDS
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
    caps: dict[str, Fraction | None]  # Stage.caps


@dataclass(frozen=True, eq=False)
class Feed:
    """One source on its way to rows."""

    name: str
    source: Source
    plan: Plan
    order: Order


class Refusal(NamedTuple):
    """Where an epoch cap ends a run."""

    step: int
    feed: int
    most: int  # rows of the feed that the cap allows


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
        return self._most[stage].get(feed)

    def capped_at(self, step: int) -> int | None:
        """The first step from `step` on which an epoch cap refuses; None if none does."""
        for refused in self._refused[self.timeline.stage_at(step) :]:
            if refused:
                return max(step, refused.step)
        return None

    def check(self, last_step: int) -> None:
        """UserError if an epoch cap would be passed before `last_step`."""
        for number, refused in enumerate(self._refused):
            if refused and refused.step < last_step:
                following = self.timeline.stages[number + 1 :][:1]
                end = min(last_step, following[0].from_step) if following else last_step
                feed = self.feeds[refused.feed]
                raise UserError(
                    f"source {feed.name!r} would give {self.timeline.counts_in(number, end)[refused.feed]} rows by step"
                    f" {end}, its max_epochs allow {refused.most} ({feed.order.num_rows} an epoch), which step"
                    f" {refused.step} passes: lower its weight, raise the cap, or stop earlier"
                )

    @cached_property
    def _most(self) -> list[dict[int, int]]:
        """The caps of each stage: feed -> rows. Those of earlier stages hold on."""
        numbers = {feed.source.fingerprint: number for number, feed in enumerate(self.feeds)}
        caps: dict[int, Fraction | None] = {}
        out = []
        for stage in self.stages:
            caps |= {numbers[stage.sources[name].fingerprint]: cap for name, cap in stage.caps.items()}
            held = [(feed, cap * self.feeds[feed].order.num_rows) for feed, cap in caps.items() if cap is not None]
            out.append({feed: floor(rows) for feed, rows in held})
        return out

    @cached_property
    def _refused(self) -> list[Refusal | None]:
        """The first step of each stage that would pass an epoch cap."""
        out: list[Refusal | None] = []
        ends = [*(stage.from_step for stage in self.timeline.stages[1:]), None]
        for stage, bases, caps, end in zip(self.timeline.stages, self.timeline.bases, self._most, ends):
            found = []
            for k, feed in enumerate(stage.sources):
                if feed not in caps or not stage.shares.weights[k]:
                    continue
                row = stage.shares.place(k, max(caps[feed] - bases[feed], 0))
                step = stage.from_step + row // stage.batch_size
                if end is None or step < end:
                    found.append(Refusal(step, feed, caps[feed]))
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
        if refused and end > refused.step:
            raise UserError(
                f"source {self.feeds[refused.feed].name!r} has given all rows that its max_epochs allow"
                f" ({refused.most}) at step {max(refused.step, first)}: end the run, or append a stage without it"
            )

    def _plan_rows(self, feed: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(epoch, plan row) int64 [m] of rows in the order of their steps, of feed int32 [m] (-1: -1) and int64 [m]."""
        by_feed = np.argsort(feed, kind="stable")
        bounds, numbers = np.searchsorted(feed[by_feed], np.arange(len(self.feeds) + 1)), numbers[by_feed]
        epochs, rows = np.full(len(feed), -1, np.int64), np.full(len(feed), -1, np.int64)
        for number, (begin, end) in enumerate(pairwise(bounds.tolist())):
            if begin < end:
                epochs[begin:end], rows[begin:end] = self.feeds[number].order.past(numbers[begin:end])
        back = np.empty_like(by_feed)
        back[by_feed] = np.arange(len(by_feed))
        return epochs[back], rows[back]


def open_stages(data: Any, batch_size: int | None, cache_shards: int = CACHE_SHARDS) -> list[Opened]:
    """The stages of what a Loader was given, sources open; those behind a URL with a cache of `cache_shards`."""
    opened: dict[Any, Source] = {}
    if isinstance(data, Schedule):
        if batch_size is not None:
            raise UserError("a Schedule names the batch_size of each stage: give the Loader none")
        return [_open(stage, opened, cache_shards) for stage in data.stages]
    if batch_size is None:
        raise UserError("give the Loader a batch_size (rows of all data shards together)")
    if isinstance(data, str | os.PathLike):
        data = open_dataset(data, cache_shards=cache_shards)
    if isinstance(data, Source):
        data = Mixture({data.name: data})
    elif isinstance(data, Dataset):
        data = Mixture(dict(data.sources))
    if not isinstance(data, Mixture):
        raise UserError(f"a Loader reads a folder, a Dataset, a Mixture or a Schedule, not {type(data).__name__}")
    return [_open(Stage(from_step=0, mixture=data, batch_size=batch_size), opened, cache_shards)]


def reopened(stages: Sequence[Opened]) -> Schedule:
    """The same stages as a Schedule, for another process: sources are pickled as where they lie."""
    return Schedule(
        [
            Stage(
                from_step=stage.from_step,
                mixture=Mixture(stage.sources, stage.weights),
                batch_size=stage.batch_size,
                max_epochs={name: inf if cap is None else cap for name, cap in stage.caps.items()},  # type: ignore[misc]
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
        has = "a sample that fits a row" if any(len(feed.source.splits[split]) for feed in feeds) else "a sample"
        raise UserError(
            f"no source of {names} has {has} in its {split} split: build from more documents, raise seq_len or limits,"
            " or name another split"
        )
    if split != "train":
        wanted = [stage.weights is None or stage.weights[name] > 0 for name in names]
        return [r if want else 0 for r, want in zip(rows, wanted)]
    for name, feed in zip(names, feeds):
        if not feed.plan.num_rows:
            _refuse_empty(name, feed, None if stage.weights is None else stage.weights[name])
    if stage.weights is None:
        weights = [Fraction(feed.plan.num_tokens) for feed in feeds]
    else:
        weights = [stage.weights[name] for name in names]
    return row_weights(weights, [feed.plan.num_tokens for feed in feeds], rows, names)


def _refuse_empty(name: str, feed: Feed, weight: Fraction | None) -> None:
    """UserError where a source without a row has a share. By its tokens (weight None) one without samples has none, but
    one whose samples all fit no row would be lost unseen."""
    num, has = len(feed.source.splits["train"]), "no row" if weight is None else f"weight {weight} and no row"
    if num and weight != 0:
        raise UserError(
            f"source {name!r} has {has}: none of its {num} train samples fits one of"
            f" {feed.plan.settings.seq_len} tokens within its limits; raise seq_len or limits, or give it weight 0"
        )
    if weight:
        raise UserError(f"source {name!r} has {has}: its train split is empty; give it weight 0")


def _open(stage: Stage, opened: dict[Any, Source], cache_shards: int) -> Opened:
    sources: dict[str, Source] = {}
    for name, value in stage.mixture.sources.items():
        if isinstance(value, Source):
            sources[name] = value
            continue
        if value not in opened:
            opened[value] = open_source(value, cache_shards=cache_shards)
        sources[name] = opened[value]
    by_print: dict[str, str] = {}
    for name, source in sources.items():
        if (other := by_print.setdefault(source.fingerprint, name)) != name:
            raise UserError(f"{other!r} and {name!r} are the same source ({source.fingerprint[:12]}): name it once")
    given: Mapping[str, Any] | None = stage.mixture.weights
    weights = None if given is None else {name: exact(given[name], name) for name in sources}
    return Opened(int(stage.from_step), int(stage.batch_size), sources, weights, stage.caps)
