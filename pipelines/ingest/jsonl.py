"""JSON lines, plain or gzipped: one record a line, one document a record.

A record has a text, and may have media: files beside it, or `data:` addresses. Or it has `parts`, an ordered list of
`{"kind": "text", "text": ...}` and `{"kind": "image", "path": ...}`. Identical lines are all kept, told apart by their
occurrence number. A bad line is a ledger line; the lines after it are read.

A plain file is read in ranges of 64 MB, each with the lines that begin in it, so its size has no limit: only that of a
line has. Line numbers, which uris are made of, are of the file: a worker counts the line ends before its range, at
2.9 GB/s, and remembers them for the next range of the file. To count them where inputs are listed would take as long
at each command, also where nothing runs. Records of one key in two ranges have one id, as no range knows the other's:
the first of them becomes a sample, the others are ledger lines ("same id").
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from pydantic import Field

from pipelines.ingest.document import Document, Dropped, Part
from pipelines.ingest.files import has_surrogate, unpacked
from pipelines.ingest.folder import Folder, language_tag, settings_of, uri_of
from pipelines.ingest.media import CANNOT_DECODE, EMPTY, Limits, MediaError, opened
from pipelines.ingest.records import bounded_lines, json_of, short_facts, string_or_empty
from pipelines.ingest.reference import References
from pipelines.ingest.rows import leftovers_of
from pipelines.ingest.source import CommonOptions, Input

_FILES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json.gz")
_MEDIA = ("image", "audio", "video")
_RANGE = 64 << 20  # bytes
_AT_ONCE = 1 << 20  # bytes read to count line ends
_ANY_SIZE = 1 << 62  # bytes of a plain file


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
        listed = []
        for path in self.folder.of_suffix(_FILES):
            size = self.folder.size(path)
            begins = range(0, size, _RANGE) if size > _RANGE and not path.lower().endswith(".gz") else range(1)
            for i, begin in enumerate(begins):
                end = begin + _RANGE if i + 1 < len(begins) else None  # the last has what the file grows by
                name = f"{path}#{i:05d}" if i else path
                listed.append(Input(name, (path,), min(size, end or size) - begin, begin, end))
        return listed

    def read(self, input: Input) -> Iterator[Document | Dropped]:
        path, seen, blank = input.files[0], Counter[str](), True
        for number, line in self._lines(input):
            uri = uri_of(path, f"L{number}") if number else uri_of(input.path)
            blank = blank and not isinstance(line, MediaError) and not line.strip()
            try:
                if isinstance(line, MediaError):
                    raise line
                if line.strip():
                    input.step(uri)
                    yield from self._record(path, line, number, seen)
            except MediaError as error:
                yield Dropped(self.name, uri, "ingest", error.reason, error.detail)
        if blank and not input.begin and input.end is None:
            yield Dropped(self.name, uri_of(path), "ingest", EMPTY, "no record in its lines")

    def leftovers(self, shown: Collection[str] | None = None) -> list[Dropped]:
        return leftovers_of(self, self.folder.of_suffix(_FILES), shown)

    @property
    def _references(self) -> References:
        return References(self.name, self.folder, self.limits, self._options.mirror)

    @property
    def _options(self) -> JsonlOptions:
        assert isinstance(self.folder.options, JsonlOptions)
        return self.folder.options

    def _lines(self, input: Input) -> Iterator[tuple[int, bytes | MediaError]]:
        """(number, line) one by one, so that a file larger than memory streams; a MediaError where reading ends early,
        of number 0 where no line of the range was reached."""
        path, number = self.folder.path(input.files[0]), 0
        try:
            with opened(path, replace(self.limits, max_bytes=_ANY_SIZE)) as file:
                packed = file.read(2) == b"\x1f\x8b"
            if packed and input.begin:
                return  # whatever its name says, it is read whole, by the first range
            if packed:
                with unpacked(path, self.limits) as file:
                    for number, line in enumerate(bounded_lines(file, self.limits), 1):
                        yield number, line
                return
            with unpacked(path, replace(self.limits, max_bytes=_ANY_SIZE)) as file:
                for number, line in _range_lines(file, path, input, self.limits):
                    yield number, line
        except MediaError as error:
            yield number + 1 if number or not input.begin else 0, error

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


def _range_lines(file: BinaryIO, path: Path, input: Input, limits: Limits) -> Iterator[tuple[int, bytes | MediaError]]:
    """(number, line) of the lines that begin in the input's range. Raises MediaError where the file is shorter now."""
    begin, end, number = input.begin, input.end, 1
    if begin:
        found = os.fstat(file.fileno())
        if found.st_size <= begin:
            raise MediaError(CANNOT_DECODE, f"the file ends before byte {begin:,}: it changed after it was listed")
        known = _known_line_ends(path, found.st_size, found.st_mtime_ns)
        number += _line_ends(file, begin, known, lambda: input.step(input.path))
        file.seek(begin - 1)  # a line that begins before the range is not of it
        while not (piece := file.readline(_AT_ONCE)).endswith(b"\n"):
            input.step(input.path)
            if not piece or (end is not None and file.tell() >= end):
                return
        number += file.tell() > begin
    place, lines = file.tell(), bounded_lines(file, limits)
    while (end is None or place < end) and (line := next(lines, None)) is not None:
        yield number, line
        number += 1
        place = file.tell() if isinstance(line, MediaError) else place + len(line)


@functools.lru_cache(maxsize=4)
def _known_line_ends(path: Path, size: int, time_ns: int) -> dict[int, int]:
    """Of a file as it is now: place -> line ends before it, of the places up to which this process has counted."""
    return {0: 0}


def _line_ends(file: BinaryIO, place: int, known: dict[int, int], alive: Callable[[], None]) -> int:
    """The line ends in the first `place` bytes, counted on from the nearest place in `known`, which gets this one."""
    at = max(begin for begin in known if begin <= place)
    count = known[at]
    file.seek(at)
    while at < place and (data := file.read(min(_AT_ONCE, place - at))):
        count += data.count(b"\n")
        at += len(data)
        alive()
    known[place] = count
    return count


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
