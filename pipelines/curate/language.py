"""Which language a text is in: py3langid, whose weights lie in its package, so nothing is fetched.

Its score is a softmax over 97 languages, tempered by the text's length: not the score of fastText, for which
FineWeb's and DCLM's 0.65 and OBELICS' 0.8 were chosen. The number is theirs, the scale is not.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from pipelines.curate.measure import Measure, at_least
from pipelines.curate.table import Table
from pipelines.curate.words import Text, main_language

_MOST_CHARACTERS = 20_000  # of a text; more does not change the answer


class Language(Table):
    """Language identification; the language found is stored with the document."""

    min_score: float = Field(default=0.65, ge=0, le=1, description="of the language found; OBELICS asks for 0.8")
    languages: tuple[str, ...] = Field(default=(), description="those kept (`en`, `de`, ...); empty: all")
    trust: bool = Field(default=True, description="a document that says its language keeps it, and is not measured")
    min_characters: int = Field(default=100, ge=0, description="a shorter text is not measured: it keeps what it says")


def identify(text: str) -> tuple[str, float]:
    """(language, score in [0, 1]) of a text.

    >>> identify("The quick brown fox jumps over the lazy dog, and then it goes home.")[0]
    'en'
    """
    language, score = _identifier().classify(text[:_MOST_CHARACTERS].encode("utf-8", "replace"))
    return str(language), float(score)


def language(text: Text, found: str, score: float | None, rules: Language) -> Iterator[Measure]:
    """The rules on a language found with a score, or said by the document (score None)."""
    if score is not None:
        yield at_least("language: not sure", score, rules.min_score)
    if rules.languages:
        known = {main_language(tag) for tag in rules.languages}
        limit = ", ".join(rules.languages)
        yield Measure("language: not kept", found or "unknown", limit, main_language(found) in known, "one of")


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
