"""A small convolutional image codec with FSQ at 1/16 resolution: 1.6 million weights, float32.

Encoder: 4x4 pixels to channels, residual blocks at 1/4, 1/8 and 1/16, five numbers a code. Decoder: the mirror image.
Beside both runs a linear path in closed form (principal components of 16x16 patches in, ridge regression from 3x3
codes out), so that training begins at the quality of the best linear codec: worth about ten times the compute.
Images are float32 [B, H, W, 3] in [-1, 1], H and W multiples of 16; codes int32 [B, H/16, W/16].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tokenizer.nets import fsq

STEP = 16  # pixels a code, each way


@dataclass(frozen=True)
class Config:
    """Widths at 1/4, 1/8 and 1/16, and the number of residual blocks at each, encoder and decoder."""

    levels: tuple[int, ...] = fsq.LEVELS
    widths: tuple[int, int, int] = (64, 96, 160)
    encoder_blocks: tuple[int, int, int] = (0, 1, 2)
    decoder_blocks: tuple[int, int, int] = (1, 2, 2)


def init(seed: int, config: Config = Config()) -> dict[str, Any]:
    """Random weights; a residual block starts as the identity and the linear path as zero (see `closed_form`)."""
    random = np.random.default_rng(seed)
    a, b, c = config.widths
    dims = len(config.levels)

    def conv(size: int, inputs: int, outputs: int, gain: float = 1.0) -> dict[str, np.ndarray]:
        kernel = random.normal(0.0, gain / np.sqrt(size * size * inputs), (size, size, inputs, outputs))
        return {"kernel": kernel.astype(np.float32), "bias": np.zeros(outputs, np.float32)}

    def blocks(widths: tuple[int, int, int], counts: tuple[int, int, int]) -> dict[str, Any]:
        return {
            f"level{i}": {
                f"block{j}": {"conv": conv(3, width, width, 1.4), "mix": conv(1, width, width, 0.0)}
                for j in range(count)
            }
            for i, (width, count) in enumerate(zip(widths, counts, strict=True))
            if count
        }

    return {
        "encoder": {
            "stem": conv(3, 48, a),
            "down1": conv(1, 4 * a, b),
            "down2": conv(1, 4 * b, c),
            "head": conv(1, c, dims, 0.1),
            "skip": conv(1, STEP * STEP * 3, dims, 0.0),
            **blocks(config.widths, config.encoder_blocks),
        },
        "decoder": {
            "stem": conv(3, dims, c),
            "up2": conv(1, c, 4 * b),
            "up1": conv(1, b, 4 * a),
            "head": conv(3, a, 48, 0.1),
            "skip": conv(3, dims, STEP * STEP * 3, 0.0),
            **blocks(config.widths, config.decoder_blocks),
        },
    }


def shapes(config: Config = Config()) -> dict[str, Any]:
    """The tree of shapes that a checkpoint must have."""
    tree: dict[str, Any] = jax.tree.map(lambda x: x.shape, init(0, config))
    return tree


def latents(params: dict[str, Any], images: jax.Array, config: Config = Config()) -> jax.Array:
    """float32 [B, H, W, 3] -> z float32 [B, H/16, W/16, dims], before quantisation."""
    p = params["encoder"]
    x = _conv(p["stem"], to_channels(images, 4))
    x = _blocks(p, 0, x, config.encoder_blocks[0])
    x = _blocks(p, 1, _conv(p["down1"], to_channels(x, 2)), config.encoder_blocks[1])
    x = _blocks(p, 2, _conv(p["down2"], to_channels(x, 2)), config.encoder_blocks[2])
    return _conv(p["head"], jax.nn.silu(x)) + _conv(p["skip"], to_channels(images, STEP))


def encode(params: dict[str, Any], images: jax.Array, config: Config = Config()) -> jax.Array:
    """float32 [B, H, W, 3] -> codes int32 [B, H/16, W/16]"""
    return fsq.quantize(latents(params, images, config), config.levels)[1]


def decode(params: dict[str, Any], codes: jax.Array, config: Config = Config()) -> jax.Array:
    """codes int32 [B, h, w] -> float32 [B, 16h, 16w, 3], not clipped"""
    return decode_z(params, fsq.codes_to_z(codes, config.levels), config)


def decode_z(params: dict[str, Any], zq: jax.Array, config: Config = Config()) -> jax.Array:
    """The decoder on quantised latents float32 [B, h, w, dims]."""
    p = params["decoder"]
    x = _blocks(p, 2, _conv(p["stem"], zq), config.decoder_blocks[2])
    x = _blocks(p, 1, to_pixels(_conv(p["up2"], x), 2), config.decoder_blocks[1])
    x = _blocks(p, 0, to_pixels(_conv(p["up1"], x), 2), config.decoder_blocks[0])
    return to_pixels(_conv(p["head"], jax.nn.silu(x)), 4) + to_pixels(_conv(p["skip"], zq), STEP)


def closed_form(params: dict[str, Any], crops: np.ndarray, config: Config = Config()) -> dict[str, Any]:
    """Set the linear path: principal components in, ridge regression out. crops float32 [N, H, W, 3] in [-1, 1]."""
    dims = len(config.levels)
    patches = np.asarray(to_channels(jnp.asarray(crops), STEP))  # [N, h, w, 768]
    flat = patches.reshape(-1, patches.shape[-1]).astype(np.float64)
    mean = flat.mean(0)
    values, vectors = np.linalg.eigh(np.cov(flat - mean, rowvar=False))
    vectors = vectors[:, ::-1][:, :dims] / np.sqrt(values[::-1][:dims])
    vectors = vectors * np.where(vectors.sum(0) < 0, -1.0, 1.0)  # eigenvectors have no sign of their own
    enter = {"kernel": vectors[None, None].astype(np.float32), "bias": (-mean @ vectors).astype(np.float32)}
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
    return {"encoder": {**params["encoder"], "skip": enter}, "decoder": {**params["decoder"], "skip": leave}}


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
