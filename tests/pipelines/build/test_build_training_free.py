"""Codecs without a network, from files to batches and back: 80 parallel channels; pictures of any number of codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_build import make_media, toy_recipe

import mmdata
from mmdata.errors import RunError, UserError
from mmdata.verify import verify
from pipelines.build.engine import build
from pipelines.build.ledger import read_ledger
from pipelines.look.media import decode_item
from tokenizer.codecs import load_codec
from tokenizer.dmel import encode_frames
from tokenizer.item import Item
from tokenizer.layout import load_layout

CODECS = {"text": "text-spm16k@1", "image": "jpeg-bytes@1", "audio": "dmel@1"}
STREAMS = """
name = "parallel"
version = 1
[vocabulary]
controls = ["<pad>", "<bos>", "<cont>", "<quiet>", "<word>", "<first>", "<none>"]
sizes = 0
time_hi = 0
time_lo = 0
[document]
begin = "<bos>"
end = ""
[text]
[audio]
[streams]
sounds = 1
initial = "<first>"
fill = "<none>"
text_fill = "<quiet>"
text_word = "<word>"
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("media")
    make_media(root, texts=2, pictures=4)
    noise = np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
    from PIL import Image

    Image.fromarray(noise).save(root / "pictures" / "00.png")  # takes many more codes than one colour does
    build(toy_recipe(root, codecs=CODECS, validation=0.0), root / "out", 1, progress=False)
    return root / "out"


def items_of(out: Path, source: str, kind: str) -> dict[str, Item]:
    return {
        item.uri: item for sample in mmdata.open(out)[source].train for item in sample.items if item.kind == kind
    }  # fmt: skip


def read_back(out: Path, source: str, layout: Any, seq_len: int) -> list[Item]:
    """The items of an epoch of one source, from its batches."""
    loader = mmdata.Loader(mmdata.open(out)[source], layout=layout, seq_len=seq_len, batch_size=1)
    found = []
    for step in range(8):  # more rows than there are samples: each is seen
        batch = loader.batch_at(step)
        tokens, segments = np.asarray(batch.tokens[0]), np.asarray(batch.segment_ids[0])
        for segment in range(1, int(segments.max()) + 1):
            items, problems = loader.layout.parse(tokens[segments == segment])
            assert not problems
            found += items
    return found


def test_the_dataset_is_sound(built: Path) -> None:
    report = verify(built)
    assert report.ok, report.problems


@pytest.mark.parametrize("parallel", [False, True])
def test_eighty_channels_go_from_a_file_to_a_batch_and_back(built: Path, tmp_path: Path, parallel: bool) -> None:
    (tmp_path / "parallel.toml").write_text(STREAMS)
    layout = load_layout(str(tmp_path / "parallel.toml") if parallel else "mmdata")
    stored = items_of(built, "speech", "audio")
    assert len(stored) == 3 and all(item.codes is not None and item.codes.shape[1] == 80 for item in stored.values())
    found = [item for item in read_back(built, "speech", layout, 64 if parallel else 4096) if item.kind == "audio"]
    codec: Any = load_codec("dmel")
    wanted = {item.codes.tobytes() for item in stored.values() if item.codes is not None}
    assert {item.codes.tobytes() for item in found if item.codes is not None} == wanted
    sound = decode_item(found[0], load_codec)
    assert found[0].codes is not None and sound.shape == (320 * len(found[0].codes),) and np.abs(sound).max() > 0.1
    frames = codec.decode_frames(codec.encode(sound))
    np.testing.assert_array_equal(encode_frames(frames), codec.encode(sound).codes)


def test_pictures_of_any_number_of_codes_come_back_pixel_for_pixel(built: Path) -> None:
    stored = items_of(built, "pictures", "image")
    lengths = {uri: len(item.codes) for uri, item in stored.items() if item.codes is not None}
    assert len(lengths) == 4 and max(lengths.values()) > 4 * min(lengths.values())
    assert all(item.grid == (1, lengths[uri] // 64, 64) for uri, item in stored.items())
    found = [item for item in read_back(built, "pictures", "mmdata", 4096) if item.kind == "image"]
    pictures = [decode_item(item, load_codec) for item in stored.values()]
    for item in found:
        back = decode_item(item, load_codec)
        assert any(np.array_equal(back, picture) for picture in pictures)
    assert len({decode_item(item, load_codec).tobytes() for item in found}) == 4


def test_a_layout_whose_rows_of_codes_are_too_few_says_so(built: Path, tmp_path: Path) -> None:
    words = (Path(load_codec.__code__.co_filename).parent / "layouts" / "mmdata.toml").read_text("utf-8")
    (tmp_path / "small.toml").write_text(words.replace("sizes = 256", "sizes = 64"))
    with pytest.raises((UserError, ValueError), match=r"x 64 codes; layout mmdata writes sides of 1 to 63"):
        mmdata.Loader(mmdata.open(built)["pictures"], layout=str(tmp_path / "small.toml"), seq_len=4096, batch_size=1)
    with pytest.raises((UserError, ValueError), match=r"layout lumina|layout chameleon"):
        mmdata.Loader(mmdata.open(built)["pictures"], layout="chameleon", seq_len=4096, batch_size=1)


def noise(path: Path) -> None:
    """A film of two seconds, flat at first and then noise."""
    import av

    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=2)
        video.width, video.height, video.pix_fmt, video.bit_rate = 64, 64, "yuv420p", 2_000_000
        for i in range(4):
            pixels = random.integers(0, 256 if i > 1 else 1, (64, 64, 3), np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode())


def test_frames_of_a_video_need_a_codec_of_one_grid(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    noise(tmp_path / "films" / "a.mp4")
    source = [{"name": "films", "format": "video", "path": "films"}]
    recipe = toy_recipe(tmp_path, codecs={**CODECS, "video": "jpeg-bytes"}, source=source)
    with pytest.raises(UserError, match=r"codecs.video: jpeg-bytes@1 gives each frame a grid of its own"):
        build(recipe, tmp_path / "refused", 1, progress=False)
    with pytest.raises(RunError, match="1 cannot encode"):  # where no codec of videos is named, a verdict on each
        build(toy_recipe(tmp_path, codecs=CODECS, source=source), tmp_path / "out", 1, progress=False)
    line = next(iter(read_ledger(tmp_path / "out" / "ledger" / "films.jsonl")))
    assert line["reason"] == "cannot encode" and "name another codec in codecs.video" in line["detail"]
