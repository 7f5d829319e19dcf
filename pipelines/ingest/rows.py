"""Rows of a table to documents: what the columns of Parquet files, of Arrow files and of TFDS datasets have in common.

A row is a dict of plain values. A column may hold a text, a list of texts, bytes of a medium, a struct with `bytes` and
`path` (as the datasets library stores images and sound), a path or a `data:` address, or a list of those.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from pipelines.ingest.document import Document, Dropped, Part
from pipelines.ingest.files import has_surrogate, kind_of
from pipelines.ingest.folder import NO_SOURCE, UNREFERRED, Folder, language_tag, uri_of
from pipelines.ingest.media import CANNOT_DECODE, EMPTY, Limits, MediaError, Meter
from pipelines.ingest.records import short_facts, string_or_empty
from pipelines.ingest.reference import References, check_digest
from pipelines.ingest.source import CommonOptions
from pipelines.ingest.webdataset import captioned

_MEDIA = ("image", "audio", "video")


class RowOptions(CommonOptions):
    """The columns of a table. Never built itself: each format has its own model."""

    text: tuple[str, ...] = Field(("text",), description="columns of texts")
    image: tuple[str, ...] = Field(("image", "images"), description="columns of images")
    audio: tuple[str, ...] = Field(("audio",), description="columns of sounds")
    video: tuple[str, ...] = Field(("video",), description="columns of videos")
    caption: tuple[str, ...] = Field(("caption",), description="columns whose text is the caption of the first medium")
    sha256: str = Field("sha256", description="column with the digest of the row's one medium; another is left out")
    id: str = Field("", description="column that names a row for good; empty: its content does")
    lang: str = Field("lang", description="column of the language")
    rights: str = Field("licence", description="column of the licence")
    date: str = Field("created", description="column of the date, ISO 8601")

    @property
    def read(self) -> tuple[str, ...]:
        """The columns with content."""
        return (*self.caption, *self.text, *self.image, *self.audio, *self.video)


@dataclass(frozen=True)
class Rows:
    """Makes the documents of one range of a file. `lead` tells equal rows of several ranges apart, where they have no
    id."""

    source: str
    folder: Folder
    limits: Limits
    options: RowOptions
    path: str
    lead: str = ""

    def documents(
        self, rows: Iterator[tuple[str, Mapping[str, Any] | MediaError]], step: Callable[[str], None]
    ) -> Iterator[Document | Dropped]:
        """Of (fragment, row or why there is none) pairs, in order; `step` is that of the input."""
        seen: Counter[str] = Counter()
        for fragment, row in rows:
            uri = uri_of(self.path, fragment)
            try:
                if isinstance(row, MediaError):
                    raise row
                step(uri)
            except MediaError as error:
                yield Dropped(self.source, uri, "ingest", error.reason, error.detail)
            else:
                yield from self._row(fragment, row, seen)

    def _row(self, fragment: str, row: Mapping[str, Any], seen: Counter[str]) -> Iterator[Document | Dropped]:
        options, uri = self.options, uri_of(self.path, fragment)
        parts: list[Part] = []
        meter = Meter(self.limits.max_text_bytes, "in a record (max_bytes / 16)")
        for kind, column in self._columns(row):
            for value in _values(row[column]):
                found = self._part(kind, value, uri, meter, string_or_empty(row.get(options.sha256)))
                if isinstance(found, Dropped):
                    yield found
                elif found is not None:
                    parts.append(found)
        if not parts:
            yield Dropped(self.source, uri, "ingest", EMPTY, f"no content in the columns {sorted(options.read)}")
            return
        key = str(row[options.id]) if row.get(options.id) is not None else f"{self.lead}{_digest(parts)}"
        if any(row.get(column) for column in options.caption):
            parts = captioned(parts)
        yield self.folder.document(
            self.source,
            self.path,
            parts,
            key=key,
            occurrence=seen[key],
            fragment=fragment,
            language=language_tag(string_or_empty(row.get(options.lang))),
            licence=string_or_empty(row.get(options.rights)),
            created=string_or_empty(row.get(options.date)),
            metadata=short_facts(row, {*options.read, options.lang, options.rights, options.date}),
        )
        seen[key] += 1

    def _columns(self, row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        options = self.options
        kinds = ("text", options.caption), ("text", options.text), *((kind, getattr(options, kind)) for kind in _MEDIA)
        for kind, columns in kinds:
            yield from ((kind, column) for column in columns if row.get(column) is not None)

    def _part(self, kind: str, value: Any, uri: str, meter: Meter, sha256: str) -> Part | Dropped | None:
        """The part of one value, None where it is empty."""
        references = References(self.source, self.folder, self.limits)
        try:
            if kind == "text":
                return _text(value, uri, meter)
            if isinstance(value, Mapping):
                value = value.get("bytes") or value.get("path") or b""
            if isinstance(value, str):
                return references.part(self.path, value, kind, uri, sha256)
            if not isinstance(value, bytes | bytearray):
                raise MediaError(CANNOT_DECODE, f"a {kind} that is a {type(value).__name__}")
            if not value:
                raise MediaError(EMPTY, f"no bytes of the {kind}")
            meter.add(len(value))
            part = Part(kind, data=bytes(value), uri=uri)
            check_digest(part, sha256)
            return part
        except MediaError as error:
            return Dropped(self.source, uri, "ingest", error.reason, error.detail)


def leftovers_of(source: Any, files: list[str], shown: Collection[str] | None) -> list[Dropped]:
    """A line for each file that is none of these and that no document of `source` (a Source with a folder) shows."""
    folder = source.folder
    media = frozenset(path for path in folder.files if kind_of(path))
    if shown is None:  # records are read only where there is something that they might refer to
        shown = shown_by(source) if media else ()
    return folder.leftovers(source.name, {*files, *shown}, lambda path: UNREFERRED if path in media else NO_SOURCE)


def shown_by(source: Any) -> set[str]:
    """The files under the root that the documents of `source` show, by reading them all."""
    found = (one for input in source.inputs() for one in source.read(input) if isinstance(one, Document))
    paths = (part.path for document in found for part in document.parts if part.path is not None)
    return {path.relative_to(source.root).as_posix() for path in paths}


def _text(value: Any, uri: str, meter: Meter) -> Part | None:
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise MediaError(CANNOT_DECODE, f"not UTF-8 at byte {error.start}") from None
    if not isinstance(value, str):
        raise MediaError(CANNOT_DECODE, f"a text that is a {type(value).__name__}")
    if has_surrogate(value):
        raise MediaError(CANNOT_DECODE, "lone surrogates in the text")
    meter.add(len(value))
    return Part("text", text=value, uri=uri) if value.strip() else None


def _values(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _digest(parts: list[Part]) -> str:
    words = hashlib.sha256()
    for part in parts:
        data = part.uri.encode() if part.path is not None else part.read()
        words.update(f"{part.kind}:{len(data)}:".encode() + data)
    return words.hexdigest()
