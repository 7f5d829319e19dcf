"""What a classifier is fitted on: sets of texts, good or bad, as pieces that are trained on or held out.

A file's text, read as a build reads it, is cut at line ends into pieces: a book would count as one page else. Pieces
that say the same count once, where they come first; those of sets that are held out come last, so what was trained on
is not measured there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mmdata.errors import UserError
from pipelines.config import NAME, expand
from pipelines.fit.exclude import Exclusions, digest
from pipelines.ingest.document import Dropped
from pipelines.ingest.files import read_bytes, read_text, unpacked
from pipelines.ingest.html import are_selectors, page_parts, parse_page
from pipelines.ingest.media import Limits, MediaError
from pipelines.ingest.roff import to_text

HELD_OUT = 16  # one file of 16, by its sha256; of JSON lines one record, by that of its text
_LIMITS = Limits(max_bytes=4 << 30)


class ClassifierDataConfig(BaseModel):
    """One set of texts, all of one label."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(pattern=NAME)
    label: Literal["good", "bad"]  # of all its texts
    paths: list[str] = Field(min_length=1)  # folders or files, relative to the config file; ${VARIABLE} is expanded
    include: list[str] = Field(["**/*"], min_length=1)
    leave_out: list[str] = []  # globs of files that `include` takes and that are not of this label
    form: Literal["plain", "html", "jsonl", "man"] = "plain"  # of the files, gzipped or not; "man": man pages
    field: str = "text"  # of a JSON line: what holds its text
    skip: list[str] = ["nav"]  # of HTML: CSS selectors of what is left out, as of a source of a recipe
    separator: str = ""  # of plain text: a pattern (regular expression) that parts a file into texts of their own
    origin: str = ""
    licence: str
    weight: float = Field(1.0, gt=0)  # its share of what its label counts; good and bad count the same
    most: int = Field(0, ge=0)  # pieces at the most, of files chosen by hash, an eighth of them of one file; 0: all
    held_out: bool = False  # the whole set is measured on and never trained on

    _selectors = field_validator("skip")(lambda value: list(are_selectors(tuple(value))))

    @field_validator("separator")
    @classmethod
    def _pattern(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from None
        return value


@dataclass
class TextSet:
    """The pieces of one set."""

    name: str
    good: bool
    train: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    files: list[tuple[str, str]] = field(default_factory=list)  # (path, sha256) of what pieces came of
    dropped: dict[str, str] = field(default_factory=dict)  # path -> why


def read_sets(
    configs: Sequence[ClassifierDataConfig],
    base: Path,
    exclusions: Exclusions,
    characters: int,
    least: int,
    seed: int,
    advance: Any = lambda: None,
) -> list[TextSet]:
    """The sets in their order. characters: of a piece at the most; shorter ones than `least` are left out."""
    seen: set[bytes] = set()
    found = {
        config.name: _read_set(config, base, exclusions, characters, least, seed, seen, advance)
        for config in sorted(configs, key=lambda config: config.held_out)
    }
    return [found[config.name] for config in configs]


def files_of(config: ClassifierDataConfig, base: Path) -> dict[Path, str]:
    """File -> its name on the card; UserError where there is none."""
    found: dict[Path, str] = {}
    for name in config.paths:
        root = (base / expand(name, f"data {config.name!r}")).resolve()
        if root.is_file():
            found[root] = root.name
            continue
        if not root.is_dir():
            raise UserError(
                f"data {config.name!r}: no folder or file {root}; unpack the texts there, or change `paths`"
            )
        taken, not_wanted = _globbed(root, config.include), set(_globbed(root, config.leave_out))
        for path in taken:
            if path not in not_wanted and path.is_file() and not path.is_symlink():
                found[path] = f"{root.name}/{path.relative_to(root).as_posix()}"
    if not found:
        raise UserError(f"data {config.name!r} has no file in {config.paths}: none matches {config.include}")
    return found


def texts_of(path: Path, config: ClassifierDataConfig) -> Iterator[str]:
    """The texts in a file. Raises MediaError where it is none."""
    if config.form == "html":
        yield page_text(read_bytes(path, _LIMITS), config.skip)
    elif config.form == "jsonl":
        yield from _records(path, config.field)
    else:
        text = read_text(path, _LIMITS)
        text = to_text(text) if config.form == "man" else text
        yield from re.split(config.separator, text, flags=re.MULTILINE) if config.separator else [text]


def page_text(data: bytes, skip: Sequence[str] = ("nav",)) -> str:
    """The text of a page as rules see it in a build: its text parts, with an empty line between."""
    parts = page_parts(parse_page(data, "", skip), "", lambda medium, place: Dropped("", "", "fit", "medium"))
    return "\n\n".join(part.text for part in parts if not isinstance(part, Dropped) and part.text)


def pieces_of(text: str, characters: int, least: int = 1) -> Iterator[str]:
    """The text in runs of whole lines of at most so many characters; a longer line is cut.

    >>> list(pieces_of("one\\ntwo\\nthree\\n", 8))
    ['one\\ntwo', 'three']
    """
    run: list[str] = []
    size = 0
    for whole in text.split("\n"):
        for start in range(0, max(1, len(whole)), characters):
            line = whole[start : start + characters]
            if run and size + len(line) > characters:
                yield from _long_enough(run, least)
                run, size = [], 0
            run.append(line)
            size += len(line) + 1
    yield from _long_enough(run, least)


def _read_set(
    config: ClassifierDataConfig,
    base: Path,
    exclusions: Exclusions,
    characters: int,
    least: int,
    seed: int,
    seen: set[bytes],
    advance: Any,
) -> TextSet:
    found = TextSet(config.name, config.label == "good")
    files = files_of(config, base)
    pieces: list[tuple[bytes, str, bool]] = []  # hash, piece, held out
    for path, name in sorted(files.items(), key=lambda file: _hash(seed, file[1])):
        advance()
        if config.most and len(pieces) >= config.most:
            continue  # which files are read depends on their names and the seed alone
        sha256 = digest(path)
        if sha256 in exclusions.sha256:
            found.dropped[name] = f"same bytes as {exclusions.sha256[sha256]}"
            continue
        own: list[tuple[bytes, str, bool]] = []
        try:
            for text in texts_of(path, config):
                unit = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest() if config.form == "jsonl" else sha256
                enough = config.form == "jsonl" or len(files) >= HELD_OUT
                held = config.held_out or (enough and _is_held_out(unit))
                for piece in pieces_of(text, characters, least):
                    key = _hash(seed, " ".join(piece.split()))
                    if key not in seen:
                        seen.add(key)
                        own.append((key, piece, held))
        except MediaError as error:
            found.dropped[name] = str(error)
        if own:
            found.files.append((name, sha256))
        elif name not in found.dropped:
            found.dropped[name] = f"no piece of {least} characters that is not in another file"
        pieces += sorted(own)[: max(1, config.most // 8)] if config.most and len(files) > 8 else own
    if config.most:
        pieces = sorted(pieces)[: config.most]
    found.train = [piece for _, piece, held in pieces if not held]
    found.held = [piece for _, piece, held in pieces if held]
    if not (found.held if config.held_out else found.train):
        why = next(iter(found.dropped.values()), "all of it is held out")
        raise UserError(f"data {config.name!r} has no text in {len(files)} files read as {config.form!r}: {why}")
    return found


def _globbed(root: Path, patterns: Sequence[str]) -> list[Path]:
    return list(dict.fromkeys(path for pattern in patterns for path in sorted(root.glob(pattern))))


def _hash(seed: int, words: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{words}".encode("utf-8", "replace")).digest()


def _is_held_out(sha256: str) -> bool:
    return int(sha256[:8], 16) % HELD_OUT == 0


def _long_enough(lines: list[str], least: int) -> Iterator[str]:
    piece = "\n".join(lines).strip()
    if len(piece) >= least:
        yield piece


def _records(path: Path, field: str) -> Iterator[str]:
    """The texts of JSON lines; lines without one are left out."""
    with unpacked(path, _LIMITS) as file:
        while line := file.readline(_LIMITS.max_text_bytes + 1):
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict) and isinstance(value.get(field), str):
                yield value[field]
