"""OBELICS' and MMC4's rules just under, at and just over their limits."""

from __future__ import annotations

import pytest

from pipelines.curate.pictures import Pictures, address, page, paragraph, picture, special
from pipelines.curate.words import Text

RULES = Pictures()


def failed(measures: object) -> list[str]:
    return [m.rule.removeprefix("pictures: ") for m in measures if not m.kept]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("format", "width", "height", "why"),
    [
        ("jpeg", 150, 150, []),
        ("webp", 300, 150, []),
        ("gif", 300, 150, ["format"]),
        ("png", 149, 150, ["too small"]),
        ("png", 150, 301, ["too long"]),
        ("png", 20_000, 10_000, []),
        ("png", 20_001, 15_000, ["too large"]),
    ],
)
def test_pictures_by_format_and_sides(format: str, width: int, height: int, why: list[str]) -> None:
    assert failed(picture(format, width, height, RULES)) == why


@pytest.mark.parametrize(
    ("uri", "kept"),
    [
        ("https://a.org/img/cat.png", True),
        ("https://a.org/img/site-logo.png", False),
        ("images/icons/cat.png", False),
        ("images/lexicon.png", True),
        ("a/b.jpg?widget=1", True),  # the query says nothing of the picture
        ("page.html#logo", True),
        ("Button_2.PNG", False),
        ("", True),
    ],
)
def test_words_of_addresses(uri: str, kept: bool) -> None:
    (measure,) = address(uri, RULES)
    assert measure.kept == kept


def distinct(n: int) -> str:
    """n words of letters alone, none of which is like another."""
    return " ".join("".join(chr(97 + (i * 7919 // 26**k) % 26) for k in range(4)) for i in range(n))


@pytest.mark.parametrize(("words", "why"), [(3, ["paragraph of few words"]), (4, []), (1000, [])])
def test_paragraphs_by_words(words: int, why: list[str]) -> None:
    assert failed(paragraph(Text(distinct(words)), RULES)) == why


def test_a_paragraph_of_1001_words_is_too_long() -> None:
    assert "paragraph of many words" in failed(paragraph(Text(distinct(1001)), RULES))


def test_special_characters_are_all_but_letters() -> None:
    assert special(Text("one, 2\n")) == 4 / 7  # as OBELICS counts: punctuation, digits and white space
    assert failed(paragraph(Text("aa bb ccc defgh1!!!!"), RULES)) == ["special characters in a paragraph"]  # 8 of 20
    assert failed(paragraph(Text("aa bb ccc defghi!!!!"), RULES)) == ["special characters in a paragraph"]  # 7 of 20
    assert failed(paragraph(Text("aa bb ccc defghij!!!"), RULES)) == []  # 6 of 20
    assert failed(paragraph(Text("हिन्दी में लिखा हुआ वाक्य"), RULES)) == []  # vowel signs are no special characters


def test_a_page_may_hold_fewer_special_characters() -> None:
    text = distinct(12)  # 11 spaces among 59 characters
    assert failed(page(Text(text + "!" * 7), 1, RULES)) == []  # 18 of 66
    assert failed(page(Text(text + "!" * 8), 1, RULES)) == ["special characters"]  # 19 of 67


def test_a_paragraph_that_says_one_thing_over_and_over() -> None:
    assert set(failed(paragraph(Text("never say it twice again " * 6), RULES))) == {
        "repeated characters in a paragraph",
        "repeated words in a paragraph",
    }


@pytest.mark.parametrize(
    ("words", "images", "why"),
    [
        (10, 1, []),
        (2000, 30, []),
        (9, 1, ["too few words"]),
        (2001, 1, ["too many words"]),
        (10, 0, ["too few pictures"]),
        (10, 31, ["too many pictures"]),
    ],
)
def test_documents_by_words_and_pictures(words: int, images: int, why: list[str]) -> None:
    found = failed(page(Text(distinct(words)), images, RULES))
    assert [f for f in found if "repeated" not in f] == why
