"""Emu3's rows against Emu3Processor, with placeholders mapped to codes by the model's own vocabulary map."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.parity.originals import (
    Document,
    Picture,
    bound,
    ids_of,
    items,
    original_ids,
    rendered,
    text_codec,
    tiny_tokenizer,
    torch,
)
from tokenizer.codec import CodecSpec
from tokenizer.image import ResizePolicy
from tokenizer.item import Item
from tokenizer.layout import Layout

from transformers.models.emu3.image_processing_emu3 import Emu3ImageProcessor  # isort: skip
from transformers.models.emu3.modeling_emu3 import Emu3ImageVocabularyMapping, Emu3Model  # isort: skip
from transformers.models.emu3.processing_emu3 import Emu3Processor  # isort: skip

pytestmark = pytest.mark.extras

CODES = 32768
IMAGE = CodecSpec("toy-image@1", "image", (CODES,), "", False)
SPECIALS = (
    *("<|endoftext|>", "<|extra_203|>", "<|extra_204|>", "<|extra_200|>", "<|extra_201|>", "<|extra_202|>"),
    *("<|image start|>", "<|image end|>", "<|image token|>", "<|video start|>", "<|video end|>", "<image>"),
)
NAMED = {
    "image_token": "<image>",
    "boi_token": "<|image start|>",
    "eoi_token": "<|image end|>",
    "image_wrapper_token": "<|image token|>",
    "eof_token": "<|extra_201|>",
}
MIN_PIXELS, MAX_PIXELS = 16 * 16, 200 * 200  # in place of 512 * 512 and 1024 * 1024: the same sequence, a shorter one
POLICY = ResizePolicy("area", multiple=8, min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS)

DOCUMENTS: tuple[Document, ...] = (
    (Picture(40, 60),),
    ("a red cat", Picture(64, 64), "sat on the mat, naïve 你好 🙂"),
    (Picture(20, 100), "a cat", Picture(100, 20)),
    ("two", Picture(128, 96), Picture(8, 8), " cats"),
    ("large", Picture(700, 500)),
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer(SPECIALS, NAMED, bos_token="<|extra_203|>", eos_token="<|extra_204|>")


@pytest.fixture(scope="module")
def text(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return text_codec(tokenizer, tmp_path_factory.mktemp("emu3"))


@pytest.fixture(scope="module")
def layout(text: Any) -> Layout:
    return bound("emu3", text, IMAGE)


@pytest.fixture(scope="module")
def processor(tokenizer: Any) -> Emu3Processor:
    return Emu3Processor(Emu3ImageProcessor(min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS), tokenizer)


@pytest.fixture(scope="module")
def mapping(layout: Layout, tokenizer: Any) -> Emu3ImageVocabularyMapping:
    """The library's map from codes to ids, over the names its vocabulary has, placed where our image range lies."""
    start = layout.vocabulary[f"{IMAGE.name}/0"].start
    names = {f"<|visual token {code:06d}|>": start + code for code in range(CODES)}
    return Emu3ImageVocabularyMapping({**tokenizer.get_vocab(), **names})


def coded(part: Picture) -> Item:
    grid = (1, *POLICY.grid(part.height, part.width))
    codes = np.random.default_rng(part.width).integers(0, CODES, (grid[1] * grid[2], 1), np.int32)
    return Item("image", IMAGE.name, codes, grid)


def as_the_model_reads(ids: np.ndarray, media: Sequence[Item], mapping: Any, placeholder: int) -> np.ndarray:
    """Ids with the placeholders replaced by what Emu3Model.get_image_tokens makes of the VQ model's codes."""
    images = [torch.from_numpy(item.codes.reshape(item.grid[1:])) for item in media if item.kind == "image"]
    vq = SimpleNamespace(encode=lambda pixels, sizes, **named: SimpleNamespace(image_tokens=images))
    model = SimpleNamespace(vqmodel=vq, vocabulary_mapping=mapping)
    read = ids.copy()
    read[ids == placeholder] = Emu3Model.get_image_tokens(model, None, None).numpy()
    return read


@pytest.mark.parametrize("document", DOCUMENTS)
def test_emu3_ids_equal_the_processors_and_an_end(
    document: Document, layout: Layout, processor: Any, text: Any, tokenizer: Any, mapping: Any
) -> None:
    ours = items(document, text, coded)
    features = original_ids(processor, document, "<image>")
    placeholder = tokenizer.convert_tokens_to_ids("<image>")
    want = as_the_model_reads(ids_of(features), ours, mapping, placeholder)
    row = rendered(layout, ours)
    # The processor makes prompts, without an end; a document for training has one.
    np.testing.assert_array_equal(row.tokens, [*want, tokenizer.eos_token_id])
    np.testing.assert_array_equal(row.positions, np.arange(len(want) + 1))


@pytest.mark.parametrize("ratio", ["1:1", "3:2", "9:16"])
def test_emu3_asks_for_an_image_as_the_processor_does(
    ratio: str, layout: Layout, processor: Any, text: Any, tokenizer: Any
) -> None:
    features = processor(text=["a cat"], return_for_image_generation=True, ratio=ratio, image_area=320 * 320)
    ((height, width),) = features["image_sizes"]
    image = Item("image", IMAGE.name, np.zeros((height * width, 1), np.int32), (1, height, width))
    row = rendered(layout, [*items(["a cat"], text), image])
    prompt = features["input_ids"][0]
    np.testing.assert_array_equal(row.tokens[: len(prompt)], prompt)
    assert row.tokens[len(prompt)] == layout.vocabulary[f"{IMAGE.name}/0"].start


@pytest.mark.parametrize("size", [(64, 64), (20, 100), (700, 500)])
def test_emu3_images_take_the_places_the_processor_counts(
    size: tuple[int, int], layout: Layout, processor: Any, text: Any
) -> None:
    (count,) = processor._get_num_multimodal_tokens(image_sizes=[size]).num_image_tokens
    row = rendered(layout, items([Picture(*size)], text, coded))
    opened, ended = (list(row.tokens).index(layout.controls[name]) for name in ("<|image token|>", "<|extra_201|>"))
    assert ended - opened - 1 == count
