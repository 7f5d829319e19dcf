"""A small training loop for codecs: a rate on a cosine, averaged weights, resumable, the same for the same seed.

A batch is a function of its step, so a run that was stopped goes on exactly where it was: there is no iterator to save.
The weights that come out are the average at the evaluation with the best first figure.
The loop knows nothing of media: loss, batches and evaluation are functions that the caller passes in. For one device
and models of a few million weights; the sharded trainer for language models is `pipelines.train`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import uuid
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmdata.errors import RunError, UserError
from pipelines.fit.optimizer import make_optimizer

LossFunction = Callable[[Any, Any], jax.Array]  # (params, batch) -> scalar
BatchFunction = Callable[[int], Any]  # step -> batch: arrays, the same for the same step
EvaluateFunction = Callable[[Any], dict[str, float]]  # averaged params -> figures


@dataclass(frozen=True)
class TrainSettings:
    """How long and how fast; part of the card. `steps` on one cosine from `learning_rate`; then, where more are wanted
    after all, `more_steps` on another from half of it (a warm restart: Loshchilov and Hutter 2016)."""

    steps: int
    more_steps: int = 0
    learning_rate: float = 1.5e-3
    warmup_steps: int = 50
    final_rate: float = 0.02  # of learning_rate, at the last step
    optimizer: str = "adam"  # or "muon"
    muon_scale: float = 10.0  # Muon's rate over Adam's
    average: float = 0.995  # weights of the exponential average that is kept
    clip: float = 1.0  # global norm of the gradient
    evaluate_every: int = 200
    save_every: int = 200

    @property
    def total_steps(self) -> int:
        return self.steps + self.more_steps

    def rate(self) -> optax.Schedule:
        """The learning rate of each step: warmed up, then a cosine or two."""
        warmup = min(self.warmup_steps, max(1, self.steps // 10))
        last = self.learning_rate * self.final_rate
        first = optax.warmup_cosine_decay_schedule(0.0, self.learning_rate, warmup, max(self.steps, warmup + 1), last)
        if not self.more_steps:
            return first
        warm = min(self.warmup_steps, max(1, self.more_steps // 10))
        again = optax.warmup_cosine_decay_schedule(
            last, self.learning_rate / 2, warm, max(self.more_steps, warm + 1), last
        )
        return optax.join_schedules([first, again], [self.steps])


@dataclass(frozen=True)
class TrainResult:
    params: Any  # averaged, numpy: those of the best evaluation
    figures: dict[str, float]  # of that evaluation, with its step
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
    higher_is_better: bool = False,
    identity: str = "",
) -> TrainResult:
    """Train `params`; `folder` keeps state.npz (to go on after a stop) and history.jsonl. Shows a bar on a terminal.

    The first figure of `evaluate` says which weights are kept, without it the last ones are. `identity` says what is
    trained on: a folder whose run had another is refused, as one of other settings is (UserError). RunError where the
    loss is no finite number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = make_optimizer(settings.optimizer, settings.rate(), settings.clip, settings.muon_scale)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    copy = jax.tree.map(jnp.copy, params)
    state = {"params": params, "average": copy, "best": copy, "optimizer": optimizer.init(params)}
    about = _about(settings, identity)
    step, history, state = _resume(folder, about, state)
    best = state.pop("best")
    update = _update_function(loss, optimizer, settings.average)

    before = history[-1]["seconds"] if history else 0.0
    started = time.monotonic()
    losses: list[jax.Array] = []
    with _progress(name, settings.total_steps) as show, ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(batch, step)
        while step < settings.total_steps:
            data = waiting.result()
            if step + 1 < settings.total_steps:
                waiting = reader.submit(batch, step + 1)  # the next batch is read while this one is learnt
            state, value = update(state, data, jnp.float32(step))
            step += 1
            losses.append(value)
            last = step == settings.total_steps
            evaluating, saving = (last or step % every == 0 for every in (settings.evaluate_every, settings.save_every))
            if evaluating or saving:
                _check_finite(name, losses, step, folder)
            if evaluating:
                mean = float(jnp.mean(jnp.stack(losses)))
                losses.clear()
                entry = {"step": step, "seconds": round(before + time.monotonic() - started, 1), "loss": mean}
                entry.update(evaluate(state["average"]) if evaluate else {})
                history.append(entry)
                with (folder / "history.jsonl").open("a") as file:
                    file.write(json.dumps(entry) + "\n")
                if _best(history, higher_is_better) is entry:
                    best = state["average"]
            show(step, history[-1] if history else {})
            if saving:
                _save(folder, about, {**state, "best": best}, step)
    chosen = _best(history, higher_is_better)
    figures = {k: v for k, v in chosen.items() if k != "seconds"}
    return TrainResult(jax.tree.map(np.asarray, best), figures, history, before + time.monotonic() - started)


def data_identity(settings: str, files: Sequence[tuple[str, str]]) -> str:
    """What `train` takes as `identity`: one digest of a config's words and of (path, sha256) of each training file."""
    digest = hashlib.sha256(settings.encode())
    for path, sha256 in files:
        digest.update(f"\0{path}\0{sha256}".encode())
    return digest.hexdigest()


def _update_function(loss: LossFunction, optimizer: optax.GradientTransformation, average: float) -> Any:
    @jax.jit
    def update(state: Any, batch: Any, step: jax.Array) -> tuple[Any, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(state["params"], batch)
        updates, optimizer_state = optimizer.update(gradient, state["optimizer"], state["params"])
        new = optax.apply_updates(state["params"], updates)
        # A young average follows fast, so that the start is forgotten
        keep = jnp.minimum(average, (step + 1.0) / (step + 10.0))
        averaged = jax.tree.map(lambda a, p: keep * a + (1 - keep) * p, state["average"], new)
        return {"params": new, "average": averaged, "optimizer": optimizer_state}, value

    return update


def _check_finite(name: str, losses: Sequence[jax.Array], step: int, folder: Path) -> None:
    """RunError that names the first step whose loss is no finite number. Called before each save: a state on disk is
    always one to go on from."""
    values = np.asarray(jnp.stack(losses)) if losses else np.zeros(0)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        at = step - len(values) + int(wrong[0]) + 1
        raise RunError(
            f"{name}: the loss of step {at} is {values[wrong[0]]}, expected a finite number; {folder} keeps what was"
            " saved before: use a lower learning_rate and another --out, or look for a damaged training file"
        )


def _best(history: Sequence[dict[str, float]], higher: bool) -> dict[str, float]:
    """The evaluation with the best first figure, the earliest of equal ones; the last where there are no figures."""
    names = [key for key in history[-1] if key not in ("step", "seconds", "loss")] if history else []
    if not names:
        return history[-1] if history else {}
    return max(history, key=lambda entry: entry[names[0]] * (1 if higher else -1))


def _about(settings: TrainSettings, identity: str) -> str:
    return json.dumps({**asdict(settings), **({"identity": identity} if identity else {})}, sort_keys=True)


def _save(folder: Path, about: str, state: Any, step: int) -> None:
    leaves = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    temporary = folder / f"state.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with temporary.open("wb") as file:
            np.savez(file, step=step, settings=about, **leaves)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, folder / "state.npz")
    finally:
        temporary.unlink(missing_ok=True)


def _resume(folder: Path, about: str, state: Any) -> tuple[int, list[dict[str, float]], Any]:
    """(step, history, state) of a run that was stopped here with the same settings, or of a new one."""
    path = folder / "state.npz"
    if not path.exists():
        (folder / "history.jsonl").unlink(missing_ok=True)
        return 0, [], state
    leaves, tree = jax.tree.flatten(state)
    try:
        with np.load(path) as saved:
            said, step = str(saved["settings"]), int(saved["step"])
            loaded = [jnp.asarray(saved[f"leaf{i}"]) for i in range(len(leaves))] if said == about else []
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise UserError(f"{path} is no state of such a training ({error}): remove it, or use another --out") from None
    if said != about:
        raise UserError(
            f"{path} is of a run with other {_differences(said, about)}: give that config again, or use another --out"
        )
    for old, new in zip(leaves, loaded, strict=True):
        if old.shape != new.shape:
            raise UserError(
                f"{path} is of another network: it holds {list(new.shape)}, expected {list(old.shape)}; remove it"
            )
    lines = (folder / "history.jsonl").read_text().splitlines() if (folder / "history.jsonl").exists() else []
    history = [entry for entry in map(json.loads, lines) if entry["step"] <= step]
    (folder / "history.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in history))
    return step, history, jax.tree.unflatten(tree, loaded)


def _differences(found: str, expected: str) -> str:
    """The settings that differ: "learning_rate (found 0.002, expected 0.001)"."""
    old, new = json.loads(found), json.loads(expected)
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    said = [
        "training files" if name == "identity" else f"{name} (found {old.get(name)}, expected {new.get(name)})"
        for name in names
    ]
    return ", ".join(said)


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
