"""Finite scalar quantisation: every code is reachable, comes back, and lets gradients through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@given(st.lists(st.integers(0, 23), min_size=1, max_size=50))
def test_level_entropy_sums_the_entropies_of_the_digits(codes: list[int]) -> None:
    want = 0.0
    for digit in ([code % 4 for code in codes], [code // 4 for code in codes]):
        share = np.array([digit.count(value) for value in set(digit)]) / len(digit)
        want -= float((share * np.log2(share)).sum())
    assert fsq.level_entropy(np.array(codes), (4, 6)) == pytest.approx(want, abs=1e-9)


def test_levels_used_alike_give_all_the_bits() -> None:
    assert fsq.level_entropy(np.arange(240), (8, 6, 5)) == pytest.approx(np.log2(240))
    assert fsq.level_entropy(np.zeros(9, np.int32), (8, 6, 5)) == 0
