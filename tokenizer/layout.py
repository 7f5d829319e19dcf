"""Layout: a grammar bound to codecs. Lengths, cuts, choices, render, apply and parse, which agree.

    row    := (BEGIN [TASK] | CONTINUED) (item | turn)* (END | CONTINUED)
    turn   := open item* close
    item   := open [header] [TIME ...] [after_header] body [close]
    body   := codes | (row ROW_END)* | frame (SEPARATOR frame)*
    frame  := [TIME] [frame_open] codes [frame_close]

A piece is a range of places (`tokenizer/item.py`) between two cuts. One that does not start its document begins with
the continued control and repeats the header of an item it continues, with absolute times; one that does not end it
ends with the continued control, and leaves an item it cuts unclosed. Choices never lengthen: `lengths` is of the
longest form.
Control ids come only from here: codes are checked against their codebook, so text that spells a delimiter stays text.
This file holds the binding; the work is in `measure.py`, `choose.py`, `render.py`, `kept.py` and `parse.py`, and that
of one item in `item_tokens.py`, `write_items.py` and `read_items.py`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokenizer import choose, kept, measure, parse, refusals, render, write_items
from tokenizer.ambiguity import only_soft, sides
from tokenizer.bodies import BodyOrder
from tokenizer.codec import CodecSpec
from tokenizer.grammar import MEDIA, ItemRule, LayoutSpec, load_layout, read_layout, shipped_layouts
from tokenizer.item import KINDS, Item, ItemTable
from tokenizer.literals import Literal, SizeText, TimeText, Words, literal
from tokenizer.row import PLAIN, SPAN, Choice, Problem, Row
from tokenizer.soft import soft_shapes
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

_DEFAULT_TEXT = "text-spm16k"  # of a layout that writes words over data without text
_AXES = {"linear": 1, "grid": 2, "three_axis": 3, "one_per_item": 1, "restart": 1}


@dataclass(frozen=True, slots=True)
class KindPlan:
    """An ItemRule in ids and counts, for the hot path."""

    kind: str
    number: int  # index into KINDS
    rule: ItemRule
    open: Literal
    after_header: Literal
    frame_open: Literal
    frame_close: Literal
    close: Literal
    row_end: int  # id, -1 none
    separator: int  # id between frames, -1 none
    num_sizes: int  # 0 or 2
    num_times: int  # times in the header, at most: 0, 1 (start) or 2 (start and end)
    frame_times: bool
    time_text: TimeText | None
    size_text: SizeText | None
    fixed: tuple[int, int]  # (h, w) that the layout names, else (0, 0)
    body: BodyOrder
    weight: float  # of its codes as targets
    as_video: bool  # an image that is written as a video of one frame
    only_soft: bool  # nothing would say the grid of its codes, so it is taken soft only

    @property
    def marked(self) -> bool:
        """Whether an item without codes shows in a row."""
        return self.open.mark >= 0

    @property
    def says_grid(self) -> bool:
        """Whether a row tells the grid of a video without frames."""
        return bool(self.num_sizes or self.size_text or self.fixed[0])

    @property
    def loose(self) -> bool:
        """Two of its kind, one after the other, read as one."""
        return self.open.mark < 0 and self.close.mark < 0

    @property
    def varies(self) -> bool:
        """Frames of one video do not all take as many tokens."""
        return self.time_text is not None or self.rule.max_rate > 0


@dataclass(frozen=True, eq=False, repr=False)
class Layout:
    """A LayoutSpec over codecs, made by `bind`. Immutable, picklable; `digest` covers spec and codecs."""

    spec: LayoutSpec
    codecs: tuple[CodecSpec, ...]  # in the order of their ranges
    vocabulary: Vocabulary
    words: Words
    digest: str
    keeps: tuple[str, ...]  # what parse gives back of an item, in words
    controls: dict[str, int]  # control name -> id
    kinds: dict[str, KindPlan]  # kinds that are written
    codec_index: dict[str, int]
    code_offsets: tuple[np.ndarray, ...]  # a codec: int32 [K], first id of each codebook
    code_sizes: tuple[np.ndarray, ...]  # a codec: uint32 [K]
    special_codes: np.ndarray | None  # bool [text codebook]: codes that are controls here, so never text's
    turn_open: dict[str, Literal]  # by role; {} where turns are not written
    turn_close: Literal
    tasks: tuple[int, int, int] | None  # ids: no media (-1 none), media last, other
    size_start: int
    time_hi_start: int
    time_lo_start: int

    @property
    def needs_blocks(self) -> bool:
        """Whether rows carry `blocks`."""
        return bool(self.spec.attention.blocks or self.spec.attention.prefix)

    @property
    def num_positions(self) -> int:
        """Position axes; 1 is positions [n]."""
        return _AXES[self.spec.positions.plan]

    @property
    def num_streams(self) -> int:
        """Ids a place: 1, or those of text and sounds in parallel."""
        if not self.spec.streams.sounds:
            return 1
        return 1 + self.spec.streams.sounds * self.sound_codebooks

    @property
    def sound_codebooks(self) -> int:
        """Codebooks of a sound in parallel streams; 0 where the data has no sound."""
        return next((len(c.codebooks) for c in self.codecs if c.kind == "audio"), 0)

    @property
    def soft_shapes(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Kind -> shape and type of the vector of one soft position."""
        return soft_shapes(self.spec.soft)

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
        Places count units of items one after the other; inside items that are written as one (frames and their sound,
        parallel streams) they count units in the order of the clock.
        """
        return measure.cuts(self, table)

    def all_cuts(self, table: ItemTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # int32 [c], uint8 [c]
        """`cuts` of every sample of a table, one after the other, and int64 [n+1] where those of each sample begin."""
        return measure.all_cuts(self, table)

    def units(
        self, table: ItemTable, samples: np.ndarray, starts: np.ndarray, stops: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # int64 [x] each
        """What pieces hold: (number of the piece, item of the table, how many units of it), in no special order.

        Frames that thinning leaves out and items that the layout leaves out do not count."""
        return measure.units(self, table, samples, starts, stops)

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
        return kept.apply(self, items, choice, piece)

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
        if kind in ("image", "video"):
            refusals.check_grid(self, plan, "what is to be opened", h, w)
        return write_items.head(self, plan, h, w, start_s, end_s).tolist()

    def time_ids(self, seconds: float) -> list[int]:
        """The two ids of TIME(seconds); saturates at 0 and at the last step."""
        steps = int(self.time_steps(seconds))
        return [self.time_hi_start + steps // self._time_lo, self.time_lo_start + steps % self._time_lo]

    @property
    def _time_lo(self) -> int:
        return max(self.spec.vocabulary.time_lo, 1)

    def last_step(self, text: TimeText | None = None) -> int:
        """The step at which times saturate."""
        plan = self.spec.vocabulary
        return text.last if text else max(plan.time_hi * plan.time_lo - 1, 0)

    def time_steps(self, seconds: np.ndarray | float, text: TimeText | None = None) -> np.ndarray:  # int64
        """Time quanta of seconds, half to even, saturated; of the shape of `seconds`.

        Of a time as text: what its decimals say, as printing rounds them (0.45 s is "0.5", 0.15 s is "0.1")."""
        values, quantum = np.asarray(seconds, np.float64), self.spec.vocabulary.time_quantum_s
        if text is not None:
            quantum = text.quantum_s
            values = np.array([round(v, text.places) for v in values.reshape(-1).tolist()]).reshape(values.shape)
        return np.clip(np.rint(values / quantum), 0, self.last_step(text)).astype(np.int64)

    @property
    def frame_quantum_s(self) -> float:
        """Seconds of a step of the times of frames."""
        text = self.kinds["video"].time_text
        return text.quantum_s if text else self.spec.vocabulary.time_quantum_s

    def frame_steps(self, times: np.ndarray) -> np.ndarray:  # int64 [t]
        """Time quanta of the frames of a video, float32 [t] seconds, as the layout writes them.

        Where frames are thinned a time is rounded down: what is labelled second 2 is in second 2."""
        plan = self.kinds["video"]
        text = plan.time_text
        if plan.rule.max_rate:
            steps = np.round(np.asarray(times, np.float64), 4) / self.frame_quantum_s
            # float32 times are a little off: by less than this many steps
            return np.clip(np.floor(steps + 1e-6 + steps * 1e-7), 0, self.last_step(text)).astype(np.int64)
        # float32 0.15 is 0.15000000596: four decimals say what was meant
        return self.time_steps(np.round(np.asarray(times, np.float64), 4) if text else times, text)

    def shown_frames(self, times: np.ndarray) -> np.ndarray | None:  # bool [t]
        """Which frames of a video thinning leaves: the first in each stretch of 1 / max_rate; None: all of them."""
        plan = self.kinds["video"]
        if not plan.rule.max_rate or not len(times):
            return None
        steps = self.frame_steps(times)
        stretch = np.floor(steps * (self.frame_quantum_s * plan.rule.max_rate) + 1e-9)
        return np.concatenate([[True], stretch[1:] != stretch[:-1]])

    def quantised(self, seconds: float) -> float:
        """Seconds as they come back from TIME(seconds)."""
        return float(self.time_steps(seconds) * self.spec.vocabulary.time_quantum_s)

    def writes(self, kind: str, soft: bool) -> bool:
        """Whether a rule writes items of this kind, in codes or as soft positions."""
        plan = self.kinds.get(kind)
        if plan is None:
            return False
        return kind in self.soft_shapes if soft else not plan.only_soft

    def leaves_out(self, kind: str, soft: bool) -> bool:
        """Whether items of this kind are left out of rows, as no rule writes them and the layout says so."""
        return self.spec.document.unwritten == "leave_out" and not self.writes(kind, soft)

    def reads_as_image(self, num_frames: int, codec: str) -> bool:
        """Whether a video of so many frames is a picture in a row, where pictures are written as videos."""
        image = self.kinds.get("image")
        index = self.codec_index.get(codec, -1)
        return num_frames == 1 and image is not None and image.as_video and self.codecs[index].kind == "image"

    def default_codec(self, kind: str) -> str:
        """The first codec for items of a kind (frames may be coded by an image codec); "" where there is none."""
        kinds = (kind, "image") if kind == "video" else (kind,)
        return next((c.name for k in kinds for c in self.codecs if c.kind == k), "")

    def nothing_of(self, kind: str) -> Item:
        """An item without codes: by the first codec of its kind, as nothing in a row says which it was."""
        codec = self.default_codec(kind)
        if not codec and kind in self.soft_shapes:
            return Item(kind, "", None)
        return Item(kind, codec, np.zeros((0, self.num_codebooks(codec)), np.int32))

    def num_codebooks(self, codec: str) -> int:
        """Codebooks of a bound codec; 1 for none."""
        return len(self.code_sizes[self.codec_index[codec]]) if codec else 1

    def __repr__(self) -> str:
        return f"Layout({self.spec.name!r}, {[c.name for c in self.codecs]}, digest={self.digest[:12]})"

    def rate(self, codec: str, num_frames: int, start_s: float, end_s: float) -> float:
        """Code frames a second of an audio item: its codec's, else by its times, else 0."""
        index = self.codec_index.get(codec)
        rate = self.codecs[index].rate if index is not None else 0.0
        seconds = end_s - start_s
        return rate or (num_frames / seconds if math.isfinite(seconds) and seconds > 0 else 0.0)


def bind(spec: LayoutSpec, codecs: Iterable[CodecSpec], text: Any = None, first: Iterable[str] = ()) -> Layout:
    """The layout over these codecs: the same set in any order gives the same ids.

    text: the text codec itself, or a function that gives it by its name, for a layout that writes words ("16*16",
        "<1.5 seconds>"); without it the shipped codec of that name is loaded.
    first: names of codecs whose ranges come before all others, in this order: a run that later learns of another
        codec names those it began with, and no id moves.
    """
    words = _has_words(spec)
    ordered = _ordered(spec, list(codecs), tuple(first), words)
    plan = spec.vocabulary
    text_spec = next((c for c in ordered if c.kind == "text"), None)
    parts: list[tuple[str, str, int, tuple[str, ...]]] = [
        ("text", text_spec.name if text_spec else "text", text_spec.codebooks[0] if text_spec else 0, ()),
        ("control", "control", plan.control_places, plan.controls),
        ("size", "size", plan.sizes, ()),
        ("time_hi", "time", plan.time_hi, ()),
        ("time_lo", "time", plan.time_lo, ()),
    ]
    parts += [
        (f"{c.name}/{k}", c.name, s, ()) for c in ordered if c is not text_spec for k, s in enumerate(c.codebooks)
    ]
    aliases = _aliases(spec, text_spec)
    vocabulary = Vocabulary.of(parts, plan.multiple, aliases)
    start = vocabulary["control"].start
    controls = {name: aliases.get(name, start + i) for i, name in enumerate(plan.controls)}
    spoken = Words(_text_codec(spec, text_spec, text) if words else None, vocabulary["text"].start)
    names = {
        c.name: ["text"] if c is text_spec else [f"{c.name}/{k}" for k in range(len(c.codebooks))] for c in ordered
    }
    special = None
    if aliases and text_spec:
        special = np.zeros(text_spec.codebooks[0], bool)
        special[list(aliases.values())] = True
    document, roles = spec.document, ("system", "user", "assistant")
    layout = Layout(
        spec=spec,
        codecs=tuple(ordered),
        vocabulary=vocabulary,
        words=spoken,
        digest=_digest(spec, ordered, aliases, text_spec if words else None),
        keeps=kept.in_words(spec),
        controls=controls,
        kinds={kind: _kind_plan(spec, kind, controls, spoken) for kind in MEDIA if kind in spec.kinds},
        codec_index={c.name: i for i, c in enumerate(ordered)},
        code_offsets=tuple(np.array([vocabulary[name].start for name in names[c.name]], np.int32) for c in ordered),
        code_sizes=tuple(np.array(c.codebooks, np.uint32) for c in ordered),
        special_codes=special,
        turn_open={
            role: literal(
                tuple(part.replace("{role}", getattr(spec.turns, role)) for part in spec.turns.open), controls, spoken
            )
            for role in roles
            if spec.turns.open
        },
        turn_close=literal(spec.turns.close, controls, spoken),
        tasks=(
            (controls.get(document.task_text, -1), controls[document.task_media_last], controls[document.task_other])
            if document.task_other
            else None
        ),
        size_start=vocabulary["size"].start,
        time_hi_start=vocabulary["time_hi"].start,
        time_lo_start=vocabulary["time_lo"].start,
    )
    _check_bound(layout)
    return layout


def _kind_plan(spec: LayoutSpec, kind: str, controls: dict[str, int], words: Words) -> KindPlan:
    rule = spec.video if spec.rule(kind).as_video else spec.rule(kind)
    return KindPlan(
        kind=kind,
        number=KINDS.index(kind),
        rule=rule,
        open=literal(rule.open, controls, words),
        after_header=literal(rule.after_header, controls, words),
        frame_open=literal(rule.frame_open, controls, words),
        frame_close=literal(rule.frame_close, controls, words),
        close=literal(rule.close, controls, words),
        row_end=controls[rule.row_end] if rule.row_end else -1,
        separator=controls[rule.frame_separator] if rule.frame_separator else -1,
        num_sizes=2 if rule.header == "two_sizes" else 0,
        num_times={"start": 1, "start_end": 2}.get(rule.times, 0),
        frame_times=kind == "video" and rule.times == "frames",
        time_text=TimeText(rule.time_text, rule.time_text_quantum_s or spec.vocabulary.time_quantum_s)
        if rule.time_form == "text"
        else None,
        size_text=SizeText(rule.header_text) if rule.header == "text" else None,
        fixed=sides(rule.grid),
        body=BodyOrder(rule.order, rule.codebooks, rule.delays if rule.codebooks == "delayed" else ()),
        weight=getattr(spec.loss, kind),
        as_video=spec.rule(kind).as_video,
        only_soft=only_soft(spec, kind),
    )


def _has_words(spec: LayoutSpec) -> bool:
    """Whether a row of the layout holds text that no item holds."""
    rules = [spec.rule(kind) for kind in spec.kinds]
    literals = [part for r in rules for part in (*r.open, *r.after_header, *r.frame_open, *r.frame_close, *r.close)]
    literals += [*spec.turns.open, *spec.turns.close]
    return (
        spec.streams.sounds > 0  # which tokens a word is
        or any(part not in spec.vocabulary.controls for part in literals)
        or any(rule.header == "text" for rule in rules)
        or any(rule.times == "frames" and rule.time_form == "text" for rule in rules)
    )


def _text_codec(spec: LayoutSpec, text_spec: CodecSpec | None, text: Any) -> Any:
    """The codec that says a layout's words, checked against the specification in the data's manifest."""
    from tokenizer.codec import spec_of
    from tokenizer.codecs import load_codec

    assert text_spec is not None
    if text is None or not hasattr(text, "encode"):
        try:
            text = (text or load_codec)(text_spec.name)
        except ValueError:
            raise ValueError(
                f"layout {spec.name} writes words by {text_spec.name}, which is no shipped codec; give `text=` the"
                " codec itself, as mmdata.open(DIR)[SOURCE].load_codec(NAME) gives it"
            ) from None
    if text_spec.fingerprint and hasattr(text, "fingerprint") and spec_of(text).fingerprint != text_spec.fingerprint:
        raise ValueError(
            f"the text codec {text_spec.name} is not the one of the data (fingerprint {text_spec.fingerprint[:12]}):"
            " use the one that made it"
        )
    return text


def _aliases(spec: LayoutSpec, text_spec: CodecSpec | None) -> dict[str, int]:
    """Controls that are special tokens of the text codec, with their codes there (the text range begins at 0)."""
    if spec.vocabulary.specials != "text" or text_spec is None:
        return {}
    known = dict(text_spec.specials)
    return {name: known[name] for name in spec.vocabulary.controls if name in known}


def _digest(spec: LayoutSpec, ordered: Sequence[CodecSpec], aliases: dict[str, int], words: CodecSpec | None) -> str:
    lines = [spec.digest, *(f"{c.name} {c.kind} {list(c.codebooks)} {float(c.rate)!r}" for c in ordered)]
    lines += [f"control {name} {code}" for name, code in aliases.items()]
    if words is not None:
        lines.append(f"words {words.fingerprint}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _ordered(spec: LayoutSpec, codecs: list[CodecSpec], first: tuple[str, ...], words: bool) -> list[CodecSpec]:
    """Codecs in the order of their ranges, checked; a text codec that the layout does not take is refused."""
    if words and not any(c.kind == "text" for c in codecs):
        from tokenizer.codec import spec_of
        from tokenizer.codecs import load_codec

        codecs = [*codecs, spec_of(load_codec(spec.text_codec or _DEFAULT_TEXT))]
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
    if missing := [name for name in first if name not in by_name]:
        raise ValueError(f"codec {missing[0]} is to come first and is not there; the codecs are {sorted(by_name)}")
    rank = {name: i for i, name in enumerate(first)}
    ordered = sorted(by_name.values(), key=lambda c: (rank.get(c.name, len(rank)), KINDS.index(c.kind), c.name))
    texts = [c.name for c in ordered if c.kind == "text"]
    want = spec.text_codec or (texts[0] if texts else "")
    if spec.text_codec and "@" not in spec.text_codec:  # the newest revision of that name
        want = next((name for name in texts if name.partition("@")[0] == want), want)
    if any(name != want for name in texts):
        raise ValueError(
            f"layout {spec.name} takes text of one codec ({want}), the data has {texts};"
            f" run `mmdata recode DIR --text {want} --out DIR2` to rewrite the text"
        )
    if spec.streams.sounds:
        counts = {len(c.codebooks): c.name for c in ordered if c.kind == "audio"}
        if not counts:
            raise ValueError(
                f"layout {spec.name} writes sounds in parallel streams, and the data has no audio codec; build it with"
                " one, or choose another layout"
            )
        if len(counts) > 1:
            raise ValueError(
                f"layout {spec.name} writes sounds in parallel streams of as many codebooks each, and the data has"
                f" {counts}; build it with one audio codec"
            )
    return ordered


def _check_bound(layout: Layout) -> None:
    """What only a text codec can show: words of two roles of which one begins the other could not be told apart."""
    opens = [(role, tuple(found.ids.tolist())) for role, found in layout.turn_open.items()]
    for role, ids in opens:
        for other, longer in opens:
            if role != other and longer[: len(ids)] == ids:
                raise ValueError(
                    f"layout {layout.spec.name}: what opens a turn of {role} begins what opens one of {other}; give"
                    " [turns] other names"
                )
