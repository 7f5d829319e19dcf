"""Licences and opt-outs as filters: what a document may not be used for never leaves ingestion.

Both are lists in files that the recipe names: a line each, `#` begins a comment. They are part of a source's settings
by their content, so a longer list runs ingestion again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mmdata.commit import sha256_of
from mmdata.errors import UserError
from pipelines.ingest.address import AddressList, is_address, is_host, list_entries
from pipelines.ingest.document import Document, Dropped, Part

LICENCE = "licence not in the list"  # the ledger's reasons
OPTED_OUT = "opted out"

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Screen:
    """What the lists say. `licences` None: any."""

    licences: tuple[str, ...] | None = None
    addresses: AddressList = field(default_factory=AddressList)
    uris: frozenset[str] = frozenset()  # and what lies in them: "a" has "a/b.png", "a.jsonl" has "a.jsonl#L1"
    digests: frozenset[str] = frozenset()  # sha256 of media
    digest: str = ""  # of both lists

    def of(self, document: Document) -> Iterator[Document | Dropped]:
        """The document, or without the media that opted out, or a ledger line in its place."""
        if self.licences is not None and not _is_one_of(document.licence, self.licences):
            yield Dropped(document.source, document.uri, "ingest", LICENCE, document.licence[:200] or "no licence")
            return
        address, inside = document.metadata.get("url", ""), document.uri.partition("#")[2]
        if word := self._opted_out(document.uri, address, inside):
            yield Dropped(document.source, document.uri, "ingest", OPTED_OUT, word)
            return
        parts = []
        for part in document.parts:
            word = self._opted_out(part.uri, part.address) if part.kind != "text" else ""
            if word or self._is_listed(part):
                yield Dropped(document.source, part.uri, "ingest", OPTED_OUT, word or "its sha256")
            else:
                parts.append(part)
        if len(parts) == len(document.parts):
            yield document
        elif parts:
            yield replace(document, parts=tuple(parts))
        else:
            yield Dropped(document.source, document.uri, "ingest", OPTED_OUT, "all its parts")

    def _opted_out(self, uri: str, *addresses: str) -> str:
        """The line that names one of these, or ""."""
        for address in (*addresses, uri):
            if found := self.addresses.entry_for(address):
                return found
        ends = [found.start() for found in re.finditer("[/#]", uri)] if self.uris else []
        return next((uri[:end] for end in (*ends, len(uri)) if uri[:end] in self.uris), "")

    def _is_listed(self, part: Part) -> bool:
        if not self.digests or part.kind == "text":
            return False
        try:
            digest = sha256_of(part.path) if part.path is not None else hashlib.sha256(part.read()).hexdigest()
        except OSError:
            return False  # decoding it will say so
        return digest in self.digests


NO_SCREEN = Screen()


def screened(source: Any, found: Iterable[Document | Dropped]) -> Iterator[Document | Dropped]:
    """What a source yields, through its folder's lists."""
    folder = getattr(source, "folder", None)
    screen = folder.screen if folder is not None else NO_SCREEN
    for one in found:
        if screen is NO_SCREEN or isinstance(one, Dropped):
            yield one
        else:
            yield from screen.of(one)


def open_screen(source: str, root: Path, licences: str, opt_out: str) -> Screen:
    """The screen of two files, by their paths from `root`; "" for none. Raises UserError where one cannot be read."""
    if not licences and not opt_out:
        return NO_SCREEN
    kept = _lines(source, root, "licences", licences) if licences else None
    out = _lines(source, root, "opt_out", opt_out) if opt_out else ()
    digests = frozenset(line.lower() for line in out if _SHA256.fullmatch(line.lower()))
    names = [line for line in out if line.lower() not in digests]
    # "a.png" may be a host or a uri: it is both
    addresses = AddressList(line for line in names if is_address(line) or (is_host(line) and "." in line))
    uris = frozenset(line.rstrip("/") for line in names if not is_address(line))
    digest = hashlib.sha256(repr((kept, out)).encode()).hexdigest()
    return Screen(kept, addresses, uris, digests, digest)


def _is_one_of(licence: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(licence.casefold(), glob.casefold()) for glob in globs)


def _lines(source: str, root: Path, key: str, name: str) -> tuple[str, ...]:
    """The lines of a list without comments, sorted."""
    try:
        text = (root / name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"source {source!r}: cannot read {key} = {name!r}: {error}. Correct its path in the recipe."
        ) from None
    return tuple(sorted(list_entries(text)))
