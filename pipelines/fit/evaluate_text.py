"""Measures of a text codec: bytes a token (fertility), tokens a character, and whether each text comes back exactly."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdata.errors import UserError
from pipelines.fit.text_sources import html_text
from pipelines.ingest.files import read_text
from pipelines.ingest.media import Limits, MediaError
from tokenizer.codec import Codec
from tokenizer.codecs import is_codec_file, load_codec, load_text_codec

_HTML = (".html", ".htm", ".xhtml")
_BATCH_CHARACTERS = 1 << 20  # of the texts that are encoded together


@dataclass
class _Totals:
    texts: int = 0
    bytes: int = 0
    characters: int = 0
    tokens: int = 0
    exact: int = 0

    def figures(self) -> dict[str, float]:
        return {
            "texts": self.texts,
            "bytes": self.bytes,
            "characters": self.characters,
            "tokens": self.tokens,
            "bytes_a_token": round(self.bytes / max(1, self.tokens), 3),
            "tokens_a_character": round(self.tokens / max(1, self.characters), 3),
            "exact": self.exact / max(1, self.texts),
        }


def evaluate_text(codec_name: str, folder: Path) -> dict[str, dict[str, float]]:
    """Figures of a codec on the text files of a folder (of HTML pages, their text), a row for each language, and "all".

    codec_name: a shipped one, or the path of a tokenizer.json or a SentencePiece .model. A file's language is what the
    folder's MANIFEST.tsv (columns `path`, `language`) says, else the name of the folder in it where the file lies.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {folder}; name one with text files")
    codec = load_text_codec(codec_name) if is_codec_file(codec_name) else load_codec(codec_name)
    if codec.kind != "text":
        raise UserError(f"{codec_name} is a codec of {codec.kind}; name one of text, or the path of one's file")
    rows: dict[str, _Totals] = {}
    for language, text in texts_of(folder):
        for name in (language, "all"):
            _add(codec, [text], rows.setdefault(name, _Totals()))
    if not rows:
        raise UserError(f"no text in {folder}: of {sum(1 for _ in _paths(folder))} files none is UTF-8 text")
    return {name: rows[name].figures() for name in sorted(rows, key=lambda name: (name == "all", name))}


def evaluate_texts(codec: Codec, texts: Iterable[str]) -> dict[str, float]:
    """{"texts", "bytes", "characters", "tokens", "bytes_a_token", "tokens_a_character", "exact": share of the texts
    that come back as they were}."""
    totals, waiting, size = _Totals(), [], 0
    for text in texts:
        waiting.append(text)
        size += len(text)
        if size > _BATCH_CHARACTERS:
            _add(codec, waiting, totals)
            waiting, size = [], 0
    _add(codec, waiting, totals)
    return totals.figures()


def print_fertility(rows: dict[str, dict[str, float]]) -> None:
    """A line a language."""
    from pipelines.look.tables import console, plain_table

    table = plain_table("", "texts", "bytes", "tokens", "bytes a token", "tokens a character", "exact")
    for name, row in rows.items():
        counts = (f"{row[key]:,}" for key in ("texts", "bytes", "tokens"))
        ratios = (f"{row[key]:.2f}" for key in ("bytes_a_token", "tokens_a_character"))
        table.add_row(name, *counts, *ratios, f"{int(row['exact'] * 10_000) / 100:.2f} %")
    console().print(table)


def _add(codec: Codec, texts: list[str], totals: _Totals) -> None:
    for text, codes in zip(texts, codec.encode_batch(texts)):
        totals.texts += 1
        totals.bytes += len(text.encode())
        totals.characters += len(text)
        totals.tokens += len(codes.codes)
        totals.exact += codec.decode(codes) == text


def _paths(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "MANIFEST.tsv")


def texts_of(folder: Path) -> Iterator[tuple[str, str]]:
    """(language, text) of each file that is text."""
    listed = _languages(folder / "MANIFEST.tsv")
    for path in _paths(folder):
        parts = path.relative_to(folder).parts
        try:
            text = read_text(path, Limits())
        except MediaError:
            continue  # a picture among the texts
        if path.name.lower().removesuffix(".gz").endswith(_HTML):
            text = html_text(text)
        yield listed.get("/".join(parts)) or (parts[0] if len(parts) > 1 else "."), text


def _languages(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return {row["path"]: row.get("language") for row in rows if row.get("path")}
