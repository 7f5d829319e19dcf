"""Rules on pages with pictures: OBELICS' (Laurencon et al. 2023) and MMC4's (Zhu et al. 2023), on parts and documents.

Where they disagree: formats are OBELICS' (it has WebP, MMC4 has not); sides 150..20,000 pixels (MMC4 has no upper
end); the longer side at most twice the shorter (both). Tokens of addresses are MMC4's, compared with whole words of
the address or their plural, so `lexicon.png` stays. What needs a model or lists of words is in families of its
own (`obelics`, `safe_pictures`, `similarity`), and so are copies (`picture_copies`). Shares of repetition are ROOTS' as
OBELICS took them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field

from pipelines.curate.measure import Measure, at_least, at_most, share
from pipelines.curate.repeats import Grams
from pipelines.curate.table import Table
from pipelines.curate.words import Text

Format = Literal["jpeg", "png", "webp", "gif", "avif", "bmp", "tiff", "jpeg2000", "ico", "pcx", "ppm", "tga"]


class Pictures(Table):
    """OBELICS' and MMC4's rules. A picture or paragraph that fails is left out of its document."""

    formats: tuple[Format, ...] = Field(default=("jpeg", "png", "webp"), description="of pictures, by their content")
    min_side: int = Field(default=150, ge=1, description="pixels of the shorter side")
    max_side: int = Field(default=20_000, ge=1, description="pixels of the longer side")
    max_aspect: float = Field(default=2.0, ge=1, description="the longer side by the shorter")
    url_tokens: tuple[str, ...] = Field(
        default=("logo", "button", "icon", "plugin", "widget"),
        description="that a picture's address must not hold",
    )
    min_paragraph_words: int = Field(default=4, ge=0, description="of a text part")
    max_paragraph_words: int = Field(default=1000, ge=1, description="of a text part")
    max_paragraph_special: float = Field(
        default=0.3, ge=0, description="share of its characters but letters; white space counts"
    )
    max_paragraph_char_repetition: float = Field(default=0.1, ge=0, description="share of its most repeated 10-grams")
    max_paragraph_word_repetition: float = Field(default=0.1, ge=0, description="share of its repeated word 5-grams")
    min_images: int = Field(default=1, ge=0, description="of a document, after its pictures were judged")
    max_images: int = Field(default=30, ge=0, description="of a document, after its pictures were judged")
    min_words: int = Field(default=10, ge=0, description="of a document, after its paragraphs were judged")
    max_words: int = Field(default=2000, ge=1, description="of a document, after its paragraphs were judged")
    max_special: float = Field(
        default=0.275, ge=0, description="share of its characters but letters; white space counts"
    )
    max_char_repetition: float = Field(default=0.1, ge=0, description="share of its most repeated 10-grams")
    max_word_repetition: float = Field(default=0.2, ge=0, description="share of its repeated word 5-grams")


def picture(format: str, width: int, height: int, rules: Pictures) -> Iterator[Measure]:
    """The rules on one picture: its format ("jpeg") and its sides in pixels, as stored."""
    kept = format in rules.formats
    yield Measure("pictures: format", format, ", ".join(rules.formats), kept, "one of")
    yield at_least("pictures: too small", min(width, height), rules.min_side)
    yield at_most("pictures: too large", max(width, height), rules.max_side)
    yield at_most("pictures: too long", max(width, height) / max(1, min(width, height)), rules.max_aspect)


def address(uri: str, rules: Pictures) -> Iterator[Measure]:
    """The rule on the words of a picture's address or path."""
    words = set(re.findall(r"[a-z]+", urlsplit(uri.split("#")[0])._replace(query="").geturl().lower()))
    found = [token for token in rules.url_tokens if words & {token.lower(), f"{token.lower()}s"}]
    limit = ", ".join(rules.url_tokens)
    yield Measure("pictures: word in its address", ", ".join(found) or "none", limit, not found, "none of")


def paragraph(text: Text, rules: Pictures) -> Iterator[Measure]:
    """The rules on one text part."""
    yield at_least("pictures: paragraph of few words", text.num_words, rules.min_paragraph_words)
    yield at_most("pictures: paragraph of many words", text.num_words, rules.max_paragraph_words)
    yield at_most("pictures: special characters in a paragraph", special(text), rules.max_paragraph_special)
    chars, words = _repetition(text)
    yield at_most("pictures: repeated characters in a paragraph", chars, rules.max_paragraph_char_repetition)
    yield at_most("pictures: repeated words in a paragraph", words, rules.max_paragraph_word_repetition)


def page(text: Text, num_images: int, rules: Pictures) -> Iterator[Measure]:
    """The rules on a document, of what the rules on its parts have left."""
    yield at_least("pictures: too few pictures", num_images, rules.min_images)
    yield at_most("pictures: too many pictures", num_images, rules.max_images)
    yield at_least("pictures: too few words", text.num_words, rules.min_words)
    yield at_most("pictures: too many words", text.num_words, rules.max_words)
    yield at_most("pictures: special characters", special(text), rules.max_special)
    chars, words = _repetition(text)
    yield at_most("pictures: repeated characters", chars, rules.max_char_repetition)
    yield at_most("pictures: repeated words", words, rules.max_word_repetition)


def special(text: Text) -> float:
    """Share of the characters that are no letters, nor marks on them: OBELICS' set has punctuation, digits, white space
    (about a sixth of an English text), symbols and emoji. It also has some letters, of kana for one, which do not count
    here."""
    return share(sum(unicodedata.category(c)[0] in "NPSCZ" for c in text.text), len(text.text))


def _repetition(text: Text) -> tuple[float, float]:
    scale = text.units_a_word if text.spaceless else 1
    words = Grams(unit.lower() for unit in text.units)
    return Grams(text.text).frequent_share(10), words.repeated_count_share(5 * scale)
