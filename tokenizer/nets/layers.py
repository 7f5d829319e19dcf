"""Parts that the speech networks share: convolutions over time under a mask, residual blocks, frames of a sound.

Weights are dicts {"kernel": [size, inputs, outputs], "bias": [outputs]}. A mask [B, T] says which places are there: the
others are zero before every convolution, so a clip's values do not depend on how far it was padded.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def init_conv(
    random: np.random.Generator, size: int, inputs: int, outputs: int, gain: float = 1.0
) -> dict[str, np.ndarray]:
    """Normal weights that keep the variance, times `gain`; no bias."""
    kernel = random.normal(0.0, gain / np.sqrt(size * inputs), (size, inputs, outputs))
    return {"kernel": kernel.astype(np.float32), "bias": np.zeros(outputs, np.float32)}


def init_blocks(random: np.random.Generator, width: int, dilations: tuple[int, ...]) -> dict[str, Any]:
    """Residual blocks, one a dilation; each starts as the identity."""
    return {
        f"block{i}": {
            "conv": init_conv(random, 3, width, width, 1.4),
            "mix": init_conv(random, 1, width, width, 0.0),
        }
        for i in range(len(dilations))
    }


def conv(p: dict[str, Any], x: jax.Array, mask: jax.Array | None = None, dilation: int = 1) -> jax.Array:
    """[B, T, inputs] -> [B, T, outputs]; zeros stand outside, and where the mask is zero."""
    if mask is not None:
        x = x * mask[..., None]
    if p["kernel"].shape[0] == 1:
        return jnp.matmul(x, p["kernel"][0], precision=jax.lax.Precision.HIGHEST) + p["bias"]
    y = jax.lax.conv_general_dilated(
        x,
        p["kernel"],
        (1,),
        "SAME",
        rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
        precision=jax.lax.Precision.HIGHEST,
    )
    return y + p["bias"]


def blocks(params: dict[str, Any], x: jax.Array, mask: jax.Array, dilations: tuple[int, ...]) -> jax.Array:
    """The residual blocks of `init_blocks`."""
    for i, dilation in enumerate(dilations):
        p = params[f"block{i}"]
        x = x + conv(p["mix"], jax.nn.silu(conv(p["conv"], jax.nn.silu(x), mask, dilation)), mask)
    return x


def magnitudes(sound: jax.Array, window: int, hop: int) -> jax.Array:
    """float32 [B, S] -> [B, 1 + (S - window) // hop, window // 2 + 1] under a Hann window."""
    spectrum = jnp.fft.rfft(_frames(sound, window, hop) * hann(window))
    # An eps under the root keeps its gradient finite in silence
    return jnp.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-12)


def hann(size: int) -> np.ndarray:
    """float32 [size], periodic."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)


def _frames(sound: jax.Array, window: int, hop: int) -> jax.Array:
    """[B, S] -> [B, 1 + (S - window) // hop, window]: shifted views of blocks, which XLA does fast."""
    count = 1 + (sound.shape[1] - window) // hop
    each = -(-window // hop)
    need = (count + each - 1) * hop
    padded = jnp.pad(sound[:, : min(need, sound.shape[1])], ((0, 0), (0, max(0, need - sound.shape[1]))))
    blocks = padded.reshape(len(sound), -1, hop)
    return jnp.concatenate([blocks[:, i : i + count] for i in range(each)], -1)[..., :window]
