"""The jpeg-bytes codec: a picture as the bytes of its canonical JPEG file, joined to 320 codes by byte pairs (JPEG-LM,
Han et al. 2024, arXiv 2408.08459). No network; the vocabulary is a small file, learnt from training pictures.

Canonical: quality 25 as in the paper, 4:2:0, the standard Huffman tables, one scan, no metadata. All but height and
width of its 623 bytes of header are the same in each picture, so the two parts around those four bytes are a code each.

How many codes a picture takes depends on what is in it. Codes stand in rows of 64, as few as hold them, and the last
row is filled with a code of its own: T = h * w like any image item, and layouts that write a picture's height and width
write this grid. (Frames of a video must have one grid: this codec is for images only.)

What is exact: bytes -> codes -> bytes, on any machine, for any bytes (`encode_bytes`, `decode_bytes`). Pixels -> bytes
and bytes -> pixels are libjpeg's: the fingerprint holds what this libjpeg makes of a drawn picture, so that versions
which agree are one codec and others are not.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tokenizer import checkpoints
from tokenizer.byte_pairs import BytePairs
from tokenizer.codec import Codes, Shape
from tokenizer.image import ResizePolicy, resize

WEIGHTS = Path(__file__).parent / "weights"

QUALITY = 25
ROW = 64  # codes in a row of the grid
_BLOCK = 16  # pixels on a side of what 4:2:0 codes together
_MOST_BLOCKS = 4096  # 1024x1024 pixels: a larger picture is never taken as it is
_MOST_PIXELS = 1 << 26  # of what codes may decode to: a header that a model wrote may claim any size
_END = b"\xff\xd9"
# Raise it when the code that runs the vocabulary changes what comes out
_CODE_VERSION = 1


@dataclass(frozen=True, eq=False)
class JpegBytes:
    """An image codec without a network: codes [T, 1] with T = h * 64, each in [0, 320).

    A picture whose sides are multiples of 16 pixels, of at most 4,096 such squares, is encoded as it is; any other is
    resized by `policy` first.

    >>> load_codec("jpeg-bytes").encode(image).shape       # image uint8 [256, 256, 3]
    Shape(T=3840, K=1, t=1, h=60, w=64, rate=0.0)
    """

    name: str
    revision: int
    fingerprint: str
    vocabulary: BytePairs
    policy: Any = field(default_factory=ResizePolicy)  # `grid(height, width)` and `multiple`, as ResizePolicy
    kind: str = "image"
    exact: bool = False
    frames: bool = False  # whether pictures of one size have one grid, as those of a video must

    @classmethod
    def load(cls, name: str, revision: int, folder: Path = WEIGHTS) -> JpegBytes:
        """The codec whose vocabulary is `folder/NAME-REVISION.bpe`."""
        path = folder / f"{name}-{revision}.bpe"
        if not path.is_file():
            raise ValueError(f"no vocabulary at {path}")
        try:
            vocabulary = BytePairs.of(path.read_text("ascii"))
        except (ValueError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is no vocabulary of bytes: {error}") from None
        settings = {"quality": QUALITY, "subsampling": "4:2:0", "row": ROW, "libjpeg": _of_libjpeg()}
        return cls(name, revision, checkpoints.fingerprint(path, settings, revision, _CODE_VERSION), vocabulary)

    @property
    def codebooks(self) -> tuple[int, ...]:
        return (self.vocabulary.size + 1,)

    def with_policy(self, policy: Any) -> JpegBytes:
        """The same codec with another resize policy."""
        return replace(self, policy=policy)

    def shape(self, size: np.ndarray) -> Shape:
        """Of a picture itself, uint8 [H, W, 3]: as of a text, only encoding tells how many codes it takes."""
        if not isinstance(size, np.ndarray):
            raise ValueError(f"how many codes of {self.name} a picture takes depends on it: give the picture itself")
        return self.encode(size).shape

    def encode(self, medium: np.ndarray) -> Codes:
        """uint8 [H, W, 3] -> codes int32 [h * 64, 1] of its canonical JPEG."""
        image = medium if _on_blocks(medium) else resize(medium, self.policy)
        return replace(self.encode_bytes(canonical(image)), size=image.shape[:2])

    def encode_batch(self, media: Sequence[np.ndarray]) -> list[Codes]:
        """Pictures of any sizes, one after the other."""
        return [self.encode(image) for image in media]

    def decode(self, codes: Codes) -> np.ndarray:
        """codes int32 [T, 1] -> uint8 [H, W, 3]. What a model wrote may end too early or be broken: what is missing
        comes back gray, and ValueError says where no picture can be made of it."""
        return picture_of(self.decode_bytes(codes))

    def encode_bytes(self, data: bytes) -> Codes:
        """Any bytes, such as a JPEG file as it is -> codes int32 [h * 64, 1]; `decode_bytes` gives them back."""
        codes = self.vocabulary.encode(data)
        if not len(codes):
            raise ValueError("no bytes to encode")
        h = -(-len(codes) // ROW)
        filled = np.full((h * ROW, 1), self.vocabulary.size, np.int32)
        filled[: len(codes), 0] = codes
        return Codes(filled, Shape(T=h * ROW, K=1, t=1, h=h, w=ROW))

    def decode_bytes(self, codes: Codes) -> bytes:
        """codes int32 [T, 1] -> the bytes they spell, without filling."""
        values = codes.codes
        if values.ndim != 2 or values.shape[1] != 1:
            raise ValueError(f"{self.name} decodes codes [T, 1], got {list(values.shape)}")
        if values.size and (values.min() < 0 or values.max() > self.vocabulary.size):
            raise ValueError(f"{self.name} has codes 0 to {self.vocabulary.size}, got {values.min()} to {values.max()}")
        return self.vocabulary.decode(values[values != self.vocabulary.size])


def canonical(image: np.ndarray) -> bytes:
    """uint8 [H, W, 3] -> the bytes of its canonical JPEG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=QUALITY, subsampling="4:2:0", optimize=False, progressive=False)
    return file.getvalue()


def header_parts() -> tuple[bytes, bytes]:
    """What stands before and after the four bytes of height and width in the header of every canonical JPEG."""
    data = canonical(np.zeros((_BLOCK, _BLOCK, 3), np.uint8))
    sizes = data.index(b"\xff\xc0") + 5
    scan = data.index(b"\xff\xda")
    return data[:sizes], data[sizes + 4 : scan + 2 + int.from_bytes(data[scan + 2 : scan + 4], "big")]


def picture_of(data: bytes) -> np.ndarray:  # uint8 [H, W, 3]
    """The pixels of a JPEG file, whole or cut off; ValueError where no picture can be made of it."""
    from PIL import Image

    try:
        # An end that comes too early is one that libjpeg fills up to; a file that has its end takes no harm
        with Image.open(io.BytesIO(data + _END), formats=("JPEG",)) as file:
            if file.width * file.height > _MOST_PIXELS:
                raise ValueError(f"its header says {file.width} x {file.height} pixels")
            return np.array(file.convert("RGB"), np.uint8)
    # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, IndexError, ... on broken files
    except Exception as error:
        words = str(error)
        words = "it has no readable header" if "cannot identify image file" in words else words
        raise ValueError(f"these codes spell no JPEG picture ({len(data):,} bytes): {words}") from None


def _on_blocks(image: np.ndarray) -> bool:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"an image is uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    height, width = image.shape[:2]
    return not (height % _BLOCK or width % _BLOCK) and 0 < height * width <= _MOST_BLOCKS * _BLOCK**2


@functools.cache
def _of_libjpeg() -> str:
    """sha256 of the bytes, and of the pixels they come back as, that this libjpeg makes of a drawn picture."""
    y, x = np.mgrid[:48, :64]
    drawn = np.stack([x * 4, y * 5, (x * y) % 251], -1).astype(np.uint8)
    data = canonical(drawn)
    return hashlib.sha256(data + picture_of(data).tobytes()).hexdigest()
