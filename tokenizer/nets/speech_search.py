"""A search for better codes of a speech codec: the decoder stays, the codes decode nearer to the sound.

Analysis by synthesis by exact descent. A move is one number of a frame's codes one level up or down. In each round the
gradient of the distance names for every frame the move that promises most; the moves are then tried, those of frames
that lie so far apart that no decoded frame feels two of them at once, and each that brings the decoded frames nearer to
the sound's stays. So the distance never grows, and it falls by 8 % in four rounds where gradient descent on the latents
(`image_fsq.search`) brings 4 to 5 % at the same cost (docs/log.md): a move of a level is what rounding lets through.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from tokenizer.nets import fsq, speech_fsq
from tokenizer.nets.speech_fsq import Config

_LEAST = 1e-4  # nats by which the sum over the frames that feel a move must fall: more than sums in float32 are off
_NEVER = -1e9  # worse than any move promises


def search(params: dict[str, Any], frames: jax.Array, mask: jax.Array, rounds: int, config: Config) -> jax.Array:
    """log-mel float32 [B, T, bands], mask [B, T] -> codes int32 [B, T, books] whose decoded frames are no farther from
    `frames` (L1) than those of the encoder's codes; the encoder's with `rounds` 0. Each sound's depend on it alone."""
    levels = jnp.asarray(config.levels * config.books, jnp.float32)
    codes = speech_fsq.quantize(speech_fsq.latents(params, frames, mask, config), config)[1]
    digits = jnp.concatenate([fsq.split_digits(codes[..., k], config.levels) for k in range(config.books)], -1)
    digits = digits.astype(jnp.float32)
    batch, count = mask.shape
    # Frames that move together: whole groups apart, so that each decoded frame feels one of them at most
    apart = -(-(2 * config.decoder_reach + 1) // config.group) * config.group

    def distances(digits: jax.Array) -> jax.Array:  # [B, T]
        decoded = speech_fsq.decode_z(params, (2 * digits + 1) / levels - 1, mask, config)[1]
        return jnp.abs(decoded - frames).mean(-1) * mask

    def near(values: jax.Array) -> jax.Array:
        """Of each frame, the sum over the frames that feel it."""
        window = 2 * config.decoder_reach + 1
        return jax.lax.reduce_window(values, 0.0, jax.lax.add, (1, window), (1, 1), "SAME")

    def try_moves(start: jax.Array, state: Any) -> Any:
        digits, distance, refused, moves, chosen = state
        here = (jnp.arange(count) % apart == start)[None, :] & (mask > 0)
        tried = distances(digits + moves * here[..., None])
        better = here & (near(tried - distance) < -_LEAST)
        digits = digits + moves * better[..., None]
        distance = jnp.where(near(better.astype(jnp.float32)) > 0.5, tried, distance)
        # What was refused is not tried again until the frame has changed
        refused = jnp.where(better[..., None], False, refused | (chosen & here[..., None]))
        return digits, distance, refused, moves, chosen

    def one_round(_: jax.Array, state: Any) -> Any:
        digits, distance, refused = state
        slope = jax.grad(lambda digits: distances(digits).sum())(digits)
        promised = jnp.concatenate([slope, -slope], -1)  # of a level down, of a level up
        possible = jnp.concatenate([digits > 0, digits < levels - 1], -1) & ~refused
        best = jnp.argmax(jnp.where(possible, promised, _NEVER), -1)
        chosen = jax.nn.one_hot(best, promised.shape[-1], dtype=bool) & possible
        down, up = jnp.split(chosen, 2, -1)
        moves = up.astype(jnp.float32) - down.astype(jnp.float32)
        return jax.lax.fori_loop(0, apart, try_moves, (digits, distance, refused, moves, chosen))[:3]

    refused = jnp.zeros((batch, count, 2 * config.dims), bool)
    digits = jax.lax.fori_loop(0, rounds, one_round, (digits, distances(digits), refused))[0]
    books = jnp.split(digits.astype(jnp.int32), config.books, -1)
    return jnp.stack([fsq.join_digits(book, config.levels) for book in books], -1)
