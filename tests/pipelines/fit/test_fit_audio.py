"""Fitting a speech codec on drawn sounds, its card, and what it leaves out."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmdata.errors import UserError
from pipelines.fit.audio import fit_audio
from tests.pipelines.fit.drawn_sounds import babble, write_wav
from tokenizer.speech import SpeechFsq

CONFIG = """
name = "toy"
licence = "CC0-1.0"
[[frames]]
steps = 3
batch_size = 2
crop = 24
[sound]
steps = 3
batch_size = 2
crop = 24
[[data]]
name = "drawn"
path = "sounds"
licence = "CC0-1.0"
held_out = 0.2
leave_out = ["9*"]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    for i in range(10):
        write_wav(tmp_path / "sounds" / f"{i}.wav", babble(i, 3.2))
    (tmp_path / "fit.toml").write_text(CONFIG)
    return tmp_path / "fit.toml"


def test_a_codec_is_fitted_with_its_card_and_without_what_is_excluded(config: Path, tmp_path: Path) -> None:
    figures = fit_audio(config, tmp_path / "out", [tmp_path / "sounds" / "3.wav"])
    assert figures["drawn"]["clips"] == 2
    card = json.loads((tmp_path / "out" / "toy-1.json").read_text())
    assert list(card["data"][0]["dropped"]) == ["3.wav"]
    assert "--exclude 3.wav" in card["command"]
    listed = (tmp_path / "out" / "toy-1.files.tsv").read_text()
    assert "5.wav" in listed and not any(f"{i}.wav" in listed for i in (3, 7, 8, 9))  # excluded, held out, left out
    sound = babble(20, 1.0)
    codec = SpeechFsq.load("toy", 1, tmp_path / "out")
    assert codec.decode(codec.encode(sound)).shape == sound.shape


def test_the_same_seed_gives_the_same_bytes_also_after_a_stop(config: Path, tmp_path: Path) -> None:
    fit_audio(config, tmp_path / "whole")
    fit_audio(config, tmp_path / "broken")
    (tmp_path / "broken" / "toy-1.safetensors").unlink()
    (tmp_path / "broken" / "training" / "sound" / "state.npz").unlink()  # as if stopped after the first training
    fit_audio(config, tmp_path / "broken")
    names = ("toy-1.safetensors", "toy-1.safetensors")
    whole, broken = ((tmp_path / run / name).read_bytes() for run, name in zip(("whole", "broken"), names, strict=True))
    assert whole == broken


def test_two_codebooks_are_fitted_too(config: Path, tmp_path: Path) -> None:
    config.write_text("books = 2\n" + CONFIG)
    fit_audio(config, tmp_path / "out")
    codec = SpeechFsq.load("toy", 1, tmp_path / "out")
    assert codec.encode(babble(20, 1.0)).codes.shape == (50, 2)
    assert codec.codebooks == (15_360, 15_360)


def test_an_unknown_key_names_the_nearest(config: Path, tmp_path: Path) -> None:
    config.write_text(CONFIG.replace("batch_size", "batchsize", 1))
    with pytest.raises(UserError, match="did you mean 'batch_size'"):
        fit_audio(config, tmp_path / "out")


def test_a_missing_folder_is_named(config: Path, tmp_path: Path) -> None:
    config.write_text(CONFIG.replace('"sounds"', '"absent"'))
    with pytest.raises(UserError, match=r"'drawn'.*absent"):
        fit_audio(config, tmp_path / "out")


def test_a_folder_without_recordings_says_so(config: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    config.write_text(CONFIG.replace('"sounds"', '"empty"'))
    with pytest.raises(UserError, match="no recording left to train on"):
        fit_audio(config, tmp_path / "out")


def test_training_cannot_begin_with_another_kind_of_codec(config: Path, tmp_path: Path) -> None:
    config.write_text('start = "speech-melfsq@1"\n' + CONFIG)
    with pytest.raises(UserError, match="cannot begin with speech-melfsq@1"):
        fit_audio(config, tmp_path / "out")
    assert np.isfinite(babble(0, 0.1)).all()
