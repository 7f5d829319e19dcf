"""The model, its loss and the mesh, on synthetic batches."""

import itertools
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdata.errors import UserError
from pipelines.train import loss, sharding
from pipelines.train.attention import mask, rotate
from pipelines.train.model import ModelConfig, decode_step, hidden, init, init_cache, logits
from pipelines.train.optimizer import OptimizerSettings, learning_rate, optimizer
from pipelines.train.step import arrays_of, make_train_step, new_state

CONFIG = ModelConfig(vocabulary=256, layers=2, width=32, heads=4, head_dim=8, mlp=64)
FACTORED = ModelConfig(
    vocabulary=256,
    layers=2,
    width=32,
    heads=4,
    head_dim=8,
    mlp=64,
    embedding=16,
    ranges=(0, 100),
    digits=((100, (3, 2)),),
)


def toy_batch(rows: int = 8, length: int = 48, seed: int = 0) -> SimpleNamespace:
    """Two documents a row and some padding, kinds text (1) and image (2)."""
    draw = np.random.default_rng(seed)
    tokens = draw.integers(1, 250, (rows, length), dtype=np.int32)
    segments = np.repeat([[1] * 20 + [2] * (length - 24) + [0] * 4], rows, 0).astype(np.int32)
    positions = np.repeat([[*range(20), *range(length - 24), *[0] * 4]], rows, 0).astype(np.int32)
    same = np.pad(segments[:, 1:] == segments[:, :-1], ((0, 0), (0, 1))) & (segments > 0)
    return SimpleNamespace(
        tokens=tokens,
        targets=np.where(same, np.roll(tokens, -1, 1), 0).astype(np.int32),
        loss_weights=same.astype(np.float32),
        segment_ids=segments,
        positions=positions,
        kinds=np.where(segments == 1, 1, np.where(segments == 2, 2, 0)).astype(np.uint8),
        blocks=None,
        soft={},
        soft_index=None,
    )


def arrays() -> dict[str, jax.Array]:
    return {name: jnp.asarray(value) for name, value in arrays_of(toy_batch()).items()}


@pytest.fixture(scope="module")
def params() -> dict:
    return init(jax.random.key(0), CONFIG)


def test_a_mask_keeps_documents_apart_and_lets_blocks_see_themselves() -> None:
    segments = jnp.array([[1, 1, 2, 2, 0]])
    seen = mask(segments)[0, 0]
    assert seen.tolist()[3] == [False, False, True, True, False]
    assert not seen[2, 3] and seen[1, 0] and not seen[2, 1] and not seen[4, 0]
    assert mask(segments, jnp.array([[0, 0, 7, 7, 0]]))[0, 0, 2, 3]
    assert not mask(jnp.array([[1, 2]]), jnp.array([[7, 7]]))[0, 0, 0, 1]  # equal blocks of two documents


def test_a_document_is_predicted_the_same_whatever_else_lies_in_its_row(params: dict) -> None:
    batch = arrays()
    whole = hidden(params, batch, CONFIG)
    alone = {name: value[:, 20:44] for name, value in batch.items()}
    np.testing.assert_allclose(hidden(params, alone, CONFIG), whole[:, 20:44], rtol=2e-4, atol=2e-5)


def test_later_tokens_do_not_change_earlier_predictions(params: dict) -> None:
    batch = arrays()
    other = {**batch, "tokens": batch["tokens"].at[:, 10:].set(5)}
    np.testing.assert_array_equal(hidden(params, batch, CONFIG)[:, :10], hidden(params, other, CONFIG)[:, :10])


@pytest.mark.parametrize("config", [CONFIG, FACTORED])
def test_one_token_at_a_time_gives_the_logits_of_the_whole(config: ModelConfig) -> None:
    params = init(jax.random.key(0), config)
    batch = {name: value[:2, :12] for name, value in arrays().items()}
    want = logits(params, hidden(params, batch, config), config)
    cache, got = init_cache(config, 2, 12), []
    for i in range(12):
        answer, cache = decode_step(params, cache, batch["tokens"][:, i], jnp.int32(i), jnp.full((2, 1), i), config)
        got.append(answer)
    np.testing.assert_allclose(np.stack(got, 1), want, rtol=1e-4, atol=1e-4)


def test_rotation_turns_by_distance_only_and_takes_several_axes() -> None:
    x = jax.random.normal(jax.random.key(1), (1, 2, 1, 8))
    near = rotate(x, jnp.array([[3, 5]]), 1e4)
    far = rotate(x, jnp.array([[103, 105]]), 1e4)
    np.testing.assert_allclose(jnp.vdot(near[0, 0], near[0, 1]), jnp.vdot(far[0, 0], far[0, 1]), rtol=1e-4)
    same = rotate(x, jnp.array([[[3, 5], [3, 5], [3, 5]]]), 1e4)  # [B, P, L]
    np.testing.assert_allclose(same, near, rtol=1e-6)


@pytest.mark.parametrize("chunk", [7, 16, 48, 128])
def test_chunked_loss_and_its_gradient_equal_the_plain_ones(params: dict, chunk: int) -> None:
    batch = arrays()
    x = hidden(params, batch, CONFIG)
    weights = batch["loss_weights"] * jnp.linspace(0.5, 1.5, 48)

    def plain(x: jax.Array, embedding: jax.Array, bias: jax.Array) -> jax.Array:
        logs = jax.nn.log_softmax(x @ embedding.T + bias)
        return -jnp.sum(weights * jnp.take_along_axis(logs, batch["targets"][..., None], -1)[..., 0])

    def chunked(x: jax.Array, embedding: jax.Array, bias: jax.Array) -> jax.Array:
        return loss.weighted_loss(x, embedding, bias, batch["targets"], weights, chunk)[0]

    bias = jax.random.normal(jax.random.key(2), (256,))
    want, want_slopes = jax.value_and_grad(plain, (0, 1, 2))(x, params["embedding"], bias)
    got, got_slopes = jax.value_and_grad(chunked, (0, 1, 2))(x, params["embedding"], bias)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    np.testing.assert_allclose(chunked(x, params["embedding"], bias), want, rtol=1e-5)
    for a, b in zip(got_slopes, want_slopes):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_loss_by_kind_counts_each_target_once_under_what_it_is() -> None:
    kinds = jnp.array([[5, 1, 1, 5, 2, 2, 5, 0]])
    losses = jnp.array([[1.0, 2, 4, 8, 16, 32, 64, 128]])
    weights = jnp.array([[1.0, 1, 1, 1, 1, 1, 0, 0]])
    sums, counts = loss.sums_by_kind(losses, weights, kinds)
    assert sums.tolist() == [0, 1 + 2, 8 + 16, 0, 0, 4 + 32]  # targets: text text control image image control
    assert counts.tolist() == [0, 2, 2, 0, 0, 2]


def test_a_model_refuses_batches_of_another_layout(params: dict) -> None:
    batch = arrays()
    with pytest.raises(ValueError, match=r"tokens are \[8, 48, 4\]; this model reads 1 a place"):
        hidden(params, {**batch, "tokens": jnp.zeros((8, 48, 4), jnp.int32)}, CONFIG)
    soft = {"image": jnp.zeros((8, 6, 4, 4, 3), jnp.uint8)}
    with pytest.raises(ValueError, match=r"soft {'image': 48}, the model projects {}"):
        hidden(params, {**batch, "soft": soft, "soft_index": batch["tokens"]}, CONFIG)


def test_the_learning_rate_warms_up_and_falls() -> None:
    rate = learning_rate(OptimizerSettings(learning_rate=1.0, warmup_steps=10, decay_steps=100, final_rate=0.1))
    values = [float(rate(step)) for step in range(101)]
    assert 0 < values[0] <= 0.11 and values[9] == pytest.approx(1, abs=0.01)
    assert values[100] == pytest.approx(0.1, abs=1e-3) and all(a >= b for a, b in itertools.pairwise(values[10:]))


def test_a_mesh_that_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="needs 64 devices"):
        sharding.make_mesh(data=64)
    devices = [jax.devices()[0]] * 8
    mesh = sharding.make_mesh(0, 2, 2, devices)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    with pytest.raises(UserError, match=r"batch_size = 6 .*data x fsdp = 4"):
        sharding.check_sizes(mesh, CONFIG, 6)


PROGRAM = """
import jax
from tests.pipelines.train.test_model import losses_on
assert len(jax.devices()) == 8
print(*losses_on(2, 2, 2))
"""


def losses_on(data: int, fsdp: int, tensor: int) -> list[float]:
    """The losses of three steps on a mesh."""
    mesh = sharding.make_mesh(data, fsdp, tensor)
    rule = optimizer(OptimizerSettings(warmup_steps=1, decay_steps=10))
    state, step = new_state(FACTORED, rule, mesh, seed=0), make_train_step(FACTORED, rule, mesh)
    batch = sharding.place(arrays_of(toy_batch()), mesh)
    out = []
    for _ in range(3):
        state, told = step(state, batch)
        out.append(float(told["loss"]))
    return out


def test_eight_devices_give_the_loss_of_one(root: Path) -> None:
    """Parameters and rows split over a mesh of 2 x 2 x 2 forced host devices, float32, 1e-5 relative."""
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        cwd=root,
        timeout=120,
        env={**os.environ, **environment, "PYTHONPATH": str(root)},
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    np.testing.assert_allclose(list(map(float, answer.stdout.split())), losses_on(1, 1, 1), rtol=1e-5)
