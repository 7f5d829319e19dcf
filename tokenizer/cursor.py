"""A place in a row of ids: what stands there, how far its run goes, and what was found to be wrong.

Works on runs of tokens of one class (text, one codec, control, size, time), so looking costs nothing a token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tokenizer.literals import Literal
from tokenizer.row import Problem

if TYPE_CHECKING:
    from tokenizer.layout import Layout

_NOWHERE = -1


@dataclass(eq=False)
class Cursor:
    """A place in the ids, and the problems so far. Never past what it reads: `at` is the next token."""

    layout: Layout
    ids: np.ndarray  # int64 [n]
    at: int = 0
    problems: list[Problem] = field(default_factory=list)
    clock_s: float = 0.0  # of merged unit streams, whose own times are lost

    def __post_init__(self) -> None:
        layout, vocabulary = self.layout, self.layout.vocabulary
        groups = [r.group if r.name not in ("time_hi", "time_lo") else r.name for r in vocabulary.ranges]
        self.classes = sorted({*groups, "control"})
        class_of = np.array([*(self.classes.index(g) for g in groups), _NOWHERE], np.int32)
        self.of = class_of[vocabulary.range_index(self.ids)]  # class of each token
        if vocabulary.aliases:
            self.of[np.isin(self.ids, [id for _, id in vocabulary.aliases])] = self.classes.index("control")
        changes = np.flatnonzero(self.of[1:] != self.of[:-1]) + 1 if len(self.of) else np.zeros(0, np.int64)
        self.bounds = np.concatenate([changes, [len(self.of)]])
        same = np.flatnonzero(self.ids[1:] != self.ids[:-1]) + 1 if len(self.ids) else np.zeros(0, np.int64)
        self.same_bounds = np.concatenate([same, [len(self.ids)]])  # where runs of one id end
        self.names = {id: name for name, id in layout.controls.items()}
        self.text_class = _text_group(layout)
        self.codec_of_class = {
            self.classes.index(c.name if c.kind != "text" else self.text_class): i for i, c in enumerate(layout.codecs)
        }

    def name(self, at: int) -> str:
        """The class of a token, "" past the end or outside the vocabulary."""
        return self.classes[self.of[at]] if 0 <= at < len(self.of) and self.of[at] >= 0 else ""

    def control(self, at: int) -> str:
        """The control at a place, "" where there is none; a reserved place is called by its id."""
        return self.names.get(int(self.ids[at]), f"id {self.ids[at]}") if self.name(at) == "control" else ""

    def mark(self, at: int) -> int:
        """The id of the control at a place, -1 where there is none."""
        return int(self.ids[at]) if self.name(at) == "control" else -1

    def run_end(self, at: int) -> int:
        """Where the run of tokens of one class around `at` ends."""
        return int(self.bounds[np.searchsorted(self.bounds, at, "right")]) if at < len(self.of) else at

    def follows(self, at: int, ids: tuple[int, ...]) -> bool:
        """Whether exactly these ids stand at a place."""
        return at >= 0 and at + len(ids) <= len(self.ids) and tuple(self.ids[at : at + len(ids)].tolist()) == ids

    def report(self, at: int, what: str) -> None:
        self.problems.append(Problem(int(at), what))

    def expect(self, literal: Literal, what: str) -> bool:
        """Reads the rest of a literal whose mark is here."""
        if self.follows(self.at + 1, literal.rest):
            self.at += 1 + len(literal.rest)
            return True
        self.report(self.at + 1, f"{what} is not followed by what belongs to it")
        self.at += 1
        return False

    def placeholders(self, placeholder: str) -> int:
        """How many of a placeholder stand here, read."""
        if self.control(self.at) != placeholder:
            return 0
        end = int(self.same_bounds[np.searchsorted(self.same_bounds, self.at, "right")])
        count, self.at = end - self.at, end
        return count

    def skip(self) -> None:
        """To the next control."""
        while self.at < len(self.ids) and self.name(self.at) != "control":
            self.at = self.run_end(self.at)

    def codec_here(self, kind: str) -> int:
        """Index of the codec whose ids begin here and may code this kind, -1 where there is none."""
        codec = self.codec_of_class.get(int(self.of[self.at]), -1) if self.at < len(self.of) else -1
        if codec < 0:
            return -1
        has = self.layout.codecs[codec].kind
        return codec if has == kind or (kind == "video" and has == "image") else -1

    def codec_name(self, kind: str, codec: int) -> str:
        return self.layout.codecs[codec].name if codec >= 0 else self.layout.default_codec(kind)

    def num_codebooks(self, codec: str) -> int:
        return self.layout.num_codebooks(codec)


def _text_group(layout: Layout) -> str:
    """What the text range's group is called."""
    return next(r.group for r in layout.vocabulary.ranges if r.name == "text")
