"""Provenance both ways: which documents are in a batch, and at which steps a document is seen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mmdata.errors import UserError
from mmdata.reading import Entry, Piece

if TYPE_CHECKING:
    from mmdata.loader import Loader


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
    spans: tuple[dict[str, Any], ...]  # item, kind, uri, digest, first and last+1 column in the row


def explain(loader: Loader, step: int, row: int | None = None) -> list[Explained]:
    """The documents of a step's global batch, or of one row of it, with their items' spans."""
    size = loader.size_at(step)
    if row is not None and not 0 <= row < size:
        raise UserError(f"no row {row} at step {step}: its batch has rows 0 to {size - 1}")
    rows = range(size) if row is None else range(row, row + 1)
    feeds = loader.feeds.feeds
    out = []
    for number, entries in zip(rows, loader.entries_at(step, rows)):
        pieces = loader.without_bad(partial(_pieces, loader, entries, step))
        for segment, piece in pieces:
            entry, sample = piece.entry, piece.sample
            spans = tuple(
                {
                    "item": int(span["item"]),
                    "kind": sample.items[span["item"]].kind,
                    "uri": sample.items[span["item"]].uri,
                    "digest": sample.items[span["item"]].digest,
                    "start": entry.column + int(span["start"]),
                    "stop": entry.column + int(span["stop"]),
                }
                for span in piece.row.spans
            )
            out.append(
                Explained(
                    step=step,
                    row=number,
                    segment=segment,
                    source=feeds[entry.feed].name,
                    id=sample.id,
                    uri=sample.uri,
                    sample=entry.sample,
                    epoch=entry.epoch,
                    start=entry.start,
                    stop=entry.stop,
                    column=entry.column,
                    length=len(piece.row.tokens),
                    spans=spans,
                )
            )
    return out


def _pieces(loader: Loader, entries: list[Entry], step: int) -> list[tuple[int, Piece]]:
    return list(loader.renderer.pieces(entries, step))


def steps_of(loader: Loader, document_id: str, last_step: int) -> list[tuple[int, int]]:
    """(step, row of the global batch) of every row before `last_step` which holds a part of a document."""
    found = set()
    if loader.num_steps is not None:
        last_step = min(last_step, loader.num_steps)
    counts = loader.feeds.timeline.counts(last_step)
    for number, feed in enumerate(loader.feeds.feeds):
        sample = feed.source.splits[loader.split].catalog(["id"]).column("id").index(document_id).as_py()
        entries = np.flatnonzero(feed.plan.sample == sample)
        rows = np.unique(np.searchsorted(feed.plan.rows, entries, side="right") - 1)
        for epoch in range(-(-counts[number] // feed.plan.num_rows) if len(rows) else 0):
            for position in feed.order.positions(epoch, rows).tolist():
                place = loader.feeds.timeline.place(number, epoch * feed.plan.num_rows + position)
                if place is None or place[0] >= last_step:
                    continue
                if loader.feeds.numbers(place[0], range(place[1], place[1] + 1)) != [None]:  # not past one epoch
                    found.add(place)
    return sorted(found)
