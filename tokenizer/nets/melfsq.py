"""A small convolutional codec of log-mel frames with FSQ: one code a frame of 20 ms, 1.2 million weights, float32.

The network of speech-melfsq@1, read but trained no more (`speech_fsq` came after it): a linear path, from three
frames to a code and from nine codes to a frame, beside residual convolutions. Frames are float32 [B, T, bands] with a
mask [B, T] of those that are there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from tokenizer.nets import fsq
from tokenizer.nets.layers import blocks, conv, init_blocks, init_conv

_NEAR = 1  # frames each side that the linear path reads
_FAR = 4  # codes each side that it writes from
# Log-mel frames of speech have about this mean and spread: what the network sees and gives is without them
_MEAN, _SPREAD = -5.0, 2.2
# The linear path reads frames made small, so that its weights are large against a step of Adam's
_GENTLE = 0.1


@dataclass(frozen=True)
class Config:
    """Bands of a frame, width, and the dilations of the residual blocks of encoder and decoder."""

    levels: tuple[int, ...] = fsq.LEVELS
    bands: tuple[int] = (80,)
    width: tuple[int] = (192,)
    encoder_blocks: tuple[int, ...] = (1, 2, 4)
    decoder_blocks: tuple[int, ...] = (1, 2, 4, 1, 2)

    @property
    def reach(self) -> int:
        """Frames each side that a code, or a decoded frame, can depend on: the context a window needs."""
        return 2 + _FAR + max(sum(self.encoder_blocks), sum(self.decoder_blocks))


def init(seed: int, config: Config = Config()) -> dict[str, Any]:
    """Random weights; a residual block starts as the identity and the linear path as zero."""
    random = np.random.default_rng(seed)
    (bands,), (width,), dims = config.bands, config.width, len(config.levels)

    return {
        "encoder": {
            "stem": init_conv(random, 5, bands, width),
            "head": init_conv(random, 1, width, dims, 0.1),
            "skip": init_conv(random, 2 * _NEAR + 1, bands, dims, 0.0),
            **init_blocks(random, width, config.encoder_blocks),
        },
        "decoder": {
            "stem": init_conv(random, 5, dims, width),
            "head": init_conv(random, 1, width, bands, 0.1),
            "skip": init_conv(random, 2 * _FAR + 1, dims, bands, 0.0),
            **init_blocks(random, width, config.decoder_blocks),
        },
    }


def shapes(config: Config = Config()) -> dict[str, Any]:
    """The tree of shapes that a checkpoint must have."""
    tree: dict[str, Any] = jax.tree.map(lambda x: x.shape, init(0, config))
    return tree


def latents(params: dict[str, Any], frames: jax.Array, mask: jax.Array, config: Config = Config()) -> jax.Array:
    """log-mel float32 [B, T, bands] -> z float32 [B, T, dims], before quantisation."""
    p = params["encoder"]
    x = (frames - _MEAN) / _SPREAD
    return _tower(p, x, mask, config.encoder_blocks) + conv(p["skip"], _GENTLE * x, mask)


def encode(params: dict[str, Any], frames: jax.Array, mask: jax.Array, config: Config = Config()) -> jax.Array:
    """log-mel float32 [B, T, bands] -> codes int32 [B, T]; those of masked frames mean nothing."""
    return fsq.quantize(latents(params, frames, mask, config), config.levels)[1]


def decode(params: dict[str, Any], codes: jax.Array, mask: jax.Array, config: Config = Config()) -> jax.Array:
    """codes int32 [B, T] -> log-mel float32 [B, T, bands]"""
    return decode_z(params, fsq.codes_to_z(codes, config.levels), mask, config)


def decode_z(params: dict[str, Any], zq: jax.Array, mask: jax.Array, config: Config = Config()) -> jax.Array:
    """The decoder on quantised latents float32 [B, T, dims]."""
    p = params["decoder"]
    x = _tower(p, zq, mask, config.decoder_blocks) + conv(p["skip"], zq, mask)
    return _SPREAD * x + _MEAN


def _tower(params: dict[str, Any], x: jax.Array, mask: jax.Array, dilations: tuple[int, ...]) -> jax.Array:
    x = conv(params["stem"], x, mask)
    x = blocks(params, x, mask, dilations)
    return conv(params["head"], jax.nn.silu(x), mask)
