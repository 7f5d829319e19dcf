"""Sampling: whatever the model knows, what it writes parses and opens."""

import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from mmdata.codec_files import keep_codec
from mmdata.errors import RunError, UserError
from mmdata.manifest import finish_source, write_dataset_manifest
from mmdata.sample import Sample
from mmdata.shards import write_shard
from pipelines.train import sample as sampling
from pipelines.train.model import ModelConfig, init
from pipelines.train.sample import fill, make_template, sample
from pipelines.train.trainer import train
from tests.mmdata.toy_data import CODECS, write_toy_dataset
from tests.pipelines.train.test_trainer import TOY
from tests.tokenizer.toy_vocabularies import byte_level
from tokenizer.codec import CodecSpec, Codes, Shape, spec_of
from tokenizer.codecs import CodecFile, _loaded_file
from tokenizer.item import Item
from tokenizer.layout import load_layout


@dataclass(frozen=True)
class ToyCodec:
    """A code is a character, a gray block of 2x2, or 10 samples of a level."""

    spec: CodecSpec
    revision: int = 1
    sample_rate_hz: int = 500

    def __getattr__(self, name: str) -> Any:
        return getattr(self.spec, name)

    @property
    def name(self) -> str:
        return self.spec.name.partition("@")[0]

    def encode(self, text: str) -> Codes:
        codes = np.array([ord(c) % 200 for c in text], np.int32).reshape(-1, 1)
        return Codes(codes, Shape(len(codes), 1))

    def decode(self, codes: Codes) -> Any:
        values = codes.codes[:, 0]
        assert values.min() >= 0 and values.max() < self.spec.codebooks[0]
        if self.spec.kind == "text":
            return "".join(map(chr, values))
        if self.spec.kind == "image":
            grid = values.reshape(codes.shape.h, codes.shape.w).astype(np.uint8)
            return np.repeat(np.repeat(grid, 2, 0), 2, 1)[..., None].repeat(3, 2)
        return np.repeat(values / 40, 10).astype(np.float32)


@pytest.fixture(autouse=True)
def toy_codecs(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {spec.name: ToyCodec(spec) for spec in CODECS}
    monkeypatch.setattr(sampling, "load_codec", lambda name: known[name])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_toy_dataset(folder / "data", {"web": 40})
    (folder / "run.toml").write_text(TOY.replace("steps = 9", "steps = 1"))
    train(folder / "run.toml", folder / "run")
    return folder / "run"


def test_a_run_writes_text_a_picture_and_a_sound(run: Path, tmp_path: Path) -> None:
    text = sample(run, kind="text", prompt="ab")
    assert text == run / "samples/text-0.txt" and text.read_text("utf-8").startswith("ab")
    picture = sample(run, "a cat", "image", tmp_path / "cat.png", grid=(3, 5))
    with Image.open(picture) as image:
        assert image.size == (10, 6)
    sound = sample(run, kind="audio", seconds=0.5, seed=3)
    with wave.open(str(sound)) as file:
        assert (file.getnframes(), file.getframerate(), file.getnchannels()) == (250, 500, 1)


def test_the_same_seed_writes_the_same_and_no_warmth_the_likeliest(run: Path, tmp_path: Path) -> None:
    def written(**options: Any) -> str:
        return sample(run, kind="text", out=tmp_path / "t.txt", max_tokens=20, **options).read_text("utf-8")

    assert written(seed=1) == written(seed=1) != written(seed=2)
    assert written(seed=1, temperature=0) == written(seed=2, temperature=0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["text", "image", "audio"])
def test_every_sample_of_an_untrained_model_parses_to_what_was_asked(kind: str, seed: int) -> None:
    layout = load_layout("mmdata").bind(CODECS)
    config = ModelConfig(layout.vocabulary.size, layers=1, width=16, heads=2, head_dim=8, mlp=16)
    params = init(jax.random.key(seed), config)
    # So that ends come early, and forbidden ids look likely
    params["bias"] = params["bias"].at[layout.vocabulary["control"].start :].set(3.0)
    template = make_template(layout, kind, "hi" * seed, grid=(2, 3), seconds=0.2, max_tokens=12)
    ids = fill(params, config, layout, template, seed=seed)
    items, problems = layout.parse(ids)
    assert not problems and ids[-1] == template.ids[-1]
    assert items[-1].kind == kind and len(items) == (2 if seed and kind != "text" else 1)
    codes = items[-1].codes
    assert codes is not None
    if kind == "text":
        assert 2 * seed < len(codes) <= 2 * seed + 12
        assert codes[: 2 * seed, 0].tolist() == [ord(c) for c in "hi" * seed]
    else:
        assert (items[-1].grid, len(codes)) == (((1, 2, 3), 6) if kind == "image" else ((10, 0, 0), 10))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "video"}, "no kind 'video'"),
        ({"kind": "image", "out": "a.wav"}, "does not end in .png"),
        ({"kind": "image", "grid": (0, 4)}, "at least 1 x 1"),
        ({"kind": "audio", "seconds": 0.001}, "less than one code"),
    ],
)
def test_a_wrong_wish_is_one_clear_line(run: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        sample(run, **options)


def test_codes_that_spell_nothing_are_one_clear_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(codec: ToyCodec, codes: Codes) -> Any:
        raise ValueError("these codes spell no picture")

    monkeypatch.setattr(ToyCodec, "decode", broken)
    with pytest.raises(RunError, match="cannot be decoded: these codes spell no picture; train on"):
        sample(run, kind="image", grid=(1, 1))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run's folder"):
        sample(tmp_path)


def test_a_codec_that_is_not_the_runs_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = CodecSpec("toy-image@1", "image", (50,), "another", False)
    monkeypatch.setattr(sampling, "load_codec", lambda name: ToyCodec(other))
    with pytest.raises(UserError, match="toy-image@1 is not the one"):
        sample(run, kind="image", grid=(1, 1))


def test_a_vocabulary_that_is_a_file_is_found_in_the_runs_data(tmp_path: Path) -> None:
    (tmp_path / "theirs.json").write_bytes(byte_level())
    file = CodecFile.of(tmp_path / "theirs.json")
    texts = [f"a red cat sat on the mat {i}" for i in range(40)]
    items = [Item("text", file.codec, file.load().encode(text).codes) for text in texts]
    samples = [Sample(f"{i:032x}", f"{i:032x}", "web", (item,)) for i, item in enumerate(items)]
    web = tmp_path / "data" / "web"
    shards = [write_shard(web, "web", split, 0, 1, samples) for split in ("train", "validation")]
    finish_source(web, "web", shards, [spec_of(file.load())], {}, codec_files=[keep_codec(web, file)])
    write_dataset_manifest(tmp_path / "data", ["web"])
    file.path.unlink()
    (tmp_path / "run.toml").write_text(TOY.replace("steps = 9", "steps = 1"))
    train(tmp_path / "run.toml", tmp_path / "run")
    written = sample(tmp_path / "run", kind="text", prompt="a red café", max_tokens=20).read_text("utf-8")
    assert written.startswith("a red café")
    (web / "codecs" / f"{file.codec}.json").unlink()
    _loaded_file.cache_clear()
    with pytest.raises(UserError, match="check the path"):
        sample(tmp_path / "run", kind="text", prompt="a")
