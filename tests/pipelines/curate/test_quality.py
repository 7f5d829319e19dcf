"""The quality family: n-grams, files, hooks, and the rule in a build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdata.errors import UserError
from pipelines.curate.classifier import load_classifier, ngrams, save_classifier, shipped_file
from pipelines.curate.judge import judge
from pipelines.curate.settings import Curate, Curation, curation_of
from pipelines.ingest.document import Document, Part

PROSE = (
    "When a river meets the sea it slows down, and the sand which it carried sinks to the ground. Over many years this"
    " builds a delta: the stream has to find its way around what it left behind, so it splits into several arms. You"
    " can see the same thing on a small scale if you pour water over a heap of sand in your garden."
)
MENU = "Home | Products | Login | Cart (0) | Contact\nPrev Next Index Up\n" * 8


def curation(folder: Path, own: dict[str, Any] | None = None, **quality: Any) -> Curation:
    rules = {"rules": ["quality"], "quality": quality, **(own or {})}
    found = curation_of(Curate.model_validate(rules), {}, folder, "curate")
    assert found is not None
    return found


def document(text: str, language: str = "en") -> Document:
    return Document("00", "web", (Part("text", text=text, uri="d#t"),), uri="d", language=language)


def word_classifier(path: Path, word: str, languages: list[str] | None = None) -> None:
    """One that gives texts of this word a high probability, all others a low one."""
    weights = np.zeros(1 << 12)
    weights[ngrams(word, len(weights))] = 60
    save_classifier(path, weights, -5.0, {"name": path.stem, "revision": 1, "languages": languages or []})


def test_ngrams_are_written_down() -> None:
    assert ngrams("A b", 1 << 18).tolist() == [252887, 206771, 215821]  # a, b, (a, b): the same on every machine
    assert ngrams("", 8).tolist() == [] and len(ngrams("one two three", 8)) == 5
    assert ngrams("In 1984 -----", 1 << 18).tolist() == ngrams("in 7  --", 1 << 18).tolist()


def test_a_probability_does_not_depend_on_order_or_length(tmp_path: Path) -> None:
    word_classifier(tmp_path / "c.safetensors", "river")
    found = load_classifier(tmp_path / "c.safetensors")
    places = ngrams(PROSE * 50, 1 << 12)
    assert found.probability(places) == found.probability(places[::-1]) == found.probability(np.sort(places))
    assert found("river") > 0.99 and found("sea") < 0.01 and found("") == 0.5


def test_a_file_that_is_damaged_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    word_classifier(tmp_path / "c.safetensors", "river")
    whole = (tmp_path / "c.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-100])
    with pytest.raises(UserError, match=r"cut.safetensors"):
        load_classifier(tmp_path / "cut.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(UserError, match=r"text.safetensors is not a safetensors file"):
        load_classifier(tmp_path / "text.safetensors")
    codec = Path(__file__).parents[3] / "tokenizer/weights/image-fsq16-1.safetensors"
    with pytest.raises(UserError, match=r"is no classifier; .mmdata fit classifier. writes one"):
        load_classifier(codec)
    with pytest.raises(UserError, match=r"no weights at"):
        curation(tmp_path, classifier="gone.safetensors")
    with pytest.raises(UserError, match=r"no shipped classifier .quality-xx.; did you mean 'quality-en@1'"):
        curation(tmp_path, classifier="quality-xx")


def test_the_threshold_decides_and_short_texts_and_other_languages_are_not_measured(tmp_path: Path) -> None:
    word_classifier(tmp_path / "c.safetensors", "river", ["en"])
    rules = curation(tmp_path, classifier="c.safetensors", min_probability=0.5)
    low = judge(document(PROSE), rules).failed
    assert low is not None and low.rule == "quality: improbable" and isinstance(low.value, float)
    assert not judge(document(PROSE), curation(tmp_path, classifier="c.safetensors", min_probability=low.value)).failed
    assert not judge(document(PROSE[:199]), rules).failed
    assert not judge(document(PROSE, "de"), rules).measures  # it was fitted on English


def test_a_language_may_have_a_classifier_of_its_own(tmp_path: Path) -> None:
    word_classifier(tmp_path / "de.safetensors", "fluss", ["de"])
    rules = curation(
        tmp_path, {"languages": {"de": {"quality": {"classifier": "de.safetensors", "min_probability": 0.9}}}}
    )
    assert judge(document("Fluss " * 50, "de"), rules).failed is None
    assert judge(document(PROSE, "de"), rules).failed is not None
    assert judge(document(PROSE, "en"), rules).failed is None  # quality-en


def test_settings_hold_the_content_of_the_file_and_no_path(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        word_classifier(tmp_path / name / "c.safetensors", "river")
    settings = [curation(tmp_path / name, classifier="c.safetensors").settings() for name in "ab"]
    assert settings[0] == settings[1] and str(tmp_path) not in json.dumps(settings)
    word_classifier(tmp_path / "a" / "c.safetensors", "sea")
    assert curation(tmp_path / "a", classifier="c.safetensors").settings() != settings[0]
    (tmp_path / "own_scores.py").write_text("def score(text):\n    return 1.0\n")
    hooks = [curation(tmp_path, classifier="own_scores:score", version=v).settings() for v in ("", "2")]
    assert hooks[0] != hooks[1]


def test_hooks_that_are_wrong_are_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no module nowhere_at_all"):
        curation(tmp_path, classifier="nowhere_at_all:score")
    code = "def fails(text):\n    raise KeyError('x')\n\ndef large(text):\n    return 7\n\nnumber = 3\n"
    (tmp_path / "wrong_scores.py").write_text(code)
    for name, words in (("fails", "wrong_scores:fails: KeyError"), ("large", "wrong_scores:large: answered with 7.0")):
        failed = judge(document(PROSE), curation(tmp_path, classifier=f"wrong_scores:{name}")).failed
        assert failed is not None and failed.rule == "quality: the hook failed" and words in failed.detail
    for name in ("number", "gone"):
        with pytest.raises(UserError, match=f"the module wrong_scores has no function {name}"):
            judge(document(PROSE), curation(tmp_path, classifier=f"wrong_scores:{name}"))


def test_the_shipped_classifier_tells_prose_from_menus_and_lists(root: Path) -> None:
    found = load_classifier(shipped_file("quality-en"))
    assert found.languages == ("en",)
    assert found(PROSE) > 0.5 > found(MENU)
    pages = sorted((root / "examples/media/web/en").glob("*.html"))  # the manual of GIMP: not trained on
    from pipelines.fit.classifier_texts import page_text

    values = [found(page_text(page.read_bytes())) for page in pages]
    code = [found(page.read_text("utf-8")) for page in sorted((root / "examples/media/code").glob("*.py"))]
    assert min(len(values), len(code)) > 5 and np.median(values) > 0.5 > np.median(code)
