"""Attention over packed rows: causal, never across documents, whole blocks where the layout asks for them.

A row holds several documents, told apart by segment ids; 0 is padding. Blocks are groups of places that see one
another in both directions (the patches of an image in some layouts): equal non-zero ids of one segment.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def mask(segment_ids: jax.Array, blocks: jax.Array | None = None) -> jax.Array:
    """Who sees whom, bool [B, 1, L, L] (query, key), from int32 segment_ids [B, L] and blocks [B, L].

    segment_ids = [1, 1, 2, 0]  ->  [[1, 0, 0, 0],
                                     [1, 1, 0, 0],
                                     [0, 0, 1, 0],
                                     [0, 0, 0, 1]]
    """
    length = segment_ids.shape[-1]
    seen = jnp.tril(jnp.ones((length, length), bool))[None]
    if blocks is not None:
        seen = seen | ((blocks[:, :, None] == blocks[:, None, :]) & (blocks[:, :, None] > 0))
    return (seen & (segment_ids[:, :, None] == segment_ids[:, None, :]))[:, None]


def attend(query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array) -> jax.Array:
    """Softmax attention [B, L, N, H] of query [B, L, N, H] over key and value [B, S, 1, H]; seen bool [B, 1, L, S].

    Multi-query: one key and value head for all N. The softmax runs in float32.
    """
    return jax.nn.dot_product_attention(query, key, value, mask=seen)


def rotate(x: jax.Array, positions: jax.Array, theta: float) -> jax.Array:
    """Rotary positions (Su et al. 2021): x [B, L, N, H] turned by positions int32 [B, L] or [B, P, L].

    With P axes (time, height, width) pair j of a head turns by axis j mod P.
    """
    half = x.shape[-1] // 2
    axes = positions[:, None, :] if positions.ndim == 2 else positions  # [B, P, L]
    which = jnp.arange(half) % axes.shape[1]
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = jnp.moveaxis(axes.astype(jnp.float32), 1, 2)[..., which] * frequency  # [B, L, half]
    sin, cos = jnp.sin(angle)[:, :, None], jnp.cos(angle)[:, :, None]
    a, b = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1).astype(x.dtype)
