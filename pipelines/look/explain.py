"""`mmdata explain`: the documents of a batch of a run, or the steps at which a run sees a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

import mmdata
from mmdata.errors import UserError
from mmdata.explain import ExplainedRow, LeftOut, Part, Visit, explain_rows, gaps_of, parts_of, visits_of
from mmdata.find import Found, find_document
from mmdata.state import WHOLE_SHARD
from pipelines.look.runs import open_run
from pipelines.look.tables import console, plain_table
from pipelines.train.run import Run

_ID = 12  # digits of an id or a digest in a table


@dataclass(frozen=True)
class BatchExplained:
    """The rows of one step's batch, or one of them."""

    run: str
    step: int
    seq_len: int
    rows: tuple[ExplainedRow, ...]
    media: dict[str, str]  # source -> how to look at what it keeps, of the sources that keep media

    def to_json(self) -> dict[str, Any]:
        rows = [{**asdict(row), "tokens": row.tokens, "padding": round(row.padding, 6)} for row in self.rows]
        return {**asdict(self), "rows": rows}


@dataclass(frozen=True)
class DocumentSeen:
    """One document of one source, and the steps of a run that see it."""

    run: str
    until: int  # the last step looked at
    document: Found
    parts: tuple[Part, ...]
    gaps: tuple[tuple[int, int], ...]  # places that are in no row
    visits: tuple[Visit, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def explain_step(path: Path, step: int, row: int | None, progress: bool = True) -> BatchExplained:
    """The documents of a step's batch. UserError where the run has no such step, or the step no such row."""
    run, loader, _ = open_run(path, progress=progress)
    _check_step(run, step)
    rows = explain_rows(loader, step, row)
    return BatchExplained(str(path), step, loader.seq_len, tuple(rows), _media(loader, rows))


def explain_document(path: Path, name: str, until: int | None, progress: bool = True) -> list[DocumentSeen]:
    """The steps, up to `until` (none: the run's last), that see the document of an id, of a beginning of one, or of a
    uri; an entry for each source that has it. UserError where there is none, or more than one document."""
    run, loader, _ = open_run(path, progress=progress)
    last = run.settings.steps - 1 if until is None else until
    _check_step(run, last)
    loader.check(last + 1)
    feeds = loader.feeds.feeds
    numbers = {feed.name: number for number, feed in enumerate(feeds)}
    return [
        _seen(str(path), loader, numbers[found.source], found, last)
        for found in find_document({feed.name: feed.source for feed in feeds}, name)
    ]


def print_batch(batch: BatchExplained) -> None:
    """A line a document with a line an item below it; then a line a row."""
    out = console()
    table = plain_table("row", "seg", words=("source", "what", "id", "uri", "epoch", "places", "columns"))
    for row in batch.rows:
        for document in row.documents:
            columns = _span(document.column, document.column + document.length)
            names = (document.source, "document", document.id[:_ID], document.uri, str(document.epoch))
            table.add_row(str(row.row), str(document.segment), *names, _span(document.start, document.stop), columns)
            for span in document.spans:
                kind = f"  {span['kind']}" + (" (kept)" if span["media"] != "none" else "")
                item = ("", kind, span["digest"][:_ID], span["uri"], "", _span(*span["units"]))
                table.add_row(str(row.row), str(document.segment), *item, _span(span["start"], span["stop"]))
        for gone in row.quarantined:
            where = (str(row.epoch), _span(gone.start, gone.stop), _span(gone.column, gone.column + gone.length))
            table.add_row(str(row.row), "", row.source, "quarantined", gone.id[:_ID], gone.uri, *where)
    out.print(table)
    sizes = plain_table("row", "documents", "tokens", f"of {batch.seq_len:,}", "padding", words=("quarantined",))
    for row in batch.rows:
        words = ", ".join(f"{_records(left)} of {left.shard} from step {left.from_step}" for left in row.quarantined)
        filled = (f"{row.tokens:,}", f"{row.tokens / row.seq_len:.2%}", f"{row.padding:.2%}")
        sizes.add_row(str(row.row), str(len(row.documents)), *filled, words)
    out.print(sizes)
    out.print(f"step {batch.step}; places: of the document (items: units of the item), columns: of the row")
    for source, words in batch.media.items():
        out.print(f"{source} keeps media; for example {words}", soft_wrap=True)


def print_seen(found: Sequence[DocumentSeen]) -> None:
    """What the document is, then a line for each time that a part of it is in a batch."""
    out = console()
    for seen in found:
        document = seen.document
        out.print(
            Text(f"{document.id}  {document.uri}  ({document.source}, sample {document.sample})", "bold"),
            soft_wrap=True,
        )
        for start, stop in seen.gaps:
            out.print(f"places {start}:{stop} are in no row: they fit none, or the layout writes nothing of them")
        if document.split != "train":
            out.print(f"it is in the {document.split} split: no training step sees it")
            continue
        table = plain_table("step", "row", "epoch", "part", "columns", "places", words=("",))
        for visit in seen.visits:
            part = seen.parts[visit.part - 1]
            columns, places = _span(visit.column, visit.column + part.length), _span(part.start, part.stop)
            where = (str(visit.step), str(visit.row), str(visit.epoch), f"{visit.part} of {len(seen.parts)}")
            table.add_row(*where, columns, places, "quarantined: padding" if visit.quarantined else "")
        if seen.visits:
            out.print(table)
        times = sum(not visit.quarantined for visit in seen.visits)
        out.print(f"in {times:,} rows of steps 0 to {seen.until:,} of {seen.run}")


def _seen(path: str, loader: mmdata.Loader, number: int, found: Found, last: int) -> DocumentSeen:
    if found.split != loader.split:
        return DocumentSeen(path, last, found, (), (), ())
    feed = loader.feeds.feeds[number]
    parts = parts_of(feed, found.sample)
    gaps = gaps_of(loader, feed, found.sample, parts)
    visits = visits_of(loader, number, found.sample, last + 1)
    return DocumentSeen(path, last, found, tuple(parts), tuple(gaps), tuple(visits))


def _media(loader: mmdata.Loader, rows: Sequence[ExplainedRow]) -> dict[str, str]:
    sources, out = {feed.name: feed.source for feed in loader.feeds.feeds}, {}
    for document in (document for row in rows for document in row.documents):
        for span in document.spans:
            if span["media"] != "none" and document.source not in out:
                source = sources[document.source]
                kept = "pixels or samples" if span["media"] == "resized" else "the original file's bytes"
                opened = f'mmdata.open("{source.files.where}")["{source.name}"]'
                out[document.source] = f'{opened}.media["{span["digest"]}", "{span["kind"]}"]  # {kept}'
    return out


def _check_step(run: Run, step: int) -> None:
    if not 0 <= step < run.settings.steps:
        raise UserError(f"no step {step}: {run.file} has steps 0 to {run.settings.steps - 1} (its key steps says so)")


def _records(left: LeftOut) -> str:
    return "all" if left.record == WHOLE_SHARD else f"record {left.record}"


def _span(start: int, stop: int) -> str:
    return f"{start}:{stop}"
