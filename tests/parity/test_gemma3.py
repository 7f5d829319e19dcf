"""Gemma 3's rows and attention against Gemma3Processor and the masks of its model."""

from __future__ import annotations

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
from tokenizer.image import ResizePolicy
from tokenizer.item import Item
from tokenizer.layout import Layout, Row

from transformers.models.gemma3.configuration_gemma3 import Gemma3TextConfig  # isort: skip
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil  # isort: skip
from transformers.models.gemma3.modeling_gemma3 import (  # isort: skip
    create_masks_for_vision_model,
    get_block_sequence_ids_for_mask,
)
from transformers.models.gemma3.processing_gemma3 import Gemma3Processor  # isort: skip

pytestmark = pytest.mark.extras

SPECIALS = (
    *("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
    *("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
)
NAMED = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}

DOCUMENTS: tuple[Document, ...] = (
    ("a red cat",),
    (Picture(896, 896),),
    ("a red cat", Picture(448, 896), "sat on the mat, naïve 你好 🙂"),
    (Picture(100, 37), "a cat", Picture(37, 100)),
    ("two", Picture(64, 64), Picture(64, 48), " cats"),
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer(SPECIALS, NAMED, begin="<bos>", bos_token="<bos>", eos_token="<eos>")


@pytest.fixture(scope="module")
def text(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return text_codec(tokenizer, tmp_path_factory.mktemp("gemma3"))


@pytest.fixture(scope="module")
def layout(text: Any) -> Layout:
    return bound("gemma3", text)


@pytest.fixture(scope="module")
def processor(tokenizer: Any) -> Gemma3Processor:
    return Gemma3Processor(Gemma3ImageProcessorPil(size={"height": 896, "width": 896}), tokenizer)


def squared(part: Picture) -> Item:
    """A picture at the size that a build of ours keeps it at, that of Gemma3ImageProcessor."""
    policy = ResizePolicy("stretch", multiple=56, size=(896, 896))
    height, width = policy.grid(part.height, part.width)
    return Item("image", "", None, (1, height * policy.multiple, width * policy.multiple))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_gemma3_ids_equal_the_processors_and_an_end(
    document: Document, layout: Layout, processor: Any, text: Any, tokenizer: Any
) -> None:
    want = ids_of(original_ids(processor, document, "<start_of_image>"))
    row = rendered(layout, items(document, text, squared))
    # The processor makes prompts, without an end; a document for training has one.
    np.testing.assert_array_equal(row.tokens, [*want, tokenizer.eos_token_id])
    np.testing.assert_array_equal(row.positions, np.arange(len(want) + 1))


def test_gemma3_turns_equal_the_processors(layout: Layout, processor: Any, text: Any) -> None:
    asked, answered = ("see", Picture(64, 64), "what is it?"), ("a red cat",)
    document = ("<start_of_turn>user\n", *asked, "<end_of_turn>\n<start_of_turn>model\n", *answered, "<end_of_turn>\n")
    want = ids_of(original_ids(processor, document, "<start_of_image>"))
    row = rendered(layout, [*items(asked, text, squared, role="user"), *items(answered, text, role="assistant")])
    np.testing.assert_array_equal(row.tokens[: len(want)], want)


@pytest.mark.parametrize("document", DOCUMENTS[1:])
def test_gemma3_soft_tokens_lie_where_the_processor_marks_images(
    document: Document, layout: Layout, processor: Any, text: Any
) -> None:
    marked = original_ids(processor, document, "<start_of_image>")["token_type_ids"][0].numpy()
    row = rendered(layout, items(document, text, squared))
    np.testing.assert_array_equal(row.soft_index[:-1] >= 0, marked == 1)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_gemma3_blocks_allow_what_the_models_mask_allows(
    document: Document, layout: Layout, processor: Any, text: Any
) -> None:
    marked = original_ids(processor, document, "<start_of_image>")["token_type_ids"]
    row = rendered(layout, items(document, text, squared))
    np.testing.assert_array_equal(allowed(row)[:-1, :-1], models_mask(marked))


def allowed(row: Row) -> np.ndarray:  # bool [n, n]: who sees whom
    """By the rule of our batches: causal, and equal non-zero blocks see one another."""
    blocks = row.blocks
    order = np.arange(len(row.tokens))
    return (order[None] <= order[:, None]) | ((blocks[None] == blocks[:, None]) & (blocks[:, None] > 0))


def models_mask(marked: Any) -> np.ndarray:  # bool [n, n]
    """Of the layers with full attention, from the processor's token types [1, n]."""
    tiny = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8}
    config = Gemma3TextConfig(vocab_size=8, num_hidden_layers=1, **tiny)
    config._attn_implementation = "eager"
    embeddings = torch.zeros(1, marked.shape[1], 8)
    blocks = get_block_sequence_ids_for_mask(marked)
    masks = create_masks_for_vision_model(config, embeddings, None, None, None, blocks)
    return masks["full_attention"][0, 0].numpy() == 0


@pytest.mark.parametrize("size", [(896, 896), (20, 300), (1000, 700)])
def test_gemma3_images_take_the_places_the_processor_counts(
    size: tuple[int, int], layout: Layout, processor: Any, text: Any
) -> None:
    (count,) = processor._get_num_multimodal_tokens(image_sizes=[size]).num_image_tokens
    row = rendered(layout, items([Picture(*size)], text, squared))
    assert (row.tokens == layout.controls["<image_soft_token>"]).sum() == count
