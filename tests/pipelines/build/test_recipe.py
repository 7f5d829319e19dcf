"""Recipes: wrong keys are named with the nearest known one, and paths may hold variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdata.errors import UserError
from pipelines.build.recipe import load_recipe, parse_recipe

SOURCE = '[[source]]\nname = "web"\nformat = "html"\npath = "media/web"\nlanguage = "en"\n'


def write(folder: Path, words: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(words, "utf-8")
    return path


def test_a_recipe_has_defaults_and_keeps_the_options_of_formats(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SOURCE))
    assert (recipe.seed, recipe.validation, recipe.keep_media, recipe.image.tokens) == (0, 0.01, "none", 256)
    assert recipe.codecs.text == "text-spm16k" and recipe.video.tokens == 64
    assert recipe.source[0].options == {"language": "en"}
    assert recipe.source_path(recipe.source[0]) == tmp_path / "media" / "web"


def test_paths_may_hold_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(write(tmp_path, SOURCE.replace("media/web", "${TOY_CORPUS}/web")))
    monkeypatch.delenv("TOY_CORPUS", raising=False)
    with pytest.raises(UserError, match=r"TOY_CORPUS .* is not set"):
        recipe.source_path(recipe.source[0])
    monkeypatch.setenv("TOY_CORPUS", str(tmp_path / "far"))
    assert recipe.source_path(recipe.source[0]) == tmp_path / "far" / "web"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("sead = 1\n" + SOURCE, "unknown key 'sead'; did you mean 'seed'"),
        (SOURCE + "[image]\ntoken = 3\n", "unknown key 'image.token'; did you mean 'tokens'"),
        (SOURCE + "[codecs]\nimages = 'x'\n", "unknown key 'codecs.images'; did you mean 'image'"),
        ("seed = 1\n", "the key 'source' is missing"),
        ("validation = 0.9\n" + SOURCE, "validation: Input should be less than or equal to 0.5"),
        ("keep_media = 'all'\n" + SOURCE, "keep_media: .*'none', 'resized' or 'original'"),
        (SOURCE + SOURCE, "two sources are named 'web'"),
        (SOURCE.replace('"web"', '"a b"', 1), "a source cannot be named 'a b'"),
        (SOURCE.replace('"web"', '"ledger"', 1), "cannot be named 'ledger'"),
        (SOURCE + "[codecs]\nimage = 'soft'\n", 'needs keep_media = "resized"'),
        ("seed = = 1", "is no TOML file"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, words: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(write(tmp_path, words))
    assert "\n" not in str(caught.value)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*recipe.toml"):
        load_recipe(tmp_path / "recipe.toml")


def test_a_recipe_may_be_a_dict(tmp_path: Path) -> None:
    recipe = parse_recipe({"source": [{"name": "a", "format": "text", "path": "."}]}, tmp_path)
    assert recipe.source_path(recipe.source[0]) == tmp_path
