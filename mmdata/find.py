"""Finding a document by its id, by a beginning of it, or by its uri, in the catalogs of some sources.

Only the columns asked about are opened, a shard at a time in a few threads, and compared by pyarrow. Record shards are
never opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from mmdata.catalog import likeness, rows_equal, rows_starting
from mmdata.dataset import Source, Split
from mmdata.errors import UserError

ID_DIGITS = 32  # of a document's id, in hex
_HEX = frozenset("0123456789abcdef")
_THREADS = 8
_NEAR = 3  # documents named where none was found
_ALIKE = 0.5  # of `likeness`: less is not near
_SHOWN = 4  # documents named where several were found

Match = Callable[[Any, str, str], np.ndarray]  # (catalog rows, column, text) -> the rows that match
_Place = tuple[str, str, Split, int]  # source, split by name and itself, number of the sample


@dataclass(frozen=True)
class Found:
    """A document, and where its record is."""

    source: str  # name, as the caller has it
    split: str
    sample: int  # number in the split
    id: str
    uri: str


def find_document(sources: Mapping[str, Source], text: str) -> list[Found]:
    """The document of an id, of the beginning of one, or of a uri: one entry for each source that has it.

    Raises UserError in one line where it is none (naming near ones), or more than one.
    """
    text = text.strip()
    if not text:
        raise UserError("no document is named '': give an id, the beginning of one, or a uri")
    places: list[_Place] = []
    if set(text) <= _HEX and len(text) <= ID_DIGITS:
        whole = len(text) == ID_DIGITS
        places = _search(sources, "id", rows_equal if whole else rows_starting, text, once=whole)
    if not places:
        places = _search(sources, "uri", rows_equal, text)
    if not places:
        raise UserError(f"no document has the id or the uri {text!r}{_near(sources, text)}")
    found = [_document(*place) for place in places[: max(_SHOWN, len(sources))]]
    if len(places) > len(found) or len({document.id for document in found}) > 1:
        shown = ", ".join(f"{document.id} ({document.uri})" for document in found[:_SHOWN])
        more = ", ..." if len(places) > _SHOWN else ""
        raise UserError(f"{len(places):,} documents are {text!r}: name one by its id: {shown}{more}")
    return found


def samples_where(data: Split, column: str, match: Match, text: str, once: bool = False) -> list[int]:
    """The samples of a split whose catalog rows match; `once`: the first shard's that has some, the rest unopened."""
    out: list[int] = []
    for first, table in _tables(data, [column]):
        out += [first + row for row in match(table, column, text).tolist()]
        if once and out:
            break
    return out


def column_of(split: Split, column: str) -> np.ndarray:  # int64 [n]
    """A catalog column of numbers, of all samples of a split."""
    tables = _tables(split, [column])
    return np.concatenate([np.zeros(0, np.int64), *(table.column(0).to_numpy() for _, table in tables)])


def _search(sources: Mapping[str, Source], column: str, match: Match, text: str, once: bool = False) -> list[_Place]:
    """Where the rows that match are; `once`: a source has at most one, so no more of it is opened."""
    out: list[_Place] = []
    for name, source in sources.items():
        for split, data in source.splits.items():
            found = samples_where(data, column, match, text, once)
            out += [(name, split, data, sample) for sample in found]
            if once and found:
                break
    return out


def _document(source: str, split: str, data: Split, sample: int) -> Found:
    (row,) = data.catalog(["id", "uri"], sample, sample + 1).to_pylist()
    return Found(source, split, sample, row["id"], row["uri"])


def _near(sources: Mapping[str, Source], text: str) -> str:
    """`; near are a.html (0a1b...), ...`: the documents whose id or uri has most of what was asked for."""
    best: list[tuple[float, str, str]] = []
    for source in sources.values():
        for data in source.splits.values():
            for _, table in _tables(data, ["id", "uri"]):
                like = np.maximum(likeness(table, "id", text), likeness(table, "uri", text))
                rows = np.argsort(-like, kind="stable")[:_NEAR]
                ids, uris = (table.column(name).take(rows).to_pylist() for name in ("id", "uri"))
                best += zip((-like[rows]).tolist(), uris, ids)
        best = sorted(best)[:_NEAR]
    near = [f"{uri} ({id})" for like, uri, id in best if like <= -_ALIKE]
    return f"; near are {', '.join(near)}" if near else "; `mmdata show DATASET` lists some"


def _tables(data: Split, columns: Sequence[str]) -> Iterator[tuple[int, Any]]:
    """(first sample, catalog rows) of each shard in order, a few read ahead."""
    bounds = data.shard_bounds.tolist()
    spans = list(pairwise(bounds))
    with ThreadPoolExecutor(_THREADS) as pool:
        for begin in range(0, len(spans), 4 * _THREADS):  # not all at once: who has found what it seeks leaves
            some = spans[begin : begin + 4 * _THREADS]
            tables = pool.map(lambda span: data.catalog(columns, *span), some)
            yield from zip((first for first, _ in some), tables)
