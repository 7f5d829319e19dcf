"""From plan rows to a batch: read the samples, choose, render, place. No state but the list of what is left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmdata.batch import Batch, empty_batch, put_row
from mmdata.dataset import Source
from mmdata.errors import RunError, UserError
from mmdata.feeds import Feed
from mmdata.plan import Plan
from mmdata.sample import Sample
from mmdata.state import Quarantined
from tokenizer.item import Item
from tokenizer.layout import Layout
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
    """Reads and renders planned rows in one layout."""

    def __init__(self, layout: Layout, seq_len: int, seed: int, split: str) -> None:
        self.layout, self.seq_len, self.seed, self.split = layout, seq_len, seed, split
        self._left_out: dict[tuple[int, int], int] = {}  # (feed, sample) -> from step

    def leave_out(self, feeds: Sequence[Feed], quarantine: Iterable[Quarantined]) -> None:
        """Render these records as padding from now on."""
        left_out: dict[tuple[int, int], int] = {}
        for entry in quarantine:
            key = _find(feeds, self.split, entry)
            if key is not None:
                left_out[key] = min(entry.from_step, left_out.get(key, entry.from_step))
        self._left_out = left_out

    def batch(self, feeds: Sequence[Feed], rows: Sequence[list[Entry]], step: int) -> Batch:
        """The rows as a batch; an entry left out, and what a choice removed, is padding."""
        samples = self._read(feeds, [entry for entries in rows for entry in entries], step)
        rendered = [[self._render(feeds, entry, samples) for entry in entries] for entries in rows]
        batch = empty_batch(
            len(rows),
            self.seq_len,
            num_codebooks=self.layout.num_streams,
            num_positions=self.layout.num_positions,
            blocks=self.layout.needs_blocks,
            soft=_soft_arrays(self.layout, self.seq_len),
        )
        for b, pieces in enumerate(rendered):
            put_row(batch, b, [(piece.entry.column, piece.row) for piece in pieces if piece])
        return batch

    def pieces(self, feeds: Sequence[Feed], entries: list[Entry], step: int) -> Iterator[tuple[int, Piece]]:
        """(segment id, piece) of one row."""
        samples = self._read(feeds, entries, step)
        rendered = [piece for piece in (self._render(feeds, entry, samples) for entry in entries) if piece]
        yield from enumerate(rendered, 1)

    def _render(self, feeds: Sequence[Feed], entry: Entry, samples: dict[tuple[int, int], Sample]) -> Piece | None:
        sample = samples.get((entry.feed, entry.sample))
        if sample is None:
            return None
        piece = (entry.start, entry.stop)
        choice = self.layout.choose(sample.items, self.seed, sample.id, entry.epoch)
        source = feeds[entry.feed].source
        row = self.layout.render(sample.items, choice, piece, lambda item: _kept_medium(source, item, self.layout))
        if len(row.tokens) > entry.length:
            raise RunError(
                f"document {sample.id} ({sample.uri}) has {len(row.tokens)} tokens where its catalog says"
                f" {entry.length}: the catalog does not match its shards; run `mmdata verify`"
            )
        return Piece(entry, sample, row)

    def _read(self, feeds: Sequence[Feed], entries: list[Entry], step: int) -> dict[tuple[int, int], Sample]:
        """(feed, sample number) -> sample, of all entries which are not left out: one read a feed."""
        wanted: dict[int, set[int]] = {}
        for entry in entries:
            if self._left_out.get((entry.feed, entry.sample), step + 1) > step:
                wanted.setdefault(entry.feed, set()).add(entry.sample)
        out = {}
        for feed, numbers in wanted.items():
            order = sorted(numbers)
            for number, sample in zip(order, self._read_feed(feeds[feed], order, step)):
                out[feed, number] = sample
        return out

    def _read_feed(self, feed: Feed, numbers: list[int], step: int) -> list[Sample]:
        data = feed.source.splits[self.split]
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
                entry = {
                    "source": feed.name,
                    "shard": data.shards[shard].file,
                    "record": number - int(data.shard_bounds[shard]),
                    "from_step": step,
                }
                raise RunError(
                    f"sample {number} of source {feed.name!r} cannot be read at step {step} ({error}); fetch"
                    f" {entry['shard']} again, or give the Loader quarantine=[{entry}] to leave this record out"
                ) from error
        return samples


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
