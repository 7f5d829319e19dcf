"""A small speech codec: sound to one or two FSQ codes a frame of 20 ms, and codes to log-mel frames.

Encoder: log-mel frames of the sound -> residual convolutions -> numbers, five a code -> FSQ. Decoder: numbers ->
residual convolutions -> log-mel frames (`sound_head` makes sound of them). Two frames are coded together: the ten
numbers of their two codes may hold what the frames have in common once. That is worth more than any other choice here:
log-mel L1 0.427 against 0.497 after the same 1,000 steps (five frames together: 0.482). As in `melfsq`, a linear path
in closed form runs beside encoder and decoder, so that training begins at the best linear codec. An encoder may correct
itself, as that of `image_fsq`: it decodes its own codes, and a second network moves them by what is still missing.

Sound is float32 [B, EDGE + 320 T + EDGE]: T frames (a multiple of the group) with the samples around them that the
outer frames' windows reach; a mask [B, T] says which frames are there. Codes do not depend on how far a clip was
padded. Everything is float32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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

_STEM = 5  # frames that an encoder's first layer takes together
_LOUDER = 4.0  # what is missing after the first codes, brought to about the spread of frames
_SILENCE = 1e-5  # magnitudes below it count as silence
# The linear path reads frames made small, as in `melfsq`, where it is measured
_GENTLE = 0.1


@dataclass(frozen=True)
class Config:
    """Codebooks, bands of a frame, widths, and the dilations of the residual blocks; `correction_blocks` are those of
    the network that corrects the encoder, none where empty."""

    levels: tuple[int, ...] = fsq.LEVELS  # of each codebook
    books: int = 1
    group: int = 2  # frames that are coded together
    bands: int = 80
    width: int = 192
    encoder_blocks: tuple[int, ...] = (1, 2, 4)
    decoder_blocks: tuple[int, ...] = (1, 2, 4, 1, 2)
    correction_width: int = 128
    correction_blocks: tuple[int, ...] = ()

    @property
    def dims(self) -> int:
        """Numbers that a frame is quantised to."""
        return self.books * len(self.levels)

    @property
    def encoder_reach(self) -> int:
        """Frames each side that a code can depend on."""
        reach = 2 * self.group + sum(self.encoder_blocks) + _STEM // 2
        correction = self.decoder_reach + sum(self.correction_blocks) + _STEM // 2
        return reach + correction if self.correction_blocks else reach

    @property
    def decoder_reach(self) -> int:
        """Frames each side that a decoded frame can depend on."""
        return 2 * self.group + sum(self.decoder_blocks)


def init(seed: int, config: Config = Config()) -> dict[str, Any]:
    """Random weights; a residual block starts as the identity and the linear path as zero (see `closed_form`)."""
    random = np.random.default_rng(seed)
    bands, width, group, dims = config.bands, config.width, config.group, config.dims
    params = {
        "encoder": {
            "stem": init_conv(random, _STEM, bands, width),
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
    if config.correction_blocks:
        params["correction"] = {
            "stem": init_conv(random, _STEM, bands, look := config.correction_width),
            "given": init_conv(random, 1, 2 * group * dims, group * look),
            "head": init_conv(random, 1, group * look, group * dims, 0.1),
            **init_blocks(random, look, config.correction_blocks),
        }
    return params


def log_mel(sound: jax.Array, filters: jax.Array) -> jax.Array:
    """float32 [B, EDGE + 320 T + EDGE], filters [bands, 513] -> natural log of mel magnitudes float32 [B, T, bands]"""
    return jnp.log(jnp.maximum(magnitudes(sound, WINDOW, HOP) @ filters.T, _SILENCE))


def latents(params: dict[str, Any], frames: jax.Array, mask: jax.Array, config: Config = Config()) -> jax.Array:
    """log-mel float32 [B, T, bands] -> z float32 [B, T, dims], before quantisation."""
    p = params["encoder"]
    x = (frames - MEAN) / SPREAD * mask[..., None]
    y = jax.nn.silu(blocks(p, conv(p["stem"], x, mask), mask, config.encoder_blocks)) * mask[..., None]
    z = conv(p["head"], _together(y, config.group)) + conv(p["skip"], _GENTLE * _together(x, config.group))
    if not config.correction_blocks:
        return _apart(z, config.group)
    p = params["correction"]
    # What the first codes decode to is given: neither the decoder nor the first encoder is trained through it
    zq = jax.lax.stop_gradient(quantize(_apart(z, config.group), config)[0])
    missing = frames - jax.lax.stop_gradient(decode_z(params, zq, mask, config)[1])
    given = conv(p["given"], jnp.concatenate([z, _together(zq, config.group)], -1))
    y = conv(p["stem"], _LOUDER / SPREAD * missing, mask) + _apart(given, config.group)
    y = jax.nn.silu(blocks(p, y, mask, config.correction_blocks)) * mask[..., None]
    return _apart(z + conv(p["head"], _together(y, config.group)), config.group)


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


def closed_form(
    params: dict[str, Any], frames: np.ndarray, config: Config = Config(), turned: bool = True
) -> dict[str, Any]:
    """Set the linear paths from clips of log-mel frames float32 [N, T, bands]; see `fsq.components`."""
    dims, group = config.dims * config.group, config.group
    frames = (frames - MEAN) / SPREAD
    together = frames.reshape(len(frames), -1, group * config.bands)  # [N, T / group, group * bands]
    flat = together.reshape(-1, together.shape[-1]).astype(np.float64)
    vectors, bias = fsq.components(_GENTLE * flat, dims, turned)
    enter = {"kernel": vectors[None].astype(np.float32), "bias": bias.astype(np.float32)}
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
    linear = {"encoder": {**params["encoder"], "skip": enter}, "decoder": {**params["decoder"], "skip": leave}}
    return {**params, **linear}


def widened(params: dict[str, Any], fresh: dict[str, Any], old: Config, new: Config) -> dict[str, Any]:
    """`params` of a smaller or simpler codec as a start for another, whose own start is `fresh`.

    More codebooks: those that are there keep their weights; the others read the principal components that follow, out
    of what `closed_form` gave, and at first the decoder reads none of them. Fewer encoder blocks: the last are dropped.
    A correction that `params` has not, or has for fewer books, is that of `fresh`. ValueError for other differences.
    """
    same = replace(
        old,
        books=new.books,
        encoder_blocks=old.encoder_blocks[: len(new.encoder_blocks)],
        correction_width=new.correction_width,
        correction_blocks=new.correction_blocks,
    )
    if same != new:
        raise ValueError(
            f"cannot start a network {new} from the weights of {old}: only the number of books, fewer encoder_blocks"
            " and the correction may differ"
        )
    dropped = {f"block{i}" for i in range(len(new.encoder_blocks), len(old.encoder_blocks))}
    params = {**params, "encoder": {name: part for name, part in params["encoder"].items() if name not in dropped}}
    if new.correction_blocks and old != new:
        params["correction"] = fresh["correction"]
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

    wider = {
        "encoder": {**params["encoder"], "head": enter("head"), "skip": enter("skip")},
        "decoder": {**params["decoder"], "stem": leave("stem"), "skip": leave("skip")},
    }
    return {**wider, **({"correction": params["correction"]} if new.correction_blocks else {})}


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
