"""Layout: a grammar bound to codecs. Lengths, cuts, choices, render, apply and parse, which agree.

    row  := (BEGIN | CONTINUED) item* (END | CONTINUED)
    item := open [SIZE(h) SIZE(w)] [TIME ...] body [close]

A piece is a range of places (`tokenizer/item.py`) between two cuts. One that does not start its document begins with
the continued control and repeats the header of an item it continues, with absolute times; one that does not end it
ends with the continued control, and leaves an item it cuts unclosed. Choices never lengthen: `lengths` is of the
longest form.
Control ids come only from here: codes are checked against their codebook, so text that spells a delimiter stays text.
This file holds the binding; the work is in `measure.py`, `choose.py`, `render.py` and `parse.py`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tokenizer import choose, measure, parse, refusals, render
from tokenizer.codec import CodecSpec
from tokenizer.grammar import MEDIA, LayoutSpec, load_layout, read_layout, shipped_layouts
from tokenizer.item import KINDS, Item, ItemTable
from tokenizer.row import PLAIN, SPAN, Choice, Problem, Row
from tokenizer.vocabulary import Vocabulary

__all__ = [
    "PLAIN",
    "SPAN",
    "Choice",
    "Layout",
    "LayoutSpec",
    "Problem",
    "Row",
    "bind",
    "load_layout",
    "read_layout",
    "shipped_layouts",
]


@dataclass(frozen=True, slots=True)
class KindPlan:
    """An ItemRule in ids and counts, for the hot path."""

    number: int  # index into KINDS
    open: int  # id
    close: int  # id, -1 none
    num_sizes: int  # 0 or 2
    num_times: int  # times in the header, at most: 0, 1 (start) or 2 (start and end)


@dataclass(frozen=True, eq=False)
class Layout:
    """A LayoutSpec over codecs, made by `bind`. Immutable, picklable; `digest` covers spec and codecs."""

    spec: LayoutSpec
    codecs: tuple[CodecSpec, ...]  # in the order of their ranges
    vocabulary: Vocabulary
    digest: str
    keeps: tuple[str, ...]  # what parse gives back of an item, in words
    needs_blocks: bool
    num_positions: int  # position axes; 1 is positions [n]
    controls: dict[str, int]  # control name -> id
    kinds: dict[str, KindPlan]  # kinds that are written
    codec_index: dict[str, int]
    code_offsets: tuple[np.ndarray, ...]  # a codec: int32 [K], first id of each codebook
    code_sizes: tuple[np.ndarray, ...]  # a codec: uint32 [K]
    loss_of_field: np.ndarray  # float32 [13], see render.py
    size_start: int
    time_hi_start: int
    time_lo_start: int

    def lengths(
        self, table: ItemTable, pieces: np.ndarray | None = None, samples: np.ndarray | None = None
    ) -> np.ndarray:  # int32 [n]
        """Tokens of each sample, or of each piece: int32 [n, 2] places of sample i, or of sample samples[i].

        Raises ValueError naming the first item that this layout could not render.
        """
        return measure.lengths(self, table, pieces, samples)

    def cuts(self, table: ItemTable) -> tuple[np.ndarray, np.ndarray]:  # int32 [c], uint8 [c]
        """Where the one sample of `table` may be cut: places and their ranks, both ends of the sample included.

        Rank 0 between items, 1 between frames of a video or seconds of sound, 2 after a sentence, 3 after a token.
        """
        return measure.cuts(self, table)

    def choose(self, sample: ItemTable | Sequence[Item], seed: int, sample_id: str, epoch: int) -> Choice:
        """The seeded choices for a sample in an epoch: by hash of these arguments, nothing else."""
        return choose.choose(self.spec.choices, sample, seed, sample_id, epoch)

    def render(
        self,
        items: Sequence[Item],
        choice: Choice = PLAIN,
        piece: tuple[int, int] | None = None,
        media: Callable[[Item], np.ndarray] | None = None,
    ) -> Row:
        """One piece of a sample as a row. `media` gives the kept medium of a soft item, for layouts that take them.

        [text "hi"] -> tokens [<bos>, <text>, 7, 9, <eos>], kinds [5, 5, 1, 1, 5], loss_weights [0, 1, 1, 1, 1]
        """
        return render.render(self, items, choice, piece, media)

    def apply(self, items: Sequence[Item], choice: Choice = PLAIN, piece: tuple[int, int] | None = None) -> list[Item]:
        """The items of a piece as chosen, with only the fields this layout keeps: what parse gives back."""
        return [render.kept(self, part) for part in choose.parts_of(items, choice, piece)[0]]

    def parse(self, ids: np.ndarray) -> tuple[list[Item], list[Problem]]:
        """Items in a row of ids, and what is malformed and where; any ids at all, never an exception."""
        return parse.parse(self, ids)

    def opening(
        self, kind: str, h: int = 0, w: int = 0, start_s: float = math.nan, end_s: float = math.nan
    ) -> list[int]:
        """Ids up to the first code of an item: opening("image", 16, 16) = [<image>, SIZE(16), SIZE(16)]."""
        plan = self.kinds.get(kind)
        if plan is None:
            raise refusals.not_written(self, "what is to be opened", kind)
        ids = [plan.open]
        if plan.num_sizes:
            if not (0 < h < self.spec.vocabulary.sizes and 0 < w < self.spec.vocabulary.sizes):
                raise refusals.wrong_size(self, "what is to be opened", kind, h, w)
            ids += (self.size_start + h, self.size_start + w)
        if plan.num_times and math.isfinite(start_s):
            ids += self.time_ids(start_s)
            if plan.num_times == 2 and math.isfinite(end_s):
                ids += self.time_ids(end_s)
        return ids

    def time_ids(self, seconds: float) -> list[int]:
        """The two ids of TIME(seconds); saturates at 0 and at the last step."""
        plan = self.spec.vocabulary
        steps = min(max(round(seconds / plan.time_quantum_s), 0), plan.time_hi * plan.time_lo - 1)
        return [self.time_hi_start + steps // plan.time_lo, self.time_lo_start + steps % plan.time_lo]

    def time_steps(self, seconds: np.ndarray | float) -> np.ndarray:  # int64, of the shape of `seconds`
        """Time quanta of seconds, half to even, saturated."""
        plan = self.spec.vocabulary
        steps = np.rint(np.asarray(seconds, np.float64) / plan.time_quantum_s)
        return np.clip(steps, 0, plan.time_hi * plan.time_lo - 1).astype(np.int64)

    def quantised(self, seconds: float) -> float:
        """Seconds as they come back from TIME(seconds)."""
        return float(self.time_steps(seconds) * self.spec.vocabulary.time_quantum_s)

    def default_codec(self, kind: str) -> str:
        """The first codec for items of a kind (frames may be coded by an image codec); "" where there is none."""
        kinds = (kind, "image") if kind == "video" else (kind,)
        return next((c.name for k in kinds for c in self.codecs if c.kind == k), "")

    def num_codebooks(self, codec: str) -> int:
        """Codebooks of a bound codec; 1 for none."""
        return len(self.code_sizes[self.codec_index[codec]]) if codec else 1

    def rate(self, codec: str, num_frames: int, start_s: float, end_s: float) -> float:
        """Code frames a second of an audio item: its codec's, else by its times, else 0."""
        index = self.codec_index.get(codec)
        rate = self.codecs[index].rate if index is not None else 0.0
        seconds = end_s - start_s
        return rate or (num_frames / seconds if math.isfinite(seconds) and seconds > 0 else 0.0)


def bind(spec: LayoutSpec, codecs: Iterable[CodecSpec]) -> Layout:
    """The layout over these codecs: the same set in any order gives the same ids."""
    ordered = _ordered(spec, codecs)
    plan, loss = spec.vocabulary, spec.loss
    text = next((c for c in ordered if c.kind == "text"), None)
    parts: list[tuple[str, str, int, tuple[str, ...]]] = [
        ("text", text.name if text else "text", text.codebooks[0] if text else 0, ()),
        ("control", "control", plan.control_places, plan.controls),
        ("size", "size", plan.sizes, ()),
        ("time_hi", "time", plan.time_hi, ()),
        ("time_lo", "time", plan.time_lo, ()),
    ]
    parts += [(f"{c.name}/{k}", c.name, s, ()) for c in ordered if c is not text for k, s in enumerate(c.codebooks)]
    vocabulary = Vocabulary.of(parts, plan.multiple)
    controls = {name: vocabulary["control"].start + i for i, name in enumerate(plan.controls)}
    names = {c.name: ["text"] if c is text else [f"{c.name}/{k}" for k in range(len(c.codebooks))] for c in ordered}
    shapes = [f"{c.name} {c.kind} {list(c.codebooks)} {float(c.rate)!r}" for c in ordered]
    # In the order of the fields of render.py.
    weights = [0, loss.text, loss.image, loss.audio, loss.video, loss.delimiters, loss.begin, loss.end, loss.continued]
    weights += [loss.size, loss.time, loss.soft, loss.soft]
    return Layout(
        spec=spec,
        codecs=tuple(ordered),
        vocabulary=vocabulary,
        digest=hashlib.sha256("\n".join([spec.digest, *shapes]).encode()).hexdigest(),
        keeps=_keeps(spec),
        needs_blocks=bool(spec.attention.blocks),
        num_positions=1,
        controls=controls,
        kinds={kind: _kind_plan(spec, kind, controls) for kind in MEDIA if spec.rule(kind).open},
        codec_index={c.name: i for i, c in enumerate(ordered)},
        code_offsets=tuple(np.array([vocabulary[name].start for name in names[c.name]], np.int32) for c in ordered),
        code_sizes=tuple(np.array(c.codebooks, np.uint32) for c in ordered),
        loss_of_field=np.array(weights, np.float32),
        size_start=vocabulary["size"].start,
        time_hi_start=vocabulary["time_hi"].start,
        time_lo_start=vocabulary["time_lo"].start,
    )


def _kind_plan(spec: LayoutSpec, kind: str, controls: dict[str, int]) -> KindPlan:
    rule = spec.rule(kind)
    return KindPlan(
        number=KINDS.index(kind),
        open=controls[rule.open],
        close=controls[rule.close] if rule.close else -1,
        num_sizes=2 if rule.header == "two_sizes" else 0,
        num_times={"start": 1, "start_end": 2}.get(rule.times, 0),
    )


def _ordered(spec: LayoutSpec, codecs: Iterable[CodecSpec]) -> list[CodecSpec]:
    """Codecs in the order of their ranges, checked; a text codec that the layout does not take is refused."""
    by_name: dict[str, CodecSpec] = {}
    for codec in codecs:
        if codec.kind not in MEDIA:
            raise ValueError(f"codec {codec.name} has kind {codec.kind!r}; the kinds are {list(MEDIA)}")
        if codec.kind == "text" and len(codec.codebooks) != 1:
            raise ValueError(
                f"text codec {codec.name} has {len(codec.codebooks)} codebooks; a layout writes text of one"
            )
        other = by_name.setdefault(codec.name, codec)
        if (other.kind, tuple(other.codebooks), other.rate) != (codec.kind, tuple(codec.codebooks), codec.rate):
            raise ValueError(
                f"two codecs have the name {codec.name}, one with codebooks {list(other.codebooks)} and rate"
                f" {other.rate}, one with {list(codec.codebooks)} and {codec.rate}; give one of them another revision"
            )
    ordered = sorted(by_name.values(), key=lambda c: (KINDS.index(c.kind), c.name))
    texts = [c.name for c in ordered if c.kind == "text"]
    want = spec.text_codec or (texts[0] if texts else "")
    if any(name != want for name in texts):
        raise ValueError(
            f"layout {spec.name} takes text of one codec ({want}), the data has {texts};"
            f" run `mmdata recode DIR --text {want} --out DIR2` to rewrite the text"
        )
    return ordered


def _keeps(spec: LayoutSpec) -> tuple[str, ...]:
    plan = spec.vocabulary
    last = (plan.time_hi * plan.time_lo - 1) * plan.time_quantum_s
    written = [kind for kind in MEDIA if spec.rule(kind).open]
    said = [f"{', '.join(written)}: kind, order, codec, codes, grid"]
    words = {"start": "start_s", "start_end": "start_s, end_s", "frames": "times"}
    for kind in written:
        if times := words.get(spec.rule(kind).times):
            piece = " (a piece: its own start)" if kind == "audio" else ""
            said.append(f"{kind}: {times}{piece} to {plan.time_quantum_s:g} s, saturated at 0 and {last:g} s")
    return tuple(said)
