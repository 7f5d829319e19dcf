"""Mixtures by ablation: the run's model, trained on each of several mixtures, measured on one validation set.

As Gemini's data mixtures were found (Gemini 1, section 4: ablations on smaller models). Every training is a run of its
own in OUT/NAME, with the same seed, model, steps and so tokens; only the weights of the sources differ, so what differs
in the losses is the mixture and the noise of a training, which `seeds` shows. A run that was stopped goes on.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import mmdata
from mmdata.commit import write_bytes
from mmdata.errors import UserError
from mmdata.mixture import exact
from pipelines.config import nearest
from pipelines.train.run import Run, StageSettings, load_run, to_toml
from pipelines.train.trainer import train

_MOST = 64  # trainings of one command


@dataclass(frozen=True)
class Point:
    """One mixture and what the model that learnt from it loses, in nats a token, on the validation split."""

    varied: dict[str, float]  # source -> its share of the tokens
    weights: dict[str, float]  # of all sources; they sum to 1
    tokens: int  # learnt from, by each training
    loss: dict[str, float]  # by kind, the mean over seeds
    spread: dict[str, float]  # by kind, the largest less the smallest of the seeds: 0 with one
    runs: tuple[str, ...]  # folders in OUT


def ablate(
    run_file: Path | str, out: Path | str, vary: Mapping[str, Sequence[str]], steps: int = 0, seeds: int = 1
) -> list[Point]:
    """Train `run_file` once for each mixture (and seed) in folders of `out`; the points are OUT/ablation.json too.

    vary: source -> shares of the tokens, as decimals ("0.2"); every combination is trained. The other sources keep
    their proportions to one another in what is left. steps: instead of the run's. UserError for a name or share that
    does not fit, RunError as `train`.
    """
    out = Path(out)
    run = load_run(Path(run_file), out)
    base = base_weights(run)
    points = mixtures(base, vary, str(run_file))
    if seeds < 1 or len(points) * seeds > _MOST:
        raise UserError(f"{len(points)} mixtures x {seeds} seeds: give from 1 to {_MOST} trainings in all")
    found = []
    for varied, weights in points:
        name = "_".join(f"{source}-{share}" for source, share in varied.items())
        names = [name if seeds == 1 else f"{name}_seed-{run.settings.seed + i}" for i in range(seeds)]
        summaries = [
            train(_write_run(run, out / each, weights, steps, run.settings.seed + i), out / each)
            for i, each in enumerate(names)
        ]
        found.append(_point(varied, weights, summaries, names))
    write_bytes(out / "ablation.json", (json.dumps([asdict(point) for point in found], indent=1) + "\n").encode())
    return found


def parse_shares(words: Sequence[str]) -> dict[str, list[str]]:
    """["web=0.2,0.4"] -> {"web": ["0.2", "0.4"]}. UserError for words of another form, or a source given twice."""
    found: dict[str, list[str]] = {}
    for word in words:
        source, equals, shares = word.partition("=")
        if not equals or not source or source in found:
            raise UserError(f"--vary {word}: give each source once, with its shares, such as web=0.2,0.4,0.6")
        found[source] = [share.strip() for share in shares.split(",") if share.strip()]
    return found


def base_weights(run: Run) -> dict[str, Fraction]:
    """Shares of the tokens that the run's stage gives its sources, or shares of the codes they have; they sum to 1."""
    stages = run.settings.stage
    if len(stages) > 1:
        raise UserError(f"{run.file} has {len(stages)} stages: ablate a run of one, so that a mixture is one mixture")
    if stages and stages[0].weights:
        unknown = sorted(set(stages[0].weights) - set(run.sources))
        if unknown:
            raise UserError(f"{run.file}: stage.weights names {unknown[0]!r}; the sources are {sorted(run.sources)}")
        weights = {name: exact(weight, name) for name, weight in stages[0].weights.items()}
    else:
        weights = {name: Fraction(_codes(folder)) for name, folder in run.sources.items()}
    total = sum(weights.values())
    if not total:
        raise UserError(f"{run.file}: no source has a weight above 0")
    return {name: weight / total for name, weight in weights.items()}


def mixtures(
    base: Mapping[str, Fraction], vary: Mapping[str, Sequence[str]], where: str
) -> list[tuple[dict[str, str], dict[str, Fraction]]]:
    """Each combination of the shares: (source -> share as written, weights of all sources). UserError where the shares
    leave nothing for the others, or too little."""
    for source, shares in vary.items():
        if source not in base:
            raise UserError(f"{where} has no source {source!r}; {nearest(source, list(base))}")
        if not shares or len(set(shares)) < len(shares):
            raise UserError(f"--vary {source}={','.join(shares)}: give different shares, such as {source}=0.2,0.4")
    if not vary:
        raise UserError("nothing varies: give --vary SOURCE=SHARE,SHARE,...")
    found = []
    for shares in itertools.product(*vary.values()):
        fixed = {source: exact(share, source, "the share") for source, share in zip(vary, shares, strict=True)}
        left = 1 - sum(fixed.values())
        others = sum(weight for source, weight in base.items() if source not in fixed)
        if left < 0 or (left > 0 and not others):
            raise UserError(
                f"shares {dict(zip(vary, shares, strict=True))} sum to {float(1 - left):g}; they are shares of all"
                f" tokens, {'at most 1' if left < 0 else 'and 1 where no other source has a weight'}"
            )
        scale = left / others if others else Fraction(0)
        weights = {source: fixed.get(source, weight * scale) for source, weight in base.items()}
        found.append((dict(zip(vary, shares, strict=True)), weights))
    return found


def _codes(folder: Path | str) -> int:
    """Codes of a source's training split, of all kinds."""
    (source,) = mmdata.open(folder).values()
    counts = source.manifest.counts("train")
    return sum(of_kind.get("codes", 0) for kind, of_kind in counts.items() if kind != "samples")


def _write_run(run: Run, folder: Path, weights: Mapping[str, Fraction], steps: int, seed: int) -> Path:
    """The run file of one mixture, in its folder."""
    stage = run.settings.stage[0] if run.settings.stage else StageSettings()  # type: ignore[call-arg]
    stage = stage.model_copy(update={"weights": {name: float(weight) for name, weight in weights.items()}})
    changed: dict[str, Any] = {"stage": [stage], "seed": seed}
    if steps:
        changed |= {"steps": steps, "optimizer": run.settings.optimizer.model_copy(update={"decay_steps": steps})}
    folder.mkdir(parents=True, exist_ok=True)
    table = replace(run, settings=run.settings.model_copy(update=changed)).resolved(folder)
    if run.layout != run.settings.layout:
        table["layout"] = run.layout  # the file itself: the folder has no copy yet
    path = folder / "mixture.toml"
    write_bytes(path, to_toml(table).encode())
    return path


def _point(
    varied: Mapping[str, str], weights: Mapping[str, Fraction], summaries: Sequence[Mapping[str, Any]], names: list[str]
) -> Point:
    kinds = [kind for kind in summaries[0]["validation"] if all(kind in s["validation"] for s in summaries)]
    losses = {kind: [float(summary["validation"][kind]["loss"]) for summary in summaries] for kind in kinds}
    return Point(
        {source: float(share) for source, share in varied.items()},
        {source: round(float(weight), 6) for source, weight in weights.items()},
        int(summaries[0]["tokens"]),
        {kind: math.fsum(values) / len(values) for kind, values in losses.items()},
        {kind: max(values) - min(values) for kind, values in losses.items()},
        tuple(names),
    )
