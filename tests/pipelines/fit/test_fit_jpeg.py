"""Learning the byte pairs of jpeg-bytes: the same file each time, a card, and no picture that is excluded."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmdata.errors import UserError
from pipelines.fit.jpeg import fit_jpeg
from tokenizer.jpeg import JpegBytes, header_parts

pytest.importorskip("skimage")

CONFIG = """
name = "toy"
licence = "CC0-1.0"
size = 270
tokens = 16
[[data]]
name = "drawn"
path = "pictures"
licence = "CC0-1.0"
min_bytes = 0
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    random = np.random.default_rng(0)
    for i in range(6):
        blocks = random.integers(0, 256, (10, 12, 3), np.uint8)
        Image.fromarray(blocks).resize((120, 100)).save(tmp_path / "pictures" / f"{i}.png")
    (tmp_path / "pictures" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "fit.toml").write_text(CONFIG)
    return tmp_path / "fit.toml"


def test_a_vocabulary_is_learnt_with_its_card_and_without_what_is_excluded(config: Path, tmp_path: Path) -> None:
    figures = fit_jpeg(config, tmp_path / "out", [tmp_path / "pictures" / "3.png"])
    codec = JpegBytes.load("toy", 1, tmp_path / "out")
    assert codec.codebooks == (270,) and codec.vocabulary.strings == header_parts()
    assert figures["training"]["pictures"] + figures["held_out"]["pictures"] == 5
    assert figures["training"]["bytes_a_code"] > 2, "the header alone is most of these files"
    card = json.loads((tmp_path / "out" / "toy-1.json").read_text())
    assert list(card["data"][0]["dropped"]) == ["3.png"] and "--exclude 3.png" in card["command"]
    assert card["settings"]["quality"] == 25 and card["settings"]["libjpeg_turbo"]
    assert "3.png" not in (tmp_path / "out" / "toy-1.files.tsv").read_text()
    picture = np.asarray(Image.open(tmp_path / "pictures" / "3.png"))
    assert codec.decode(codec.encode(picture)).shape == (112, 144, 3)  # 7 x 9 squares, its policy's own


def test_the_same_pictures_give_the_same_file(config: Path, tmp_path: Path) -> None:
    fit_jpeg(config, tmp_path / "a")
    fit_jpeg(config, tmp_path / "b")
    assert (tmp_path / "a" / "toy-1.bpe").read_bytes() == (tmp_path / "b" / "toy-1.bpe").read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('"pictures"', '"absent"'), r"'drawn'.*no folder .*absent"),
        (("min_bytes = 0", "min_bytes = 99999999"), r"'drawn' has no picture left"),
        (("size = 270", "size = 40"), "size"),
        (("tokens", "token"), "did you mean 'tokens'"),
    ],
)
def test_what_cannot_be_fitted_is_said(config: Path, tmp_path: Path, change: tuple[str, str], words: str) -> None:
    config.write_text(CONFIG.replace(*change))
    with pytest.raises(UserError, match=words):
        fit_jpeg(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()
