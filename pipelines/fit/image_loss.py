"""What an image codec learns by: the error that PSNR averages, and structural similarity, in JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp

_FLOOR = 4e-3  # squared error below which a crop is good enough not to be pushed further (30 dB on [-1, 1])
_WINDOW = 7
_RANGE = 2.0  # of pixels in [-1, 1]


def log_error(x: jax.Array, y: jax.Array) -> jax.Array:
    """The mean over crops [B, H, W, 3] in [-1, 1] of the log of the squared error: flat and busy ones count alike."""
    return jnp.mean(jnp.log(jnp.mean((x - y) ** 2, (1, 2, 3)) + _FLOOR))


def psnr(x: jax.Array, y: jax.Array) -> jax.Array:
    """dB, of pictures [B, H, W, 3] in [-1, 1]: the mean over pictures."""
    error = jnp.mean((x - jnp.clip(y, -1, 1)) ** 2, (1, 2, 3))
    return jnp.mean(-10 * jnp.log10(error / _RANGE**2 + 1e-9))


def ssim(x: jax.Array, y: jax.Array) -> jax.Array:
    """Structural similarity (Wang et al. 2004) of pictures [B, H, W, 3] in [-1, 1]: the mean over pictures, channels
    and places of a flat window of 7 x 7 pixels, as scikit-image's `structural_similarity` gives it."""

    def mean(values: jax.Array) -> jax.Array:
        sums = jax.lax.reduce_window(values, 0.0, jax.lax.add, (1, _WINDOW, _WINDOW, 1), (1, 1, 1, 1), "VALID")
        return sums / _WINDOW**2

    x, y = x + 1, y + 1  # black is zero, as the luminance term wants it
    sample = _WINDOW**2 / (_WINDOW**2 - 1)  # covariances of a sample, as scikit-image has them
    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = (sample * (mean(v * v) - m * m) for v, m in ((x, mean_x), (y, mean_y)))
    both = sample * (mean(x * y) - mean_x * mean_y)
    c1, c2 = (0.01 * _RANGE) ** 2, (0.03 * _RANGE) ** 2
    above = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    return jnp.mean(above / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)))
