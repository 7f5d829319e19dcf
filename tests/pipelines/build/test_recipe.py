"""Recipes: wrong keys are named with the nearest known one, and paths may hold variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdata.errors import UserError
from pipelines.build.media import MediaSettings
from pipelines.build.recipe import load_recipe, parse_recipe, soft_multiple
from pipelines.build.settings import limits_of, media_words, recipe_settings

SOURCE = '[[source]]\nname = "web"\nformat = "html"\npath = "media/web"\nlanguage = "en"\n'

SOFT = "keep_media = 'resized'\n" + SOURCE + "[codecs]\nimage = 'soft'\n"


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
        (SOURCE + "[codecs]\nvideo = 'soft'\n", 'codecs.video = "soft" needs keep_media = "resized"'),
        (SOURCE + "[codecs]\ntext = 'soft'\n", "codecs.text cannot be 'soft'"),
        (
            SOURCE + "[image]\nmultiple = 28\n",
            'image.multiple goes with codecs.image = "soft"; image-fsq16 has its own',
        ),
        (
            SOURCE + "[video]\nmultiple = 28\n",
            'video.multiple goes with codecs.video = "soft"; image-fsq16 has its own',
        ),
        (SOURCE + "[image]\nsize = [64, 64]\n", 'image.size goes with policy = "stretch", the policy is "bucket"'),
        (SOURCE + "[video]\nmax_pixels = 9000\n", 'video.max_pixels goes with policy = "area", the policy is "bucket"'),
        (SOURCE + "[image]\npolicy = 'area'\ntokens = 64\n", 'image.tokens goes with policy = "bucket" or "crop"'),
        (SOURCE + "[image]\npolicy = 'area'\n[video]\ntokens = 9\n", 'video.tokens goes .* the policy is "area"'),
        (SOURCE + "[image]\npolicy = 'stretch'\n", r"\[image\]: size is \[0, 0\]: give \[height, width\]"),
        (SOURCE + "[image]\npolicy = 'area'\nmax_pixels = 3000\n", r"\[image\]: max_pixels is 3,000: .* min_pixels"),
        (SOFT + "[image]\npolicy = 'stretch'\nsize = [896, 900]\n", "multiples of 16 pixels"),
        (SOFT + "[image]\npolicy = 'stretch'\nsize = [896, 896]\nmultiple = 15\n", "multiples of 15 pixels"),
        (SOFT + "[image]\npolicy = 'stretch'\nsize = [16000, 16000]\n", "limits.max_pixels is 100,000,000"),
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


def test_sizes_of_soft_media_suit_the_patches_of_a_layout(tmp_path: Path) -> None:
    """Gemma 3 takes one size, Qwen2-VL any within an area; frames are as images are unless the recipe says."""
    gemma = "[image]\npolicy = 'stretch'\nsize = [896, 896]\nmultiple = 14\n"
    recipe = load_recipe(write(tmp_path, SOFT + gemma))
    assert soft_multiple(recipe, "image") == soft_multiple(recipe, "video") == 14
    assert recipe.resizing("image", 14).grid(1080, 1920) == recipe.resizing("video", 14).grid(20, 30) == (64, 64)
    qwen = "[image]\npolicy = 'area'\nmultiple = 28\n[video]\nmin_pixels = 100_352\nmax_pixels = 602_112\n"
    recipe = load_recipe(write(tmp_path, SOFT + qwen))
    assert recipe.resizing("image", 28).grid(1080, 1920) == (26, 47)
    assert recipe.resizing("video", 28).grid(1080, 1920) == (20, 36)
    mixed = "video = 'image-fsq16'\n[image]\nmultiple = 28\n[video]\npolicy = 'crop'\n"
    recipe = load_recipe(write(tmp_path, SOFT + mixed))
    assert recipe.resizing("video", 16).kind == "crop" and recipe.resizing("image", 28).kind == "bucket"


def test_keys_of_later_versions_leave_older_settings_as_they_were(tmp_path: Path) -> None:
    """A manifest holds them: a source that is built again must keep its fingerprint."""
    recipe = load_recipe(write(tmp_path, SOURCE))
    settings = recipe_settings(recipe, {"image": "image-fsq16@1"})
    # But `jpeg`: what it says by default was not so before, and gives other pixels
    assert settings["image"] == {
        "tokens": 256, "policy": "bucket", "jpeg": "scaled", "background": [255, 255, 255]
    }  # fmt: skip
    assert settings["video"] == {"fps": 1.0, "max_frames": 16, "tokens": 64}
    resizing = {kind: recipe.resizing(kind, 16) for kind in ("image", "video")}
    media = MediaSettings(recipe.image, recipe.video, 16_000, resizing, limits_of(recipe))
    words = media_words(media, {"image", "audio", "video"})
    assert words["multiple"] == words["video_multiple"] == 16
    assert sorted(media_words(media, {"audio", "text"})) == ["limits", "sample_rate_hz"]
    assert (words["image"], words["video"]) == (settings["image"], settings["video"])
    soft = load_recipe(write(tmp_path, SOFT + "[image]\nmultiple = 28\n"))
    assert recipe_settings(soft, {})["image"] == {**settings["image"], "multiple": 28}
