"""What text a fit reads: folders of text, HTML or JSON lines, plain or gzipped, and datasets. As blocks, in a stream.

A block is some lines in UTF-8 with "\\n" between them; a file larger than memory gives one after the other. A file that
stops being text (a picture, another encoding, a damaged gzip) is read up to there, and the card says so.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mmdata.errors import UserError
from pipelines.config import expand
from pipelines.fit.exclude import Exclusions, digest
from pipelines.ingest.files import read_text, unpacked
from pipelines.ingest.media import CANNOT_DECODE, OVER_LIMIT, Limits, MediaError

BLOCK_BYTES = 8 << 20

_STREAMED = Limits(max_bytes=1 << 62)
_WHOLE = Limits(max_bytes=1 << 30)  # 64 MiB of text: a page, or a line of JSON, is in memory several times over
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class TextDataConfig(BaseModel):
    """One set of training texts."""

    model_config = ConfigDict(extra="forbid")
    name: str
    paths: list[str]  # folders, files, datasets (their training splits); ${VARIABLE} is expanded
    include: list[str] = ["**/*"]
    form: Literal["plain", "html", "jsonl"] = "plain"  # of the files, gzipped or not
    field: str = "text"  # of a JSON line: what holds its text
    origin: str = ""
    licence: str
    weight: float = Field(1.0, gt=0)  # its share of the sample against the others'; where it has less, all it has


@dataclass(frozen=True)
class TextFile:
    """One file's text, or any other stream of it."""

    name: str
    blocks: Callable[[], Iterator[bytes]]  # raises MediaError where it cannot go on
    size: int = 0  # bytes, about: for the progress bar
    sha256: str = ""  # hex; none: a stream that is no file, whose sample is not kept for another run


@dataclass(frozen=True)
class TextSet:
    """A set of training texts, ready to be read. `dropped`: name -> why it is excluded."""

    name: str
    weight: float
    files: Sequence[TextFile]
    dropped: dict[str, str]
    read_as: tuple[str, ...] = ()  # what decides its lines beside the files: form, field, texts of datasets left out


def open_set(data: TextDataConfig, base: Path, exclusions: Exclusions) -> TextSet:
    """The files of a set without those that are excluded; UserError where there are none."""
    found: list[TextFile] = []
    dropped: dict[str, str] = {}
    left_out = ""
    for name in data.paths:
        root = (base / expand(name, f"data {data.name!r}")).resolve()
        if (root / "manifest.json").is_file():
            found += _of_dataset(root, exclusions)
            left_out = hashlib.sha256("".join(sorted(exclusions.sha256)).encode()).hexdigest()
            continue
        for path in _paths(root, data):
            relative = path.name if path == root else f"{root.name}/{path.relative_to(root).as_posix()}"
            sha256 = digest(path)
            if sha256 in exclusions.sha256:
                dropped[relative] = f"same bytes as {exclusions.sha256[sha256]}"
            else:
                blocks = partial(blocks_of, path, data.form, data.field)
                found.append(TextFile(relative, blocks, path.stat().st_size, sha256))
    if not found:
        why = f"all {len(dropped)} are excluded" if dropped else f"none matches {data.include}"
        raise UserError(f"data {data.name!r} has no file in {data.paths}: {why}")
    return TextSet(data.name, data.weight, found, dropped, (data.form, data.field, left_out))


def blocks_of(path: Path, form: str = "plain", field: str = "text") -> Iterator[bytes]:
    """A file's lines; MediaError from the place on where it is no text."""
    if form == "jsonl":
        yield from _records(path, field)
    elif form == "html":
        yield html_text(read_text(path, _WHOLE)).encode()
    else:
        yield from _plain(path)


def html_text(page: str) -> str:
    """The text of a page's body, each element's on a line of its own."""
    from selectolax.lexbor import LexborHTMLParser

    body = LexborHTMLParser(page).body
    return body.text(separator="\n") if body else ""


def _paths(root: Path, data: TextDataConfig) -> list[Path]:
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise UserError(f"data {data.name!r}: no folder or file {root}")
    found = {path: None for pattern in data.include for path in sorted(root.glob(pattern))}
    return [path for path in found if path.is_file() and not path.is_symlink()]


def _plain(path: Path) -> Iterator[bytes]:
    done, rest = 0, b""
    with unpacked(path, _STREAMED) as file:
        head = file.read(3)
        if head[:2] in _UTF16:
            yield read_text(path, _WHOLE).encode()
            return
        rest = head.removeprefix(codecs.BOM_UTF8)
        while data := file.read(BLOCK_BYTES):
            data = rest + data
            stop = data.rfind(b"\n") + 1 or _last_whole(data)
            yield _checked(data[:stop], done)
            done, rest = done + stop, data[stop:]
    if rest:
        yield _checked(rest, done)


def _last_whole(data: bytes) -> int:
    """Where the last character begins: of a line longer than a block, what is before it."""
    start = len(data) - 1
    while start > len(data) - 4 and data[start] & 0xC0 == 0x80:
        start -= 1
    return start


def _checked(block: bytes, place: int) -> bytes:
    try:
        block.decode()
    except UnicodeDecodeError as error:
        raise MediaError(CANNOT_DECODE, f"not UTF-8 at byte {place + error.start:,}") from None
    return block.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in block else block


def _records(path: Path, field: str) -> Iterator[bytes]:
    """Blocks of the texts of JSON lines; a MediaError at the end counts the lines that had none."""
    total, wrong, waiting, size = 0, 0, [], 0
    most = _WHOLE.max_text_bytes
    with unpacked(path, _STREAMED) as file:
        while line := file.readline(most + 1):
            if len(line) > most:
                raise MediaError(OVER_LIMIT, f"line {total + 1} has more than {most:,} bytes")
            if not line.strip():
                continue
            total += 1
            text = _field(line, field)
            wrong += text is None
            waiting.append(text or b"")
            size += len(waiting[-1])
            if size >= BLOCK_BYTES:
                yield b"\n".join(waiting)
                waiting, size = [], 0
    yield b"\n".join(waiting)
    if wrong:
        raise MediaError(CANNOT_DECODE, f"{wrong} of {total} lines are no object with a string {field!r}")


def _field(line: bytes, field: str) -> bytes | None:
    try:
        value = json.loads(line)
        return value[field].replace("\r\n", "\n").replace("\r", "\n").encode() if isinstance(value, dict) else None
    except (ValueError, KeyError, AttributeError, RecursionError):  # UnicodeEncodeError is a ValueError
        return None


def _of_dataset(root: Path, exclusions: Exclusions) -> list[TextFile]:
    """The shards of a dataset's training splits, validation being for measuring."""
    from mmdata.dataset import open_dataset

    return [
        TextFile(
            f"{root.name}/{source.name}/{shard.file}",
            partial(_shard_blocks, source, number, exclusions.sha256),
            shard.bytes,
            shard.sha256,
        )
        for source in open_dataset(root).values()
        for number, shard in enumerate(source.train.shards)
    ]


def _shard_blocks(source: Any, shard: int, excluded: dict[str, str]) -> Iterator[bytes]:
    """The texts of a shard, out of their codes or as they were kept."""
    from pipelines.build.recode import text_of

    start, stop = source.train.shard_bounds[shard : shard + 2].tolist()
    for first in range(start, stop, 256):
        samples = source.train.read(range(first, min(first + 256, stop)))
        items = [item for sample in samples for item in sample.items if item.kind == "text"]
        texts = [text_of(item, source) for item in items if item.digest not in excluded]
        yield "\n".join(texts).replace("\r\n", "\n").replace("\r", "\n").encode()
