"""Gopher's rules of repetition (Rae et al. 2021, table A1): is it said again and again?

Where sources leave it open: characters are those of words, lines or paragraphs, without the white space between, so
that a share is at most 1; a character inside several repeated n-grams counts once (as the paper asks; datatrove skips
ahead instead, dclm too); the most frequent n-gram must occur twice to count at all. (NeMo Curator's settings state
the complement: its 0.7 is 0.3 here.)
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from pipelines.curate.measure import Measure, at_most
from pipelines.curate.repeats import Grams, repeated
from pipelines.curate.table import Table
from pipelines.curate.words import Text

_TOP, _REPEATED = (2, 3, 4), (5, 6, 7, 8, 9, 10)


class GopherRepetition(Table):
    """Gopher's rules of repetition, on the text of a document."""

    max_lines: float = Field(default=0.3, ge=0, description="share of the lines that occurred before")
    max_paragraphs: float = Field(default=0.3, ge=0, description="share of the paragraphs that occurred before")
    max_line_chars: float = Field(default=0.2, ge=0, description="share of the characters in such lines")
    max_paragraph_chars: float = Field(default=0.2, ge=0, description="share of the characters in such paragraphs")
    max_top: tuple[float, float, float] = Field(
        default=(0.2, 0.18, 0.16), description="share of the characters in the most frequent 2-, 3- and 4-gram of words"
    )
    max_repeated: tuple[float, float, float, float, float, float] = Field(
        default=(0.15, 0.14, 0.13, 0.12, 0.11, 0.1),
        description="share of the characters in 5- to 10-grams of words that occurred before",
    )


def gopher_repetition(text: Text, rules: GopherRepetition) -> Iterator[Measure]:
    """Lines and paragraphs, then n-grams of words (of 2n or 4n characters in scripts without spaces)."""
    share, chars = repeated(text.lines)
    yield at_most("gopher: repeated lines", share, rules.max_lines)
    yield at_most("gopher: characters in repeated lines", chars, rules.max_line_chars)
    share, chars = repeated(text.paragraphs)
    yield at_most("gopher: repeated paragraphs", share, rules.max_paragraphs)
    yield at_most("gopher: characters in repeated paragraphs", chars, rules.max_paragraph_chars)
    grams = Grams(text.units)
    scale = text.units_a_word if text.spaceless else 1
    for n, limit in zip(_TOP, rules.max_top):
        yield at_most(f"gopher: most frequent {n}-gram", grams.top_share(n * scale), limit)
    for n, limit in zip(_REPEATED, rules.max_repeated):
        yield at_most(f"gopher: repeated {n}-grams", grams.repeated_share(n * scale), limit)
