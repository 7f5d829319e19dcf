"""Fitting a quality classifier from a config file: texts in, weights and card out (`mmdata fit classifier`).

Logistic regression on the shares of a text's n-grams (`pipelines/curate/classifier.py`), with a penalty on squared
weights. It has one best answer, which L-BFGS finds: no order of texts, no rate. The same texts give the same bytes on
one machine with one number of BLAS threads (sums of 1 and of 2 differ in their last bits: measured). Good and bad
count the same, and sets of a label by their weights. Texts and their n-grams (8 bytes each) are in memory; fitting
takes seconds to a few minutes and begins anew after a stop.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mmdata.errors import UserError
from pipelines.build.progress import Progress
from pipelines.config import NAME, check, read_toml
from pipelines.curate.classifier import BUCKETS, load_classifier, ngrams, save_classifier
from pipelines.fit.card import Card, Data, command_of, write_card
from pipelines.fit.classifier_figures import both_figures, set_figures
from pipelines.fit.classifier_texts import ClassifierDataConfig, TextSet, files_of, read_sets
from pipelines.fit.exclude import Exclusions

Figures = dict[str, dict[str, float]]


class ClassifierConfig(BaseModel):
    """The file given to `mmdata fit classifier --config`."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(pattern=NAME)
    revision: int = Field(1, ge=1)
    licence: str
    summary: str = ""
    notes: list[str] = []
    languages: list[str] = []  # of the texts: the rule asks it of these alone; empty: of all
    buckets: int = Field(BUCKETS, ge=256, le=1 << 26)  # n-grams share so many weights, of two bytes each
    penalty: float = Field(1e-6, gt=0)  # on the sum of squared weights; higher: smaller weights, a duller classifier
    steps: int = Field(200, ge=1)  # of L-BFGS at the most
    characters: int = Field(4000, ge=100)  # texts are cut at line ends into pieces of at most so many
    least_characters: int = Field(200, ge=1)  # shorter pieces are left out
    seed: int = Field(0, ge=0)  # another one takes other pieces where a set has a `most`
    data: list[ClassifierDataConfig] = Field(min_length=2)


def fit_classifier(config_path: Path, out: Path | None = None, exclude: Sequence[Path] = ()) -> Figures:
    """Fit the classifier of the config file; write OUT/NAME-REVISION.safetensors with its card. Returns its figures.

    Files whose sha256 is that of an excluded file are left out. OUT is runs/fit-NAME-REVISION where it is not given.
    """
    config = read_config(config_path)
    out = out or Path("runs") / f"fit-{config.name}-{config.revision}"
    with Progress(shown=True) as bars:
        sets = read_texts(config, config_path, exclude, bars)
        started = time.monotonic()
        step = bars.begin("fit", config.steps)
        weights, bias, steps = _fitted(config, sets, step.advance)
    seconds = time.monotonic() - started
    if steps == config.steps:
        print(f"mmdata: not settled after {steps} steps; raise `steps` or `penalty`", file=sys.stderr)
    path = out / f"{config.name}-{config.revision}.safetensors"
    words = {"name": config.name, "revision": config.revision, "languages": config.languages}
    save_classifier(path, weights, bias, words)
    figures = measure(load_classifier(path), {data.name: (data.held, data.good) for data in sets}, _whole(config))
    card = Card(
        name=f"{config.name}@{config.revision}",
        summary=config.summary,
        command=command_of("classifier", config_path, exclude),
        licence=config.licence,
        data=[Data(d.name, d.licence, d.origin, found.files, found.dropped) for d, found in zip(config.data, sets)],
        settings=_settings(config, sets, weights, steps, seconds),
        figures=figures,
        notes=config.notes,
    )
    write_card(path, card)
    return figures


def read_config(path: Path) -> ClassifierConfig:
    config = check(ClassifierConfig, read_toml(path), str(path))
    names = [data.name for data in config.data]
    if len(set(names)) < len(names):
        raise UserError(f"{path}: two sets of data have one name; give each its own")
    for label in ("good", "bad"):
        if not any(data.label == label and not data.held_out for data in config.data):
            raise UserError(f'{path}: no set with label = "{label}" to learn from; add one without held_out')
    return config


def read_texts(config: ClassifierConfig, path: Path, exclude: Sequence[Path], bars: Progress) -> list[TextSet]:
    try:
        exclusions = Exclusions.of(exclude, kinds=())
        bar = bars.begin("read", sum(len(files_of(data, path.parent)) for data in config.data))
        return read_sets(
            config.data, path.parent, exclusions, config.characters, config.least_characters, config.seed, bar.advance
        )
    except (UserError, ValueError) as error:
        raise UserError(f"{path}: {error}") from None


def measure(
    classifier: Callable[[str], float], sets: Mapping[str, tuple[Sequence[str], bool]], whole: Sequence[str]
) -> Figures:
    """sets: name -> (texts, good). whole: names of the sets that are held out whole, which are also measured apart."""
    values = {name: np.array([classifier(text) for text in texts]) for name, (texts, _) in sets.items() if texts}
    figures = {}
    for title, names in (
        ("held-out files of the sets", [name for name in values if name not in whole]),
        ("sets held out whole", [name for name in values if name in whole]),
    ):
        sides = [[values[name] for name in names if sets[name][1] == good] for good in (True, False)]
        figures[title] = both_figures(*(np.concatenate([*side, np.zeros(0)]) for side in sides))
    return {**figures, **{name: set_figures(found, sets[name][1]) for name, found in values.items()}}


def _whole(config: ClassifierConfig) -> list[str]:
    return [data.name for data in config.data if data.held_out]


def _fitted(config: ClassifierConfig, sets: Sequence[TextSet], advance: Callable[[], None]) -> tuple[Any, float, int]:
    """(weights float64 [buckets], bias, steps taken)."""
    from scipy.optimize import minimize

    places, labels, shares = _examples(config, sets)
    turned = places.T.tocsr()

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = parameters[:-1], parameters[-1]
        margin = labels * (places @ weights + bias)
        pull = -labels * shares * np.exp(-np.logaddexp(0, margin))  # of the loss on each score
        value = float(shares @ np.logaddexp(0, -margin) + config.penalty * (weights @ weights))
        return value, np.append(turned @ pull + 2 * config.penalty * weights, pull.sum())

    found = minimize(
        loss,
        np.zeros(config.buckets + 1),
        jac=True,
        method="L-BFGS-B",
        callback=lambda _: advance(),
        options={"maxiter": config.steps, "maxfun": 2 * config.steps, "ftol": 1e-9, "gtol": 1e-9},
    )
    return found.x[:-1], float(found.x[-1]), int(found.nit)


def _examples(config: ClassifierConfig, sets: Sequence[TextSet]) -> tuple[Any, np.ndarray, np.ndarray]:
    """(sparse float32 [texts, buckets]: shares of n-grams; float64 [texts] 1 or -1; float64 [texts] of sum 1)."""
    from scipy.sparse import csr_array

    columns, values, ends, labels, shares = [], [], [0], [], []
    total = {"good": 0.0, "bad": 0.0}
    for data in config.data:
        total[data.label] += 0 if data.held_out else data.weight
    for data, found in zip(config.data, sets):
        for text in found.train if not data.held_out else ():
            grams = ngrams(text, config.buckets)
            unique, counts = np.unique(grams, return_counts=True)
            columns.append(unique.astype(np.int32))
            values.append((counts / max(1, len(grams))).astype(np.float32))
            ends.append(ends[-1] + len(unique))
            labels.append(1.0 if found.good else -1.0)
            shares.append(data.weight / total[data.label] / len(found.train) / 2)
    shape = (len(labels), config.buckets)
    places = csr_array((np.concatenate(values), np.concatenate(columns), np.array(ends)), shape=shape)
    return places, np.array(labels), np.array(shares)


def _settings(
    config: ClassifierConfig, sets: Sequence[TextSet], weights: np.ndarray, steps: int, seconds: float
) -> dict[str, Any]:
    import scipy

    keys = {"languages", "buckets", "penalty", "characters", "least_characters", "seed"}
    reading = {"include", "leave_out", "form", "field", "skip", "separator", "most", "held_out"}
    return {
        **config.model_dump(include=keys),
        "steps": steps,
        "scipy": scipy.__version__,
        "numpy": np.__version__,
        "weights_of_sets": {data.name: data.weight for data in config.data},
        "labels": {data.name: data.label for data in config.data},
        "sets_read_as": {
            data.name: {k: v for k, v in data.model_dump(include=reading).items() if v} for data in config.data
        },
        "texts": {data.name: {"trained_on": len(data.train), "held_out": len(data.held)} for data in sets},
        "weights_that_are_not_0": int(np.count_nonzero(weights)),
        "seconds": round(seconds),
    }
