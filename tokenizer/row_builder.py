"""A row on its way: ids as arrays that are joined once, all else as runs (how many tokens, which kind and weight).

On the loader's hot path: Python works an item and a frame, never a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tokenizer import positions
from tokenizer.bodies import codebook_of
from tokenizer.item import CONTROL, Item
from tokenizer.row import SPAN, Choice, Row

if TYPE_CHECKING:
    from tokenizer.layout import KindPlan, Layout

Media = Callable[[Item], np.ndarray]
_FEW_RUNS = 12  # filled one by one; more are faster by np.repeat


@dataclass(eq=False)
class RowBuilder:
    """What is written, in order; `row` gives the arrays."""

    layout: Layout
    media: Media | None = None
    groups: list[int] = field(default_factory=list)  # of the sample's items, where captions have a weight
    turns: bool = False  # delimiters of turns are written
    dry: bool = False  # make no soft vectors
    n: int = 0
    ids: list[np.ndarray] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    scaled: list[tuple[int, np.ndarray]] = field(default_factory=list)  # (start, factors of the weights from there)
    spans: list[tuple[int, int, int, tuple[int, int]]] = field(default_factory=list)
    soft: dict[str, list[np.ndarray]] = field(default_factory=dict)
    soft_places: list[tuple[int, np.ndarray]] = field(default_factory=list)
    block: int = 0  # the last one given
    factor: float = 1.0  # of weights of what is written now

    def __post_init__(self) -> None:
        rule = self.layout.spec.positions
        self.places = positions.Places(rule) if rule.plan != "linear" else None

    def run(self, count: int, kind: int, weight: float, block: int = 0) -> None:
        self.counts.append(count)
        self.kinds.append(kind)
        self.weights.append(weight * self.factor)
        self.blocks.append(block)
        self.n += count

    def control(self, id: int, weight: float) -> None:
        self.ids.append(np.array([id], np.int32))
        self.run(1, CONTROL, weight)
        if self.places:
            self.places.text(1)

    def plain(self, ids: np.ndarray, weight: float, block: int = 0) -> None:
        """Delimiters and words of the layout."""
        if not len(ids):
            return
        self.ids.append(ids)
        self.run(len(ids), CONTROL, weight, block)
        if self.places:
            self.places.text(len(ids))

    def scale(self, plan: KindPlan, h: int, w: int, K: int, count: int) -> None:
        """The weights of `count` bodies of h x w cells, which are written next, by their codebooks."""
        if self.layout.spec.loss.codebooks:
            self.scaled.append((self.n, np.tile(self.factors(plan, h, w, K), count)))

    def scale_books(self, books: np.ndarray) -> None:
        """The weights of tokens that are written next, by the codebook of each, int64 [n]."""
        given = self.layout.spec.loss.codebooks
        if given:
            self.scaled.append((self.n, np.array(given, np.float32)[np.minimum(books, len(given) - 1)]))

    def factors(self, plan: KindPlan, h: int, w: int, K: int) -> np.ndarray:  # float32 [h * w * K]
        """By what the weight of each place of a body is multiplied."""
        given = np.array(self.layout.spec.loss.codebooks, np.float32)
        return given[np.minimum(codebook_of(plan.body, h, w, K), len(given) - 1)]

    def time_ids(self, plan: KindPlan, step: int) -> np.ndarray:
        if plan.time_text:
            return np.array(self.layout.words.ids(plan.time_text.write(step)), np.int32)
        lo = max(self.layout.spec.vocabulary.time_lo, 1)
        return np.array([self.layout.time_hi_start + step // lo, self.layout.time_lo_start + step % lo], np.int32)

    def new_block(self, kind: str) -> int:
        """A new block's id where codes of this kind see one another, else 0."""
        if kind not in self.layout.spec.attention.blocks:
            return 0
        self.block += 1
        return self.block

    def edge(self, block: int) -> int:
        """The block of the delimiters of an item in `block`."""
        return block if self.layout.spec.attention.delimiters else 0

    def begin_item(self) -> None:
        if self.places:
            self.places.begin_item()

    def end_item(self) -> None:
        if self.places:
            self.places.end_item()

    def _spread(self, values: Sequence[float], dtype: type) -> np.ndarray:
        """The value of each run at each of its tokens."""
        if len(values) > _FEW_RUNS:
            return np.repeat(np.array(values, dtype), np.array(self.counts, np.int64))
        out: np.ndarray = np.empty(self.n, dtype)
        at = 0
        for count, value in zip(self.counts, values):
            out[at : at + count] = value
            at += count
        return out

    def row(self, choice: Choice, prefix: int) -> Row:
        """All arrays; the first `prefix` tokens see one another and are no targets."""
        layout = self.layout
        tokens = np.concatenate(self.ids) if self.ids else np.zeros(0, np.int32)
        weights = self._spread(self.weights, np.float32)
        for start, factors in self.scaled:
            weights[start : start + len(factors)] *= factors
        blocks = None
        if layout.needs_blocks:
            blocks = self._spread(self.blocks, np.int32)
            if prefix:
                blocks[blocks > 0] += 1
                blocks[:prefix] = 1
                weights[:prefix] = 0
        soft_index = None
        if self.soft_places:
            soft_index = np.full(len(tokens), -1, np.int32)
            for start, index in self.soft_places:
                soft_index[start : start + len(index)] = index
        return Row(
            tokens=tokens,
            loss_weights=weights,
            positions=self.places.array() if self.places else np.arange(len(tokens), dtype=np.int32),
            kinds=self._spread(self.kinds, np.uint8),
            spans=np.array(self.spans, SPAN),
            choice=choice,
            blocks=blocks,
            soft={kind: np.concatenate(arrays) for kind, arrays in self.soft.items()},
            soft_index=soft_index,
        )
