"""Finite scalar quantisation (Mentzer et al. 2023): each of a few numbers is rounded to one of a few levels.

A latent z is squashed to p in (0, 1) by a sigmoid near the normal distribution's own curve, cut into equal bins, and
comes back as the centre of its bin in (-1, 1): a standard normal z uses all levels about equally. There is no table of
codes to learn and nothing to collapse. Everything is float32: a near tie must not depend on a faster dtype.

>>> z = codes_to_z(jnp.array([0, 15359]))      # levels (8, 8, 8, 6, 5): first and last code
>>> [[round(float(x), 2) for x in row] for row in z]
[[-0.88, -0.88, -0.88, -0.83, -0.8], [0.88, 0.88, 0.88, 0.83, 0.8]]
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

LEVELS = (8, 8, 8, 6, 5)  # 15,360 codes
# sigmoid(1.702 x) is within 0.01 of the normal distribution function everywhere
_SLOPE = 1.702


def num_codes(levels: tuple[int, ...] = LEVELS) -> int:
    """Size of the codebook: the product of the levels."""
    return math.prod(levels)


def quantize(z: jax.Array, levels: tuple[int, ...] = LEVELS) -> tuple[jax.Array, jax.Array]:
    """z [..., D] -> (zq float32 [..., D] in (-1, 1), codes int32 [...]).

    Gradients pass straight through the rounding, and through the squashing as they should.
    """
    sizes = jnp.asarray(levels, jnp.float32)
    p = jax.nn.sigmoid(_SLOPE * z.astype(jnp.float32))
    digits = jnp.clip(jnp.floor(p * sizes), 0, sizes - 1)
    soft = 2 * p - 1
    hard = (2 * digits + 1) / sizes - 1
    zq = soft + jax.lax.stop_gradient(hard - soft)
    return zq, join_digits(digits.astype(jnp.int32), levels)


def codes_to_z(codes: jax.Array, levels: tuple[int, ...] = LEVELS) -> jax.Array:
    """codes int [...] -> zq float32 [..., D], the same values as `quantize` gives."""
    sizes = jnp.asarray(levels, jnp.float32)
    return (2 * split_digits(codes, levels).astype(jnp.float32) + 1) / sizes - 1


def split_digits(codes: jax.Array, levels: tuple[int, ...] = LEVELS) -> jax.Array:
    """codes int [...] -> the level of each number int [..., D]; the first number is the least significant."""
    digits = []
    for size in levels:
        digits.append(codes % size)
        codes = codes // size
    return jnp.stack(digits, -1)


def join_digits(digits: jax.Array, levels: tuple[int, ...] = LEVELS) -> jax.Array:
    """The inverse of `split_digits`."""
    codes = jnp.zeros(digits.shape[:-1], jnp.int32)
    for i in reversed(range(len(levels))):
        codes = codes * levels[i] + digits[..., i]
    return codes


def level_entropy(codes: np.ndarray, levels: tuple[int, ...] = LEVELS) -> float:
    """Bits: the sum over the quantiser's numbers of the entropy of the levels that codes int [...] use. At most
    log2 of the number of codes; well below it, levels lie idle."""
    rest = np.asarray(codes, np.int64).ravel()
    bits = 0.0
    for size in levels:
        share = np.bincount(rest % size, minlength=size) / max(1, len(rest))
        bits -= float((share[share > 0] * np.log2(share[share > 0])).sum())
        rest = rest // size
    return bits


def components(rows: np.ndarray, dims: int, turned: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """The first `dims` principal components of rows float64 [N, D] as numbers of variance one: (vectors [D, dims], bias
    [dims]), to be used as rows @ vectors + bias.

    Turned, so that the numbers have about equal shares of the variance: all components then come back with one error,
    where each number a component of its own would give the largest the largest (worth 0.9 dB of the image codec, and
    0.36 after 300 steps: docs/log.md).
    """
    mean = rows.mean(0)
    values, vectors = np.linalg.eigh(np.cov(rows - mean, rowvar=False))
    values, vectors = values[::-1][:dims], vectors[:, ::-1][:, :dims]
    vectors = vectors * np.where(vectors.sum(0) < 0, -1.0, 1.0)  # eigenvectors have no sign of their own
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(dims, dims)))[0] if turned else np.eye(dims)
    # Flat or gray pictures, and silence, have fewer components: those that are missing stay small
    spread = np.sqrt(np.maximum(turn.T**2 @ values, 1e-6 * values[0] + 1e-12))
    vectors = vectors @ turn / spread
    return vectors, -mean @ vectors
