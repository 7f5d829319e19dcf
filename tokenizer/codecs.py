"""The shipped codecs by name: one plain dict, loaded when asked for and then kept.

A name without a revision means the newest; revisions are never replaced, so "image-fsq16@1" stays loadable.
A codec of your own needs no entry here: it is an object with the methods of `tokenizer.codec.Codec`.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable

from tokenizer.codec import Codec


def _image_fsq16_1() -> Codec:
    from tokenizer.image import ImageFsq

    return ImageFsq.load("image-fsq16", 1)


def _text_spm16k_1() -> Codec:
    from tokenizer.text import TextSpm

    return TextSpm.load("text-spm16k", 1)


def _speech_melfsq_1() -> Codec:
    from tokenizer.audio import SpeechMelFsq

    return SpeechMelFsq.load("speech-melfsq", 1)


CODECS: dict[str, Callable[[], Codec]] = {
    "image-fsq16@1": _image_fsq16_1,
    "speech-melfsq@1": _speech_melfsq_1,
    "text-spm16k@1": _text_spm16k_1,
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
