"""Training of an image codec from a config file: pictures in, weights and card out (`mmdata fit image`).

A batch is random crops of the pictures, a function of (seed, step). Which weights are kept is decided by pictures held
out of the training sets, never by those that codecs are compared on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mmdata.errors import UserError
from pipelines.config import NAME, check, expand, read_toml
from pipelines.fit.card import Card, command_of, write_card
from pipelines.fit.evaluate_images import evaluate_image
from pipelines.fit.image_loss import log_error, psnr, ssim
from pipelines.fit.pictures import DataConfig, Pictures, load_pictures, random_crop
from pipelines.fit.train_config import TrainConfig
from pipelines.fit.training import TrainResult, digest_of, train
from tokenizer import checkpoints
from tokenizer.codecs import load_codec, load_codec_file
from tokenizer.image import ImageFsq
from tokenizer.nets import fsq, image_fsq

_MOST_HELD = 64  # crops that are measured while training
_AFTER = 1 << 32  # the step whose crops the second training begins with


class ImageTrainConfig(TrainConfig):
    ssim: float = Field(0.0, ge=0)  # weight of 1 - SSIM beside the log of the squared error
    augment: bool = False  # crops turned, in other colours, brightness and contrast: for sets of few pictures


class NetworkConfig(BaseModel):
    """One number for each resolution: 1/4 of the picture, 1/8 and so on; a code is at the last one. With
    `correction_widths` the encoder decodes its own codes and corrects them."""

    model_config = ConfigDict(extra="forbid")
    widths: list[int] = list(image_fsq.Config.widths)
    encoder_blocks: list[int] = list(image_fsq.Config.encoder_blocks)
    decoder_blocks: list[int] = list(image_fsq.Config.decoder_blocks)
    correction_widths: list[int] = []  # of the network that corrects; learnt in the training of `[correct]`
    correction_blocks: list[int] = []  # residual blocks at each resolution of what corrects


class ImageConfig(BaseModel):
    """The file given to `mmdata fit image --config`."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(pattern=NAME)
    revision: int = Field(1, ge=1)
    licence: str
    summary: str = ""
    seed: int = Field(0, ge=0)
    notes: list[str] = []
    start: str = ""  # a codec, or its file, whose network and weights are begun with; then without `[network]`
    data: list[DataConfig] = Field(min_length=1)
    network: NetworkConfig = NetworkConfig()
    train: ImageTrainConfig
    correct: ImageTrainConfig | None = None  # then again with the correction: from the start it would not settle


def fit_image(config_path: Path, out: Path | None = None, exclude: Sequence[Path] = ()) -> dict[str, Any]:
    """Train the codec of the config file; write OUT/NAME-REVISION.safetensors with its card. Returns its figures.

    Left out of training: what matches `exclude`, and the pictures that codecs are measured on. OUT/training keeps the
    state, so that the same command goes on after a stop. OUT is runs/fit-NAME-REVISION where it is not given.
    """
    config = check(ImageConfig, read_toml(config_path), str(config_path))
    out = out or Path("runs") / f"fit-{config.name}-{config.revision}"
    before = _before(config, config_path)
    shape = _network(config, config_path, before)
    try:
        pictures = load_pictures(config.data, config_path.parent, exclude, out / "media", config.train.crop, shape.step)
    except UserError as error:
        raise UserError(f"{config_path}: {error}") from None
    weights = out / f"{config.name}-{config.revision}.safetensors"
    if before:
        result = _train(config, config.train, shape, before.params, pictures, out / "training")
    else:
        result = _train_all(config, shape, pictures, out / "training")
    network = {key: list(value) for key, value in asdict(shape).items()}
    checkpoints.save(weights, result.params, {"name": f"{config.name}@{config.revision}", "network": network})
    figures = evaluate_image(ImageFsq.load(config.name, config.revision, out))
    write_card(weights, _card(config, config_path, exclude, pictures, network, figures, result))
    return figures


def _before(config: ImageConfig, config_path: Path) -> ImageFsq | None:
    """The codec that training begins with, if one is named."""
    if not config.start:
        return None
    is_file = config.start.endswith(".safetensors")
    try:
        file = config_path.parent / expand(config.start, f"{config_path}: start")
        codec = load_codec_file(file) if is_file else load_codec(config.start)
    except ValueError as error:
        raise UserError(f"{config_path}: start: {error}") from None
    if not isinstance(codec, ImageFsq):
        raise UserError(
            f"{config_path}: start: training cannot begin with {config.start}, which is a {type(codec).__name__}"
        )
    if "network" in config.model_fields_set or config.correct:
        raise UserError(
            f"{config_path}: start gives the network and all its weights, which [train] goes on with: leave out"
            " [network] and [correct]"
        )
    return codec


def _network(config: ImageConfig, config_path: Path, before: ImageFsq | None) -> image_fsq.Config:
    try:
        shape = image_fsq.Config(**{key: tuple(value) for key, value in config.network.model_dump().items()})
    except ValueError as error:
        raise UserError(f"{config_path}: network: {error}") from None
    shape = before.config if before else shape
    for stage in filter(None, (config.train, config.correct)):
        if stage.crop % shape.step:
            raise UserError(f"{config_path}: crop is {stage.crop}: give a multiple of {shape.step}, a code's side")
    if not before and bool(config.correct) != bool(shape.correction_widths):
        raise UserError(
            f"{config_path}: [correct] and the correction_widths of [network] go together: give both or none"
        )
    return shape


def _train_all(config: ImageConfig, shape: image_fsq.Config, pictures: Pictures, out: Path) -> TrainResult:
    """The network without its correction, then all of it."""
    params = image_fsq.init(config.seed, shape)
    # Steps that no run reaches: crops apart from those of training
    start = np.concatenate([_batch(config, config.train, pictures, (1 << 40) + i, 16) for i in range(24)])
    params = image_fsq.closed_form(params, start.astype(np.float32) / 127.5 - 1, shape)
    correction = params.pop("correction", None)
    first = replace(shape, correction_widths=(), correction_blocks=())
    result = _train(config, config.train, first, params, pictures, out)
    if config.correct is None:
        return result
    params = {**result.params, "correction": correction}
    second = _train(config, config.correct, shape, params, pictures, out / "correct", _AFTER)
    return replace(second, seconds=result.seconds + second.seconds)


def _batch(config: ImageConfig, stage: ImageTrainConfig, pictures: Pictures, step: int, size: int) -> np.ndarray:
    random = np.random.default_rng((config.seed, step))
    return np.stack([random_crop(random, pictures.sets, stage.crop, stage.augment) for _ in range(size)])


def _train(
    config: ImageConfig,
    settings: ImageTrainConfig,
    shape: image_fsq.Config,
    params: Any,
    pictures: Pictures,
    out: Path,
    first_step: int = 0,
) -> TrainResult:
    def batch(step: int, size: int = settings.batch_size) -> np.ndarray:
        return _batch(config, settings, pictures, first_step + step, size)

    held = jnp.asarray(np.stack(pictures.held_out[:_MOST_HELD]) if pictures.held_out else batch(1 << 41, 16))
    name = "validation" if pictures.held_out else "training"

    def reconstruct(params: Any, images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        x = images.astype(jnp.float32) / 127.5 - 1
        zq, codes = fsq.quantize(image_fsq.latents(params, x, shape), shape.levels)
        return x, image_fsq.decode_z(params, zq, shape), codes

    def loss(params: Any, images: jax.Array) -> jax.Array:
        x, y, _ = reconstruct(params, images)
        return log_error(x, y) + (settings.ssim * (1 - ssim(x, y)) if settings.ssim else 0.0)

    @jax.jit
    def quality(params: Any, images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        def one(image: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            x, y, codes = reconstruct(params, image[None])
            return psnr(x, y), ssim(x, jnp.clip(y, -1, 1)), codes

        each, similar, codes = jax.lax.map(one, images)
        return jnp.mean(each), jnp.mean(similar), codes

    def evaluate(params: Any) -> dict[str, float]:
        each, similar, codes = quality(params, held)
        used = fsq.level_entropy(np.asarray(codes), shape.levels)
        return {f"{name}_psnr_db": float(each), f"{name}_ssim": float(similar), "level_entropy_bits": used}

    identity = _identity(config, settings, shape, pictures)
    return train(config.name, params, loss, batch, settings.settings(), out, evaluate, True, identity)


def _identity(
    config: ImageConfig, settings: ImageTrainConfig, shape: image_fsq.Config, pictures: Pictures
) -> dict[str, Any]:
    """What decides the weights beside the settings of training."""
    files = [file for data in pictures.reports for file in data.files] + pictures.held_files
    return {
        "seed": config.seed,
        **({"start": config.start} if config.start else {}),
        "network": {key: value for key, value in asdict(shape).items() if key != "levels" and value},
        "batch_size": settings.batch_size,
        "crop": settings.crop,
        "ssim": settings.ssim,
        "augment": settings.augment,
        "sets": [[data.name, data.weight, data.short_sides] for data in config.data],
        "training files": digest_of(files),
    }


def _card(
    config: ImageConfig,
    config_path: Path,
    exclude: Sequence[Path],
    pictures: Pictures,
    network: dict[str, Any],
    figures: dict[str, Any],
    result: TrainResult,
) -> Card:
    photos = {key: figures[key] for key in ("psnr_db", "ssim", "bits_per_pixel", "images", "distinct_codes")}
    return Card(
        name=f"{config.name}@{config.revision}",
        summary=config.summary,
        command=command_of("image", config_path, exclude),
        licence=config.licence,
        data=pictures.reports,
        settings={
            "seed": config.seed,
            **({"start": config.start} if config.start else {}),
            **config.train.model_dump(),
            **({"correct": config.correct.model_dump()} if config.correct else {}),
            "network": network,
            "weights_of_sets": {data.name: data.weight for data in config.data},
            "seconds": round(result.seconds),
        },
        figures={
            "astronaut, chelsea, coffee, rocket, motorcycle, china, flower (256x256 centre crops)": photos,
            **{name: {"psnr_db": each["psnr_db"], "ssim": each["ssim"]} for name, each in figures["each"].items()},
            _measured_on(pictures): {k: round(v, 4) for k, v in result.figures.items() if k != "loss"},
        },
        notes=config.notes,
    )


def _measured_on(pictures: Pictures) -> str:
    if not pictures.held_out:
        return "crops of the training pictures, as none of the few is held out"
    return f"{min(_MOST_HELD, len(pictures.held_out))} pictures held out of the training sets"
