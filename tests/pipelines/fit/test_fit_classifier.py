"""`mmdata fit classifier`: a small one of drawn texts, the same again, its figures, and what goes wrong."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

from mmdata.errors import UserError
from pipelines.curate.classifier import load_classifier
from pipelines.fit.classifier import fit_classifier
from pipelines.fit.classifier_figures import auc, threshold
from pipelines.fit.classifier_texts import pieces_of

CONFIG = """
name = "toy"
licence = "CC0-1.0"
buckets = 4096
characters = 400
least_characters = 50
languages = ["en"]
[[data]]
name = "prose"
label = "good"
paths = ["prose"]
licence = "CC0-1.0"
[[data]]
name = "menus"
label = "bad"
paths = ["menus"]
form = "html"
skip = []
licence = "CC0-1.0"
[[data]]
name = "other-prose"
label = "good"
paths = ["others.jsonl"]
form = "jsonl"
held_out = true
licence = "CC0-1.0"
"""
GOOD = re.findall(
    r"\w+", "the river which then carries sand because water slows where land is flat and so they explain it"
)
BAD = re.findall(r"\w+", "login cart next prev index home buy price sale contact terms map help about top")


def drawn(words: list[str], seed: int, count: int = 60) -> str:
    return " ".join(random.Random(seed).choices(words, k=count))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    for folder in ("prose", "menus"):
        (tmp_path / folder).mkdir()
    for number in range(40):
        (tmp_path / "prose" / f"{number}.txt").write_text(drawn(GOOD, number))
        (tmp_path / "menus" / f"{number}.html").write_text(f"<nav>{drawn(BAD, number)}</nav><script>the</script>")
    lines = [json.dumps({"text": drawn(GOOD, 100 + number)}) for number in range(20)]
    (tmp_path / "others.jsonl").write_text("\n".join([*lines, "no json", '{"text": 3}']))
    (tmp_path / "fit.toml").write_text(CONFIG)
    return tmp_path / "fit.toml"


def test_a_fit_separates_what_it_was_shown_and_says_so_on_the_card(config: Path) -> None:
    (config.parent / "eval.txt").write_bytes((config.parent / "prose" / "3.txt").read_bytes())
    out = config.parent / "out"
    figures = fit_classifier(config, out, [config.parent / "eval.txt"])
    found = load_classifier(out / "toy-1.safetensors")
    assert found(drawn(GOOD, 999)) > 0.9 and found(drawn(BAD, 999)) < 0.1 and found.languages == ("en",)
    assert figures["held-out files of the sets"]["auc"] == 1 and figures["other-prose"]["texts"] == 20
    card = json.loads((out / "toy-1.json").read_text())
    assert card["figures"] == figures and card["command"].endswith("--config fit.toml --exclude eval.txt")
    (why,) = card["data"][0]["dropped"].values()
    assert list(card["data"][0]["dropped"]) == ["prose/3.txt"] and why.startswith("same bytes as ")
    counted = card["settings"]["texts"]
    assert (
        counted["other-prose"]["trained_on"] == 0 and 0 < counted["prose"]["held_out"] < counted["prose"]["trained_on"]
    )
    assert str(config.parent) not in (out / "toy-1.md").read_text()
    assert (out / "toy-1.files.tsv").read_text().count("prose/") == 39


def test_the_same_texts_give_the_same_bytes(config: Path) -> None:
    for name in ("one", "two"):
        fit_classifier(config, config.parent / name)
    one, two = ((config.parent / name / "toy-1.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    (config.parent / "menus" / "0.html").write_text(drawn(GOOD, 5))
    fit_classifier(config, config.parent / "three")
    assert (config.parent / "three" / "toy-1.safetensors").read_bytes() != one


def test_auc_is_that_of_all_pairs_and_thresholds_keep_their_share() -> None:
    random = np.random.default_rng(0)
    good, bad = random.integers(0, 9, 30) / 9, random.integers(0, 7, 40) / 9
    pairs = [(g > b) + (g == b) / 2 for g in good for b in bad]
    assert auc(good, bad) == pytest.approx(np.mean(pairs))
    values = np.arange(10) / 10
    assert threshold(values, 0.9) == 0.1 and threshold(values, 1.0) == 0


def test_pieces_are_whole_lines_and_nothing_is_lost() -> None:
    text = "\n".join("x" * n for n in (3, 9, 1, 30, 2))
    pieces = list(pieces_of(text, 10))
    assert "".join("".join(pieces).split()) == "x" * 45 and max(map(len, pieces)) <= 11


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('label = "bad"', 'label = "ugly"', "data.1.label"),
        ('name = "menus"', 'name = "prose"', "two sets of data have one name"),
        ('label = "bad"', 'label = "good"', 'no set with label = "bad"'),
        ('paths = ["menus"]', 'paths = ["gone"]', "no folder or file"),
        ("buckets = 4096", "bucket = 4096", "did you mean 'buckets'"),
        ("skip = []", 'skip = ["[["]', "is not a CSS selector"),
    ],
)
def test_a_wrong_config_is_told_in_one_line(config: Path, old: str, new: str, words: str) -> None:
    config.write_text(config.read_text().replace(old, new, 1))
    with pytest.raises(UserError) as error:
        fit_classifier(config, config.parent / "out")
    assert words in str(error.value) and "\n" not in str(error.value)
    assert not (config.parent / "out").exists()
