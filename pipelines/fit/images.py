"""Training of an image codec from a config file: pictures in, weights and card out (`mmdata fit image`).

Pictures are kept in memory at a few sizes; a batch is random crops of them, a function of (seed, step). Which weights
are kept is decided by pictures held out of the training sets, never by those that codecs are compared on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import BaseModel, ConfigDict

from mmdata.errors import UserError
from pipelines.config import check, expand, read_toml
from pipelines.fit.card import Card, Data, write_card
from pipelines.fit.evaluate_images import centre_crop, evaluate_image, photo_folders
from pipelines.fit.exclude import IMAGES, Exclusions, digest
from pipelines.fit.image_loss import log_error, psnr, ssim
from pipelines.fit.kept_media import is_dataset, unpack_media
from pipelines.fit.training import TrainResult, TrainSettings, data_identity, train
from tokenizer import checkpoints
from tokenizer.image import ImageFsq
from tokenizer.nets import fsq, image_fsq

Sets = list[tuple[float, list[list[np.ndarray]]]]  # weight, pictures, sizes of one picture: uint8 [H, W, 3]

_HELD_OUT = 16  # one picture of 16, by its sha256, is for validation


class DataConfig(BaseModel):
    """One set of training pictures."""

    model_config = ConfigDict(extra="forbid")
    name: str
    path: str  # a folder, or a dataset with kept media; relative to the config file; ${VARIABLE} is expanded
    include: list[str] = ["**/*"]
    origin: str = ""
    licence: str
    weight: float = 1.0
    min_bytes: int = 20_000
    short_sides: list[int] = [192, 256, 352, 480, 640]


class TrainConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")
    steps: int
    more_steps: int = 0
    batch_size: int = 6
    crop: int = 128
    learning_rate: float = 1.5e-3
    optimizer: str = "adam"  # or "muon"
    warmup_steps: int = 50
    average: float = 0.995
    evaluate_every: int = 250
    save_every: int = 250

    def settings(self) -> TrainSettings:
        """As the training loop takes them."""
        return TrainSettings(**{f.name: getattr(self, f.name) for f in fields(TrainSettings) if hasattr(self, f.name)})


class ImageTrainConfig(TrainConfig):
    ssim: float = 0.0  # weight of 1 - SSIM beside the log of the squared error
    augment: bool = False  # crops turned, in other colours, brightness and contrast: for sets of few pictures


class NetworkConfig(BaseModel):
    """One number for each resolution: 1/4 of the picture, 1/8 and so on; a code is at the last one."""

    model_config = ConfigDict(extra="forbid")
    widths: list[int] = list(image_fsq.Config.widths)
    encoder_blocks: list[int] = list(image_fsq.Config.encoder_blocks)
    decoder_blocks: list[int] = list(image_fsq.Config.decoder_blocks)


class ImageConfig(BaseModel):
    """The file given to `mmdata fit image --config`."""

    model_config = ConfigDict(extra="forbid")
    name: str
    revision: int = 1
    licence: str
    summary: str = ""
    seed: int = 0
    notes: list[str] = []
    data: list[DataConfig]
    network: NetworkConfig = NetworkConfig()
    train: ImageTrainConfig


def fit_image(config_path: Path, out: Path | None = None, exclude: Sequence[Path] = ()) -> dict[str, Any]:
    """Train the codec of the config file; write OUT/NAME-REVISION.safetensors with its card. Returns its figures.

    Left out of training: what matches `exclude`, and the pictures that codecs are measured on. OUT/training keeps the
    state, so that the same command goes on after a stop. OUT is runs/fit-NAME-REVISION where it is not given.
    """
    config = check(ImageConfig, read_toml(config_path), str(config_path))
    out = out or Path("runs") / f"fit-{config.name}-{config.revision}"
    shape = _network(config, config_path)
    sets, held_out, reports = _load(config, config_path, exclude, out / "media")
    weights = out / f"{config.name}-{config.revision}.safetensors"
    identity = data_identity(config.model_dump_json(), [file for data in reports for file in data.files])
    result = _train(config, shape, sets, held_out[:64], out / "training", identity)
    network = {key: list(value) for key, value in asdict(shape).items()}
    checkpoints.save(weights, result.params, {"name": f"{config.name}@{config.revision}", "network": network})
    figures = evaluate_image(ImageFsq.load(config.name, config.revision, out))
    write_card(weights, _card(config, config_path, exclude, reports, network, figures, result.figures, result.seconds))
    return figures


def _network(config: ImageConfig, config_path: Path) -> image_fsq.Config:
    try:
        shape = image_fsq.Config(**{key: tuple(value) for key, value in config.network.model_dump().items()})
    except ValueError as error:
        raise UserError(f"{config_path}: network: {error}") from None
    if config.train.crop % shape.step:
        raise UserError(f"{config_path}: crop is {config.train.crop}: give a multiple of {shape.step}, a code's side")
    return shape


def _load(
    config: ImageConfig, config_path: Path, exclude: Sequence[Path], unpacked: Path
) -> tuple[Sets, list[np.ndarray], list[Data]]:
    """(pictures to train on, crops held out for validation, what the card says of them). `unpacked`: where kept media
    of datasets go."""
    files = [_files(data, config_path.parent, unpacked / data.name) for data in config.data]
    exclusions = Exclusions.of([*exclude, *photo_folders()], kinds=("image",))
    sets: Sets = []
    held_out: list[np.ndarray] = []
    reports: list[Data] = []
    for data, (root, paths) in zip(config.data, files, strict=True):
        kept, dropped = exclusions.split(paths)
        pictures: list[list[np.ndarray]] = []
        listed: list[tuple[str, str]] = []
        for path in kept:
            sizes = _pyramid(path, data.short_sides, config.train.crop)
            sha256 = digest(path)
            if sizes and int(sha256[:8], 16) % _HELD_OUT == 0:
                held_out += [centre_crop(image, 256) for image in sizes if min(image.shape[:2]) >= 256][:1]
            elif sizes:
                pictures.append(sizes)
                listed.append((path.relative_to(root).as_posix(), sha256))
        if not pictures:
            raise UserError(
                f"{config_path}: data {data.name!r} has no picture left to train on in {root}: of {len(paths)} files"
                f" that match include and min_bytes, {len(dropped)} are excluded and the others are held out, do not"
                f" open or are smaller than crop ({config.train.crop} pixels)"
            )
        sets.append((data.weight, pictures))
        left_out = {path.relative_to(root).as_posix(): reason for path, reason in dropped.items()}
        reports.append(Data(data.name, data.licence, data.origin, listed, left_out))
    return sets, held_out, reports


def _train(
    config: ImageConfig,
    shape: image_fsq.Config,
    sets: Sets,
    held: list[np.ndarray],
    out: Path,
    identity: str,
) -> TrainResult:
    settings = config.train

    def batch(step: int, size: int = settings.batch_size) -> np.ndarray:
        random = np.random.default_rng((config.seed, step))
        return np.stack([_crop(random, sets, settings.crop, settings.augment) for _ in range(size)])

    params = image_fsq.init(config.seed, shape)
    # Steps that no run reaches: crops apart from those of training
    start = np.concatenate([batch((1 << 40) + i, 16) for i in range(24)])
    params = image_fsq.closed_form(params, start.astype(np.float32) / 127.5 - 1, shape)
    pictures = jnp.asarray(np.stack(held)) if held else jnp.asarray(batch(1 << 41, 16))

    def reconstruct(params: Any, images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        x = images.astype(jnp.float32) / 127.5 - 1
        zq, codes = fsq.quantize(image_fsq.latents(params, x, shape), shape.levels)
        return x, image_fsq.decode_z(params, zq, shape), codes

    def loss(params: Any, images: jax.Array) -> jax.Array:
        x, y, _ = reconstruct(params, images)
        return log_error(x, y) + (settings.ssim * (1 - ssim(x, y)) if settings.ssim else 0.0)

    @jax.jit
    def quality(params: Any, pictures: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        def one(image: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            x, y, codes = reconstruct(params, image[None])
            return psnr(x, y), ssim(x, jnp.clip(y, -1, 1)), codes

        each, similar, codes = jax.lax.map(one, pictures)
        return jnp.mean(each), jnp.mean(similar), codes

    def evaluate(params: Any) -> dict[str, float]:
        each, similar, codes = quality(params, pictures)
        used = fsq.level_entropy(np.asarray(codes), shape.levels)
        return {"validation_psnr_db": float(each), "validation_ssim": float(similar), "level_entropy_bits": used}

    return train(
        config.name, params, loss, batch, settings.settings(), out, evaluate, higher_is_better=True, identity=identity
    )


def _crop(random: np.random.Generator, sets: Sets, size: int, augment: bool) -> np.ndarray:
    """One random crop uint8 [size, size, 3]: a set by its weight, then a picture, a size, a place, a side."""
    shares = np.array([weight for weight, _ in sets])
    pyramids = sets[int(random.choice(len(sets), p=shares / shares.sum()))][1]
    sizes = pyramids[int(random.integers(len(pyramids)))]
    image = sizes[int(random.integers(len(sizes)))]
    top = int(random.integers(image.shape[0] - size + 1))
    left = int(random.integers(image.shape[1] - size + 1))
    crop = image[top : top + size, left : left + size]
    crop = crop[:, ::-1] if random.random() < 0.5 else crop
    return _another(random, crop) if augment else crop


def _another(random: np.random.Generator, crop: np.ndarray) -> np.ndarray:
    """A crop that is no less natural: turned, its channels in another order, their brightness and contrast changed.
    A few hundred photographs are learnt by heart otherwise."""
    if random.random() < 0.5:
        crop = crop.transpose(1, 0, 2)
    if random.random() < 0.25:
        crop = crop[::-1]
    if random.random() < 0.5:
        crop = crop[:, :, random.permutation(3)]
    if random.random() < 0.7:
        gain = random.uniform(0.75, 1.2) * random.uniform(0.9, 1.1, 3)
        lift = random.uniform(-25, 25)
        crop = np.clip(crop * gain.astype(np.float32) + np.float32(lift), 0, 255).astype(np.uint8)
    return crop


def _pyramid(path: Path, short_sides: Sequence[int], smallest: int) -> list[np.ndarray]:
    """The picture uint8 at each short side that does not enlarge it (or at its own size); [] when it will not open."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            short = max(short_sides)
            file.draft("RGB", (2 * short, 2 * short))
            rgba = file.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return []
    under = Image.new("RGBA", rgba.size, "white")
    under.alpha_composite(rgba)
    image = under.convert("RGB")
    own = min(image.size)
    sizes = []
    for side in [s for s in short_sides if s <= own] or [own]:
        scaled = [max(smallest, round(x * side / own)) for x in image.size]
        sizes.append(np.asarray(image if side == own else image.resize(scaled, Image.Resampling.LANCZOS)))
    return [array for array in sizes if min(array.shape[:2]) >= smallest]


def _files(data: DataConfig, base: Path, unpacked: Path) -> tuple[Path, list[Path]]:
    root = base / expand(data.path, f"data {data.name!r}")
    if not root.is_dir():
        raise UserError(f"data {data.name!r}: there is no folder {root}")
    if is_dataset(root):
        root = unpack_media(root, "image", unpacked)
    found = {path for pattern in data.include for path in root.glob(pattern)}
    pictures = [p for p in found if p.suffix.lower() in IMAGES and p.is_file() and not p.is_symlink()]
    return root, sorted(p for p in pictures if p.stat().st_size >= data.min_bytes)


def _card(
    config: ImageConfig,
    config_path: Path,
    exclude: Sequence[Path],
    reports: list[Data],
    network: dict[str, Any],
    figures: dict[str, Any],
    validation: dict[str, float],
    seconds: float,
) -> Card:
    # Absolute paths are somebody's machine: the card keeps the name only
    named = [path.name if path.is_absolute() else path.as_posix() for path in (config_path, *exclude)]
    excluded = "".join(f" --exclude {name}" for name in named[1:])
    photos = {key: figures[key] for key in ("psnr_db", "ssim", "bits_per_pixel", "images", "distinct_codes")}
    return Card(
        name=f"{config.name}@{config.revision}",
        summary=config.summary,
        command=f"mmdata fit image --config {named[0]}{excluded}",
        licence=config.licence,
        data=reports,
        settings={
            "seed": config.seed,
            **config.train.model_dump(),
            "network": network,
            "weights_of_sets": {data.name: data.weight for data in config.data},
            "seconds": round(seconds),
        },
        figures={
            "astronaut, chelsea, coffee, rocket, motorcycle, china, flower (256x256 centre crops)": photos,
            **{name: {"psnr_db": each["psnr_db"], "ssim": each["ssim"]} for name, each in figures["each"].items()},
            "held-out pictures of the training sets": {k: round(v, 4) for k, v in validation.items() if k != "loss"},
        },
        notes=config.notes,
    )
