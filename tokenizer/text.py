"""Text codecs: SentencePiece models as exact codecs of any Unicode string.

`decode(encode(text)) == text` for every string without lone surrogates, whatever the model: what the model would
lose goes in as UTF-8 bytes. SentencePiece writes a space as U+2581, so that character and NUL (where its C strings
end) are always spelled in bytes, and `decode` joins the bytes of pieces itself instead of asking SentencePiece, which
strips and replaces. Control words (`<s>`, `<0x41>`) in a text stay text: they are never matched.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokenizer.codec import Codes, Shape

WEIGHTS = Path(__file__).parent / "weights"

# Raise it when the code around the model changes what comes out
_CODE_VERSION = 1
_SPACE = "\u2581"
_SPELLED = re.compile(f"[{_SPACE}\0]+")
_MALFORMED = "\ufffd"
# A sentence ends after these marks (with closing quotes or brackets), before white space or the next character where
# the script writes none, and after a line break.
_SENTENCE_END = re.compile(
    r"[.!?\u2026\u037e\u061f\u0964]['\")\]\u2019\u201d\u00bb]*(?=\s)"  # Latin, Greek, Cyrillic, Arabic, Devanagari
    r"|[\u3002\uff01\uff1f][\u300d\u300f\u201d]?"  # Chinese, Japanese
    r"|\n+"
)


@dataclass(frozen=True, eq=False)
class TextSpm:
    """A SentencePiece model with byte fallback.

    >>> codec = load_codec("text-spm16k")
    >>> codec.decode(codec.encode("naïve \\u4f60\\u597d \\U0001f642"))
    'naïve \\u4f60\\u597d \\U0001f642'
    """

    name: str
    revision: int
    fingerprint: str
    model: bytes  # the serialized .model: pickles to workers, the processor is made where it is used
    kind: str = "text"
    exact: bool = True

    @classmethod
    def load(cls, name: str, revision: int, folder: Path = WEIGHTS) -> TextSpm:
        """The codec whose model is `folder/NAME-REVISION.model`."""
        path = folder / f"{name}-{revision}.model"
        if not path.is_file():
            raise ValueError(f"no model at {path}")
        return cls.of(name, revision, path.read_bytes())

    @classmethod
    def of(cls, name: str, revision: int, model: bytes) -> TextSpm:
        """A codec of any SentencePiece model that has byte pieces and keeps white space (`identity` normalisation)."""
        settings = json.dumps({"revision": revision, "code": _CODE_VERSION}, sort_keys=True).encode()
        codec = cls(name, revision, hashlib.sha256(settings + model).hexdigest(), model)
        missing = [b for b, code in enumerate(codec._tables[1]) if code < 0]
        if missing:
            raise ValueError(f"the model {name!r} has no byte piece <0x{missing[0]:02X}>: train it with byte_fallback")
        return codec

    @property
    def codebooks(self) -> tuple[int, ...]:
        return (len(self._tables[0]),)

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
        """codes int32 [T, 1] -> str; bytes that are no UTF-8 (a model's own samples) come out as U+FFFD."""
        return self._bytes(codes.codes[:, 0].tolist()).decode("utf-8", "replace")

    def token_bytes(self, code: int) -> bytes:
        """The UTF-8 bytes one code stands for; those of control pieces are empty."""
        return self._tables[0][code]

    def token_ends(self, codes: np.ndarray) -> np.ndarray:
        """int64 [T]: bytes of the text up to the end of each token."""
        table = self._tables[0]
        return np.cumsum([len(table[c]) for c in codes[:, 0].tolist()], dtype=np.int64)

    def _encode(self, text: str) -> list[int]:
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"a lone surrogate at character {error.start} of a text: it has no UTF-8 form") from None
        ids: list[int] = []
        start = 0
        for spelled in _SPELLED.finditer(text):
            ids += self._pieces(text[start : spelled.start()])
            ids += [self._tables[1][b] for b in spelled[0].encode()]
            start = spelled.end()
        ids += self._pieces(text[start:])
        if self._bytes(ids) != data:  # a model that normalises: exactness comes before length
            return [self._tables[1][b] for b in data]
        return ids

    def _pieces(self, text: str) -> list[int]:
        return self._processor.encode(text) if text else []

    def _bytes(self, ids: list[int]) -> bytes:
        table = self._tables[0]
        return b"".join([table[i] for i in ids])

    @property
    def _processor(self) -> Any:
        return _processor(self.model)

    @property
    def _tables(self) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
        return _tables(self.model)


def sentence_ends(codec: TextSpm, text: str, codes: np.ndarray) -> np.ndarray:
    """int32 [n]: token offsets at which a sentence of the text has just ended, without 0 and T.

    Ends that fall inside a token move to that token's end: a cut there keeps every token whole.
    """
    characters = [match.end() for match in _SENTENCE_END.finditer(text)]
    if not characters:
        return np.zeros(0, np.int32)
    sizes = np.array([len(part.encode()) for part in _parts(text, characters)], np.int64)
    offsets = np.searchsorted(codec.token_ends(codes), np.cumsum(sizes), "left") + 1
    offsets = np.unique(offsets)
    return offsets[offsets < len(codes)].astype(np.int32)


def _parts(text: str, ends: list[int]) -> list[str]:
    return [text[start:stop] for start, stop in zip([0, *ends[:-1]], ends)]


@functools.cache
def _processor(model: bytes) -> Any:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=model)


@functools.cache
def _tables(model: bytes) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
    """(bytes of each piece, piece of each byte or -1)."""
    processor = _processor(model)
    table: list[bytes] = []
    of_byte = [-1] * 256
    for i in range(processor.get_piece_size()):
        piece = processor.id_to_piece(i)
        if processor.is_byte(i):
            value = int(piece[3:5], 16)
            of_byte[value] = i
            table.append(bytes([value]))
        elif processor.is_control(i) or processor.is_unknown(i):
            table.append(b"")
        else:
            table.append(piece.replace(_SPACE, " ").encode())
    return tuple(table), tuple(of_byte)
