"""Rows and positions of qwen2.5-vl and qwen3-vl against the processors and `get_rope_index` of Qwen2, 2.5 and 3-VL.

Qwen2-VL has no layout of its own: its images are those of 2.5, and so are its videos when a grid of two frames lasts
one step of 2.5's clock (4 frames a second, two steps a second).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.parity.originals import (
    Clip,
    Document,
    Picture,
    VideoGrids,
    bound,
    items,
    original_ids,
    rendered,
    text_codec,
    tiny_tokenizer,
    torch,
    without_weights,
)
from tokenizer.image import ResizePolicy
from tokenizer.item import Item
from tokenizer.layout import Layout

from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel  # isort: skip
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor  # isort: skip
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize  # isort: skip
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLModel  # isort: skip
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor  # isort: skip
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLModel  # isort: skip
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor  # isort: skip
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor  # isort: skip
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize as smart_resize_clip  # isort: skip

pytestmark = pytest.mark.extras

SPECIALS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"
TOKENS_A_SECOND = 2  # of the positions of 2.5, in the config of its checkpoints

IMAGES: tuple[Document, ...] = (  # sides of 224 pixels hold whole numbers of places of 28 and of 32
    ("a red cat", Picture(448, 224), "sat on the mat, naïve 你好 🙂"),
    (Picture(224, 448),),
    (Picture(448, 448), Picture(224, 672), " cats"),
    ("two", Picture(448, 224), "and", Picture(224, 448)),
    ("any size", Picture(500, 333), "at all", Picture(97, 1021), Picture(40, 30)),
)
VIDEOS: tuple[Document, ...] = (
    ("see", Clip(8, 448, 224), "what"),
    (Clip(5, 224, 448, file_fps=24, total=120), "odd"),
    ("see", Clip(2, 448, 448, file_fps=29.97, total=20)),
    (Clip(12, 448, 224, file_fps=29.97, total=84), "fractional"),
    ("slow", Clip(4, 224, 672, file_fps=25, total=200), "end"),
    ("see", Picture(224, 448), "and", Clip(6, 448, 224, file_fps=25, total=48), "then", Picture(448, 224)),
    (Clip(8, 448, 224, file_fps=30, total=100), "uneven", Clip(8, 224, 448, file_fps=30, total=24)),
    (Clip(4, 448, 224), "and", Clip(6, 224, 448, file_fps=60, total=300)),
)


@dataclass(frozen=True)
class Family:
    """One of the three, configured as its checkpoints are."""

    video: str  # what stands for a video in a prompt
    layout: Layout
    text: Any
    processor: Any
    model: Any
    policy: ResizePolicy  # that our recipe has for its images
    end: int

    def kept(self, part: Picture) -> Item:
        """A picture at the size that a build of ours keeps it at."""
        multiple = self.policy.multiple
        height, width = self.policy.grid(part.height, part.width)
        return Item("image", "", None, (1, height * multiple, width * multiple))

    def original(self, document: Document) -> tuple[np.ndarray, np.ndarray]:  # int [n], int [3, n]
        """Ids of a document with an end, which the processor leaves out, and the model's positions of them."""
        features = original_ids(self.processor, document, IMAGE, self.video)
        ids = torch.cat([features["input_ids"], torch.tensor([[self.end]])], dim=1)
        kinds = torch.cat([features["mm_token_type_ids"], torch.tensor([[0]])], dim=1)
        grids = {name: features.get(name) for name in ("image_grid_thw", "video_grid_thw")}
        if "second_per_grid_ts" in features:
            grids["second_per_grid_ts"] = features["second_per_grid_ts"]
        positions, _ = self.model.get_rope_index(ids, kinds, **grids)
        return ids[0].numpy(), positions[:, 0].numpy()


def qwen2(tokenizer: Any, text: Any) -> Family:
    return older(tokenizer, text, Qwen2VLProcessor, Qwen2VLModel)


def qwen2_5(tokenizer: Any, text: Any, after: str = "") -> Family:
    return older(tokenizer, text, Qwen2_5_VLProcessor, Qwen2_5_VLModel, after)


def older(tokenizer: Any, text: Any, processor: type, model: type, after: str = "") -> Family:
    """2 and 2.5: patches of 14; bounds are of an image and of a frame."""
    bounds, of_image = (128 * 28 * 28, 768 * 28 * 28), (56 * 56, 16384 * 28 * 28)

    def grid(clip: Clip) -> tuple[int, int, int]:
        height, width = smart_resize(clip.height, clip.width, 28, *bounds)
        return -(-clip.frames // 2), height // 14, width // 14

    images = Qwen2VLImageProcessorPil(size=dict(zip(("shortest_edge", "longest_edge"), of_image)))
    videos = VideoGrids(grid, 14, bounds)
    return Family(
        video=VIDEO,
        layout=bound("qwen2.5-vl", text, after=after),
        text=text,
        processor=unchecked(processor)(images, tokenizer, videos),
        model=without_weights(model, spatial_merge_size=2, tokens_per_second=TOKENS_A_SECOND),
        policy=area(28, of_image),
        end=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    )


def qwen3(tokenizer: Any, text: Any) -> Family:
    """Patches of 16; bounds are of an image and of a whole video."""
    bounds, of_image = (4096, 25165824), (65536, 16777216)

    def grid(clip: Clip) -> tuple[int, int, int]:
        height, width = smart_resize_clip(clip.frames, clip.height, clip.width, 2, 32, *bounds)
        return -(-clip.frames // 2), height // 16, width // 16

    images = Qwen2VLImageProcessorPil(size=dict(zip(("shortest_edge", "longest_edge"), of_image)), patch_size=16)
    videos = VideoGrids(grid, 16, bounds)
    return Family(
        video="<|video_pad|>",  # the released processor took the pair around it away; transformers 5.23 leaves it
        layout=bound("qwen3-vl", text),
        text=text,
        processor=unchecked(Qwen3VLProcessor)(images, tokenizer, videos),
        model=without_weights(Qwen3VLModel, spatial_merge_size=2),
        policy=area(32, of_image),
        end=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    )


def area(multiple: int, pixels: tuple[int, int]) -> ResizePolicy:
    return ResizePolicy("area", multiple=multiple, min_pixels=pixels[0], max_pixels=pixels[1])


def unchecked(processor: type) -> type:
    """The processor, taking for a video processor what is none: its class needs torchvision to be built."""
    return type(
        processor.__name__, (processor,), {"check_argument_for_proper_class": lambda self, name, argument: None}
    )


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer(SPECIALS, eos_token="<|im_end|>", pad_token="<|endoftext|>")


@pytest.fixture(scope="module")
def text(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return text_codec(tokenizer, tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module", params=[qwen2, qwen2_5, qwen3], ids=["qwen2-vl", "qwen2.5-vl", "qwen3-vl"])
def family(request: pytest.FixtureRequest, tokenizer: Any, text: Any) -> Family:
    return request.param(tokenizer, text)


@pytest.fixture(scope="module", params=[qwen2_5, qwen3], ids=["qwen2.5-vl", "qwen3-vl"])
def timed(request: pytest.FixtureRequest, tokenizer: Any, text: Any) -> Family:
    """The two which write time."""
    return request.param(tokenizer, text)


@pytest.mark.parametrize("document", IMAGES)
def test_ids_and_positions_of_images_equal_the_originals(document: Document, family: Family) -> None:
    assert_equal(document, family)


@pytest.mark.parametrize("document", VIDEOS)
def test_ids_and_positions_of_videos_equal_the_originals(document: Document, timed: Family) -> None:
    assert_equal(document, timed)


@pytest.mark.parametrize(
    "document", [("see", Clip(8, 448, 224, 24, 48), "what"), (Clip(5, 224, 448, 60, 75), Picture(224, 448))]
)
def test_qwen2_videos_are_those_of_2_5_at_one_grid_a_step(document: Document, tokenizer: Any, text: Any) -> None:
    assert_equal(document, qwen2(tokenizer, text))


LONG: tuple[Document, ...] = (  # whose clock runs further than their sides are long
    ("see", Clip(24, 448, 224), "what"),
    (Clip(40, 224, 448, file_fps=29.97, total=360), "fractional"),
    ("slow", Clip(11, 224, 448, file_fps=25, total=825), "end"),
)


@pytest.mark.parametrize("document", LONG)
def test_long_videos_equal_the_installed_function_by_its_rule_for_what_follows(
    document: Document, tokenizer: Any, text: Any
) -> None:
    assert_equal(document, qwen2_5(tokenizer, text, after="side"))


@pytest.mark.parametrize("document", LONG)
def test_what_follows_a_long_video_stands_behind_its_last_moment(document: Document, tokenizer: Any, text: Any) -> None:
    """By Qwen's own rope2d.py and transformers up to 5.2 (issue 45381 there); the block itself is the installed's."""
    family = qwen2_5(tokenizer, text)
    ids, positions = family.original(document)
    behind = np.flatnonzero(ids == family.layout.controls["<|video_pad|>"])[-1] + 1
    positions[:, behind:] += positions[:, :behind].max() + 1 - positions[0, behind]
    row = rendered(family.layout, items(document, text))
    np.testing.assert_array_equal(row.tokens, ids)
    np.testing.assert_array_equal(row.positions, positions)


def assert_equal(document: Document, family: Family) -> None:
    ids, positions = family.original(document)
    row = rendered(family.layout, items(document, family.text, family.kept))
    np.testing.assert_array_equal(row.tokens, ids)
    np.testing.assert_array_equal(row.positions, positions)


def test_text_alone_has_the_same_position_on_each_axis(family: Family) -> None:
    row = rendered(family.layout, items(["a red cat"], family.text))
    np.testing.assert_array_equal(row.positions, np.tile(np.arange(len(row.tokens)), (3, 1)))


def test_turns_equal_the_processors(family: Family) -> None:
    asked, answered = ("see", Picture(448, 224), "what is it?"), ("a red cat",)
    document = ("<|im_start|>user\n", *asked, "<|im_end|>\n<|im_start|>assistant\n", *answered, "<|im_end|>\n")
    ids, positions = family.original(document)
    turns = [*items(asked, family.text, family.kept, role="user"), *items(answered, family.text, role="assistant")]
    row = rendered(family.layout, turns)
    np.testing.assert_array_equal(row.tokens, ids)
    np.testing.assert_array_equal(row.positions, positions)


@pytest.mark.parametrize("size", [(224, 448), (448, 448), (896, 672), (97, 1021), (40, 30), (5000, 4000)])
def test_images_take_the_places_the_processor_counts(size: tuple[int, int], family: Family) -> None:
    (count,) = family.processor._get_num_multimodal_tokens(image_sizes=[size]).num_image_tokens
    row = rendered(family.layout, items([Picture(*size)], family.text, family.kept))
    assert (row.tokens == family.layout.controls["<|image_pad|>"]).sum() == count
    assert (row.soft_index >= 0).sum() == count


@settings(max_examples=300, deadline=None)
@given(height=st.integers(32, 6000), width=st.integers(32, 6000))
def test_pictures_are_resized_as_the_processors_resize_them(height: int, width: int) -> None:
    for multiple, pixels in (
        (28, (56 * 56, 16384 * 28 * 28)),
        (28, (56 * 56, 1280 * 28 * 28)),
        (32, (65536, 16777216)),
    ):
        h, w = area(multiple, pixels).grid(height, width)
        assert (h * multiple, w * multiple) == smart_resize(height, width, multiple, *pixels)


@pytest.mark.parametrize("size", [(8, 224, 448), (5, 448, 448), (2, 448, 224)])
def test_videos_take_the_places_the_processor_counts(size: tuple[int, int, int], family: Family) -> None:
    (count,) = family.processor._get_num_multimodal_tokens(video_sizes=[size]).num_video_tokens
    row = rendered(family.layout, items([Clip(*size)], family.text))
    assert (row.tokens == family.layout.controls["<|video_pad|>"]).sum() == count
    assert (row.soft_index >= 0).sum() == count


@pytest.mark.parametrize("size", [(8, 224, 448), (5, 448, 448), (3, 100, 700)])
def test_the_grids_of_clips_here_are_the_librarys(size: tuple[int, int, int], tokenizer: Any, text: Any) -> None:
    """Of the one video processor that can be imported without torchvision."""
    grids = qwen3(tokenizer, text).processor.video_processor
    assert grids.get_num_of_video_patches(*size) == Qwen3VLVideoProcessor.get_num_of_video_patches(grids, *size)
