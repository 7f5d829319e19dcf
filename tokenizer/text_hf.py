"""Text codecs of other people's vocabularies: `tokenizer.json` files, run by the package `tokenizers` (extra `hf`).

The codes of a text are those that its network knows, but for one thing: no text becomes a special token, however it
spells one. The library matches added tokens inside a text, and some models hold them in their own vocabulary too
(Unigram, WordPiece, BPE with `ignore_merges`). So before the library sees the file, each special token (flagged so, or
named like a control: `<|im_start|>`) is given a name that no text spells, in both lists; ids stay. Added tokens that
are words or white space (runs of spaces in GPT-NeoX) are matched as ever. No begin or end is added, nothing truncated.

A byte-level BPE without normaliser is exact. All others may lose something (case, spaces, unknown characters), and an
item keeps the text where they do.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokenizer.codec import Codes, Shape
from tokenizer.text import is_control_name, utf8

# Raise it when the code around the library changes what comes out
_CODE_VERSION = 1
_UNSPELLED = "\uffff"  # a noncharacter, in front of the number of a special token: its name in the rewritten file
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
# Pre-tokenizers that only cut: a byte-level BPE with others may lose something
_CUTTERS = {"ByteLevel", "Split", "Digits", "Punctuation", "Sequence"}


@dataclass(frozen=True, eq=False)
class TextHf:
    """The vocabulary of a `tokenizer.json`."""

    name: str
    revision: int
    fingerprint: str
    data: bytes  # the file: pickles to workers, the tokenizer is made where it is used
    exact: bool
    kind: str = "text"

    @classmethod
    def of(cls, name: str, revision: int, data: bytes) -> TextHf:
        """A codec of the bytes of a tokenizer.json; ValueError where they are none, or `tokenizers` is missing."""
        settings = json.dumps({"revision": revision, "code": _CODE_VERSION}, sort_keys=True).encode()
        try:
            exact = _vocabulary(data).exact
        except ModuleNotFoundError:
            raise ValueError(
                f"the package tokenizers, which reads {name!r}, is not installed; pip install 'mmdata[hf]'"
            ) from None
        except BaseException as error:  # the library raises plain ones, and one of its own where it panics
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(
                f"{name!r} is no tokenizer.json ({why}); save one with Tokenizer.save of the package tokenizers"
            ) from None
        return cls(name, revision, hashlib.sha256(settings + data).hexdigest(), data, exact)

    @property
    def codebooks(self) -> tuple[int, ...]:
        return (len(self._vocabulary.pieces),)

    @property
    def specials(self) -> tuple[tuple[str, int], ...]:
        """(name, code) of the special tokens, which `encode` never yields."""
        return self._vocabulary.specials

    def shape(self, size: str) -> Shape:
        """Of a text: the only medium whose number of codes is known by encoding alone."""
        return Shape(T=len(self._encode(size)), K=1)

    def encode(self, medium: str) -> Codes:
        """str -> codes int32 [T, 1]; ValueError names the place of a lone surrogate, which no UTF-8 text holds."""
        codes = np.array(self._encode(medium), np.int32).reshape(-1, 1)
        return Codes(codes, Shape(T=len(codes), K=1))

    def encode_batch(self, media: Sequence[str]) -> list[Codes]:
        """Each text as alone."""
        return [self.encode(text) for text in media]

    def decode(self, codes: Codes) -> str:
        """codes int32 [T, 1] -> str; special and unknown tokens are nothing, bytes that are no UTF-8 are U+FFFD."""
        vocabulary, ids = self._vocabulary, codes.codes[:, 0].tolist()
        if vocabulary.byte_level:
            return self._bytes(ids).decode("utf-8", "replace")
        shown = [i for i in ids if i not in vocabulary.hidden]
        return vocabulary.tokenizer.decode(shown, skip_special_tokens=False)

    def token_bytes(self, code: int) -> bytes:
        """The UTF-8 bytes one code stands for, a space in front of a word among them; of special ones none."""
        return self._vocabulary.pieces[code]

    def token_ends(self, codes: np.ndarray) -> np.ndarray:
        """int64 [T]: bytes of the text that the codes spell up to the end of each token."""
        pieces = self._vocabulary.pieces
        return np.cumsum([len(pieces[c]) for c in codes[:, 0].tolist()], dtype=np.int64)

    def text_ends(self, text: str) -> np.ndarray:
        """int64 [T]: bytes of `text`, as it is written, up to the end of each token that `encode` makes of it."""
        if self.exact:
            return self.token_ends(self.encode(text).codes)
        utf8(text)
        sizes = np.cumsum([0, *(len(c.encode()) for c in text)], dtype=np.int64)  # bytes before each character
        banned = self._vocabulary.banned
        found = self._found(text)
        return sizes[[end for i, (_, end) in zip(found.ids, found.offsets) if i not in banned]]

    def _encode(self, text: str) -> list[int]:
        data, vocabulary = utf8(text), self._vocabulary
        ids: list[int] = self._found(text).ids
        if not vocabulary.banned.isdisjoint(ids):  # it spells the name that the rewritten file gives one
            ids = [i for i in ids if i not in vocabulary.banned]
        if self.exact and self._bytes(ids) != data:  # exactness comes before length
            return [vocabulary.of_byte[b] for b in data]
        return ids

    def _found(self, text: str) -> Any:
        return self._vocabulary.tokenizer.encode(text)

    def _bytes(self, ids: list[int]) -> bytes:
        pieces = self._vocabulary.pieces
        return b"".join([pieces[i] for i in ids])

    @property
    def _vocabulary(self) -> _Vocabulary:
        return _vocabulary(self.data)


@dataclass(frozen=True, eq=False)
class _Vocabulary:
    """A tokenizer whose special tokens no text spells, and its tokens by id."""

    tokenizer: Any
    specials: tuple[tuple[str, int], ...]  # (name in the file, id)
    banned: frozenset[int]  # ids of specials
    hidden: frozenset[int]  # and of the unknown token
    pieces: tuple[bytes, ...]  # by id, UTF-8; empty: hidden, or a hole in the ids
    byte_level: bool  # pieces joined are the text
    of_byte: tuple[int, ...]  # id of each byte; -1: none
    exact: bool


@functools.cache
def _vocabulary(data: bytes) -> _Vocabulary:
    from tokenizers import Tokenizer

    value = json.loads(data)
    unknown = _unknown(value["model"])
    names = {token["content"]: f"{_UNSPELLED}{i}" for i, token in enumerate(_specials(value))}
    if unknown in names or is_control_name(unknown):
        names.setdefault(unknown, _UNSPELLED)
    tokenizer = Tokenizer.from_str(json.dumps(_rewritten(value, names)))
    ids: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    before = Tokenizer.from_str(json.dumps(_plain(value))).get_vocab(with_added_tokens=True)
    if {names.get(name, name): i for name, i in before.items()} != ids:
        raise ValueError("its ids change when special tokens are set aside, which mmdata cannot do for it")
    byte_level = _is_byte_level(value)
    of_byte = [-1] * 256
    for byte, letter in enumerate(_letters()) if byte_level else ():
        of_byte[byte] = ids.get(letter, -1) if letter not in names else -1
    whole = min(of_byte) >= 0  # nothing is unknown to it: where the file names such a token, it is one like the others
    hidden = {name: before[name] for name in names if name in before}
    specials = tuple(sorted((pair for pair in hidden.items() if whole or pair[0] != unknown), key=lambda pair: pair[1]))
    unseen = frozenset(hidden.values())
    added = {token["content"] for token in value.get("added_tokens") or []}
    pieces = [b""] * (max(ids.values(), default=-1) + 1)
    for piece, i in ids.items():
        if i not in unseen:
            pieces[i] = piece.encode() if piece in added else _spelled(piece, value["model"], byte_level)
    exact = whole and _loses_nothing(value)
    return _Vocabulary(
        tokenizer,
        specials,
        banned=frozenset(i for _, i in specials),
        hidden=unseen,
        pieces=tuple(pieces),
        byte_level=byte_level,
        of_byte=tuple(of_byte),
        exact=exact,
    )


def _specials(value: dict[str, Any]) -> list[dict[str, Any]]:
    """The added tokens that no text may become."""
    return [t for t in value.get("added_tokens") or [] if t["special"] or is_control_name(t["content"])]


def _unknown(model: dict[str, Any]) -> str:
    """The token of what the model does not know; "" where it has none."""
    if isinstance(model["vocab"], list):  # Unigram
        number = model.get("unk_id")
        return "" if number is None else model["vocab"][number][0]
    return model.get("unk_token") or ""


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Without what would add, cut or draw by chance."""
    model = {**value["model"], **({"dropout": None} if "merges" in value["model"] else {})}
    return {**value, "model": model, "post_processor": None, "truncation": None, "padding": None}


def _rewritten(value: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """The file with other names for some tokens: what comes out for all others stays."""
    plain = _plain(value)
    # Matched, if ever, in the raw text: a normaliser could make another word of the new name.
    free = {"special": False, "normalized": False}
    added = [
        {**token, **free, "content": names[token["content"]]} if token["content"] in names else token
        for token in value.get("added_tokens") or []
    ]
    model = plain["model"]
    if isinstance(model["vocab"], list):
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    else:
        model["vocab"] = {names.get(piece, piece): i for piece, i in model["vocab"].items()}
        if model.get("unk_token"):
            model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    if "merges" in model:
        model["merges"] = list(_merges(model, names))
    return {**plain, "added_tokens": added}


def _merges(model: dict[str, Any], names: dict[str, str]) -> Iterator[Any]:
    """The merges that neither take nor make a renamed token."""
    inside = len(model.get("continuing_subword_prefix") or "")
    for merge in model["merges"]:
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        if not {left, right, left + right[inside:]} & names.keys():
            yield merge


def _steps(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A pre-tokenizer and all that it is a sequence of."""
    if not part:
        return []
    return [part, *(step for inner in part.get("pretokenizers") or [] for step in _steps(inner))]


def _is_byte_level(value: dict[str, Any]) -> bool:
    steps = _steps(value.get("pre_tokenizer"))
    return "merges" in value["model"] and any(step["type"] == "ByteLevel" for step in steps)


def _loses_nothing(value: dict[str, Any]) -> bool:
    """Whether a byte-level BPE gives every text back: nothing is normalised, removed, put in front or swallowed."""
    model, steps = value["model"], _steps(value.get("pre_tokenizer"))
    normalizer = value.get("normalizer") or {"normalizers": []}
    kept = [t for t in value.get("added_tokens") or [] if not (t["special"] or is_control_name(t["content"]))]
    return not (
        normalizer.get("normalizers") != []
        or model.get("continuing_subword_prefix")
        or model.get("end_of_word_suffix")
        or any(step["type"] not in _CUTTERS or step.get("behavior") == "Removed" for step in steps)
        or any(step.get("add_prefix_space") for step in steps)
        or any(token["lstrip"] or token["rstrip"] for token in kept)
    )


def _spelled(piece: str, model: dict[str, Any], byte_level: bool) -> bytes:
    """What a piece of the model's own vocabulary stands for."""
    if byte_level:
        table = _bytes_of_letters()
        return bytes(table[c] for c in piece) if all(c in table for c in piece) else piece.encode()
    if model.get("byte_fallback") and (byte := _BYTE_PIECE.fullmatch(piece)):
        return bytes([int(byte[1], 16)])
    if "max_input_chars_per_word" in model:  # WordPiece
        inside = model["continuing_subword_prefix"]
        return (piece.removeprefix(inside) if piece.startswith(inside) else f" {piece}").encode()
    if suffix := model.get("end_of_word_suffix"):
        piece = f"{piece.removesuffix(suffix)} " if piece.endswith(suffix) else piece
    return piece.replace("\u2581", " ").encode()


@functools.cache
def _letters() -> str:
    """The letter that stands for each byte in a byte-level vocabulary (GPT-2): itself if it prints, else U+0100 on."""
    letters, others = [], 0
    for byte in range(256):
        prints = 33 <= byte <= 126 or 161 <= byte <= 172 or byte >= 174
        letters.append(chr(byte if prints else 256 + others))
        others += not prints
    return "".join(letters)


@functools.cache
def _bytes_of_letters() -> dict[str, int]:
    return {letter: byte for byte, letter in enumerate(_letters())}
