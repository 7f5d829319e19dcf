"""Records of JSON files one by one: a line each, or the elements of one list, streamed; and what their formats have in
common."""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmdata.catalog import QUALITY
from pipelines.ingest.document import Document, Dropped
from pipelines.ingest.files import has_surrogate, unpacked
from pipelines.ingest.folder import uri_of
from pipelines.ingest.media import CANNOT_DECODE, EMPTY, OVER_LIMIT, Limits, MediaError, one_line
from pipelines.ingest.source import Input

FILES = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".ndjson", ".ndjson.gz")

_AT_ONCE = 1 << 16  # characters


def json_records(path: Path, limits: Limits) -> Iterator[dict[str, Any] | MediaError]:
    """The objects of a file, each or why there is none; after a MediaError of a list nothing more can be read.

    Raises MediaError where the file itself cannot be read.
    """
    with unpacked(path, limits) as file:
        head = file.read(64).lstrip(codecs.BOM_UTF8).lstrip()
        file.seek(0)
        yield from _elements(file, limits) if head.startswith(b"[") else _lines(file, limits)


def documents_of(
    source: str, input: Input, records: Iterable[Any], document: Callable[[str, Any], Iterator[Document | Dropped]]
) -> Iterator[Document | Dropped]:
    """What the records of a file come to, each by `document(number, record)`, which may raise MediaError; a ledger line
    for each that is an error, or where the file breaks off."""
    number, path = 0, input.path
    try:
        for number, record in enumerate(records, 1):
            try:
                if isinstance(record, MediaError):
                    raise record
                input.step(uri_of(path, str(number)))
                yield from document(str(number), record)
            except MediaError as error:
                yield Dropped(source, uri_of(path, str(number)), "ingest", error.reason, error.detail)
            except RecursionError as error:  # of its digest: a record may be nested as deep as can just be read
                yield Dropped(source, uri_of(path, str(number)), "ingest", CANNOT_DECODE, one_line(error))
    except MediaError as error:
        yield Dropped(source, uri_of(path), "ingest", error.reason, error.detail)
        return
    if not number:
        yield Dropped(source, uri_of(path), "ingest", EMPTY, "no records")


def record_digest(record: Any) -> str:
    """The key of a record that has no id."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, default=str).encode()).hexdigest()


def string_or_empty(value: Any) -> str:
    """A field's text, "" where it is none."""
    return value if isinstance(value, str) else ""


def short_facts(record: Mapping[str, Any], used: set[str]) -> dict[str, str]:
    """The short values of a record that say something of the document, as words; of qualities those that are numbers,
    as the catalog has them."""
    return {
        str(key): str(value)[:500]
        for key, value in record.items()
        if key not in used
        and isinstance(value, str | int | float)
        and not has_surrogate(f"{key}{value}")
        and (not str(key).startswith(QUALITY) or _is_number(value))
    }


def json_of(line: bytes) -> Any:
    """The value of a line. Raises ValueError where it is no UTF-8 or no JSON: `json.loads` of bytes would guess at
    UTF-16, of which a line is half a character too long, and let lone surrogates pass."""
    return json.loads(line.decode("utf-8-sig"))


def bounded_lines(file: Any, limits: Limits) -> Iterator[bytes | MediaError]:
    """The lines of a file; of one that is too long, what is wrong."""
    most = limits.max_text_bytes
    while line := file.readline(most + 1):
        if len(line) <= most:
            yield line
            continue
        while not line.endswith(b"\n") and (line := file.readline(most)):
            pass
        yield MediaError(OVER_LIMIT, f"a line of more than {most:,} bytes (max_bytes / 16)")


def _lines(file: Any, limits: Limits) -> Iterator[dict[str, Any] | MediaError]:
    for line in bounded_lines(file, limits):
        if isinstance(line, MediaError):
            yield line
        elif line.strip():
            try:
                yield _checked(json_of(line))
            except (ValueError, RecursionError) as error:
                yield MediaError(CANNOT_DECODE, f"not JSON: {one_line(error)}")
            except MediaError as error:
                yield error


def _elements(file: Any, limits: Limits) -> Iterator[dict[str, Any] | MediaError]:
    """The elements of a list, without the list in memory."""
    reader, decoder, opened = _Characters(file), json.JSONDecoder(), False
    while True:
        try:
            if not opened:
                reader.skip("\ufeff \t\r\n")
                reader.begin += 1  # the bracket
                opened = True
            reader.skip(" \t\r\n,")
            if reader.peek() in ("]", ""):
                if not reader.peek():
                    yield MediaError(CANNOT_DECODE, "the list breaks off")
                return
            record = reader.value(decoder, limits.max_text_bytes)
        except MediaError as error:
            yield error
            return
        except (ValueError, RecursionError) as error:
            yield MediaError(CANNOT_DECODE, f"not JSON: {one_line(error)}")
            return
        try:
            yield _checked(record)
        except MediaError as error:
            yield error


class _Characters:
    """A window on a file's characters."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8")()
        self._ended = False
        self._text = ""
        self.begin = 0

    def skip(self, characters: str) -> None:
        while self.peek() and self.peek() in characters:
            self.begin += 1

    def peek(self) -> str:
        """The next character, "" at the end. Raises ValueError where the bytes are not UTF-8."""
        if self.begin >= len(self._text):
            self._more()
        return self._text[self.begin : self.begin + 1]

    def value(self, decoder: json.JSONDecoder, most: int) -> Any:
        """The JSON value that begins here. Raises ValueError, RecursionError, MediaError."""
        while True:
            try:
                value, end = decoder.raw_decode(self._text, self.begin)
            except ValueError:
                if self._ended:
                    raise
            else:
                if end < len(self._text) or self._ended:  # a number might go on
                    self.begin = end
                    return value
            if len(self._text) - self.begin > most:
                raise MediaError(OVER_LIMIT, f"a record of more than {most:,} characters (max_bytes / 16)")
            self._more()

    def _more(self) -> None:
        """As much again as there is, so that a long value is tried few times."""
        kept = self._text[self.begin :]
        data = self._file.read(max(_AT_ONCE, len(kept)))
        self._ended = not data
        self._text, self.begin = kept + self._decode.decode(data, final=self._ended), 0


def _checked(record: Any) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise MediaError(CANNOT_DECODE, f"a {type(record).__name__}, not an object")
    try:
        lone = has_surrogate(json.dumps(record, ensure_ascii=False))
    except RecursionError as error:
        raise MediaError(CANNOT_DECODE, one_line(error)) from None
    if lone:
        raise MediaError(CANNOT_DECODE, "lone surrogates in the text")
    return record


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
