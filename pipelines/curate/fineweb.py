"""FineWeb's own rules (Penedo et al. 2024, section 3.6): lists and menus, told by the shape of their lines.

The set also went through language identification (score 0.65), Gopher's rules, and C4's without the rule on end
marks. End marks are those of English and of other scripts; a character of a script without spaces counts as one
towards a short line, so such languages may want another `short_line` (FineWeb-2 tunes its numbers by language).
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from pipelines.curate.measure import Measure, at_least, at_most, share
from pipelines.curate.repeats import repeated
from pipelines.curate.table import Table
from pipelines.curate.words import Text

_STOPS = (".", "?", "!", '"', "'", "”", "’", "…", "。", "？", "！", "」", "؟", "۔", "।")


class FineWeb(Table):
    """FineWeb's own rules, on the lines of a document."""

    min_end_marks: float = Field(default=0.12, ge=0, le=1, description="share of the lines that end in an end mark")
    short_line: int = Field(default=30, ge=0, description="a line of at most so many characters is short")
    max_short_lines: float = Field(default=0.67, ge=0, description="share of the lines that are short")
    max_repeated_chars: float = Field(
        default=0.01, ge=0, description="share of characters in lines that occurred before"
    )
    max_newlines: float = Field(default=0.3, ge=0, description="line ends a word")


def fineweb(text: Text, rules: FineWeb) -> Iterator[Measure]:
    """The rules in the order of the paper's code."""
    lines = text.lines
    if not lines:
        return
    ended = sum(line.endswith(_STOPS) for line in lines)
    yield at_least("fineweb: few lines end in an end mark", share(ended, len(lines)), rules.min_end_marks)
    short = sum(len(line) <= rules.short_line for line in lines)
    yield at_most("fineweb: short lines", share(short, len(lines)), rules.max_short_lines)
    yield at_most("fineweb: characters in repeated lines", repeated(lines)[1], rules.max_repeated_chars)
    newlines = text.text.strip().count("\n")
    yield at_most("fineweb: too many line ends", share(newlines, text.num_words), rules.max_newlines)
