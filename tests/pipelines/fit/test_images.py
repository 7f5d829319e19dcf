"""Fitting an image codec on drawn pictures, its card, and how pictures are measured."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmdata.errors import UserError
from pipelines.fit.evaluate_images import evaluate_image, psnr
from pipelines.fit.images import _crop, fit_image
from tokenizer.codecs import load_codec
from tokenizer.image import ImageFsq

CONFIG = """
name = "toy"
licence = "CC0-1.0"
[network]
widths = [8, 8, 12]
encoder_blocks = [0, 0, 1]
decoder_blocks = [0, 0, 1]
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


def test_a_network_of_its_own_resolution_and_wrong_ones(config: Path, tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    finer = CONFIG.replace("8, 8, 12", "8, 12").replace("[0, 0, 1]", "[0, 1]")
    config.write_text(finer.replace("[train]", "[train]\nssim = 0.3\noptimizer = 'muon'"))
    figures = fit_image(config, tmp_path / "out")
    assert figures["bits_per_pixel"] == pytest.approx(13.907 / 64, abs=1e-3)
    codec = ImageFsq.load("toy", 1, tmp_path / "out")
    assert codec.step == 8 and codec.shape((256, 256)).T == 1024 and codec.shape((1000, 999)).T == 1024
    config.write_text(config.read_text().replace("[8, 12]", "[8]"))
    with pytest.raises(UserError, match="one number for each resolution"):
        fit_image(config, tmp_path / "other")
    config.write_text(CONFIG.replace("crop = 64", "crop = 60"))
    with pytest.raises(UserError, match="crop is 60: give a multiple of 16"):
        fit_image(config, tmp_path / "other")


def test_crops_in_other_colours_are_crops_still_and_the_same_for_the_same_step() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    crops = [
        [_crop(np.random.default_rng((0, step)), [(1.0, [[picture]])], 32, augment) for step in range(20)]
        for augment in (False, True, True)
    ]
    assert all(crop.shape == (32, 32, 3) and crop.dtype == np.uint8 for kind in crops for crop in kind)
    np.testing.assert_array_equal(crops[1], crops[2])
    assert np.mean([np.array_equal(a, b) for a, b in zip(crops[0], crops[1])]) < 0.3


def test_two_fits_give_the_same_bytes_and_a_stopped_one_too(config: Path, tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    for name in ("a", "b"):
        fit_image(config, tmp_path / name)
    again = tmp_path / "b" / "toy-1.safetensors"
    assert again.read_bytes() == (tmp_path / "a" / "toy-1.safetensors").read_bytes()
    again.unlink()
    fit_image(config, tmp_path / "b")  # goes on from the last state, which is the end
    assert again.read_bytes() == (tmp_path / "a" / "toy-1.safetensors").read_bytes()


def test_a_folder_without_usable_pictures_says_why(config: Path, tmp_path: Path) -> None:
    config.write_text(CONFIG.replace("min_bytes = 0", "min_bytes = 10_000_000"))
    with pytest.raises(UserError, match=r"'drawn' has no picture left .*of 0 files"):
        fit_image(config, tmp_path / "out")
    config.write_text(CONFIG.replace("crop = 64", "crop = 512").replace("[64, 96]", "[128]"))
    with pytest.raises(UserError, match=r"of 6 files .*smaller than crop \(512 pixels\)"):
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
