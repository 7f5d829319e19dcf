"""The shipped codecs by name: one plain dict, loaded when asked for and then kept. And codecs that are files.

A name without a revision means the newest; revisions are never replaced, so "image-fsq16@1" stays loadable.
A codec of your own needs no entry here: it is an object with the methods of `tokenizer.codec.Codec`.
Other people's vocabularies are files, `tokenizer.json` or SentencePiece `.model`; their names come from the file's name
and bytes, never from where it lies: a dataset keeps a copy under that name, which is the same codec.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tokenizer import checkpoints
from tokenizer.codec import Codec


def _image_fsq(name: str, revision: int) -> Codec:
    from tokenizer.image import ImageFsq

    return ImageFsq.load(name, revision)


def _image_fsq_search(name: str, revision: int) -> Codec:
    from tokenizer.image import ImageFsq

    return ImageFsq.load(name, revision).searching()


def _jpeg_bytes(name: str, revision: int) -> Codec:
    from tokenizer.jpeg import JpegBytes

    return JpegBytes.load(name, revision)


def _speech_melfsq(name: str, revision: int) -> Codec:
    from tokenizer.audio import SpeechMelFsq

    return SpeechMelFsq.load(name, revision)


def _speech_fsq(name: str, revision: int) -> Codec:
    from tokenizer.speech import SpeechFsq

    return SpeechFsq.load(name, revision)


def _speech_fsq_search(name: str, revision: int) -> Codec:
    from tokenizer.speech import SpeechFsq

    return SpeechFsq.load(name, revision).searching()


def _dmel() -> Codec:
    from tokenizer.dmel import Dmel

    return Dmel()


def _text_spm(name: str, revision: int) -> Codec:
    from tokenizer.text import TextSpm

    return TextSpm.load(name, revision)


CODECS: dict[str, Callable[[], Codec]] = {
    "dmel@1": _dmel,
    "image-fsq16@1": partial(_image_fsq, "image-fsq16", 1),
    "image-fsq16@2": partial(_image_fsq, "image-fsq16", 2),
    "image-fsq16@3": partial(_image_fsq, "image-fsq16", 3),
    "image-fsq16-search@1": partial(_image_fsq_search, "image-fsq16", 1),
    "image-fsq16-search@2": partial(_image_fsq_search, "image-fsq16", 2),
    "image-fsq16-search@3": partial(_image_fsq_search, "image-fsq16", 3),
    "image-fsq8@1": partial(_image_fsq, "image-fsq8", 1),
    "image-fsq8@2": partial(_image_fsq, "image-fsq8", 2),
    "image-fsq8-search@1": partial(_image_fsq_search, "image-fsq8", 1),
    "image-fsq8-search@2": partial(_image_fsq_search, "image-fsq8", 2),
    "jpeg-bytes@1": partial(_jpeg_bytes, "jpeg-bytes", 1),
    "speech-melfsq@1": partial(_speech_melfsq, "speech-melfsq", 1),
    "speech-melfsq@2": partial(_speech_fsq, "speech-melfsq", 2),
    "speech-melfsq@3": partial(_speech_fsq, "speech-melfsq", 3),
    "speech-melfsq-search@3": partial(_speech_fsq_search, "speech-melfsq", 3),
    "speech-melfsq2@1": partial(_speech_fsq, "speech-melfsq2", 1),
    "speech-melfsq2-search@1": partial(_speech_fsq_search, "speech-melfsq2", 1),
    "text-spm16k@1": partial(_text_spm, "text-spm16k", 1),
}


def full_name(name: str) -> str:
    """ "image-fsq16" -> "image-fsq16@1" (the newest revision); ValueError names the nearest and all choices."""
    if name in CODECS:
        return name
    revisions = [full for full in CODECS if full.partition("@")[0] == name]
    if revisions:
        return max(revisions, key=lambda full: int(full.partition("@")[2]))
    near = difflib.get_close_matches(name, [*CODECS, *(full.partition("@")[0] for full in CODECS)], n=1, cutoff=0.3)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ValueError(f"no codec {name!r}{hint} The codecs are {', '.join(sorted(CODECS))}")


def load_codec(name: str) -> Codec:
    """The codec of this name, ready to use: load_codec("image-fsq16").encode(image)."""
    return _loaded(full_name(name))


@functools.cache
def _loaded(name: str) -> Codec:
    return CODECS[name]()


_NAMED = re.compile(r"(.+-([0-9a-f]{8}))@(\d+)")  # what a dataset's copy of a codec's file is called, without suffix


@dataclass(frozen=True)
class CodecFile:
    """A text codec that is a file."""

    codec: str  # its name, with revision: "llama-1f0e2d3c@1"
    path: Path
    sha256: str  # hex

    @classmethod
    def of(cls, path: Path) -> CodecFile:
        """The codec in a file: `llama.model` is "llama-" + the first 8 hex digits of its sha256 + "@1". The copy of a
        codec's file which bears its name keeps that name. ValueError where there is no such file."""
        data = _read(path)
        sha256 = hashlib.sha256(data).hexdigest()
        named = _NAMED.fullmatch(path.stem)
        if named and named[2] == sha256[:8]:
            return cls(path.stem, path, sha256)
        stem = re.sub(r"[^a-z0-9.-]+", "-", path.stem.lower()).strip("-.") or "text"
        return cls(f"{stem}-{sha256[:8]}@1", path, sha256)

    def load(self) -> Codec:
        """The codec, kept once it is loaded; ValueError where the file has changed or is no vocabulary."""
        return _loaded_file(self)


@dataclass(frozen=True)
class FileCodecs:
    """`load_codec`, or another function like it, which knows some files too; picklable if that function is."""

    files: tuple[CodecFile, ...]
    otherwise: Callable[[str], Any] = load_codec

    def __call__(self, name: str) -> Any:
        return next((file.load() for file in self.files if file.codec == name), None) or self.otherwise(name)


def is_codec_file(name: str) -> bool:
    """Whether a codec is named by the path of its file: one that ends in `.json` or `.model`."""
    return name.endswith((".json", ".model"))


def load_text_codec(path: str | Path) -> Codec:
    """The text codec of a `tokenizer.json` or a SentencePiece `.model`; ValueError says what is wrong with it."""
    return CodecFile.of(Path(path)).load()


CODEC_FILES = (".safetensors", ".bpe", ".model", ".json")
_FITTED = re.compile(r"(.+)-(\d+)\.(?:safetensors|bpe)")


def load_codec_file(path: str | Path) -> Codec:
    """The codec in a file that `mmdata fit` wrote, NAME-REVISION.safetensors or .bpe, or in a text codec's; ValueError
    says what is wrong with it."""
    path = Path(path)
    if is_codec_file(path.name):
        return load_text_codec(path)
    if not (named := _FITTED.fullmatch(path.name)):
        raise ValueError(f"{path} is no codec's file: give NAME-REVISION.safetensors or .bpe, as `mmdata fit` wrote it")
    if not path.is_file():
        raise ValueError(f"no file {path}; check the path")
    name, revision = named[1], int(named[2])
    if path.suffix == ".bpe":
        from tokenizer.jpeg import JpegBytes

        return JpegBytes.load(name, revision, path.parent)
    metadata = checkpoints.read_metadata(path)
    if "head" in metadata:
        from tokenizer.speech import SpeechFsq

        return SpeechFsq.load(name, revision, path.parent)
    if "bands" in metadata.get("network", {}):  # speech-melfsq@1, which had no head
        from tokenizer.audio import SpeechMelFsq

        return SpeechMelFsq.load(name, revision, path.parent)
    from tokenizer.image import ImageFsq

    return ImageFsq.load(name, revision, path.parent)


def open_codec(name: str) -> Codec:
    """The codec of this name, or in the file of this path."""
    return load_codec_file(name) if name.endswith(CODEC_FILES) else load_codec(name)


@functools.cache
def _loaded_file(file: CodecFile) -> Codec:
    data = _read(file.path)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise ValueError(f"{file.path} has changed: it is no longer the codec {file.codec}; put it back")
    name, _, revision = file.codec.partition("@")
    try:
        if file.path.suffix == ".json":
            from tokenizer.text_hf import TextHf

            return TextHf.of(name, int(revision), data)
        from tokenizer.text import TextSpm

        return TextSpm.of(name, int(revision), data)
    except ValueError as error:
        raise ValueError(f"{file.path}: {error}") from None


def _read(path: Path) -> bytes:
    if not is_codec_file(path.name):
        raise ValueError(f"{path} is no text codec: give a tokenizer.json or a SentencePiece .model")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read the text codec {path}: {error.strerror}; check the path") from None
