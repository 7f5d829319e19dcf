"""OBELICS' rules on words (Laurencon et al. 2023): shares of stop, flagged and common words, punctuation, perplexity.

On paragraphs, which are the text parts, and then on what is left of the document. A rule on listed words is asked only
where the recipe gives the list: the limits are of OBELICS' own, of 270 English stop words and of the common words of a
corpus, and say nothing of a shorter one. Shares of stop and common words are not asked of scripts without spaces.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from pipelines.curate.hooks import number
from pipelines.curate.lists import WordList, read_list
from pipelines.curate.measure import Measure, at_least, at_most, share
from pipelines.curate.table import Table
from pipelines.curate.words import Text

PERPLEXITIES = ("kenlm",)
LISTS = ("stop_words", "flagged_words", "common_words")
MODELS = ("model", "pieces")  # of kenlm

_MARKS = re.compile("[,;:?!.，。、：；？！．،؛؟।॥…]")  # OBELICS' six, and those of other scripts


class Obelics(Table):
    """OBELICS' rules on words. A paragraph that fails is left out of its document."""

    stop_words: tuple[str, ...] = Field(default=(), description="files of words, one a line, beside the recipe")
    flagged_words: tuple[str, ...] = Field(default=(), description="files of words and phrases")
    common_words: tuple[str, ...] = Field(default=(), description="files of words")
    min_paragraph_stop_words: float = Field(default=0.3, ge=0, le=1, description="share of a paragraph's words")
    max_paragraph_flagged_words: float = Field(default=0.01, ge=0, description="share of a paragraph's words")
    min_paragraph_punctuation: float = Field(
        default=0.001, ge=0, le=1, description="share of `,;:?!.` among a paragraph's words and these marks"
    )
    min_paragraph_common_words: float = Field(default=0.8, ge=0, le=1, description="share of a paragraph's words")
    punctuation_words: int = Field(default=12, ge=0, description="words and marks of a paragraph that must hold some")
    min_stop_words: float = Field(default=0.35, ge=0, le=1, description="share of a document's words")
    max_flagged_words: float = Field(default=0.01, ge=0, description="share of a document's words")
    min_punctuation: float = Field(default=0.03, ge=0, le=1, description="share among a document's words and marks")
    min_common_words: float = Field(default=0.9, ge=0, le=1, description="share of a document's words")
    perplexity: str = Field(
        default="",
        description='who says it of a document: `"kenlm"` (extra `perplexity`) with `model`, `"module:function"` of a'
        " text to a number, or nobody",
    )
    max_perplexity: float = Field(default=1500, ge=1, description="of a document")
    model: str = Field(default="", description='of `perplexity = "kenlm"`: an ARPA or binary file, beside the recipe')
    pieces: str = Field(default="", description="a SentencePiece model that cuts what `model` reads; empty: words")
    version: str = Field(default="", description="of your own function: change it when the function changes")


@dataclass(frozen=True)
class OpenedWords:
    """The lists of a recipe; None where it gives none."""

    stop: frozenset[str] | None = None
    flagged: WordList | None = None
    common: frozenset[str] | None = None


@functools.lru_cache(maxsize=32)
def open_words(stop: tuple[Path, ...], flagged: tuple[Path, ...], common: tuple[Path, ...]) -> OpenedWords:
    """The words in these files, read once a worker."""
    listed, of_flagged, frequent = (
        tuple(entry for path in paths for entry in read_list(path)) for paths in (stop, flagged, common)
    )
    return OpenedWords(
        frozenset(listed) if stop else None,
        WordList(tuple(dict.fromkeys(of_flagged))) if flagged else None,
        frozenset(frequent) if common else None,
    )


def obelics_paragraph(text: Text, words: OpenedWords, rules: Obelics) -> Iterator[Measure]:
    """The rules on one text part, in OBELICS' order."""
    if words.stop is not None and not text.spaceless:
        yield at_least(
            "obelics: paragraph of few stop words", _listed(text, words.stop), rules.min_paragraph_stop_words
        )
    if words.flagged is not None:
        found = share(words.flagged.count(text.text), text.num_words)
        yield at_most("obelics: flagged words in a paragraph", found, rules.max_paragraph_flagged_words)
    marks, total = punctuation(text)
    if total >= max(1, rules.punctuation_words):
        found = share(marks, total)
        yield at_least("obelics: paragraph of little punctuation", found, rules.min_paragraph_punctuation)
    if words.common is not None and not text.spaceless:
        found = _listed(text, words.common)
        yield at_least("obelics: paragraph of few common words", found, rules.min_paragraph_common_words)


def obelics_document(text: Text, words: OpenedWords, rules: Obelics) -> Iterator[Measure]:
    """The rules on a document, of what the rules on its paragraphs have left."""
    if words.stop is not None and not text.spaceless:
        yield at_least("obelics: few stop words", _listed(text, words.stop), rules.min_stop_words)
    if words.flagged is not None:
        found = share(words.flagged.count(text.text), text.num_words)
        yield at_most("obelics: flagged words", found, rules.max_flagged_words)
    yield at_least("obelics: little punctuation", share(*punctuation(text)), rules.min_punctuation)
    if words.common is not None and not text.spaceless:
        yield at_least("obelics: few common words", _listed(text, words.common), rules.min_common_words)


def obelics_perplexity(text: Text, perplexity: Callable[[str], object], rules: Obelics) -> Iterator[Measure]:
    """The rule on a document's perplexity; HookError where the hook gave no number."""
    found = number(rules.perplexity, perplexity(text.text))
    yield at_most("obelics: high perplexity", found, rules.max_perplexity)


def punctuation(text: Text) -> tuple[int, int]:
    """How many marks, and how many words and marks.

    >>> punctuation(Text("Well, well. It is so!"))
    (3, 8)
    """
    marks = len(_MARKS.findall(text.text))
    return marks, text.num_words + marks


def _listed(text: Text, words: frozenset[str]) -> float:
    return share(sum(unit.lower() in words for unit in text.units), len(text.units))
