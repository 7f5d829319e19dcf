"""OBELICS' rules on words: shares of listed words and of punctuation, perplexity, and the files that a recipe names."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_documents import document, rules

from mmdata.errors import UserError
from pipelines.curate.judge import judge
from pipelines.curate.obelics import Obelics, OpenedWords, obelics_document, obelics_paragraph, punctuation
from pipelines.curate.words import Text

# 14 words, of which 7 are stop words; 2 marks
TEXT = "The cat is on the mat, and it was a grey cat of Rome."
STOP = ("the", "is", "on", "and", "it", "was", "a", "of")


def failed(measures: object) -> list[str]:
    return [m.rule.removeprefix("obelics: ") for m in measures if not m.kept]  # type: ignore[attr-defined]


def test_the_published_limits_are_the_defaults() -> None:
    found = Obelics()
    assert (found.min_paragraph_stop_words, found.min_stop_words) == (0.3, 0.35)
    assert (found.max_paragraph_flagged_words, found.max_flagged_words) == (0.01, 0.01)
    assert (found.min_paragraph_punctuation, found.min_punctuation, found.punctuation_words) == (0.001, 0.03, 12)
    assert (found.min_paragraph_common_words, found.min_common_words, found.max_perplexity) == (0.8, 0.9, 1500)


def test_shares_of_words_are_of_all_words_every_occurrence() -> None:
    words = OpenedWords(stop=frozenset(STOP))
    (stop, _) = obelics_paragraph(Text(TEXT), words, Obelics())
    assert (stop.value, stop.limit) == (9 / 14, 0.3) and stop.kept
    assert failed(obelics_paragraph(Text(TEXT), words, Obelics(min_paragraph_stop_words=0.65))) == [
        "paragraph of few stop words"
    ]
    assert failed(obelics_document(Text("cat mat, Rome."), words, Obelics())) == ["few stop words"]


def test_without_a_list_nothing_is_said_of_its_words() -> None:
    assert [m.rule for m in obelics_paragraph(Text(TEXT), OpenedWords(), Obelics())] == [
        "obelics: paragraph of little punctuation"
    ]
    assert [m.rule for m in obelics_document(Text(TEXT), OpenedWords(), Obelics())] == ["obelics: little punctuation"]


def test_punctuation_is_a_share_of_words_and_marks_and_short_paragraphs_are_not_asked() -> None:
    assert punctuation(Text(TEXT)) == (2, 16)
    assert punctuation(Text("这是一个测试，对吗？")) == (2, 6)
    long, short = "word " * 12, "word " * 11
    assert failed(obelics_paragraph(Text(long), OpenedWords(), Obelics())) == ["paragraph of little punctuation"]
    assert failed(obelics_paragraph(Text(short), OpenedWords(), Obelics())) == []
    assert failed(obelics_document(Text("word " * 97 + ". . ."), OpenedWords(), Obelics())) == []
    assert failed(obelics_document(Text("word " * 98 + ". . ."), OpenedWords(), Obelics())) == ["little punctuation"]


def test_shares_of_single_words_are_not_asked_of_scripts_without_spaces() -> None:
    words = OpenedWords(stop=frozenset(["的"]), common=frozenset(["的"]))
    assert {m.rule for m in obelics_document(Text("这是一个测试，对吗？"), words, Obelics())} == {
        "obelics: little punctuation"
    }


def test_paragraphs_go_and_then_the_document_is_judged(tmp_path: Path) -> None:
    (tmp_path / "stop.txt").write_text("# of ours\n" + "\n".join(STOP), "utf-8")
    (tmp_path / "flagged.txt").write_text("Very Bad\n", "utf-8")
    (tmp_path / "common.txt").write_text("\n".join((*STOP, "cat", "mat", "grey")), "utf-8")
    tables = {"stop_words": ["stop.txt"], "flagged_words": ["flagged.txt"], "common_words": ["common.txt"]}
    curation = rules("obelics", folder=tmp_path, obelics=tables)
    found = judge(document(TEXT, "Rome Athens Paris London", f"{TEXT} It was very bad.", "The cat, the mat."), curation)
    assert found.places == [0, 3] and not found.failed
    assert [(part.text[:4], m.rule, m.detail) for part, m in found.parts] == [  # type: ignore[index]
        ("Rome", "obelics: paragraph of few stop words", "0, at least 0.3"),
        ("The ", "obelics: flagged words in a paragraph", "0.05556, at most 0.01"),
    ]
    strict = rules("obelics", folder=tmp_path, obelics={**tables, "min_common_words": 0.95})
    lost = judge(document(TEXT), strict).failed
    assert lost and (lost.rule, lost.detail) == ("obelics: few common words", "0.9286, at least 0.95")


def test_a_language_may_have_lists_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "en.txt").write_text("the\n", "utf-8")
    (tmp_path / "de.txt").write_text("die\n", "utf-8")
    tables = {"stop_words": ["en.txt"], "min_punctuation": 0}
    curation = rules(
        "obelics", folder=tmp_path, obelics=tables, languages={"de": {"obelics": {"stop_words": ["de.txt"]}}}
    )
    assert curation.settings() == curation.settings()  # and asking for them changes no rule
    assert not judge(document("die die Katze", language="de"), curation).failed
    assert judge(document("die die Katze", language="en"), curation).failed


def test_settings_hold_digests_of_the_lists_and_no_name(tmp_path: Path) -> None:
    settings = []
    for name, words in (("a", "the\nof\n"), ("b", "# the same\nof\nthe\n"), ("c", "of\n")):
        (tmp_path / name).write_text(words, "utf-8")
        over = {"de": {"obelics": {"common_words": [name]}}}
        curation = rules("obelics", folder=tmp_path, obelics={"stop_words": [name]}, languages=over)
        settings.append(curation.settings())
    assert settings[0] == settings[1] != settings[2]
    assert len(settings[0]["obelics"]["stop_words"][0]) == 64
    assert settings[0]["languages"]["de"]["obelics"]["common_words"] == settings[0]["obelics"]["stop_words"]


@pytest.mark.parametrize(
    ("obelics", "words"),
    [
        ({"stop_words": ["gone.txt"]}, "cannot read the list .*gone.txt"),
        ({"perplexity": "some words"}, r'obelics.perplexity = "some words" names no function; write "kenlm" or "mod'),
        ({"perplexity": "gone_module:f"}, "no module gone_module for the hook"),
    ],
)
def test_what_is_wrong_is_said_before_a_build(obelics: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        rules("obelics", folder=tmp_path, obelics=obelics)


def test_a_function_beside_the_recipe_says_the_perplexity(tmp_path: Path) -> None:
    (tmp_path / "length_model.py").write_text("def perplexity(text):\n    return len(text)\n", "utf-8")
    tables = {"perplexity": "length_model:perplexity", "max_perplexity": 40, "min_punctuation": 0}
    curation = rules("obelics", folder=tmp_path, obelics=tables)
    assert not judge(document("x" * 40), curation).failed
    found = judge(document("x" * 41), curation).failed
    assert found and (found.rule, found.detail) == ("obelics: high perplexity", "41, at most 40")
