"""The network of the speech codecs: groups, padding, and how more codebooks begin with the weights of fewer."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokenizer.nets import speech_fsq
from tokenizer.nets.speech_fsq import Config

SMALL = Config(width=8, encoder_blocks=(1,), decoder_blocks=(1, 2))
CORRECTED = replace(SMALL, correction_width=8, correction_blocks=(1, 2))


def frames(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(-5, 2, (4, count, 80)).astype(np.float32)


def trained(config: Config) -> dict[str, object]:
    return speech_fsq.closed_form(speech_fsq.init(0, config), frames(40), config)


def shaken(params: dict[str, object]) -> dict[str, object]:
    """Every weight a little elsewhere: blocks are no identity, biases not zero, as after a training."""
    random = np.random.default_rng(3)
    return jax.tree.map(lambda x: np.float32(x + 0.2 * random.normal(size=x.shape)), params)


def decoded(
    params: dict[str, object], x: np.ndarray, mask: np.ndarray, config: Config
) -> tuple[np.ndarray, np.ndarray]:
    zq, codes = speech_fsq.quantize(speech_fsq.latents(params, x, mask, config), config)
    return np.asarray(codes), np.asarray(speech_fsq.decode_z(params, zq, mask, config)[1])


def test_the_closed_form_alone_is_a_codec() -> None:
    """Frames with few dimensions come back nearer than their mean does."""
    mixing = np.random.default_rng(1).normal(size=(3, 80))
    slow = np.repeat(np.random.default_rng(2).normal(size=(16, 20, 3)), 2, 1)
    x = np.float32(-5 + slow @ mixing)
    params = speech_fsq.closed_form(speech_fsq.init(0, SMALL), x, SMALL)
    _, back = decoded(params, x, np.ones(x.shape[:2], np.float32), SMALL)
    assert np.abs(back - x).mean() < 0.35 * np.abs(x - x.mean((0, 1))).mean()


def test_what_lies_behind_the_mask_changes_nothing() -> None:
    params, x = shaken(trained(SMALL)), frames(12)
    mask = np.ones((4, 12), np.float32)
    mask[:, 7:] = 0
    other = x.copy()
    other[:, 7:] = 3
    for found, wanted in zip(decoded(params, x, mask, SMALL), decoded(params, other, mask, SMALL), strict=True):
        np.testing.assert_array_equal(found[:, :7], wanted[:, :7])


def test_padding_changes_nothing_however_long() -> None:
    params, x = shaken(trained(SMALL)), frames(20)
    mask = np.ones((4, 20), np.float32)
    mask[:, 7:] = 0
    codes, back = decoded(params, x, mask, SMALL)
    short_codes, short = decoded(params, x[:, :8], mask[:, :8], SMALL)
    np.testing.assert_array_equal(short_codes[:, :7], codes[:, :7])
    np.testing.assert_allclose(short[:, :7], back[:, :7], atol=1e-3)


@pytest.mark.parametrize("config", [SMALL, CORRECTED])
def test_reach_is_as_far_as_a_frame_is_felt(config: Config) -> None:
    params, x = shaken(trained(config)), frames(120)[:1]
    changed = x.copy()
    changed[0, 60] += 5
    mask = np.ones((1, 120), np.float32)
    z, other = (np.asarray(speech_fsq.latents(params, values, mask, config)) for values in (x, changed))
    felt = np.flatnonzero(np.abs(z - other).max(-1)[0] > 1e-6)
    assert felt.min() >= 60 - config.encoder_reach and felt.max() <= 60 + config.encoder_reach
    zq = np.zeros((1, 120, config.dims), np.float32)
    moved = zq.copy()
    moved[0, 60] = 1
    far = [np.asarray(speech_fsq.decode_z(params, values, mask, config)[1]) for values in (zq, moved)]
    felt = np.flatnonzero(np.abs(far[0] - far[1]).max(-1)[0] > 1e-6)
    assert felt.min() >= 60 - config.decoder_reach and felt.max() <= 60 + config.decoder_reach


def test_a_correction_moves_codes_and_is_trained_alone_through_what_is_missing() -> None:
    """The decoder and the first encoder get no gradient through what the first codes decode to."""
    params, x, mask = shaken(trained(CORRECTED)), frames(12), np.ones((4, 12), np.float32)
    first = {name: part for name, part in params.items() if name != "correction"}
    plain = speech_fsq.latents(first, x, mask, SMALL)
    assert np.abs(np.asarray(speech_fsq.latents(params, x, mask, CORRECTED) - plain)).max() > 0.1
    gradient = jax.grad(lambda p: speech_fsq.latents(p, x, mask, CORRECTED).sum())(params)
    norms = {name: max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(part)) for name, part in gradient.items()}
    assert norms["decoder"] == 0 and norms["correction"] > 0 and norms["encoder"] > 0


def test_more_codebooks_begin_where_fewer_ended() -> None:
    two = Config(books=2, width=8, encoder_blocks=(1,), decoder_blocks=(1, 2))
    one = trained(SMALL)
    params = speech_fsq.widened(one, trained(two), SMALL, two)
    x, mask = frames(20, 5), np.ones((4, 20), np.float32)
    codes, back = decoded(one, x, mask, SMALL)
    wide, again = decoded(params, x, mask, two)
    np.testing.assert_array_equal(wide[..., 0], codes[..., 0])
    np.testing.assert_allclose(again, back, atol=1e-4)
    assert len(np.unique(wide[..., 1])) > 10  # the second book says something from the beginning


def test_a_correction_and_fewer_encoder_blocks_begin_with_what_is_there() -> None:
    deep = replace(SMALL, encoder_blocks=(1, 2))
    before = shaken(trained(deep))
    params = speech_fsq.widened(before, trained(CORRECTED), deep, CORRECTED)
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, speech_fsq.init(0, CORRECTED))
    np.testing.assert_array_equal(
        params["encoder"]["block0"]["conv"]["kernel"], before["encoder"]["block0"]["conv"]["kernel"]
    )
    again = speech_fsq.widened(params, trained(CORRECTED), CORRECTED, CORRECTED)
    np.testing.assert_array_equal(again["correction"]["stem"]["kernel"], params["correction"]["stem"]["kernel"])


def test_another_network_cannot_be_widened() -> None:
    other = Config(width=16)
    with pytest.raises(
        ValueError, match="only the number of books, fewer encoder_blocks and the correction may differ"
    ):
        speech_fsq.widened(trained(SMALL), trained(SMALL), SMALL, other)


def test_codes_give_the_numbers_that_were_quantised() -> None:
    config = Config(books=2)
    z = jnp.asarray(np.random.default_rng(0).normal(size=(1, 6, config.dims)), jnp.float32)
    zq, codes = speech_fsq.quantize(z, config)
    np.testing.assert_allclose(speech_fsq.codes_to_z(codes, config), zq, atol=1e-6)
