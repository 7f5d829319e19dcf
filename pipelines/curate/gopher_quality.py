"""Gopher's rules of quality (Rae et al. 2021, appendix A1.1): is this prose?

Where sources disagree: stop words are counted distinct (datatrove; dclm counts every occurrence); the length of words
is their mean (the paper; dolma takes the median); bullets are `•`, `‣`, `◦`, `*` and `-` (dolma has `*` and `-`,
datatrove `•` and `-`). Words are those of `words.py`, so punctuation is no word of its own, as it is for datatrove's
tokenizers.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from pipelines.curate.measure import Measure, at_least, at_most, share
from pipelines.curate.table import Table
from pipelines.curate.words import STOP_WORDS, Text, num_stop_words

_BULLETS = ("•", "‣", "◦", "*", "-")
_ELLIPSES = ("...", "…")


class GopherQuality(Table):
    """Gopher's rules of quality, on the text of a document."""

    min_words: int = Field(default=50, ge=0, description="of a document")
    max_words: int = Field(default=100_000, ge=0, description="of a document")
    min_mean_word: float = Field(default=3.0, ge=0, description="characters; not asked of scripts without spaces")
    max_mean_word: float = Field(default=10.0, ge=0, description="characters; not asked of scripts without spaces")
    max_hashes: float = Field(default=0.1, ge=0, description="`#` a word")
    max_ellipses: float = Field(default=0.1, ge=0, description="`...` or `…` a word")
    max_bullet_lines: float = Field(default=0.9, ge=0, description="share of the lines that begin with a bullet")
    max_ellipsis_lines: float = Field(default=0.3, ge=0, description="share of the lines that end in an ellipsis")
    min_alphabetic: float = Field(default=0.8, ge=0, le=1, description="share of the words that hold a letter")
    min_stop_words: int = Field(default=2, ge=0, description="distinct ones; not asked where the language has no list")
    stop_words: tuple[str, ...] = Field(default=(), description="in lower case; empty: the built-in list")


def gopher_quality(text: Text, rules: GopherQuality) -> Iterator[Measure]:
    """The rules in the order of the paper; the first that fails is the reason."""
    words = text.num_words
    yield at_least("gopher: too few words", words, rules.min_words)
    yield at_most("gopher: too many words", words, rules.max_words)
    if text.units and not text.spaceless:
        mean = sum(map(len, text.units)) / len(text.units)
        yield at_least("gopher: words too short", mean, rules.min_mean_word)
        yield at_most("gopher: words too long", mean, rules.max_mean_word)
    yield at_most("gopher: too many hashes", share(text.text.count("#"), words), rules.max_hashes)
    ellipses = sum(map(text.text.count, _ELLIPSES))
    yield at_most("gopher: too many ellipses", share(ellipses, words), rules.max_ellipses)
    lines = text.lines
    bullets = sum(line.startswith(_BULLETS) for line in lines)
    yield at_most("gopher: too many bullet lines", share(bullets, len(lines)), rules.max_bullet_lines)
    cut = sum(line.endswith(_ELLIPSES) for line in lines)
    yield at_most("gopher: too many lines end in an ellipsis", share(cut, len(lines)), rules.max_ellipsis_lines)
    if text.tokens:
        letters = sum(any(map(str.isalpha, token)) for token in text.tokens) / len(text.tokens)
        yield at_least("gopher: too few words with a letter", letters, rules.min_alphabetic)
    if stop_words := rules.stop_words or STOP_WORDS.get(text.language, ()):
        yield at_least("gopher: too few stop words", num_stop_words(text, stop_words), rules.min_stop_words)
