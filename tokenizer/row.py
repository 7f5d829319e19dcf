"""What a layout makes of a sample: a Row of arrays, the Choice made for it, and the Problems a parse finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

# One item in a row: its number in the sample, its tokens [start, stop) with delimiters, its units [piece).
SPAN = np.dtype([("item", "<i4"), ("start", "<i4"), ("stop", "<i4"), ("piece", "<i4", (2,))])


@dataclass(frozen=True)
class Choice:
    """What was chosen for one sample in one epoch, in absolute terms: it can be applied again, on its own.

    Choice(order=((0, "caption_first"),), dropped=(2,)): in group 0 captions come first; group 2 lost its conditions.
    """

    order: tuple[tuple[int, str], ...] = ()  # (group, caption_first | caption_last)
    dropped: tuple[int, ...] = ()  # groups without their condition items

    def to_json(self) -> dict[str, Any]:
        return {"order": [list(pair) for pair in self.order], "dropped": list(self.dropped)}


PLAIN = Choice()


@dataclass(frozen=True, eq=False)
class Row:
    """One piece of a sample rendered: arrays of n tokens, unpadded."""

    tokens: np.ndarray  # int32 [n]
    loss_weights: np.ndarray  # float32 [n], the weight with which this token is a target
    positions: np.ndarray  # int32 [n]
    kinds: np.ndarray  # uint8 [n], tokenizer.item.KINDS
    spans: np.ndarray  # SPAN [number of items in the piece], in the order of the row
    choice: Choice = PLAIN
    blocks: np.ndarray | None = None  # int32 [n], 0 causal
    # Of soft items: "image" uint8 [S, patch, patch, 3], "audio" int16 [S, samples]. The kind of a token says which.
    soft: dict[str, np.ndarray] = field(default_factory=dict)
    soft_index: np.ndarray | None = None  # int32 [n], index into soft[kind], -1 where the token is an id

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Problem:
    """What is malformed in a row of ids, and at which token."""

    position: int
    what: str
