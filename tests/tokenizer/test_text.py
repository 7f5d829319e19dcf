"""The text codec gives every Unicode string back, and no text becomes a control piece."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenizer.codec import Codes, Shape
from tokenizer.codecs import load_codec
from tokenizer.text import TextSpm, sentence_ends

HARD = [
    "",
    " ",
    "  two  spaces  ",
    "\n\n\ttab\r\n",
    "a\0b\0\0",
    "\u2581 \u2581\u2581x \u2581",
    "<s></s><unk><0x41><0xE2>",
    "naïve cafe\u0301 café",
    "\u202eright to left\u202c \u05d0\u05d1 \u0645\u0631\u062d\u0628\u0627",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇨🇿 👍🏽",
    "你好，世界。ไทย हिन्दी ქართული አማርኛ",
    "\ufffd\ufeff\u200b\u00ad\U0010ffff",
    "ﬁ ½ Ⅷ ﷺ ㎏",  # compatibility forms: a normaliser would change them
    "x" * 5000,
    "3.14159 1234567890",
]


@pytest.fixture(scope="module")
def codec() -> TextSpm:
    return load_codec("text-spm16k")


@pytest.mark.parametrize("text", HARD)
def test_hard_texts_come_back_exactly(codec: TextSpm, text: str) -> None:
    codes = codec.encode(text)
    assert codes.codes.dtype == np.int32 and codes.codes.shape == (codec.shape(text).T, 1)
    assert codec.decode(codes) == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_unicode_string_comes_back_exactly(text: str) -> None:
    codec = load_codec("text-spm16k")
    codes = codec.encode(text)
    assert codec.decode(codes) == text
    assert codes.codes.size == 0 or 0 <= codes.codes.min() <= codes.codes.max() < codec.codebooks[0]


def test_a_lone_surrogate_is_an_error_that_names_its_place(codec: TextSpm) -> None:
    with pytest.raises(ValueError, match="lone surrogate at character 3"):
        codec.encode("abc\ud800d")


def test_digits_are_split(codec: TextSpm) -> None:
    assert len(codec.encode("2026").codes) == 4


def test_decoding_any_codes_never_raises(codec: TextSpm) -> None:
    random = np.random.default_rng(0)
    codes = random.integers(0, codec.codebooks[0], (500, 1)).astype(np.int32)
    assert isinstance(codec.decode(Codes(codes, Shape(500, 1))), str)


def test_a_batch_gives_the_codes_of_each_alone(codec: TextSpm) -> None:
    for text, codes in zip(HARD, codec.encode_batch(HARD)):
        np.testing.assert_array_equal(codes.codes, codec.encode(text).codes)


def test_sentence_ends_cut_the_text_after_sentences(codec: TextSpm) -> None:
    text = "One sentence. Another one! 第三句。第四句。\nLast line without an end"
    codes = codec.encode(text).codes
    ends = sentence_ends(codec, text, codes)
    first = codec.decode(Codes(codes[: ends[0]], Shape(int(ends[0]), 1)))
    assert first == "One sentence."
    assert len(ends) >= 4 and (np.diff(ends) > 0).all() and ends[-1] < len(codes)


def test_a_model_without_byte_pieces_is_refused(tmp_path: object) -> None:
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a red cat", "a blue dog"] * 8),
        model_writer=model,
        vocab_size=20,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    with pytest.raises(ValueError, match="byte_fallback"):
        TextSpm.of("toy", 1, model.getvalue())
