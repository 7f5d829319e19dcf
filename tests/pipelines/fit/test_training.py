"""The small training loop: it learns, and a run that was stopped ends where an unbroken one does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdata.errors import RunError, UserError
from pipelines.fit.training import TrainSettings, train

SETTINGS = TrainSettings(steps=60, learning_rate=0.05, warmup_steps=5, average=0.9, evaluate_every=20, save_every=20)
GOAL = np.array([1.0, -2.0, 3.0], np.float32)


def loss(params: Any, batch: Any) -> jax.Array:
    return jnp.mean((batch @ params["w"] - batch @ GOAL) ** 2)


def batch(step: int) -> np.ndarray:
    return np.random.default_rng(step).normal(size=(16, 3)).astype(np.float32)


def start() -> dict[str, np.ndarray]:
    return {"w": np.zeros(3, np.float32)}


def test_the_loop_learns_and_tells_its_history(tmp_path: Path) -> None:
    result = train(
        "toy", start(), loss, batch, SETTINGS, tmp_path, lambda p: {"far": float(jnp.abs(p["w"] - GOAL).max())}
    )
    assert result.figures["far"] < result.history[0]["far"]
    assert [entry["step"] for entry in result.history] == [20, 40, 60]


def test_a_stopped_run_goes_on_exactly_where_it_was(tmp_path: Path) -> None:
    whole = train("toy", start(), loss, batch, SETTINGS, tmp_path / "whole")

    def stops(step: int) -> np.ndarray:
        if step == 50:
            raise KeyboardInterrupt
        return batch(step)

    with pytest.raises(KeyboardInterrupt):
        train("toy", start(), loss, stops, SETTINGS, tmp_path / "broken")
    again = train("toy", start(), loss, batch, SETTINGS, tmp_path / "broken")
    np.testing.assert_array_equal(whole.params["w"], again.params["w"])
    assert [entry["step"] for entry in again.history] == [20, 40, 60]


def test_a_folder_of_other_settings_is_refused_and_the_difference_is_named(tmp_path: Path) -> None:
    train("toy", start(), loss, batch, SETTINGS, tmp_path, identity="a")
    with pytest.raises(UserError, match=r"steps \(found 60, expected 61\)"):
        train("toy", start(), loss, batch, replace(SETTINGS, steps=61), tmp_path, identity="a")
    with pytest.raises(UserError, match="other training files"):
        train("toy", start(), loss, batch, SETTINGS, tmp_path, identity="b")
    with pytest.raises(UserError, match=r"state.npz is of another network: it holds \[3\], expected \[4\]"):
        train("toy", {"w": np.zeros(4, np.float32)}, loss, batch, SETTINGS, tmp_path, identity="a")


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"state.npz is no state of such a training"):
        train("toy", start(), loss, batch, SETTINGS, tmp_path)


def test_the_first_step_that_is_no_number_is_named_and_what_was_saved_stays_good(tmp_path: Path) -> None:
    def wrong(step: int) -> np.ndarray:
        return np.full((16, 3), np.nan, np.float32) if step == 46 else batch(step)

    with pytest.raises(RunError, match=r"toy: the loss of step 47 is nan, expected a finite number"):
        train("toy", start(), loss, wrong, replace(SETTINGS, save_every=10), tmp_path)
    whole = train("toy", start(), loss, batch, replace(SETTINGS, save_every=10), tmp_path / "whole")
    again = train("toy", start(), loss, batch, replace(SETTINGS, save_every=10), tmp_path)
    np.testing.assert_array_equal(again.params["w"], whole.params["w"])


@pytest.mark.parametrize("higher", [False, True])
def test_the_weights_kept_are_those_of_the_best_evaluation_also_after_a_stop(tmp_path: Path, higher: bool) -> None:
    sign = 1 if higher else -1
    seen: list[np.ndarray] = []

    def evaluate(params: Any) -> dict[str, float]:
        seen.append(np.asarray(params["w"]))
        return {"figure": sign * (1.0 if len(seen) == 2 else 0.5), "other": float(len(seen))}

    def stops(step: int) -> np.ndarray:
        if step == 50:
            raise KeyboardInterrupt
        return batch(step)

    with pytest.raises(KeyboardInterrupt):
        train("toy", start(), loss, stops, SETTINGS, tmp_path, evaluate, higher)
    result = train("toy", start(), loss, batch, SETTINGS, tmp_path, evaluate, higher)
    np.testing.assert_array_equal(result.params["w"], seen[1])
    assert result.figures["step"] == 40 and len(seen) == 3


def test_more_steps_follow_on_a_second_cosine_from_half_the_rate(tmp_path: Path) -> None:
    longer = replace(SETTINGS, more_steps=40)
    first, both = SETTINGS.rate(), longer.rate()
    rates = [float(both(step)) for step in range(100)]
    np.testing.assert_allclose(rates[:60], [float(first(step)) for step in range(60)], rtol=1e-6)
    assert max(rates[60:]) == pytest.approx(SETTINGS.learning_rate / 2, rel=1e-3)
    assert rates[99] < 0.1 * SETTINGS.learning_rate
    result = train("toy", start(), loss, batch, longer, tmp_path)
    assert [entry["step"] for entry in result.history] == [20, 40, 60, 80, 100]


def test_muon_learns_kernels_between_layers_and_adam_the_rest(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    goal = random.normal(size=(8, 8)).astype(np.float32)
    params = {"block0": {"kernel": np.zeros((8, 8), np.float32), "bias": np.ones(8, np.float32)}}

    def far(params: Any, data: Any) -> jax.Array:
        return jnp.mean((data @ params["block0"]["kernel"] + params["block0"]["bias"] - data @ goal) ** 2)

    def data(step: int) -> np.ndarray:
        return np.random.default_rng(step).normal(size=(32, 8)).astype(np.float32)

    settings = replace(SETTINGS, steps=200, learning_rate=0.02, optimizer="muon", evaluate_every=100)
    found = train("toy", params, far, data, settings, tmp_path).params["block0"]
    assert np.abs(found["kernel"] - goal).max() < 0.1 and np.abs(found["bias"]).max() < 0.1
    one_step = train("toy", params, far, data, replace(settings, steps=1, warmup_steps=0), tmp_path / "one")
    moved = np.linalg.svd(one_step.params["block0"]["kernel"], compute_uv=False)
    assert moved.max() / moved.min() < 2  # orthonormal, nearly: Newton and Schulz's iteration ends between 0.7 and 1.2
    with pytest.raises(ValueError, match="no optimizer 'sgd'"):
        train("toy", params, far, data, replace(settings, optimizer="sgd"), tmp_path / "sgd")
