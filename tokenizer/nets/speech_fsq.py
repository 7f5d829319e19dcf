"""A small speech codec: sound to one or two FSQ codes a frame of 20 ms, and codes to log-mel frames.

Encoder: log-mel frames of the sound -> residual convolutions -> numbers, five a code -> FSQ. Decoder: numbers ->
residual convolutions -> log-mel frames (`sound_head` makes sound of them). Two frames are coded together: the ten
numbers of their two codes may hold what the frames have in common once. That is worth more than any other choice here:
log-mel L1 0.427 against 0.497 after the same 1,000 steps (five frames together: 0.482). As in `melfsq`, a linear path
in closed form runs beside encoder and decoder, so that training begins at the best linear codec.

Sound is float32 [B, EDGE + 320 T + EDGE]: T frames (a multiple of the group) with the samples around them that the
outer frames' windows reach; a mask [B, T] says which frames are there. Codes do not depend on how far a clip was
padded. Everything is float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tokenizer.nets import fsq
from tokenizer.nets.layers import blocks, conv, init_blocks, init_conv, magnitudes

HOP = 320  # samples a frame
WINDOW = 1024  # samples of the analysis window of a frame, which is centred on the frame's hop
EDGE = (WINDOW - HOP) // 2  # samples that the first frame's window reaches before its hop
# Log-mel frames of speech have about this mean and spread: what the networks see and give is without them
MEAN, SPREAD = -5.0, 2.2

_SILENCE = 1e-5  # magnitudes below it count as silence
# The linear path reads frames made small, as in `melfsq`, where it is measured
_GENTLE = 0.1


@dataclass(frozen=True)
class Config:
    """Codebooks, bands of a frame, widths, and the dilations of the residual blocks."""

    levels: tuple[int, ...] = fsq.LEVELS  # of each codebook
    books: int = 1
    group: int = 2  # frames that are coded together
    bands: int = 80
    width: int = 192
    encoder_blocks: tuple[int, ...] = (1, 2, 4)
    decoder_blocks: tuple[int, ...] = (1, 2, 4, 1, 2)

    @property
    def dims(self) -> int:
        """Numbers that a frame is quantised to."""
        return self.books * len(self.levels)

    @property
    def reach(self) -> int:
        """Frames each side that a code, or a decoded frame, can depend on."""
        return 2 * self.group + max(sum(self.encoder_blocks) + 2, sum(self.decoder_blocks))


def init(seed: int, config: Config = Config()) -> dict[str, Any]:
    """Random weights; a residual block starts as the identity and the linear path as zero (see `closed_form`)."""
    random = np.random.default_rng(seed)
    bands, width, group, dims = config.bands, config.width, config.group, config.dims
    return {
        "encoder": {
            "stem": init_conv(random, 5, bands, width),
            "head": init_conv(random, 1, group * width, group * dims, 0.1),
            "skip": init_conv(random, 1, group * bands, group * dims, 0.0),
            **init_blocks(random, width, config.encoder_blocks),
        },
        "decoder": {
            "stem": init_conv(random, 3, group * dims, group * width),
            "head": init_conv(random, 1, width, bands, 0.1),
            "skip": init_conv(random, 3, group * dims, group * bands, 0.0),
            **init_blocks(random, width, config.decoder_blocks),
        },
    }


def log_mel(sound: jax.Array, filters: jax.Array) -> jax.Array:
    """float32 [B, EDGE + 320 T + EDGE], filters [bands, 513] -> natural log of mel magnitudes float32 [B, T, bands]"""
    return jnp.log(jnp.maximum(magnitudes(sound, WINDOW, HOP) @ filters.T, _SILENCE))


def latents(params: dict[str, Any], frames: jax.Array, mask: jax.Array, config: Config = Config()) -> jax.Array:
    """log-mel float32 [B, T, bands] -> z float32 [B, T, dims], before quantisation."""
    p = params["encoder"]
    x = (frames - MEAN) / SPREAD * mask[..., None]
    y = jax.nn.silu(blocks(p, conv(p["stem"], x, mask), mask, config.encoder_blocks)) * mask[..., None]
    z = conv(p["head"], _together(y, config.group)) + conv(p["skip"], _GENTLE * _together(x, config.group))
    return _apart(z, config.group)


def quantize(z: jax.Array, config: Config = Config()) -> tuple[jax.Array, jax.Array]:
    """z [B, T, dims] -> (zq [B, T, dims], codes int32 [B, T, books])"""
    parts = [fsq.quantize(part, config.levels) for part in jnp.split(z, config.books, -1)]
    return jnp.concatenate([zq for zq, _ in parts], -1), jnp.stack([codes for _, codes in parts], -1)


def codes_to_z(codes: jax.Array, config: Config = Config()) -> jax.Array:
    """codes int32 [B, T, books] -> zq float32 [B, T, dims]"""
    return jnp.concatenate([fsq.codes_to_z(codes[..., k], config.levels) for k in range(config.books)], -1)


def decode_z(
    params: dict[str, Any], zq: jax.Array, mask: jax.Array, config: Config = Config()
) -> tuple[jax.Array, jax.Array]:
    """zq float32 [B, T, dims] -> (channels [B, T, width] for the head, log-mel frames [B, T, bands])"""
    p = params["decoder"]
    groups = _together(zq * mask[..., None], config.group)
    x = _apart(conv(p["stem"], groups), config.group)
    hidden = blocks(p, x, mask, config.decoder_blocks)
    x = conv(p["head"], jax.nn.silu(hidden), mask) + _apart(conv(p["skip"], groups), config.group)
    return hidden, SPREAD * x + MEAN


def closed_form(params: dict[str, Any], frames: np.ndarray, config: Config = Config()) -> dict[str, Any]:
    """Set the linear paths from clips of log-mel frames float32 [N, T, bands]."""
    dims, group = config.dims * config.group, config.group
    frames = (frames - MEAN) / SPREAD
    together = frames.reshape(len(frames), -1, group * config.bands)  # [N, T / group, group * bands]
    flat = together.reshape(-1, together.shape[-1]).astype(np.float64)
    mean = _GENTLE * flat.mean(0)
    values, vectors = np.linalg.eigh(np.cov(_GENTLE * flat - mean, rowvar=False))
    vectors = vectors[:, ::-1][:, :dims] / np.sqrt(values[::-1][:dims])
    vectors = vectors * np.where(vectors.sum(0) < 0, -1.0, 1.0)  # eigenvectors have no sign of their own
    enter = {"kernel": vectors[None].astype(np.float32), "bias": (-mean @ vectors).astype(np.float32)}
    z = conv(enter, jnp.asarray(_GENTLE * together))
    zq = np.asarray(_together(quantize(_apart(z, group), config)[0], group), np.float64)
    features = _views(zq, 1).reshape(-1, 3 * dims)
    features = np.concatenate([features, np.ones((len(features), 1))], 1)
    gram = features.T @ features + 1e-3 * len(features) * np.diag([1.0] * (features.shape[1] - 1) + [0.0])
    solved = np.linalg.solve(gram, features.T @ flat)
    leave = {
        "kernel": solved[:-1].reshape(3, dims, -1).astype(np.float32),
        "bias": solved[-1].astype(np.float32),
    }
    return {"encoder": {**params["encoder"], "skip": enter}, "decoder": {**params["decoder"], "skip": leave}}


def widened(params: dict[str, Any], fresh: dict[str, Any], old: Config, new: Config) -> dict[str, Any]:
    """`params` of fewer codebooks as a start for more. The books that are there keep their weights; the others read the
    principal components that follow, out of what `closed_form` gave as `fresh`; at first the decoder reads none of
    them.
    """
    if (new.group, new.bands, new.width, new.levels) != (old.group, old.bands, old.width, old.levels):
        raise ValueError(f"cannot start a network {new} from the weights of {old}: only the number of books may differ")
    size = new.dims - old.dims
    seen = np.arange(new.group * new.dims) % new.dims < old.dims  # of the numbers of a group, those of the old books
    order = np.zeros(new.group * new.dims, int)  # place -> principal component
    order[~seen] = np.arange(new.group * old.dims, new.group * (old.dims + size))

    def enter(name: str) -> dict[str, np.ndarray]:
        was, now = params["encoder"][name], fresh["encoder"][name]
        source = order if name == "skip" else np.arange(len(order))
        kernel, bias = np.array(now["kernel"])[..., source], np.array(now["bias"])[source]
        kernel[..., seen], bias[seen] = was["kernel"], was["bias"]
        return {"kernel": kernel, "bias": bias}

    def leave(name: str) -> dict[str, np.ndarray]:
        was, now = params["decoder"][name], fresh["decoder"][name]
        kernel = np.zeros_like(now["kernel"])
        kernel[:, seen] = was["kernel"]
        return {"kernel": kernel, "bias": np.array(was["bias"])}

    return {
        "encoder": {**params["encoder"], "head": enter("head"), "skip": enter("skip")},
        "decoder": {**params["decoder"], "stem": leave("stem"), "skip": leave("skip")},
    }


def _together(x: jax.Array, group: int) -> jax.Array:
    """[B, T, C] -> [B, T / group, group * C]"""
    return x.reshape(len(x), -1, group * x.shape[-1])


def _apart(x: jax.Array, group: int) -> jax.Array:
    """The inverse of `_together`."""
    return x.reshape(len(x), -1, x.shape[-1] // group)


def _views(x: np.ndarray, reach: int) -> np.ndarray:
    """[N, T, C] -> [N, T, (2*reach+1)*C]: each place with its neighbours, zeros outside."""
    padded = np.pad(x, ((0, 0), (reach, reach), (0, 0)))
    return np.concatenate([padded[:, i : i + x.shape[1]] for i in range(2 * reach + 1)], -1)
