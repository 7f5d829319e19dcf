"""Loss by kind on a validation split, beside what guessing would cost.

Baselines: for text the entropy of its own token frequencies (a model that knew them exactly and nothing of context);
for images, sound and video ln(number of codes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jax.sharding import Mesh

import mmdata
from pipelines.train import sharding
from pipelines.train.folder import codebook_loss
from pipelines.train.step import arrays_of
from tokenizer.item import KINDS, TEXT
from tokenizer.layout import Layout


def evaluate(
    params: Any,
    batches: Iterable[mmdata.Batch],
    layout: Layout,
    step: Callable[[Any, dict[str, Any]], tuple[Any, Any]],
    mesh: Mesh,
    max_batches: int = 0,
) -> dict[str, dict[str, Any]]:
    """{kind: {"loss", "baseline", "baseline_name", "tokens"}} over these batches (or the first of them).

    The text baseline is of the text this process read.
    """
    sums, counts = np.zeros(len(KINDS)), np.zeros(len(KINDS))
    frequencies = np.zeros(layout.vocabulary.size, np.int64)
    for number, batch in enumerate(batches):
        if max_batches and number >= max_batches:
            break
        of_batch, count = step(params, sharding.place(arrays_of(batch), mesh))
        sums += np.asarray(of_batch)
        counts += np.asarray(count)
        kinds = batch.kinds[:, 1:].reshape(*batch.kinds[:, 1:].shape, *[1] * (batch.tokens.ndim - 2))
        is_text = (batch.loss_weights[:, :-1] > 0) & (kinds == TEXT)
        frequencies += np.bincount(batch.targets[:, :-1][is_text], minlength=len(frequencies))
    out: dict[str, dict[str, Any]] = {}
    for number, kind in enumerate(KINDS):
        if counts[number] and kind != "none":
            baseline, name = _baseline(kind, frequencies, layout.codecs)
            out[kind] = {
                "loss": float(sums[number] / counts[number]),
                "baseline": baseline,
                "baseline_name": name,
                "tokens": int(counts[number]),
            }
    return out


def _baseline(kind: str, frequencies: np.ndarray, codecs: Any) -> tuple[float | None, str]:
    if kind == "text":
        return entropy(frequencies), "unigram entropy of this text"
    guess = codebook_loss(codecs, kind)
    return (guess, "ln(number of codes)") if guess is not None else (None, "")


def entropy(frequencies: np.ndarray) -> float:
    """Nats of the distribution that counts [n] describe."""
    share = frequencies[frequencies > 0] / max(1, frequencies.sum())
    return float(-(share * np.log(share)).sum())
