"""Fitting a speech codec on drawn sounds, its card, and what it leaves out."""

import json
import shutil
from pathlib import Path
from typing import Any

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


def prepare(folder: Path) -> Path:
    for i in range(10):
        write_wav(folder / "sounds" / f"{i}.wav", babble(i, 3.2))
    (folder / "fit.toml").write_text(CONFIG)
    return folder / "fit.toml"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return prepare(tmp_path)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """(a folder with fit.toml, sounds and the fit `out`, its figures): sound 3 was excluded."""
    folder = tmp_path_factory.mktemp("fit")
    return folder, fit_audio(prepare(folder), folder / "out", [folder / "sounds" / "3.wav"])


def test_a_codec_is_fitted_with_its_card_and_without_what_is_excluded(fitted: tuple[Path, dict[str, Any]]) -> None:
    folder, figures = fitted
    assert figures["drawn"]["clips"] == 2
    card = json.loads((folder / "out" / "toy-1.json").read_text())
    assert list(card["data"][0]["dropped"]) == ["3.wav"]
    assert "--exclude 3.wav" in card["command"]
    listed = (folder / "out" / "toy-1.files.tsv").read_text()
    assert "5.wav" in listed and not any(f"{i}.wav" in listed for i in (3, 7, 8, 9))  # excluded, held out, left out
    sound = babble(20, 1.0)
    codec = SpeechFsq.load("toy", 1, folder / "out")
    assert codec.decode(codec.encode(sound)).shape == sound.shape


def test_a_stopped_fit_goes_on_to_the_same_bytes(fitted: tuple[Path, dict[str, Any]]) -> None:
    folder, figures = fitted
    whole = (folder / "out" / "toy-1.safetensors").read_bytes()
    shutil.copytree(folder / "out", folder / "again")
    (folder / "again" / "toy-1.safetensors").unlink()
    (folder / "again" / "training" / "sound" / "state.npz").unlink()  # as if stopped between the two trainings
    again = fit_audio(folder / "fit.toml", folder / "again", [folder / "sounds" / "3.wav"])
    assert (folder / "again" / "toy-1.safetensors").read_bytes() == whole
    assert again == figures


def test_a_fit_of_other_recordings_is_not_gone_on_with(fitted: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = fitted
    with pytest.raises(UserError, match="training files"):
        fit_audio(folder / "fit.toml", folder / "out", [folder / "sounds" / "4.wav"])


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
