"""Layout: a grammar bound to codecs. Lengths, cuts, choices, render, apply and parse, which agree.

    row  := (BEGIN | CONTINUED) item* (END | CONTINUED)
    item := open [SIZE(h) SIZE(w)] [TIME ...] body [close]

A piece is a range of places (`tokenizer/item.py`) between two cuts. A piece that does not start its document begins with
the continued control and repeats the header of an item it continues, with absolute times; one that does not end it ends
with the continued control, and leaves an item it cuts unclosed. Choices never lengthen: `lengths` is of the longest form.
Control ids come only from here: codes are checked against their codebook, so text that spells a delimiter stays text.
`lengths` and `cuts` read the item table and no codes. The other way round, ids -> items, is `tokenizer/parse.py`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tokenizer.codec import CodecSpec
from tokenizer.grammar import MEDIA, LayoutSpec, load_layout, read_layout, shipped_layouts
from tokenizer.item import AUDIO, IMAGE, KINDS, TEXT, VIDEO, Item, ItemTable
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

# What a token is, finer than its kind: 1 .. 4 are codes of the kind, the others as named. Decides kind and loss weight.
_DELIMITER, _BEGIN, _END, _CONTINUED, _SIZE, _TIME, _SOFT_IMAGE, _SOFT_AUDIO = range(5, 13)
_KIND_OF_FIELD = np.array([0, 1, 2, 3, 4, 5, 5, 5, 5, 5, 5, IMAGE, AUDIO], np.uint8)


@dataclass(frozen=True)
class _Part:
    """Units [first, last) of item number `index` in one piece, and what its rendering takes."""

    index: int
    item: Item
    first: int
    last: int
    units: int


@dataclass(frozen=True, eq=False)
class Layout:
    """A LayoutSpec over codecs, made by `bind`. Immutable, picklable; `digest` covers the spec and the codecs' shapes."""

    spec: LayoutSpec
    codecs: tuple[CodecSpec, ...]  # in the order of their ranges
    vocabulary: Vocabulary
    digest: str
    keeps: tuple[str, ...]  # what parse gives back of an item
    needs_blocks: bool
    num_positions: int  # position axes; 1 is positions [n]
    controls: dict[str, int]  # control name -> id
    codec_index: dict[str, int]
    code_offsets: tuple[np.ndarray, ...]  # a codec: int32 [K], first id of each codebook
    code_sizes: tuple[np.ndarray, ...]  # a codec: uint32 [K]
    loss_of_field: np.ndarray  # float32 [13]

    # -- headers, also for whoever prompts a model -----------------------------------------------------------------

    def opening(
        self, kind: str, h: int = 0, w: int = 0, start_s: float = math.nan, end_s: float = math.nan
    ) -> list[int]:
        """Ids from the opening delimiter to the first code: opening("image", 16, 16) = [<image>, SIZE(16), SIZE(16)]."""
        rule = self.spec.rule(kind)
        if not rule.open:
            raise ValueError(f"layout {self.spec.name} writes no {kind}; add a table [{kind}] to it")
        ids = [self.controls[rule.open]]
        if rule.header == "two_sizes":
            limit = self.spec.vocabulary.sizes
            if not (0 < h < limit and 0 < w < limit):
                raise ValueError(f"{kind} of {h} x {w} codes: layout {self.spec.name} writes sides of 1 to {limit - 1}")
            base = self.vocabulary["size"].start
            ids += [base + h, base + w]
        if rule.times in ("start", "start_end") and math.isfinite(start_s):
            ids += self.time_ids(start_s)
            if rule.times == "start_end" and math.isfinite(end_s):
                ids += self.time_ids(end_s)
        return ids

    def time_ids(self, seconds: float) -> list[int]:
        """The two ids of TIME(seconds); saturates at 0 and at the last step."""
        high, low = divmod(int(self.time_steps(seconds)), self.spec.vocabulary.time_lo)
        return [self.vocabulary["time_hi"].start + high, self.vocabulary["time_lo"].start + low]

    def time_steps(self, seconds: float | np.ndarray) -> np.ndarray:
        """Time quanta of seconds, int64, saturated."""
        plan = self.spec.vocabulary
        steps = np.rint(np.asarray(seconds, np.float64) / plan.time_quantum_s)
        return np.clip(steps, 0, plan.time_hi * plan.time_lo - 1).astype(np.int64)

    def default_codec(self, kind: str) -> str:
        """The first codec for items of a kind (frames may be coded by an image codec); "" where there is none."""
        kinds = (kind, "image") if kind == "video" else (kind,)
        return next((c.name for k in kinds for c in self.codecs if c.kind == k), "")

    # -- over item tables ------------------------------------------------------------------------------------------

    def lengths(
        self, table: ItemTable, pieces: np.ndarray | None = None, samples: np.ndarray | None = None
    ) -> np.ndarray:  # int32 [n]
        """Tokens of each sample, or of each piece (int32 [n, 2] places) of sample i, or of sample samples[i]."""
        tokens, per_unit, closes = _measure(self, table)
        ends = np.zeros(len(tokens) + 1, np.int64)
        np.cumsum(tokens, out=ends[1:])
        if pieces is None:
            whole = ends[table.offsets]
            return (whole[1:] - whole[:-1] + 2).astype(np.int32)
        pieces = np.asarray(pieces, np.int64).reshape(-1, 2)
        which = np.arange(len(pieces)) if samples is None else np.asarray(samples, np.int64)
        if len(which) != len(pieces) or (samples is None and len(pieces) != len(table)):
            raise ValueError(f"{len(pieces)} pieces for {len(table)} samples; say with `samples` whose piece each is")
        lo, hi = table.offsets[which], table.offsets[which + 1]
        units = np.zeros(len(tokens) + 1, np.int64)
        np.cumsum(table.num_units(), out=units[1:])
        start, stop = units[lo] + pieces[:, 0], units[lo] + pieces[:, 1]
        # An item without units lies at one place and belongs to the piece that starts there, or to the last.
        i = np.minimum(np.searchsorted(units[1:], start, "right"), np.searchsorted(units[:-1], start, "left"))
        i = np.clip(i, lo, hi)
        j = np.clip(np.searchsorted(units[:-1], stop, "left"), i, hi)
        j = np.where(stop >= units[hi], hi, j)
        skipped, left = np.maximum(start - units[i], 0), np.maximum(units[j] - stop, 0)
        some = j > i
        last = np.maximum(j - 1, 0)
        length = 2 + ends[j] - ends[i]
        if len(tokens):
            cut = skipped * per_unit[np.minimum(i, len(tokens) - 1)] + left * per_unit[last] + (left > 0) * closes[last]
            length -= np.where(some, cut, 0)
        return length.astype(np.int32)

    def cuts(self, table: ItemTable) -> tuple[np.ndarray, np.ndarray]:
        """Where the one sample of `table` may be cut: (places int32 [c], ranks uint8 [c]), both ends included.

        Rank 0 between items, 1 between frames of a video or seconds of sound, 2 after a sentence, 3 after a token.
        """
        if len(table) != 1:
            raise ValueError(f"cuts are of one sample, got a table of {len(table)}")
        units = np.concatenate([[0], np.cumsum(table.num_units(), dtype=np.int64)])
        ranks = np.full(int(units[-1]) + 1, 255, np.uint8)
        for m in np.flatnonzero((np.diff(units) > 1) & (table.codec >= 0)):
            inside = ranks[units[m] : units[m + 1]]
            if table.kind[m] == TEXT:
                inside[:] = 3
                ends = table.sentence_ends[table.sentence_offsets[m] : table.sentence_offsets[m + 1]]
                inside[ends[(ends > 0) & (ends < len(inside))]] = 2
            elif table.kind[m] == AUDIO:
                rate = self._rate(table.codecs[table.codec[m]], len(inside), table.start_s[m], table.end_s[m])
                if rate:
                    seconds = np.arange(1, int(len(inside) / rate) + 1)
                    places = np.ceil(seconds * rate - 1e-9).astype(np.int64)
                    inside[places[(places > 0) & (places < len(inside))]] = 1
                else:
                    inside[:] = 1
            else:
                inside[:] = 1
        ranks[units] = 0
        places = np.flatnonzero(ranks < 255)
        return places.astype(np.int32), ranks[places]

    def choose(self, sample: ItemTable | Sequence[Item], seed: int, sample_id: str, epoch: int) -> Choice:
        """The seeded choices for a sample in an epoch: by hash of these arguments, nothing else."""
        rule = self.spec.choices
        if rule.order == "given" and not rule.condition_dropout:
            return PLAIN
        groups: dict[int, set[str]] = {}
        for group, role in _groups_of(sample):
            if group >= 0:
                groups.setdefault(group, set()).add(role)
        order: list[tuple[int, str]] = []
        dropped: list[int] = []
        for group in sorted(groups):
            roles = groups[group]
            if rule.order == "either" and "caption" in roles and len(roles) > 1:
                first = _share(seed, sample_id, epoch, "order", group) < 0.5
                order.append((group, "caption_first" if first else "caption_last"))
            if "condition" in roles and _share(seed, sample_id, epoch, "drop", group) < rule.condition_dropout:
                dropped.append(group)
        return Choice(tuple(order), tuple(dropped)) if order or dropped else PLAIN

    # -- items <-> ids ---------------------------------------------------------------------------------------------

    def render(
        self,
        items: Sequence[Item],
        choice: Choice = PLAIN,
        piece: tuple[int, int] | None = None,
        media: Callable[[Item], np.ndarray] | None = None,
    ) -> Row:
        """One piece of a sample as a row. `media` gives the kept medium of a soft item, for layouts that take them.

        [text "hi"] -> tokens [<bos>, <text>, 7, 9, <eos>], kinds [5, 5, 1, 1, 5], loss [0, 1, 1, 1, 1]
        """
        parts, begins, ends = _parts(items, choice, piece)
        heads: list[list[int]] = []
        sizes: list[tuple[int, int, int]] = []  # tokens of header, body, close
        total = 2
        for part in parts:
            head, body = self._head_and_body(part)
            closed = 1 if part.last == part.units and self.spec.rule(part.item.kind).close else 0
            heads.append(head)
            sizes.append((len(head), body, closed))
            total += len(head) + body + closed
        tokens = np.empty(total, np.int32)
        fields = np.full(total, _DELIMITER, np.uint8)
        blocks = np.zeros(total, np.int32) if self.needs_blocks else None
        soft_index = np.full(total, -1, np.int32) if any(p.item.codes is None for p in parts) else None
        soft: dict[str, list[np.ndarray]] = {}
        spans = np.empty(len(parts), SPAN)
        document = self.spec.document
        tokens[0] = self.controls[document.begin if begins else document.continued]
        fields[0] = _BEGIN if begins else _CONTINUED
        at, block = 1, 1
        for n, (part, head, (num_head, num_body, closed)) in enumerate(zip(parts, heads, sizes)):
            body = at + num_head
            stop = body + num_body
            tokens[at:body] = head
            if num_head > 1:
                num_size = 2 if self.spec.rule(part.item.kind).header == "two_sizes" else 0
                fields[at + 1 : at + 1 + num_size] = _SIZE
                fields[at + 1 + num_size : body] = _TIME
            if part.item.codes is None:
                assert soft_index is not None
                self._write_soft(part.item, slice(body, stop), tokens, fields, soft_index, soft, media)
            else:
                self._write_codes(part, tokens[body:stop], fields[body:stop])
            if blocks is not None and part.item.kind in self.spec.attention.blocks:
                block = _write_blocks(part, fields[body:stop], blocks[body:stop], block)
            if closed:
                tokens[stop] = self.controls[self.spec.rule(part.item.kind).close]
            spans[n] = (part.index, at, stop + closed, (part.first, part.last))
            at = stop + closed
        tokens[at] = self.controls[document.end if ends else document.continued]
        fields[at] = _END if ends else _CONTINUED
        return Row(
            tokens=tokens,
            loss_weights=self.loss_of_field[fields],
            positions=np.arange(total, dtype=np.int32),
            kinds=_KIND_OF_FIELD[fields],
            spans=spans,
            choice=choice,
            blocks=blocks,
            soft={kind: np.concatenate(arrays) for kind, arrays in soft.items()},
            soft_index=soft_index,
        )

    def apply(
        self, items: Sequence[Item], choice: Choice = PLAIN, piece: tuple[int, int] | None = None
    ) -> list[Item]:
        """The items of a piece as chosen, with only the fields this layout keeps: what parse gives back."""
        return [self._kept(part) for part in _parts(items, choice, piece)[0]]

    def parse(self, ids: np.ndarray) -> tuple[list[Item], list[Problem]]:
        """Items in a row of ids, and what is malformed and where; any ids at all, never an exception."""
        from tokenizer.parse import parse

        return parse(self, ids)

    # -- one item ---------------------------------------------------------------------------------------------------

    def _head_and_body(self, part: _Part) -> tuple[list[int], int]:
        """Ids of an item's header, and how many tokens its body takes."""
        item = part.item
        if item.codes is None:
            h, w, count = _soft_size(self, item)
            return self.opening(item.kind, h, w, item.start_s, item.end_s), count
        codec = self.codec_index.get(item.codec, -1)
        T, K = item.codes.shape
        if codec < 0 or not _codes_for(self.codecs[codec], item.kind) or K != len(self.code_sizes[codec]):
            raise _stranger(self, f"item {part.index}", item.kind, item.codec, K)
        _, h, w = item.grid
        if item.kind == "text" or item.kind == "audio":
            start = item.start_s
            if part.first and item.kind == "audio":
                rate = self._rate(item.codec, T, item.start_s, item.end_s)
                start += part.first / rate if rate else 0.0
            return self.opening(item.kind, 0, 0, start, item.end_s), (part.last - part.first) * K
        if item.grid[0] * h * w != T:
            raise _wrong_grid(f"item {part.index}", item.kind, item.grid, T)
        if item.kind == "image":
            return self.opening("image", h, w), T * K
        if not np.isfinite(item.times).all():
            raise _no_time(f"item {part.index}")
        per_frame = h * w * K + (2 if self._frames_timed(item) else 0)
        return self.opening("video", h, w), (part.last - part.first) * per_frame

    def _write_codes(self, part: _Part, tokens: np.ndarray, fields: np.ndarray) -> None:
        """Fills the body of an item; both arrays are views of the row's."""
        item = part.item
        assert item.codes is not None
        codec = self.codec_index[item.codec]
        offsets, sizes = self.code_offsets[codec], self.code_sizes[codec]
        kind = KINDS.index(item.kind)
        codes = item.codes
        if kind == VIDEO:
            _, h, w = item.grid
            codes = codes[part.first * h * w : part.last * h * w]
        elif kind != IMAGE:
            codes = codes[part.first : part.last]
        # As unsigned, a negative code is a huge one: one comparison checks both ends.
        if codes.size and (codes.view(np.uint32).max(axis=0) >= sizes).any():
            raise ValueError(
                f"item {part.index} ({item.kind}) has codes outside [0, {sizes.tolist()}) of {item.codec}; `mmdata verify` the data"
            )
        if kind != VIDEO or not self._frames_timed(item):
            np.add(codes, offsets, out=tokens.reshape(codes.shape))
            fields[:] = kind
            return
        frames = part.last - part.first
        body, marks = tokens.reshape(frames, -1), fields.reshape(frames, -1)
        plan = self.spec.vocabulary
        steps = self.time_steps(item.times[part.first : part.last])
        body[:, 0] = self.vocabulary["time_hi"].start + steps // plan.time_lo
        body[:, 1] = self.vocabulary["time_lo"].start + steps % plan.time_lo
        body[:, 2:] = (codes + offsets).reshape(frames, -1)
        marks[:, :2] = _TIME
        marks[:, 2:] = kind

    def _write_soft(
        self,
        item: Item,
        where: slice,
        tokens: np.ndarray,
        fields: np.ndarray,
        soft_index: np.ndarray,
        soft: dict[str, list[np.ndarray]],
        media: Callable[[Item], np.ndarray] | None,
    ) -> None:
        if media is None:
            raise ValueError(f"{item.kind} {item.digest or item.uri!r} is soft; give render its kept medium by `media=`")
        arrays = soft.setdefault(item.kind, [])
        before = sum(map(len, arrays))
        cut = _patches(media(item), self.spec.soft.patch) if item.kind == "image" else _chunks(media(item), self.spec.soft.samples)
        if len(cut) != where.stop - where.start:
            raise ValueError(f"the kept medium of {item.kind} {item.digest!r} is not of the size {item.grid} in its item")
        arrays.append(cut)
        tokens[where] = self.controls[self.spec.soft.placeholder]
        fields[where] = _SOFT_IMAGE if item.kind == "image" else _SOFT_AUDIO
        soft_index[where] = np.arange(before, before + len(cut))

    def _kept(self, part: _Part) -> Item:
        item, first, last = part.item, part.first, part.last
        rule = self.spec.rule(item.kind)
        kept = Item(kind=item.kind, codec=item.codec, codes=item.codes)
        start, end = item.start_s, item.end_s
        if item.codes is None:
            h, w, count = _soft_size(self, item)
            patch = self.spec.soft.patch
            kept = replace(kept, grid=(1, h * patch, w * patch) if h else (count * self.spec.soft.samples, 0, 0))
        elif item.kind == "video":
            t, h, w = item.grid
            codes = item.codes[first * h * w : last * h * w]
            times = self.time_steps(item.times[first:last]) * self.spec.vocabulary.time_quantum_s
            times = times.astype(np.float32) if self._frames_timed(item) else np.zeros(0, np.float32)
            kept = replace(kept, codes=codes, grid=(last - first, h, w), times=times)
        elif item.kind == "image":
            kept = replace(kept, grid=item.grid)
        else:
            codes = item.codes[first:last]
            kept = replace(kept, codes=codes, grid=(last - first, 0, 0) if item.kind == "audio" else (0, 0, 0))
            if first and item.kind == "audio":
                rate = self._rate(item.codec, len(item.codes), start, end)
                start += first / rate if rate else 0.0
        if kept.codes is not None and not len(kept.codes):
            # Nothing is left to tell the codec by: the parser takes the first of the kind.
            codec = self.default_codec(item.kind)
            kept = replace(kept, codec=codec, codes=np.zeros((0, self._num_codebooks(codec)), np.int32))
        if rule.times in ("start", "start_end") and math.isfinite(start):
            kept = replace(kept, start_s=self._quantised(start))
            if rule.times == "start_end" and math.isfinite(end):
                kept = replace(kept, end_s=self._quantised(end))
        return kept

    def _quantised(self, seconds: float) -> float:
        return float(self.time_steps(seconds) * self.spec.vocabulary.time_quantum_s)

    def _frames_timed(self, item: Item) -> bool:
        return self.spec.video.times == "frames" and item.grid[0] > 0 and len(item.times) == item.grid[0]

    def _num_codebooks(self, codec: str) -> int:
        return len(self.code_sizes[self.codec_index[codec]]) if codec else 1

    def _rate(self, codec: str, num_frames: int, start_s: float, end_s: float) -> float:
        """Code frames a second of an audio item: its codec's, else by its times, else 0."""
        rate = self.codecs[self.codec_index[codec]].rate
        seconds = end_s - start_s
        return rate or (num_frames / seconds if math.isfinite(seconds) and seconds > 0 else 0.0)


def bind(spec: LayoutSpec, codecs: Iterable[CodecSpec]) -> Layout:
    """The layout over these codecs: the same set in any order gives the same ids."""
    ordered = _ordered(spec, codecs)
    plan = spec.vocabulary
    text = next((c for c in ordered if c.kind == "text"), None)
    parts: list[tuple[str, str, int, tuple[str, ...]]] = [
        ("text", text.name if text else "text", text.codebooks[0] if text else 0, ()),
        ("control", "control", plan.control_places, plan.controls),
        ("size", "size", plan.sizes, ()),
        ("time_hi", "time", plan.time_hi, ()),
        ("time_lo", "time", plan.time_lo, ()),
    ]
    media = [c for c in ordered if c.kind != "text"]
    parts += [(f"{c.name}/{k}", c.name, size, ()) for c in media for k, size in enumerate(c.codebooks)]
    vocabulary = Vocabulary.of(parts, plan.multiple)
    names = {c.name: ["text"] if c is text else [f"{c.name}/{k}" for k in range(len(c.codebooks))] for c in ordered}
    shapes = [f"{c.name} {c.kind} {c.codebooks} {c.rate!r}" for c in ordered]
    loss = spec.loss
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
        controls={name: vocabulary["control"].start + i for i, name in enumerate(plan.controls)},
        codec_index={c.name: i for i, c in enumerate(ordered)},
        code_offsets=tuple(np.array([vocabulary[name].start for name in names[c.name]], np.int32) for c in ordered),
        code_sizes=tuple(np.array(c.codebooks, np.uint32) for c in ordered),
        loss_of_field=np.array(weights, np.float32),
    )


def _ordered(spec: LayoutSpec, codecs: Iterable[CodecSpec]) -> list[CodecSpec]:
    """Codecs in the order of their ranges, checked; a text codec that the layout does not take is refused."""
    by_name: dict[str, CodecSpec] = {}
    for codec in codecs:
        if codec.kind not in MEDIA:
            raise ValueError(f"codec {codec.name} has kind {codec.kind!r}; the kinds are {list(MEDIA)}")
        other = by_name.setdefault(codec.name, codec)
        if (other.codebooks, other.kind, other.rate) != (codec.codebooks, codec.kind, codec.rate):
            raise ValueError(f"two codecs have the name {codec.name} and other codebooks: {other.codebooks}, {codec.codebooks}")
    ordered = sorted(by_name.values(), key=lambda c: (KINDS.index(c.kind), c.name))
    texts = [c.name for c in ordered if c.kind == "text"]
    want = spec.text_codec or (texts[0] if texts else "")
    if any(name != want for name in texts):
        raise ValueError(
            f"layout {spec.name} takes text of one codec ({want}), the data has {texts};"
            f" run `mmdata recode DIR --text {want} --out DIR2` to rewrite the text"
        )
    for codec in ordered:
        if codec.kind == "text" and len(codec.codebooks) != 1:
            raise ValueError(f"text codec {codec.name} has {len(codec.codebooks)} codebooks; a layout writes text of one")
    return ordered


def _keeps(spec: LayoutSpec) -> tuple[str, ...]:
    plan = spec.vocabulary
    last = (plan.time_hi * plan.time_lo - 1) * plan.time_quantum_s
    written = [kind for kind in MEDIA if spec.rule(kind).open]
    said = [f"kinds {', '.join(written)}, their order, codec, codes and grid"]
    times = {
        "start": "start_s of {} (of an audio piece: of the piece)",
        "start_end": "start_s and end_s of {}",
        "frames": "times of {}",
    }
    for kind in written:
        rule = spec.rule(kind)
        if rule.times != "none":
            what = times[rule.times].format(kind)
            said.append(f"{what}, to {plan.time_quantum_s:g} s, saturated at 0 and at {last:g} s")
    return tuple(said)


def _codes_for(codec: CodecSpec, kind: str) -> bool:
    return codec.kind == kind or (kind == "video" and codec.kind == "image")


def _stranger(layout: Layout, where: str, kind: str, codec: str, num_codebooks: int) -> ValueError:
    known = [f"{c.name} ({len(c.codebooks)} codebooks)" for c in layout.codecs if _codes_for(c, kind)]
    fix = "bind the layout with the codecs of the data's manifest"
    if kind == "text":
        fix += f", or run `mmdata recode DIR --text {layout.default_codec('text') or 'CODEC'} --out DIR2`"
    return ValueError(
        f"{where} is {kind} by {codec!r} with {num_codebooks} codebooks; this layout is bound to {known or 'none'} for it: {fix}"
    )


def _wrong_grid(where: str, kind: str, grid: tuple[int, int, int], T: int) -> ValueError:
    return ValueError(f"{where} ({kind}) has {T} codes for a grid of {grid}; `mmdata verify` the data")


def _no_time(where: str) -> ValueError:
    return ValueError(f"{where} (video) has a frame whose time is not finite; leave `times` empty for a video without times")


def _soft_size(layout: Layout, item: Item) -> tuple[int, int, int]:
    """(patches down, patches across, positions) of a soft item; (0, 0, n) for sound."""
    soft = layout.spec.soft
    size, h, w = item.grid
    if item.kind == "image" and soft.patch:
        rows, columns = -(-h // soft.patch), -(-w // soft.patch)
        return rows, columns, rows * columns
    if item.kind == "audio" and soft.samples:
        return 0, 0, -(-size // soft.samples)
    raise _no_soft(layout, f"{item.kind} {item.digest or item.uri!r}")


def _no_soft(layout: Layout, what: str) -> ValueError:
    return ValueError(
        f"{what} is a soft item, and layout {layout.spec.name} takes none of its kind;"
        " encode it with a codec in the recipe, or use a layout with a [soft] table"
    )


def _measure(layout: Layout, table: ItemTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each item: its tokens, tokens a unit where it may be cut, tokens of its close. int64 [m] each, columnar."""
    spec, kind = layout.spec, table.kind
    rules = [spec.rule(k) for k in MEDIA]
    used = np.bincount(kind, minlength=len(KINDS))
    _check_table(layout, table, used)
    frame = np.array([0, *(bool(r.open) + bool(r.close) + 2 * (r.header == "two_sizes") for r in rules), 0], np.int64)
    close = np.array([0, *(bool(r.close) for r in rules), 0], np.int64)
    tokens = frame[kind]
    per_unit = table.K.astype(np.int64)
    tokens += table.T * per_unit
    starts = np.array([0, *(2 * (r.times in ("start", "start_end")) for r in rules), 0], np.int64)
    finite = np.isfinite(table.start_s)
    if finite.any():
        tokens += starts[kind] * finite
        both = finite & np.isfinite(table.end_s) & (starts[kind] > 0)
        tokens += 2 * (both & np.array([False, *(r.times == "start_end" for r in rules), False])[kind])
    if used[VIDEO]:
        video = np.flatnonzero(kind == VIDEO)
        per_unit[video] *= table.h[video].astype(np.int64) * table.w[video]
        if spec.video.times == "frames":
            num_times = table.times_offsets[video + 1] - table.times_offsets[video]
            timed = (num_times == table.t[video]) & (num_times > 0)
            per_unit[video] += 2 * timed
            tokens[video] += 2 * timed * table.t[video]
    soft = np.flatnonzero(table.codec < 0)
    if len(soft):
        tokens[soft] += _soft_tokens(layout, table, soft)
    return tokens, per_unit, close[kind]


def _soft_tokens(layout: Layout, table: ItemTable, soft: np.ndarray) -> np.ndarray:
    patch, samples = layout.spec.soft.patch or 1, layout.spec.soft.samples or 1
    images = -(-table.h[soft].astype(np.int64) // patch) * -(-table.w[soft].astype(np.int64) // patch)
    return np.where(table.kind[soft] == IMAGE, images, -(-table.t[soft].astype(np.int64) // samples))


def _check_table(layout: Layout, table: ItemTable, used: np.ndarray) -> None:
    """Refuses a table which render could not render, naming the first such item."""
    spec, kind = layout.spec, table.kind

    def where(bad: np.ndarray) -> tuple[int, str]:
        m = int(np.flatnonzero(bad)[0])
        sample = int(np.searchsorted(table.offsets, m, "right")) - 1
        return m, f"item {m - int(table.offsets[sample])} of sample {sample}"

    for number, name in enumerate(MEDIA, 1):
        if used[number] and not spec.rule(name).open:
            raise ValueError(f"{where(kind == number)[1]} is {name}; layout {spec.name} writes none, add a table [{name}] to it")
    # Codebooks that (kind, codec) must have: -1 for a pair that does not go together. Row 0 is no codec.
    expected = np.full((len(table.codecs) + 1, len(KINDS)), -1, np.int32)
    for index, codec in enumerate(table.codecs):
        bound = layout.codec_index.get(codec)
        if bound is not None:
            for number, name in enumerate(MEDIA, 1):
                if _codes_for(layout.codecs[bound], name):
                    expected[index + 1, number] = len(layout.code_sizes[bound])
    expected[0, IMAGE] = 0 if spec.soft.patch else -1
    expected[0, AUDIO] = 0 if spec.soft.samples else -1
    bad = expected.reshape(-1)[(table.codec + 1) * len(KINDS) + kind] != table.K
    if bad.any():
        m, place = where(bad)
        if table.codec[m] < 0:
            raise _no_soft(layout, f"{place} ({KINDS[kind[m]]})")
        raise _stranger(layout, place, KINDS[kind[m]], table.codecs[table.codec[m]], int(table.K[m]))
    if not (used[IMAGE] or used[VIDEO]):
        return
    pictures = (kind == IMAGE) | (kind == VIDEO)
    hard = pictures & (table.codec >= 0)
    bad = hard & (table.t.astype(np.int64) * table.h * table.w != table.T)
    if bad.any():
        m, place = where(bad)
        raise _wrong_grid(place, KINDS[kind[m]], (int(table.t[m]), int(table.h[m]), int(table.w[m])), int(table.T[m]))
    patch = np.where(table.codec < 0, spec.soft.patch or 1, 1)
    high, wide = -(-table.h // patch), -(-table.w // patch)
    bad = pictures & ((np.maximum(high, wide) >= spec.vocabulary.sizes) | (np.minimum(high, wide) < 1))
    if bad.any():
        m, place = where(bad)
        raise ValueError(
            f"{place} is {KINDS[kind[m]]} of {high[m]} x {wide[m]} codes; layout {spec.name} writes sides of"
            f" 1 to {spec.vocabulary.sizes - 1}, raise vocabulary.sizes in it"
        )
    if used[VIDEO] and not np.isfinite(table.times).all():
        owner = np.repeat(np.arange(len(kind)), np.diff(table.times_offsets))
        lost = np.zeros(len(kind), bool)
        lost[owner[~np.isfinite(table.times)]] = True
        if (lost & (kind == VIDEO)).any():
            raise _no_time(where(lost & (kind == VIDEO))[1])


def _num_units(item: Item) -> int:
    """As ItemTable.num_units, of one item."""
    if item.codes is None or item.kind == "image":
        return 1
    return item.grid[0] if item.kind == "video" else len(item.codes)


def _parts(
    items: Sequence[Item], choice: Choice, piece: tuple[int, int] | None
) -> tuple[list[_Part], bool, bool]:
    """The parts of a piece in the order chosen, and whether it begins and whether it ends the document."""
    units = [_num_units(item) for item in items]
    total = sum(units)
    start, stop = (0, total) if piece is None else (int(piece[0]), int(piece[1]))
    if not 0 <= start <= stop <= total:
        raise ValueError(f"piece {start} .. {stop} of a sample with places 0 .. {total}")
    parts, at = [], 0
    for index, (item, count) in enumerate(zip(items, units)):
        first, last = max(start - at, 0), min(stop - at, count)
        # An item without units lies at one place and belongs to the piece that starts there, or to the last.
        if first < last or (count == 0 and start <= at and (at < stop or stop == total)):
            parts.append(_Part(index, item, first, last, count))
        at += count
    if choice.order or choice.dropped:
        parts = _chosen(items, parts, choice)
    return parts, start == 0, stop == total


def _chosen(items: Sequence[Item], parts: list[_Part], choice: Choice) -> list[_Part]:
    """Parts with the choice applied. A group that is not whole in this piece keeps its order: no code is lost."""
    for group, order in choice.order:
        slots = [n for n, part in enumerate(parts) if part.item.group == group]
        whole = all(parts[n].first == 0 and parts[n].last == parts[n].units for n in slots)
        if whole and len(slots) == sum(item.group == group for item in items):
            first = order == "caption_first"
            members = sorted((parts[n] for n in slots), key=lambda p: (p.item.group_role == "caption") != first)
            for slot, part in zip(slots, members):
                parts[slot] = part
    return [p for p in parts if not (p.item.group in choice.dropped and p.item.group_role == "condition")]


def _groups_of(sample: ItemTable | Sequence[Item]) -> Iterable[tuple[int, str]]:
    if not isinstance(sample, ItemTable):
        return [(item.group, item.group_role) for item in sample]
    from tokenizer.item import GROUP_ROLES

    if len(sample) != 1:
        raise ValueError(f"choices are of one sample, got a table of {len(sample)}")
    return [(int(g), GROUP_ROLES[r]) for g, r in zip(sample.group, sample.group_role) if g >= 0]


def _share(seed: int, sample_id: str, epoch: int, what: str, group: int) -> float:
    """A number in [0, 1) from a hash of exactly these words."""
    words = "\0".join([str(seed), sample_id, str(epoch), what, str(group)]).encode()
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "little") / 2**64


def _write_blocks(part: _Part, fields: np.ndarray, blocks: np.ndarray, block: int) -> int:
    """Gives the codes of each image, frame or sound one block id; returns the next id."""
    frames = part.last - part.first if part.item.kind == "video" else 1
    if not frames or not len(fields):
        return block
    ids = np.arange(block, block + frames, dtype=np.int32)[:, None]
    blocks.reshape(frames, -1)[:] = np.where(fields.reshape(frames, -1) == _TIME, 0, ids)
    return block + frames


def _patches(image: np.ndarray, patch: int) -> np.ndarray:  # uint8 [h * w, patch, patch, 3]
    """Square patches of uint8 [H, W, 3] in raster order, black beyond the edges."""
    H, W = image.shape[:2]
    h, w = -(-H // patch), -(-W // patch)
    full = np.zeros((h * patch, w * patch, image.shape[2]), image.dtype)
    full[:H, :W] = image
    return full.reshape(h, patch, w, patch, -1).swapaxes(1, 2).reshape(h * w, patch, patch, -1)


def _chunks(sound: np.ndarray, samples: int) -> np.ndarray:  # int16 [n, samples]
    """Runs of `samples` of int16 [n], silent beyond the end."""
    full = np.zeros(-(-len(sound) // samples) * samples, sound.dtype)
    full[: len(sound)] = sound
    return full.reshape(-1, samples)
