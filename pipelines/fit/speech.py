"""The two trainings of a speech codec: codes with their log-mel frames, then the head that makes sound of them.

The loss of the first is the L1 distance of log-mel frames, the figure that the codes are measured by. The second leaves
encoder and decoder as they are, so that codes and frames keep their figures; its loss is in `sound_loss`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from pipelines.fit import sound_loss
from pipelines.fit.crops import Recordings, crops
from pipelines.fit.train_config import TrainConfig
from pipelines.fit.training import TrainResult, train
from tokenizer.audio import HOP, mel_filters
from tokenizer.nets import sound_head, speech_fsq
from tokenizer.nets.sound_head import HeadConfig
from tokenizer.nets.speech_fsq import EDGE, Config
from tokenizer.speech import SpeechFsq

_FIRST = 1 << 40  # the step whose crops the closed form is made of: none that is trained on
_FIRST_FRAMES = 64
_OUTERMOST = 3  # frames whose windows reach out of a crop


class StageConfig(TrainConfig):
    """How one of the two trainings goes."""

    batch_size: int = Field(8, ge=1)
    crop: int = Field(64, ge=24, multiple_of=2)  # frames: whole groups, and a span of the envelope loss
    learning_rate: float = Field(2e-3, gt=0)
    warmup_steps: int = Field(100, ge=0)
    average: float = Field(0.998, ge=0, lt=1)
    evaluate_every: int = Field(500, ge=1)
    save_every: int = Field(500, ge=1)


@dataclass(frozen=True, eq=False)
class Material:
    """What both trainings learn from."""

    sets: Sequence[Recordings]
    validation: Sequence[np.ndarray]  # sounds float32 [n], which say which weights are kept
    seed: int
    identity: Mapping[str, Any]  # what decides the weights, beside a stage's settings

    def identity_of(self, stage: StageConfig) -> dict[str, Any]:
        """As the training loop takes it: a folder whose run had another is refused."""
        return {**self.identity, "batch_size": stage.batch_size, "crop": stage.crop}


def train_frames(
    name: str,
    stages: Sequence[StageConfig],
    config: Config,
    material: Material,
    folder: Path,
    before: SpeechFsq | None = None,
) -> list[TrainResult]:
    """Encoder and decoder, from a closed form or from those of a codec `before`. A result for each stage, of which the
    last counts; each has a folder `frames-N` in `folder`."""
    filters = jnp.asarray(mel_filters(), jnp.float32)
    sound, mask = crops(material.sets, (material.seed, _FIRST), 256, _FIRST_FRAMES, HOP, EDGE)
    whole = mask.min(1) > 0
    frames = np.asarray(jax.jit(speech_fsq.log_mel)(sound, filters))[whole if whole.any() else slice(None)]
    # What is added to the books of another codec are the components that follow: each must be one of its own
    fresh = before is None
    start = speech_fsq.closed_form(speech_fsq.init(material.seed, config), frames, config, turned=fresh)
    if before is not None:
        start = speech_fsq.widened(before.params, start, before.network, config)

    def loss(params: Any, data: tuple[jax.Array, jax.Array]) -> jax.Array:
        sound, mask = data
        frames = speech_fsq.log_mel(sound, filters)
        zq, _ = speech_fsq.quantize(speech_fsq.latents(params, frames, mask, config), config)
        return mean_distance(speech_fsq.decode_z(params, zq, mask, config)[1], frames, mask)

    held = padded(material.validation)
    measure = jax.jit(loss)
    results: list[TrainResult] = []
    for number, stage in enumerate(stages, 1):
        key = material.seed + (number << 32 if number > 1 else 0)  # other crops than those of the stage before
        result = train(
            name,
            start,
            loss,
            lambda step, key=key, stage=stage: crops(  # type: ignore[misc]
                material.sets, (key, step), stage.batch_size, stage.crop, HOP, EDGE
            ),
            stage.settings(),
            folder / f"frames-{number}",
            evaluate=(lambda params: {"validation_log_mel_l1": float(measure(params, held))}) if held[1].size else None,
            identity=material.identity_of(stage),
        )
        start = result.params
        results.append(result)
    return results


def train_sound(
    name: str,
    stage: StageConfig,
    config: Config,
    head: HeadConfig,
    codec: dict[str, Any],
    material: Material,
    folder: Path,
    start: dict[str, Any] | None = None,
) -> TrainResult:
    """The head alone, for the encoder and decoder of `codec`; from its linear path or from `start`."""
    filters = jnp.asarray(mel_filters(), jnp.float32)
    start = sound_head.init(material.seed, mel_filters(), head) if start is None else start

    def heard(params: Any, data: tuple[Any, Any]) -> tuple[jax.Array, jax.Array]:
        """(sound [B, 320 T], distance of its log-mel frames), but for the outermost frames, which lack neighbours"""
        sound, mask = data
        frames = speech_fsq.log_mel(sound, filters)
        zq, _ = speech_fsq.quantize(speech_fsq.latents(codec, frames, mask, config), config)
        hidden, decoded = jax.lax.stop_gradient(speech_fsq.decode_z(codec, zq, mask, config))
        made = sound_head.sound(params, hidden, decoded, mask, head)
        again = speech_fsq.log_mel(jnp.pad(made, ((0, 0), (EDGE, EDGE))), filters)
        inner = jnp.asarray(mask).at[:, :_OUTERMOST].set(0).at[:, -_OUTERMOST:].set(0)
        return made, mean_distance(again, frames, inner)

    def loss(params: Any, data: tuple[jax.Array, jax.Array]) -> jax.Array:
        made, distance = heard(params, data)
        wanted = data[0][:, EDGE:-EDGE] * jnp.repeat(data[1], HOP, 1)
        return distance + sound_loss.spectral(made, wanted) + sound_loss.envelope(made, wanted)

    held = padded(material.validation)
    measure = jax.jit(lambda params: heard(params, held)[1])
    return train(
        name,
        start,
        loss,
        lambda step: crops(material.sets, (material.seed, step), stage.batch_size, stage.crop, HOP, EDGE),
        stage.settings(),
        folder,
        evaluate=(lambda params: {"validation_sound_log_mel_l1": float(measure(params))}) if held[1].size else None,
        identity=material.identity_of(stage),
    )


def mean_distance(found: jax.Array, wanted: jax.Array, mask: jax.Array) -> jax.Array:
    """L1 of frames [B, T, bands], those of the mask [B, T]."""
    return (jnp.abs(found - wanted).mean(-1) * mask).sum() / mask.sum()


def padded(sounds: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Sounds of any lengths as one batch: (float32 [B, EDGE + 320 T + EDGE], mask [B, T])"""
    counts = [-(-len(sound) // HOP) for sound in sounds]
    most = -(-max(counts, default=0) // 10) * 10  # a whole number of groups
    batch = np.zeros((len(sounds), most * HOP + 2 * EDGE), np.float32)
    mask = np.zeros((len(sounds), most), np.float32)
    for row, (sound, count) in enumerate(zip(sounds, counts, strict=True)):
        batch[row, EDGE : EDGE + len(sound)] = sound
        mask[row, :count] = 1
    return batch, mask
