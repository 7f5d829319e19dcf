"""Training of a speech codec from a config file: recordings in, weights and card out (`mmdata fit audio`).

Recordings become log-mel frames once and stay in memory (16 MB an hour in float16); a batch is random windows of them,
a function of (seed, step). The loss is the L1 distance of log-mel frames, the figure that the codec is measured by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import BaseModel, ConfigDict

from mmdata.errors import UserError
from pipelines.config import check, expand, read_toml
from pipelines.fit.card import Card, Data, write_card
from pipelines.fit.evaluate_audio import evaluate_recordings
from pipelines.fit.exclude import SOUNDS, Exclusions, digest
from pipelines.fit.images import TrainConfig as _Steps
from pipelines.fit.recordings import read_recording
from pipelines.fit.training import TrainResult, TrainSettings, train
from tokenizer import checkpoints
from tokenizer.audio import SAMPLE_RATE_HZ, SpeechMelFsq, log_mel
from tokenizer.nets import fsq, melfsq

Sets = list[tuple[float, np.ndarray, np.ndarray]]  # weight, frames float16 [n, 80], first frame of each clip + [n]


class AudioDataConfig(BaseModel):
    """One set of recordings."""

    model_config = ConfigDict(extra="forbid")
    name: str
    path: str  # relative to the config file; ${VARIABLE} is expanded
    include: list[str] = ["**/*"]
    origin: str = ""
    licence: str
    weight: float = 1.0
    held_out: float = 0.0  # share of the files, the last by name, that is for validation
    max_seconds: float = 60.0  # a longer recording is cut there


class AudioTrainConfig(_Steps):
    crop: int = 128  # frames of a window
    batch_size: int = 16


class AudioConfig(BaseModel):
    """The file given to `mmdata fit audio --config`."""

    model_config = ConfigDict(extra="forbid")
    name: str
    revision: int = 1
    licence: str
    summary: str = ""
    seed: int = 0
    notes: list[str] = []
    data: list[AudioDataConfig]
    unseen: list[AudioDataConfig] = []  # sets that are only measured on: other languages and speakers
    train: AudioTrainConfig


def fit_audio(config_path: Path, out: Path | None = None, exclude: Sequence[Path] = ()) -> dict[str, Any]:
    """Train the codec of the config file; write OUT/NAME-REVISION.safetensors with its card. Returns its figures.

    Left out of training: what matches `exclude` by bytes or by sound. OUT/training keeps the state, so that the same
    command goes on after a stop. OUT is runs/fit-NAME-REVISION where it is not given.
    """
    config = check(AudioConfig, read_toml(config_path), str(config_path))
    out = out or Path("runs") / f"fit-{config.name}-{config.revision}"
    exclusions = Exclusions.of(exclude, kinds=("audio",))
    sets: Sets = []
    reports: list[Data] = []
    held: dict[str, list[np.ndarray]] = {}
    for data in config.data:
        root, paths = _files(data, config_path.parent)
        kept_last = len(paths) - round(data.held_out * len(paths))
        kept, dropped = exclusions.split(paths[:kept_last])
        clips = [(path, _frames(path, data.max_seconds)) for path in kept]
        clips = [(path, frames) for path, frames in clips if len(frames)]
        if not clips:
            raise UserError(f"{config_path}: data {data.name!r} has no recording left to train on in {root}")
        ends = np.cumsum([0, *(len(frames) for _, frames in clips)])
        sets.append((data.weight, np.concatenate([frames for _, frames in clips]), ends))
        listed = [(path.relative_to(root).as_posix(), digest(path)) for path, _ in clips]
        left_out = {path.relative_to(root).as_posix(): reason for path, reason in dropped.items()}
        reports.append(Data(data.name, data.licence, data.origin, listed, left_out))
        if data.held_out:
            held[data.name] = _sounds(paths[kept_last:])
    for data in config.unseen:
        held[f"{data.name} (unseen)"] = _sounds(_files(data, config_path.parent)[1])

    weights = out / f"{config.name}-{config.revision}.safetensors"
    result = _train(config, sets, [sound for name in held for sound in held[name][:8]], out / "training")
    network = {key: list(value) for key, value in asdict(melfsq.Config()).items()}
    checkpoints.save(weights, result.params, {"name": f"{config.name}@{config.revision}", "network": network})
    codec = SpeechMelFsq.load(config.name, config.revision, out)
    figures = {name: evaluate_recordings(codec, sounds[:24]) for name, sounds in held.items()}
    write_card(weights, _card(config, config_path, exclude, reports, network, figures, result))
    return figures


def _train(config: AudioConfig, sets: Sets, held: list[np.ndarray], out: Path) -> TrainResult:
    settings = config.train
    shares = np.array([weight for weight, _, _ in sets])
    shares = shares / shares.sum()

    def batch(step: int, size: int = settings.batch_size) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng((config.seed, step))
        frames = np.zeros((size, settings.crop, sets[0][1].shape[1]), np.float32)
        mask = np.zeros((size, settings.crop), np.float32)
        for row in range(size):
            _, values, ends = sets[int(random.choice(len(sets), p=shares))]
            clip = int(np.searchsorted(ends, random.integers(ends[-1]), "right")) - 1  # a long clip comes more often
            first, last = int(ends[clip]), int(ends[clip + 1])
            start = int(random.integers(first, max(first + 1, last - settings.crop + 1)))
            part = values[start : min(last, start + settings.crop)]
            frames[row, : len(part)] = part + random.uniform(-0.35, 0.35)  # loudness varies more than in the recordings
            mask[row, : len(part)] = 1
        return np.maximum(frames, np.log(1e-5)), mask

    start_frames, start_mask = batch(1 << 40, 512)
    full = start_mask.min(1) > 0
    params = melfsq.closed_form(melfsq.init(config.seed), start_frames[full])
    frames = [log_mel(sound[: 4 * SAMPLE_RATE_HZ]) for sound in held]
    windows = np.stack([f[: settings.crop] for f in frames if len(f) >= settings.crop] or [start_frames[full][0]])

    def distance(params: Any, frames: jax.Array, mask: jax.Array) -> jax.Array:
        zq, _ = fsq.quantize(melfsq.latents(params, frames, mask))
        error = jnp.abs(melfsq.decode_z(params, zq, mask) - frames).mean(-1)
        return (error * mask).sum() / mask.sum()

    quality = jax.jit(distance)
    return train(
        config.name,
        params,
        lambda params, data: distance(params, *data),
        batch,
        TrainSettings(
            steps=settings.steps,
            learning_rate=settings.learning_rate,
            warmup_steps=settings.warmup_steps,
            average=settings.average,
            evaluate_every=settings.evaluate_every,
            save_every=settings.save_every,
        ),
        out,
        evaluate=lambda params: {
            "validation_log_mel_l1": float(quality(params, windows, np.ones(windows.shape[:2], np.float32)))
        },
    )


def _files(data: AudioDataConfig, base: Path) -> tuple[Path, list[Path]]:
    root = base / expand(data.path, f"data {data.name!r}")
    if not root.is_dir():
        raise UserError(f"data {data.name!r}: there is no folder {root}")
    found = {path for pattern in data.include for path in root.glob(pattern)}
    return root, sorted(p for p in found if p.suffix.lower() in SOUNDS and p.is_file() and not p.is_symlink())


def _frames(path: Path, max_seconds: float) -> np.ndarray:
    sound = read_recording(path, SAMPLE_RATE_HZ)
    cut = np.zeros(0, np.float32) if sound is None else sound[: int(max_seconds * SAMPLE_RATE_HZ)]
    return log_mel(cut).astype(np.float16)


def _sounds(paths: Sequence[Path]) -> list[np.ndarray]:
    """Recordings of at least 2 seconds, their first 4, spread over the files given."""
    sounds: list[np.ndarray] = []
    for path in paths:
        sound = read_recording(path, SAMPLE_RATE_HZ)
        if sound is not None and len(sound) >= 2 * SAMPLE_RATE_HZ:
            sounds.append(sound[: 4 * SAMPLE_RATE_HZ])
    return sounds


def _card(
    config: AudioConfig,
    config_path: Path,
    exclude: Sequence[Path],
    reports: list[Data],
    network: dict[str, Any],
    figures: dict[str, dict[str, float]],
    result: TrainResult,
) -> Card:
    # Absolute paths are somebody's machine: the card keeps the name only
    named = [path.name if path.is_absolute() else path.as_posix() for path in (config_path, *exclude)]
    excluded = "".join(f" --exclude {name}" for name in named[1:])
    return Card(
        name=f"{config.name}@{config.revision}",
        summary=config.summary,
        command=f"mmdata fit audio --config {named[0]}{excluded}",
        licence=config.licence,
        data=reports,
        settings={
            "seed": config.seed,
            **config.train.model_dump(),
            "network": network,
            "weights_of_sets": {data.name: data.weight for data in config.data},
            "seconds": round(result.seconds),
        },
        figures=figures,
        notes=config.notes,
    )
