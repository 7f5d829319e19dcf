"""A document's text as rules see it: words, lines and paragraphs, also of languages that put no space between words.

A word is what stands between white space, without the punctuation at its ends. In Han, kana, Thai, Lao, Khmer and
Burmese script each character is a unit of its own: `CHARACTERS_PER_WORD` of them count as a word, and an n-gram of
words is one of so many times n characters. (Round numbers of ours: a dictionary would cut better, and is a dependency
a language.) Korean and Vietnamese are written with spaces.
"""

from __future__ import annotations

import functools
import re
import string
from dataclasses import dataclass

CHARACTERS_PER_WORD = {"east": 2, "southeast": 4}  # Han and kana; Thai, Lao, Khmer, Burmese

_EAST = (
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_SOUTHEAST = "\u0e01-\u0e3a\u0e40-\u0e4e\u0e80-\u0eff\u1000-\u109f\u1780-\u17d3"
_UNIT = re.compile(f"[{_EAST}{_SOUTHEAST}]|[^\\s{_EAST}{_SOUTHEAST}]+")
_EAST_UNIT = re.compile(f"[{_EAST}]")
SPACELESS = f"[{_EAST}{_SOUTHEAST}]"  # a pattern: a character of a script without spaces
_SPACELESS = re.compile(SPACELESS)
_PUNCTUATION = string.punctuation + "…“”‘’«»„‚‹›–—·•‣◦。、，．！？；：「」『』（）《》〈〉【】〜～¿¡،؛؟।॥"

# The commonest function words, a few a language; English is Gopher's own list. The others are ours, unpublished.
STOP_WORDS: dict[str, tuple[str, ...]] = {
    "ar": ("في", "من", "على", "إلى", "أن", "هذا", "التي", "عن", "مع", "لا"),
    "cs": ("a", "v", "se", "na", "je", "že", "s", "z", "do", "to"),
    "da": ("og", "i", "at", "det", "er", "en", "til", "af", "på", "for"),
    "de": ("der", "die", "und", "in", "den", "von", "zu", "das", "mit", "ist"),
    "el": ("και", "το", "η", "της", "του", "να", "με", "για", "από", "που"),
    "en": ("the", "be", "to", "of", "and", "that", "have", "with"),
    "es": ("de", "la", "que", "el", "en", "y", "a", "los", "se", "del"),
    "fi": ("ja", "on", "ei", "se", "että", "oli", "hän", "mutta", "ovat", "kun"),
    "fr": ("de", "la", "le", "et", "les", "des", "en", "un", "que", "une"),
    "hi": ("के", "में", "की", "है", "और", "से", "का", "को", "पर", "कि"),
    "it": ("di", "e", "il", "la", "che", "in", "un", "per", "è", "non"),
    "ja": ("の", "に", "は", "を", "た", "が", "で", "て", "と", "も"),
    "ko": ("이", "그", "수", "및", "있는", "있다", "하는", "것이", "또는", "등"),
    "nl": ("de", "het", "een", "van", "en", "in", "is", "dat", "op", "te"),
    "pl": ("w", "i", "na", "z", "do", "się", "nie", "to", "jest", "że"),
    "pt": ("de", "a", "o", "que", "e", "do", "da", "em", "um", "para"),
    "ru": ("и", "в", "не", "на", "что", "с", "по", "как", "это", "он"),
    "sv": ("och", "i", "att", "det", "som", "en", "på", "är", "av", "för"),
    "th": ("ที่", "การ", "และ", "ใน", "เป็น", "ของ", "มี", "ได้", "ไม่", "ว่า"),
    "tr": ("ve", "bir", "bu", "için", "ile", "da", "de", "olarak", "en", "çok"),
    "uk": ("і", "в", "на", "не", "що", "з", "до", "як", "та", "це"),
    "vi": ("là", "và", "của", "có", "các", "được", "trong", "cho", "không", "một"),
    "zh": ("的", "是", "在", "了", "和", "有", "不", "我", "这", "一"),
}


@dataclass(frozen=True)
class Text:
    """The text of a document (its text parts, with an empty line between) or of one part, and its language."""

    text: str
    language: str = ""  # first part of a BCP 47 tag, "" where nobody says

    @functools.cached_property
    def tokens(self) -> list[str]:
        """What stands between white space; of scripts without spaces, characters."""
        return _UNIT.findall(self.text)

    @functools.cached_property
    def units(self) -> list[str]:
        """The tokens without the punctuation at their ends; tokens of punctuation alone are left out."""
        return [word for token in self.tokens if (word := token.strip(_PUNCTUATION))]

    @functools.cached_property
    def _num_spaceless(self) -> int:
        return sum(len(unit) == 1 and _SPACELESS.match(unit) is not None for unit in self.units)

    @property
    def spaceless(self) -> bool:
        """Whether most units are characters of a script without spaces."""
        return 2 * self._num_spaceless > len(self.units)

    @functools.cached_property
    def units_a_word(self) -> int:
        """Units that make a word of the script without spaces that the text uses most; 1 where it uses none."""
        if not self._num_spaceless:
            return 1
        east = sum(len(unit) == 1 and _EAST_UNIT.match(unit) is not None for unit in self.units)
        return CHARACTERS_PER_WORD["east" if 2 * east >= self._num_spaceless else "southeast"]

    @property
    def num_words(self) -> int:
        """
        >>> Text("Two words.").num_words, Text("这是一个测试").num_words
        (2, 3)
        """
        return len(self.units) - self._num_spaceless + self._num_spaceless // self.units_a_word

    @functools.cached_property
    def lines(self) -> list[str]:
        """Lines with something in them, without the white space at their ends."""
        return [line for raw in self.text.splitlines() if (line := raw.strip())]

    @functools.cached_property
    def paragraphs(self) -> list[str]:
        """What stands between empty lines."""
        return [block for raw in re.split(r"\n[^\S\n]*\n\s*", self.text) if (block := raw.strip())]


def main_language(tag: str) -> str:
    """
    >>> main_language("pt-BR")
    'pt'
    """
    return re.split(r"[-_]", tag, maxsplit=1)[0].lower()


def is_spaceless(character: str) -> bool:
    """Whether it is of a script that puts no space between words."""
    return _SPACELESS.match(character) is not None


def num_stop_words(text: Text, words: tuple[str, ...]) -> int:
    """How many distinct stop words a text holds; in scripts without spaces, as pieces of it."""
    if text.spaceless:
        return sum(word in text.text for word in words)
    return len({unit.lower() for unit in text.units} & set(words))
