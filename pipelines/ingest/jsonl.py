"""JSON lines, plain or gzipped: one record a line, one document a record.

A record has a text, and may have media: files beside it, or `data:` addresses. Or it has `parts`, an ordered list of
`{"kind": "text", "text": ...}` and `{"kind": "image", "path": ...}`. Identical lines are all kept, told apart by their
occurrence number. A bad line is a ledger line; the lines after it are read.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from pipelines.ingest.document import Document, Dropped, Part
from pipelines.ingest.files import has_surrogate, unpacked
from pipelines.ingest.folder import Folder, language_tag, settings_of, uri_of
from pipelines.ingest.media import CANNOT_DECODE, EMPTY, Limits, MediaError
from pipelines.ingest.records import bounded_lines, json_of, short_facts, string_or_empty
from pipelines.ingest.reference import References
from pipelines.ingest.rows import leftovers_of
from pipelines.ingest.source import CommonOptions, Input

_FILES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json.gz")
_MEDIA = ("image", "audio", "video")


class JsonlOptions(CommonOptions):
    """The keys of a `format = "jsonl"` source: which field of a record is what."""

    text: str = Field("text", description="field of the text")
    image: str = Field("image", description="field of the image: a path from the file's folder, or a data: address")
    audio: str = Field("audio", description="field of the sound")
    video: str = Field("video", description="field of the video")
    parts: str = Field("parts", description="field of an ordered list of parts, instead of the four above")
    sha256: str = Field("sha256", description="field, of a record or of one of its parts, with the medium's digest")
    mirror: str = Field("", description="folder with copies of remote media, as `wget -x` writes them: HOST/PATH")
    id: str = Field("", description="field that names a record for good; empty: the line itself does")
    lang: str = Field("lang", description="field of the language")
    rights: str = Field("licence", description="field of the licence")
    date: str = Field("created", description="field of the date, ISO 8601")


@dataclass(frozen=True)
class JsonlSource:
    """See the module docstring."""

    name: str
    folder: Folder
    limits: Limits
    Options: ClassVar = JsonlOptions
    follows: ClassVar = True

    @property
    def root(self) -> Path:
        return self.folder.root

    def settings(self) -> dict[str, Any]:
        return settings_of("jsonl", self.folder)

    def inputs(self) -> list[Input]:
        return [Input(path, (path,), self.folder.size(path)) for path in self.folder.of_suffix(_FILES)]

    def read(self, input: Input) -> Iterator[Document | Dropped]:
        seen: Counter[str] = Counter()
        blank = True
        for number, line in enumerate(self._lines(input.path), 1):
            blank = blank and not isinstance(line, MediaError) and not line.strip()
            if isinstance(line, MediaError):
                uri = uri_of(input.path, f"L{number}")
                yield Dropped(self.name, uri, "ingest", line.reason, line.detail)
            elif line.strip():
                yield from self._record(input.path, line, number, seen)
        if blank:
            yield Dropped(self.name, uri_of(input.path), "ingest", EMPTY, "no record in its lines")

    def leftovers(self, shown: Collection[str] | None = None) -> list[Dropped]:
        return leftovers_of(self, self.folder.of_suffix(_FILES), shown)

    @property
    def _references(self) -> References:
        return References(self.name, self.folder, self.limits, self._options.mirror)

    @property
    def _options(self) -> JsonlOptions:
        assert isinstance(self.folder.options, JsonlOptions)
        return self.folder.options

    def _lines(self, path: str) -> Iterator[bytes | MediaError]:
        """Lines one by one, so that a file larger than memory streams; a MediaError where reading ends early."""
        try:
            with unpacked(self.folder.path(path), self.limits) as file:
                yield from bounded_lines(file, self.limits)
        except MediaError as error:
            yield error

    def _record(self, path: str, line: bytes, number: int, seen: Counter[str]) -> Iterator[Document | Dropped]:
        options, uri = self._options, uri_of(path, f"L{number}")
        record = _parse(line)
        if isinstance(record, str):
            yield Dropped(self.name, uri, "ingest", CANNOT_DECODE, record)
            return
        key = str(record[options.id]) if options.id in record else hashlib.sha256(line.strip()).hexdigest()
        parts = []
        for kind, value, sha256 in self._values(record):
            part = self._part(path, uri, kind, value, sha256)
            if isinstance(part, Dropped):
                yield part
            elif part is not None:
                parts.append(part)
        if parts:
            yield self.folder.document(
                self.name,
                path,
                parts,
                key=key,
                occurrence=seen[key],
                fragment=f"L{number}",
                language=language_tag(string_or_empty(record.get(options.lang))),
                licence=string_or_empty(record.get(options.rights)),
                created=string_or_empty(record.get(options.date)),
                metadata=self._metadata(record),
            )
        else:
            yield Dropped(self.name, uri, "ingest", EMPTY, f"the record has no field {options.text!r} and no media")
        seen[key] += 1

    def _values(self, record: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
        """(kind, text or address, digest or "") of each part in order."""
        options = self._options
        if isinstance(record.get(options.parts), list):
            for part in record[options.parts]:
                kind = part.get("kind", "") if isinstance(part, dict) else ""
                value = part.get("text" if kind == "text" else "path") if kind else None
                yield kind, value, string_or_empty(part.get(options.sha256)) if kind else ""
            return
        digest = string_or_empty(record.get(options.sha256))
        fields = (("text", options.text), ("image", options.image), ("audio", options.audio), ("video", options.video))
        for kind, field in fields:
            if record.get(field) not in (None, "", []):
                values = record[field] if isinstance(record[field], list) else [record[field]]
                yield from ((kind, value, "" if kind == "text" else digest) for value in values)

    def _part(self, path: str, uri: str, kind: str, value: Any, sha256: str) -> Part | Dropped | None:
        if kind not in ("text", *_MEDIA) or not isinstance(value, str):
            return Dropped(self.name, uri, "ingest", CANNOT_DECODE, f"a part of kind {kind!r} that is not a string")
        if kind == "text":
            return Part("text", text=value, uri=uri) if value.strip() else None
        return self._references.part(path, value, kind, uri, sha256)

    def _metadata(self, record: dict[str, Any]) -> dict[str, str]:
        """Other short fields of the record, as words."""
        options = self._options
        used = {options.text, options.image, options.audio, options.video, options.parts, options.lang, options.rights}
        used.add(options.date)
        return short_facts(record, used)


def _parse(line: bytes) -> dict[str, Any] | str:
    """The record, or what is wrong with the line."""
    try:
        record = json_of(line)
        lone = b"\\u" in line and has_surrogate(json.dumps(record, ensure_ascii=False))
    except (ValueError, RecursionError) as error:
        return f"not JSON: {' '.join(str(error).split())[:150]}"
    if not isinstance(record, dict):
        return f"a {type(record).__name__}, not an object"
    return "lone surrogates in the text" if lone else record
