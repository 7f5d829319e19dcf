"""Finite scalar quantisation: every code is reachable, comes back, and lets gradients through."""

import jax
import jax.numpy as jnp
import numpy as np

from tokenizer.nets import fsq


def test_the_default_levels_make_15360_codes() -> None:
    assert fsq.num_codes() == 15_360


def test_every_code_is_its_own_point() -> None:
    codes = jnp.arange(fsq.num_codes())
    z = fsq.codes_to_z(codes)
    # Undo the squashing: quantising the point of a code gives that code
    latent = jnp.log((1 + z) / (1 - z)) / 1.702
    zq, again = fsq.quantize(latent)
    np.testing.assert_array_equal(again, codes)
    np.testing.assert_allclose(zq, z, atol=1e-5)


def test_a_normal_latent_uses_the_levels_about_equally() -> None:
    z = jnp.asarray(np.random.default_rng(0).normal(size=(20_000, 5)), jnp.float32)
    codes = np.asarray(fsq.quantize(z)[1])
    share = np.bincount(codes % 8, minlength=8) / len(codes)
    assert share.min() > 0.1 and share.max() < 0.15


def test_gradients_pass_through_the_rounding() -> None:
    gradient = jax.grad(lambda z: fsq.quantize(z)[0].sum())(jnp.zeros((3, 5)))
    assert np.all(np.asarray(gradient) > 0.5)


def test_latents_far_out_stay_inside_the_codebook() -> None:
    codes = np.asarray(fsq.quantize(jnp.asarray([[1e9] * 5, [-1e9] * 5]))[1])
    assert codes.tolist() == [15_359, 0]


def test_level_entropy_is_all_bits_of_codes_used_alike_and_none_of_one_code() -> None:
    assert abs(fsq.level_entropy(np.arange(fsq.num_codes())) - np.log2(fsq.num_codes())) < 1e-9
    assert fsq.level_entropy(np.full(10, 7)) == 0
    assert abs(fsq.level_entropy(np.array([0, 1, 0, 8]), (8, 8)) - 2 * 0.811278) < 1e-5  # a quarter, three quarters
