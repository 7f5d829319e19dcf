"""The image front end and the image-fsq codecs: a picture of any size to a grid of codes and back.

A picture is first brought to one of a few grids (`resize`), so that few shapes are ever compiled; then the network of
`tokenizer.nets.image_fsq` runs on it under jit, in batches of one fixed size. Decoding media files is not done here.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from tokenizer import checkpoints
from tokenizer.codec import Codes, Shape

WEIGHTS = Path(__file__).parent / "weights"

# Height to width of the buckets: nine steps of a third of an octave, 2:5 to 5:2
_RATIOS = tuple(2.0 ** (k / 3) for k in range(-4, 5))
POLICIES = ("bucket", "crop", "stretch", "area")
_SIDE = 256  # pixels: a square picture comes to this size unless the caller says otherwise
_LONGEST = 200  # of policy "area": the longer side to the shorter (MAX_RATIO of qwen-vl-utils)
_MOST_PIXELS = 1024 * 1024  # a larger picture is never taken as it is, whatever its size
# Raise it when the code that runs the weights changes what comes out
_CODE_VERSION = 1
_PREPROCESSING = {"filter": "lanczos", "fit": "cover and crop the middle", "scale": "x / 127.5 - 1"}


@dataclass(frozen=True)
class ResizePolicy:
    """How a picture comes to a grid of `multiple`-pixel codes, or of patches where it is kept without codes.

    "bucket": the nearest aspect ratio of nine, at most `tokens` codes; at most an eighth of a side is cropped off (a
    fifth on the coarse grids of small pictures), except from pictures longer than 5:2, which lose their ends. A small
    picture takes a quarter or a sixteenth of the codes, so that it is seldom enlarged more than twice.
    "crop": the middle square.
    "stretch": `size` = (height, width) pixels whatever the picture's shape, as SigLIP and so Gemma 3 take it.
    "area": the shape is kept but for rounding: each side to its nearest multiple, the area between `min_pixels` and
    `max_pixels` (the rule of Qwen2-VL's `smart_resize`).
    """

    kind: str = "bucket"
    tokens: int = 256
    multiple: int = 16
    size: tuple[int, int] = (0, 0)
    min_pixels: int = 3_136
    max_pixels: int = 1_003_520

    def __post_init__(self) -> None:
        if self.kind not in POLICIES:
            raise ValueError(f"no resize policy {self.kind!r}; the policies are {', '.join(map(repr, POLICIES))}")
        if self.tokens < 1 or self.multiple < 1:
            raise ValueError(f"tokens {self.tokens} and multiple {self.multiple} must be at least 1")
        if self.kind == "stretch" and (min(self.size) < 1 or any(side % self.multiple for side in self.size)):
            raise ValueError(f"size is {list(self.size)}: give [height, width] in multiples of {self.multiple} pixels")
        if self.kind == "area" and self.max_pixels < max(self.min_pixels, self.multiple**2):
            raise ValueError(
                f"max_pixels is {self.max_pixels:,}: it must be at least min_pixels ({self.min_pixels:,}) and a"
                f" square of {self.multiple} x {self.multiple}"
            )

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) in codes for a picture of this size in pixels. ValueError for sides that no grid of "area" fits."""
        if height < 1 or width < 1:
            raise ValueError(f"a picture of {height}x{width} pixels has no grid")
        if self.kind == "crop":
            side = max(1, math.isqrt(self.tokens))
            return side, side
        if self.kind == "stretch":
            return self.size[0] // self.multiple, self.size[1] // self.multiple
        if self.kind == "area":
            return self._area_grid(height, width)
        tokens = self.tokens
        for _ in range(2):
            if tokens < 16 or 4 * height * width >= tokens * self.multiple**2:
                break
            tokens //= 4
        shape = math.log(height / width)
        return min(_buckets(tokens), key=lambda g: (abs(math.log(g[0] / g[1]) - shape), g))

    def _area_grid(self, height: int, width: int) -> tuple[int, int]:
        """Both sides scaled by one factor where the rounded area passes a bound, then rounded away from that bound."""
        if max(height, width) > _LONGEST * min(height, width):
            raise ValueError(f"{height} x {width} pixels; policy 'area' takes sides of 1:{_LONGEST} at the most")
        h, w = (max(1, round(side / self.multiple)) for side in (height, width))  # halves to even, as published
        pixels = h * w * self.multiple**2
        if pixels > self.max_pixels:
            scale = math.sqrt(height * width / self.max_pixels)
            h, w = (max(1, math.floor(side / scale / self.multiple)) for side in (height, width))
        elif pixels < self.min_pixels:
            scale = math.sqrt(self.min_pixels / (height * width))
            h, w = (math.ceil(side * scale / self.multiple) for side in (height, width))
        return h, w

    def grids(self) -> tuple[tuple[int, int], ...]:
        """Every grid that this policy can give; ValueError for "area", which has one for each shape."""
        if self.kind == "area":
            raise ValueError("policy 'area' has a grid for each shape of picture: too many to list")
        if self.kind != "bucket":
            return (self.grid(1, 1),)
        levels = [self.tokens]
        while len(levels) < 3 and levels[-1] >= 16:
            levels.append(levels[-1] // 4)
        return tuple(sorted({grid for tokens in levels for grid in _buckets(tokens)}))


def resize(image: np.ndarray, policy: ResizePolicy = ResizePolicy()) -> np.ndarray:
    """uint8 [H, W, 3] -> uint8 [h*multiple, w*multiple, 3]: Lanczos. "bucket" and "crop" cover the grid and keep the
    middle; "stretch" and "area" keep all of the picture.

    A picture which already has the size of its grid comes back as it is.
    """
    from PIL import Image

    _check(image)
    height, width = image.shape[:2]
    h, w = (side * policy.multiple for side in policy.grid(height, width))
    if (h, w) == (height, width):
        return image
    if policy.kind in ("stretch", "area"):
        return np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.LANCZOS))
    scale = min(height / h, width / w)
    top, left = max(0.0, (height - h * scale) / 2), max(0.0, (width - w * scale) / 2)
    # Rounding may put a side a hair outside, which Pillow refuses.
    box = (left, top, min(float(width), left + w * scale), min(float(height), top + h * scale))
    return np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.LANCZOS, box=box))


@dataclass(frozen=True, eq=False)
class ImageFsq:
    """An image codec of `tokenizer.nets.image_fsq`: one codebook, `step` x `step` pixels a code, codes row by row.

    A picture whose sides are multiples of `step` pixels, of at most 1024x1024 pixels, is on the grid and is encoded as
    it is, so that a caller may `resize` first by a policy of its own. Any other is resized by `policy`.

    >>> codec = load_codec("image-fsq16")
    >>> codec.encode(image).shape       # image uint8 [300, 451, 3]
    Shape(T=234, K=1, t=1, h=13, w=18, rate=0.0)
    """

    name: str
    revision: int
    fingerprint: str
    params: Any
    config: Any  # tokenizer.nets.image_fsq.Config
    policy: ResizePolicy = field(default_factory=ResizePolicy)
    kind: str = "image"
    exact: bool = False
    rounds: int = 0  # of the search for better codes, see `searching`

    @classmethod
    def load(cls, name: str, revision: int, folder: Path = WEIGHTS) -> ImageFsq:
        """The codec whose weights are `folder/NAME-REVISION.safetensors`; ValueError where they are not for it."""
        import jax

        from tokenizer.nets import image_fsq

        path = folder / f"{name}-{revision}.safetensors"
        config = checkpoints.read_config(path, image_fsq.Config, [f.name for f in fields(image_fsq.Config)])
        params, _ = checkpoints.load(path, image_fsq.shapes(config))
        digest = checkpoints.fingerprint(path, _PREPROCESSING, revision, _CODE_VERSION)
        policy = ResizePolicy(tokens=(_SIDE // config.step) ** 2, multiple=config.step)
        return cls(name, revision, digest, jax.device_put(params), config, policy)

    @property
    def codebooks(self) -> tuple[int, ...]:
        return (math.prod(self.config.levels),)

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels of each number of the quantiser: a code's digits, the first the least significant."""
        return tuple(self.config.levels)

    @property
    def step(self) -> int:
        """Pixels a code, each way."""
        return int(self.config.step)

    def with_policy(self, policy: ResizePolicy) -> ImageFsq:
        """The same codec with another resize policy, such as fewer codes for the frames of a video."""
        return replace(self, policy=policy)

    def searching(self, rounds: int = 8) -> ImageFsq:
        """The codec that looks for codes which decode nearer to each picture (`image_fsq.search`): a better picture for
        as many codes, and some ten times the time to encode. It has a name of its own, NAME-search."""
        digest = hashlib.sha256(f"{self.fingerprint} search {rounds}".encode()).hexdigest()
        return replace(self, name=f"{self.name}-search", fingerprint=digest, rounds=rounds)

    def shape(self, size: tuple[int, int]) -> Shape:
        """Of a picture of (height, width) pixels."""
        h, w = self._grid_of(size) or self.policy.grid(*size[:2])
        return Shape(T=h * w, K=1, t=1, h=h, w=w)

    def encode(self, medium: np.ndarray) -> Codes:
        """uint8 [H, W, 3] -> codes int32 [h*w, 1]"""
        return self.encode_batch([medium])[0]

    def encode_batch(self, media: Sequence[np.ndarray]) -> list[Codes]:
        """Pictures of any sizes; those of one grid run together. Each gives the codes it gives alone."""
        for image in media:
            _check(image)
        images = [image if self._grid_of(image.shape) else resize(image, self.policy) for image in media]
        encode = _search_function(self.config, self.rounds) if self.rounds else _functions(self.config)[0]
        return [self._as_codes(grid) for grid in self._run(encode, images, np.uint8)]

    def decode(self, codes: Codes) -> np.ndarray:
        """codes int32 [h*w, 1] -> uint8 [step*h, step*w, 3]"""
        return self.decode_batch([codes])[0]

    def decode_batch(self, batch: Sequence[Codes]) -> list[np.ndarray]:
        """Several pictures back at once, such as the frames of a video."""
        return self._run(_functions(self.config)[1], [self._grid(codes) for codes in batch], np.int32)

    def _grid(self, codes: Codes) -> np.ndarray:
        h, w = codes.shape.h, codes.shape.w
        values = codes.codes
        if values.shape != (h * w, 1):
            raise ValueError(f"{self.name} decodes codes [h*w, 1]; got {list(values.shape)} for a grid of {h}x{w}")
        if values.size and (values.min() < 0 or values.max() >= self.codebooks[0]):
            raise ValueError(
                f"{self.name} has codes 0 to {self.codebooks[0] - 1}, got {values.min()} to {values.max()}"
            )
        return values.reshape(h, w)

    def _grid_of(self, size: tuple[int, ...]) -> tuple[int, int] | None:
        """(h, w) of a picture that lies on the grid already, else None."""
        height, width = size[:2]
        h, w = height // self.step, width // self.step
        on_grid = (self.step * h, self.step * w) == (height, width)
        return (h, w) if on_grid and 1 <= height * width <= _MOST_PIXELS else None

    def _as_codes(self, grid: np.ndarray) -> Codes:
        h, w = grid.shape
        values = np.ascontiguousarray(grid.reshape(-1, 1), np.int32)
        return Codes(values, Shape(T=h * w, K=1, t=1, h=h, w=w), size=(self.step * h, self.step * w))

    def _run(self, function: Any, arrays: list[np.ndarray], dtype: type) -> list[np.ndarray]:
        """Apply to arrays of mixed shapes, in order: equal shapes together, in batches padded to the fixed size."""
        same: dict[tuple[int, ...], list[int]] = {}
        for i, array in enumerate(arrays):
            same.setdefault(array.shape, []).append(i)
        results: dict[int, np.ndarray] = {}
        size = _batch_size()
        for shape, places in same.items():
            for start in range(0, len(places), size):
                some = places[start : start + size]
                batch: np.ndarray = np.zeros((size, *shape), dtype)
                batch[: len(some)] = [arrays[i] for i in some]
                results.update(zip(some, np.asarray(function(self.params, batch)), strict=False))
        return [results[i] for i in range(len(arrays))]


@functools.cache
def _functions(config: Any) -> tuple[Any, Any]:
    """Compiled (encode uint8 [B, H, W, 3] -> int32 [B, h, w], decode int32 [B, h, w] -> uint8 [B, H, W, 3])."""
    import jax
    import jax.numpy as jnp

    from tokenizer.nets import image_fsq

    def encode(params: Any, images: jax.Array) -> jax.Array:
        return image_fsq.encode(params, images.astype(jnp.float32) / 127.5 - 1, config)

    def decode(params: Any, codes: jax.Array) -> jax.Array:
        pixels = (image_fsq.decode(params, codes, config) + 1) * 127.5
        return jnp.clip(jnp.round(pixels), 0, 255).astype(jnp.uint8)

    return jax.jit(encode), jax.jit(decode)


@functools.cache
def _search_function(config: Any, rounds: int) -> Any:
    """Compiled: encode uint8 [B, H, W, 3] -> int32 [B, h, w]."""
    import jax
    import jax.numpy as jnp

    from tokenizer.nets import image_fsq

    def encode(params: Any, images: jax.Array) -> jax.Array:
        return image_fsq.search(params, images.astype(jnp.float32) / 127.5 - 1, rounds, config)

    return jax.jit(encode)


@functools.cache
def _batch_size() -> int:
    """Pictures run together: a constant of the backend, so that it never changes a code."""
    import jax

    return 1 if jax.default_backend() == "cpu" else 16


@functools.cache
def _buckets(tokens: int) -> tuple[tuple[int, int], ...]:
    """For each ratio the grid of at most `tokens` codes: the largest area, less twice what its ratio is off.

    The upright grids are the lying ones turned, so a picture and its transpose have as many codes.
    """
    lying = []
    for ratio in _RATIOS[: len(_RATIOS) // 2]:
        choices = [(h, min(tokens // h, round(h / ratio))) for h in range(1, math.isqrt(tokens) + 1)]
        lying.append(max(choices, key=lambda g: (math.log(g[0] * g[1]) - 2 * abs(math.log(g[0] / g[1] / ratio)), g)))
    side = math.isqrt(tokens)
    return tuple(dict.fromkeys([*lying, (side, side), *((w, h) for h, w in reversed(lying))]))


def _check(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"an image is uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
