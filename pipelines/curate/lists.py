"""Lists of words, and of hosts and addresses, each a text file named in the recipe: one entry a line, `#` begins a
comment (in lists of hosts at a line's begin or after white space, as an address may hold one)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from mmdata.errors import UserError
from pipelines.curate.measure import Measure, at_most
from pipelines.curate.table import Table
from pipelines.curate.words import Text, is_spaceless
from pipelines.ingest.address import AddressList, host_of, is_address, is_host, list_entries

_WORD = re.compile(r"\w+")


class Lists(Table):
    """Words and hosts that are not wanted, from files."""

    words: tuple[str, ...] = Field(default=(), description="files of words and phrases, beside the recipe; in any case")
    max_words: int = Field(default=0, ge=0, description="occurrences of listed words that a document may hold")
    hosts: tuple[str, ...] = Field(
        default=(),
        description="files of hosts (subdomains are meant too) and of addresses (what begins so), beside the recipe",
    )


def read_list(path: Path) -> tuple[str, ...]:
    """The entries of a list of words, in lower case; UserError where it cannot be read."""
    entries = (line.partition("#")[0].strip().lower() for line in _text(path).splitlines())
    return tuple(dict.fromkeys(entry for entry in entries if entry))


def read_hosts(path: Path) -> tuple[str, ...]:
    """The entries of a list of hosts and addresses, hosts in lower case; UserError where it cannot be read, or names
    what is neither."""
    entries = []
    for entry in list_entries(_text(path)):
        if not is_address(entry) and not is_host(entry):
            raise UserError(
                f"the list {path}: {entry[:200]!r} is neither a host nor an address; write bad.org (subdomains are"
                " meant too) or https://bad.org/what/begins/so"
            )
        entries.append(entry if is_address(entry) else entry.lower())
    return tuple(dict.fromkeys(entries))


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


def listed_host(address: str, listed: AddressList) -> Iterator[Measure]:
    """The rule on a remote address; nothing of what is none."""
    if host := host_of(address):
        found = listed.entry_for(address)
        value = found if is_address(found) else host
        yield Measure("lists: listed host", value, str(listed), not found, "none of")


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list {path}: {error}; name a text file in UTF-8") from None
