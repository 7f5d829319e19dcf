"""What becomes of a part before a codec sees it: JPEG files decoded small or whole come to one grid."""

import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.build.media import MediaSettings, decode, original
from pipelines.build.recipe import parse_recipe
from pipelines.build.settings import limits_of
from pipelines.ingest import decode_image as decode_image_module
from pipelines.ingest.document import Part
from pipelines.ingest.media import MediaError


def media_settings(multiple: int = 16, **image: Any) -> MediaSettings:
    recipe = parse_recipe({"image": image, "source": [{"name": "a", "format": "text", "path": "."}]}, Path())
    resizing = {kind: recipe.resizing(kind, multiple) for kind in ("image", "video")}
    return MediaSettings(recipe.image, recipe.video, 16_000, resizing, limits_of(recipe))


def jpeg(height: int, width: int) -> bytes:
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + y) % 64 * 2], -1).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=92)
    return file.getvalue()


@settings(max_examples=25, deadline=None)
@example(806, 549, "bucket")  # its half, with rounded sides, would be nearer to another ratio
@example(776, 419, "area")  # ... and be rounded to another grid
@given(st.integers(20, 700), st.integers(20, 700), st.sampled_from(["bucket", "crop", "area"]))
def test_a_jpeg_decoded_small_comes_to_the_grid_of_the_whole_one(height: int, width: int, policy: str) -> None:
    extra: dict[str, Any] = {"max_pixels": 40_000} if policy == "area" else {"tokens": 64}
    scaled = media_settings(policy=policy, **extra)
    whole = replace(scaled, image=scaled.image.model_copy(update={"jpeg": "whole"}))
    part = Part("image", data=jpeg(height, width))
    (small,), (full,) = decode(part, scaled).media, decode(part, whole).media
    assert small.shape == full.shape
    assert np.abs(small.astype(int) - full).mean() < 6


def test_whole_is_what_it_was_and_scaled_is_not() -> None:
    part = Part("image", data=jpeg(512, 512))
    (whole,) = decode(part, media_settings(jpeg="whole")).media
    file = Image.open(io.BytesIO(part.read()))
    np.testing.assert_array_equal(whole, np.asarray(file.resize((256, 256), Image.Resampling.LANCZOS)))
    (scaled,) = decode(part, media_settings()).media
    small = Image.open(io.BytesIO(part.read()))
    small.draft("RGB", (256, 256))
    np.testing.assert_array_equal(scaled, np.asarray(small))
    assert (scaled != whole).any()


def test_a_picture_that_no_grid_fits_is_over_the_limit() -> None:
    part = Part("image", data=jpeg(4, 1_000))
    with pytest.raises(MediaError, match=r"over limit: .*1:200"):
        decode(part, media_settings(policy="area"))


def picture(path: Path, height: int = 64) -> str:
    path.write_bytes(jpeg(height, 64))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_with_other_bytes_than_before_gives_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    digest, part = picture(path), Part("image", path=path)
    assert len(decode(part, media_settings(), digest).media) == 1 and original(part, digest) == path.read_bytes()
    picture(path, 32)
    for read in (lambda: decode(part, media_settings(), digest), lambda: original(part, digest)):
        with pytest.raises(MediaError, match="changed while the build ran"):
            read()


@pytest.mark.parametrize("change", ["other", "half", "gone"])
def test_a_file_that_changes_while_it_is_decoded_gives_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    path = tmp_path / "a.jpg"
    digest, decode_image = picture(path), decode_image_module.decode_image

    def late(*args: Any, **options: Any) -> np.ndarray:
        if change == "gone":
            path.unlink()
        else:
            path.write_bytes(jpeg(32, 64) if change == "other" else path.read_bytes()[:900])
        return decode_image(*args, **options)

    monkeypatch.setattr(decode_image_module, "decode_image", late)
    with pytest.raises(MediaError, match="changed while the build ran"):
        decode(Part("image", path=path), media_settings(), digest)
