"""Figures of training are those of the libraries that codecs are measured with."""

import jax.numpy as jnp
import numpy as np
import pytest

from pipelines.fit.evaluate_images import psnr as measured_psnr
from pipelines.fit.image_loss import log_error, psnr, ssim


def pictures(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two uint8 [2, 40, 56, 3], the second the first with noise."""
    random = np.random.default_rng(seed)
    smooth = random.integers(0, 256, (2, 10, 14, 3)).repeat(4, 1).repeat(4, 2)
    noise = random.normal(0, 12 + 10 * seed, smooth.shape)
    return smooth.astype(np.uint8), np.clip(smooth + noise, 0, 255).astype(np.uint8)


def scaled(image: np.ndarray) -> jnp.ndarray:
    return jnp.asarray(image, jnp.float32) / 127.5 - 1


@pytest.mark.parametrize("seed", range(3))
def test_similarity_is_that_of_scikit_image(seed: int) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    a, b = pictures(seed)
    wanted = np.mean([metrics.structural_similarity(x, y, channel_axis=-1, data_range=255) for x, y in zip(a, b)])
    assert float(ssim(scaled(a), scaled(b))) == pytest.approx(wanted, abs=1e-4)


def test_psnr_is_that_of_evaluation_and_clips() -> None:
    a, b = pictures(1)
    wanted = np.mean([measured_psnr(x, y) for x, y in zip(a, b)])
    assert float(psnr(scaled(a), scaled(b))) == pytest.approx(wanted, abs=1e-3)
    white = jnp.ones((1, 8, 8, 3))
    assert float(psnr(white, 2 * white)) == float(psnr(white, white)) > 80


def test_flat_and_busy_crops_count_alike() -> None:
    a, b = pictures(1)
    each = [float(log_error(scaled(a[i : i + 1]), scaled(b[i : i + 1]))) for i in range(2)]
    assert float(log_error(scaled(a), scaled(b))) == pytest.approx(np.mean(each), abs=1e-5)
