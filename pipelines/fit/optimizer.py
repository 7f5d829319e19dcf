"""Optimizers of codecs: Adam, or Muon (Jordan 2024) for the kernels between layers and Adam for the rest.

Muon replaces a kernel's momentum by the nearest matrix with orthonormal columns. For the small image codec it reaches
the quality of Adam in less than half the steps, at a quarter more time a step (docs/log.md).
"""

from __future__ import annotations

from typing import Any

import jax
import optax

OPTIMIZERS = ("adam", "muon")


def make_optimizer(kind: str, schedule: optax.Schedule, clip: float, muon_scale: float) -> optax.GradientTransformation:
    """`schedule` is Adam's rate; Muon's is `muon_scale` times that. `clip`: global norm of the gradient.
    ValueError for an unknown kind."""
    if kind not in OPTIMIZERS:
        raise ValueError(f"no optimizer {kind!r}; use {' or '.join(map(repr, OPTIMIZERS))}")
    adam = optax.adam(schedule, b2=0.99)
    if kind == "adam":
        return optax.chain(optax.clip_by_global_norm(clip), adam)
    muon = optax.chain(
        optax.contrib.scale_by_muon(weight_dimension_numbers=_as_matrices),
        optax.scale_by_schedule(lambda step: -muon_scale * schedule(step)),
    )
    return optax.chain(optax.clip_by_global_norm(clip), optax.multi_transform({"muon": muon, "adam": adam}, _assign))


def _assign(params: Any) -> Any:
    """For each leaf, which of the two learns it: Muon the kernels of blocks and of changes of resolution, where rows
    and columns mean features; Adam those that touch pixels or codes, and all biases."""

    def one(path: tuple[Any, ...], leaf: Any) -> str:
        *above, name = (str(key.key) for key in path)
        inner = any(part.startswith(("block", "up", "down")) for part in above)
        return "muon" if name == "kernel" and inner else "adam"

    return jax.tree_util.tree_map_with_path(one, params)


def _as_matrices(params: Any) -> Any:
    """A convolution's kernel [..., inputs, outputs] as a matrix: every axis but the last makes its rows."""

    def one(leaf: Any) -> Any:
        return optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), (leaf.ndim - 1,))

    return jax.tree.map(one, params)
