"""Files that say what many sound files say: CMU and LibriSpeech transcriptions, TSV and CSV tables, Lua dialogs.

Each reader gives (name of a sound file or its stem, `Transcript`) in the order of the file, and (number of the line,
`MediaError`) for a line that says nothing of a sound. The time a file takes grows as its length does.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.ingest.folder import language_tag
from pipelines.ingest.media import CANNOT_DECODE, MediaError, one_line

_PATH_COLUMNS = ("path", "file", "file_name", "filename", "audio", "wav_filename")
_TEXT_COLUMNS = ("text", "sentence", "transcript", "transcription", "caption")
_LUA_STRING = r'"((?:[^"\\]|\\.)*)"'
_DIALOG = re.compile(
    rf"dialogId\(\s*{_LUA_STRING}\s*,\s*{_LUA_STRING}\s*,\s*{_LUA_STRING}\s*\)\s*(?:dialogStr\(\s*{_LUA_STRING}\s*\))?",
    re.S,
)
_DIALOG_BEGINS = re.compile(r"(?m)^[^\S\n]*dialogId\(")


@dataclass(frozen=True)
class Transcript:
    """What is said in a sound file, or in a part of it."""

    text: str
    key: str = ""  # in the file of transcripts: for the uri
    language: str = ""
    speaker: str = ""
    start_s: float = float("nan")
    end_s: float = float("nan")
    translations: tuple[tuple[str, str], ...] = ()  # (language, text)


def is_transcripts(path: str) -> bool:
    """Whether a file's name is one of those that hold transcripts by convention."""
    name = path.rsplit("/", 1)[-1].lower()
    return name == "transcription" or name.endswith((".transcription", ".trans.txt")) or _is_dialogs(name)


def parse_transcripts(path: str, text: str) -> Iterator[tuple[str, Transcript | MediaError]]:
    """The transcripts of a file by the convention its name tells."""
    name = path.rsplit("/", 1)[-1].lower()
    if _is_dialogs(name):
        return _dialogs(text, language_tag(name.removeprefix("dialogs_").removesuffix(".lua")))
    if name.endswith((".tsv", ".csv")):
        return _table(text, "\t" if name.endswith(".tsv") else ",")
    return _librispeech(text) if name.endswith(".trans.txt") else _cmu(text)


def _is_dialogs(name: str) -> bool:
    return name.startswith("dialogs_") and name.endswith(".lua")


def _cmu(text: str) -> Iterator[tuple[str, Transcript | MediaError]]:
    """`<s> ten of clubs </s> (001)`"""
    for number, line in enumerate(text.split("\n"), 1):
        if not (line := line.strip()):
            continue
        words, bracket, name = line.rpartition("(")
        name = name.removesuffix(")") if bracket and name.endswith(")") else ""
        if not name or re.search(r"[\s)]", name):
            yield f"L{number}", MediaError(CANNOT_DECODE, "a line that ends in no (name of a sound)")
            continue
        words = words.strip().removesuffix("</s>").removeprefix("<s>").strip()
        yield name, Transcript(words, name)


def _librispeech(text: str) -> Iterator[tuple[str, Transcript | MediaError]]:
    """`84-121123-0000 GO DO YOU HEAR`"""
    for line in text.split("\n"):
        name, _, words = line.strip().partition(" ")
        if name:
            yield name, Transcript(words.strip(), name)


def _dialogs(text: str, language: str) -> Iterator[tuple[str, Transcript | MediaError]]:
    """`dialogId("let-m-oko", "font_small", "English")` with `dialogStr("the same in the file's language")`."""
    text = re.sub(r"(?m)^[^\S\n]*--.*$", "", text)
    dialogs = list(_DIALOG.finditer(text))
    for found in dialogs:
        key, _, english, own = (_unescape(group or "") for group in found.groups())
        words = own or english
        if words.strip():
            others = (("en", english),) if own and english.strip() and language != "en" else ()
            yield key, Transcript(words, key, language if own else "en", translations=others)
    if (begun := len(_DIALOG_BEGINS.findall(text))) > len(dialogs):
        yield "", MediaError(CANNOT_DECODE, f"{begun - len(dialogs)} of {begun} dialogs")


def _table(text: str, delimiter: str) -> Iterator[tuple[str, Transcript | MediaError]]:
    """A header line, then rows: a path and a text, and any of language, speaker, start and end in seconds."""
    quoting: Any = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    rows = csv.DictReader(io.StringIO(text), delimiter=delimiter, quoting=quoting)
    try:
        columns = rows.fieldnames or []
        read = list(enumerate(rows, 2))
    except csv.Error as error:  # a quote that nothing closes
        raise MediaError(CANNOT_DECODE, one_line(error)) from None
    path = next((name for name in _PATH_COLUMNS if name in columns), None)
    words = next((name for name in _TEXT_COLUMNS if name in columns), None)
    if path is None or words is None:
        raise MediaError(
            CANNOT_DECODE, f"its header needs one of {list(_PATH_COLUMNS)} and one of {list(_TEXT_COLUMNS)}"
        )
    for number, row in read:
        if not row.get(path):
            yield f"L{number}", MediaError(CANNOT_DECODE, f"a row without a {path}")
            continue
        yield (
            row[path],
            Transcript(
                text=(row.get(words) or "").strip(),
                key=f"L{number}",
                language=language_tag(row.get("language") or row.get("locale") or ""),
                speaker=row.get("speaker") or row.get("client_id") or "",
                start_s=_seconds(row.get("start")),
                end_s=_seconds(row.get("end")),
            ),
        )


def _seconds(word: str | None) -> float:
    try:
        seconds = float(word) if word else math.nan
    except ValueError:
        return math.nan
    return seconds if math.isfinite(seconds) else math.nan


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: {"n": "\n", "t": "\t"}.get(found[1], found[1]), text, flags=re.S)
