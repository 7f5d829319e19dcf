"""Each rule on text just under, at and just over its limit; repeated n-grams against a slow twin."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.curate.c4 import C4, c4_document, c4_lines, num_sentences
from pipelines.curate.fineweb import FineWeb, fineweb
from pipelines.curate.gopher_quality import GopherQuality, gopher_quality
from pipelines.curate.gopher_repetition import GopherRepetition, gopher_repetition
from pipelines.curate.measure import Measure, at_least, at_most
from pipelines.curate.repeats import Grams, repeated
from pipelines.curate.words import Text


def gopher(text: str, **rules: object) -> dict[str, Measure]:
    return {m.rule: m for m in gopher_quality(Text(text, "en"), GopherQuality(**rules))}


def kept(text: str, rule: str) -> bool:
    return gopher(text)[rule].kept


def test_a_measure_says_value_and_limit() -> None:
    assert at_least("r", 50, 50).kept and not at_least("r", 49, 50).kept
    assert at_most("r", 0.3, 0.3).kept and not at_most("r", 0.31, 0.3).kept
    assert at_most("r", 0.3125, 0.3).detail == "0.3125, at most 0.3"
    assert at_least("r", 1234, 5000).detail == "1,234, at least 5,000"


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        ("gopher: too few words", "word " * 50, "word " * 49),
        ("gopher: too many words", "word " * 100_000, "word " * 100_001),
        ("gopher: words too short", "abc " * 60, "abc " * 59 + "ab"),
        ("gopher: words too long", "abcdefghij " * 60, "abcdefghij " * 59 + "abcdefghijk"),
        ("gopher: too many hashes", "word " * 99 + "#w " + "#" * 9, "word " * 99 + "#w " + "#" * 10),
        ("gopher: too many ellipses", "word " * 10 + "...", "word " * 10 + "... …"),
        ("gopher: too many bullet lines", "- a\n" * 9 + "b", "- a\n" * 10 + "b"),
        ("gopher: too many lines end in an ellipsis", "a...\n" * 3 + "b\n" * 7, "a...\n" * 4 + "b\n" * 6),
        ("gopher: too few words with a letter", "word " * 8 + "12 34", "word " * 7 + "12 34 56"),
        ("gopher: too few stop words", "The cat of mine", "The cat, the dog"),
    ],
)
def test_gopher_quality_at_and_past_each_limit(rule: str, good: str, bad: str) -> None:
    assert kept(good, rule) and not kept(bad, rule)


def test_gopher_quality_asks_only_what_can_be_measured() -> None:
    assert "gopher: words too long" not in gopher("")
    found = [m.rule for m in gopher_quality(Text("ein Wort", "xx"), GopherQuality())]
    assert "gopher: too few stop words" not in found
    found = {m.rule: m for m in gopher_quality(Text("的" + "文字" * 60, "zh"), GopherQuality())}  # type: ignore[assignment]
    assert "gopher: words too short" not in found


def test_stop_words_may_be_ones_own_and_repeats_count_once() -> None:
    assert gopher("ja ja nee", stop_words=("ja", "nee"))["gopher: too few stop words"].value == 2
    assert gopher("the the the")["gopher: too few stop words"].value == 1


def repetition(text: str) -> dict[str, Measure]:
    return {m.rule: m for m in gopher_repetition(Text(text, "en"), GopherRepetition())}


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [  # ten lines or paragraphs of one length: three and four of them said before
        ("gopher: repeated lines", "aa\n" * 4 + "ab\nac\nad\nae\naf\nag", "aa\n" * 5 + "ab\nac\nad\nae\naf"),
        (
            "gopher: repeated paragraphs",
            "\n\n".join(["aa"] * 4 + ["ab", "ac", "ad", "ae", "af", "ag"]),
            "\n\n".join(["aa"] * 5 + ["ab", "ac", "ad", "ae", "af"]),
        ),
        ("gopher: characters in repeated lines", "aa\n" * 2 + "b" * 6, "aa\n" * 2 + "b" * 5),
        ("gopher: characters in repeated paragraphs", "aa\n\n" * 2 + "b" * 6, "aa\n\n" * 2 + "b" * 5),
        # 2-grams: 4 of 20 and of 19 characters
        ("gopher: most frequent 2-gram", "a b " + "c" * 16 + " a b", "a b " + "c" * 15 + " a b"),
        ("gopher: most frequent 3-gram", "a b c " + "d" * 28 + " a b c", "a b c " + "d" * 27 + " a b c"),
        ("gopher: most frequent 4-gram", "a b c d " + "e" * 42 + " a b c d", "a b c d " + "e" * 41 + " a b c d"),
        # 5-grams: the second time counts, 5 of 34 and of 33 characters
        ("gopher: repeated 5-grams", "a b c d e " + "f" * 24 + " a b c d e", "a b c d e " + "f" * 23 + " a b c d e"),
        (
            "gopher: repeated 10-grams",
            "a b c d e f g h i j " + "k" * 80 + " a b c d e f g h i j",
            "a b c d e f g h i j " + "k" * 79 + " a b c d e f g h i j",
        ),
    ],
)
def test_gopher_repetition_at_and_past_each_limit(rule: str, good: str, bad: str) -> None:
    assert repetition(good)[rule].kept and not repetition(bad)[rule].kept


def slow_top(units: list[str], n: int) -> float:
    grams = [tuple(units[i : i + n]) for i in range(len(units) - n + 1)]
    if not grams or max(Counter(grams).values()) < 2:
        return 0.0
    counts = Counter(grams)
    most = max(counts.values())
    best = max(len("".join(g)) for g in counts if counts[g] == most)
    first = next(g for g in grams if counts[g] == most and len("".join(g)) == best)
    inside = {i + k for i, gram in enumerate(grams) if gram == first for k in range(n)}
    return sum(len(units[i]) for i in inside) / sum(map(len, units))


def slow_repeated(units: list[str], n: int) -> float:
    grams = [tuple(units[i : i + n]) for i in range(len(units) - n + 1)]
    inside = {i + k for i, gram in enumerate(grams) if gram in grams[:i] for k in range(n)}
    return sum(len(units[i]) for i in inside) / sum(map(len, units)) if units else 0.0


@given(st.lists(st.sampled_from(["a", "bb", "c", "dddd"]), max_size=40), st.integers(1, 12))
def test_shares_of_n_grams_are_those_of_a_slow_twin(units: list[str], n: int) -> None:
    grams = Grams(units)
    assert grams.top_share(n) == pytest.approx(slow_top(units, n))
    assert grams.repeated_share(n) == pytest.approx(slow_repeated(units, n))
    counts = Counter(tuple(units[i : i + n]) for i in range(len(units) - n + 1))
    twice = sum(count for count in counts.values() if count > 1)
    assert grams.repeated_count_share(n) == pytest.approx(twice / max(1, counts.total()))
    assert 0 <= grams.frequent_share(n) <= 1


@given(st.lists(st.text("ab", max_size=3)))
def test_repeated_lines_are_those_seen_before(lines: list[str]) -> None:
    share, chars = repeated(lines)
    assert 0 <= share <= 1 and 0 <= chars <= 1
    assert round(share * len(lines)) == len(lines) - len(set(lines))


GOOD = "This line has five words."


def lines(text: str, **rules: object) -> tuple[str, Counter[str]]:
    return c4_lines(Text(text, "en"), C4(**rules))


@pytest.mark.parametrize(
    ("good", "bad", "why"),
    [
        ("Does it end in a mark?", "It does not end in one", "c4: lines without an end mark"),
        ("Said the man to her “yes.”", "It goes on and on...", "c4: lines without an end mark"),
        (GOOD, "This has four words.", "c4: lines of few words"),
        ("a b c d " + "e" * 999 + ".", "a b c d " + "e" * 1000 + ".", "c4: lines with a very long word"),
        (GOOD, "You need JavaScript for this page.", "c4: lines about javascript"),
        (GOOD, "This site uses cookies for you.", "c4: lines about policies"),
    ],
)
def test_c4_takes_lines_out(good: str, bad: str, why: str) -> None:
    assert lines(f"{good}\n{bad}\n{good}") == (f"{good}\n{good}", Counter({why: 1}))


def test_c4_takes_out_citation_marks_and_leaves_a_clean_text_alone() -> None:
    assert lines("It was so [1] in the end.[edit]\nBut it was[citation needed] not so.")[0] == (
        "It was so  in the end.\nBut it was not so."
    )
    spaced = f"  {GOOD}\n\n\n\n{GOOD}  \n"
    assert lines(spaced) == (spaced, Counter())


def test_the_variant_of_fineweb_keeps_lines_without_an_end_mark() -> None:
    assert lines("A heading of five words", require_end_mark=False)[0] == "A heading of five words"


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        ("c4: too few sentences", "One. Two! Three?", "One. Two at 3.5 metres?"),
        ("c4: lorem ipsum", "Lorem.", "Lorem ipsum."),
        ("c4: curly bracket", "(", "{"),
    ],
)
def test_c4_drops_documents(rule: str, good: str, bad: str) -> None:
    answers = [{m.rule: m.kept for m in c4_document(Text(text), C4())}[rule] for text in (good, bad)]
    assert answers == [True, False]


@given(st.text('aA. ?!\n"[1]{。字', max_size=80))
def test_c4_lines_are_lines_of_the_text_and_cleaning_twice_is_cleaning_once(text: str) -> None:
    clean, gone = lines(text, citations=False, min_line_words=1)
    assert not gone or {line.strip() for line in clean.splitlines()} <= {line.strip() for line in text.splitlines()}
    assert lines(clean, citations=False, min_line_words=1) == (clean, Counter())


def test_sentences_end_at_marks_of_every_script() -> None:
    assert num_sentences(Text("一。二！三？")) == 3 and num_sentences(Text("“Yes.” “No!”")) == 2
    assert num_sentences(Text("a heading\nanother")) == 2 and num_sentences(Text("")) == 0


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        ("fineweb: few lines end in an end mark", "a\n" * 22 + "b.\n" * 3, "a\n" * 23 + "b.\n" * 3),
        ("fineweb: short lines", "a\n" * 67 + "b" * 31 + ("\n" + "b" * 31) * 32, "a\n" * 68 + ("b" * 31 + "\n") * 32),
        ("fineweb: characters in repeated lines", "a\nb" + "c" * 97 + "\na", "a\nb" + "c" * 96 + "\na"),
        ("fineweb: too many line ends", "a b c d e f g\nh\ni\nj", "a b c d e f\ng\nh\ni"),
    ],
)
def test_fineweb_at_and_past_each_limit(rule: str, good: str, bad: str) -> None:
    answers = [{m.rule: m for m in fineweb(Text(text), FineWeb())}[rule] for text in (good, bad)]
    assert [m.kept for m in answers] == [True, False], answers


def test_of_nothing_fineweb_says_nothing() -> None:
    assert not list(fineweb(Text(" \n"), FineWeb()))
