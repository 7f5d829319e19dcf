"""Rendering: parts of a sample to the arrays of one row.

On the loader's hot path. Ids are collected as arrays and joined once; kinds, weights and blocks as runs (how many
tokens, which kind, which weight) and repeated once: Python works an item and a frame, never a token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tokenizer import clock, positions, refusals, soft, streams
from tokenizer.bodies import arrange, codebook_of
from tokenizer.choose import Part, Unit, item_shows, part_stretch, parts_of
from tokenizer.item import CONTROL, Item
from tokenizer.row import SPAN, Choice, Row

if TYPE_CHECKING:
    from tokenizer.layout import KindPlan, Layout

Media = Callable[[Item], np.ndarray]
_FEW_RUNS = 12  # filled one by one; more are faster by np.repeat


def render(
    layout: Layout,
    items: Sequence[Item],
    choice: Choice,
    piece: tuple[int, int] | None,
    media: Media | None,
    dry: bool = False,
) -> Row:
    """See Layout.render. `dry`: without soft vectors, so without media."""
    if layout.spec.streams.sounds:
        return streams.render(layout, items, choice, piece)
    units, begins, ends = parts_of(layout, items, choice, piece)
    turns = bool(layout.turn_open) or layout.turn_close.mark >= 0
    row = Writer(layout, media, [item.group for item in items] if layout.spec.loss.caption != 1.0 else [], turns, dry)
    _write_begin(row, units, begins)
    role, prefix, in_prefix = "none", 0, bool(layout.spec.attention.prefix)
    for number, unit in enumerate(units):
        here = unit[0].item.role if turns else "none"
        if here != role:
            row.turn(role, here, True)
            role = here
        row.unit(unit)
        in_prefix = in_prefix and number + 1 < len(units) and _in_prefix(layout, unit[0].item)
        if in_prefix:
            prefix = row.n
            if turns and number + 1 < len(units) and units[number + 1][0].item.role != role:
                prefix += len(layout.turn_close) * (role != "none")
    if units and turns:
        row.turn(role, "none", turn_closes(layout, units, items, ends))
    _write_end(row, ends)
    return row.row(choice, prefix)


def head(
    layout: Layout, plan: KindPlan, h: int = 0, w: int = 0, start_s: float = math.nan, end_s: float = math.nan
) -> np.ndarray:  # int32 [n]
    """Ids of an item up to its body."""
    if not (plan.num_sizes or plan.num_times or plan.size_text or len(plan.after_header)):
        return plan.open.ids
    ids = plan.open.ids.tolist()
    if plan.num_sizes:
        unit = plan.rule.size_unit
        ids += (layout.size_start + h // unit, layout.size_start + w // unit)
    elif plan.size_text:
        ids += layout.words.ids(plan.size_text.write(h, w))
    if plan.num_times and math.isfinite(start_s):
        ids += layout.time_ids(start_s)
        if plan.num_times == 2 and math.isfinite(end_s):
            ids += layout.time_ids(end_s)
    return np.array(ids + plan.after_header.ids.tolist(), np.int32)


def _write_begin(row: Writer, units: list[Unit], begins: bool) -> None:
    layout = row.layout
    document, loss = layout.spec.document, layout.spec.loss
    if not begins:
        row.control(layout.controls[document.continued], loss.continued)
        return
    if document.begin:
        row.control(layout.controls[document.begin], loss.begin)
    if (task := task_of(layout, [unit[0].item.kind for unit in units])) >= 0:
        row.control(task, loss.begin)


def task_of(layout: Layout, kinds: Sequence[str]) -> int:
    """The id of the task control of a document whose items have these kinds, -1 where there is none."""
    if layout.tasks is None:
        return -1
    if all(kind == "text" for kind in kinds):
        return layout.tasks[0]
    return layout.tasks[2 if kinds[-1] == "text" else 1]


def _write_end(row: Writer, ends: bool) -> None:
    layout = row.layout
    document, loss = layout.spec.document, layout.spec.loss
    if not ends:
        row.control(layout.controls[document.continued], loss.continued)
    elif document.end:
        row.control(layout.controls[document.end], loss.end)


def turn_closes(layout: Layout, units: list[Unit], items: Sequence[Item], ends: bool) -> bool:
    """Whether the last turn of a piece ends with it: it does at the document's end, and where an item of another role
    comes next. What shows not in a row is of no role."""
    if ends:
        return True
    # A choice may have changed the order: the piece ends where its last item, as given, does
    last = max(units, key=lambda unit: unit[-1].index)
    if any(part.last < part.units for part in last):
        return False
    for item in items[last[-1].index + 1 :]:
        if item_shows(layout, item):
            return item.role != units[-1][0].item.role
    return True


def _in_prefix(layout: Layout, item: Item) -> bool:
    wanted = layout.spec.attention.prefix
    return item.kind in wanted or item.role in wanted or item.group_role in wanted


@dataclass(eq=False)
class Writer:
    """A row on its way."""

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

    # -- what is written ---------------------------------------------------------------------------------------------

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

    def turn(self, before: str, after: str, close: bool) -> None:
        """Between items of two roles, or at an end of the row; "none": no turn."""
        loss, learn = self.layout.spec.loss, self.layout.spec.turns.learn
        if before != "none" and close:
            self.factor = float(before in learn)
            self.plain(self.layout.turn_close.ids, loss.turn_close)
        self.factor = 1.0
        if after != "none":
            self.factor = float(after in learn)
            if self.layout.turn_open:
                self.plain(self.layout.turn_open[after].ids, loss.turn)

    def unit(self, unit: Unit) -> None:
        """An item, or a group of items on one clock."""
        item = unit[0].item
        before = self.factor
        loss = self.layout.spec.loss
        if not self.turns and item.role != "none":
            self.factor *= float(item.role in self.layout.spec.turns.learn)
        if item.group_role == "condition":
            self.factor *= loss.condition
        elif item.group_role == "caption" and loss.caption != 1.0 and self._stands_before(unit[0]):
            self.factor *= loss.caption
        self._unit(unit)
        self.factor = before

    def _stands_before(self, part: Part) -> bool:
        """Whether other items of a caption's group are still to come in this row."""
        written = {index for index, _, _, _ in self.spans}
        return any(
            group == part.item.group and index != part.index and index not in written
            for index, group in enumerate(self.groups)
            if part.item.group >= 0
        )

    def _unit(self, unit: Unit) -> None:
        start = self.n
        if len(unit) > 1:
            if unit[0].item.kind == "video":
                self._video_and_sound(unit[0], unit[1])
            else:
                self._unit_streams(unit)
            self.spans += [(part.index, start, self.n, (part.first, part.last)) for part in unit]
            return
        part = unit[0]
        item, kind = part.item, part.item.kind
        plan = self.layout.kinds.get(kind)
        if plan is None:
            raise refusals.not_written(self.layout, f"item {part.index}", kind)
        if item.codes is None:
            self._soft(plan, part)
        elif kind == "text":
            self._text(plan, part)
        elif kind == "audio":
            self._sound(plan, part)
        elif kind == "image" and not plan.as_video:
            self._image(plan, part)
        else:
            self._video(plan, part)
        self.spans.append((part.index, start, self.n, (part.first, part.last)))

    # -- items -------------------------------------------------------------------------------------------------------

    def _text(self, plan: KindPlan, part: Part) -> None:
        item = part.item
        codes, offset = self._codes(plan, part)
        if len(plan.open):
            self.plain_head(plan, head(self.layout, plan, 0, 0, item.start_s, item.end_s))
        ids = codes[part.first : part.last, 0]
        start = int(offset[0])
        self.ids.append(ids + offset[0] if start else ids)
        self.run(len(ids), plan.number, plan.weight)
        if self.places:
            self.places.text(len(ids))
        if part.last == part.units:
            self.plain(plan.close.ids, self.layout.spec.loss.delimiters)

    def _sound(self, plan: KindPlan, part: Part) -> None:
        item = part.item
        codes, offset = self._codes(plan, part)
        block = self._block("audio")
        start = part_stretch(self.layout, part).start_s if plan.num_times else math.nan
        self._begin_item()
        self.plain_head(plan, head(self.layout, plan, 0, 0, start, item.end_s), block)
        self.body(plan, (codes[part.first : part.last] + offset)[None], part.last - part.first, 1, block)
        if part.last == part.units:
            self.plain(plan.close.ids, self.layout.spec.loss.delimiters, self._edge(block))
        self._end_item()

    def _image(self, plan: KindPlan, part: Part) -> None:
        codes, offset = self._codes(plan, part)
        _, h, w = part.item.grid
        block = self._block("image")
        self._begin_item()
        self.plain_head(plan, head(self.layout, plan, h, w), block)
        self.body(plan, (codes + offset)[None], h, w, block)
        self.plain(plan.close.ids, self.layout.spec.loss.delimiters, self._edge(block))
        self._end_item()

    def _video(self, plan: KindPlan, part: Part) -> None:
        """Frames one after the other; also an image that is written as a video of one frame."""
        if self.layout.reads_as_image(part.last - part.first, part.item.codec):
            plan = self.layout.kinds["image"]
        self._begin_item()
        self._video_head(plan, part)
        self.frames(plan, part, 0, part.last - part.first, True)
        if part.last == part.units:
            self.plain(plan.close.ids, self.layout.spec.loss.delimiters)
        self._end_item()

    def _video_head(self, plan: KindPlan, part: Part, sound: float = math.nan) -> None:
        _, h, w = part.item.grid
        ids = head(self.layout, plan, h, w)
        if math.isfinite(sound):
            n = len(ids) - len(plan.after_header)
            ids = np.concatenate([ids[:n], np.array(self.layout.time_ids(sound), np.int32), ids[n:]])
        self.plain_head(plan, ids, 0, 2 if math.isfinite(sound) else 0)

    def frames(self, plan: KindPlan, part: Part, a: int, b: int, last: bool) -> None:
        """Frames a .. b of a part (counted in the part), those that thinning leaves; `last`: none comes after."""
        codes, offset = self._codes(plan, part)
        t, h, w = part.item.grid
        timed = plan.frame_times and len(part.item.times) == t and t > 0
        chosen = np.arange(part.first + a, part.first + b)
        if timed and (shown := self.layout.shown_frames(part.item.times)) is not None:
            chosen = chosen[shown[chosen]]
        if not len(chosen):
            return
        steps = None
        if timed:
            if not np.isfinite(part.item.times).all():
                raise refusals.no_time(f"item {part.index}")
            steps = self.layout.frame_steps(part.item.times[chosen])
        elif plan.frame_times and plan.time_text:
            raise refusals.untimed(self.layout, f"item {part.index}")
        values = codes.reshape(t, h * w, codes.shape[1])[chosen] + offset
        inside = len(plan.frame_open) + len(plan.frame_close) + (plan.separator >= 0)
        blocked = plan.kind in self.layout.spec.attention.blocks
        if not inside and not plan.time_text and not blocked and not self.places and plan.row_end < 0:
            self._frames_at_once(plan, values, h, w, steps)
            return
        loss = self.layout.spec.loss
        seconds = positions.seconds_a_step(part.item) if self.places else 1.0
        for f in range(len(chosen)):
            if self.places:
                self.places.begin_frame()
            if steps is not None:
                self.plain(self._time_ids(plan, int(steps[f])), loss.time)
            self.plain(plan.frame_open.ids, loss.separators)
            alone = bool(inside or steps is not None)
            self.body(plan, values[f : f + 1], h, w, self._block(plan.kind), -1 if alone else f, seconds)
            self.plain(plan.frame_close.ids, loss.separators)
            if plan.separator >= 0 and (f + 1 < len(chosen) or not last):
                self.plain(np.array([plan.separator], np.int32), loss.separators)
        if self.places:
            self.places.grid_done()

    def _frames_at_once(self, plan: KindPlan, values: np.ndarray, h: int, w: int, steps: np.ndarray | None) -> None:
        """The usual video: [TIME TIME] codes a frame, as one array."""
        body = arrange(values, plan.body, h, w)
        loss, (count, size) = self.layout.spec.loss, body.shape
        if steps is None:
            self.ids.append(body.reshape(-1))
            self._scale(plan, h, w, values.shape[2], count)
            self.run(count * size, plan.number, plan.weight)
            return
        ids = np.empty((count, 2 + size), np.int32)
        lo = max(self.layout.spec.vocabulary.time_lo, 1)
        ids[:, 0] = steps // lo + self.layout.time_hi_start
        ids[:, 1] = steps % lo + self.layout.time_lo_start
        ids[:, 2:] = body
        self.ids.append(ids.reshape(-1))
        if self.layout.spec.loss.codebooks:
            factors = np.concatenate([[1.0, 1.0], self._factors(plan, h, w, values.shape[2])])
            self.scaled.append((self.n, np.tile(factors, count).astype(np.float32)))
        self.counts += [2, size] * count
        self.kinds += [CONTROL, plan.number] * count
        self.weights += [loss.time * self.factor, plan.weight * self.factor] * count
        self.blocks += [0, 0] * count
        self.n += count * (2 + size)

    def _video_and_sound(self, video: Part, sound: Part) -> None:
        """open header [TIME of the sound] then, by the clock, frames and codes of sound, then close."""
        plan, other = self.layout.kinds["video"], self.layout.kinds["audio"]
        video_part, sound_part = part_stretch(self.layout, video), part_stretch(self.layout, sound)
        codes, offset = self._codes(other, sound)
        self._codes(plan, video)  # refuses what cannot be written, of a video without frames too
        self._begin_item()
        has_sound = sound.last > sound.first
        self._video_head(plan, video, sound_part.start_s if has_sound else math.nan)
        order = clock.merged(self.layout, [video_part, sound_part])
        edges = np.flatnonzero(np.diff(order.member)) + 1
        for a, b in zip([0, *edges.tolist()], [*edges.tolist(), len(order.member)]):
            if a == b:
                continue
            first, last = int(order.unit[a]), int(order.unit[b - 1]) + 1
            if order.member[a] == 0:
                self.frames(plan, video, first, last, False)
            else:
                some = codes[sound.first + first : sound.first + last] + offset
                self.body(other, some[None], last - first, 1, 0)
        if video.last == video.units and sound.last == sound.units:
            self.plain(plan.close.ids, self.layout.spec.loss.delimiters)
        self._end_item()

    def _unit_streams(self, unit: Unit) -> None:
        """open, then the units of all members by their times, then close."""
        plan = self.layout.kinds["audio"]
        values = []
        for part in unit:
            codes, offset = self._codes(plan, part)
            values.append(codes[part.first : part.last] + offset)
        order = clock.merged(self.layout, [part_stretch(self.layout, part) for part in unit])
        self._begin_item()
        self.plain_head(plan, plan.open.ids)
        width = max((v.shape[1] for v in values), default=1)
        table = np.full((len(order.member), width), -1, np.int32)
        for m, some in enumerate(values):
            table[order.member == m, : some.shape[1]] = some[order.unit[order.member == m]]
        ids = table.reshape(-1)
        ids = ids[ids >= 0]
        self.ids.append(ids)
        self.run(len(ids), plan.number, plan.weight)
        if self.places:
            self.places.text(len(ids))
        if all(part.last == part.units for part in unit):
            self.plain(plan.close.ids, self.layout.spec.loss.delimiters)
        self._end_item()

    def _soft(self, plan: KindPlan, part: Part) -> None:
        item, loss, where = part.item, self.layout.spec.loss, f"item {part.index}"
        t, h, w = soft.soft_grid(self.layout, item, where)
        if plan.num_sizes or plan.size_text or plan.kind != "audio":
            check_soft(self.layout, plan, where, h, w)
        placeholder = self.layout.controls[getattr(self.layout.spec.soft, item.kind).placeholder]
        framed = item.kind == "video" and (len(plan.frame_open) or plan.frame_times)
        steps = None
        if item.kind == "video" and plan.frame_times:
            if len(item.times) != item.grid[0] or not np.isfinite(item.times).all():
                raise refusals.untimed(self.layout, where)
            times = soft.group_times(item.times, self.layout.spec.soft.video.frames)
            steps = self.layout.time_steps(times, plan.time_text)
        self._begin_item()
        block = self._block(item.kind)
        self.plain_head(plan, head(self.layout, plan, h, w, item.start_s, item.end_s), block)
        before = sum(map(len, self.soft.get(item.kind, [])))
        seconds = positions.seconds_a_step(item, self.layout.spec.soft.video.frames) if item.kind == "video" else 1.0
        for f in range(t if framed else 1):
            count = h * w if framed else t * h * w
            if self.places:
                self.places.begin_frame()
            if steps is not None:
                self.plain(self._time_ids(plan, int(steps[f])), loss.time)
            self.plain(plan.frame_open.ids, loss.separators)
            self.ids.append(np.full(count, placeholder, np.int32))
            self.soft_places.append((self.n, np.arange(before, before + count, dtype=np.int32)))
            before += count
            self.run(count, plan.number, loss.soft, block if f == 0 else self._block(item.kind))
            if self.places:
                if item.kind == "audio":
                    self.places.text(count)
                else:
                    self.places.grid(1 if framed else t, h, w, seconds_a_step=seconds)
                    self.places.grid_done()
            self.plain(plan.frame_close.ids, loss.separators)
        if self.dry:
            pass  # only the length is asked for
        elif self.media is not None:
            self.soft.setdefault(item.kind, []).append(soft.vectors(self.layout, item, self.media(item), (t, h, w)))
        else:
            raise ValueError(
                f"{item.kind} {item.digest or item.uri!r} is soft; give render its kept medium by `media=`"
            )
        self.plain(plan.close.ids, loss.delimiters, self._edge(block))
        self._end_item()

    # -- parts of items ----------------------------------------------------------------------------------------------

    def plain_head(self, plan: KindPlan, ids: np.ndarray, block: int = 0, times: int = 0) -> None:
        """The header, whose parts have weights of their own: open, sizes or their text, `times` ids, after_header."""
        loss, n = self.layout.spec.loss, len(ids)
        if not n:
            return
        edge = self._edge(block)
        if n == len(plan.open):
            self.plain(ids, loss.delimiters, edge)
            return
        opened, ending = len(plan.open), len(plan.after_header)
        self.ids.append(ids)
        sized = n - opened - ending - times if plan.size_text else plan.num_sizes
        timed = n - opened - ending - sized
        for count, weight in (
            (opened, loss.delimiters),
            (sized, loss.size),
            (timed, loss.time),
            (ending, loss.delimiters),
        ):
            if count:
                self.run(count, CONTROL, weight, edge)
        if self.places:
            self.places.text(n)

    def body(
        self,
        plan: KindPlan,
        values: np.ndarray,
        h: int,
        w: int,
        block: int,
        frame: int = -1,
        seconds_a_step: float = 1.0,
    ) -> None:
        """Codes [1, h * w, K] as ids, in the order of the kind, with a separator after each row where it has one.

        frame: number of the frame where frames follow one another with nothing between, else -1."""
        K = values.shape[2]
        ids = arrange(values, plan.body, h, w)[0]
        loss = self.layout.spec.loss
        if plan.row_end >= 0:
            table = np.empty((h, w * K + 1), np.int32)
            table[:, :-1] = ids.reshape(h, -1)
            table[:, -1] = plan.row_end
            self.ids.append(table.reshape(-1))
            if loss.codebooks:
                factors = np.ones((h, w * K + 1), np.float32)
                factors[:, :-1] = self._factors(plan, h, w, K).reshape(h, -1)
                self.scaled.append((self.n, factors.reshape(-1)))
            self.counts += [w * K, 1] * h
            self.kinds += [plan.number, CONTROL] * h
            self.weights += [plan.weight * self.factor, loss.separators * self.factor] * h
            self.blocks += [block, block] * h
            self.n += table.size
        else:
            self.ids.append(ids)
            self._scale(plan, h, w, K, 1)
            self.run(len(ids), plan.number, plan.weight, block)
        if self.places:
            if plan.kind == "audio":
                self.places.text(len(ids))
            else:
                self.places.grid(1, h, w, K, plan.row_end >= 0, plan.body, max(frame, 0), seconds_a_step)
                if frame < 0:
                    self.places.grid_done()

    def _scale(self, plan: KindPlan, h: int, w: int, K: int, count: int) -> None:
        if self.layout.spec.loss.codebooks:
            self.scaled.append((self.n, np.tile(self._factors(plan, h, w, K), count)))

    def _factors(self, plan: KindPlan, h: int, w: int, K: int) -> np.ndarray:  # float32 [h * w * K]
        given = self.layout.spec.loss.codebooks
        of_book = np.array([given[min(k, len(given) - 1)] for k in range(K)], np.float32)
        return of_book[codebook_of(plan.body, h, w, K)]

    def _time_ids(self, plan: KindPlan, step: int) -> np.ndarray:
        if plan.time_text:
            return np.array(self.layout.words.ids(plan.time_text.write(step)), np.int32)
        lo = max(self.layout.spec.vocabulary.time_lo, 1)
        return np.array([self.layout.time_hi_start + step // lo, self.layout.time_lo_start + step % lo], np.int32)

    def _block(self, kind: str) -> int:
        """A new block's id where codes of this kind see one another, else 0."""
        if kind not in self.layout.spec.attention.blocks:
            return 0
        self.block += 1
        return self.block

    def _edge(self, block: int) -> int:
        """The block of the delimiters of an item in `block`."""
        return block if self.layout.spec.attention.delimiters else 0

    def _begin_item(self) -> None:
        if self.places:
            self.places.begin_item()

    def _end_item(self) -> None:
        if self.places:
            self.places.end_item()

    def _codes(self, plan: KindPlan, part: Part) -> tuple[np.ndarray, np.ndarray]:
        """Codes of a hard item and the first id of each of its codebooks; refuses what `measure` refuses."""
        layout, item = self.layout, part.item
        codes = item.codes
        assert codes is not None
        where, kind = f"item {part.index}", item.kind
        T, K = codes.shape
        codec = layout.codec_index.get(item.codec, -1)
        if codec < 0 or not refusals.codes_for(layout.codecs[codec], kind) or len(layout.code_sizes[codec]) != K:
            raise refusals.stranger(layout, where, kind, item.codec, K)
        if plan.only_soft:
            raise refusals.only_soft(layout, where, kind)
        if kind in ("image", "video"):
            t, h, w = item.grid
            if t * h * w != T:
                raise refusals.wrong_grid(where, kind, item.grid, T)
            if kind == "image" or t or plan.says_grid:
                refusals.check_grid(layout, plan, where, h, w)
        offsets, sizes = layout.code_offsets[codec], layout.code_sizes[codec]
        # As unsigned, a negative code is a huge one: one comparison checks both ends.
        if K == 1:
            # The usual case, on one axis: NumPy's loop over an inner axis of one is ten times slower.
            flat = codes[:, 0]
            outside = flat.size > 0 and int(flat.view(np.uint32).max()) >= int(sizes[0])
        else:
            outside = codes.size > 0 and bool((codes.view(np.uint32).max(axis=0) >= sizes).any())
        if outside:
            raise ValueError(
                f"{where} ({kind}) has codes outside [0, size) of {item.codec}, sizes {sizes.tolist()};"
                " `mmdata verify` the data"
            )
        if kind == "text" and layout.special_codes is not None and layout.special_codes[codes[:, 0]].any():
            bad = int(codes[:, 0][layout.special_codes[codes[:, 0]]][0])
            raise ValueError(
                f"{where} (text) has code {bad}, which is a control of layout {layout.spec.name}; encode the text with"
                f" {item.codec} as it is, it never yields that"
            )
        return codes, offsets

    # -- the row -----------------------------------------------------------------------------------------------------

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


def check_soft(layout: Layout, plan: KindPlan, where: str, h: int, w: int) -> None:
    """ValueError where the layout cannot write a soft grid of h x w positions."""
    if h < 1 or w < 1 or (plan.num_sizes and max(h, w) >= layout.spec.vocabulary.sizes):
        raise refusals.wrong_size(layout, plan, where, h, w)
