"""A small convolutional image codec with FSQ at 1/8 or 1/16 resolution: up to 2 million weights, float32.

Encoder: 4x4 pixels to channels, residual blocks at 1/4, 1/8 and so on, five numbers a code. Decoder: the mirror image.
Beside both runs a linear path in closed form (principal components of the patch of a code in, ridge regression from 3x3
codes out), so that training begins at the quality of the best linear codec: worth about ten times the compute.
An encoder may correct itself: it decodes its own codes, and a second network moves them by what is still missing, so
that a code makes up for the rounding of its neighbours (0.2 dB after 300 steps: docs/log.md).
Images are float32 [B, H, W, 3] in [-1, 1], H and W multiples of `Config.step`; codes int32 [B, H/step, W/step].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tokenizer.nets import fsq

_PATCH = 4  # pixels each way that the first layer takes together
_LOUDER = 4.0  # what is missing after the first codes, brought to about the spread of pixels

# Of `search`, Adam's (measured on the seven photographs: rates of 0.03 and 0.08, of latents whose spread is about 1)
_RATE, _KEEP, _KEEP_SQUARE = 0.03, 0.8, 0.95


@dataclass(frozen=True)
class Config:
    """Widths at 1/4, 1/8, ... of the picture, and the number of residual blocks at each, encoder and decoder; the same
    of the network that corrects the encoder, none where empty. ValueError where these are not of one length."""

    levels: tuple[int, ...] = fsq.LEVELS
    widths: tuple[int, ...] = (64, 96, 160)
    encoder_blocks: tuple[int, ...] = (0, 1, 2)
    decoder_blocks: tuple[int, ...] = (1, 2, 2)
    correction_widths: tuple[int, ...] = ()
    correction_blocks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < len(self.widths) == len(self.encoder_blocks) == len(self.decoder_blocks):
            raise ValueError(
                f"widths {list(self.widths)}, encoder_blocks {list(self.encoder_blocks)} and decoder_blocks"
                f" {list(self.decoder_blocks)} need one number for each resolution: 1/4, 1/8 and so on"
            )
        if not len(self.correction_widths) == len(self.correction_blocks) in (0, len(self.widths)):
            raise ValueError(
                f"correction_widths {list(self.correction_widths)} and correction_blocks {list(self.correction_blocks)}"
                f" need one number for each of {len(self.widths)} resolutions, or none"
            )

    @property
    def step(self) -> int:
        """Pixels a code, each way."""
        return _PATCH << (len(self.widths) - 1)


def init(seed: int, config: Config = Config()) -> dict[str, Any]:
    """Random weights; a residual block starts as the identity and the linear path as zero (see `closed_form`)."""
    random = np.random.default_rng(seed)
    widths, dims, pixels = config.widths, len(config.levels), config.step**2 * 3

    def conv(size: int, inputs: int, outputs: int, gain: float = 1.0) -> dict[str, np.ndarray]:
        kernel = random.normal(0.0, gain / np.sqrt(size * size * inputs), (size, size, inputs, outputs))
        return {"kernel": kernel.astype(np.float32), "bias": np.zeros(outputs, np.float32)}

    def blocks(widths: tuple[int, ...], counts: tuple[int, ...]) -> dict[str, Any]:
        return {
            f"level{i}": {
                f"block{j}": {"conv": conv(3, width, width, 1.4), "mix": conv(1, width, width, 0.0)}
                for j in range(count)
            }
            for i, (width, count) in enumerate(zip(widths, counts, strict=True))
            if count
        }

    changes = range(1, len(widths))
    params = {
        "encoder": {
            "stem": conv(3, 3 * _PATCH**2, widths[0]),
            **{f"down{i}": conv(1, 4 * widths[i - 1], widths[i]) for i in changes},
            "head": conv(1, widths[-1], dims, 0.1),
            "skip": conv(1, pixels, dims, 0.0),
            **blocks(widths, config.encoder_blocks),
        },
        "decoder": {
            "stem": conv(3, dims, widths[-1]),
            **{f"up{i}": conv(1, widths[i], 4 * widths[i - 1]) for i in reversed(changes)},
            "head": conv(3, widths[0], 3 * _PATCH**2, 0.1),
            "skip": conv(3, dims, pixels, 0.0),
            **blocks(widths, config.decoder_blocks),
        },
    }
    if looks := config.correction_widths:
        params["correction"] = {
            "stem": conv(3, 3 * _PATCH**2, looks[0]),
            **{f"down{i}": conv(1, 4 * looks[i - 1], looks[i]) for i in changes},
            "given": conv(1, 2 * dims, looks[-1]),
            "head": conv(1, looks[-1], dims, 0.1),
            **blocks(looks, config.correction_blocks),
        }
    return params


def shapes(config: Config = Config()) -> dict[str, Any]:
    """The tree of shapes that a checkpoint must have."""
    tree: dict[str, Any] = jax.tree.map(lambda x: x.shape, init(0, config))
    return tree


def latents(params: dict[str, Any], images: jax.Array, config: Config = Config()) -> jax.Array:
    """float32 [B, H, W, 3] -> z float32 [B, H/step, W/step, dims], before quantisation."""
    p = params["encoder"]
    x = _to_codes(p, images, config.encoder_blocks)
    z = _conv(p["head"], jax.nn.silu(x)) + _conv(p["skip"], to_channels(images, config.step))
    if not config.correction_widths:
        return z
    p = params["correction"]
    # What the first codes decode to is given: neither the decoder nor the first encoder is trained through it
    zq = jax.lax.stop_gradient(fsq.quantize(z, config.levels)[0])
    missing = images - jax.lax.stop_gradient(decode_z(params, zq, config))
    x = _to_codes(p, _LOUDER * missing, config.correction_blocks, _conv(p["given"], jnp.concatenate([z, zq], -1)))
    return z + _conv(p["head"], jax.nn.silu(x))


def _to_codes(p: dict[str, Any], images: jax.Array, counts: tuple[int, ...], given: jax.Array | float = 0) -> jax.Array:
    """Pixels down to the resolution of codes; `given` is added there before the blocks."""
    x = _conv(p["stem"], to_channels(images, _PATCH))
    for i, count in enumerate(counts):
        if i:
            x = _conv(p[f"down{i}"], to_channels(x, 2))
        x = _blocks(p, i, x + given if i == len(counts) - 1 else x, count)
    return x


def encode(params: dict[str, Any], images: jax.Array, config: Config = Config()) -> jax.Array:
    """float32 [B, H, W, 3] -> codes int32 [B, H/step, W/step]"""
    return fsq.quantize(latents(params, images, config), config.levels)[1]


def search(params: dict[str, Any], images: jax.Array, rounds: int, config: Config = Config()) -> jax.Array:
    """float32 [B, H, W, 3] -> codes int32 [B, H/step, W/step] that decode nearer to the pictures than `encode`'s, or
    the same. Analysis by synthesis, as speech coders do it: the latents of `encode` are moved down the gradient of the
    squared error of what they decode to (Yang et al. 2020), `rounds` times, and the nearest codes met are kept. Each
    picture's depend on it alone."""

    def error(z: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        zq, codes = fsq.quantize(z, config.levels)
        each = jnp.mean((jnp.clip(decode_z(params, zq, config), -1, 1) - images) ** 2, (1, 2, 3))
        return jnp.sum(each), (each, codes)

    def nearer(best: tuple[jax.Array, jax.Array], each: jax.Array, codes: jax.Array) -> tuple[jax.Array, jax.Array]:
        is_nearer = each < best[0]
        return jnp.where(is_nearer, each, best[0]), jnp.where(is_nearer[:, None, None], codes, best[1])

    def turn(i: jax.Array, state: Any) -> Any:
        z, mean, square, best = state
        gradient, (each, codes) = jax.grad(error, has_aux=True)(z)
        mean = _KEEP * mean + (1 - _KEEP) * gradient
        square = _KEEP_SQUARE * square + (1 - _KEEP_SQUARE) * gradient**2
        unbiased = mean / (1 - _KEEP ** (i + 1.0)), square / (1 - _KEEP_SQUARE ** (i + 1.0))
        return z - _RATE * unbiased[0] / (jnp.sqrt(unbiased[1]) + 1e-12), mean, square, nearer(best, each, codes)

    z = latents(params, images, config)
    none = jnp.full(len(z), jnp.inf), jnp.zeros(z.shape[:3], jnp.int32)
    z, _, _, best = jax.lax.fori_loop(0, rounds, turn, (z, jnp.zeros_like(z), jnp.zeros_like(z), none))
    return nearer(best, *error(z)[1])[1]


def decode(params: dict[str, Any], codes: jax.Array, config: Config = Config()) -> jax.Array:
    """codes int32 [B, h, w] -> float32 [B, step*h, step*w, 3], not clipped"""
    return decode_z(params, fsq.codes_to_z(codes, config.levels), config)


def decode_z(params: dict[str, Any], zq: jax.Array, config: Config = Config()) -> jax.Array:
    """The decoder on quantised latents float32 [B, h, w, dims]."""
    p = params["decoder"]
    x = _conv(p["stem"], zq)
    for i, count in reversed(list(enumerate(config.decoder_blocks))):
        x = _blocks(p, i, x, count)
        if i:
            x = to_pixels(_conv(p[f"up{i}"], x), 2)
    return to_pixels(_conv(p["head"], jax.nn.silu(x)), _PATCH) + to_pixels(_conv(p["skip"], zq), config.step)


def closed_form(params: dict[str, Any], crops: np.ndarray, config: Config = Config()) -> dict[str, Any]:
    """Set the linear path: principal components in, ridge regression out. crops float32 [N, H, W, 3] in [-1, 1]."""
    dims = len(config.levels)
    patches = np.asarray(to_channels(jnp.asarray(crops), config.step))  # [N, h, w, 3*step*step]
    flat = patches.reshape(-1, patches.shape[-1]).astype(np.float64)
    vectors, bias = fsq.components(flat, dims)
    enter = {"kernel": vectors[None, None].astype(np.float32), "bias": bias.astype(np.float32)}
    zq = np.asarray(fsq.quantize(_conv(enter, jnp.asarray(patches)), config.levels)[0], np.float64)
    h, w = zq.shape[1:3]
    padded = np.pad(zq, ((0, 0), (1, 1), (1, 1), (0, 0)))
    views = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
    features = np.concatenate(views, -1).reshape(-1, 9 * dims)
    features = np.concatenate([features, np.ones((len(features), 1))], 1)
    gram = features.T @ features + 1e-3 * len(features) * np.diag([1.0] * (9 * dims) + [0.0])
    solved = np.linalg.solve(gram, features.T @ flat)
    leave = {
        "kernel": solved[:-1].reshape(3, 3, dims, -1).astype(np.float32),
        "bias": solved[-1].astype(np.float32),
    }
    linear = {"encoder": {**params["encoder"], "skip": enter}, "decoder": {**params["decoder"], "skip": leave}}
    return {**params, **linear}


def to_channels(x: jax.Array, n: int) -> jax.Array:
    """[B, H, W, C] -> [B, H/n, W/n, n*n*C]"""
    b, h, w, c = x.shape
    x = x.reshape(b, h // n, n, w // n, n, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // n, w // n, n * n * c)


def to_pixels(x: jax.Array, n: int) -> jax.Array:
    """The inverse of `to_channels`: [B, h, w, n*n*C] -> [B, n*h, n*w, C]"""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, n, n, c // (n * n)).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h * n, w * n, c // (n * n))


def _blocks(params: dict[str, Any], level: int, x: jax.Array, count: int) -> jax.Array:
    for j in range(count):
        p = params[f"level{level}"][f"block{j}"]
        x = x + _conv(p["mix"], jax.nn.silu(_conv(p["conv"], jax.nn.silu(x))))
    return x


def _conv(p: dict[str, Any], x: jax.Array) -> jax.Array:
    kernel = p["kernel"]
    if kernel.shape[0] == 1:
        y = jnp.matmul(x, kernel[0, 0], precision=jax.lax.Precision.HIGHEST)
    else:
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )
    return y + p["bias"]
