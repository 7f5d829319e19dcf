"""The decoder-only model: parameters as a dict of arrays, forward as pure functions, one scan over the layers.

Multi-query attention, rotary positions, RMS norms, a gated MLP, embeddings tied to the output (Shazeer 2019, 2020;
Gemini 1 report, section 2). It knows ids only: what an id means is the layout's business. Parameters are float32;
the compute type is a setting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pipelines.train.attention import attend, mask, rotate

Params = dict[str, Any]
Constrain = Callable[[jax.Array, str], jax.Array]  # (array, name of its role) -> the array, laid out over the mesh


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a model."""

    vocabulary: int
    layers: int
    width: int
    heads: int
    head_dim: int
    mlp: int
    embedding: int = 0  # width of a token's vector, in and out; 0: width. The vocabulary's cost goes with it
    ranges: tuple[int, ...] = (0,)  # first ids of ranges whose ids share a part of their vector
    digits: tuple[tuple[int, tuple[int, ...]], ...] = ()  # (first id, levels) of codebooks whose codes have digits
    theta: float = 10_000.0  # of the rotary positions
    dtype: str = "float32"  # of the computation
    remat: bool = False  # compute activations again in the backward pass: less memory, a third more work

    @property
    def factored(self) -> bool:
        return self.embedding not in (0, self.width)


def unplaced(x: jax.Array, role: str) -> jax.Array:
    """The Constrain of a single device."""
    return x


def init(key: jax.Array, config: ModelConfig) -> Params:
    """Fresh parameters; layers lie along the first axis of everything under "layers"."""
    layers, width, heads, dim = config.layers, config.width, config.heads, config.head_dim
    keys = iter(jax.random.split(key, 10))
    size = config.embedding or width

    def matrix(*shape: int, fan_in: int, scale: float = 1.0) -> jax.Array:
        return jax.random.truncated_normal(next(keys), -3, 3, shape, jnp.float32) * (scale * fan_in**-0.5)

    # What a layer adds to the stream starts small, so that depth does not decide the scale of the output
    late = (2 * layers) ** -0.5
    params = {
        "embedding": matrix(config.vocabulary, size, fan_in=size),
        "ranges": jnp.zeros((len(config.ranges), size)),
        "bias": jnp.zeros(config.vocabulary),  # of the output: learns how often an id occurs within a few steps
        "norm": jnp.ones(width),
        "layers": {
            "attention_norm": jnp.ones((layers, width)),
            "query": matrix(layers, width, heads, dim, fan_in=width),
            "key": matrix(layers, width, 1, dim, fan_in=width),
            "value": matrix(layers, width, 1, dim, fan_in=width),
            "out": matrix(layers, heads, dim, width, fan_in=heads * dim, scale=late),
            "mlp_norm": jnp.ones((layers, width)),
            "gate": matrix(layers, width, config.mlp, fan_in=width),
            "up": matrix(layers, width, config.mlp, fan_in=width),
            "down": matrix(layers, config.mlp, width, fan_in=config.mlp, scale=late),
        },
    }
    if config.digits:
        params["digits"] = jnp.zeros((sum(sum(levels) for _, levels in config.digits), size))
    if config.factored:
        params |= {"widen": matrix(size, width, fan_in=size), "narrow": matrix(width, size, fan_in=width)}
    return params


def table(params: Params, config: ModelConfig) -> jax.Array:
    """The vector of each id, float32 [vocabulary, embedding]: its own, that of its range, and those of its digits.

    What all codes of a codebook have in common is learnt once: where images may come at all, within tens of steps, and
    for codes that training never saw. A scalar quantiser's code is a number of a few digits (FSQ: five, of 8 to 5
    levels), each with a vector of its own, so that codes which mean nearly the same get nearly the same logit: the
    factorisation of Open-MAGVIT2 (Luo et al. 2024) with one softmax. Measured on the demo's 8,703 training codes of
    sound: validation loss 10.73 without, 8.63 with it.
    """
    of_range = np.searchsorted(config.ranges, np.arange(config.vocabulary), side="right") - 1
    vectors = params["embedding"] + params["ranges"][of_range]
    row = 0
    for first, levels in config.digits:
        shared = jnp.zeros((1, vectors.shape[1]))
        for level in levels:  # the first digit is the least significant: it runs fastest
            of_digit = params["digits"][row : row + level]
            shared = (of_digit[:, None] + shared[None]).reshape(-1, vectors.shape[1])
            row += level
        vectors = vectors.at[first : first + len(shared)].add(shared)
    return vectors


def hidden(params: Params, batch: dict[str, Any], config: ModelConfig, constrain: Constrain = unplaced) -> jax.Array:
    """What meets the embedding in the output, [B, L, embedding]: of tokens, segment_ids, positions and blocks."""
    refuse_unreadable(batch)
    seen = mask(batch["segment_ids"], batch.get("blocks"))
    x = constrain(_embed(params, batch["tokens"], config), "hidden")

    def layer(x: jax.Array, weights: Params) -> tuple[jax.Array, None]:
        query, key, value = _project(x, weights, batch["positions"], config)
        mixed = attend(constrain(query, "heads"), key, value, seen)
        return constrain(_finish(x, mixed, weights, constrain), "hidden"), None

    x, _ = jax.lax.scan(jax.checkpoint(layer) if config.remat else layer, x, params["layers"])
    return _leave(params, x)


def refuse_unreadable(batch: dict[str, Any]) -> None:
    """ValueError for batches this model has no inputs for: K ids a place, or soft items."""
    if batch["tokens"].ndim != 2:
        raise ValueError(
            f"tokens are {list(batch['tokens'].shape)}; this model reads one id a place [B, L]: use a layout that"
            " flattens codebooks"
        )
    if batch.get("soft_index") is not None:
        raise ValueError("the batch has soft items; this model reads ids only: use a layout without [soft]")


def logits(params: Params, x: jax.Array, config: ModelConfig) -> jax.Array:
    """float32 [..., vocabulary] of hidden states [..., embedding]."""
    weights = table(params, config).astype(config.dtype)
    return jnp.einsum("...d,vd->...v", x, weights, preferred_element_type=jnp.float32) + params["bias"]


# --- one token at a time


def init_cache(config: ModelConfig, batch: int, length: int) -> Params:
    """Keys and values of `length` places, zeros."""
    shape = (config.layers, batch, length, 1, config.head_dim)
    return {"key": jnp.zeros(shape, config.dtype), "value": jnp.zeros(shape, config.dtype)}


def decode_step(
    params: Params, cache: Params, tokens: jax.Array, place: jax.Array, positions: jax.Array, config: ModelConfig
) -> tuple[jax.Array, Params]:
    """Logits [B, vocabulary] after tokens int32 [B] at `place` of the cache, and the cache with them in it.

    positions: int32 [B, 1] or [B, P, 1], as in a batch.
    """
    seen = (jnp.arange(cache["key"].shape[2]) <= place)[None, None, None]

    def layer(x: jax.Array, per_layer: tuple[Params, jax.Array, jax.Array]) -> tuple[jax.Array, tuple[Any, Any]]:
        weights, keys, values = per_layer
        query, key, value = _project(x, weights, positions, config)
        keys = jax.lax.dynamic_update_slice_in_dim(keys, key, place, axis=1)
        values = jax.lax.dynamic_update_slice_in_dim(values, value, place, axis=1)
        return _finish(x, attend(query, keys, values, seen), weights, unplaced), (keys, values)

    x = _embed(params, tokens[:, None], config)
    x, (keys, values) = jax.lax.scan(layer, x, (params["layers"], cache["key"], cache["value"]))
    return logits(params, _leave(params, x)[:, 0], config), {"key": keys, "value": values}


# --- parts of a layer


def _embed(params: Params, tokens: jax.Array, config: ModelConfig) -> jax.Array:
    # Tied embeddings have the scale of the output; the stream wants values of about one
    vectors = table(params, config)
    x = vectors[tokens].astype(config.dtype) * jnp.asarray(vectors.shape[1] ** 0.5, config.dtype)
    return x @ params["widen"].astype(x.dtype) if "widen" in params else x


def _leave(params: Params, x: jax.Array) -> jax.Array:
    """From the stream to the width of the embedding."""
    x = _norm(x, params["norm"])
    return x @ params["narrow"].astype(x.dtype) if "narrow" in params else x


def _project(
    x: jax.Array, weights: Params, positions: jax.Array, config: ModelConfig
) -> tuple[jax.Array, jax.Array, jax.Array]:
    normed = _norm(x, weights["attention_norm"])
    query, key, value = (
        jnp.einsum("bld,dnh->blnh", normed, weights[name].astype(x.dtype)) for name in ("query", "key", "value")
    )
    return rotate(query, positions, config.theta), rotate(key, positions, config.theta), value


def _finish(x: jax.Array, mixed: jax.Array, weights: Params, constrain: Constrain) -> jax.Array:
    """The rest of a layer after attention: its output projection and the gated MLP, both added to x."""
    x = x + jnp.einsum("blnh,nhd->bld", mixed, weights["out"].astype(x.dtype))
    normed = _norm(x, weights["mlp_norm"])
    gate = jnp.einsum("bld,df->blf", normed, weights["gate"].astype(x.dtype))
    up = jnp.einsum("bld,df->blf", normed, weights["up"].astype(x.dtype))
    inner = constrain(jax.nn.silu(gate) * up, "mlp")
    return x + jnp.einsum("blf,fd->bld", inner, weights["down"].astype(x.dtype))


def _norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    wide = x.astype(jnp.float32)
    return (wide * jax.lax.rsqrt(jnp.mean(wide**2, -1, keepdims=True) + 1e-6) * scale).astype(x.dtype)
