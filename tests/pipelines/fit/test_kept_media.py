"""A codec is fitted on the kept media of a dataset as on a folder."""

import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mmdata
from mmdata.errors import UserError
from pipelines.build.engine import build
from pipelines.fit.images import fit_image
from pipelines.fit.kept_media import is_dataset, unpack_media
from tests.pipelines.build.toy_build import load_toy, make_media, toy_recipe


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("media")
    make_media(root)
    return root


def dataset(media: Path, out: Path, keep: str) -> Path:
    build(toy_recipe(media, keep_media=keep, validation=0.3), out, 1, progress=False, load=load_toy)
    return out


def test_arrays_come_back_as_lossless_files_without_those_of_the_validation_split(media: Path, tmp_path: Path) -> None:
    source = mmdata.open(dataset(media, tmp_path / "data", "resized"))["pictures"]
    train, held = (
        {i.digest for sample in split for i in sample.items if i.kind == "image"}
        for split in (source.train, source.validation)
    )
    found = sorted(unpack_media(tmp_path / "data" / "pictures", "image", tmp_path / "out").iterdir())
    assert held and {path.stem for path in found} == train - held
    for path in found:
        np.testing.assert_array_equal(np.asarray(Image.open(path)), source.media[path.stem])


def test_sound_comes_back_as_wav(media: Path, tmp_path: Path) -> None:
    source = mmdata.open(dataset(media, tmp_path / "data", "resized"))["speech"]
    found = list(unpack_media(tmp_path / "data", "audio", tmp_path / "out").iterdir())
    assert found
    with wave.open(str(found[0])) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert file.getframerate() == source.media.get(found[0].stem).sample_rate_hz
    np.testing.assert_array_equal(samples, source.media[found[0].stem])


def test_original_files_keep_their_bytes_and_endings(media: Path, tmp_path: Path) -> None:
    found = list(unpack_media(dataset(media, tmp_path / "data", "original"), "image", tmp_path / "out").iterdir())
    originals = {path.read_bytes(): path.suffix for path in media.rglob("*") if path.is_file()}
    assert found and all(originals[path.read_bytes()] == path.suffix for path in found)


def test_a_dataset_without_kept_media_says_what_to_do(media: Path, tmp_path: Path) -> None:
    folder = dataset(media, tmp_path / "data", "none")
    assert is_dataset(folder) and is_dataset(folder / "pictures") and not is_dataset(media)
    with pytest.raises(UserError, match="keeps no media to learn from: build it with keep_media"):
        unpack_media(folder, "image", tmp_path / "out")


def test_an_image_codec_is_fitted_on_a_dataset(media: Path, tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    dataset(media, tmp_path / "data", "resized")
    (tmp_path / "fit.toml").write_text(
        "name = 'toy'\nlicence = 'CC0-1.0'\n[train]\nsteps = 1\nbatch_size = 1\ncrop = 32\n[network]\nwidths = [8, 8]\n"
        "encoder_blocks = [0, 0]\ndecoder_blocks = [0, 1]\n[[data]]\nname = 'kept'\npath = 'data/pictures'\n"
        "licence = 'CC0-1.0'\nmin_bytes = 0\nshort_sides = [32]\n"
    )
    fit_image(tmp_path / "fit.toml", tmp_path / "out")
    assert "kept\t" in (tmp_path / "out" / "toy-1.files.tsv").read_text()
