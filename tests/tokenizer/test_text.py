"""The text codec gives every Unicode string back, and no text becomes a control piece."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor

from tests.tokenizer.toy_vocabularies import LONG, spellings, spm
from tokenizer.codec import Codes, Shape, spec_of
from tokenizer.codecs import load_codec
from tokenizer.spm_proto import piece_ends, without_symbols
from tokenizer.text import TextSpm, is_control_name, sentence_ends

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


def test_the_shipped_codec_stays_as_it_is(codec: TextSpm) -> None:
    """Datasets name its fingerprint; and its manifest entry has no key that came later."""
    assert codec.fingerprint == "6fae268f317cfe6779e6ef98e541cc8fdbbaa6db4b530475f4b7170371e44f95"
    assert codec.exact and codec.specials == ()
    assert sorted(spec_of(codec).to_json()) == [
        "codebooks", "exact", "fingerprint", "kind", "levels", "name", "rate"
    ]  # fmt: skip
    assert without_symbols(codec.model, is_control_name) == (codec.model, [])


# --- other people's models

SYMBOLS = {"user_defined_symbols": ["<image>", "[SEP]", "\n\n", "C++"], "pad_id": 3}
IDENTITY = {
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "byte_fallback": True,
    "vocab_size": 360,
}
MODELS: dict[str, dict[str, Any]] = {
    "nmt_nfkc": {},
    "bpe": {"model_type": "bpe", **SYMBOLS},
    "symbols": {**SYMBOLS},
    "bytes": {"byte_fallback": True, "vocab_size": 360, **SYMBOLS},
    "identity": {**IDENTITY, **SYMBOLS},
    "no bytes": {**IDENTITY, "byte_fallback": False, "vocab_size": 90},
}


def theirs(name: str) -> TextSpm:
    return TextSpm.of(name, 1, spm_of(name))


def spm_of(name: str) -> bytes:
    if name not in _TRAINED:
        _TRAINED[name] = spm(**MODELS[name])
    return _TRAINED[name]


_TRAINED: dict[str, bytes] = {}


def test_only_models_with_bytes_that_normalise_nothing_are_exact() -> None:
    assert [name for name in MODELS if theirs(name).exact] == ["identity"]


@pytest.mark.parametrize("name", ["nmt_nfkc", "bpe", "bytes", "no bytes"])
def test_codes_of_plain_text_are_sentencepieces_own(name: str) -> None:
    codec, theirs_own = theirs(name), SentencePieceProcessor(model_proto=spm_of(name))
    for text in (
        "a red cat sat on the mat.",
        "  naïve  café ",
        "\ufb01 \u2603 你好",
        "a\n\nb C++",
        LONG.replace("<s>", "s"),
    ):
        assert codec.encode(text).codes[:, 0].tolist() == theirs_own.encode(text)


@pytest.mark.parametrize(
    ("name", "text", "back"),
    [
        ("nmt_nfkc", "a red cat", "a red cat"),
        ("nmt_nfkc", "  a  red\tcat ", "a red cat"),
        ("nmt_nfkc", "\uff52\uff45\uff44", "red"),
        ("nmt_nfkc", "a \u2603 cat", "a  cat"),
        ("bytes", "a \u2603 cat", "a \u2603 cat"),
        ("bytes", " a", "a"),
        ("no bytes", "  a  cat", "  a  cat"),
        ("no bytes", "\u2603", ""),
    ],
)
def test_a_lossy_model_says_so_text_by_text(name: str, text: str, back: str) -> None:
    codec = theirs(name)
    assert codec.decode(codec.encode(text)) == back


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_an_exact_model_of_theirs_gives_any_text_back(text: str) -> None:
    codec = theirs("identity")
    assert codec.decode(codec.encode(text)) == text


def test_control_pieces_and_symbols_that_look_like_them_are_specials() -> None:
    plain = SentencePieceProcessor(model_proto=spm_of("symbols"))
    names = ("<s>", "</s>", "<pad>", "<image>", "[SEP]")
    assert theirs("symbols").specials == tuple((name, plain.piece_to_id(name)) for name in names)
    assert theirs("nmt_nfkc").specials == (("<s>", 1), ("</s>", 2))


def test_symbols_that_are_words_or_white_space_are_still_one_token() -> None:
    codec = theirs("symbols")
    plain = SentencePieceProcessor(model_proto=spm_of("symbols"))
    for symbol in ("C++", "\n\n"):
        assert plain.piece_to_id(symbol) in codec.encode(f"a {symbol} b").codes


def test_the_symbols_would_be_matched_full_width_too() -> None:
    """Why they are made control pieces, and not cut where a text spells them."""
    plain = SentencePieceProcessor(model_proto=spm_of("symbols"))
    wide = "a \uff1cimage\uff1e b"
    assert plain.piece_to_id("<image>") in plain.encode(wide)
    assert plain.piece_to_id("<image>") not in theirs("symbols").encode(wide).codes


@settings(max_examples=300)
@given(st.data())
def test_no_text_becomes_a_special_of_theirs(data: st.DataObject) -> None:
    codec = theirs(data.draw(st.sampled_from(list(MODELS))))
    text = data.draw(st.sampled_from([name for name, _ in (*codec.specials, ("<unk>", 0))]).flatmap(spellings))
    codes = codec.encode(text)
    assert not {i for _, i in codec.specials} & set(codes.codes[:, 0].tolist())
    if codec.exact:
        assert codec.decode(codes) == text


def test_special_codes_of_theirs_decode_to_nothing() -> None:
    codec = theirs("symbols")
    text = codec.encode("a red cat").codes
    mixed = np.concatenate([np.array([[i] for _, i in codec.specials], np.int32), text])
    assert codec.decode(Codes(mixed, Shape(len(mixed), 1))) == "a red cat"


@pytest.mark.parametrize("name", MODELS)
def test_sentences_of_a_lossy_text_end_where_they_do_in_it(name: str) -> None:
    codec = theirs(name)
    codes = codec.encode(LONG).codes
    ends, at = sentence_ends(codec, LONG, codes), codec.text_ends(LONG)
    assert len(at) == len(codes) and len(ends) >= 12 * 4 and ends[-1] < len(codes)
    assert LONG.encode()[: at[ends[0] - 1]].decode() == "a red Cat sat on the mat."
    for end in ends:  # never inside a character
        LONG.encode()[: at[end - 1]].decode()
        assert at[end] > at[end - 1]


def test_bytes_that_are_no_model_are_refused_in_one_line() -> None:
    for data in (b"", b"{}", b"\x0a\xff", spm_of("bpe")[:-7] + b"\x07"):
        with pytest.raises(ValueError, match="'toy' is no SentencePiece model") as error:
            TextSpm.of("toy", 1, data)
        assert "\n" not in str(error.value)


def test_ends_are_read_from_sentencepieces_own_message() -> None:
    from sentencepiece.sentencepiece_pb2 import SentencePieceText

    encoded = SentencePieceProcessor(model_proto=spm_of("symbols")).encode(LONG, out_type="serialized_proto")
    message = SentencePieceText()
    message.ParseFromString(encoded)
    assert piece_ends(encoded) == [piece.end for piece in message.pieces]
