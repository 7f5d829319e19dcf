"""How far a sound is from another, for training a head: three differentiable measures.

The L1 distance of log-mel frames is the figure that codecs are measured by. Spectra at three resolutions (Yamamoto et
al. 2020) ask for phases that agree from wave to wave. The correlation of band envelopes is the core of STOI (Taal et
al. 2011): a third of an octave a band, 30 envelope samples (0.4 s) at a time. None compares samples with samples: a
codec at these rates knows nothing of the original's phase.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from tokenizer.nets.layers import magnitudes

_WINDOWS = (256, 512, 1024)
_FLOOR = 1e-4  # magnitudes below it count as silence
_LOG_SHARE = 0.3  # of log distance against relative distance of magnitudes

_ENVELOPE_WINDOW, _ENVELOPE_HOP = 512, 205  # 12.8 ms from sample to sample, as in STOI
_SPAN = 30  # envelope samples that are correlated
_FIRST_HZ, _BANDS = 150.0, 15
_QUIET = 1e-4  # spans with less than this share of the loudest span's variance are left out


def spectral(found: jax.Array, wanted: jax.Array) -> jax.Array:
    """Sounds float32 [B, S] at 16 kHz -> scalar: log and relative distances of magnitudes, mean of three
    resolutions."""
    total = jnp.zeros(())
    for window in _WINDOWS:
        x, y = magnitudes(found, window, window // 4), magnitudes(wanted, window, window // 4)
        total += _LOG_SHARE * jnp.abs(jnp.log(x + _FLOOR) - jnp.log(y + _FLOOR)).mean()
        total += jnp.abs(x - y).sum() / (y.sum() + 1)
    return total / len(_WINDOWS)


def envelope(found: jax.Array, wanted: jax.Array) -> jax.Array:
    """Sounds float32 [B, S] at 16 kHz -> scalar in [0, 2]: one minus the mean correlation of band envelopes. Bands that
    hardly move, by less than 0.003, count as uncorrelated whatever is found."""
    x, y = _envelopes(found), _envelopes(wanted)
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)  # so that differences of sums stay exact
    mean_x, mean_y = _moving_mean(x), _moving_mean(y)
    covariance = _moving_mean(x * y) - mean_x * mean_y
    variance_x = jnp.maximum(_moving_mean(x * x) - mean_x**2, 0)
    variance_y = jnp.maximum(_moving_mean(y * y) - mean_y**2, 0)
    correlation = covariance * jax.lax.rsqrt(variance_x * variance_y + 1e-10)
    loudness = variance_y.sum(-1)  # [B, spans]
    counted = (loudness > _QUIET * loudness.max(1, keepdims=True)) & (loudness > 1e-7)
    return ((1 - correlation).mean(-1) * counted).sum() / (counted.sum() + 1)


def _envelopes(sound: jax.Array) -> jax.Array:  # [B, samples, bands]
    power = magnitudes(sound, _ENVELOPE_WINDOW, _ENVELOPE_HOP) ** 2
    return jnp.sqrt(power @ _band_matrix() + 1e-9)


def _band_matrix() -> np.ndarray:  # float32 [bins, bands]
    hz = np.arange(_ENVELOPE_WINDOW // 2 + 1)[:, None] * 16_000 / _ENVELOPE_WINDOW
    centres = _FIRST_HZ * 2 ** (np.arange(_BANDS) / 3)
    return ((hz >= centres * 2 ** (-1 / 6)) & (hz < centres * 2 ** (1 / 6))).astype(np.float32)


def _moving_mean(x: jax.Array) -> jax.Array:
    """[B, N, C] -> [B, N - _SPAN + 1, C]"""
    sums = jnp.cumsum(jnp.pad(x, ((0, 0), (1, 0), (0, 0))), 1)
    return (sums[:, _SPAN:] - sums[:, :-_SPAN]) / _SPAN
