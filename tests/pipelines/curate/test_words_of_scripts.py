"""Words, lines and stop words, also in scripts that put no space between words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.curate.gopher_quality import GopherQuality, gopher_quality
from pipelines.curate.gopher_repetition import GopherRepetition, gopher_repetition
from pipelines.curate.words import STOP_WORDS, Text, main_language, num_stop_words


@pytest.mark.parametrize(
    ("text", "words", "spaceless"),
    [
        ("It's - well - e.g. “done”!", 4, False),
        ("這是一個測試。", 3, True),  # six characters
        ("これはテスト", 3, True),
        ("ภาษาไทยไม่มีช่องว่าง", 5, True),  # 20 characters, four a word
        ("We wrote 文字 in it", 5, False),
        ("한국어 문장 입니다", 3, False),
        ("", 0, False),
    ],
)
def test_words_are_counted_in_every_script(text: str, words: int, spaceless: bool) -> None:
    assert (Text(text).num_words, Text(text).spaceless) == (words, spaceless)


@given(st.text())
def test_units_are_pieces_of_the_text_and_words_are_no_more_than_units(text: str) -> None:
    found = Text(text)
    assert "".join(found.tokens) == "".join(text.split())
    assert all(unit in text for unit in found.units) and 0 <= found.num_words <= len(found.units)


def test_lines_and_paragraphs() -> None:
    text = Text("a\n b \n\n \nc\n\t\nd\n")
    assert text.lines == ["a", "b", "c", "d"] and text.paragraphs == ["a\n b", "c", "d"]


def test_stop_words_of_scripts_without_spaces_are_pieces_of_text() -> None:
    assert num_stop_words(Text("我的书在这里"), STOP_WORDS["zh"]) == 4
    assert num_stop_words(Text("The theme of it"), STOP_WORDS["en"]) == 2
    assert len(STOP_WORDS) == 23 and all(len(set(words)) >= 8 for words in STOP_WORDS.values())


def test_a_chinese_page_passes_gophers_rules_and_one_of_few_characters_does_not() -> None:
    characters = "".join(chr(0x4E00 + i) for i in range(96)) + "的在是。"
    rules = list(gopher_quality(Text(characters[1:], "zh"), GopherQuality()))
    assert [m.rule for m in rules if not m.kept] == ["gopher: too few words"]  # 98 characters: 49 words
    assert all(m.kept for m in gopher_quality(Text(characters, "zh"), GopherQuality())) is False
    assert all(m.kept for m in gopher_quality(Text("书" + characters, "zh"), GopherQuality()))


def test_n_grams_of_such_scripts_span_as_many_characters_as_words() -> None:
    said = "".join(chr(0x4E00 + i) for i in range(5))  # five characters again are no five words again
    text = said + "".join(chr(0x5E00 + i) for i in range(20)) + said
    assert all(m.kept for m in gopher_repetition(Text(text, "zh"), GopherRepetition()) if "repeated" in m.rule)
    said = "".join(chr(0x4E00 + i) for i in range(10))
    text = said + "".join(chr(0x5E00 + i) for i in range(20)) + said
    assert "gopher: repeated 5-grams" in [
        m.rule for m in gopher_repetition(Text(text, "zh"), GopherRepetition()) if not m.kept
    ]


def test_tags_are_of_their_main_language() -> None:
    assert [main_language(tag) for tag in ("en", "pt-BR", "zh_Hans", "")] == ["en", "pt", "zh", ""]
