"""Items: what a codec yields, what a layout renders, and what a sample stores.

An item is one part of a document once encoded (DESIGN word list). Its codes are codec-local integers, never ids of a
vocabulary. The item table is the columnar form of many samples' items: planning reads it and touches no codes.
A *place* is the coordinate in which a sample may be cut: items one after the other, each `num_units` long
(text: one a token; audio: one a code frame; video: one a frame; image: one in all).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

# The index of a name is its stored number: in the item table, in Batch.kinds, in the shards. Append only.
KINDS = ("none", "text", "image", "audio", "video", "control")
ROLES = ("none", "system", "user", "assistant")
GROUP_ROLES = ("none", "caption", "condition", "target")

NONE, TEXT, IMAGE, AUDIO, VIDEO, CONTROL = range(len(KINDS))

_NO_TIMES = np.zeros(0, np.float32)
_NO_UNIT_TIMES = np.zeros((0, 2), np.float32)
_NO_ENDS = np.zeros(0, np.int32)


@dataclass(frozen=True, eq=False)
class Item:
    """One encoded part. A soft item has `codes=None`, `codec=""` and its kept size in `grid`."""

    kind: str  # text | image | audio | video
    codec: str  # "image-fsq16@1": name and revision; "" for a soft item
    codes: np.ndarray | None  # int32 [T, K], each in [0, codebook size)
    grid: tuple[int, int, int] = (0, 0, 0)  # (t, h, w) in codes; soft: pixels, or (samples, 0, 0) of audio
    start_s: float = float("nan")  # on the clock of the document's medium; NaN where there is none
    end_s: float = float("nan")
    digest: str = ""  # sha256, hex, of the part's original bytes
    uri: str = ""
    role: str = "none"
    stream: str = ""  # speaker, side or track
    group: int = -1
    group_role: str = "none"
    times: np.ndarray = field(default_factory=lambda: _NO_TIMES)  # float32 [n] seconds, one a code frame
    unit_times: np.ndarray = field(default_factory=lambda: _NO_UNIT_TIMES)  # float32 [n, 2] seconds, words or units
    text: str | None = None  # kept where decode(encode(text)) != text
    sentence_ends: np.ndarray = field(default_factory=lambda: _NO_ENDS)  # int32 [n] token offsets; in the catalog

    def __post_init__(self) -> None:
        if self.kind not in KINDS[1:5]:
            raise ValueError(f"an item has kind {self.kind!r}; the kinds are {list(KINDS[1:5])}")
        if self.codes is not None and (self.codes.ndim != 2 or self.codes.dtype != np.int32):
            raise ValueError(f"codes are int32 [T, K], got {self.codes.dtype} {list(self.codes.shape)}")

    @property
    def is_soft(self) -> bool:
        return self.codes is None


@dataclass(frozen=True, eq=False)
class ItemTable:
    """The items of n samples as columns, without codes: m items, `offsets[i]:offsets[i+1]` those of sample i."""

    offsets: np.ndarray  # int64 [n+1]
    kind: np.ndarray  # uint8 [m], index into KINDS
    codec: np.ndarray  # int32 [m], index into `codecs`; -1 for a soft item
    T: np.ndarray  # int32 [m] code frames; 0 for a soft item
    K: np.ndarray  # int32 [m] codebooks; 0 for a soft item
    t: np.ndarray  # int32 [m] grid; soft: kept size
    h: np.ndarray  # int32 [m]
    w: np.ndarray  # int32 [m]
    start_s: np.ndarray  # float64 [m], NaN where none
    end_s: np.ndarray  # float64 [m]
    role: np.ndarray  # uint8 [m], index into ROLES
    stream: np.ndarray  # int32 [m], index into `streams`
    group: np.ndarray  # int32 [m], -1 none
    group_role: np.ndarray  # uint8 [m], index into GROUP_ROLES
    times: np.ndarray  # float32 [sum]
    times_offsets: np.ndarray  # int64 [m+1]
    sentence_ends: np.ndarray  # int32 [sum]
    sentence_offsets: np.ndarray  # int64 [m+1]
    codecs: tuple[str, ...]
    streams: tuple[str, ...] = ("",)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.offsets) - 1

    @classmethod
    def of(cls, samples: Sequence[Sequence[Item]]) -> ItemTable:
        """The table of samples given as lists of items; codec and stream names in order of first use."""
        items = [item for sample in samples for item in sample]
        codecs: dict[str, int] = {}
        streams: dict[str, int] = {"": 0}
        shapes = [(0, 0) if i.codes is None else i.codes.shape for i in items]
        grids = np.array([i.grid for i in items], np.int32).reshape(-1, 3)
        return cls(
            offsets=np.cumsum([0, *map(len, samples)], dtype=np.int64),
            kind=np.array([KINDS.index(i.kind) for i in items], np.uint8),
            codec=np.array([-1 if i.is_soft else codecs.setdefault(i.codec, len(codecs)) for i in items], np.int32),
            T=np.array([s[0] for s in shapes], np.int32),
            K=np.array([s[1] for s in shapes], np.int32),
            t=grids[:, 0],
            h=grids[:, 1],
            w=grids[:, 2],
            start_s=np.array([i.start_s for i in items], np.float64),
            end_s=np.array([i.end_s for i in items], np.float64),
            role=np.array([ROLES.index(i.role) for i in items], np.uint8),
            stream=np.array([streams.setdefault(i.stream, len(streams)) for i in items], np.int32),
            group=np.array([i.group for i in items], np.int32),
            group_role=np.array([GROUP_ROLES.index(i.group_role) for i in items], np.uint8),
            times=_join([i.times for i in items], np.float32),
            times_offsets=np.cumsum([0, *(len(i.times) for i in items)], dtype=np.int64),
            sentence_ends=_join([i.sentence_ends for i in items], np.int32),
            sentence_offsets=np.cumsum([0, *(len(i.sentence_ends) for i in items)], dtype=np.int64),
            codecs=tuple(codecs),
            streams=tuple(streams),
        )

    def num_units(self) -> np.ndarray:
        """Units of each item, int32 [m]: the lengths that places count (module docstring); soft media: one."""
        units = np.ones(len(self.kind), np.int32)
        hard = self.codec >= 0
        timed = hard & ((self.kind == TEXT) | (self.kind == AUDIO))
        units[timed] = self.T[timed]
        frames = hard & (self.kind == VIDEO)
        units[frames] = self.t[frames]
        return units


def ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:  # int64 [sum of counts]
    """[s0, s0+1, ... (c0 of them), s1, ...]"""
    ends = np.cumsum(counts, dtype=np.int64)
    return np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)


def _join(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)
