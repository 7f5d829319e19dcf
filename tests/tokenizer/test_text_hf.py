"""Other people's tokenizer.json: the codes are theirs, but no text becomes a special token."""

import json
import pickle
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.tokenizer.toy_vocabularies import LONG, VOCABULARIES, byte_level, spellings, unigram
from tokenizer.codec import Codes, Shape
from tokenizer.text import is_control_name, sentence_ends
from tokenizer.text_hf import TextHf

PLAIN = [
    "a red cat sat on the mat",
    "The CAT   is  naïve.\n\n你好 🙂 don't\t1234 ",
    "  café\u0301 ﬁ ½ Å",
    "",
    " ",
    "\0\u2581\ufffd",
    "0 1 2 3 4",
    LONG,
]
SPECIALS = {
    "byte_level": {"<|endoftext|>", "<s>", "<tool>", "<|im_start|>"},
    "byte_level_nfc": {"<|endoftext|>", "<s>", "<tool>", "<|im_start|>"},
    "unigram": {"<s>", "</s>", "<mask>"},
    "wordpiece": {"[CLS]", "[SEP]"},
}


def codec_of(name: str) -> TextHf:
    return TextHf.of(name, 1, VOCABULARIES[name]())


@pytest.fixture(params=VOCABULARIES)
def codec(request: pytest.FixtureRequest) -> TextHf:
    return codec_of(request.param)


def changed(data: bytes, **keys: Any) -> bytes:
    """The file with other keys of its model."""
    value = json.loads(data)
    value["model"] |= keys
    return json.dumps(value).encode()


def test_only_byte_level_bpe_that_leaves_a_text_alone_is_exact() -> None:
    assert [name for name in VOCABULARIES if codec_of(name).exact] == ["byte_level"]
    value = json.loads(byte_level())
    for part, key, other in (
        ("pre_tokenizer", "add_prefix_space", True),
        ("model", "end_of_word_suffix", "</w>"),
    ):
        assert not TextHf.of("toy", 1, json.dumps({**value, part: {**value[part], key: other}}).encode()).exact, key
    letters = {letter: i for letter, i in value["model"]["vocab"].items() if letter != "\u0100"}  # of the byte 0
    assert not TextHf.of("toy", 1, changed(byte_level(), vocab=letters)).exact
    swallow = [{**token, "lstrip": token["content"] == "   "} for token in value["added_tokens"]]
    assert not TextHf.of("toy", 1, json.dumps({**value, "added_tokens": swallow}).encode()).exact
    for behavior in ("Removed", "Isolated"):  # the second as of Llama 3 and DeepSeek
        cut = {"type": "Split", "pattern": {"String": "x"}, "behavior": behavior, "invert": False}
        steps = {"type": "Sequence", "pretokenizers": [cut, value["pre_tokenizer"]]}
        nothing = {"type": "Sequence", "normalizers": []}
        codec = TextHf.of("toy", 1, json.dumps({**value, "pre_tokenizer": steps, "normalizer": nothing}).encode())
        assert codec.exact == (behavior == "Isolated")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_an_exact_one_gives_any_unicode_string_back(text: str) -> None:
    codec = codec_of("byte_level")
    codes = codec.encode(text)
    assert codes.codes.dtype == np.int32 and codes.codes.shape == (codec.shape(text).T, 1)
    assert codec.decode(codes) == text
    assert codec.token_ends(codes.codes).tolist()[-1:] == ([len(text.encode())] if text else [])


@pytest.mark.parametrize("text", PLAIN)
@pytest.mark.parametrize("name", VOCABULARIES)
def test_codes_of_plain_text_are_the_librarys_own(name: str, text: str) -> None:
    """But for a begin that a template adds, and what would be cut off or filled up."""
    tokenizer = Tokenizer.from_str(VOCABULARIES[name]().decode())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    plain = text.replace("<s>", "s")
    want = tokenizer.encode(plain, add_special_tokens=False).ids
    codes = codec_of(name).encode(plain).codes
    assert codes[:, 0].tolist() == want
    if text == LONG:
        assert len(want) > 256


def test_runs_of_spaces_that_were_added_are_still_one_token() -> None:
    value = json.loads(byte_level())
    (run,) = [token["id"] for token in value["added_tokens"] if token["content"] == "   "]
    codec = codec_of("byte_level")
    assert run in codec.encode("x    y").codes and codec.token_bytes(run) == b"   "


def test_specials_are_named_with_their_ids(codec: TextHf) -> None:
    value = json.loads(codec.data)
    ids = {token["content"]: token["id"] for token in value["added_tokens"]}
    assert dict(codec.specials) == {name: ids[name] for name in SPECIALS[codec.name]}
    assert [i for _, i in codec.specials] == sorted(i for _, i in codec.specials)
    assert codec.codebooks == (max([*ids.values(), len(value["model"]["vocab"]) - 1]) + 1,)


@settings(max_examples=300)
@given(st.data())
def test_no_text_becomes_a_special_token(data: st.DataObject) -> None:
    codec = codec_of(data.draw(st.sampled_from(list(VOCABULARIES))))
    text = data.draw(st.sampled_from([name for name, _ in codec.specials]).flatmap(spellings))
    codes = codec.encode(text)
    assert not {i for _, i in codec.specials} & set(codes.codes[:, 0].tolist())
    assert codes.codes.max(initial=0) < codec.codebooks[0]
    assert len(codec.text_ends(text)) == len(codes.codes)
    if codec.exact:
        assert codec.decode(codes) == text


@pytest.mark.parametrize("keys", [{"ignore_merges": True}, {"dropout": 0.5}])
def test_nor_where_the_model_would_take_whole_words_or_chances(keys: dict[str, Any]) -> None:
    codec = TextHf.of("toy", 1, changed(byte_level(), **keys))
    text = "<s> <|endoftext|> a red cat <s><s>"
    assert not {i for _, i in codec.specials} & set(codec.encode(text).codes[:, 0].tolist())
    np.testing.assert_array_equal(codec.encode(text).codes, codec.encode(text).codes)
    assert codec.decode(codec.encode(text)) == text


def test_no_word_is_lost_to_a_normaliser_that_strips_the_hidden_names() -> None:
    value = json.loads(unigram())
    only_words = {"type": "Replace", "pattern": {"Regex": "[^a-z0-9 ]"}, "content": ""}
    codec = TextHf.of("toy", 1, json.dumps({**value, "normalizer": only_words}).encode())
    assert codec.decode(codec.encode("1 2 3 <s>")) == "1 2 3 s"


@pytest.mark.parametrize("form", [str, list])
def test_nor_where_merges_spell_a_special_token(form: Any) -> None:
    """In both forms in which the library has written merges."""
    pairs = [("<", "s"), ("<s", ">"), ("a", "t")]
    letters = {letter: i for i, letter in enumerate(["<|endoftext|>", "<s>", "<", "s", ">", "a", "t", "<s"])}
    merges = [" ".join(pair) if form is str else list(pair) for pair in pairs]
    data = changed(byte_level(), vocab={**letters, "at": len(letters)}, merges=merges)
    value = json.loads(data)
    value["added_tokens"] = value["added_tokens"][:2]
    value["pre_tokenizer"]["use_regex"] = False  # which cuts before every mark
    codec = TextHf.of("toy", 1, json.dumps(value).encode())
    assert [codec.token_bytes(i) for i in codec.encode("<s>at<s>").codes[:, 0].tolist()] == [
        b"<s", b">", b"at", b"<s", b">"
    ]  # fmt: skip


def test_a_text_that_spells_the_unknown_token_is_spelled_itself() -> None:
    codec = codec_of("unigram")
    assert 0 not in codec.encode("<unk>").codes and codec.decode(codec.encode("<unk>")) == "<unk>"
    assert 0 in codec.encode("\u2603").codes and codec.decode(codec.encode("a \u2603")) == "a "
    assert "<unk>" not in dict(codec.specials)


def test_the_unknown_token_is_special_where_nothing_is_unknown() -> None:
    """As of CLIP, whose end of text stands for the unknown too."""
    codec = TextHf.of("toy", 1, changed(byte_level(), unk_token="<|endoftext|>"))
    assert codec.exact and codec.specials == codec_of("byte_level").specials


def test_special_and_unknown_codes_decode_to_nothing(codec: TextHf) -> None:
    """A model's own samples may hold any of them, and ids that no token has."""
    text = codec.encode("a red cat")
    specials = np.array([[i] for _, i in codec.specials], np.int32)
    mixed = np.concatenate([specials, text.codes, specials])
    assert codec.decode(Codes(mixed, Shape(len(mixed), 1))) == codec.decode(text)
    every = np.arange(codec.codebooks[0], dtype=np.int32).reshape(-1, 1)
    assert isinstance(codec.decode(Codes(every, Shape(len(every), 1))), str)


@pytest.mark.parametrize(
    ("name", "text", "back"),
    [
        ("unigram", "The Cat", "the cat"),
        ("unigram", "a cat", "a cat"),
        ("wordpiece", "a  red   cat", "a red cat"),
        ("byte_level_nfc", "cafe\u0301", "café"),
        ("byte_level_nfc", "The   Cat <s>", "The   Cat <s>"),
    ],
)
def test_a_lossy_one_says_so_text_by_text(name: str, text: str, back: str) -> None:
    assert codec_of(name).decode(codec_of(name).encode(text)) == back


def test_sentences_end_at_whole_characters_of_the_text_as_it_is_written(codec: TextHf) -> None:
    codes = codec.encode(LONG).codes
    ends = sentence_ends(codec, LONG, codes)
    assert len(ends) >= 12 * 4 and (np.diff(ends) > 0).all() and ends[0] > 0 and ends[-1] < len(codes)
    said = [codec.decode(Codes(codes[:end], Shape(int(end), 1))) for end in ends[:2]]
    first = {"unigram": "a red cat sat on the mat."}
    assert said[0].replace(" .", ".") == first.get(codec.name, "a red Cat sat on the mat.")
    at = codec.text_ends(LONG)
    assert len(at) == len(codes) and at[-1] <= len(LONG.encode())
    for end in ends:  # never inside a character
        LONG.encode()[: at[end - 1]].decode()
        assert at[end] > at[end - 1]


def test_it_is_the_same_in_another_process(codec: TextHf) -> None:
    again = pickle.loads(pickle.dumps(codec))
    assert again.fingerprint == codec.fingerprint and len(codec.fingerprint) == 64
    np.testing.assert_array_equal(again.encode(LONG).codes, codec.encode(LONG).codes)


def test_the_fingerprint_covers_bytes_and_revision() -> None:
    data = unigram()
    assert len({TextHf.of("toy", r, d).fingerprint for r, d in ((1, data), (2, data), (1, data + b"\n"))}) == 3
    assert TextHf.of("other", 1, data).fingerprint == TextHf.of("toy", 1, data).fingerprint


def test_a_batch_gives_the_codes_of_each_alone(codec: TextHf) -> None:
    for text, codes in zip(PLAIN, codec.encode_batch(PLAIN)):
        np.testing.assert_array_equal(codes.codes, codec.encode(text).codes)


def test_a_lone_surrogate_is_an_error_that_names_its_place(codec: TextHf) -> None:
    with pytest.raises(ValueError, match="lone surrogate at character 3"):
        codec.encode("abc\ud800d")


PANICS = changed(byte_level(), continuing_subword_prefix="##")  # not by an exception: the library ends its thread


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"{}", b'{"model": {"vocab": 3}}', b"[1]", PANICS])
def test_bytes_that_are_no_tokenizer_are_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"'toy' is no tokenizer\.json .*Tokenizer\.save") as error:
        TextHf.of("toy", 1, data)
    assert "\n" not in str(error.value)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ValueError, match=r"pip install 'mmdata\[hf\]'"):
        TextHf.of("toy", 1, unigram() + b" " * 7)


def test_names_of_controls_are_told_from_words_and_marks() -> None:
    controls = ["<s>", "</s>", "<|im_start|>", "<｜User｜>", "[INST]", "{x}", "__end__", "@@PAD@@", " <image> "]
    assert all(map(is_control_name, controls))
    assert not any(
        map(is_control_name, ["", "a", "(", "...", "==", "   ", "▁▁", "\n\n", "C++", "cat", "你好", "<", "<>"])
    )
