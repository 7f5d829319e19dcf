"""Measuring image codecs: figures as the formulas give them, files of the same size beside them, clear refusals."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tokenizer
from pipelines.fit.evaluate_images import evaluate_images
from pipelines.fit.image_files import FORMATS, nearest_file, published
from pipelines.look.codecs_print import Sheet, print_images
from tokenizer.codec import Codes, Shape
from tokenizer.nets.fsq import level_entropy

skimage = pytest.importorskip("skimage")


@dataclass(frozen=True)
class Gray:
    """The mean gray of each 8x8 square, in 16 levels."""

    name: str = "gray"
    revision: int = 3
    kind: str = "image"
    fingerprint: str = "g"
    codebooks: tuple[int, ...] = (16,)
    exact: bool = False
    levels: tuple[int, ...] = (4, 4)

    def shape(self, size: Any) -> Shape:
        return Shape(size[0] // 8 * (size[1] // 8), 1, 1, size[0] // 8, size[1] // 8)

    def encode(self, medium: np.ndarray) -> Codes:
        shape = self.shape(medium.shape)
        means = medium.reshape(shape.h, 8, shape.w, 8, 3).mean((1, 3, 4))
        return Codes((means // 16).astype(np.int32).reshape(-1, 1), shape)

    def encode_batch(self, media: Any) -> list[Codes]:
        return [self.encode(medium) for medium in media]

    def decode(self, codes: Codes) -> np.ndarray:
        grid = (codes.codes.reshape(codes.shape.h, codes.shape.w) * 16 + 8).astype(np.uint8)
        return np.repeat(np.repeat(np.repeat(grid[..., None], 3, 2), 8, 0), 8, 1)


def drawn(height: int, width: int, seed: int = 0) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), np.uint8)
    return np.asarray(Image.fromarray(blocks).resize((width, height)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures" / "inner").mkdir(parents=True)
    Image.fromarray(drawn(64, 80)).save(tmp_path / "pictures" / "a.png")
    Image.fromarray(drawn(90, 64, 1)).save(tmp_path / "pictures" / "inner" / "b.png")
    Image.fromarray(drawn(40, 90)).save(tmp_path / "pictures" / "small.png")
    (tmp_path / "pictures" / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    (tmp_path / "pictures" / "notes.txt").write_text("no picture, and none is looked for")
    return tmp_path / "pictures"


def test_a_folder_is_measured_picture_by_picture(folder: Path) -> None:
    answer = evaluate_images([Gray()], folder, 64, compare=False)
    assert (answer["set"], answer["images"], answer["skipped"]) == ("pictures", 2, 2)
    (row,) = answer["codecs"]
    assert row["codec"] == "gray@3" and sorted(row["each"]) == ["a.png", "inner/b.png"]
    crop, codec = drawn(64, 80)[:, 8:72], Gray()
    back = codec.decode(codec.encode(crop))
    want = skimage.metrics.peak_signal_noise_ratio(crop, back)
    assert row["each"]["a.png"]["psnr_db"] == pytest.approx(want, abs=1e-3)
    assert row["psnr_db"] == pytest.approx(np.mean([each["psnr_db"] for each in row["each"].values()]), abs=1e-3)
    assert row["bits_per_pixel"] == 4 / 64
    assert "files" not in answer and "published" not in answer


def test_code_use_is_counted_over_all_pictures(folder: Path) -> None:
    (row,) = evaluate_images([Gray()], folder, 64, compare=False)["codecs"]
    crops = (drawn(64, 80)[:, 8:72], drawn(90, 64, 1)[13:77])
    codes = np.concatenate([Gray().encode(crop).codes[:, 0] for crop in crops])
    assert row["distinct_codes"] == len(set(codes.tolist()))
    assert row["level_bits"] == pytest.approx(level_entropy(codes, (4, 4)), abs=1e-3)
    assert row["most_level_bits"] == 4


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_has_the_quality_whose_size_is_nearest(kind: str) -> None:
    import io

    picture = drawn(64, 64)
    sizes = {}
    for quality in range(96):
        out = io.BytesIO()
        Image.fromarray(picture).save(out, kind.upper(), quality=quality, **FORMATS[kind])
        sizes[quality] = len(out.getvalue())
    above = max(range(1, 96), key=lambda quality: sizes[quality] - sizes[quality - 1])  # after the largest step
    for wanted in (0, 700, 1_100, sizes[above] - 1, sizes[above - 1] + 1, 10**9):
        data, back = nearest_file(kind, picture, wanted)
        near = min(abs(size - wanted) for size in sizes.values())
        # Sizes hardly ever fall as quality grows; where they do, the search may miss the nearest by a few bytes
        assert near <= abs(len(data) - wanted) <= near + 8
        assert back.shape == picture.shape
        np.testing.assert_array_equal(back, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_files_stand_beside_each_codec_and_published_figures_name_their_sets(folder: Path) -> None:
    answer = evaluate_images([Gray(), "jpeg-bytes"], folder, 64)
    found = [(row["file"], row["nearest_to"]) for row in answer["files"]]
    assert found == [(kind, name) for name in ("gray@3", "jpeg-bytes@1") for kind in FORMATS]
    jpeg = next(row for row in answer["files"] if row["file"] == "JPEG" and row["nearest_to"] == "jpeg-bytes@1")
    assert abs(jpeg["bits_per_pixel"] / answer["codecs"][1]["bits_per_pixel"] - 1) < 0.2
    assert answer["published"] == published()
    assert all(row["set"] and row["source"] for row in published())


def test_a_codec_given_twice_is_measured_once(folder: Path) -> None:
    answer = evaluate_images(["jpeg-bytes", Gray(), "jpeg-bytes@1"], folder, 64)
    assert [row["codec"] for row in answer["codecs"]] == ["jpeg-bytes@1", "gray@3"]
    assert len(answer["files"]) == 2 * len(FORMATS)
    others = [replace(Gray(), fingerprint=word) for word in "aba"]
    answer = evaluate_images(others, folder, 64)
    assert [row["codec"] for row in answer["codecs"]] == ["gray@3", "gray@3 b"]
    assert len(answer["files"]) == 2 * len(FORMATS)


def test_a_codec_is_named_by_the_path_of_its_file_too(folder: Path, tmp_path: Path) -> None:
    shipped = Path(tokenizer.__file__).parent / "weights" / "jpeg-bytes-1.bpe"
    (tmp_path / "mine-4.bpe").write_bytes(shipped.read_bytes())
    mine, theirs = evaluate_images([str(tmp_path / "mine-4.bpe"), "jpeg-bytes"], folder, 64, compare=False)["codecs"]
    assert mine == {**theirs, "codec": "mine@4"}


def test_a_format_that_pillow_does_not_write_is_left_out_and_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.init()
    monkeypatch.delitem(Image.SAVE, "AVIF")
    answer = evaluate_images([Gray()], folder, 64)
    assert [row["file"] for row in answer["files"]] == ["JPEG", "WebP"] and answer["not_written"] == ["AVIF"]
    print_images(answer)
    assert "without AVIF: the installed Pillow does not write it" in " ".join(capsys.readouterr().out.split())


def test_the_table_names_codecs_files_and_sources(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_images(evaluate_images([Gray()], folder, 64))
    said = capsys.readouterr().out
    for words in ("gray@3", "0.0625", "JPEG at the nearest size", "of 4.00", "2 centre crops of pictures, 2 too small",
                  "LlamaGen VQ-8", "COCO", "arXiv 2406.06525"):  # fmt: skip
        assert words in said


def test_a_sheet_shows_originals_beside_what_came_back(folder: Path, tmp_path: Path) -> None:
    sheet = Sheet()
    evaluate_images([Gray()], folder, 64, compare=False, show=sheet.add)
    sheet.save(tmp_path / "new" / "sheet.png")
    with Image.open(tmp_path / "new" / "sheet.png") as image:
        pixels = np.asarray(image)
    cell = pixels.shape[1] // 2
    assert pixels.shape[0] // 2 > 64 and cell >= 64
    np.testing.assert_array_equal(pixels[:64, :64], drawn(64, 80)[:, 8:72])
    np.testing.assert_array_equal(pixels[:64, cell : cell + 64], Gray().decode(Gray().encode(drawn(64, 80)[:, 8:72])))
    assert (pixels[64:82, :cell] < 128).any() and (pixels[64:82, cell:] < 128).any(), "labels"


def test_what_cannot_be_measured_is_said(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for codecs, place, size, words in (
        ([Gray()], tmp_path / "empty", 64, "no pictures of at least 64x64 pixels in .*empty; give another folder"),
        ([Gray()], folder, 300, "no pictures of at least 300x300"),
        ([Gray()], tmp_path / "absent", 64, "absent is not a folder of pictures"),
        (["image-fsq17"], folder, 64, "did you mean"),
        (["dmel"], folder, 64, "dmel is a codec of audio: `mmdata evaluate audio` measures it"),
        (["jpeg-bytes"], folder, 40, r"gives \(.*\) for \(40, 40, 3\): give a --size that it keeps"),
        ([Gray()], None, 9_000, "smaller than 9000x9000"),
    ):
        with pytest.raises(ValueError, match=words):
            evaluate_images(codecs, place, size, compare=False)
