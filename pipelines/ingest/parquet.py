"""Parquet files: a row is a document, its columns by options; a file is read in ranges of row groups.

A range is a stretch of bytes of the file, and has the row groups that begin in it: so a file is cut for the workers
without being read. Equal rows without an id are told apart by range and occurrence, so rows keep their ids when others
come before them in a file of one range (32 MB); in a larger one, where they stay in their range. A row group is decoded
in small batches.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pipelines.ingest.document import Document, Dropped
from pipelines.ingest.folder import Folder, settings_of, uri_of
from pipelines.ingest.media import EMPTY, Limits, MediaError, Meter, opened, refused
from pipelines.ingest.rows import RowOptions, Rows, leftovers_of
from pipelines.ingest.source import Input

_FILES = (".parquet", ".pq", ".parq")
_RANGE = 32 << 20  # bytes
_BATCH_ROWS = 256
_AT_ONCE = 16  # rows made into Python objects
_BATCH_BYTES = 8 << 20  # decoded at a time, by the sizes that the file declares


class ParquetOptions(RowOptions):
    """The keys of a `format = "parquet"` source: which column is what."""


@dataclass(frozen=True)
class ParquetSource:
    """See the module docstring."""

    name: str
    folder: Folder
    limits: Limits
    Options: ClassVar = ParquetOptions
    follows: ClassVar = True

    @property
    def root(self) -> Path:
        return self.folder.root

    def settings(self) -> dict[str, Any]:
        return settings_of("parquet", self.folder)

    def inputs(self) -> list[Input]:
        listed = []
        for path in self.folder.of_suffix(_FILES):
            size = self.folder.size(path)
            cuts = max(1, -(-size // _RANGE))
            listed += [Input(f"{path}#{i:05d}", (path,), size // cuts) for i in range(cuts)]
        return listed

    def read(self, input: Input) -> Iterator[Document | Dropped]:
        path, number = input.files[0], int(input.path.rpartition("#")[2])
        try:
            with opened(self.folder.path(path), self.limits) as file:
                lead = f"{number}:" if number else ""
                rows = Rows(self.name, self.folder, self.limits, self._options, path, lead)
                yield from rows.documents(range_rows(file, self.limits, number), input.step)
        except MediaError as error:
            yield Dropped(self.name, uri_of(path, f"range {number}"), "ingest", error.reason, error.detail)

    def leftovers(self, shown: Collection[str] | None = None) -> list[Dropped]:
        return leftovers_of(self, self.folder.of_suffix(_FILES), shown)

    @property
    def _options(self) -> RowOptions:
        assert isinstance(self.folder.options, RowOptions)
        return self.folder.options


def range_rows(file: Any, limits: Limits, number: int) -> Iterator[tuple[str, Any]]:
    """(fragment, row or why there is none) of the row groups of range `number`; of one that breaks what came before,
    and why there is no more of it. Raises MediaError."""
    size = file.seek(0, os.SEEK_END)
    meter = Meter(limits.max_unpacked(size), f"unpacked of {size:,} (max_expansion)")
    table, groups = _open(file, size, number)
    for group in groups:
        try:
            yield from _rows(table, group, meter)
        except MediaError as error:
            if meter.left < 0:
                raise
            yield f"group {group}", error


def table_rows(file: Any, limits: Limits) -> Iterator[tuple[str, Any]]:
    """The rows of a whole file, as those of one of its ranges are. Raises MediaError."""
    size = file.seek(0, os.SEEK_END)
    for number in range(max(1, -(-size // _RANGE))):
        yield from range_rows(file, limits, number)


def _open(file: Any, size: int, number: int) -> tuple[Any, list[int]]:
    """(the open table, its row groups that begin in range `number`). Raises MediaError."""
    import pyarrow.parquet as pq

    try:
        # A dictionary stays one: a value of it may stand for millions of rows.
        table = pq.ParquetFile(file, read_dictionary=_texts(pq.read_schema(file)))
        begins = [_begin(table.metadata.row_group(i)) for i in range(table.metadata.num_row_groups)]
    except Exception as error:  # ArrowException, OSError, ValueError, ... on broken files
        raise refused(error) from None
    if not table.metadata.num_rows and not number:
        raise MediaError(EMPTY, "no rows")
    last = max(0, -(-size // _RANGE) - 1)  # an offset that lies must not lose its row group
    return table, [i for i, begin in enumerate(begins) if min(max(0, begin // _RANGE), last) == number]


def _texts(schema: Any) -> list[str]:
    """The columns of strings and bytes that are not inside another."""
    import pyarrow.types as kinds

    return [f.name for f in schema if kinds.is_string(f.type) or kinds.is_binary(f.type)]


def _begin(group: Any) -> int:
    """The byte at which a row group begins."""
    columns = [group.column(i) for i in range(group.num_columns)]
    return min((c.dictionary_page_offset or c.data_page_offset for c in columns), default=0)


def _rows(table: Any, group: int, meter: Meter) -> Iterator[tuple[str, Any]]:
    """(fragment, row or why there is none) of a row group, decoded in small batches. Raises MediaError."""
    about = table.metadata.row_group(group)
    mean = max(1, about.total_byte_size // max(1, about.num_rows))
    most = min(_BATCH_ROWS, max(1, _BATCH_BYTES // mean))
    number = 0
    for batch in guarded(table.iter_batches(most, row_groups=[group], use_threads=False)):
        for row in plain_rows(batch):
            meter.add(weight_of(row))
            yield f"{group}.{number}", row
            number += 1


def weight_of(row: Any) -> int:
    """About how many bytes a row takes: rows of nothing count too."""
    if isinstance(row, str | bytes):
        return 16 + len(row)
    if isinstance(row, dict | list):
        return 16 + sum(map(weight_of, row.values() if isinstance(row, dict) else row))
    return 16


def guarded(batches: Iterator[Any]) -> Iterator[Any]:
    """Record batches; what pyarrow raises on broken files becomes MediaError."""
    while True:
        try:
            batch = next(batches, None)
        except MediaError:
            raise
        except Exception as error:  # ArrowException, OSError, ValueError ...
            raise refused(error) from None
        if batch is None:
            return
        yield batch


def plain_rows(batch: Any) -> Iterator[Any]:
    """The rows of a record batch as dicts, each checked (offsets and UTF-8); MediaError for one that is broken."""
    try:
        batch.validate(full=True)
    except Exception:  # one row at a time, so that only the broken ones are lost
        for i in range(batch.num_rows):
            yield _one_row(batch, i)
        return
    for begin in range(0, batch.num_rows, _AT_ONCE):
        try:
            rows = batch.slice(begin, _AT_ONCE).to_pylist()
        except Exception:  # as above; `_one_row` says what it was
            rows = [_one_row(batch, i) for i in range(begin, min(begin + _AT_ONCE, batch.num_rows))]
        yield from rows


def _one_row(batch: Any, number: int) -> Any:
    import pyarrow as pa

    try:
        columns = [
            one.dictionary_decode() if isinstance(one, pa.DictionaryArray) else one
            for one in batch.slice(number, 1).columns
        ]
        for column in columns:
            column.validate(full=True)
        return {name: column[0].as_py() for name, column in zip(batch.schema.names, columns)}
    except Exception as error:  # ArrowException, UnicodeDecodeError, OverflowError of dates ...
        return refused(error)
