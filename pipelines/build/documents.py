"""Documents between the stages: a JSON line each, beside a file with the bytes of parts that came inside a record.

Media that lie in files of the source stay where they are: a part holds the path relative to the source's root.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.ingest.document import Document, Part

_LINES, _BYTES = "documents.jsonl", "parts.bin"
_PART_WORDS = ("kind", "uri", "role", "stream", "group", "group_role")
_DOCUMENT_WORDS = ("id", "source", "uri", "language", "licence", "created", "metadata")


class DocumentWriter:
    """Documents into `folder`, one after the other; `root` is the source's folder."""

    def __init__(self, folder: Path, root: Path) -> None:
        self._root = root
        self._lines = (folder / _LINES).open("w", encoding="ascii")
        self._bytes = (folder / _BYTES).open("wb")
        self.count = 0

    def write(self, document: Document) -> None:
        row = {word: getattr(document, word) for word in _DOCUMENT_WORDS}
        row["parts"] = [self._part(part) for part in document.parts]
        self._lines.write(json.dumps(row, ensure_ascii=True, separators=(",", ":")) + "\n")
        self.count += 1

    def __enter__(self) -> DocumentWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._bytes.close()

    def _part(self, part: Part) -> dict[str, Any]:
        row: dict[str, Any] = {word: getattr(part, word) for word in _PART_WORDS}
        row["start_s"] = None if math.isnan(part.start_s) else part.start_s
        row["end_s"] = None if math.isnan(part.end_s) else part.end_s
        if part.address:
            row["address"] = part.address
        if part.unit_times:
            row["unit_times"] = part.unit_times
        if part.text is not None:
            row["text"] = part.text
        elif part.data is not None:
            row["data"] = (self._bytes.tell(), len(part.data))
            self._bytes.write(part.data)
        elif part.path is not None:
            inside = part.path.is_relative_to(self._root)
            row["path"] = str(part.path.relative_to(self._root) if inside else part.path)
        return row


def read_documents(folder: Path, root: Path) -> Iterator[Document]:
    """The documents of a unit's output, in order. Bytes inside records are read, files are not."""
    with (folder / _LINES).open("r", encoding="ascii") as lines, (folder / _BYTES).open("rb") as data:
        for line in lines:
            row = json.loads(line)
            parts = tuple(_part(part, data, root) for part in row.pop("parts"))
            yield Document(parts=parts, **row)


def _part(row: dict[str, Any], data: Any, root: Path) -> Part:
    offset_length = row.pop("data", None)
    path = row.pop("path", None)
    content: bytes | None = None
    if offset_length is not None:
        data.seek(offset_length[0])
        content = data.read(offset_length[1])
    for name in ("start_s", "end_s"):
        row[name] = math.nan if row[name] is None else row[name]
    row["unit_times"] = tuple((a, b) for a, b in row.pop("unit_times", ()))
    return Part(data=content, path=None if path is None else root / path, **row)
