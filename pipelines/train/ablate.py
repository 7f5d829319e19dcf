"""Mixtures by ablation: the run's model, trained on each of several mixtures, measured on one validation set.

As Gemini's data mixtures were found (Gemini 1, section 4: ablations on smaller models). Every training is a run of its
own in OUT/NAME with the same seed and model, and learns from the same number of tokens: those that count in the loss,
as metrics.jsonl has them. A batch of one mixture has more of them than one of another (rows are filled otherwise, and
not every token is learnt), so each training has as many steps as its batches need to reach the budget, counted before
it begins, and its learning rate falls over just these. What differs in the losses is the mixture and the noise of a
training, which `seeds` shows. A run that was stopped goes on.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

import mmdata
from mmdata.commit import write_bytes
from mmdata.errors import UserError
from mmdata.mixture import exact
from pipelines.config import nearest
from pipelines.train.quarantine import honour
from pipelines.train.run import Run, StageSettings, load_run, make_loader, to_toml
from pipelines.train.trainer import train

_MOST = 64  # trainings of one command


@dataclass(frozen=True)
class Point:
    """One mixture and what the model that learnt from it loses, in nats a token, on the validation split."""

    varied: dict[str, float]  # source -> its share of the tokens
    weights: dict[str, float]  # of all sources; they sum to 1
    budget: int  # tokens that every training is to learn from, of all mixtures
    tokens: tuple[int, ...]  # that each of `runs` learnt from: at least the budget, by less than a step
    steps: tuple[int, ...]  # of each of `runs`
    loss: dict[str, float]  # by kind, the mean over seeds
    spread: dict[str, float]  # by kind, the largest less the smallest of the seeds: 0 with one
    runs: tuple[str, ...]  # folders in OUT


def ablate(
    run_file: Path | str,
    out: Path | str,
    vary: Mapping[str, Sequence[str]],
    steps: int = 0,
    seeds: int = 1,
    tokens: int = 0,
) -> list[Point]:
    """Train `run_file` once for each mixture (and seed) in folders of `out`; the points are OUT/ablation.json too.

    vary: source -> shares of the tokens, as decimals ("0.2"); every combination is trained. The other sources keep
    their proportions to one another in what is left. tokens: that each training learns from; 0: as many as the first
    one learns from in `steps` steps (0: the run's). UserError for a name or share that does not fit, or where a mixture
    has nothing to learn; RunError as `train`.
    """
    out = Path(out)
    run = load_run(Path(run_file), out)
    base = base_weights(run)
    points = mixtures(base, vary, str(run_file))
    if seeds < 1 or len(points) * seeds > _MOST:
        raise UserError(f"{len(points)} mixtures x {seeds} seeds: give from 1 to {_MOST} trainings in all")
    if steps and tokens:
        raise UserError(f"steps {steps} and tokens {tokens}: give one of them, which decides the other")
    found, budget = [], tokens
    for varied, weights in points:
        name = "_".join(f"{source}-{share}" for source, share in varied.items())
        names, summaries = [], []
        for seed in range(run.settings.seed, run.settings.seed + seeds):
            names.append(name if seeds == 1 else f"{name}_seed-{seed}")
            folder, one = out / names[-1], _of_mixture(run, weights, seed)
            num_steps = _steps_to(one, folder, budget) if budget else steps or run.settings.steps
            budget = budget or _tokens_in(one, folder, num_steps)
            summaries.append(train(_write_run(one, folder, num_steps), folder))
        found.append(_point(varied, weights, budget, summaries, names))
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


def _of_mixture(run: Run, weights: Mapping[str, Fraction], seed: int) -> Run:
    stage = run.settings.stage[0] if run.settings.stage else StageSettings()  # type: ignore[call-arg]
    stage = stage.model_copy(update={"weights": {name: float(weight) for name, weight in weights.items()}})
    return replace(run, settings=run.settings.model_copy(update={"stage": [stage], "seed": seed}))


def _learnt(run: Run, folder: Path) -> Generator[int, None, None]:
    """Tokens that count in the loss of each batch that the run learns from, as the trainer counts them: without end."""
    # Each process reads all rows and so counts the same. What cannot be read training will leave out by itself, and
    # say so; what it has left out before is left out here.
    loader = make_loader(run, on_bad_record="quarantine")
    honour(loader, folder)
    with closing(loader):
        for batch in loader:
            yield int((batch.loss_weights > 0).sum())


def _tokens_in(run: Run, folder: Path, steps: int) -> int:
    with closing(_learnt(run, folder)) as learnt:
        tokens = sum(itertools.islice(learnt, steps))
    return tokens or _refuse(run, steps)


def _steps_to(run: Run, folder: Path, budget: int) -> int:
    """Steps after which the run has learnt from `budget` tokens. UserError where it seems to learn from none."""
    tokens = 0
    with closing(_learnt(run, folder)) as learnt:
        for steps, more in enumerate(learnt, 1):
            tokens += more
            if tokens >= budget:
                return steps
            if not tokens and steps >= run.settings.steps:
                _refuse(run, steps)
    raise AssertionError("the batches of a training have no end")


def _refuse(run: Run, steps: int) -> NoReturn:
    weights = {name: weight for name, weight in run.settings.stage[0].weights.items() if weight}
    raise UserError(
        f"{run.file}: no token of {steps} steps of the mixture {weights} counts in the loss; see [loss] in"
        f" `mmdata layout show {run.settings.layout} --toml`, or give its sources other shares"
    )


def _write_run(run: Run, folder: Path, steps: int) -> Path:
    """The run file of one mixture, in its folder."""
    rates = run.settings.optimizer
    decay = max(1, round(rates.decay_steps * steps / run.settings.steps))  # at the same place of the whole
    changed = {"steps": steps, "optimizer": rates.model_copy(update={"decay_steps": decay})}
    folder.mkdir(parents=True, exist_ok=True)
    table = replace(run, settings=run.settings.model_copy(update=changed)).resolved(folder)
    if run.layout != run.settings.layout:
        table["layout"] = run.layout  # the file itself: the folder has no copy yet
    path = folder / "mixture.toml"
    write_bytes(path, to_toml(table).encode())
    return path


def _point(
    varied: Mapping[str, str],
    weights: Mapping[str, Fraction],
    budget: int,
    summaries: Sequence[Mapping[str, Any]],
    names: list[str],
) -> Point:
    kinds = [kind for kind in summaries[0]["validation"] if all(kind in s["validation"] for s in summaries)]
    losses = {kind: [float(summary["validation"][kind]["loss"]) for summary in summaries] for kind in kinds}
    return Point(
        {source: float(share) for source, share in varied.items()},
        {source: round(float(weight), 6) for source, weight in weights.items()},
        budget,
        tuple(int(summary["tokens"]) for summary in summaries),
        tuple(int(summary["steps"]) for summary in summaries),
        {kind: math.fsum(values) / len(values) for kind, values in losses.items()},
        {kind: max(values) - min(values) for kind, values in losses.items()},
        tuple(names),
    )
