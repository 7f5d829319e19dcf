"""Feeds: a schedule's sources opened, planned and ordered, and the schedule in numbers.

Turns what the user names (a folder, a Mixture, a Schedule) into `Feeds`, from which the row at any step follows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

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
    max_epochs: dict[str, Fraction]


@dataclass(frozen=True, eq=False)
class Feed:
    """One source on its way to rows."""

    name: str
    source: Source
    plan: Plan
    order: Order


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

    def plan_rows(self, feed: int, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(epoch, plan row) int64 of row numbers of one feed."""
        order = self.feeds[feed].order
        epochs, positions = np.divmod(numbers, order.num_rows)
        rows = np.empty_like(numbers)
        for epoch in np.unique(epochs):
            rows[epochs == epoch] = order.rows(int(epoch), positions[epochs == epoch])
        return epochs, rows

    def cap(self, stage: int, feed: int) -> int | None:
        """The most rows of a feed that may have come by the end of a stage; None without a cap."""
        opened = self.stages[stage]
        for name, source in opened.sources.items():
            if source.fingerprint == self.feeds[feed].source.fingerprint and name in opened.max_epochs:
                return int(opened.max_epochs[name] * self.feeds[feed].order.num_rows)
        return None

    def check(self, last_step: int) -> None:
        """UserError if an epoch cap would be passed before `last_step`."""
        for number, stage in enumerate(self.timeline.stages):
            if stage.from_step >= last_step:
                break
            following = self.timeline.stages[number + 1 :][:1]
            end = min(last_step, following[0].from_step) if following else last_step
            for feed, count in enumerate(self.timeline.counts_in(number, end)):
                cap = self.cap(number, feed)
                if cap is not None and count > cap and feed in stage.sources:
                    raise UserError(
                        f"source {self.feeds[feed].name!r} would give {count} rows by step {end}, its max_epochs allow"
                        f" {cap} ({self.feeds[feed].order.num_rows} an epoch): lower its weight, raise the cap, or"
                        " stop earlier"
                    )


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
    caps = {name: exact(cap, name) for name, cap in (stage.max_epochs or {}).items()}
    return Opened(stage.from_step, stage.batch_size, sources, weights, caps)
