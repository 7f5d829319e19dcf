"""Fitting an image codec on drawn pictures, its card, and how pictures are measured."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmdata.errors import UserError
from pipelines.fit.evaluate_images import evaluate_image, psnr
from pipelines.fit.images import fit_image
from tokenizer.codecs import load_codec

CONFIG = """
name = "toy"
licence = "CC0-1.0"
[train]
steps = 2
batch_size = 2
crop = 64
[[data]]
name = "drawn"
path = "pictures"
licence = "CC0-1.0"
min_bytes = 0
short_sides = [64, 96]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    random = np.random.default_rng(0)
    for i in range(6):
        blocks = random.integers(0, 256, (10, 12, 3), np.uint8)
        Image.fromarray(blocks).resize((120, 100)).save(tmp_path / "pictures" / f"{i}.png")
    (tmp_path / "fit.toml").write_text(CONFIG)
    return tmp_path / "fit.toml"


def test_a_codec_is_fitted_with_its_card_and_without_what_is_excluded(config: Path, tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    figures = fit_image(config, tmp_path / "out", [tmp_path / "pictures" / "3.png"])
    assert figures["images"] == 7 and figures["psnr_db"] > 10
    card = json.loads((tmp_path / "out" / "toy-1.json").read_text())
    assert list(card["data"][0]["dropped"]) == ["3.png"]
    assert "--exclude 3.png" in card["command"]
    listed = (tmp_path / "out" / "toy-1.files.tsv").read_text()
    assert "5.png" in listed and "3.png" not in listed
    assert "CC0-1.0" in (tmp_path / "out" / "toy-1.md").read_text()


def test_an_unknown_key_names_the_nearest(config: Path, tmp_path: Path) -> None:
    config.write_text(CONFIG.replace("batch_size", "batchsize"))
    with pytest.raises(UserError, match="did you mean 'batch_size'"):
        fit_image(config, tmp_path / "out")


def test_a_missing_folder_is_named(config: Path, tmp_path: Path) -> None:
    config.write_text(CONFIG.replace('"pictures"', '"absent"'))
    with pytest.raises(UserError, match=r"'drawn'.*absent"):
        fit_image(config, tmp_path / "out")


def test_psnr_is_that_of_the_formula() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr(black, black + 255) == 0
    assert psnr(black, black) == 99


def test_the_shipped_codec_reaches_its_floor() -> None:
    pytest.importorskip("skimage")
    figures = evaluate_image("image-fsq16")
    assert figures["psnr_db"] >= 20.5
    card = json.loads((Path(load_codec.__code__.co_filename).parent / "weights" / "image-fsq16-1.json").read_text())
    told = next(iter(card["figures"].values()))
    assert figures["psnr_db"] == pytest.approx(told["psnr_db"], abs=0.05)


def test_a_folder_without_pictures_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pictures of at least 256x256"):
        evaluate_image("image-fsq16", tmp_path)
