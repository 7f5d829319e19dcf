"""AdamW with warm-up and a cosine; matrices decay, norms, biases and the factors of streams do not."""

from __future__ import annotations

from typing import Any

import jax
import optax
from pydantic import BaseModel, ConfigDict, Field


class OptimizerSettings(BaseModel):
    """The [optimizer] table of a run file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: float = Field(3e-3, gt=0, description="at the end of the warm-up")
    warmup_steps: int = Field(20, ge=0, description="steps from 0 to learning_rate")
    decay_steps: int = Field(0, ge=0, description="step at which the cosine ends; 0: `steps`")
    final_rate: float = Field(0.1, ge=0, le=1, description="of learning_rate, after the cosine")
    weight_decay: float = Field(0.1, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    clip: float = Field(1.0, gt=0, description="largest global norm of a gradient")


def learning_rate(settings: OptimizerSettings) -> optax.Schedule:
    """step -> learning rate; the first step already learns a little."""
    warm = max(1, settings.warmup_steps)
    rate = settings.learning_rate
    return optax.join_schedules(
        [
            optax.linear_schedule(rate / warm, rate, warm - 1 or 1),
            optax.cosine_decay_schedule(rate, max(1, settings.decay_steps - warm), settings.final_rate),
        ],
        [warm],
    )


def optimizer(settings: OptimizerSettings) -> optax.GradientTransformation:
    """The transformation; its state mirrors the parameters."""
    return optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.adamw(
            learning_rate(settings),
            b1=settings.beta1,
            b2=settings.beta2,
            weight_decay=settings.weight_decay,
            mask=_decays,
        ),
    )


def _decays(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: not _is_scale(path), params)


def _is_scale(path: Any) -> bool:
    name = str(path[-1].key)
    return name in ("bias", "scale", "shift") or name.endswith("norm")
