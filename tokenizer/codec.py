"""The Codec protocol: one medium to integer codes and back (DESIGN section 8).

Contract, which `tests/tokenizer/test_codecs.py` holds every shipped codec to:
* `encode(medium).codes` is int32 [T, K], codes[:, k] in [0, codebooks[k]); T, K, t, h, w, rate equal `shape(size)`.
  Where only encoding tells how many codes there are (text, jpeg-bytes), `shape` takes the medium in place of its size.
* `encode_batch(media)[i]` equals `encode(media[i])`, code for code: batching is fixed-shape and pads, so that what is
  batched with what never shows.
* `decode(codes)` returns a medium of the size the codes stand for; `exact` codecs give the input back.
* `fingerprint` is the sha256 over weights, preprocessing parameters and the revision of the code that runs them.
* Quantisers run in float32.
Media: text str; image uint8 [H, W, 3]; audio float32 [n] mono in [-1, 1] at `sample_rate_hz`; video uint8 [t, H, W, 3].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Shape:
    """What codes a medium of some size will have, known without encoding."""

    T: int  # code frames (rows of codes)
    K: int  # codebooks
    t: int = 0  # grid; (0, 0, 0) for text, (T, 0, 0) for audio, (1, h, w) for an image, (t, h, w) for a video
    h: int = 0
    w: int = 0
    rate: float = 0.0  # code frames a second; 0 where time means nothing


@dataclass(frozen=True, eq=False)
class Codes:
    """Codes of one medium: values int32 [T, K] in codec-local numbers, with their shape and times."""

    codes: np.ndarray  # int32 [T, K]
    shape: Shape
    times: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))  # float32 [t], video: one a frame
    size: tuple[int, ...] = ()  # of the medium: (H, W) or (samples,): decode crops to it where given


@dataclass(frozen=True)
class CodecSpec:
    """What a manifest keeps of a codec, and all that a layout needs to know of it."""

    name: str  # "image-fsq16@1"
    kind: str
    codebooks: tuple[int, ...]
    fingerprint: str
    exact: bool
    rate: float = 0.0  # code frames a second of an audio codec
    # Of a scalar quantiser: a code is a number of these digits, the first the least significant; () where it is not
    levels: tuple[int, ...] = ()
    # Of a text codec: (name, code) of its own special tokens, which `encode` never yields; a layout may use their codes
    specials: tuple[tuple[str, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; without `specials` where there are none, as manifests had no such key at first."""
        value = {**asdict(self), "codebooks": list(self.codebooks), "levels": list(self.levels)}
        specials = [list(pair) for pair in value.pop("specials")]
        return {**value, "specials": specials} if specials else value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CodecSpec:
        """The inverse of `to_json`. Keys that a later version adds are left out; those of ours may be missing."""
        known = {f.name: value[f.name] for f in fields(cls) if f.name in value}
        known |= {"codebooks": tuple(value["codebooks"]), "levels": tuple(value.get("levels", ()))}
        return cls(**{**known, "specials": tuple((name, code) for name, code in value.get("specials", ()))})


class Codec(Protocol):
    """Encodes one medium to integer codes and decodes it back; see the module docstring for the contract."""

    @property
    def name(self) -> str: ...  # without revision: "image-fsq16"
    @property
    def revision(self) -> int: ...
    @property
    def kind(self) -> str: ...  # text | image | audio | video
    @property
    def fingerprint(self) -> str: ...
    @property
    def codebooks(self) -> tuple[int, ...]: ...
    @property
    def exact(self) -> bool: ...
    def shape(self, size: Any) -> Shape: ...
    def encode(self, medium: Any) -> Codes: ...
    def encode_batch(self, media: Sequence[Any]) -> list[Codes]: ...
    def decode(self, codes: Codes) -> Any: ...


def spec_of(codec: Codec) -> CodecSpec:
    """The part of a codec that is written down; its name as `name@revision`."""
    return CodecSpec(
        name=f"{codec.name}@{codec.revision}",
        kind=codec.kind,
        codebooks=tuple(codec.codebooks),
        fingerprint=codec.fingerprint,
        exact=codec.exact,
        rate=float(getattr(codec, "rate", 0.0)),
        levels=tuple(getattr(codec, "levels", ())),
        specials=tuple(getattr(codec, "specials", ())),
    )
