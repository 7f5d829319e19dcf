"""Text codecs: SentencePiece models.

One that has byte pieces and normalises nothing, as those trained here, is exact: `decode(encode(text)) == text` for
every string without lone surrogates. What the model would lose goes in as UTF-8 bytes: SentencePiece writes a space as
U+2581, so that character and NUL (where its C strings end) are always spelled in bytes, and `decode` joins the bytes of
pieces itself instead of asking SentencePiece, which strips and replaces.
That each text comes back is checked as it is encoded. A model whose file says that it changes nothing cuts the text at
hand into pieces: they spell it if none is unknown, so if their lengths add up to the text's (0.2 ns a byte). Of another
model which happens to be exact the bytes themselves are compared.
Other people's models keep their own ways (a space put in front, NFKC, unknown characters), so that their codes are what
their networks know; such a codec is not exact, and an item keeps the text where it is lost.
Control words (`<s>`, `<0x41>`) in a text stay text: they are never matched, user-defined ones (`<image>`) neither.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tokenizer.codec import Codes, Shape
from tokenizer.spm_proto import changes_nothing, piece_ends, without_symbols

WEIGHTS = Path(__file__).parent / "weights"

# Raise it when the code around the model changes what comes out
_CODE_VERSION = 1
_SPACE = "\u2581"
_SPELLED = re.compile(f"([{_SPACE}\0]+)")
# A sentence ends after these marks (with closing quotes or brackets), before white space or the next character where
# the script writes none, and after a line break.
# All that an end may begin with comes first, as one set: a search goes from one such character to the next.
_SENTENCE_END = re.compile(
    r"[.!?\u2026\u037e\u061f\u0964\u3002\uff01\uff1f\n]"
    r"(?:(?<=[.!?\u2026\u037e\u061f\u0964])['\")\]\u2019\u201d\u00bb]*(?=\s)"  # Latin, Greek, Arabic, Devanagari
    r"|(?<=[\u3002\uff01\uff1f])[\u300d\u300f\u201d]?"  # Chinese, Japanese
    r"|(?<=\n)\n*)"
)


_GROUP_CHARACTERS = 1_000_000  # encoded in one call of the library

# What a model must leave as it is to be exact: no space in front, runs of white space, compatibility forms.
_PROBES = ("a", "  a  b ", "ﬁ Å e\u0301 ½\u00a0\uff21\u200b\u3000x\ty\n")


class TextCodec(Protocol):
    """What `sentence_ends` asks of a text codec."""

    @property
    def exact(self) -> bool: ...
    def token_ends(self, codes: np.ndarray) -> np.ndarray: ...
    def text_ends(self, text: str) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class TextSpm:
    """A SentencePiece model.

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
        """A codec of any SentencePiece model; ValueError where the bytes are none."""
        settings = json.dumps({"revision": revision, "code": _CODE_VERSION}, sort_keys=True).encode()
        try:
            exact = _is_exact(_tables(model), _processor(model))
        except (ValueError, RuntimeError) as error:
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"the model {name!r} is no SentencePiece model ({why})") from None
        return cls(name, revision, hashlib.sha256(settings + model).hexdigest(), model, exact=exact)

    @property
    def codebooks(self) -> tuple[int, ...]:
        return (len(self._tables.pieces),)

    @property
    def specials(self) -> tuple[tuple[str, int], ...]:
        """(name, code) of the control pieces, and of user-defined symbols that look like some."""
        return self._tables.specials

    def shape(self, size: str) -> Shape:
        """Of a text: the only medium whose number of codes is known by encoding alone."""
        return Shape(T=len(self._encode(size)), K=1)

    def encode(self, medium: str) -> Codes:
        """str -> codes int32 [T, 1]; ValueError names the place of a lone surrogate, which no UTF-8 text holds."""
        return _codes(self._encode(medium))

    def encode_batch(self, media: Sequence[str]) -> list[Codes]:
        """Each text as alone, in one call of the library and one thread."""
        if not (self.exact and self._tables.changes_nothing):
            return [self.encode(text) for text in media]
        return [codes for group in _groups(media) for codes in self._encode_group(group)]

    def decode(self, codes: Codes) -> str:
        """codes int32 [T, 1] -> str; control pieces and unknown characters are nothing, bytes that are no UTF-8 (a
        model's own samples) come out as U+FFFD."""
        ids = codes.codes[:, 0]
        if self.exact:
            return self._bytes(ids).decode("utf-8", "replace")
        hidden = self._tables.hidden
        return self._processor.decode([i for i in ids.tolist() if i not in hidden])

    def token_bytes(self, code: int) -> bytes:
        """The UTF-8 bytes one code stands for; those of control pieces are empty."""
        return bytes(self._tables.pieces[code])

    def token_ends(self, codes: np.ndarray) -> np.ndarray:
        """int64 [T]: bytes of the text that the codes spell up to the end of each token."""
        return np.cumsum(self._tables.sizes[codes[:, 0]], dtype=np.int64)

    def text_ends(self, text: str) -> np.ndarray:
        """int64 [T]: bytes of `text`, as it is written, up to the end of each token that `encode` makes of it."""
        if self.exact:
            return self.token_ends(self.encode(text).codes)
        utf8(text)
        return np.array(piece_ends(self._processor.encode(text, out_type="serialized_proto")), np.int64)

    def _encode(self, text: str) -> np.ndarray:  # int32 [T]
        data, tables = utf8(text), self._tables
        if not self.exact:
            return self._pieces(text)
        ids = self._around_spelled(text) if _SPACE in text or "\0" in text else self._pieces(text)
        short = np.add.reduce(tables.sizes.take(ids)) != len(data)
        if short or not (tables.changes_nothing or self._bytes(ids) == data):
            return _spelled(data, tables)  # exactness comes before length
        return ids

    def _encode_group(self, texts: list[str]) -> list[Codes]:
        sizes = np.array([len(utf8(text)) for text in texts], np.int64)
        found = self._processor.encode(texts, return_type="numpy", num_threads=1)
        spelled = _sums(self._tables.sizes, found)
        # The others are empty, or have U+2581, which has more bytes than the space it would become.
        return [
            _codes(ids if whole and "\0" not in text else self._encode(text))
            for text, ids, whole in zip(texts, found, (spelled == sizes).tolist())
        ]

    def _around_spelled(self, text: str) -> np.ndarray:  # int32 [T]
        parts = _SPELLED.split(text)  # plain, spelled, plain, ... plain
        rows = self._processor.encode(parts[::2], return_type="numpy", num_threads=1)
        spelled = [_spelled(part.encode(), self._tables) for part in parts[1::2]]
        return np.concatenate([row for pair in zip(rows, [*spelled, rows[-1][:0]]) for row in pair])

    def _pieces(self, text: str) -> np.ndarray:  # int32 [T]
        return self._processor.encode(text, return_type="numpy")

    def _bytes(self, ids: np.ndarray) -> bytes:
        return b"".join(self._tables.pieces[ids].tolist())

    @property
    def _processor(self) -> Any:
        return _processor(self.model)

    @property
    def _tables(self) -> _Tables:
        return _tables(self.model)


def utf8(text: str) -> bytes:
    """The text's UTF-8; ValueError names the place of a lone surrogate."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"a lone surrogate at character {error.start} of a text: it has no UTF-8 form") from None


def is_control_name(name: str) -> bool:
    """Whether a token's name looks like a control: a word between marks, `<image>`, `[INST]`, `<|im_start|>`.

    >>> [is_control_name(name) for name in ("</s>", "<｜User｜>", "(", "  ", "C++")]
    [True, True, False, False, False]
    """
    word = name.strip(_SPACE + " \t\n")
    marks = word[:1] + word[-1:]
    return len(word) > 2 and all(unicodedata.category(c)[0] in "PS" for c in marks) and any(map(str.isalnum, word))


def sentence_ends(codec: TextCodec, text: str, codes: np.ndarray) -> np.ndarray:
    """int32 [n]: token offsets at which a sentence of the text has just ended, without 0 and T.

    Ends that fall inside a token move to that token's end: a cut there keeps every token whole.
    """
    characters = [match.end() for match in _SENTENCE_END.finditer(text)]
    if not characters or not len(codes):
        return np.zeros(0, np.int32)
    ends = codec.token_ends(codes) if codec.exact else np.maximum.accumulate(codec.text_ends(text))
    inside = np.minimum(np.searchsorted(ends, _bytes_up_to(text, characters), "left"), len(ends) - 1)
    # Tokens that end at one place are parts of one character.
    offsets = np.unique(np.searchsorted(ends, ends[inside], "right"))
    return offsets[offsets < len(codes)].astype(np.int32)


def _bytes_up_to(text: str, characters: list[int]) -> np.ndarray:  # int64 [n]
    """The bytes of UTF-8 before each of the places, counted in characters."""
    places = np.array(characters, np.int64)
    if text.isascii():
        return places
    points = np.frombuffer(text.encode("utf-32-le"), "<u4")
    sizes = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    return np.cumsum(sizes)[places - 1]


@dataclass(frozen=True, eq=False)
class _Tables:
    """Of a model, by id: what it spells; by byte: its piece; and its control pieces."""

    pieces: np.ndarray  # objects: UTF-8 bytes; empty: control, unknown
    sizes: np.ndarray  # int32: their lengths
    of_byte: np.ndarray  # int32 [256]; -1: none
    hidden: frozenset[int]  # control, unknown
    specials: tuple[tuple[str, int], ...]
    changes_nothing: bool  # by its own settings: what it cuts into pieces is the text


@functools.cache
def _loaded(model: bytes) -> tuple[Any, tuple[tuple[str, int], ...]]:
    """(the processor, with the names of controls never matched; these)."""
    import sentencepiece

    if not model:  # which the processor takes for "not yet"
        raise ValueError("it is empty")
    plain, controls = without_symbols(model, is_control_name)
    return sentencepiece.SentencePieceProcessor(model_proto=plain), tuple(controls)


def _processor(model: bytes) -> Any:
    return _loaded(model)[0]


@functools.cache
def _tables(model: bytes) -> _Tables:
    processor, specials = _loaded(model)
    table: list[bytes] = []
    of_byte = np.full(256, -1, np.int32)
    hidden = []
    for i in range(processor.get_piece_size()):
        piece = processor.id_to_piece(i)
        if processor.is_byte(i):
            value = int(piece[3:5], 16)
            of_byte[value] = i
            table.append(bytes([value]))
        elif processor.is_control(i) or processor.is_unknown(i):
            hidden.append(i)
            table.append(b"")
        else:
            table.append(piece.replace(_SPACE, " ").encode())
    pieces = np.empty(len(table), object)
    pieces[:] = table
    sizes = np.array([len(piece) for piece in table], np.int32)
    return _Tables(pieces, sizes, of_byte, frozenset(hidden), specials, changes_nothing(model))


def _is_exact(tables: _Tables, processor: Any) -> bool:
    """Whether every byte has a piece, and the model leaves what it is given as it is."""
    if tables.of_byte.min() < 0:
        return False
    return all(b"".join(tables.pieces[processor.encode(p)]) == p.encode() for p in _PROBES)


def _codes(ids: np.ndarray) -> Codes:
    """Of ids int32 [T], which may be a view of the library's own memory."""
    return Codes(ids.reshape(-1, 1).copy(), _shape(len(ids)))


def _sums(sizes: np.ndarray, rows: Sequence[np.ndarray]) -> np.ndarray:  # int64 [n]
    """The sum of the sizes of each row's ids; of an empty row, and of the last before one, any other number."""
    stops = np.cumsum([len(ids) for ids in rows])
    if not stops[-1]:
        return np.full(len(rows), -1)
    starts = np.minimum(np.append(0, stops[:-1]), stops[-1] - 1)
    return np.add.reduceat(sizes.take(np.concatenate(rows)), starts, dtype=np.int64)


@functools.lru_cache(1 << 16)
def _shape(T: int) -> Shape:
    return Shape(T=T, K=1)


def _groups(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in order, as many at a time as have about _GROUP_CHARACTERS."""
    group: list[str] = []
    size = 0
    for text in texts:
        group.append(text)
        size += len(text)
        if size > _GROUP_CHARACTERS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _spelled(data: bytes, tables: _Tables) -> np.ndarray:  # int32 [T]
    return tables.of_byte[np.frombuffer(data, np.uint8)]
