"""The small training loop: it learns, and a run that was stopped ends where an unbroken one does."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    train("toy", start(), loss, batch, SETTINGS, tmp_path)
    with pytest.raises(ValueError, match="other settings"):
        train("toy", start(), loss, batch, TrainSettings(steps=61), tmp_path)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lower learning_rate"):
        train("toy", start(), lambda p, b: jnp.sum(p["w"]) * jnp.nan, batch, SETTINGS, tmp_path)
