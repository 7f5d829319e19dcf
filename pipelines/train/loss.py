"""Cross-entropy in chunks of places, and its sums by kind.

The logits of a whole batch never exist at once: at 32k places and 48k ids they would be 6 GB. A chunk's gradient is
taken while its logits are there (custom_vjp), so they are computed once: 3 products with the vocabulary instead of
the 4 of recomputation.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from pipelines.train.model import Constrain, unplaced
from tokenizer.item import KINDS

CHUNK = 128  # places of each row at a time


@partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def weighted_loss(
    x: jax.Array,
    embedding: jax.Array,
    bias: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    chunk: int = CHUNK,
    constrain: Constrain = unplaced,
) -> tuple[jax.Array, jax.Array]:
    """(sum of weights * losses, losses float32 [B, L]) in nats of x [B, L, D] against targets int32 [B, L].

    Only the sum is differentiated, with respect to x, embedding [V, D] and bias [V]; the losses are to look at.
    """

    def step(total: jax.Array, part: Any) -> tuple[jax.Array, jax.Array]:
        h, target, weight = part
        loss, _, _ = _chunk(h, target, embedding, bias, constrain)
        return total + jnp.sum(loss * weight), loss

    total, losses = jax.lax.scan(step, jnp.float32(0), _split(x, targets, weights, chunk))
    return total, _join(losses, x.shape[1])


def _forward(x: Any, embedding: Any, bias: Any, targets: Any, weights: Any, chunk: int, constrain: Constrain) -> Any:
    def step(carry: Any, part: Any) -> tuple[Any, Any]:
        total, by_embedding, by_bias = carry
        h, target, weight = part
        loss, powers, norm = _chunk(h, target, embedding, bias, constrain)
        # d loss / d logits = weight * (powers / norm - one-hot). The weights go onto the narrow side of each product
        # and the one-hot becomes a row of the embedding: the wide array is read, never written again.
        scale = (weight / norm)[..., None]
        wide, scaled = powers.astype(h.dtype), (h * scale).astype(h.dtype)
        by_h = jnp.einsum("blv,vd->bld", wide, embedding.astype(h.dtype), preferred_element_type=jnp.float32) * scale
        by_h -= embedding[target] * weight[..., None]
        by_embedding += jnp.einsum("blv,bld->vd", wide, scaled, preferred_element_type=jnp.float32)
        by_embedding = by_embedding.at[target].add(-weight[..., None] * h.astype(jnp.float32))
        by_bias += jnp.einsum("blv,bl->v", powers, scale[..., 0])
        by_bias = by_bias.at[target].add(-weight)
        return (total + jnp.sum(loss * weight), by_embedding, by_bias), (loss, by_h.astype(h.dtype))

    start = (jnp.float32(0), jnp.zeros(embedding.shape, jnp.float32), jnp.zeros(bias.shape, jnp.float32))
    (total, by_embedding, by_bias), (losses, by_x) = jax.lax.scan(step, start, _split(x, targets, weights, chunk))
    length = x.shape[1]
    return (total, _join(losses, length)), (_join(by_x, length), by_embedding, by_bias)


def _backward(chunk: int, constrain: Constrain, slopes: Any, cotangents: Any) -> Any:
    by_x, by_embedding, by_bias = slopes
    scale = cotangents[0]
    return (by_x * scale).astype(by_x.dtype), by_embedding * scale, by_bias * scale, None, None


weighted_loss.defvjp(_forward, _backward)


def _chunk(
    h: jax.Array, target: jax.Array, embedding: jax.Array, bias: jax.Array, constrain: Constrain
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(losses [B, c], exponentials of the logits less their maximum [B, c, V], the sum of those [B, c])."""
    values = jnp.einsum("bld,vd->blv", h, embedding.astype(h.dtype), preferred_element_type=jnp.float32)
    values = constrain(values, "logits") + bias
    top = jnp.max(values, -1)
    powers = jnp.exp(values - top[..., None])
    norm = jnp.sum(powers, -1)
    row = embedding[target].astype(h.dtype).astype(jnp.float32)
    hit = jnp.einsum("bld,bld->bl", h.astype(jnp.float32), row) + bias[target]
    return jnp.log(norm) + top - hit, powers, norm


def _split(x: jax.Array, targets: jax.Array, weights: jax.Array, chunk: int) -> tuple[jax.Array, ...]:
    """[B, L, ...] -> [L / chunk, B, chunk, ...], padded with weight 0: rows stay whole on their device."""
    size = min(chunk, x.shape[1])

    def parts(a: jax.Array) -> jax.Array:
        padded = jnp.pad(a, [(0, 0), (0, -a.shape[1] % size)] + [(0, 0)] * (a.ndim - 2))
        return jnp.moveaxis(padded.reshape(a.shape[0], -1, size, *a.shape[2:]), 1, 0)

    return parts(x), parts(targets), parts(weights)


def _join(parts: jax.Array, length: int) -> jax.Array:
    whole = jnp.moveaxis(parts, 0, 1)
    return whole.reshape(whole.shape[0], -1, *whole.shape[3:])[:, :length]


def target_kinds(kinds: jax.Array) -> jax.Array:
    """Kind of what each place predicts, [B, L]: the kind of the next place (of the last: its own)."""
    return jnp.concatenate([kinds[:, 1:], kinds[:, -1:]], 1)


def sums_by_kind(losses: jax.Array, weights: jax.Array, kinds: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(sum of losses, number of targets) by kind, float32 [6] each, over the targets that count (weight > 0).

    losses, weights: [B, L], or [B, L, K] of which the K of a place are of its kind.
    """
    of_target = target_kinds(kinds).reshape(*kinds.shape, *[1] * (losses.ndim - 2))
    counted = (weights > 0)[..., None] & (of_target[..., None] == jnp.arange(len(KINDS)))
    over = tuple(range(losses.ndim))
    return jnp.sum(losses[..., None] * counted, over), jnp.sum(counted, over, dtype=jnp.float32)
