"""Provenance both ways: which documents are in a batch, and at which steps a document is seen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mmdata.catalog import readable, rows_equal
from mmdata.errors import UserError
from mmdata.find import samples_where
from mmdata.pieces import places_of
from mmdata.state import WHOLE_SHARD

if TYPE_CHECKING:
    from mmdata.feeds import Feed
    from mmdata.loader import Loader
    from mmdata.reading import Entry, Piece
    from mmdata.state import Quarantined


@dataclass(frozen=True)
class Explained:
    """A segment of a batch and where it comes from."""

    step: int
    row: int  # of the global batch
    segment: int  # its number in Batch.segment_ids
    source: str
    id: str  # document id
    uri: str
    sample: int  # number in the source's split
    epoch: int
    start: int  # places of the document that it holds
    stop: int
    column: int  # its first token in the row
    length: int  # tokens
    spans: tuple[dict[str, Any], ...]  # item, kind, uri, digest, media, units, start and stop column in the row


@dataclass(frozen=True)
class LeftOut:
    """A planned piece of a quarantined record: its columns are padding."""

    id: str
    uri: str
    sample: int
    start: int  # places
    stop: int
    column: int
    length: int  # columns kept for it
    shard: str
    record: int  # of the shard; -1: all of it
    from_step: int


@dataclass(frozen=True)
class ExplainedRow:
    """A row of a batch: all of its columns are either in a document's or padding."""

    step: int
    row: int
    source: str  # "" of a row past the end of a validation split
    epoch: int
    seq_len: int
    documents: tuple[Explained, ...]
    quarantined: tuple[LeftOut, ...]

    @property
    def tokens(self) -> int:
        """Columns that hold a document."""
        return sum(document.length for document in self.documents)

    @property
    def padding(self) -> float:
        """Share of the columns that hold none."""
        return 1 - self.tokens / self.seq_len


@dataclass(frozen=True)
class Visit:
    """A part of a document in a row of a step's batch."""

    step: int
    row: int  # of the global batch
    epoch: int
    part: int  # from 1, of `DocumentParts.parts`
    column: int  # its first in the row
    quarantined: bool  # the columns are padding from that entry's step on


@dataclass(frozen=True)
class Part:
    """What of a document is in one planned row."""

    start: int  # places
    stop: int
    length: int  # tokens in the longest form
    plan_row: int
    column: int


def explain(loader: Loader, step: int, row: int | None = None) -> list[Explained]:
    """The documents of a step's global batch, or of one row of it, with their items' spans."""
    return [document for found in explain_rows(loader, step, row) for document in found.documents]


def explain_rows(loader: Loader, step: int, row: int | None = None) -> list[ExplainedRow]:
    """The rows of a step's global batch, or one of them: documents with their items' spans, and what is left out."""
    size = loader.size_at(step)
    if row is not None and not 0 <= row < size:
        raise UserError(f"no row {row} at step {step}: its batch has rows 0 to {size - 1}")
    rows = range(size) if row is None else range(row, row + 1)
    feeds = loader.feeds.feeds
    out = []
    for number, entries in zip(rows, loader.entries_at(step, rows)):
        pieces = loader.without_bad(partial(_pieces, loader, entries, step))
        out.append(
            ExplainedRow(
                step=step,
                row=number,
                source=feeds[entries[0].feed].name if entries else "",
                epoch=entries[0].epoch if entries else 0,
                seq_len=loader.seq_len,
                documents=tuple(_explained(feeds, step, number, segment, piece) for segment, piece in pieces),
                quarantined=_left_out(loader, entries, step),
            )
        )
    return out


def parts_of(feed: Feed, sample: int) -> list[Part]:
    """The parts of a sample that the plan puts into rows, in their order; none where it fits no row."""
    plan = feed.plan
    entries = np.flatnonzero(plan.sample == sample)
    rows = np.searchsorted(plan.rows, entries, side="right") - 1
    return [
        Part(
            start=int(plan.start[entry]),
            stop=int(plan.stop[entry]),
            length=int(plan.length[entry]),
            plan_row=row,
            column=int(plan.length[plan.rows[row] : entry].sum()),
        )
        for entry, row in sorted(zip(entries.tolist(), rows.tolist()), key=lambda found: int(plan.start[found[0]]))
    ]


def gaps_of(loader: Loader, feed: Feed, sample: int, parts: list[Part]) -> list[tuple[int, int]]:
    """The places (start, stop) of a sample that are in no row: what fits none, or what the layout writes nothing of."""
    table = feed.source.splits[loader.split].item_table(sample, sample + 1)
    at, gaps = 0, []
    for part in parts:
        if part.start > at:
            gaps.append((at, part.start))
        at = part.stop
    (end,) = places_of(table).tolist()
    return [*gaps, (at, end)] if end > at else gaps


def visits_of(loader: Loader, feed: int, sample: int, last_step: int) -> list[Visit]:
    """Every part of a sample of feed number `feed` in a row of a batch before `last_step`, by the order's inverse."""
    if last_step < 1:
        return []
    parts = parts_of(loader.feeds.feeds[feed], sample)
    entry = _quarantine(loader, feed, sample)
    by_row: dict[int, list[tuple[int, Part]]] = {}
    for number, part in enumerate(parts, 1):
        by_row.setdefault(part.plan_row, []).append((number, part))
    found = loader.feeds.places(feed, np.array(sorted(by_row), np.int64), last_step)
    return [
        Visit(step, row, epoch, number, part.column, entry is not None and entry.from_step <= step)
        for step, row, epoch, plan_row in zip(
            *(a.tolist() for a in (found.step, found.row, found.epoch, found.plan_row))
        )
        for number, part in sorted(by_row[plan_row], key=lambda numbered: numbered[1].column)
    ]


def steps_of(loader: Loader, document_id: str, last_step: int) -> list[tuple[int, int]]:
    """(step, row of the global batch) of every row before `last_step` which holds a part of a document."""
    found: set[tuple[int, int]] = set()
    for number, feed in enumerate(loader.feeds.feeds):
        for sample in samples_where(feed.source.splits[loader.split], "id", rows_equal, document_id, once=True):
            visits = visits_of(loader, number, sample, last_step)
            found |= {(visit.step, visit.row) for visit in visits if not visit.quarantined}
    return sorted(found)


def _explained(feeds: tuple[Feed, ...], step: int, number: int, segment: int, piece: Piece) -> Explained:
    entry, sample = piece.entry, piece.sample
    source = feeds[entry.feed].source
    spans = []
    for span in piece.row.spans:
        item = sample.items[span["item"]]
        kept = bool(item.digest) and source.media.form != "none" and (item.digest in source.media)
        spans.append(
            {
                "item": int(span["item"]),
                "kind": item.kind,
                "uri": readable(item.uri),
                "digest": item.digest,
                "media": source.media.form if kept else "none",
                "units": [int(unit) for unit in span["piece"]],
                "start": entry.column + int(span["start"]),
                "stop": entry.column + int(span["stop"]),
            }
        )
    return Explained(
        step=step,
        row=number,
        segment=segment,
        source=feeds[entry.feed].name,
        id=sample.id,
        uri=readable(sample.uri),
        sample=entry.sample,
        epoch=entry.epoch,
        start=entry.start,
        stop=entry.stop,
        column=entry.column,
        length=len(piece.row.tokens),
        spans=tuple(spans),
    )


def _pieces(loader: Loader, entries: list[Entry], step: int) -> list[tuple[int, Piece]]:
    return list(loader.renderer.pieces(entries, step))


def _left_out(loader: Loader, entries: list[Entry], step: int) -> tuple[LeftOut, ...]:
    out = []
    for entry in entries:
        found = _quarantine(loader, entry.feed, entry.sample)
        if found is None or found.from_step > step:
            continue
        data = loader.feeds.feeds[entry.feed].source.splits[loader.split]
        (names,) = data.catalog(["id", "uri"], entry.sample, entry.sample + 1).to_pylist()
        out.append(
            LeftOut(
                id=names["id"],
                uri=names["uri"],
                sample=entry.sample,
                start=entry.start,
                stop=entry.stop,
                column=entry.column,
                length=entry.length,
                shard=found.shard,
                record=found.record,
                from_step=found.from_step,
            )
        )
    return tuple(out)


def _quarantine(loader: Loader, feed: int, sample: int) -> Quarantined | None:
    """The first entry of the quarantine that names a sample's record."""
    if not loader.quarantine:
        return None
    here = loader.feeds.feeds[feed]
    data = here.source.splits[loader.split]
    shard = int(np.searchsorted(data.shard_bounds, sample, side="right")) - 1
    name, record = data.shards[shard].file, sample - int(data.shard_bounds[shard])
    of_shard = (q for q in loader.quarantine if (q.source, q.shard) == (here.name, name))
    mine = [q for q in of_shard if q.record in (record, WHOLE_SHARD)]
    return min(mine, key=lambda q: q.from_step, default=None)
