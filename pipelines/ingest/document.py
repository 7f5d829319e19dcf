"""Documents: what a source yields, and the verdicts on inputs that did not make one (DESIGN word list)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Part:
    """One text, image, sound or video of a document. Media are bytes in `data`, or a file not read yet in `path`."""

    kind: str  # text | image | audio | video
    text: str | None = None
    data: bytes | None = None
    path: Path | None = None
    uri: str = ""  # relative to the source's root, with #fragment for a record; or the remote address
    start_s: float = float("nan")  # on the document's clock (subtitles, clips)
    end_s: float = float("nan")
    role: str = "none"
    stream: str = ""
    group: int = -1
    group_role: str = "none"
    unit_times: tuple[tuple[float, float], ...] = ()  # seconds, of words
    address: str = ""  # the remote address that was asked for, where `path` is its copy in a mirror

    def read(self) -> bytes:
        """The part's original bytes (UTF-8 of a text)."""
        if self.text is not None:
            return self.text.encode()
        if self.data is not None:
            return self.data
        if self.path is None:
            raise ValueError(f"part {self.uri!r} holds no text, no data and no path")
        return self.path.read_bytes()


@dataclass(frozen=True)
class Document:
    """Ordered parts with metadata. `id` is `document_id(...)`: never an absolute path or a running index."""

    id: str
    source: str
    parts: tuple[Part, ...]
    uri: str = ""  # relative to the source's root
    language: str = ""
    licence: str = ""
    created: str = ""
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dropped:
    """One line of the ledger: an input (file, record or part) that did not make it, and why."""

    source: str
    uri: str
    stage: str  # ingest | decode | curate | dedup | encode
    reason: str  # a few fixed words: "no source reads this format", "cannot decode", "empty", "over limit"...
    detail: str = ""


def document_id(source: str, path: str, key: str = "", occurrence: int = 0) -> str:
    """Hex of 16 bytes of blake2b over (source name, path relative to the root, record key or line digest, occurrence).

    >>> document_id("web", "a/index.html") == document_id("web", "a/index.html")
    True
    """
    words = "\0".join((source, path, key, str(occurrence)))
    return hashlib.blake2b(words.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
