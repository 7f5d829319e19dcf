"""Datasets that the Hugging Face library saved to disk, read through pyarrow alone: a row is a document.

`dataset_info.json` says which columns are Image, Audio or Video features (bytes and a path), alone or in a list, and
names the classes of ClassLabel columns; they need no options. Texts are the columns the recipe names. Other features
(Translation, Array2D to Array5D, nested structs) are not read. A file of the arrow stream or file form is an input.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, ClassVar

from pipelines.ingest.document import Document, Dropped
from pipelines.ingest.files import has_surrogate, read_text
from pipelines.ingest.folder import Folder, settings_of, uri_of
from pipelines.ingest.media import CANNOT_DECODE, EMPTY, OVER_LIMIT, Limits, MediaError, Meter, one_line, opened
from pipelines.ingest.parquet import guarded, plain_rows, weight_of
from pipelines.ingest.rows import RowOptions, Rows, leftovers_of
from pipelines.ingest.source import Input

_FILES = (".arrow",)
_BESIDE = ("dataset_info.json", "state.json")
_TOP = "dataset_dict.json"
_KINDS = {"Image": "image", "Audio": "audio", "Video": "video"}


class ArrowOptions(RowOptions):
    """The keys of a `format = "hf"` source: which column is what, beyond what dataset_info.json says."""


@dataclass(frozen=True)
class ArrowSource:
    """See the module docstring."""

    name: str
    folder: Folder
    limits: Limits
    Options: ClassVar = ArrowOptions
    follows: ClassVar = True

    @property
    def root(self) -> Path:
        return self.folder.root

    def settings(self) -> dict[str, Any]:
        return settings_of("hf", self.folder)

    def inputs(self) -> list[Input]:
        listed = []
        for path in self.folder.of_suffix(_FILES):
            if not PurePosixPath(path).name.startswith("cache-"):  # what `map` and `filter` left there
                listed.append(Input(path, (path, *self._beside(path)), self.folder.size(path)))
        return listed

    def read(self, input: Input) -> Iterator[Document | Dropped]:
        path = input.path
        try:
            features = self._features(path)
            rows = Rows(self.name, self.folder, self.limits, self._columns(features), path)
            yield from rows.documents(_named(self._rows(path), features), input.step)
        except MediaError as error:
            yield Dropped(self.name, uri_of(path), "ingest", error.reason, error.detail)

    def leftovers(self, shown: Collection[str] | None = None) -> list[Dropped]:
        own = {file for input in self.inputs() for file in input.files}
        own |= {path for path in self.folder.files if PurePosixPath(path).name == _TOP}
        return leftovers_of(self, sorted(own), shown)

    def _beside(self, path: str) -> tuple[str, ...]:
        here = PurePosixPath(path).parent
        return tuple(name for file in _BESIDE if (name := (here / file).as_posix()) in self.folder.names)

    def _features(self, path: str) -> dict[str, Any]:
        """Column -> feature, as dataset_info.json has them; none where there is no such file. Raises MediaError."""
        info = (PurePosixPath(path).parent / _BESIDE[0]).as_posix()
        if info not in self.folder.names:
            return {}
        try:
            features = json.loads(read_text(self.folder.path(info), self.limits))["features"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise MediaError(CANNOT_DECODE, f"{uri_of(info)}: {one_line(error)}") from None
        if has_surrogate(json.dumps(features, ensure_ascii=False)):  # the names of classes become facts
            raise MediaError(CANNOT_DECODE, f"{uri_of(info)}: lone surrogates in the text")
        return features if isinstance(features, dict) else {}

    def _columns(self, features: Mapping[str, Any]) -> RowOptions:
        """The options, with the columns that the features name beside those of the recipe."""
        options = self.folder.options
        assert isinstance(options, RowOptions)
        found: dict[str, list[str]] = {kind: [*getattr(options, kind)] for kind in _KINDS.values()}
        for column, feature in features.items():
            kind = _KINDS.get(_type(feature), "")
            if kind and column not in found[kind]:
                found[kind].append(column)
        return options.model_copy(update={kind: tuple(columns) for kind, columns in found.items()})

    def _rows(self, path: str) -> Iterator[tuple[str, Any]]:
        """(row number, row or why there is none). Raises MediaError."""
        with opened(self.folder.path(path), self.limits) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            meter = Meter(self.limits.max_unpacked(size), f"unpacked of {size:,}")
            number = 0
            for batch in guarded(_batches(_Bounded(file, self.limits))):
                for row in plain_rows(batch):
                    meter.add(weight_of(row))
                    yield str(number), row
                    number += 1
            if not number:
                raise MediaError(EMPTY, "no rows")


class _Bounded:
    """A file for pyarrow that refuses to read what a lying header asks for."""

    closed = False

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self._file, self._most = file, limits.max_text_bytes

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self._most:
            raise MediaError(OVER_LIMIT, f"a piece of {size:,} bytes in an arrow file (max_bytes / 16)")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def flush(self) -> None:
        """pyarrow calls it."""

    def close(self) -> None:
        """The file's owner closes it."""


def _batches(file: _Bounded) -> Iterator[Any]:
    """Record batches of a stream, or of a file with a footer."""
    import pyarrow as pa

    footer = file.read(6) == b"ARROW1"
    file.seek(0)
    source = pa.PythonFile(file, mode="r")
    if not footer:
        yield from pa.ipc.open_stream(source)
        return
    reader = pa.ipc.open_file(source)
    for i in range(reader.num_record_batches):
        yield reader.get_batch(i)


def _named(rows: Iterator[tuple[str, Any]], features: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The rows with the numbers of ClassLabel columns as the names of the classes."""
    classes = {
        column: feature["names"]
        for column, feature in features.items()
        if _type(feature) == "ClassLabel" and isinstance(feature.get("names"), list)
    }
    for fragment, row in rows:
        if isinstance(row, dict):
            for column, names in classes.items():
                value = row.get(column)
                if isinstance(value, int) and 0 <= value < len(names):
                    row[column] = str(names[value])
        yield fragment, row


def _type(feature: Any) -> str:
    """The name of a feature's type; of a list, that of what it holds."""
    if isinstance(feature, list):  # [{"_type": "Image"}]
        feature = feature[0] if feature else {}
    if not isinstance(feature, dict):
        return ""
    inner = feature.get("feature")
    if feature.get("_type") in ("Sequence", "List", "LargeList") and isinstance(inner, dict):
        return str(inner.get("_type", ""))
    return str(feature.get("_type", ""))
