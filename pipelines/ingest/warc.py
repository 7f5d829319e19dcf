"""WARC files of a crawl, plain or gzipped: HTML responses become documents, read as pages are. The home of warcio.

The charset is that of the HTTP header, else the one that the page declares, else UTF-8 (`charset.py`). Media of a page
lie elsewhere: their addresses go to the ledger. Other answers are ledger lines with their type; requests and metadata
are no inputs.
"""

from __future__ import annotations

import re
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from pipelines.ingest.document import Document, Dropped, Part
from pipelines.ingest.files import REMOTE, data_address, decode_text, unpacked
from pipelines.ingest.folder import NO_SOURCE, Folder, settings_of, uri_of
from pipelines.ingest.html import Media, are_selectors, declared_language, page_parts, parse_page, title_of
from pipelines.ingest.media import CANNOT_DECODE, EMPTY, OVER_LIMIT, Limits, MediaError, refused
from pipelines.ingest.reference import STATUS
from pipelines.ingest.source import CommonOptions, Input

_FILES = (".warc", ".warc.gz")
_PAGES = ("text/html", "application/xhtml+xml")
_NO_INPUT = ("warcinfo", "request", "metadata", "revisit", "continuation")
_MOST_HEADER = 1 << 20  # bytes


class WarcOptions(CommonOptions):
    """The keys of a `format = "warc"` source."""

    skip: tuple[str, ...] = Field(("nav",), description="CSS selectors of what is left out with all inside it")
    text: bool = Field(True, description="also take answers of type text/plain")

    _selectors = field_validator("skip")(are_selectors)


@dataclass(frozen=True)
class _Answer:
    """What a record holds, or why it holds nothing."""

    address: str
    type: str = ""
    charset: str = ""
    date: str = ""
    data: bytes = b""
    error: MediaError | None = None


@dataclass(frozen=True)
class WarcSource:
    """See the module docstring."""

    name: str
    folder: Folder
    limits: Limits
    Options: ClassVar = WarcOptions

    @property
    def root(self) -> Path:
        return self.folder.root

    def settings(self) -> dict[str, Any]:
        return settings_of("warc", self.folder)

    def inputs(self) -> list[Input]:
        return [Input(path, (path,), self.folder.size(path)) for path in self.folder.of_suffix(_FILES)]

    def read(self, input: Input) -> Iterator[Document | Dropped]:
        path, seen = input.path, Counter[str]()
        try:
            for answer in self._answers(input, seen):
                uri = uri_of(path, answer.address)
                try:
                    if answer.error is not None:
                        raise answer.error
                    yield from self._document(path, answer, seen)
                except MediaError as error:
                    yield Dropped(self.name, uri, "ingest", error.reason, error.detail)
                seen[answer.address] += 1
        except MediaError as error:
            yield Dropped(self.name, uri_of(path), "ingest", error.reason, error.detail)
            return
        if not seen:
            yield Dropped(self.name, uri_of(path), "ingest", EMPTY, "no answer in the file")

    def leftovers(self) -> list[Dropped]:
        return self.folder.leftovers(self.name, set(self.folder.of_suffix(_FILES)))

    @property
    def _options(self) -> WarcOptions:
        assert isinstance(self.folder.options, WarcOptions)
        return self.folder.options

    def _answers(self, input: Input, seen: Counter[str]) -> Iterator[_Answer]:
        """The responses and resources of a file. Raises MediaError where the file breaks."""
        from warcio.archiveiterator import ArchiveIterator

        def step(address: str) -> None:
            input.step(f"{uri_of(input.path, address)} {seen[address]}")

        with unpacked(self.folder.path(input.path), self.limits) as file:
            pieces = _AsItComes(file)
            try:
                records = iter(ArchiveIterator(pieces))
                while (record := pieces.header(records)) is not None:
                    if record.rec_type not in _NO_INPUT:
                        yield _answer(record, self.limits, step)
                    while record.raw_stream.read(1 << 16):  # so that the next read is of a header
                        pass
                if pieces.error is not None:
                    raise pieces.error
            except MediaError:
                raise
            # warcio raises its own errors, EOFError, zlib.error, ValueError ... on broken files.
            except Exception as error:
                raise refused(error, "not a WARC file") from None

    def _document(self, path: str, answer: _Answer, seen: Counter[str]) -> Iterator[Document | Dropped]:
        """The document of an answer. Raises MediaError."""
        uri, facts, language = uri_of(path, answer.address), dict[str, str](), ""
        parts: list[Part] = []
        if answer.type in _PAGES:
            page = parse_page(answer.data, answer.charset, self._options.skip)
            for found in page_parts(page, uri, lambda media, place: self._media(answer.address, uri, media, place)):
                if isinstance(found, Dropped):
                    yield found
                else:
                    parts.append(found)
            facts, language = title_of(page), declared_language(page)
        elif answer.type == "text/plain" and self._options.text:
            text = decode_text(answer.data, answer.charset, web=True)
            parts = [Part("text", text=text, uri=uri)] if text.strip() else []
        else:
            raise MediaError(NO_SOURCE, answer.type)
        if not parts:
            raise MediaError(EMPTY, "no text and no media on the page")
        yield self.folder.document(
            self.name,
            path,
            parts,
            key=answer.address,
            occurrence=seen[answer.address],
            fragment=answer.address,
            language=language,
            created=answer.date,
            metadata={**facts, "url": answer.address[:500]},
        )

    def _media(self, page: str, uri: str, media: Media, place: int) -> Part | Dropped:
        if media.src.startswith("data:"):
            inside = f"{uri}#data-{place}"
            try:
                return Part(media.kind, data=data_address(media.src, self.limits), uri=inside)
            except MediaError as error:
                return Dropped(self.name, inside, "ingest", error.reason, error.detail)
        try:
            address = urllib.parse.urljoin(page, media.src)
        except ValueError:
            address = media.src
        return Dropped(self.name, uri_of(address[:500]), "ingest", REMOTE, f"in {uri}")


class _AsItComes:
    """A file read in what pieces it gives: a read that waits for more would lose them where the file breaks off.
    There it ends, with the error in `error`: warcio would end in silence."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._header: int | None = None  # bytes read for the header that is being looked for
        self.error: Exception | None = None

    def header(self, records: Iterator[Any]) -> Any:
        """The next record, None at the end. warcio takes quadratic time for a line without an end, so it is bounded."""
        self._header = 0
        record = next(records, None)
        self._header = None
        return record

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._file.read1(size) if self.error is None else b""
            if self._header is not None:
                self._header += len(data)
                if self._header > _MOST_HEADER:
                    raise MediaError(OVER_LIMIT, f"a header of more than {_MOST_HEADER:,} bytes")
            return data
        except Exception as error:  # warcio takes some errors for its own affair: kept, and raised where it has ended
            self.error = error
            return b""

    def tell(self) -> int:
        return self._file.tell()


def _answer(record: Any, limits: Limits, step: Callable[[str], None]) -> _Answer:
    """A record's content, unchunked and unpacked, within the limit. `step`: told its address before that."""
    address = uri_of((record.rec_headers.get_header("WARC-Target-URI") or "").strip("<>"))[:2000]
    date = record.rec_headers.get_header("WARC-Date") or ""
    headers = record.http_headers
    status = headers.get_statuscode() if headers is not None else "200"
    words = (headers or record.rec_headers).get_header("Content-Type") or ""
    kind, _, rest = words.partition(";")
    charset = re.search(r"""charset\s*=\s*["']?([\w.:-]+)""", rest, re.I)
    if record.rec_type not in ("response", "resource", "conversion"):
        return _Answer(address, error=MediaError(NO_SOURCE, f"a record of type {record.rec_type[:50]!r}"))
    if not address:
        return _Answer(address, error=MediaError(CANNOT_DECODE, "a record without an address"))
    if status != "200":
        return _Answer(address, error=MediaError(STATUS, f"status {status[:20]}"))
    try:
        step(address)
    except MediaError as error:
        return _Answer(address, error=error)
    data = record.content_stream().read(limits.max_text_bytes + 1)
    if len(data) > limits.max_text_bytes:
        return _Answer(address, error=MediaError(OVER_LIMIT, f"more than {limits.max_text_bytes:,} bytes of text"))
    while record.raw_stream.read(1 << 16):  # what a chunked or packed body leaves
        pass
    if getattr(record.raw_stream, "limit", 0) > 0:
        return _Answer(address, error=MediaError(CANNOT_DECODE, "the record breaks off"))
    if not data:
        return _Answer(address, error=MediaError(EMPTY, "no bytes"))
    return _Answer(address, kind.strip().lower(), charset[1] if charset else "", date, data)
