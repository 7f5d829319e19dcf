"""Fitting an image codec on drawn pictures, its card, and how pictures are measured."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from mmdata.errors import UserError
from pipelines.fit.evaluate_images import evaluate_image, psnr
from pipelines.fit.exclude import digest
from pipelines.fit.images import fit_image
from pipelines.fit.pictures import DataConfig, load_pictures, random_crop
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
    dropped = card["data"][0]["dropped"]
    assert dropped.pop("3.png").startswith("same bytes") and all(why.startswith("held out") for why in dropped.values())
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


def test_training_goes_on_from_the_weights_of_another_codec(config: Path, tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    fit_image(config, tmp_path / "out")
    before = ImageFsq.load("toy", 1, tmp_path / "out")
    plain = CONFIG[: CONFIG.index("[network]")] + CONFIG[CONFIG.index("[train]") :]

    def begun(start: str, text: str = plain) -> None:
        config.write_text(
            text.replace('licence = "CC0-1.0"', f'licence = "CC0-1.0"\nrevision = 2\nstart = "{start}"', 1)
        )

    begun("out/toy-1.safetensors")
    fit_image(config, tmp_path / "next")
    after = ImageFsq.load("toy", 2, tmp_path / "next")
    assert after.config == before.config
    moved = [np.abs(a - b).max() for a, b in zip(jax.tree.leaves(before.params), jax.tree.leaves(after.params))]
    assert 0 < max(moved) < 0.1  # two steps from there
    assert json.loads((tmp_path / "next" / "toy-2.json").read_text())["settings"]["start"] == "out/toy-1.safetensors"
    for start, text, words in (
        ("out/toy-1.safetensors", CONFIG, r"leave out \[network\] and \[correct\]"),
        ("out/toy-9.safetensors", plain, "start: no file"),
        ("speech-melfsq", plain, "cannot begin with speech-melfsq, which is a SpeechFsq"),
        ("image-fsq61", plain, "did you mean 'image-fsq16"),
    ):
        begun(start, text)
        with pytest.raises(UserError, match=words):
            fit_image(config, tmp_path / "other")


def test_an_encoder_that_corrects_itself_is_trained_after_one_that_does_not(config: Path, tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    correct = "[correct]\nsteps = 2\nbatch_size = 2\ncrop = 64\n[[data]]"
    text = CONFIG.replace("[train]", "correction_widths = [8, 8, 8]\ncorrection_blocks = [0, 0, 1]\n[train]")
    config.write_text(text.replace("[[data]]", correct))
    fit_image(config, tmp_path / "out")
    codec = ImageFsq.load("toy", 1, tmp_path / "out")
    assert codec.config.correction_widths == (8, 8, 8)
    assert float(np.abs(codec.params["correction"]["level2"]["block0"]["mix"]["kernel"]).max()) > 0  # it has learnt
    card = json.loads((tmp_path / "out" / "toy-1.json").read_text())
    assert card["settings"]["correct"]["steps"] == 2
    again = fit_image(config, tmp_path / "out")  # both trainings are over: nothing is learnt again
    assert again["psnr_db"] == pytest.approx(card["figures"][next(iter(card["figures"]))]["psnr_db"], abs=1e-3)
    for wrong in (text, CONFIG.replace("[[data]]", correct)):
        config.write_text(wrong)
        with pytest.raises(UserError, match=r"\[correct\] and the correction_widths of \[network\] go together"):
            fit_image(config, tmp_path / "other")
    config.write_text(text.replace("correction_blocks = [0, 0, 1]", "correction_blocks = [1]"))
    with pytest.raises(UserError, match="one number for each of 3 resolutions, or none"):
        fit_image(config, tmp_path / "other")


def test_crops_in_other_colours_are_crops_still_and_the_same_for_the_same_step() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    crops = [
        [random_crop(np.random.default_rng((0, step)), [(1.0, [[picture]])], 32, augment) for step in range(20)]
        for augment in (False, True, True)
    ]
    assert all(crop.shape == (32, 32, 3) and crop.dtype == np.uint8 for kind in crops for crop in kind)
    np.testing.assert_array_equal(crops[1], crops[2])
    assert np.mean([np.array_equal(a, b) for a, b in zip(crops[0], crops[1])]) < 0.3


def test_a_stopped_fit_gives_the_same_bytes(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("skimage")
    config.write_text(CONFIG.replace("steps = 2", "steps = 4\nsave_every = 2\nevaluate_every = 2"))
    fit_image(config, tmp_path / "a")

    third = np.random.default_rng((0, 3)).random()

    def stops(random: np.random.Generator, *args: Any) -> np.ndarray:
        if deepcopy(random).random() == third:  # step 3, of which nothing is drawn yet
            raise KeyboardInterrupt
        return random_crop(random, *args)

    monkeypatch.setattr("pipelines.fit.images.random_crop", stops)
    with pytest.raises(KeyboardInterrupt):
        fit_image(config, tmp_path / "b")
    assert (tmp_path / "b" / "training" / "state.npz").exists() and not (tmp_path / "b" / "toy-1.safetensors").exists()
    monkeypatch.undo()
    fit_image(config, tmp_path / "b")
    names = [tmp_path / name / "toy-1.safetensors" for name in ("a", "b")]
    assert names[0].read_bytes() == names[1].read_bytes()


def many(folder: Path, num: int = 48, side: int = 280) -> DataConfig:
    folder.mkdir()
    random = np.random.default_rng(1)
    for i in range(num):
        blocks = random.integers(0, 256, (10, 12, 3), np.uint8)
        Image.fromarray(blocks).resize((side + 10, side)).save(folder / f"{i:02}.png")
    return DataConfig(name=folder.name, path=str(folder), licence="CC0-1.0", min_bytes=0, short_sides=[128, 256])


def test_pictures_held_out_are_not_trained_on_and_come_in_turn_from_the_sets(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    sets = [many(tmp_path / "a"), many(tmp_path / "b", side=150)]
    (tmp_path / "b" / "broken.png").write_bytes(b"no picture")
    found = load_pictures(sets, tmp_path, [], tmp_path / "out", 64, 16)
    wanted = [
        [path.name for path in sorted((tmp_path / name).glob("[0-9]*")) if int(digest(path)[:8], 16) % 16 == 0]
        for name in "ab"
    ]
    assert wanted[0] and wanted[1]
    assert [sorted(name for name, why in r.dropped.items() if why.startswith("held")) for r in found.reports] == wanted
    assert len(found.held_out) == len(wanted[0]) and {image.shape for image in found.held_out} == {(256, 256, 3)}
    for (_, pictures), report, held in zip(found.sets, found.reports, wanted):
        names = [name for name, _ in report.files]
        assert len(pictures) == len(names) == 48 - len(held) and not set(names) & set(held)
    assert found.reports[1].dropped["broken.png"].startswith("does not open")
    assert all("too small to measure" in found.reports[1].dropped[name] for name in wanted[1])
    for data in sets:
        data.short_sides = [128]
    both = load_pictures(sets, tmp_path, [], tmp_path / "out", 64, 16)
    assert len(both.held_out) == sum(map(len, wanted)) and {image.shape[0] for image in both.held_out} == {128}
    first = np.asarray(Image.open(tmp_path / "b" / wanted[1][0]).resize((137, 128), Image.Resampling.LANCZOS))
    assert np.abs(both.held_out[1].astype(int) - first[:, 4:132]).max() <= 2  # the second comes from the second set


def test_pictures_of_sixteen_bits_are_seen_as_they_are(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    data = many(tmp_path / "a", num=1)
    ramp = np.linspace(0, 65535, 280 * 290).reshape(280, 290).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "a" / "ramp.png")
    found = load_pictures([data], tmp_path, [], tmp_path / "out", 64, 16)
    means = [sizes[0].mean() for _, pictures in found.sets for sizes in pictures] + [im.mean() for im in found.held_out]
    assert any(abs(mean - 127.5) < 3 for mean in means)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("steps = 2", "steps = 0", "train.steps"),
        ("batch_size = 2", "batch_size = 0", "train.batch_size"),
        ("batch_size = 2", "optimizer = 'sgd'", "train.optimizer"),
        ("steps = 2", "steps = 2\nevaluate_every = 0", "train.evaluate_every"),
        ('name = "toy"', 'name = "a/b"', "name"),
        ('name = "toy"', 'name = "toy"\nseed = -1', "seed"),
        ("min_bytes = 0", "min_bytes = 0\nweight = 0", r"data.*weight"),
        ("[64, 96]", "[32]", r"'drawn': short_sides has 32, less than crop: give 64 or more"),
        ("min_bytes = 0", "min_bytes = 10_000_000", r"'drawn' has no picture left .*of 0 files"),
    ],
)
def test_wrong_settings_are_named_before_anything_is_read(
    config: Path, tmp_path: Path, old: str, new: str, words: str
) -> None:
    pytest.importorskip("skimage")
    config.write_text(CONFIG.replace(old, new))
    with pytest.raises(UserError, match=rf"fit.toml.*{words}"):
        fit_image(config, tmp_path / "out")


def test_another_setting_or_file_refuses_what_was_begun_and_other_words_do_not(config: Path, tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    fit_image(config, tmp_path / "out")
    config.write_text(CONFIG.replace('licence = "CC0-1.0"', 'licence = "CC0-1.0"\nsummary = "Other words."', 1))
    fit_image(config, tmp_path / "out")
    config.write_text(CONFIG.replace("batch_size = 2", "batch_size = 3"))
    with pytest.raises(UserError, match=r"other batch_size \(found 2, expected 3\): give that config again"):
        fit_image(config, tmp_path / "out")
    config.write_text(CONFIG)
    with pytest.raises(UserError, match=r"other training files: give"):
        fit_image(config, tmp_path / "out", [tmp_path / "pictures" / "3.png"])


def test_psnr_is_that_of_the_formula() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr(black, black + 255) == 0
    assert psnr(black, black) == 99


@pytest.mark.parametrize("name", ["image-fsq16@1", "image-fsq8@1", "image-fsq16@2", "image-fsq8@2", "image-fsq16@3"])
def test_a_shipped_codec_gives_the_figures_of_its_card(name: str) -> None:
    pytest.importorskip("skimage")
    figures = evaluate_image(name)
    weights = Path(load_codec.__code__.co_filename).parent / "weights" / f"{name.replace('@', '-')}.safetensors"
    told = next(iter(json.loads(weights.with_suffix(".json").read_text())["figures"].values()))
    assert weights.stat().st_size < 4_000_000
    assert figures["psnr_db"] == pytest.approx(told["psnr_db"], abs=0.05)
    assert figures["ssim"] == pytest.approx(told["ssim"], abs=0.005)


def test_a_folder_without_pictures_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pictures of at least 256x256"):
        evaluate_image("image-fsq16", tmp_path)
