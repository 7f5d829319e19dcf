"""Chameleon's rows against ChameleonProcessor, with placeholders mapped to codes by the model's own vocabulary map."""

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

from transformers.models.chameleon.image_processing_pil_chameleon import ChameleonImageProcessorPil  # isort: skip
from transformers.models.chameleon.modeling_chameleon import ChameleonImageVocabularyMapping, ChameleonModel  # isort: skip
from transformers.models.chameleon.processing_chameleon import ChameleonProcessor  # isort: skip

pytestmark = pytest.mark.extras

CODES = 8192
SIDE = 32  # codes on a side of its 512 x 512 pixels
IMAGE = CodecSpec("toy-image@1", "image", (CODES,), "", False)
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<racm3:break>", "<eoss>", "<reserved08706>", "<image>")
NAMED = {"image_token": "<image>", "boi_token": "<racm3:break>", "eoi_token": "<eoss>"}

DOCUMENTS: tuple[Document, ...] = (
    ("a red cat",),
    (Picture(40, 60),),
    ("a red cat", Picture(512, 512), "sat on the mat, naïve 你好 🙂"),
    (Picture(30, 90), "a cat", Picture(90, 30)),
    ("two", Picture(64, 64), Picture(64, 48), " cats"),
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer(SPECIALS, NAMED, begin="<s>", bos_token="<s>", eos_token="</s>", sep_token="<reserved08706>")


@pytest.fixture(scope="module")
def text(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return text_codec(tokenizer, tmp_path_factory.mktemp("chameleon"))


@pytest.fixture(scope="module")
def layout(text: Any) -> Layout:
    return bound("chameleon", text, IMAGE)


@pytest.fixture(scope="module")
def processor(tokenizer: Any) -> ChameleonProcessor:
    return ChameleonProcessor(ChameleonImageProcessorPil(), tokenizer, image_seq_length=SIDE * SIDE)


@pytest.fixture(scope="module")
def mapping(layout: Layout) -> ChameleonImageVocabularyMapping:
    """The library's map from codes to ids, over the names its vocabulary has, placed where our image range lies."""
    letters = str.maketrans("0123456789", "ABCDEFGHIJ")
    start = layout.vocabulary[f"{IMAGE.name}/0"].start
    names = {f"IMGIMG{str(code).translate(letters)}Z": start + code for code in range(CODES)}
    return ChameleonImageVocabularyMapping(names)


def coded(part: Picture) -> Item:
    height, width = ResizePolicy("crop", tokens=SIDE * SIDE).grid(part.height, part.width)
    codes = np.random.default_rng(part.width).integers(0, CODES, (height * width, 1), np.int32)
    return Item("image", IMAGE.name, codes, (1, height, width))


def as_the_model_reads(ids: np.ndarray, media: Sequence[Item], mapping: Any, placeholder: int) -> np.ndarray:
    """Ids with each placeholder replaced by what ChameleonModel.get_image_tokens makes of the VQGAN's codes."""
    images = [torch.from_numpy(item.codes.reshape(1, SIDE * SIDE)) for item in media if item.kind == "image"]
    if not images:
        return ids
    vqgan = SimpleNamespace(encode=lambda pixels, **named: SimpleNamespace(image_tokens=torch.cat(images)))
    model = SimpleNamespace(vqmodel=vqgan, vocabulary_mapping=mapping)
    tokens = ChameleonModel.get_image_tokens(model, torch.zeros(len(images), 3, 1, 1))
    read = ids.copy()
    read[ids == placeholder] = tokens.numpy().ravel()
    return read


@pytest.mark.parametrize("document", DOCUMENTS)
def test_chameleon_ids_equal_the_processors_and_an_end(
    document: Document, layout: Layout, processor: Any, text: Any, tokenizer: Any, mapping: Any
) -> None:
    ours = items(document, text, coded)
    features = original_ids(processor, document, "<image>", return_for_text_completion=True)
    want = as_the_model_reads(ids_of(features), ours, mapping, tokenizer.convert_tokens_to_ids("<image>"))
    row = rendered(layout, ours)
    # The processor makes prompts, without an end; a document for training has one.
    np.testing.assert_array_equal(row.tokens, [*want, tokenizer.eos_token_id])
    np.testing.assert_array_equal(row.positions, np.arange(len(want) + 1))


def test_chameleon_turns_end_as_the_processor_ends_them(
    layout: Layout, processor: Any, text: Any, tokenizer: Any, mapping: Any
) -> None:
    asked, answered = ("see", Picture(64, 64), "what is it?"), ("a red cat",)
    ours = [*items(asked, text, coded, role="user"), *items(answered, text, coded, role="assistant")]
    features = original_ids(processor, (*asked, tokenizer.sep_token, *answered), "<image>")  # it adds one at the end
    want = as_the_model_reads(ids_of(features), ours, mapping, tokenizer.convert_tokens_to_ids("<image>"))
    np.testing.assert_array_equal(rendered(layout, ours).tokens, [*want, tokenizer.eos_token_id])


@pytest.mark.parametrize("size", [(512, 512), (20, 300), (1000, 700)])
def test_chameleon_images_take_the_places_the_processor_counts(
    size: tuple[int, int], layout: Layout, processor: Any, text: Any
) -> None:
    (count,) = processor._get_num_multimodal_tokens(image_sizes=[size]).num_image_tokens
    without, with_it = (len(rendered(layout, items(d, text, coded)).tokens) for d in (["a"], ["a", Picture(*size)]))
    assert with_it - without == count
