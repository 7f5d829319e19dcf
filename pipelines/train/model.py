"""The decoder-only model: parameters as a dict of arrays, forward as pure functions, one scan over the layers.

Multi-query attention, rotary positions, RMS norms, a gated MLP, embeddings tied to the output (Shazeer 2019, 2020;
Gemini 1 report, section 2). It knows ids only: what an id means is the layout's business. Parameters are float32;
the compute type is a setting.

Soft media come in by one linear projection a kind, as patches do in ViT (Dosovitskiy et al. 2021) and Fuyu: no encoder
stands before the decoder. K ids a place (codebooks in parallel streams) are summed on the way in and predicted
independently on the way out, which leaves what the codes of one moment know of one another to the layout's delays
(MusicGen; a depth transformer as Moshi's is not here).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pipelines.train.attention import attend, mask, rotate
from tokenizer.item import KINDS

# Natural log-mel frames of speech have about this mean and spread (measured for tokenizer/nets/melfsq.py)
MEL_MEAN, MEL_SPREAD = -5.0, 2.2

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
    soft: tuple[tuple[str, int], ...] = ()  # (kind, numbers of one vector) of the soft media of a batch
    streams: int = 1  # ids a place: 1 is tokens [B, L], K is tokens [B, L, K]
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
    more = (jax.random.fold_in(key, i) for i in itertools.count())  # never moves what the first ten draw
    keys = itertools.chain(jax.random.split(key, 10), more)
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
    if config.soft:
        params["soft"] = {
            kind: {"weight": matrix(numbers, width, fan_in=numbers), "bias": jnp.zeros(width)}
            for kind, numbers in config.soft
        }
    if config.streams > 1:
        signs = jax.random.rademacher(next(keys), (config.streams, size), jnp.float32)
        params["streams"] = {"scale": signs, "shift": jnp.zeros((config.streams, size))}
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
    """What meets the embedding in the output, [B, L, embedding]: of tokens, segment_ids, positions and blocks, and of
    soft, soft_index and kinds where the batch has soft media. ValueError for a batch of another layout than `config`.
    """
    _check(batch, config)
    seen = mask(batch["segment_ids"], batch.get("blocks"))
    x = constrain(_embed(params, batch["tokens"], config), "hidden")
    if config.soft:
        x = constrain(_with_soft(params, batch, x, config), "hidden")

    def layer(x: jax.Array, weights: Params) -> tuple[jax.Array, None]:
        query, key, value = _project(x, weights, batch["positions"], config)
        mixed = attend(constrain(query, "heads"), key, value, seen)
        return constrain(_finish(x, mixed, weights, constrain), "hidden"), None

    x, _ = jax.lax.scan(jax.checkpoint(layer) if config.remat else layer, x, params["layers"])
    return _leave(params, x)


def _check(batch: dict[str, Any], config: ModelConfig) -> None:
    tokens, streams = batch["tokens"], config.streams
    if tokens.shape[2:] != (() if streams == 1 else (streams,)):
        raise ValueError(
            f"tokens are {list(tokens.shape)}; this model reads {streams} a place: make it for this layout"
        )
    soft = {kind: math.prod(values.shape[2:]) for kind, values in batch.get("soft", {}).items()}
    if soft != dict(config.soft):
        raise ValueError(f"the batch has soft {soft}, the model projects {dict(config.soft)}: make it for this layout")


def per_stream(params: Params, x: jax.Array, config: ModelConfig) -> jax.Array:
    """Hidden states [..., embedding] as each stream's own, [..., K, embedding]; as they are where there is one stream.

    Stream k reads and writes by a table of its own: the shared vectors, each number times a learnt factor, at first
    +1 or -1 by lot, so that the streams do not disturb one another though they are summed and share ids (two sounds of
    one codec). Its shift lets it learn at once which ranges of ids it never writes.
    """
    if config.streams == 1:
        return x
    own = params["streams"]
    return x[..., None, :] * own["scale"].astype(x.dtype) + own["shift"].astype(x.dtype)


def logits(params: Params, x: jax.Array, config: ModelConfig) -> jax.Array:
    """float32 [..., vocabulary] of hidden states [..., embedding]; [..., K, vocabulary] where there are K streams."""
    weights = table(params, config).astype(config.dtype)
    x = per_stream(params, x, config)
    return jnp.einsum("...d,vd->...v", x, weights, preferred_element_type=jnp.float32) + params["bias"]


# --- one token at a time


def init_cache(config: ModelConfig, batch: int, length: int) -> Params:
    """Keys and values of `length` places, zeros."""
    shape = (config.layers, batch, length, 1, config.head_dim)
    return {"key": jnp.zeros(shape, config.dtype), "value": jnp.zeros(shape, config.dtype)}


def decode_step(
    params: Params, cache: Params, tokens: jax.Array, place: jax.Array, positions: jax.Array, config: ModelConfig
) -> tuple[jax.Array, Params]:
    """Logits [B, vocabulary] after tokens int32 [B] at `place` of the cache, and the cache with them in it; of K
    streams [B, K, vocabulary] after tokens [B, K].

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
    scale = (vectors.shape[1] / config.streams) ** 0.5
    if config.streams == 1:
        x = vectors[tokens].astype(config.dtype)
    else:  # one stream after the other: all of them at once would be K times the size of the stream
        own = params["streams"]["scale"].astype(config.dtype)
        x = sum(vectors[tokens[..., k]].astype(config.dtype) * own[k] for k in range(config.streams))
    x = x * jnp.asarray(scale, config.dtype)
    return x @ params["widen"].astype(x.dtype) if "widen" in params else x


def _with_soft(params: Params, batch: dict[str, Any], x: jax.Array, config: ModelConfig) -> jax.Array:
    """x [B, L, width] with the projected soft vectors at the places that refer to them."""

    @jax.checkpoint  # else the vectors would wait for the backward pass as floats: four times what the batch holds
    def project(own: Params, values: jax.Array) -> jax.Array:
        flat = _scaled(values).reshape(*values.shape[:2], -1).astype(x.dtype)  # [B, S, numbers]
        return flat @ own["weight"].astype(x.dtype) + own["bias"].astype(x.dtype)

    for kind, _ in config.soft:
        vectors = project(params["soft"][kind], batch["soft"][kind])
        here = (batch["soft_index"] >= 0) & (batch["kinds"] == KINDS.index(kind))
        found = jax.vmap(lambda rows, index: rows[index])(vectors, jnp.where(here, batch["soft_index"], 0))
        x = jnp.where(here[..., None], found, x)
    return x


def _scaled(values: jax.Array) -> jax.Array:
    """Soft vectors as float32 of about unit size: pixels (uint8), samples (int16) and log-mel frames (float32)."""
    if values.dtype == jnp.uint8:
        return values.astype(jnp.float32) / 127.5 - 1
    if values.dtype == jnp.int16:
        return values.astype(jnp.float32) / 32768
    return (values - MEL_MEAN) / MEL_SPREAD


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
