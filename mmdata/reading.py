"""From plan rows to a batch: read the samples, choose, render, place. No state but the list of what is left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mmdata.batch import Batch, BatchForm, clear, put_row, put_segment
from mmdata.dataset import Source
from mmdata.errors import DamagedRecord, RunError, UserError
from mmdata.feeds import Feed, Located
from mmdata.filling import Filler
from mmdata.folder import LocalFolder
from mmdata.plan import Plan
from mmdata.quarantine import BadRecords, Omitted
from mmdata.ring import Ring
from mmdata.sample import Sample
from mmdata.state import WHOLE_SHARD, Quarantined
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


class Renderer:
    """Reads planned rows and writes them as batches in one layout."""

    def __init__(self, layout: Layout, seq_len: int, seed: int, split: str, feeds: Sequence[Feed]) -> None:
        self.layout, self.seq_len, self.seed, self.split = layout, seq_len, seed, split
        self.feeds = feeds
        self.form = BatchForm(
            seq_len, layout.num_streams, layout.num_positions, layout.needs_blocks, _soft_arrays(layout, seq_len)
        )
        self._programs = programs = Programs(layout)
        self._fillers = [Filler(f.source.splits[split], f.plan, programs) for f in feeds] if programs.plain else []
        self._rings: dict[int, Ring] = {}  # by rows of a batch
        self.left_out = Omitted(feeds, split, ())  # what becomes padding

    def batch(self, rows: Located, step: int, memory: np.ndarray | None = None) -> Batch:
        """The rows as a batch; an entry left out, and what a choice removed, is padding. Written into `memory`, uint8
        [form.size_bytes], where it is given."""
        left_out = self.left_out  # one view of it for the whole batch: other threads may add to it
        make = self._filled if self._fillers else self._rendered
        return make(rows, step, left_out, memory)

    def ahead(self, rows: Located) -> None:
        """Open what these rows will be read from, of sources on this machine: caches of others have their own order."""
        for feed, filler in enumerate(self._fillers):
            mine = rows.row[rows.feed == feed]
            if len(mine) and isinstance(self.feeds[feed].source.files, LocalFolder):
                filler.ahead(mine)

    def pieces(self, entries: list[Entry], step: int) -> Iterator[tuple[int, Piece]]:
        """(segment id, piece) of one row."""
        yield from enumerate(self._render(entries, step, self.left_out), 1)

    def entries(self, rows: Located) -> list[list[Entry]]:
        """The planned entries of each row."""
        return [
            Entry.of_row(feed, self.feeds[feed].plan, row, epoch) if feed >= 0 else []
            for feed, epoch, row in zip(rows.feed.tolist(), rows.epoch.tolist(), rows.row.tolist())
        ]

    def _batch_in(self, memory: np.ndarray | None, num_rows: int) -> Batch:
        """A batch of whatever content."""
        if memory is None:
            if num_rows not in self._rings:
                self._rings[num_rows] = Ring(self.form.size_bytes(num_rows))
            memory = self._rings[num_rows].take()
        return self.form.batch_in(memory, num_rows)

    def _filled(self, rows: Located, step: int, left_out: Omitted, memory: np.ndarray | None = None) -> Batch:
        """By compiled code, and what that leaves one by one: layouts whose items do not look at one another."""
        batch = self._batch_in(memory, len(rows.feed))
        for feed in np.unique(rows.feed).tolist():
            mine = np.flatnonzero(rows.feed == feed)
            if feed < 0:
                for array in batch.arrays().values():
                    array[mine] = 0
                continue
            places = np.stack([mine, rows.row[mine]], axis=1)
            try:
                todo = self._fillers[feed].fill(batch, places, left_out.at(feed, step), partial(self._choose, rows))
            except DamagedRecord as error:  # a whole shard
                entry = Quarantined(self.feeds[feed].name, error.shard, WHOLE_SHARD, step, error.why)
                raise BadRecords([entry]) from error
            if len(todo):
                self._render_into(batch, feed, rows.epoch, todo, step, left_out)
        return batch

    def _choose(self, rows: Located, table: ItemTable, i: int, sample_id: str, b: int) -> list[int]:
        return self._programs.order(table, i, self.seed, sample_id, int(rows.epoch[b]))

    def _render_into(
        self, batch: Batch, feed: int, epochs: np.ndarray, todo: np.ndarray, step: int, left_out: Omitted
    ) -> None:
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
        for (b, segment, _, column, _), piece in zip(todo.tolist(), self._render(entries, step, left_out), strict=True):
            put_segment(batch, b, segment, column, piece.row)

    def _rendered(self, rows: Located, step: int, left_out: Omitted, memory: np.ndarray | None = None) -> Batch:
        """Entry by entry: layouts with soft vectors, blocks, parallel streams, turns ..."""
        batch = clear(self._batch_in(memory, len(rows.feed)))
        for b, entries in enumerate(self.entries(rows)):
            put_row(batch, b, [(piece.entry.column, piece.row) for piece in self._render(entries, step, left_out)])
        return batch

    def _render(self, entries: Sequence[Entry], step: int, left_out: Omitted) -> list[Piece]:
        """Every entry that is not left out, rendered."""
        samples = self._read(entries, step, left_out)
        return [self._piece(e, samples[e.feed, e.sample], step) for e in entries if (e.feed, e.sample) in samples]

    def _piece(self, entry: Entry, sample: Sample, step: int) -> Piece:
        piece = (entry.start, entry.stop)
        choice = self.layout.choose(sample.items, self.seed, sample.id, entry.epoch)
        source = self.feeds[entry.feed].source
        try:
            row = self.layout.render(sample.items, choice, piece, lambda item: _kept_medium(source, item, self.layout))
        except DamagedRecord as error:  # a kept medium: the record that refers to it is of no use
            why = RunError(str(error))  # of the record, whatever the medium's shard is like
            raise BadRecords([self._bad(entry.feed, entry.sample, step, why)]) from error
        except UserError:
            raise
        except ValueError as error:
            raise RunError(
                f"document {sample.id} ({sample.uri}) of source {source.name!r} cannot be written ({error}): run"
                " `mmdata verify`, then build it again"
            ) from error
        if len(row.tokens) > entry.length:
            raise RunError(
                f"document {sample.id} ({sample.uri}) has {len(row.tokens)} tokens where its catalog says"
                f" {entry.length}: the catalog does not match its shards; run `mmdata verify`"
            )
        return Piece(entry, sample, row)

    def _read(self, entries: Iterable[Entry], step: int, left_out: Omitted) -> dict[tuple[int, int], Sample]:
        """(feed, sample number) -> sample, of all entries which are not left out: one read a feed."""
        wanted: dict[int, set[int]] = {}
        for entry in entries:
            wanted.setdefault(entry.feed, set()).add(entry.sample)
        out = {}
        for feed, numbers in wanted.items():
            order = sorted(numbers.difference(left_out.at(feed, step).tolist()))
            for number, sample in zip(order, self._read_feed(feed, order, step)):
                out[feed, number] = sample
        return out

    def _read_feed(self, feed: int, numbers: list[int], step: int) -> list[Sample]:
        data = self.feeds[feed].source.splits[self.split]
        try:
            return data.read(numbers)
        except UserError:
            raise
        except (DamagedRecord, ValueError):  # and no other RunError: a store that does not answer loses no record
            pass
        samples, bad = [], []
        for number in numbers:  # once more, one at a time: only what fails again is bad, and it has a name
            try:
                samples += data.read([number])
            except (DamagedRecord, ValueError) as error:
                bad.append(self._bad(feed, number, step, error))
        if bad:
            raise BadRecords(sorted(set(bad)))
        return samples

    def _bad(self, feed: int, number: int, step: int, why: Exception) -> Quarantined:
        """What leaves a sample out, or its whole shard where `why` is of that."""
        data = self.feeds[feed].source.splits[self.split]
        shard = int(np.searchsorted(data.shard_bounds, number, side="right")) - 1
        whole = isinstance(why, DamagedRecord) and why.record is None
        record = WHOLE_SHARD if whole else number - int(data.shard_bounds[shard])
        words = why.why if isinstance(why, DamagedRecord) else str(why)
        return Quarantined(self.feeds[feed].name, data.shards[shard].file, record, step, words)


def _soft_arrays(layout: Layout, seq_len: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape [seq_len, ...] and dtype of each soft array of a row: a token refers to one vector at most."""
    return {kind: ((seq_len, *shape), dtype) for kind, (shape, dtype) in layout.soft_shapes.items()}


def _kept_medium(source: Source, item: Item, layout: Layout) -> np.ndarray:
    """The array which a soft item refers to."""
    try:
        medium = source.media.get(item.digest, item.kind)
    except KeyError as error:
        raise UserError(f"source {source.name!r}: {error.args[0]}; build it with keep_media = 'resized'") from None
    except ValueError as error:
        raise DamagedRecord(f"{item.kind} {item.digest}", None, str(error)) from error
    if not isinstance(medium.data, np.ndarray):
        raise UserError(f"source {source.name!r} keeps original bytes, a soft item needs keep_media = 'resized'")
    if item.kind == "audio" and layout.spec.soft.audio.frames and medium.sample_rate_hz != MEL_RATE_HZ:
        raise UserError(
            f"source {source.name!r} keeps sound at {medium.sample_rate_hz} Hz, and layout {layout.spec.name} takes mel"
            f" frames of {MEL_RATE_HZ} Hz; build it with sample_rate_hz = {MEL_RATE_HZ} in [audio]"
        )
    return medium.data
