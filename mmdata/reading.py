"""From plan rows to a batch: read the samples, choose, render, place. No state but the list of what is left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mmdata.batch import Batch, batch_in, batch_size_bytes, empty_batch, put_row, put_segment
from mmdata.dataset import Source
from mmdata.errors import DamagedRecord, RunError, UserError
from mmdata.feeds import Feed, Located
from mmdata.filling import Filler
from mmdata.plan import Plan
from mmdata.ring import Ring
from mmdata.sample import Sample
from mmdata.state import Quarantined
from tokenizer.item import Item, ItemTable
from tokenizer.layout import Layout
from tokenizer.programs import Programs
from tokenizer.row import Row
from tokenizer.soft import MEL_RATE_HZ


@dataclass(frozen=True)
class Entry:
    """A planned piece of a sample and its place in a row."""

    feed: int
    sample: int  # number in the split
    start: int  # places
    stop: int
    column: int
    length: int  # columns kept for it
    epoch: int

    @classmethod
    def of_row(cls, feed: int, plan: Plan, row: int, epoch: int) -> list[Entry]:
        """The entries of a plan's row, one after the other from column 0."""
        these = slice(int(plan.rows[row]), int(plan.rows[row + 1]))
        columns = np.cumsum([0, *plan.length[these].tolist()]).tolist()
        fields = (plan.sample, plan.start, plan.stop, plan.length)
        return [
            cls(feed, sample, start, stop, column, length, epoch)
            for (sample, start, stop, length), column in zip(zip(*(f[these].tolist() for f in fields)), columns)
        ]


@dataclass(frozen=True, eq=False)
class Piece:
    """An entry, rendered."""

    entry: Entry
    sample: Sample
    row: Row


class BadRecord(RunError):
    """A record, or a whole shard, that cannot be read at a step; `entry` is what leaves it out."""

    def __init__(self, entry: dict[str, Any], sample: str, why: object) -> None:
        self.entry = entry
        super().__init__(
            f"{sample} of source {entry['source']!r} cannot be read at step {entry['from_step']} ({why}); fetch"
            f" {entry['shard']} again, or give the Loader quarantine=[{entry}] to leave this record out"
        )


class Renderer:
    """Reads planned rows and writes them as batches in one layout."""

    def __init__(self, layout: Layout, seq_len: int, seed: int, split: str, feeds: Sequence[Feed]) -> None:
        self.layout, self.seq_len, self.seed, self.split = layout, seq_len, seed, split
        self.feeds = feeds
        self._programs = programs = Programs(layout)
        self._fillers = [Filler(f.source.splits[split], f.plan, programs) for f in feeds] if programs.plain else []
        self._rings: dict[int, Ring] = {}  # by rows of a batch
        self._left_out: list[tuple[np.ndarray, np.ndarray]] = []  # a feed: samples int64, from which step int64
        self.leave_out(())

    def leave_out(self, quarantine: Iterable[Quarantined]) -> None:
        """Make these records padding from now on."""
        left_out: list[dict[int, int]] = [{} for _ in self.feeds]
        for entry in quarantine:
            key = _find(self.feeds, self.split, entry)
            if key is not None:
                feed, sample = key
                left_out[feed][sample] = min(entry.from_step, left_out[feed].get(sample, entry.from_step))
        self._left_out = [
            (np.array(sorted(one), np.int64), np.array([one[s] for s in sorted(one)], np.int64)) for one in left_out
        ]

    def batch(self, rows: Located, step: int) -> Batch:
        """The rows as a batch; an entry left out, and what a choice removed, is padding."""
        return self._filled(rows, step) if self._fillers else self._rendered(rows, step)

    def pieces(self, entries: list[Entry], step: int) -> Iterator[tuple[int, Piece]]:
        """(segment id, piece) of one row."""
        yield from enumerate(self._render(entries, step), 1)

    def entries(self, rows: Located) -> list[list[Entry]]:
        """The planned entries of each row."""
        return [
            Entry.of_row(feed, self.feeds[feed].plan, row, epoch) if feed >= 0 else []
            for feed, epoch, row in zip(rows.feed.tolist(), rows.epoch.tolist(), rows.row.tolist())
        ]

    def _filled(self, rows: Located, step: int) -> Batch:
        """By compiled code, and what that leaves one by one: layouts whose items do not look at one another."""
        num = len(rows.feed)
        if num not in self._rings:
            self._rings[num] = Ring(batch_size_bytes(num, self.seq_len))
        batch = batch_in(self._rings[num].take(), num, self.seq_len)
        for feed in np.unique(rows.feed).tolist():
            mine = np.flatnonzero(rows.feed == feed)
            if feed < 0:
                for array in batch.arrays().values():
                    array[mine] = 0
                continue
            places = np.stack([mine, rows.row[mine]], axis=1)
            try:
                todo = self._fillers[feed].fill(
                    batch, places, self._left_out_at(feed, step), partial(self._choose, rows)
                )
            except DamagedRecord as error:
                raise self._bad(feed, error.shard, -1, step, error) from error
            if len(todo):
                self._render_into(batch, feed, rows.epoch, todo, step)
        return batch

    def _choose(self, rows: Located, table: ItemTable, i: int, sample_id: str, b: int) -> list[int]:
        return self._programs.order(table, i, self.seed, sample_id, int(rows.epoch[b]))

    def _render_into(self, batch: Batch, feed: int, epochs: np.ndarray, todo: np.ndarray, step: int) -> None:
        plan = self.feeds[feed].plan
        entries = [
            Entry(
                feed=feed,
                sample=int(plan.sample[e]),
                start=int(plan.start[e]),
                stop=int(plan.stop[e]),
                column=column,
                length=int(plan.length[e]),
                epoch=int(epochs[b]),
            )
            for b, _, e, column, _ in todo.tolist()
        ]
        for (b, segment, _, column, _), piece in zip(todo.tolist(), self._render(entries, step), strict=True):
            put_segment(batch, b, segment, column, piece.row)

    def _rendered(self, rows: Located, step: int) -> Batch:
        """Entry by entry: layouts with soft vectors, blocks, parallel streams, turns ..."""
        batch = empty_batch(
            len(rows.feed),
            self.seq_len,
            num_codebooks=self.layout.num_streams,
            num_positions=self.layout.num_positions,
            blocks=self.layout.needs_blocks,
            soft=_soft_arrays(self.layout, self.seq_len),
        )
        for b, entries in enumerate(self.entries(rows)):
            put_row(batch, b, [(piece.entry.column, piece.row) for piece in self._render(entries, step)])
        return batch

    def _render(self, entries: Sequence[Entry], step: int) -> list[Piece]:
        """Every entry that is not left out, rendered."""
        samples = self._read(entries, step)
        return [self._piece(e, samples[e.feed, e.sample]) for e in entries if (e.feed, e.sample) in samples]

    def _piece(self, entry: Entry, sample: Sample) -> Piece:
        piece = (entry.start, entry.stop)
        choice = self.layout.choose(sample.items, self.seed, sample.id, entry.epoch)
        source = self.feeds[entry.feed].source
        row = self.layout.render(sample.items, choice, piece, lambda item: _kept_medium(source, item, self.layout))
        if len(row.tokens) > entry.length:
            raise RunError(
                f"document {sample.id} ({sample.uri}) has {len(row.tokens)} tokens where its catalog says"
                f" {entry.length}: the catalog does not match its shards; run `mmdata verify`"
            )
        return Piece(entry, sample, row)

    def _left_out_at(self, feed: int, step: int) -> np.ndarray:  # int64 [q], sorted
        samples, steps = self._left_out[feed]
        return samples[steps <= step] if len(samples) else samples

    def _read(self, entries: Iterable[Entry], step: int) -> dict[tuple[int, int], Sample]:
        """(feed, sample number) -> sample, of all entries which are not left out: one read a feed."""
        wanted: dict[int, set[int]] = {}
        for entry in entries:
            wanted.setdefault(entry.feed, set()).add(entry.sample)
        out = {}
        for feed, numbers in wanted.items():
            order = sorted(numbers.difference(self._left_out_at(feed, step).tolist()))
            for number, sample in zip(order, self._read_feed(feed, order, step)):
                out[feed, number] = sample
        return out

    def _read_feed(self, feed: int, numbers: list[int], step: int) -> list[Sample]:
        data = self.feeds[feed].source.splits[self.split]
        try:
            return data.read(numbers)
        except (RunError, ValueError):
            pass
        samples = []
        for number in numbers:  # once more, one at a time: only what fails again is bad, and it has a name
            try:
                samples += data.read([number])
            except (RunError, ValueError) as error:
                shard = int(np.searchsorted(data.shard_bounds, number, side="right")) - 1
                whole = isinstance(error, DamagedRecord) and error.record is None
                record = -1 if whole else number - int(data.shard_bounds[shard])
                raise self._bad(feed, data.shards[shard].file, record, step, error) from error
        return samples

    def _bad(self, feed: int, shard: str, record: int, step: int, why: object) -> BadRecord:
        """`record` -1: all of the shard."""
        name = self.feeds[feed].name
        entry = {"source": name, "shard": shard, "record": record, "from_step": step}
        return BadRecord(entry, f"record {record} of {shard}" if record >= 0 else f"shard {shard}", why)


def _soft_arrays(layout: Layout, seq_len: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape [seq_len, ...] and dtype of each soft array of a row: a token refers to one vector at most."""
    return {kind: ((seq_len, *shape), dtype) for kind, (shape, dtype) in layout.soft_shapes.items()}


def _kept_medium(source: Source, item: Item, layout: Layout) -> np.ndarray:
    """The array which a soft item refers to."""
    try:
        medium = source.media.get(item.digest, item.kind)
    except KeyError as error:
        raise UserError(f"source {source.name!r}: {error.args[0]}; build it with keep_media = 'resized'") from None
    if not isinstance(medium.data, np.ndarray):
        raise UserError(f"source {source.name!r} keeps original bytes, a soft item needs keep_media = 'resized'")
    if item.kind == "audio" and layout.spec.soft.audio.frames and medium.sample_rate_hz != MEL_RATE_HZ:
        raise UserError(
            f"source {source.name!r} keeps sound at {medium.sample_rate_hz} Hz, and layout {layout.spec.name} takes mel"
            f" frames of {MEL_RATE_HZ} Hz; build it with sample_rate_hz = {MEL_RATE_HZ} in [audio]"
        )
    return medium.data


def _find(feeds: Sequence[Feed], split: str, entry: Quarantined) -> tuple[int, int] | None:
    """(feed, sample number) of a quarantined record; None where it belongs to another split."""
    for number, feed in enumerate(feeds):
        if feed.name != entry.source:
            continue
        for name, data in feed.source.splits.items():
            for shard, info in enumerate(data.shards):
                if info.file == entry.shard:
                    first, last = int(data.shard_bounds[shard]), int(data.shard_bounds[shard + 1])
                    if not 0 <= entry.record < last - first:
                        raise UserError(
                            f"quarantine names record {entry.record} of {entry.shard}: it has {last - first}"
                        )
                    return (number, first + entry.record) if name == split else None
        raise UserError(f"quarantine names shard {entry.shard!r}, which source {entry.source!r} does not have")
    raise UserError(f"quarantine names source {entry.source!r}; the sources are {[feed.name for feed in feeds]}")
