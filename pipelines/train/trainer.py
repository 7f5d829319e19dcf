"""Training: batches in, a run's folder out. Knows ids, kinds and weights; nothing of media.

The state after step n is a function of the run file and the data: a run that was killed goes on from its newest
checkpoint and ends with the same bits (on one kind of machine), because the loader's place is saved with the model's.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

import mmdata
from mmdata.errors import RunError, UserError
from pipelines.train import sharding
from pipelines.train.checkpoint import Checkpoints
from pipelines.train.evaluate import evaluate
from pipelines.train.folder import CHECKPOINTS, SUMMARY, Metrics, open_folder, read_metrics, write_summary
from pipelines.train.interrupt import Interrupts
from pipelines.train.optimizer import learning_rate, optimizer
from pipelines.train.progress import TrainingBar, print_summary
from pipelines.train.quarantine import batches, honour, next_batch
from pipelines.train.run import Run, load_run, make_loader, sized
from pipelines.train.step import abstract_state, arrays_of, make_evaluate_step, make_train_step, new_state
from tokenizer.item import KINDS


def train(run_file: Path | str, out: Path | str) -> dict[str, Any]:
    """Train the run of `run_file` in the folder `out`, or go on where it was stopped; returns its summary.

    Writes run.toml, layout.json, metrics.jsonl (a line a step), checkpoints/, quarantine.jsonl where a record cannot be
    read, and at the end summary.json. Raises UserError for a run file, data or folder that does not fit, RunError where
    the run cannot go on.
    """
    out = Path(out)
    run = load_run(Path(run_file), out)
    mesh = sharding.make_mesh(**run.settings.mesh.model_dump())
    shard = mmdata.data_shard(sharding.batch_sharding(mesh))
    loader = make_loader(run, "train", shard)
    validation = make_loader(run, "validation", shard, loader.layout) if _has_validation(run) else None
    return train_on(loader, validation, run, out, mesh)


def train_on(
    loader: mmdata.Loader, validation: mmdata.Loader | None, run: Run, out: Path, mesh: jax.sharding.Mesh
) -> dict[str, Any]:
    """`train` on Loaders of your own."""
    settings = run.settings
    if loader.split != "train":
        raise UserError(f"the Loader reads the {loader.split} split: train on one of the train split")
    spec = loader.layout.spec
    if masked := [kind for kind in spec.attention.blocks if spec.attention.masked and getattr(spec.loss, kind)]:
        raise UserError(
            f"layout {spec.name} learns {masked[0]} codes by masking, and this trainer predicts the next token: set"
            f" {masked[0]} = 0.0 under [loss] in a copy of it (`mmdata layout show {spec.name} --toml`)"
        )
    config = sized(settings.model, loader.layout)
    for batch_size in {settings.batch_size, *(s.batch_size or settings.batch_size for s in settings.stage)}:
        sharding.check_sizes(mesh, config, batch_size)
    loader.check(settings.steps)
    first_process = jax.process_index() == 0
    if first_process:
        open_folder(run, out, loader.layout)
    if jax.process_count() > 1:  # so that none finds the folder half made
        multihost_utils.sync_global_devices("the run's folder")
    rule = optimizer(settings.optimizer)
    checkpoints = Checkpoints(out / CHECKPOINTS, settings.checkpoint.every, settings.checkpoint.keep)
    interrupts = Interrupts()
    try:
        done = checkpoints.last or 0
        if done > settings.steps:
            raise UserError(f"{out} has done {done} steps already, the run file asks for {settings.steps}; raise steps")
        if done == settings.steps and (out / SUMMARY).exists():
            finished: dict[str, Any] = json.loads((out / SUMMARY).read_text("utf-8"))
            if finished["steps"] == done:
                if first_process:
                    print_summary(finished, out)
                return finished
        if checkpoints.last is None:
            state = new_state(config, rule, mesh, settings.seed)
        else:
            state, where = checkpoints.restore(abstract_state(config, rule, mesh))
            loader.restore(where)
        for opened in (loader, validation):
            if opened is not None:
                honour(opened, out)
        step = make_train_step(config, rule, mesh)
        measure = make_evaluate_step(config, mesh)
        rate = learning_rate(settings.optimizer)
        metrics = Metrics(out, done) if first_process else None
        with interrupts, TrainingBar(done, settings.steps, first_process) as bar:
            while done < settings.steps:
                interrupts.check()
                started = time.monotonic()
                batch = next_batch(loader, out)
                waited = time.monotonic() - started
                state, told = step(state, sharding.place(arrays_of(batch), mesh))
                line = _line(done, told, waited, started, float(rate(done)))
                done += 1
                if not math.isfinite(line["total"]):
                    raise RunError(
                        f"the loss is {line['total']} at step {done - 1}; lower optimizer.learning_rate (the newest"
                        f" checkpoint, of step {checkpoints.last or 0}, is whole)"
                    )
                if metrics:
                    metrics.write(line)
                bar.show(done, line)
                if checkpoints.due(done, settings.steps):
                    checkpoints.save(done, state, loader.state())
                if settings.evaluate.every and done % settings.evaluate.every == 0 and done < settings.steps:
                    bar.say("evaluating")
                    found = _measured(state, validation, measure, mesh, settings.evaluate.batches, out)
                    if metrics:
                        metrics.write({"step": done - 1, "validation": {k: row["loss"] for k, row in found.items()}})
            bar.say("evaluating")
            found = _measured(state, validation, measure, mesh, settings.evaluate.batches, out)
        if metrics:
            metrics.close()
    finally:
        for opened in (loader, validation):
            if opened is not None:
                opened.close()
        checkpoints.close()  # last, as it raises where the newest could not be written
    summary = _summary(read_metrics(out), done, found)
    if first_process:
        write_summary(out, summary)
        print_summary(summary, out)
    return summary


def _line(step: int, told: dict[str, Any], waited: float, started: float, rate: float) -> dict[str, Any]:
    """The line of metrics.jsonl: losses and tokens by kind, and where the time went."""
    sums, counts = np.asarray(told["sums"]), np.asarray(told["counts"])  # waits for the step
    seconds = time.monotonic() - started
    here = [number for number in range(1, len(KINDS)) if counts[number]]
    return {
        "step": step,
        "total": float(told["loss"]),
        "loss": {KINDS[n]: float(sums[n] / counts[n]) for n in here},
        "tokens": {KINDS[n]: int(counts[n]) for n in here},
        "learning_rate": rate,
        "gradient_norm": float(told["gradient"]),
        "seconds": round(seconds, 4),
        "data_wait_s": round(waited, 4),
        "tokens_per_s": round(float(counts.sum()) / seconds, 1),
    }


def _measured(
    state: Any, validation: Any, measure: Any, mesh: Any, max_batches: int, out: Path
) -> dict[str, dict[str, Any]]:
    if validation is None:
        return {}
    validation.restore({**validation.state(), "step": 0})
    return evaluate(state["params"], batches(validation, out), validation.layout, measure, mesh, max_batches)


def _has_validation(run: Run) -> bool:
    return any(len(source.validation) for folder in run.sources.values() for source in mmdata.open(folder).values())


def _summary(lines: list[dict[str, Any]], done: int, validation: dict[str, dict[str, Any]]) -> dict[str, Any]:
    steps = [line for line in lines if "loss" in line]
    last = steps[-10:]
    return {
        "steps": done,
        "tokens": sum(sum(line["tokens"].values()) for line in steps),
        "seconds": round(sum(line["seconds"] for line in steps), 1),
        "first_loss": steps[0]["total"] if steps else float("nan"),
        "last_loss": sum(line["total"] for line in last) / max(1, len(last)),
        "validation": validation,
    }
