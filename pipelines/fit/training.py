"""A small training loop for codecs: Adam on a cosine, an average of the weights, resumable, the same for the same seed.

A batch is a function of its step, so a run that was stopped goes on exactly where it was: there is no iterator to save.
The loop knows nothing of media: loss, batches and evaluation are functions that the caller passes in. For one device
and models of a few million weights; the sharded trainer for language models is `pipelines.train`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

LossFunction = Callable[[Any, Any], jax.Array]  # (params, batch) -> scalar
BatchFunction = Callable[[int], Any]  # step -> batch: arrays, the same for the same step
EvaluateFunction = Callable[[Any], dict[str, float]]  # averaged params -> figures


@dataclass(frozen=True)
class TrainSettings:
    """How long and how fast; part of the card."""

    steps: int
    learning_rate: float = 1.5e-3
    warmup_steps: int = 50
    final_rate: float = 0.02  # of learning_rate, at the last step
    average: float = 0.995  # weights of the exponential average that is kept
    clip: float = 1.0  # global norm of the gradient
    evaluate_every: int = 200
    save_every: int = 200


@dataclass(frozen=True)
class TrainResult:
    params: Any  # averaged, numpy
    figures: dict[str, float]  # of the last evaluation
    history: list[dict[str, float]]  # one entry an evaluation: step, seconds, loss, figures
    seconds: float


def train(
    name: str,
    params: Any,
    loss: LossFunction,
    batch: BatchFunction,
    settings: TrainSettings,
    folder: Path,
    evaluate: EvaluateFunction | None = None,
) -> TrainResult:
    """Train `params`; `folder` keeps state.npz (to go on after a stop) and history.jsonl. Shows a bar on a terminal."""
    folder.mkdir(parents=True, exist_ok=True)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        settings.learning_rate,
        min(settings.warmup_steps, max(1, settings.steps // 10)),
        settings.steps,
        settings.learning_rate * settings.final_rate,
    )
    optimizer = optax.chain(optax.clip_by_global_norm(settings.clip), optax.adam(schedule, b2=0.99))
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    state = {"params": params, "average": jax.tree.map(jnp.copy, params), "optimizer": optimizer.init(params)}
    step, history, state = _resume(folder, settings, state)

    @jax.jit
    def update(state: Any, batch: Any, step: jax.Array) -> tuple[Any, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(state["params"], batch)
        updates, optimizer_state = optimizer.update(gradient, state["optimizer"], state["params"])
        new = optax.apply_updates(state["params"], updates)
        # A young average follows fast, so that the start is forgotten
        keep = jnp.minimum(settings.average, (step + 1.0) / (step + 10.0))
        average = jax.tree.map(lambda a, p: keep * a + (1 - keep) * p, state["average"], new)
        return {"params": new, "average": average, "optimizer": optimizer_state}, value

    before = history[-1]["seconds"] if history else 0.0
    started = time.monotonic()
    losses: list[jax.Array] = []
    with _progress(name, settings.steps) as show, ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(batch, step)
        while step < settings.steps:
            data = waiting.result()
            if step + 1 < settings.steps:
                waiting = reader.submit(batch, step + 1)  # the next batch is read while this one is learnt
            state, value = update(state, data, jnp.float32(step))
            step += 1
            losses.append(value)
            last = step == settings.steps
            if last or step % settings.evaluate_every == 0:
                mean = float(jnp.mean(jnp.stack(losses)))
                losses.clear()
                if not np.isfinite(mean):
                    raise ValueError(f"{name}: the loss is {mean} at step {step}; lower learning_rate")
                entry = {"step": step, "seconds": round(before + time.monotonic() - started, 1), "loss": mean}
                entry.update(evaluate(state["average"]) if evaluate else {})
                history.append(entry)
                with (folder / "history.jsonl").open("a") as file:
                    file.write(json.dumps(entry) + "\n")
            show(step, history[-1] if history else {})
            if last or step % settings.save_every == 0:
                _save(folder, settings, state, step)
    figures = {k: v for k, v in history[-1].items() if k not in ("step", "seconds")} if history else {}
    averaged = jax.tree.map(np.asarray, state["average"])
    return TrainResult(averaged, figures, history, before + time.monotonic() - started)


def _save(folder: Path, settings: TrainSettings, state: Any, step: int) -> None:
    leaves = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    temporary = folder / f"state.{os.getpid()}.tmp"
    with temporary.open("wb") as file:
        np.savez(file, step=step, settings=json.dumps(asdict(settings), sort_keys=True), **leaves)  # type: ignore[arg-type]
    os.replace(temporary, folder / "state.npz")


def _resume(folder: Path, settings: TrainSettings, state: Any) -> tuple[int, list[dict[str, float]], Any]:
    """(step, history, state) of a run that was stopped here with the same settings, or of a new one."""
    path = folder / "state.npz"
    if not path.exists():
        (folder / "history.jsonl").unlink(missing_ok=True)
        return 0, [], state
    with np.load(path) as saved:
        if str(saved["settings"]) != json.dumps(asdict(settings), sort_keys=True):
            raise ValueError(
                f"{folder} holds a run with other settings ({saved['settings']}); use another folder, or remove it"
            )
        leaves, tree = jax.tree.flatten(state)
        loaded = [jnp.asarray(saved[f"leaf{i}"]) for i in range(len(leaves))]
        step = int(saved["step"])
    for old, new in zip(leaves, loaded, strict=True):
        if old.shape != new.shape:
            raise ValueError(f"{folder} holds a run of another network ({new.shape} for {old.shape}); remove it")
    lines = (folder / "history.jsonl").read_text().splitlines() if (folder / "history.jsonl").exists() else []
    history = [entry for entry in map(json.loads, lines) if entry["step"] <= step]
    (folder / "history.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in history))
    return step, history, jax.tree.unflatten(tree, loaded)


class _progress:
    """A rich bar with the last figures on a terminal; nothing elsewhere (history.jsonl has it all)."""

    def __init__(self, name: str, steps: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(name, total=steps, figures="")

    def __enter__(self) -> Callable[[int, dict[str, float]], None]:
        self._bar.start()
        return self._show

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def _show(self, step: int, figures: dict[str, float]) -> None:
        words = " ".join(f"{k} {v:.3f}" for k, v in figures.items() if k not in ("step", "seconds"))
        self._bar.update(self._task, completed=step, figures=words)
