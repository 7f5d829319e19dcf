"""All rules on one document: their order, what they leave, and what a recipe says of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_documents import document, image, rules

from mmdata.errors import UserError
from pipelines.build.recipe import parse_recipe
from pipelines.curate.judge import Judged, judge
from pipelines.curate.language import identify
from pipelines.curate.lists import Lists, WordList, listed_host, read_hosts
from pipelines.ingest.address import AddressList
from pipelines.ingest.document import Part

ENGLISH = "This is the first sentence of it. And that is the second of them. Here we have the third with words."


def reason(found: Judged) -> str:
    return found.failed.rule if found.failed else ""


def test_without_a_failing_rule_the_document_is_the_very_same() -> None:
    whole = document(ENGLISH)
    found = judge(whole, rules("c4", "personal"))
    assert found.document is whole and found.places == [0] and not found.failed and not found.changed


def test_the_first_rule_that_fails_decides_and_every_goes_on() -> None:
    curation = rules("gopher_quality", "c4", "gopher_repetition")
    found = judge(document("one one one one one"), curation)
    assert reason(found) == "gopher: most frequent 2-gram"  # repetition comes before quality, as in FineWeb
    found = judge(document("one one one one one"), curation, every=True)
    assert reason(found) == "gopher: most frequent 2-gram"
    assert {"gopher: too few words", "c4: too few sentences"} <= {m.rule for m in found.measures if not m.kept}


def test_every_asks_all_rules_of_a_family_about_a_part_too() -> None:
    bad = document(ENGLISH, image(20, 149, "site/logo.png"))
    one = {"pictures: word in its address"}
    rest = {"pictures: format", "pictures: too small", "pictures: too large", "pictures: too long"}
    for every, asked in ((False, one), (True, one | rest)):
        found = judge(bad, rules("pictures"), every=every)
        assert {m.rule for m in found.measures} & (one | rest) == asked
        assert [m.rule for _, m in found.parts] == ["pictures: word in its address"]  # the first that fails


def test_what_c4_takes_out_is_gone_for_the_rules_after_it() -> None:
    found = judge(document(f"menu\nhome\n{ENGLISH}\nabout"), rules("c4", "fineweb"))
    assert [p.text for p in found.document.parts] == [ENGLISH] and not found.failed
    assert found.changed == {"c4: lines without an end mark": 3}
    assert reason(judge(document(f"menu\nhome\n{ENGLISH}\nabout"), rules("fineweb"))) == "fineweb: short lines"


def test_a_part_with_no_line_left_goes_and_the_others_keep_their_places() -> None:
    picture = image(200, 200)
    found = judge(document("menu", picture, ENGLISH), rules("c4"))
    assert found.places == [1, 2] and found.document.parts[0] is picture and not found.failed
    assert [(part.text, m.rule) for part, m in found.parts] == [("menu", "c4: no line is left")]
    assert reason(judge(document("menu"), rules("c4", c4={"min_sentences": 0}))) == "no part left"


def test_texts_with_times_of_their_words_keep_their_lines() -> None:
    timed = Part("text", text="no end mark", unit_times=((0.0, 0.1), (0.1, 0.2), (0.2, 0.3)))
    assert judge(document(timed, ENGLISH), rules("c4")).places == [0, 1]


def test_pictures_and_paragraphs_go_and_then_the_document_is_judged() -> None:
    good, small = image(200, 200), image(149, 200)
    curation = rules("pictures")
    found = judge(document(ENGLISH, small, "two words", image(400, 400, "site/logo.png"), good), curation)
    assert found.places == [0, 4] and not found.failed
    assert [m.rule for _, m in found.parts] == [
        "pictures: too small", "pictures: paragraph of few words", "pictures: word in its address"
    ]  # fmt: skip
    assert found.parts[0][1].detail == "149, at least 150"
    assert reason(judge(document(ENGLISH, small), curation)) == "pictures: too few pictures"


def test_a_picture_that_cannot_be_read_is_left_to_decoding(tmp_path: Path) -> None:
    broken = Part("image", data=b"no picture", uri="a.png")
    gone = Part("image", path=tmp_path / "gone.png", uri="b.png")
    assert judge(document(ENGLISH, broken, gone), rules("pictures")).places == [0, 1, 2]


GERMAN = "Das ist ein Satz auf Deutsch, und er ist lang genug, dass man die Sprache mit Sicherheit erkennen kann."


def test_languages_are_found_stored_and_chosen() -> None:
    assert identify(GERMAN)[0] == "de" and 0.65 < identify(GERMAN)[1] <= 1
    found = judge(document(GERMAN), rules("language"))
    assert found.document.language == "de" and not found.failed
    curation = rules("language", language={"languages": ["en", "fr"]})
    found = judge(document(GERMAN), curation)
    assert found.failed and (found.failed.rule, found.failed.detail) == ("language: not kept", "de, one of en, fr")


def test_a_document_keeps_the_language_it_says_unless_told_otherwise() -> None:
    curation = rules("language", language={"languages": ["en"]})
    assert judge(document(GERMAN, language="en-GB"), curation).document.language == "en-GB"
    assert reason(judge(document(ENGLISH, language="de"), curation)) == "language: not kept"
    doubt = rules("language", language={"languages": ["en"], "trust": False})
    assert reason(judge(document(GERMAN, language="en"), doubt)) == "language: not kept"


def test_the_score_has_a_limit_and_short_texts_are_not_measured() -> None:
    score = identify(GERMAN)[1]
    assert not judge(document(GERMAN), rules("language", language={"min_score": score})).failed
    sure = rules("language", language={"min_score": 1.0, "min_characters": len(GERMAN)})
    assert reason(judge(document(GERMAN), sure)) == "language: not sure"
    assert not judge(document(GERMAN[:-1]), sure).failed


def test_a_language_may_have_numbers_of_its_own() -> None:
    other = {"de": {"gopher_quality": {"min_words": 18, "min_stop_words": 0}}}
    curation = rules("gopher_quality", languages=other)
    assert reason(judge(document(GERMAN, language="en"), curation)) == "gopher: too few words"
    assert not judge(document(GERMAN, language="de-AT"), curation).failed


def test_a_language_may_have_words_and_a_score_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "en.txt").write_text("second\n", "utf-8")
    (tmp_path / "de.txt").write_text("sprache\n", "utf-8")
    german = {"lists": {"words": ["de.txt"]}, "language": {"min_score": 1.0}}
    found = rules("lists", "language", folder=tmp_path, lists={"words": ["en.txt"]}, languages={"de": german})
    score = identify(GERMAN)[1]
    assert reason(judge(document(ENGLISH), found)) == "lists: listed words"
    assert reason(judge(document(GERMAN), found)) == "language: not sure"
    german["language"]["min_score"] = score
    found = rules("lists", "language", folder=tmp_path, lists={"words": ["en.txt"]}, languages={"de": german})
    assert reason(judge(document(GERMAN), found)) == "lists: listed words"  # of the language found, not of the default
    assert reason(judge(document(GERMAN, language="en"), found)) == ""  # it says English: the English list
    digests = [found.settings()["lists"]["words"], found.settings()["languages"]["de"]["lists"]["words"]]
    assert [[len(digest) for digest in row] for row in digests] == [[64], [64]] and digests[0] != digests[1]
    (tmp_path / "de.txt").write_text("# none\n", "utf-8")
    found = rules("lists", "language", folder=tmp_path, lists={"words": ["en.txt"]}, languages={"de": german})
    assert not judge(document(GERMAN), found).failed  # a list that changed is read again
    assert found.settings()["languages"]["de"]["lists"]["words"] != digests[1]


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"rules": ["c4"]}, "languages.de.rules: the language is known only after it is asked; write it for all"),
        ({"lists": {"hosts": ["a.txt"]}}, "languages.de.lists.hosts: the language is known only after it is asked"),
        ({"language": {"min_characters": 9}}, "languages.de.language.min_characters: the language is known only after"),
    ],
)
def test_keys_that_are_read_before_the_language_is_known_are_refused(over: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=r".") as error:
        rules(languages={"de": over})
    assert words in str(error.value)
    with pytest.raises(UserError, match=r"languages.zh-TW: languages are told apart by their first part; write 'zh'"):
        rules(languages={"zh-TW": {}})


def test_listed_words_are_whole_words_in_any_case() -> None:
    words = WordList(("bad", "very worse", "坏"))
    assert words.count("BAD bad, badly; a very\nworse thing. 很坏的") == 4


def test_listed_hosts_mean_their_subdomains(tmp_path: Path) -> None:
    (tmp_path / "hosts.txt").write_text("# not wanted\nBad.org\n\nx.net # either\n", "utf-8")
    assert read_hosts(tmp_path / "hosts.txt") == ("bad.org", "x.net")
    listed = AddressList(["bad.org"])
    addresses = ["http://bad.org", "//www.bad.org./x", "https://notbad.org/bad.org", "https://org", "bad.org", ""]
    kept = [[m.kept for m in listed_host(address, listed)] for address in addresses]
    assert kept == [[False], [False], [True], [True], [], []]


def test_listed_addresses_mean_what_begins_so(tmp_path: Path) -> None:
    (tmp_path / "hosts.txt").write_text("https://Bad.org/X/ # in part\nhttp://worse.org\n", "utf-8")
    curation = rules("lists", folder=tmp_path, lists={"hosts": ["hosts.txt"]})
    left_out = ["https://bad.org/X/1", "HTTPS://user@BAD.org/X/", "//bad.org/X/1.png", "http://worse.org?q"]
    kept = ["https://bad.org/x/1", "http://bad.org/X/1", "https://sub.bad.org/X/1", "http://worse.org.net/"]
    for address in left_out:
        found = judge(document(ENGLISH, metadata={"url": address}), curation)
        assert reason(found) == "lists: listed host", address
    assert not any(judge(document(ENGLISH, metadata={"url": address}), curation).failed for address in kept)
    assert found.failed and found.failed.detail == "http://worse.org, none of 0 hosts and 2 addresses"


@pytest.mark.parametrize("entry", ["bad.org/x", "*.bad.org", "bad.org:80", "two words"])
def test_an_entry_that_is_neither_host_nor_address_is_refused(tmp_path: Path, entry: str) -> None:
    (tmp_path / "hosts.txt").write_text(f"good.org\n{entry}\n", "utf-8")
    with pytest.raises(UserError, match=f"{re.escape(repr(entry))} is neither a host nor an address"):
        rules("lists", folder=tmp_path, lists={"hosts": ["hosts.txt"]})


def test_hosts_mean_the_copies_in_a_mirror(tmp_path: Path) -> None:
    (tmp_path / "hosts.txt").write_text("bad.org\n", "utf-8")
    curation = rules("lists", folder=tmp_path, lists={"hosts": ["hosts.txt"]})
    pictures = [
        replace(image(9, 9, f"mirror/{host}/a.png"), address=f"https://{host}/a.png") for host in ("a.org", "bad.org")
    ]
    assert judge(document(ENGLISH, *pictures), curation).places == [0, 1]


def test_lists_drop_documents_and_parts(tmp_path: Path) -> None:
    (tmp_path / "hosts.txt").write_text("bad.org\n", "utf-8")
    (tmp_path / "words.txt").write_text("sentence\n", "utf-8")
    tables = {"hosts": ["hosts.txt"], "words": ["words.txt"], "max_words": 1}
    curation = rules("lists", folder=tmp_path, lists=tables)
    assert not judge(document(ENGLISH, uri="https://good.org/a"), curation).failed
    assert reason(judge(document(ENGLISH, uri="https://cdn.bad.org/a"), curation)) == "lists: listed host"
    assert reason(judge(document(ENGLISH, metadata={"url": "http://bad.org"}), curation)) == "lists: listed host"
    assert reason(judge(document(ENGLISH + ENGLISH), curation)) == "lists: listed words"
    found = judge(document(ENGLISH, image(9, 9, "http://bad.org/a.png")), curation)
    assert found.places == [0] and [m.rule for _, m in found.parts] == ["lists: listed host"]


def test_personal_data_is_masked_in_every_text_part() -> None:
    found = judge(document("ann@mail.org", "8.8.8.8 bob@mail.org"), rules("personal"))
    assert [p.text for p in found.document.parts] == ["email@example.com", "192.0.2.1 email@example.com"]
    assert found.changed == {"personal: e-mail addresses masked": 2, "personal: IP addresses masked": 1}


def recipe(**changes: Any) -> Any:
    source = {"name": "web", "format": "text", "path": "."}
    return parse_recipe({"source": [source | changes.pop("source", {})], **changes}, Path())


def test_no_rule_is_on_unless_it_is_named() -> None:
    found = recipe(curate={"gopher_quality": {"min_words": 3}})
    assert found.curation(found.source[0]) is None


def test_a_source_has_its_own_over_those_of_the_recipe() -> None:
    curate = {"rules": ["c4", "fineweb"], "c4": {"min_sentences": 2}, "fineweb": {"short_line": 9}}
    found = recipe(curate=curate, source={"curate": {"rules": ["c4"], "c4": {"min_line_words": 1}}})
    settings = found.curation(found.source[0]).settings()
    assert settings["c4"]["min_sentences"] == 2 and settings["c4"]["min_line_words"] == 1
    assert settings["c4"]["max_word"] == 1000 and "fineweb" not in settings
    found = recipe(curate=curate, source={"curate": {"rules": []}})
    assert found.curation(found.source[0]) is None


def test_settings_hold_what_decides_and_no_path(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "words.txt").write_text(f"# {name}\nbad\n", "utf-8")
    settings = [rules("lists", folder=tmp_path / name, lists={"words": ["words.txt"]}).settings() for name in "ab"]
    assert settings[0] == settings[1] and str(tmp_path) not in str(settings)
    (tmp_path / "a" / "words.txt").write_text("worse\n", "utf-8")
    assert rules("lists", folder=tmp_path / "a", lists={"words": ["words.txt"]}).settings() != settings[0]
    off = rules("c4", fineweb={"short_line": 9}, languages={"de": {"fineweb": {"short_line": 5}}}).settings()
    assert off == rules("c4").settings()  # numbers of a family that is off decide nothing


@pytest.mark.parametrize(
    ("curate", "words"),
    [
        ({"rule": ["c4"]}, "unknown key 'curate.rule'; did you mean 'rules'?"),
        ({"c4": {"min_sentence": 3}}, "unknown key 'curate.c4.min_sentence'; did you mean 'min_sentences'?"),
        ({"rules": ["c5"]}, "'c4'"),
    ],
)
def test_a_wrong_key_is_answered_with_the_nearest(curate: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=r".") as error:
        recipe(curate=curate)
    assert words in str(error.value)


def test_wrong_keys_of_sources_and_languages_are_told_when_the_recipe_is_read() -> None:
    with pytest.raises(UserError, match=r"source .web., curate: unknown key .c4.min_sentence.; did you mean .min_sent"):
        recipe(source={"curate": {"c4": {"min_sentence": 3}}})
    with pytest.raises(UserError, match=r"curate.languages.de: unknown key 'fineweb.short'; did you mean 'short_line'"):
        recipe(curate={"languages": {"de": {"fineweb": {"short": 3}}}})
    with pytest.raises(UserError, match=r"cannot read the list .*gone.txt"):
        found = recipe(curate={"rules": ["lists"], "lists": {"words": ["gone.txt"]}})
        found.curation(found.source[0])
    assert Lists().max_words == 0
