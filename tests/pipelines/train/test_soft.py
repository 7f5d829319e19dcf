"""Soft media and parallel streams in the bundled model: on hand-made batches, and from files to a trained run."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mmdata
from mmdata.batch import Batch, empty_batch
from mmdata.errors import UserError
from pipelines.build.engine import build
from pipelines.build.recipe import parse_recipe
from pipelines.train import sample as sampling
from pipelines.train import sharding
from pipelines.train.attention import mask
from pipelines.train.checkpoint import restore_params
from pipelines.train.loss import weighted_loss
from pipelines.train.model import ModelConfig, decode_step, hidden, init, init_cache, logits, per_stream, table
from pipelines.train.optimizer import OptimizerSettings, optimizer
from pipelines.train.run import open_loader
from pipelines.train.step import arrays_of, make_evaluate_step, make_train_step, new_state
from pipelines.train.trainer import train
from tests.pipelines.build.toy_build import hum, load_toy, paint
from tests.pipelines.ingest.toy_media import movie
from tokenizer.audio import log_mel
from tokenizer.item import AUDIO, CONTROL, IMAGE, KINDS, TEXT, VIDEO

SHAPES: dict[str, tuple[tuple[int, ...], Any]] = {
    "audio": ((2, 5), np.float32),
    "image": ((4, 4, 3), np.uint8),
    "video": ((2, 4, 4, 3), np.uint8),
}
SOFT = ModelConfig(
    vocabulary=64, layers=2, width=32, heads=4, head_dim=8, mlp=64, soft=(("audio", 10), ("image", 48), ("video", 96))
)
STREAMS = ModelConfig(vocabulary=64, layers=2, width=32, heads=4, head_dim=8, mlp=64, streams=3)
LENGTH, ROWS = 24, 8
PATCHES = slice(3, 7)  # of an image: one block


def soft_batch(seed: int = 0) -> Batch:
    """Two segments a row: 4 patches of a picture and a text that says how bright each is; two frames' patches, three
    runs of sound, and a text of two words that says which is louder."""
    draw = np.random.default_rng(seed)
    batch = empty_batch(
        ROWS, LENGTH, blocks=True, soft={name: ((LENGTH, *shape), dtype) for name, (shape, dtype) in SHAPES.items()}
    )
    assert batch.soft_index is not None and batch.blocks is not None
    batch.segment_ids[:, :12], batch.segment_ids[:, 12:22] = 1, 2
    batch.positions[:, :12], batch.positions[:, 12:22] = range(12), range(10)
    batch.tokens[:, :22] = 1
    batch.kinds[:, :22] = CONTROL
    bright = draw.integers(0, 2, (ROWS, 4))
    batch.soft["image"][:, :4] = bright[:, :, None, None, None] * 200 + draw.integers(0, 50, (ROWS, 4, 4, 4, 3))
    batch.soft_index[:, PATCHES] = range(4)
    batch.kinds[:, PATCHES], batch.blocks[:, PATCHES] = IMAGE, 1
    batch.tokens[:, 8:12], batch.kinds[:, 8:12] = 10 + bright, TEXT
    batch.soft["video"][:, :2] = draw.integers(0, 256, (ROWS, 2, 2, 4, 4, 3))
    batch.soft_index[:, 13:15], batch.kinds[:, 13:15] = range(2), VIDEO
    loud = draw.integers(0, 2, (ROWS, 1))
    batch.soft["audio"][:, :3] = -9 + 6 * loud[..., None, None] + draw.random((ROWS, 3, 2, 5))
    batch.soft_index[:, 16:19], batch.kinds[:, 16:19] = range(3), AUDIO
    batch.tokens[:, 20:21], batch.kinds[:, 20:21] = 20 + loud, TEXT
    batch.targets[:, :21] = batch.tokens[:, 1:22]
    batch.targets[:, 11] = 0
    batch.loss_weights[:, :21] = batch.kinds[:, 1:22] == TEXT
    batch.loss_weights[:, 11] = 0
    return batch


def stream_batch(seed: int = 0) -> Batch:
    """Three ids a place; those of streams 1 and 2 share a range, and are the sum and the difference of before."""
    draw = np.random.default_rng(seed)
    batch = empty_batch(ROWS, LENGTH, num_codebooks=3)
    steps = draw.integers(0, 4, (ROWS, 1)) + np.arange(LENGTH)
    batch.tokens[:] = np.stack([1 + steps % 4, 20 + steps % 8, 20 + (7 - steps) % 8], -1)
    batch.targets[:, :-1] = batch.tokens[:, 1:]
    batch.loss_weights[:, :-1] = [1, 0.5, 0.25]
    batch.segment_ids[:], batch.positions[:], batch.kinds[:] = 1, range(LENGTH), AUDIO
    return batch


def on_device(batch: Batch) -> dict[str, Any]:
    return jax.tree.map(jnp.asarray, arrays_of(batch))


def losses(config: ModelConfig, batch: Batch, steps: int, mesh: tuple[int, int, int] = (1, 1, 1)) -> list[float]:
    """The loss of each step on one batch."""
    on = sharding.make_mesh(*mesh)
    rule = optimizer(OptimizerSettings(learning_rate=0.01, warmup_steps=2, decay_steps=60))
    state, step = new_state(config, rule, on, seed=0), make_train_step(config, rule, on)
    placed, out = sharding.place(arrays_of(batch), on), []
    for _ in range(steps):
        state, told = step(state, placed)
        out.append(float(told["loss"]))
    return out


@pytest.mark.parametrize("config", [SOFT, STREAMS], ids=["soft", "streams"])
def test_the_loss_falls(config: ModelConfig) -> None:
    batch = soft_batch() if config.soft else stream_batch()
    found = losses(config, batch, 40)
    assert found[-1] < 0.25 * found[0], found


def test_what_is_said_of_a_medium_is_learnt_from_the_medium() -> None:
    """Other media, the same ids to begin with: only the projections can tell the texts of a new batch."""
    mesh = sharding.make_mesh(1, 1, 1)
    rule = optimizer(OptimizerSettings(learning_rate=0.01, warmup_steps=2, decay_steps=80))
    state, step = new_state(SOFT, rule, mesh, seed=0), make_train_step(SOFT, rule, mesh)
    for number in range(80):
        state, _ = step(state, sharding.place(arrays_of(soft_batch(number)), mesh))
    sums, counts = make_evaluate_step(SOFT, mesh)(state["params"], sharding.place(arrays_of(soft_batch(1000)), mesh))
    assert counts[TEXT] == ROWS * 5
    assert sums[TEXT] / counts[TEXT] < 0.5 * np.log(2)  # a guess costs ln 2


def test_every_projection_gets_a_gradient() -> None:
    batch = on_device(soft_batch())

    def loss(params: Any) -> jax.Array:
        x = hidden(params, batch, SOFT)
        return weighted_loss(x, table(params, SOFT), params["bias"], batch["targets"], batch["loss_weights"])[0]

    gradient = jax.jit(jax.grad(loss))(init(jax.random.key(0), SOFT))["soft"]
    assert sorted(gradient) == ["audio", "image", "video"]
    for own in gradient.values():
        assert float(jnp.abs(own["weight"]).max()) > 1e-5 and float(jnp.abs(own["bias"]).max()) > 1e-5


@pytest.mark.parametrize(
    ("kind", "vector", "place"), [("image", 2, 5), ("video", 1, 14), ("audio", 0, 16)], ids=["image", "video", "audio"]
)
def test_a_changed_vector_changes_only_places_that_may_see_it(kind: str, vector: int, place: int) -> None:
    params, batch = init(jax.random.key(0), SOFT), on_device(soft_batch())
    other = batch["soft"][kind].at[:, vector].set(batch["soft"][kind][:, vector] // 2 + 3)
    before = logits(params, hidden(params, batch, SOFT), SOFT)
    after = logits(params, hidden(params, {**batch, "soft": {**batch["soft"], kind: other}}, SOFT), SOFT)
    changed = np.asarray(jnp.abs(after - before).max((0, 2)) > 0)
    sees = np.asarray(mask(batch["segment_ids"], batch["blocks"]))[0, 0, :, place]
    assert sees[PATCHES].all() == (kind == "image")  # patches of one block see the later ones too
    np.testing.assert_array_equal(changed, sees)


def test_a_vector_that_no_place_refers_to_changes_nothing() -> None:
    params, batch = init(jax.random.key(0), SOFT), soft_batch()
    more = {kind: values.copy() for kind, values in batch.soft.items()}
    for values in more.values():
        values[:, 5:] = 77
    other = dataclasses.replace(batch, soft=more)
    np.testing.assert_array_equal(hidden(params, on_device(batch), SOFT), hidden(params, on_device(other), SOFT))


def test_a_soft_place_has_no_id() -> None:
    """The placeholder's id is not read where a vector stands."""
    params, batch = init(jax.random.key(0), SOFT), on_device(soft_batch())
    other = {**batch, "tokens": jnp.where(batch["soft_index"] >= 0, 33, batch["tokens"])}
    assert (other["tokens"] != batch["tokens"]).sum() == ROWS * 9
    np.testing.assert_array_equal(hidden(params, batch, SOFT), hidden(params, other, SOFT))


def test_a_stream_is_predicted_from_all_streams_of_before() -> None:
    params, batch = init(jax.random.key(0), STREAMS), on_device(stream_batch())
    before = logits(params, hidden(params, batch, STREAMS), STREAMS)
    assert before.shape == (ROWS, LENGTH, 3, 64)
    for k in range(3):
        other = {**batch, "tokens": batch["tokens"].at[:, 10, k].add(1)}
        changed = jnp.abs(logits(params, hidden(params, other, STREAMS), STREAMS) - before).max((0, 3)) > 0
        assert not changed[:10].any() and changed[10:].all()


def test_ids_that_change_streams_are_not_the_same_place() -> None:
    params, batch = init(jax.random.key(0), STREAMS), on_device(stream_batch())
    other = {**batch, "tokens": batch["tokens"][..., jnp.array([0, 2, 1])]}
    x, y = hidden(params, batch, STREAMS), hidden(params, other, STREAMS)
    assert float(jnp.abs(x - y).max(-1).min()) > 1e-3


def test_the_loss_of_streams_is_that_of_their_own_logits() -> None:
    params, batch = init(jax.random.key(0), STREAMS), on_device(stream_batch())
    logs = jax.nn.log_softmax(logits(params, hidden(params, batch, STREAMS), STREAMS))
    want = -jnp.take_along_axis(logs, batch["targets"][..., None], -1)[..., 0]
    mesh = sharding.make_mesh(1, 1, 1)
    sums, counts = make_evaluate_step(STREAMS, mesh)(params, batch)
    assert counts.tolist() == [0, 0, 0, ROWS * (LENGTH - 1) * 3, 0, 0]
    np.testing.assert_allclose(sums[AUDIO], want[:, :-1].sum(), rtol=1e-5)
    told = make_train_step(STREAMS, optimizer(OptimizerSettings()), mesh)(
        new_state(STREAMS, optimizer(OptimizerSettings()), mesh, 0), batch
    )[1]
    weights = batch["loss_weights"]
    np.testing.assert_allclose(told["loss"], (want * weights).sum() / weights.sum(), rtol=1e-4)


def test_streams_one_place_at_a_time_give_the_logits_of_the_whole() -> None:
    params = init(jax.random.key(0), STREAMS)
    batch = jax.tree.map(lambda a: a[:2, :6], on_device(stream_batch()))
    want = logits(params, hidden(params, batch, STREAMS), STREAMS)
    cache = init_cache(STREAMS, 2, 6)
    for i in range(6):
        got, cache = decode_step(params, cache, batch["tokens"][:, i], jnp.int32(i), jnp.full((2, 1), i), STREAMS)
        np.testing.assert_allclose(got, want[:, i], rtol=1e-4, atol=1e-4)


def test_a_narrow_embedding_has_streams_too() -> None:
    narrow = dataclasses.replace(STREAMS, embedding=16)
    params = init(jax.random.key(0), narrow)
    assert per_stream(params, hidden(params, on_device(stream_batch()), narrow), narrow).shape == (ROWS, LENGTH, 3, 16)
    found = losses(narrow, stream_batch(), 12)
    assert found[-1] < 0.8 * found[0]


def test_a_new_kind_of_input_leaves_the_other_weights_as_they_were() -> None:
    plain = init(jax.random.key(0), dataclasses.replace(SOFT, soft=()))
    for other in (SOFT, dataclasses.replace(SOFT, soft=(), streams=3)):
        more = init(jax.random.key(0), other)
        jax.tree.map(np.testing.assert_array_equal, plain, {name: more[name] for name in plain})


LAYOUT = """
name = "patches"
version = 1

[vocabulary]
controls = [
    "<pad>", "<bos>", "<eos>", "<cont>", "<text>", "<image>", "</image>", "<video>", "</video>", "<audio>", "</audio>",
    "<patch>", "<vpatch>", "<mel>",
]

[text]
open = "<text>"

[image]
open = "<image>"
close = "</image>"
header = "two_sizes"

[audio]
open = "<audio>"
close = "</audio>"

[video]
open = "<video>"
close = "</video>"
header = "two_sizes"

[soft.image]
placeholder = "<patch>"
patch = 16

[soft.video]
placeholder = "<vpatch>"
patch = 16
frames = 2

[soft.audio]
placeholder = "<mel>"
frames = 4
"""
RUN = """
data = "data"
layout = "layout.toml"
seq_len = 96
batch_size = 4
steps = 30
[model]
layers = 1
width = 32
heads = 2
head_dim = 16
mlp = 64
[optimizer]
learning_rate = 0.01
warmup_steps = 2
[checkpoint]
every = 15
"""
COLOURS = {"dark red": (90, 0, 0), "light blue": (150, 150, 255), "mid green": (20, 140, 20)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/ (drawn pictures that say their colour, tones, a film), a layout and a run file."""
    folder = tmp_path_factory.mktemp("soft")
    for i in range(24):
        name, colour = list(COLOURS.items())[i % 3]
        paint(folder / "pictures" / f"{i:02d}.png", (colour[0] + i, *colour[1:]), (64, 48))
        (folder / "pictures" / f"{i:02d}.txt").write_text(name, "utf-8")
    for i in range(4):
        hum(folder / "speech" / f"{i}.wav", 0.3 + i / 10)
        (folder / "speech" / f"{i}.txt").write_text(f"hum {i}", "utf-8")
    (folder / "films").mkdir()
    for i in range(3):
        movie(folder / "films" / f"{i}.mp4", [0, 700, 1500, 2100], size=(48, 32), sound_s=0.5)
    recipe = {
        "validation": 0.2,
        "keep_media": "resized",
        "codecs": {"text": "toy-text@1", "image": "soft", "audio": "soft"},
        "image": {"policy": "area", "multiple": 16, "min_pixels": 1024, "max_pixels": 3072},
        "source": [
            {"name": "pictures", "format": "captions", "path": "pictures"},
            {"name": "speech", "format": "speech", "path": "speech"},
            {"name": "films", "format": "video", "path": "films"},
        ],
    }
    build(parse_recipe(recipe, folder), folder / "data", 1, progress=False, load=load_toy)
    (folder / "layout.toml").write_text(LAYOUT)
    (folder / "run.toml").write_text(RUN)
    return folder


@pytest.fixture(scope="module")
def finished(home: Path) -> dict[str, Any]:
    return train(home / "run.toml", home / "run")


def test_a_batch_holds_the_media_themselves(home: Path) -> None:
    loader = open_loader(home / "run.toml")
    sources, seen = mmdata.open(home / "data"), dict.fromkeys(KINDS, 0)
    for step in range(4):
        batch = loader.batch_at(step)
        assert {name: values.shape[2:] for name, values in batch.soft.items()} == {
            "audio": (4, 80),
            "image": (16, 16, 3),
            "video": (2, 16, 16, 3),
        }
        assert batch.soft_index is not None
        for b in range(len(batch.tokens)):
            for entry in loader.explain(step, row=b):
                here = slice(entry.column, entry.column + entry.length)
                index, kinds = batch.soft_index[b, here], batch.kinds[b, here]
                media = sources[entry.source].media
                sample = next(s for s in every(sources[entry.source]) if s.id == entry.id)
                for item in (i for i in sample.items if i.is_soft):
                    at = index[(index >= 0) & (kinds == KINDS.index(item.kind))]
                    want = cut(media[item.digest, item.kind])
                    np.testing.assert_allclose(batch.soft[item.kind][b, at], want, atol=1e-6)
                    seen[item.kind] += 1
    assert min(seen["image"], seen["audio"], seen["video"]) > 0


def every(source: Any) -> list[Any]:
    return [*source.train, *source.validation]


def cut(medium: np.ndarray) -> np.ndarray:
    """The slow twin: patches row by row, frames two by two, sound in runs of four log-mel frames."""
    if medium.ndim == 1:
        padded = np.zeros(-(-len(medium) // 1280) * 1280, np.float32)
        padded[: len(medium)] = medium / np.float32(32768)
        return log_mel(padded).reshape(-1, 4, 80)
    frames = (
        medium[None] if medium.ndim == 3 else np.concatenate([medium, medium[-1:]] if len(medium) % 2 else [medium])
    )
    pairs = frames[:, None] if medium.ndim == 3 else frames.reshape(-1, 2, *frames.shape[1:])
    patches = [
        pair[:, y : y + 16, x : x + 16]
        for pair in pairs
        for y in range(0, frames.shape[1], 16)
        for x in range(0, frames.shape[2], 16)
    ]
    return np.stack([patch[0] for patch in patches] if medium.ndim == 3 else patches)


def test_training_reads_pictures_sounds_and_films(home: Path, finished: dict[str, Any]) -> None:
    assert finished["last_loss"] < 0.6 * finished["first_loss"]
    step, params = restore_params(home / "run" / "checkpoints")
    assert step == 30 and sorted(params["soft"]) == ["audio", "image", "video"]
    assert params["soft"]["image"]["weight"].shape == (768, 32) and params["soft"]["audio"]["weight"].shape == (320, 32)
    for own in params["soft"].values():
        assert np.abs(own["bias"]).max() > 0  # zero before the first step


def test_a_run_of_soft_media_goes_on_where_it_was_stopped(home: Path, finished: dict[str, Any]) -> None:
    (home / "half.toml").write_text(RUN.replace("steps = 30", "steps = 15") + "\n")
    text = (home / "half.toml").read_text().replace("[optimizer]", "[optimizer]\ndecay_steps = 30")
    (home / "half.toml").write_text(text)
    train(home / "half.toml", home / "half")
    (home / "half.toml").write_text(text.replace("steps = 15", "steps = 30", 1))
    train(home / "half.toml", home / "half")
    whole, parts = (restore_params(home / name / "checkpoints")[1] for name in ("run", "half"))
    jax.tree.map(np.testing.assert_array_equal, whole, parts)


def test_sampling_writes_text_and_says_what_it_cannot(
    home: Path, finished: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "load_codec", load_toy)
    written = sampling.sample(home / "run", "dark", max_tokens=10)
    assert written.read_bytes().startswith(b"dark")
    with pytest.raises(UserError, match="takes image as soft positions: the model reads them and writes none"):
        sampling.sample(home / "run", kind="image")


PROGRAM = """
import jax
from tests.pipelines.train.test_soft import SOFT, STREAMS, losses, soft_batch, stream_batch
assert len(jax.devices()) == 8
print(*losses(SOFT, soft_batch(), 3, (2, 2, 2)), *losses(STREAMS, stream_batch(), 3, (2, 2, 2)))
"""


@pytest.mark.slow
def test_eight_devices_give_the_losses_of_one(root: Path) -> None:
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        cwd=root,
        timeout=240,
        env={**os.environ, **environment, "PYTHONPATH": str(root)},
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    alone = losses(SOFT, soft_batch(), 3) + losses(STREAMS, stream_batch(), 3)
    np.testing.assert_allclose(list(map(float, answer.stdout.split())), alone, rtol=2e-5)
