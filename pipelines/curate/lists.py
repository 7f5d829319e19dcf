"""Lists of words and of hosts, each a text file named in the recipe: one entry a line, `#` begins a comment."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field

from mmdata.errors import UserError
from pipelines.curate.measure import Measure, at_most
from pipelines.curate.table import Table
from pipelines.curate.words import Text, is_spaceless

_WORD = re.compile(r"\w+")


class Lists(Table):
    """Words and hosts that are not wanted, from files."""

    words: tuple[str, ...] = Field(default=(), description="files of words and phrases, beside the recipe; in any case")
    max_words: int = Field(default=0, ge=0, description="occurrences of listed words that a document may hold")
    hosts: tuple[str, ...] = Field(
        default=(), description="files of hosts, beside the recipe; subdomains are meant too"
    )


def read_list(path: Path) -> tuple[str, ...]:
    """The entries of a list, in lower case; UserError where it cannot be read."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list {path}: {error}; name a text file in UTF-8") from None
    entries = (line.partition("#")[0].strip().lower() for line in lines)
    return tuple(dict.fromkeys(entry for entry in entries if entry))


class WordList:
    """Listed words and phrases: found as whole words, or as pieces of text in scripts without spaces."""

    def __init__(self, entries: tuple[str, ...]) -> None:
        self._pieces = tuple(entry for entry in entries if any(map(is_spaceless, entry)))
        self._phrases: dict[str, list[tuple[str, ...]]] = {}  # first word -> phrases
        for entry in entries:
            words = tuple(_WORD.findall(entry))
            if words and entry not in self._pieces:
                self._phrases.setdefault(words[0], []).append(words)

    def count(self, text: str) -> int:
        """
        >>> WordList(("bad", "very bad thing")).count("A BAD, very bad thing; badly")
        3
        """
        text = text.lower()
        words = _WORD.findall(text)
        whole = sum(
            tuple(words[start : start + len(phrase)]) == phrase
            for start, word in enumerate(words)
            for phrase in self._phrases.get(word, ())
        )
        return whole + sum(map(text.count, self._pieces))


def listed_words(text: Text, words: WordList, rules: Lists) -> Iterator[Measure]:
    """The rule on words; the words themselves are not repeated in the ledger."""
    yield at_most("lists: listed words", words.count(text.text), rules.max_words)


def listed_host(host: str, hosts: frozenset[str]) -> Iterator[Measure]:
    """The rule on the host of an address; nothing where there is none."""
    if host:
        found = next((name for name in _with_parents(host) if name in hosts), "")
        yield Measure("lists: listed host", host, f"{len(hosts):,} hosts", not found, "none of")


def host_of(address: str) -> str:
    """
    >>> host_of("https://www.Example.org:8080/a"), host_of("a/b.png")
    ('www.example.org', '')
    """
    try:
        return urlsplit(address).hostname or "" if "://" in address else ""
    except ValueError:
        return ""


def _with_parents(host: str) -> Iterator[str]:
    """a.b.org, b.org, org"""
    labels = host.strip(".").split(".")
    for start in range(len(labels)):
        yield ".".join(labels[start:])
