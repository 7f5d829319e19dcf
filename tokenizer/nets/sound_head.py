"""A head that makes sound of a speech codec's decoded frames: magnitude and phase of a short-time Fourier transform.

After Vocos (Siuzdak 2023): what the decoder knows of each frame is brought to twice the rate, goes through residual
convolutions, and leaves as log magnitude and phase of every bin, which the inverse transform makes a wave of; waves are
added where they overlap. A linear path in closed form reads the magnitudes off the log-mel frames, so that training
begins with the right loudness everywhere and has the phases left to find. Everything is float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tokenizer.nets.layers import blocks, conv, hann, init_blocks, init_conv
from tokenizer.nets.speech_fsq import HOP, MEAN, SPREAD, WINDOW

_LOUDEST = 6.0  # log magnitude: no weights can make infinities


@dataclass(frozen=True)
class HeadConfig:
    """Width, dilations of the residual blocks, waves a frame."""

    inputs: int = 192  # channels of the decoder
    bands: int = 80
    width: int = 152
    blocks: tuple[int, ...] = (1, 2, 4, 1)  # in waves
    rate: int = 2

    @property
    def hop(self) -> int:
        """Samples from one wave to the next."""
        return HOP // self.rate

    @property
    def window(self) -> int:
        """Samples of a wave: four overlap."""
        return 4 * self.hop

    @property
    def bins(self) -> int:
        return self.window // 2 + 1

    @property
    def reach(self) -> int:
        """Frames each side that a sample can depend on."""
        return 1 + -(-(sum(self.blocks) + 2) // self.rate)


def init(seed: int, filters: np.ndarray, config: HeadConfig = HeadConfig()) -> dict[str, Any]:
    """Random weights beside the linear path. filters: mel filters [bands, WINDOW // 2 + 1]."""
    random = np.random.default_rng((seed, 1))
    width, bins = config.width, config.bins
    return {
        "stem": init_conv(random, 1, config.inputs + config.bands, config.rate * width),
        "magnitude": init_conv(random, 1, width, bins, 0.1),
        "phase": init_conv(random, 1, width, 2 * bins),
        "skip": _magnitudes_of_mel(filters, bins),
        **init_blocks(random, width, config.blocks),
    }


def sound(
    params: dict[str, Any], hidden: jax.Array, frames: jax.Array, mask: jax.Array, config: HeadConfig = HeadConfig()
) -> jax.Array:
    """What `speech_fsq.decode_z` gives -> float32 [B, 320 T]: sample 0 is the first of the first frame's hop."""
    b, t = mask.shape
    x = (frames - MEAN) / SPREAD
    flat = conv(params["skip"], _finer(x, config.rate))
    fine = jnp.repeat(mask, config.rate, 1)
    x = conv(params["stem"], jnp.concatenate([hidden, x], -1), mask).reshape(b, t * config.rate, -1)
    x = jax.nn.silu(blocks(params, x, fine, config.blocks))
    size = jnp.exp(jnp.minimum(conv(params["magnitude"], x) + flat, _LOUDEST)) * fine[..., None]
    real, imaginary = jnp.split(conv(params["phase"], x), 2, -1)
    scale = size * jax.lax.rsqrt(real**2 + imaginary**2 + 1e-6)
    waves = jnp.fft.irfft(jax.lax.complex(real * scale, imaginary * scale), config.window)
    return _overlap_add(waves * (hann(config.window) / 2), config)


def _finer(x: jax.Array, rate: int) -> jax.Array:
    """[B, T, C] -> [B, rate T, C]: straight lines between the frames' middles."""
    before = jnp.concatenate([x[:, :1], x[:, :-1]], 1)
    after = jnp.concatenate([x[:, 1:], x[:, -1:]], 1)
    parts = []
    for i in range(rate):
        place = (i + 0.5) / rate - 0.5  # of a frame, from its middle
        other = after if place > 0 else before
        parts.append((1 - abs(place)) * x + abs(place) * other)
    return jnp.stack(parts, 2).reshape(len(x), -1, x.shape[-1])


def _magnitudes_of_mel(filters: np.ndarray, bins: int) -> dict[str, np.ndarray]:
    """log-mel -> log magnitude of each bin, read off between the bands' centres."""
    ratio = (bins - 1) / (WINDOW // 2)  # a shorter window has fewer bins, and less in each
    centres = filters.argmax(1) * ratio
    weights = np.stack([np.interp(np.arange(bins), centres, row) for row in np.eye(len(filters))])  # [bands, bins]
    # A magnitude m in every bin gives m times the filter's sum
    bias = (MEAN - np.log(filters.sum(1)) + np.log(ratio)) @ weights
    return {"kernel": (SPREAD * weights[None]).astype(np.float32), "bias": bias.astype(np.float32)}


def _overlap_add(waves: jax.Array, config: HeadConfig) -> jax.Array:
    """[B, N, window] -> [B, N * hop]: wave i is centred on its hop."""
    b, n, _ = waves.shape
    each = config.window // config.hop
    parts = waves.reshape(b, n, each, config.hop)
    total = jnp.pad(parts[:, :, 0], ((0, 0), (0, each - 1), (0, 0)))
    for i in range(1, each):
        total += jnp.pad(parts[:, :, i], ((0, 0), (i, each - 1 - i), (0, 0)))
    before = (config.window - config.hop) // 2
    return total.reshape(b, -1)[:, before : before + n * config.hop]
