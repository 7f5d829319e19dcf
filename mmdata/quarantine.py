"""Quarantine: records that cannot be read are left out from a step on, and their columns are padding from there.

This file names what is bad and says which samples are left out at a step; reading has tried again before (opened.py).
Who may decide is the Loader where it reads alone, and else whoever sees to it that all processes decide the same at the
same step (docs/format.md, "Loader state"): a batch is one computation, of which no process may have another view.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmdata.errors import RunError, UserError
from mmdata.state import Quarantined

if TYPE_CHECKING:
    from mmdata.feeds import Feed

LIMIT = 100  # records
_NAMED = 8  # entries in the words of an error
log = logging.getLogger(__name__)


class BadRecords(RunError):
    """Records, or whole shards, that cannot be read at a step; `entries` leave them out."""

    def __init__(self, entries: Sequence[Quarantined]) -> None:
        self.entries = tuple(entries)
        self.step = self.entries[0].from_step
        first, more = self.entries[0], len(self.entries) - 1
        named = [entry.to_json() for entry in self.entries[:_NAMED]]
        super().__init__(
            f"{first.what} of source {first.source!r} cannot be read at step {self.step}"
            f" ({first.why or 'its bytes are not those that were written'}){f', nor can {more} more' if more else ''};"
            f" fetch {first.shard} again, or give the Loader of every process quarantine={named} to leave this out"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return BadRecords, (self.entries,)


class Omitted:
    """Which samples of each feed are left out, and from which step on."""

    def __init__(self, feeds: Sequence[Feed], split: str, quarantine: Sequence[Quarantined]) -> None:
        """UserError where an entry names what is not there."""
        found: list[list[tuple[range, int]]] = [[] for _ in feeds]
        for entry in quarantine:
            place = samples_of(feeds, split, entry)
            if place is not None:
                found[place[0]].append((place[1], entry.from_step))
        self._feeds = [_earliest(ranges) for ranges in found]

    def at(self, feed: int, step: int) -> np.ndarray:  # int64 [q], sorted
        """The samples of a feed that are left out at a step."""
        samples, steps = self._feeds[feed]
        return samples[steps <= step] if len(samples) else samples

    @property
    def num_records(self) -> int:
        return sum(len(samples) for samples, _ in self._feeds)


def samples_of(feeds: Sequence[Feed], split: str, entry: Quarantined) -> tuple[int, range] | None:
    """(feed, its samples) that an entry leaves out; None where they belong to another split."""
    for number, feed in enumerate(feeds):
        if feed.name != entry.source:
            continue
        for name, data in feed.source.splits.items():
            for shard, info in enumerate(data.shards):
                if info.file == entry.shard:
                    first, last = int(data.shard_bounds[shard]), int(data.shard_bounds[shard + 1])
                    if not -1 <= entry.record < last - first:
                        raise UserError(
                            f"quarantine names record {entry.record} of {entry.shard}: it has {last - first}"
                            " (record -1 stands for all)"
                        )
                    one = range(first + entry.record, first + entry.record + 1)
                    return (number, range(first, last) if entry.is_whole_shard else one) if name == split else None
        raise UserError(f"quarantine names shard {entry.shard!r}, which source {entry.source!r} does not have")
    raise UserError(f"quarantine names source {entry.source!r}; the sources are {[feed.name for feed in feeds]}")


def check_limit(left_out: Omitted, quarantine: Sequence[Quarantined], limit: int) -> None:
    """RunError where more records are left out than a run may lose; the newest of `quarantine` comes last."""
    if left_out.num_records > limit:
        newest = quarantine[-1]
        shards = len({(entry.source, entry.shard) for entry in quarantine})
        raise RunError(
            f"{left_out.num_records} records of {shards} shards would be left out, more than quarantine_limit ="
            f" {limit}; at last {newest.what} of source {newest.source!r} at step {newest.from_step}"
            f"{f' ({newest.why})' if newest.why else ''}: see what `mmdata verify --quick` names and fetch it again, or"
            " raise quarantine_limit"
        )


def log_entry(feeds: Sequence[Feed], split: str, entry: Quarantined) -> None:
    """One line: source, shard, record, document, step."""
    log.warning(
        "left out from step %d on: source %s, shard %s, %s%s",
        entry.from_step,
        entry.source,
        entry.shard,
        _document(feeds, split, entry),
        f" ({entry.why})" if entry.why else "",
    )


def one_of_several() -> bool:
    """Whether this is one of several processes of JAX. (Asks only where JAX was told so: it starts no backend.)"""
    jax = sys.modules.get("jax")
    return jax is not None and bool(jax.distributed.is_initialized()) and int(jax.process_count()) > 1


def _document(feeds: Sequence[Feed], split: str, entry: Quarantined) -> str:
    place = samples_of(feeds, split, entry)
    if place is None:
        return f"record {entry.record}"
    feed, samples = place
    if entry.is_whole_shard:
        return f"all {len(samples)} records"
    try:
        (row,) = feeds[feed].source.splits[split].catalog(["id"], samples.start, samples.stop).to_pylist()
    except Exception:  # the catalog is damaged too, and fails in many ways: the entry says enough
        return f"record {entry.record}"
    return f"record {entry.record}, document {row['id']}"


def _earliest(ranges: Sequence[tuple[range, int]]) -> tuple[np.ndarray, np.ndarray]:
    """(samples int64 [q], sorted; from which step int64 [q]) of ranges with their steps."""
    samples = np.concatenate([np.zeros(0, np.int64), *(np.arange(r.start, r.stop) for r, _ in ranges)])
    steps = np.concatenate([np.zeros(0, np.int64), *(np.full(len(r), step) for r, step in ranges)])
    order = np.lexsort((steps, samples))
    samples, first = np.unique(samples[order], return_index=True)
    return samples, steps[order][first]
