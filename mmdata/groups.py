"""Which shards a Loader reads now and next, told to the caches of its remote sources.

The rows of an epoch come group by group (docs/format.md, "Order"): what is read at a step is in the shards of its
group, and those of the following group are what to fetch ahead.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmdata.errors import UserError
from mmdata.folder import RemoteFolder
from mmdata.order import Order
from mmdata.plan import Plan

if TYPE_CHECKING:
    from mmdata.cache import Reader
    from mmdata.dataset import Split
    from mmdata.feeds import Feed, Feeds

_GB = 1e9


@dataclass(frozen=True)
class Group:
    """The group that holds a position of an epoch."""

    epoch: int
    start: int  # positions of the epoch
    stop: int
    shards: tuple[int, ...]  # numbers in the split, in the order of the epoch's windows


def shards_of_group(order: Order, plan: Plan, num_shards: int, epoch: int, position: int) -> Group:
    """The group of a position of an epoch, with those of a split's shards that its rows come from."""
    windows, start, stop = order.group(epoch, position)
    size = plan.settings.window_shards
    full = windows[np.diff(plan.windows)[windows] > 0].tolist()
    return Group(epoch, start, stop, tuple(s for w in full for s in range(w * size, min((w + 1) * size, num_shards))))


def check_room(feed: Feed, split: str, soft: bool) -> None:
    """UserError where a remote source's cache cannot hold two groups of its plan: one that is read, one that is
    fetched; or, where the layout takes kept media, all shards of them, as their order is no order of samples."""
    files, settings = feed.source.files, feed.plan.settings
    if not isinstance(files, RemoteFolder):
        return
    shards = feed.source.splits[split].shards
    groups = 2 * settings.group_windows * settings.window_shards
    need, most = min(groups, len(shards)), max((s.bytes for s in shards), default=0)
    if files.cache_shards < need:
        raise UserError(
            f"source {feed.name!r} at {files.where} has {len(shards)} shards and a cache of {files.cache_shards}; its"
            f" plan needs {need} (2 groups of {settings.group_windows} windows of {settings.window_shards} shards, up"
            f" to {need * most / _GB:.1f} GB): use cache_shards={need} or more, or fewer group_windows"
        )
    media = feed.source.manifest.media.shards
    if soft and files.cache_shards < len(media):
        raise UserError(
            f"source {feed.name!r} at {files.where} has {len(media)} shards of media, which the layout reads in any"
            f" order, and a cache of {files.cache_shards}: use cache_shards={len(media)} or more"
            f" ({sum(s.bytes for s in media) / _GB:.1f} GB)"
        )


class Announcer:
    """Tells the caches of a schedule's remote sources what is read at a step. `behind`: steps before the newest one
    which other threads may still be reading."""

    def __init__(self, feeds: Feeds, split: str, behind: int, soft: bool = False) -> None:
        for feed in feeds.feeds:
            check_room(feed, split, soft)
        self._feeds, self._split, self._behind = feeds, split, behind
        self._lock = threading.Lock()
        self._step = -1  # the newest announced
        self._readers: dict[int, Reader] = {}
        self._said: dict[int, tuple[object, ...]] = {}
        self._known: dict[str, deque[Group]] = {}
        self._remote = [n for n, feed in enumerate(feeds.feeds) if isinstance(feed.source.files, RemoteFolder)]

    def announce(self, step: int) -> None:
        """Step `step` is about to be read. Cheap where nothing changes; the first after a jump starts afresh."""
        if not self._remote:
            return
        with self._lock:
            if self._step - self._behind <= step < self._step:
                return  # its group is still kept
            self._step = step
            timeline = self._feeds.timeline
            counts = [self._feeds.counts(s) for s in (max(step - self._behind, 0), step, step + 1)]
            stage = timeline.stages[timeline.stage_at(step)]
            used = {s for s, weight in zip(stage.sources, stage.shares.weights) if weight}
            for number in self._remote:
                self._tell(number, [c[number] for c in counts] if number in used else [])

    def close(self) -> None:
        """Nothing is read until the next announcement."""
        with self._lock:
            for reader in self._readers.values():
                reader.close()
            self._readers, self._said, self._step = {}, {}, -1

    def _tell(self, number: int, rows: list[int]) -> None:
        """`rows`: a feed's row numbers of the oldest step that may still be read, of this step and of the next one."""
        feed = self._feeds.feeds[number]
        now: list[Group] = []
        keep: list[Group] = []
        if rows and feed.order.num_rows:
            keep = self._groups(feed, rows[0], rows[1])
            now = self._groups(feed, rows[1], max(rows[2], rows[1] + 1))
        said = tuple((g.epoch, g.stop) for g in (*keep, *now))
        if self._said.get(number) == said:
            return
        self._said[number] = said
        behind = now[-1].epoch * feed.order.num_rows + now[-1].stop if now else 0
        ahead = self._groups(feed, behind, behind + 1) if now else []
        data = feed.source.splits[self._split]
        if number not in self._readers:
            assert isinstance(feed.source.files, RemoteFolder)
            self._readers[number] = feed.source.files.reader({s.file: s.catalog for s in data.shards})
        names = [_names(data, groups) for groups in (now, ahead, keep)]
        self._readers[number].need(
            names[0],
            [n for n in names[1] if n not in names[0]],
            [n for n in names[2] if n not in names[0]],
        )

    def _groups(self, feed: Feed, first: int, last: int) -> list[Group]:
        """The groups of rows first:last of a feed's whole past, in order; of one epoch only where there is but one."""
        out: list[Group] = []
        num_rows = feed.order.num_rows
        if self._feeds.num_rows is not None:
            last = min(last, num_rows)
        while first < last:
            epoch, position = divmod(first, num_rows)
            out.append(self._group(feed, epoch, position))
            first = epoch * num_rows + out[-1].stop
        return out

    def _group(self, feed: Feed, epoch: int, position: int) -> Group:
        """One of the last few, or found now: in the order of an epoch, which takes a look at all its windows."""
        known = self._known.setdefault(feed.source.fingerprint, deque(maxlen=4))
        for group in known:
            if group.epoch == epoch and group.start <= position < group.stop:
                return group
        num_shards = len(feed.source.splits[self._split].shards)
        known.append(shards_of_group(feed.order, feed.plan, num_shards, epoch, position))
        return known[-1]

    def __getstate__(self) -> dict[str, Any]:
        return {"feeds": self._feeds, "split": self._split, "behind": self._behind}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def _names(data: Split, groups: list[Group]) -> list[str]:
    return list(dict.fromkeys(data.shards[s].file for group in groups for s in group.shards))
