"""The originals, driven without weights: processors of `transformers` over a tokenizer made here, and our items.

Importing this skips the module that does where torch or transformers is absent, so tests import it before anything of
theirs. What comes from the library: the whole text side of the processors, the image processors (those of Pillow), the
position functions, the vocabulary mappings and the masks. What does not: pixels of videos, whose processors need
torchvision, which does not fit that torch; `VideoGrids` stands in for one, with the library's own resizing rule.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

SKIP = "parity: torch and transformers are not installed (pip install 'mmdata[parity]')"
torch = pytest.importorskip("torch", reason=SKIP)
transformers = pytest.importorskip("transformers", reason=SKIP)

from PIL import Image  # noqa: E402
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers  # noqa: E402
from transformers.image_processing_utils import BatchFeature  # noqa: E402
from transformers.video_utils import VideoMetadata  # noqa: E402

from tokenizer.codec import CodecSpec, spec_of  # noqa: E402
from tokenizer.codecs import load_text_codec  # noqa: E402
from tokenizer.item import Item  # noqa: E402
from tokenizer.layout import Layout, Row, load_layout  # noqa: E402

CORPUS = ["a red cat sat on the mat", "the user sees 2 cats, naïve café", "你好 🙂 hello"] * 8


@dataclass(frozen=True)
class Picture:
    """An image of this size in pixels."""

    height: int
    width: int


@dataclass(frozen=True)
class Clip:
    """A video: frames sampled evenly from a file of so many frames a second and so many in all."""

    frames: int
    height: int
    width: int
    file_fps: float = 30.0
    total: int = 0  # 0: 15 for each that is taken

    @property
    def metadata(self) -> VideoMetadata:
        """What the library's decoder would say of it, with the frames that its processors take."""
        total = self.total or 15 * self.frames
        indices = [i * total // self.frames for i in range(self.frames)]
        return VideoMetadata(total_num_frames=total, fps=self.file_fps, frames_indices=indices)


Part = str | Picture | Clip
Document = Sequence[Part]


def tiny_tokenizer(
    specials: Sequence[str], named: dict[str, str] | None = None, begin: str = "", **roles: str
) -> transformers.PreTrainedTokenizerFast:
    """A byte-level BPE trained here, with a family's special tokens; `begin` is put first, as its tokenizer does."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    inner.train_from_iterator(CORPUS, trainer)
    inner.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in specials])
    if begin:
        inner.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, inner.token_to_id(begin))]
        )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, extra_special_tokens=named or {}, **roles)


def text_codec(tokenizer: transformers.PreTrainedTokenizerFast, folder: Path) -> Any:
    """Our text codec over the same tokenizer, by way of its file."""
    path = folder / "tokenizer.json"
    tokenizer.backend_tokenizer.save(str(path))
    return load_text_codec(str(path))


def bound(name: str, text: Any, *codecs: CodecSpec, after: str = "") -> Layout:
    """The shipped layout over the tokenizer made here; `after` in place of its own rule for what follows a grid."""
    spec = load_layout(name)
    if after:
        spec = replace(spec, positions=replace(spec.positions, after=after))
    return spec.bind([spec_of(text), *codecs], text=text)


def pixels(part: Picture) -> np.ndarray:  # uint8 [H, W, 3]
    """Noise of this size."""
    return np.random.default_rng(part.height).integers(0, 256, (part.height, part.width, 3), np.uint8)


def original_ids(processor: Any, parts: Document, image: str, video: str = "", **settings: Any) -> BatchFeature:
    """The processor over a document as one text with `image` and `video` where the media are; arrays [1, n]."""
    marks = {Picture: image, Clip: video}
    pictures = [Image.fromarray(pixels(part)) for part in parts if isinstance(part, Picture)]
    clips = [part for part in parts if isinstance(part, Clip)]
    if clips:
        processor.video_processor.clips = clips
        settings["videos"] = [np.zeros((1, 1, 1, 3), np.uint8) for _ in clips]  # only their number is looked at
    text = "".join(part if isinstance(part, str) else marks[type(part)] for part in parts)
    return processor(images=pictures or None, text=[text], return_tensors="pt", **settings)


def ids_of(features: BatchFeature) -> np.ndarray:  # int64 [n]
    """The ids of the one sample in a processor's answer."""
    return features["input_ids"][0].numpy()


def items(parts: Document, text: Any, coded: Callable[[Picture], Item] | None = None, role: str = "none") -> list[Item]:
    """The same document as we store it: soft media at their size, or images as `coded` makes them."""
    made = []
    for part in parts:
        if isinstance(part, str):
            codes = text.encode(part).codes
            made.append(Item("text", spec_of(text).name, codes, role=role))
        elif isinstance(part, Picture):
            item = coded(part) if coded else Item("image", "", None, (1, part.height, part.width))
            made.append(replace(item, role=role))
        else:
            made.append(soft_clip(part, role))
    return made


def soft_clip(clip: Clip, role: str = "none") -> Item:
    """A soft video with the times of its frames and its duration."""
    times = np.array(clip.metadata.timestamps, np.float32)
    end = clip.metadata.total_num_frames / clip.file_fps
    grid = (clip.frames, clip.height, clip.width)
    return Item("video", "", None, grid, start_s=0.0, end_s=end, times=times, role=role)


def rendered(layout: Layout, document: Sequence[Item]) -> Row:
    """Our row of a document, with some kept medium for each soft item."""
    return layout.render(document, media=medium)


def medium(item: Item) -> np.ndarray:  # uint8 [H, W, 3] or [frames, H, W, 3]
    """A black one, of the kept size."""
    shape = item.grid if item.kind == "video" else item.grid[1:]
    return np.zeros((*shape, 3), np.uint8)


class VideoGrids:
    """In place of a video processor: `grid` tells the patches (t, h, w) of a clip, and there are no pixels."""

    merge_size = 2
    temporal_patch_size = 2
    cap_pixels_per_frame = False

    def __init__(self, grid: Callable[[Clip], tuple[int, int, int]], patch: int, pixels: tuple[int, int]) -> None:
        self.grid = grid
        self.patch_size = patch
        self.size = {"shortest_edge": pixels[0], "longest_edge": pixels[1]}
        self.clips: list[Clip] = []

    def __call__(self, videos: Any, **settings: Any) -> BatchFeature:
        grids = torch.tensor([self.grid(clip) for clip in self.clips])
        return BatchFeature({"video_grid_thw": grids, "video_metadata": [clip.metadata for clip in self.clips]})

    def get_num_of_video_patches(self, frames: int, height: int, width: int, settings: Any = None) -> int:
        """Asked by the processors' own count of placeholders."""
        return math.prod(self.grid(Clip(frames, height, width)))


def without_weights(kind: type, **vision: Any) -> Any:
    """A model that was never initialised, with the part of its config that its position functions read."""
    model = kind.__new__(kind)
    vars(model)["config"] = SimpleNamespace(vision_config=SimpleNamespace(**vision))
    return model
