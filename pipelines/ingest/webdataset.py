"""WebDataset tar archives, plain or gzipped, streamed: members named alike up to the first dot are one document.

`k.txt`, `k.text`, `k.caption` and `k.cap` are its text, `k.json` its facts (and its text or caption where no member has
one), `k.cls` a fact, images, sounds and videos its media; of `k.seg.png`, "seg" is the stream. A text is the caption of
the first medium. Nothing is unpacked to disk: names that climb out, links, devices and sparse files are ledger lines.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from pydantic import Field

from pipelines.ingest.document import Document, Dropped, Part
from pipelines.ingest.files import decode_text, has_surrogate, kind_of, unpacked
from pipelines.ingest.folder import NO_SOURCE, OUTSIDE, Folder, language_tag, settings_of, uri_of
from pipelines.ingest.media import CANNOT_DECODE, EMPTY, OVER_LIMIT, Limits, MediaError, one_line, refused
from pipelines.ingest.records import short_facts, string_or_empty
from pipelines.ingest.source import CommonOptions, Input

_FILES = (".tar", ".tar.gz", ".tgz")
_TEXT = ("txt", "text", "caption", "cap")
_CLIMBS = re.compile(r"^/|^[A-Za-z]:[/\\]|(^|/)\.\.(/|$)")
_BLOCK = 512


class TarOptions(CommonOptions):
    """The keys of a `format = "webdataset"` source."""

    caption: bool = Field(True, description="the text is the caption of the first medium; false: they only follow it")
    lang: str = Field("lang", description="field of the .json member with the language")
    rights: str = Field("licence", description="and with the licence")
    date: str = Field("created", description="and with the date, ISO 8601")


@dataclass(frozen=True)
class TarSource:
    """See the module docstring."""

    name: str
    folder: Folder
    limits: Limits
    Options: ClassVar = TarOptions

    @property
    def root(self) -> Path:
        return self.folder.root

    def settings(self) -> dict[str, Any]:
        return settings_of("webdataset", self.folder)

    def inputs(self) -> list[Input]:
        return [Input(path, (path,), self.folder.size(path)) for path in self.folder.of_suffix(_FILES)]

    def read(self, input: Input) -> Iterator[Document | Dropped]:
        path, seen, group = input.path, Counter[str](), _Group("")
        try:
            for name, found in members(self.folder.path(path), self.limits):
                key = _key(name)
                if key != group.key:
                    yield from self._document(input, group, seen)
                    group = _Group(key)
                if isinstance(found, bytes) and group.size + len(found) > self.limits.max_text_bytes:
                    found = MediaError(OVER_LIMIT, "the members of a record pass max_bytes / 16")
                if isinstance(found, MediaError):
                    yield Dropped(self.name, uri_of(path, name), "ingest", found.reason, found.detail)
                else:
                    group.members.append((name, found))
            yield from self._document(input, group, seen)
        except MediaError as error:
            yield from self._document(input, group, seen)
            yield Dropped(self.name, uri_of(path), "ingest", error.reason, error.detail)
            return
        if not seen:
            yield Dropped(self.name, uri_of(path), "ingest", EMPTY, "no record in the archive")

    def leftovers(self) -> list[Dropped]:
        return self.folder.leftovers(self.name, set(self.folder.of_suffix(_FILES)))

    def _document(self, input: Input, group: _Group, seen: Counter[str]) -> Iterator[Document | Dropped]:
        """The members of one key. Counts the key in `seen`, with a document or without."""
        options, path = self.folder.options, input.path
        assert isinstance(options, TarOptions)
        if not group.members:
            return
        try:
            input.step(f"{uri_of(path, group.key)} {seen[group.key]}")
        except MediaError as error:
            yield Dropped(self.name, uri_of(path, group.key), "ingest", error.reason, error.detail)
            seen[group.key] += 1
            return
        parts, facts = [], dict[str, Any]()
        for name, data in group.members:
            try:
                part = _member(path, group.key, name, data, facts)
            except MediaError as error:
                yield Dropped(self.name, uri_of(path, name), "ingest", error.reason, error.detail)
                continue
            parts += [part] if part else []
        if not any(part.kind == "text" for part in parts):
            words = next((facts[k] for k in ("text", "caption") if isinstance(facts.get(k), str) and facts[k]), "")
            parts += [Part("text", text=words, uri=uri_of(path, group.key))] if words.strip() else []
        occurrence, key = seen[group.key], group.key
        seen[group.key] += 1
        if not parts:
            yield Dropped(self.name, uri_of(path, key), "ingest", EMPTY, "no text and no media in the record")
            return
        yield self.folder.document(
            self.name,
            path,
            captioned(parts) if options.caption else parts,
            key=key,
            occurrence=occurrence,
            fragment=key,
            language=language_tag(string_or_empty(facts.get(options.lang))),
            licence=string_or_empty(facts.get(options.rights)),
            created=string_or_empty(facts.get(options.date)),
            metadata=short_facts(facts, {"text", "caption", options.lang, options.rights, options.date}),
        )


@dataclass
class _Group:
    """Members of one key that have come so far."""

    key: str
    members: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(len(data) for _, data in self.members)


def members(path: Path, limits: Limits) -> Iterator[tuple[str, bytes | MediaError]]:
    """(name, content, or why there is none) of each member but folders. Raises MediaError where the archive breaks."""
    with unpacked(path, limits) as file:
        watched = _Watched(file, limits.max_text_bytes + 2 * _BLOCK)
        try:
            archive = tarfile.TarFile(fileobj=watched, errorlevel=1)  # type: ignore[arg-type]
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps all it has seen
                # Each member then lies behind the one before: no byte is read twice, and the archive comes to its end.
                if member.size < 0:
                    raise MediaError(CANNOT_DECODE, f"a member of {member.size:,} bytes")
                if not member.isdir():
                    yield member.name, _content(archive, member, limits)
        except MediaError:
            raise
        # tarfile raises its own errors, and OSError, ValueError, RecursionError ... on broken headers.
        except Exception as error:
            raise refused(error, "not a tar archive") from None
        if len(watched.last) != _BLOCK or watched.last.strip(b"\0"):
            raise MediaError(CANNOT_DECODE, "the archive breaks off: a damaged header, or no mark of its end")


def captioned(parts: list[Part]) -> list[Part]:
    """The first text as the caption of the first medium, right before it; other parts in their order."""
    words = next((part for part in parts if part.kind == "text"), None)
    medium = next((part for part in parts if part.kind != "text"), None)
    if words is None or medium is None:
        return parts
    pair = [replace(words, group=0, group_role="caption"), replace(medium, group=0, group_role="target")]
    return pair + [part for part in parts if part is not words and part is not medium]


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, limits: Limits) -> bytes | MediaError:
    if _CLIMBS.search(member.name):
        return MediaError(OUTSIDE, "the member's name leads out of the archive")
    if not member.isreg():
        return MediaError(OUTSIDE, "a link" if member.islnk() or member.issym() else "not a file")
    if member.issparse():  # a few bytes of the archive stand for as many zeros as its header says
        return MediaError(OVER_LIMIT, "a sparse file")
    if member.size > limits.max_text_bytes:
        return MediaError(OVER_LIMIT, f"{member.size:,} bytes in an archive (max_bytes / 16)")
    file = archive.extractfile(member)
    assert file is not None
    data = file.read()
    if len(data) != member.size:
        raise MediaError(CANNOT_DECODE, f"the archive breaks off in {uri_of(member.name)}")
    return data if data else MediaError(EMPTY, "no bytes")


class _Watched:
    """A file that refuses to read a lot at once (headers lie on their size) and remembers what it read last."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file, self._most = file, most
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        if size > self._most or size < 0:
            raise MediaError(OVER_LIMIT, f"a header of {size:,} bytes in an archive")
        self.last = self._file.read(size)
        return self.last

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _key(name: str) -> str:
    """The name up to the first dot of its last part: "a/b.seg.png" -> "a/b"."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.split(".", 1)[0]


def _member(path: str, key: str, name: str, data: bytes, facts: dict[str, Any]) -> Part | None:
    """The part that a member is; facts are written into `facts`. Raises MediaError."""
    *stream, ending = name[len(key) :].lstrip(".").split(".")
    uri, ending = uri_of(path, name), ending.lower()
    if ending in _TEXT:
        text = decode_text(data).strip("\n")
        if not text.strip():
            raise MediaError(EMPTY, "only white space")
        return Part("text", text=text, uri=uri, stream=".".join(stream))
    if ending == "json":
        facts.update(_facts(data))
        return None
    if ending in ("cls", "cls2", "index"):
        facts.setdefault(ending, decode_text(data).strip())
        return None
    kind = kind_of(f".{ending}")
    if not kind:
        raise MediaError(NO_SOURCE, f".{ending}")
    return Part(kind, data=data, uri=uri, stream=".".join(stream))


def _facts(data: bytes) -> dict[str, Any]:
    try:
        text = decode_text(data)
        facts = json.loads(text)
        lone = "\\u" in text and has_surrogate(json.dumps(facts, ensure_ascii=False))
    except (ValueError, RecursionError) as error:
        raise MediaError(CANNOT_DECODE, f"not JSON: {one_line(error)}") from None
    if not isinstance(facts, dict):
        raise MediaError(CANNOT_DECODE, f"a {type(facts).__name__}, not an object")
    if lone:
        raise MediaError(CANNOT_DECODE, "lone surrogates in the text")
    return facts
