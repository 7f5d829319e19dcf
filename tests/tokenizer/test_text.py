"""The text codec gives every Unicode string back, and no text becomes a control piece."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor

from tests.tokenizer.toy_vocabularies import LONG, spellings, spm
from tokenizer.codec import Codes, Shape, spec_of
from tokenizer.codecs import load_codec
from tokenizer.spm_proto import changes_nothing, piece_ends, without_symbols
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


ANY = st.text(st.characters(exclude_categories=["Cs"]))
# What text codecs stumble over, in any order and number, between any characters
ODD = st.one_of(
    st.sampled_from(
        ["\0", "\u2581", " ", "\u2581 ", "\n", "\r\n", "\t", "\ufeff", "\ufffd", "<s>", "<0x41>", "<unk>", "7"]
    ),
    st.sampled_from(["👩\u200d👩\u200d👧\u200d👦", "🏳\ufe0f\u200d🌈", "🇨🇿🇨", "👍🏽", "1\ufe0f\u20e3", "❤\ufe0f"]),
    st.sampled_from(
        ["\u202eאב\u202c", "\u2067مرحبا\u2069", "\u200f", "e\u0301", "\u0301", "\u0e01\u0e33", "\u1100\u1161"]
    ),
    st.characters(categories=["Cc", "Cf", "Co", "Cn", "Mn"]),
    st.builds(lambda c, n: c * n, st.sampled_from("\0\u2581 x7\n\u0301你🙂\u200d"), st.integers(2, 300)),
    ANY,
)
TEXTS = st.one_of(ANY, st.lists(ODD, max_size=20).map("".join))


@cache
def library_of(model: bytes) -> SentencePieceProcessor:
    return SentencePieceProcessor(model_proto=model)


def slowly(codec: TextSpm, text: str) -> list[int]:
    """The codes of an exact model, as they are defined: pieces as SentencePiece has them, U+2581 and NUL in bytes."""
    library = library_of(codec.model)
    of_byte = [library.piece_to_id(f"<0x{byte:02X}>") for byte in range(256)]
    ids: list[int] = []
    for part in re.split("([\u2581\\0]+)", text):
        spelled = part.startswith(("\u2581", "\0"))
        ids += [of_byte[byte] for byte in part.encode()] if spelled else library.encode(part)
    return ids


@settings(deadline=None)
@given(TEXTS)
def test_any_unicode_string_comes_back_exactly(text: str) -> None:
    codec = load_codec("text-spm16k")
    codes = codec.encode(text)
    assert codec.decode(codes) == text
    assert codes.codes.size == 0 or 0 <= codes.codes.min() <= codes.codes.max() < codec.codebooks[0]
    assert codes.codes[:, 0].tolist() == slowly(codec, text)
    ends = np.cumsum([len(codec.token_bytes(code)) for code in codes.codes[:, 0].tolist()])
    assert codec.token_ends(codes.codes).tolist() == ends.tolist()


@settings(deadline=None)
@given(st.lists(TEXTS, max_size=8))
def test_texts_together_have_the_codes_of_each_alone(texts: list[str]) -> None:
    codec = load_codec("text-spm16k")
    for group in (1, 50, 1_000_000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tokenizer.text._GROUP_CHARACTERS", group)
            batch = codec.encode_batch(texts)
        assert [codes.codes[:, 0].tolist() for codes in batch] == [slowly(codec, text) for text in texts]
        for codes in batch:
            assert codes.codes.dtype == np.int32 and codes.codes.shape == (codes.shape.T, 1)


@pytest.mark.parametrize(
    "run", ["\0", "\u2581", " ", "x", "7", "\n", "\u0301", "你", "🙂", "\u200d", "a\u2581", "\u2581\0 "]
)
def test_very_long_runs_come_back_exactly(codec: TextSpm, run: str) -> None:
    text = f"a{run * 100_000}b"
    codes = codec.encode(text)
    assert codec.decode(codes) == text
    np.testing.assert_array_equal(codec.encode_batch([text])[0].codes, codes.codes)


def test_u2581_and_nul_are_spelled_in_their_bytes(codec: TextSpm) -> None:
    library = SentencePieceProcessor(model_proto=codec.model)
    names = library.id_to_piece(codec.encode("\u2581\0").codes[:, 0].tolist())
    assert names == ["<0xE2>", "<0x96>", "<0x81>", "<0x00>"]


@settings(deadline=None)
@given(st.lists(TEXTS, max_size=3), TEXTS, st.integers(0xD800, 0xDFFF), TEXTS)
def test_a_lone_surrogate_is_an_error_that_names_its_place(
    others: list[str], before: str, surrogate: int, after: str
) -> None:
    codec, text = load_codec("text-spm16k"), f"{before}{chr(surrogate)}{after}"
    for run in (codec.encode, codec.shape, lambda text: codec.encode_batch([*others, text])):
        with pytest.raises(ValueError, match=f"lone surrogate at character {len(before)} of"):
            run(text)


def test_digits_are_split(codec: TextSpm) -> None:
    assert len(codec.encode("2026").codes) == 4


def test_decoding_any_codes_never_raises(codec: TextSpm) -> None:
    random = np.random.default_rng(0)
    codes = random.integers(0, codec.codebooks[0], (500, 1)).astype(np.int32)
    assert isinstance(codec.decode(Codes(codes, Shape(500, 1))), str)


def test_codes_are_ones_own(codec: TextSpm) -> None:
    """Not a view of the library's memory, which cannot be written."""
    for codes in (codec.encode("a cat"), *codec.encode_batch(["a cat", "\u2581"])):
        codes.codes[:] += 1


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


def test_what_a_model_says_it_changes_is_read_from_its_file() -> None:
    assert [name for name in MODELS if changes_nothing(spm_of(name))] == ["identity", "no bytes"]
    for option, value in (("add_dummy_prefix", True), ("remove_extra_whitespaces", True)):
        assert not changes_nothing(spm(**{**IDENTITY, option: value}))
    prefix, trims = b"\x18\0", b"\x20\0"  # fields 3 and 4, false; they are true where they are absent
    for fields, nothing in ((b"", False), (prefix, False), (trims, False), (prefix + trims, True)):
        assert changes_nothing(bytes([0x1A, len(fields)]) + fields) is nothing


def test_a_model_with_a_rule_that_no_probe_meets_is_exact_all_the_same(tmp_path: Path) -> None:
    """U+00B5 becomes "uu", as long in bytes: lengths alone would not tell."""
    (tmp_path / "rules.tsv").write_text("B5\t75 75\n")
    options = {**IDENTITY, "normalization_rule_tsv": str(tmp_path / "rules.tsv")}
    del options["normalization_rule_name"]
    codec = TextSpm.of("toy", 1, spm(**options))
    assert codec.exact and not changes_nothing(codec.model)
    for text in ("a \u00b5 cat", "a red cat"):
        assert codec.decode(codec.encode(text)) == text == codec.decode(codec.encode_batch([text])[0])


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


@settings(deadline=None)
@given(TEXTS)
def test_an_exact_model_of_theirs_gives_any_text_back(text: str) -> None:
    codec = theirs("identity")
    assert codec.decode(codec.encode(text)) == text
    np.testing.assert_array_equal(codec.encode_batch(["", text, ""])[1].codes, codec.encode(text).codes)


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
