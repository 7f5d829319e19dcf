"""EPUB books: the chapters in the order of the spine, each read as a page, with its pictures in place.

Nothing is unpacked to disk; names that lead out of the archive are ledger lines, and what comes out of it is counted
against the limits whatever its headers say. Books locked by DRM are ledger lines, as are pictures no chapter shows.
"""

from __future__ import annotations

import posixpath
import urllib.parse
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal
from xml.etree import ElementTree

from pydantic import Field, field_validator

from pipelines.ingest.document import Document, Dropped, Part
from pipelines.ingest.files import REMOTE, data_address, kind_of
from pipelines.ingest.folder import OUTSIDE, UNREFERRED, Folder, language_tag, settings_of, uri_of
from pipelines.ingest.html import Media, are_selectors, declared_language, page_parts, parse_page, title_of
from pipelines.ingest.media import (
    CANNOT_DECODE,
    EMPTY,
    MISSING,
    OVER_LIMIT,
    Limits,
    MediaError,
    Meter,
    opened,
    refused,
)
from pipelines.ingest.source import CommonOptions, Input

_FILES = (".epub",)
_MOST_FILES = 20_000  # in one archive
_PAGES = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml")
_DUBLIN = "{http://purl.org/dc/elements/1.1/}"


class EpubOptions(CommonOptions):
    """The keys of a `format = "epub"` source."""

    chapters: Literal["documents", "book"] = Field(
        "documents", description='"documents": each file of the spine is one; "book": all of them are one'
    )
    skip: tuple[str, ...] = Field(("nav",), description="CSS selectors of what is left out with all inside it")

    _selectors = field_validator("skip")(are_selectors)


@dataclass(frozen=True)
class _Book:
    """What the package file says: paths in the archive."""

    spine: tuple[str, ...]
    facts: dict[str, str]  # title, creator, language, rights, date


@dataclass
class Archive:
    """A zip file read within limits: `meter` counts all that comes out of it."""

    files: dict[str, zipfile.ZipInfo]
    zip: zipfile.ZipFile
    meter: Meter
    most: int
    used: set[str] = field(default_factory=set)

    def read(self, name: str) -> bytes:
        """A member's content. Raises MediaError."""
        info = self.files.get(name)
        if info is None:
            raise MediaError(MISSING, f"{uri_of(name[:200])} is not in the archive")
        self.used.add(name)
        if info.flag_bits & 1:
            raise MediaError(CANNOT_DECODE, "encrypted")
        try:
            with self.zip.open(info) as file:
                data = file.read(min(self.most, max(0, self.meter.left)) + 1)
        # zipfile raises BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error ...
        except Exception as error:
            raise refused(error) from None
        self.meter.add(len(data))
        if len(data) > self.most:
            raise MediaError(OVER_LIMIT, f"more than {self.most:,} bytes in an archive (max_bytes / 16)")
        if not data:
            raise MediaError(EMPTY, "no bytes")
        return data


@dataclass(frozen=True)
class EpubSource:
    """See the module docstring."""

    name: str
    folder: Folder
    limits: Limits
    Options: ClassVar = EpubOptions

    @property
    def root(self) -> Path:
        return self.folder.root

    def settings(self) -> dict[str, Any]:
        return settings_of("epub", self.folder)

    def inputs(self) -> list[Input]:
        return [Input(path, (path,), self.folder.size(path)) for path in self.folder.of_suffix(_FILES)]

    def read(self, input: Input) -> Iterator[Document | Dropped]:
        path = input.path
        try:
            with open_archive(self.folder.path(path), self.limits) as archive:
                yield from self._outside(path, archive)
                book = _book(archive)
                yield from self._documents(input, archive, book)
                yield from self._unused(path, archive)
        except MediaError as error:
            yield Dropped(self.name, uri_of(path), "ingest", error.reason, error.detail)

    def leftovers(self) -> list[Dropped]:
        return self.folder.leftovers(self.name, set(self.folder.of_suffix(_FILES)))

    @property
    def _options(self) -> EpubOptions:
        assert isinstance(self.folder.options, EpubOptions)
        return self.folder.options

    def _documents(self, input: Input, archive: Archive, book: _Book) -> Iterator[Document | Dropped]:
        path, whole = input.path, list[Part]()
        for name in dict.fromkeys(book.spine):
            uri = uri_of(path, name)
            try:
                input.step(uri)
                parts, facts, language, dropped = self._chapter(path, archive, name)
            except MediaError as error:
                yield Dropped(self.name, uri, "ingest", error.reason, error.detail)
                continue
            yield from dropped
            if not parts:
                yield Dropped(self.name, uri, "ingest", EMPTY, "no text and no media in the chapter")
            elif self._options.chapters == "book":
                whole += [replace(p, group=p.group + len(whole)) if p.group >= 0 else p for p in parts]
            else:
                yield self._document(path, parts, {**book.facts, **_chapter_facts(facts)}, name, language)
        if whole:
            yield self._document(path, whole, book.facts, "", "")

    def _document(self, path: str, parts: list[Part], facts: dict[str, str], name: str, language: str) -> Document:
        return self.folder.document(
            self.name,
            path,
            parts,
            key=name,
            fragment=name,
            language=self.folder.fact(path).language or language or language_tag(facts.get("language", "")),
            licence=self.folder.fact(path).licence or facts.get("rights", ""),
            created=facts.get("date", ""),
            metadata={key: facts[key] for key in ("title", "creator", "chapter") if facts.get(key)},
        )

    def _chapter(self, path: str, archive: Archive, name: str) -> tuple[list[Part], dict[str, str], str, list[Dropped]]:
        """(parts, title, language, what was dropped) of one file of the spine. Raises MediaError."""
        page = parse_page(archive.read(name), "", self._options.skip)
        parts: list[Part] = []
        dropped: list[Dropped] = []
        for found in page_parts(page, uri_of(path, name), lambda m, place: self._media(path, archive, name, m, place)):
            (dropped if isinstance(found, Dropped) else parts).append(found)  # type: ignore[arg-type]
        return parts, title_of(page), declared_language(page), dropped

    def _media(self, path: str, archive: Archive, chapter: str, media: Media, place: int) -> Part | Dropped:
        uri = uri_of(path, f"{chapter}/{place}")
        try:
            if media.src.startswith("data:"):
                return Part(media.kind, data=data_address(media.src, self.limits), uri=uri)
            if "://" in media.src[:20]:
                raise MediaError(REMOTE, f"in {uri}")
            name = resolve(chapter, media.src)
            return Part(media.kind, data=archive.read(name), uri=uri_of(path, name))
        except MediaError as error:
            where = uri_of(media.src[:500]) if error.reason == REMOTE else uri
            return Dropped(self.name, where, "ingest", error.reason, error.detail)

    def _outside(self, path: str, archive: Archive) -> Iterator[Dropped]:
        for name in archive.files:
            if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
                yield Dropped(self.name, uri_of(path, name[:500]), "ingest", OUTSIDE, "a name in the archive")

    def _unused(self, path: str, archive: Archive) -> Iterator[Dropped]:
        """Media that no chapter shows."""
        for name in sorted(set(archive.files) - archive.used):
            if kind_of(name):
                yield Dropped(self.name, uri_of(path, name), "ingest", UNREFERRED, "no chapter shows it")


@contextmanager
def open_archive(path: Path, limits: Limits) -> Iterator[Archive]:
    """A zip file. Raises MediaError."""
    with opened(path, limits) as file:
        size = file.seek(0, 2)
        file.seek(0)
        try:
            zipped = zipfile.ZipFile(file)
        except Exception as error:  # BadZipFile, OSError, ValueError, struct.error, UnicodeDecodeError ...
            raise refused(error, "not a zip file") from None
        with zipped:
            infos = [info for info in zipped.infolist() if not info.filename.endswith("/")]
            if len(infos) > _MOST_FILES:
                raise MediaError(OVER_LIMIT, f"{len(infos):,} files in an archive, the most is {_MOST_FILES:,}")
            meter = Meter(limits.max_unpacked(size), f"unpacked of {size:,} (max_expansion)")
            yield Archive({info.filename: info for info in infos}, zipped, meter, limits.max_text_bytes)


def resolve(base: str, reference: str) -> str:
    """The name in the archive that a reference in file `base` means. Raises MediaError where it leads out of it."""
    reference = urllib.parse.unquote(reference.split("#")[0].split("?")[0])
    name = posixpath.normpath(posixpath.join(posixpath.dirname(base), reference))
    if name.startswith(("/", "../")) or name in ("..", "."):
        raise MediaError(OUTSIDE, f"{uri_of(reference[:200])} leads out of the archive")
    return name


def _book(archive: Archive) -> _Book:
    """The package that container.xml names. Raises MediaError."""
    container = _xml(archive.read("META-INF/container.xml"), "container.xml")
    root = next((e.get("full-path", "") for e in container.iter() if _plain(e.tag) == "rootfile"), "")
    if not root:
        raise MediaError(CANNOT_DECODE, "container.xml names no package")
    package = _xml(archive.read(resolve("", root)), "the package")
    pages: dict[str, str] = {}
    for item in package.iter():
        if _plain(item.tag) == "item" and item.get("media-type", "") in _PAGES:
            pages[item.get("id", "")] = item.get("href", "")
    order = [item.get("idref", "") for item in package.iter() if _plain(item.tag) == "itemref"]
    spine = tuple(resolve(root, pages[name]) for name in order if pages.get(name))
    if not spine:
        raise MediaError(EMPTY, "no chapter in the spine")
    words = ("title", "creator", "language", "rights", "date")
    found = {word: package.find(f".//{_DUBLIN}{word}") for word in words}
    facts = {word: " ".join((e.text or "").split())[:500] for word, e in found.items() if e is not None}
    return _Book(spine, facts)


def _xml(data: bytes, what: str) -> ElementTree.Element:
    if b"<!ENTITY" in data or b"<!\x00E" in data:  # the parser expands them: a bomb of a few lines
        raise MediaError(CANNOT_DECODE, f"{what} declares entities")
    try:
        return ElementTree.fromstring(data)
    except Exception as error:  # ParseError, LookupError of encodings, ValueError, RecursionError ...
        raise refused(error, what) from None


def _chapter_facts(facts: dict[str, str]) -> dict[str, str]:
    return {"chapter": facts["title"]} if "title" in facts else {}


def _plain(tag: Any) -> str:
    """A tag without its namespace."""
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""
