"""Writing items into a row: delimiters, header, body; frames and their sound, unit streams, soft positions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tokenizer import clock, positions, refusals, soft
from tokenizer.bodies import arrange
from tokenizer.choose import Part, Unit, part_stretch
from tokenizer.item import CONTROL
from tokenizer.row_builder import RowBuilder

if TYPE_CHECKING:
    from tokenizer.layout import KindPlan, Layout


def write_unit(row: RowBuilder, unit: Unit) -> None:
    """An item, or a group of items on one clock."""
    item = unit[0].item
    before = row.factor
    loss = row.layout.spec.loss
    if not row.turns and item.role != "none":
        row.factor *= float(item.role in row.layout.spec.turns.learn)
    if item.group_role == "condition":
        row.factor *= loss.condition
    elif item.group_role == "caption" and loss.caption != 1.0 and _stands_before(row, unit[0]):
        row.factor *= loss.caption
    _write(row, unit)
    row.factor = before


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


def _stands_before(row: RowBuilder, part: Part) -> bool:
    """Whether other items of a caption's group are still to come in this row."""
    written = {index for index, _, _, _ in row.spans}
    return any(
        group == part.item.group and index != part.index and index not in written
        for index, group in enumerate(row.groups)
        if part.item.group >= 0
    )


def _write(row: RowBuilder, unit: Unit) -> None:
    start = row.n
    if len(unit) > 1:
        if unit[0].item.kind == "video":
            _video_and_sound(row, unit[0], unit[1])
        else:
            _unit_streams(row, unit)
        row.spans += [(part.index, start, row.n, (part.first, part.last)) for part in unit]
        return
    part = unit[0]
    item, kind = part.item, part.item.kind
    plan = row.layout.kinds.get(kind)
    if plan is None:
        raise refusals.not_written(row.layout, f"item {part.index}", kind)
    if item.codes is None:
        _soft(row, plan, part)
    elif kind == "text":
        _text(row, plan, part)
    elif kind == "audio":
        _sound(row, plan, part)
    elif kind == "image" and not plan.as_video:
        _image(row, plan, part)
    else:
        _video(row, plan, part)
    row.spans.append((part.index, start, row.n, (part.first, part.last)))


def _text(row: RowBuilder, plan: KindPlan, part: Part) -> None:
    item = part.item
    codes, offset = _codes(row, plan, part)
    if len(plan.open):
        _plain_head(row, plan, head(row.layout, plan, 0, 0, item.start_s, item.end_s))
    ids = codes[part.first : part.last, 0]
    start = int(offset[0])
    row.ids.append(ids + offset[0] if start else ids)
    row.run(len(ids), plan.number, plan.weight)
    if row.places:
        row.places.text(len(ids))
    if part.last == part.units:
        row.plain(plan.close.ids, row.layout.spec.loss.delimiters)


def _sound(row: RowBuilder, plan: KindPlan, part: Part) -> None:
    item = part.item
    codes, offset = _codes(row, plan, part)
    block = row.new_block("audio")
    start = part_stretch(row.layout, part).start_s if plan.num_times else math.nan
    row.begin_item()
    _plain_head(row, plan, head(row.layout, plan, 0, 0, start, item.end_s), block)
    _body(row, plan, (codes[part.first : part.last] + offset)[None], part.last - part.first, 1, block)
    if part.last == part.units:
        row.plain(plan.close.ids, row.layout.spec.loss.delimiters, row.edge(block))
    row.end_item()


def _image(row: RowBuilder, plan: KindPlan, part: Part) -> None:
    codes, offset = _codes(row, plan, part)
    _, h, w = part.item.grid
    block = row.new_block("image")
    row.begin_item()
    _plain_head(row, plan, head(row.layout, plan, h, w), block)
    _body(row, plan, (codes + offset)[None], h, w, block)
    row.plain(plan.close.ids, row.layout.spec.loss.delimiters, row.edge(block))
    row.end_item()


def _video(row: RowBuilder, plan: KindPlan, part: Part) -> None:
    """Frames one after the other; also an image that is written as a video of one frame."""
    if row.layout.reads_as_image(part.last - part.first, part.item.codec):
        plan = row.layout.kinds["image"]
    row.begin_item()
    _video_head(row, plan, part)
    _frames(row, plan, part, 0, part.last - part.first, True)
    if part.last == part.units:
        row.plain(plan.close.ids, row.layout.spec.loss.delimiters)
    row.end_item()


def _video_head(row: RowBuilder, plan: KindPlan, part: Part, sound: float = math.nan) -> None:
    _, h, w = part.item.grid
    ids = head(row.layout, plan, h, w)
    if math.isfinite(sound):
        n = len(ids) - len(plan.after_header)
        ids = np.concatenate([ids[:n], np.array(row.layout.time_ids(sound), np.int32), ids[n:]])
    _plain_head(row, plan, ids, 0, 2 if math.isfinite(sound) else 0)


def _frames(row: RowBuilder, plan: KindPlan, part: Part, a: int, b: int, last: bool) -> None:
    """Frames a .. b of a part (counted in the part), those that thinning leaves; `last`: none comes after."""
    codes, offset = _codes(row, plan, part)
    t, h, w = part.item.grid
    timed = plan.frame_times and len(part.item.times) == t and t > 0
    chosen = np.arange(part.first + a, part.first + b)
    if timed and (shown := row.layout.shown_frames(part.item.times)) is not None:
        chosen = chosen[shown[chosen]]
    if not len(chosen):
        return
    steps = None
    if timed:
        if not np.isfinite(part.item.times).all():
            raise refusals.no_time(f"item {part.index}")
        steps = row.layout.frame_steps(part.item.times[chosen])
    elif plan.frame_times and plan.time_text:
        raise refusals.untimed(row.layout, f"item {part.index}")
    values = codes.reshape(t, h * w, codes.shape[1])[chosen] + offset
    inside = len(plan.frame_open) + len(plan.frame_close) + (plan.separator >= 0)
    blocked = plan.kind in row.layout.spec.attention.blocks
    if not inside and not plan.time_text and not blocked and not row.places and plan.row_end < 0:
        _frames_at_once(row, plan, values, h, w, steps)
        return
    loss = row.layout.spec.loss
    seconds = positions.seconds_a_step(part.item) if row.places else 1.0
    for f in range(len(chosen)):
        if row.places:
            row.places.begin_frame()
        if steps is not None:
            row.plain(row.time_ids(plan, int(steps[f])), loss.time)
        row.plain(plan.frame_open.ids, loss.separators)
        alone = bool(inside or steps is not None)
        _body(row, plan, values[f : f + 1], h, w, row.new_block(plan.kind), -1 if alone else f, seconds)
        row.plain(plan.frame_close.ids, loss.separators)
        if plan.separator >= 0 and (f + 1 < len(chosen) or not last):
            row.plain(np.array([plan.separator], np.int32), loss.separators)
    if row.places:
        row.places.grid_done()


def _frames_at_once(
    row: RowBuilder, plan: KindPlan, values: np.ndarray, h: int, w: int, steps: np.ndarray | None
) -> None:
    """The usual video: [TIME TIME] codes a frame, as one array."""
    body = arrange(values, plan.body, h, w)
    loss, (count, size) = row.layout.spec.loss, body.shape
    if steps is None:
        row.ids.append(body.reshape(-1))
        row.scale(plan, h, w, values.shape[2], count)
        row.run(count * size, plan.number, plan.weight)
        return
    ids = np.empty((count, 2 + size), np.int32)
    lo = max(row.layout.spec.vocabulary.time_lo, 1)
    ids[:, 0] = steps // lo + row.layout.time_hi_start
    ids[:, 1] = steps % lo + row.layout.time_lo_start
    ids[:, 2:] = body
    row.ids.append(ids.reshape(-1))
    if row.layout.spec.loss.codebooks:
        factors = np.concatenate([[1.0, 1.0], row.factors(plan, h, w, values.shape[2])])
        row.scaled.append((row.n, np.tile(factors, count).astype(np.float32)))
    row.counts += [2, size] * count
    row.kinds += [CONTROL, plan.number] * count
    row.weights += [loss.time * row.factor, plan.weight * row.factor] * count
    row.blocks += [0, 0] * count
    row.n += count * (2 + size)


def _video_and_sound(row: RowBuilder, video: Part, sound: Part) -> None:
    """open header [TIME of the sound] then, by the clock, frames and codes of sound, then close."""
    plan, other = row.layout.kinds["video"], row.layout.kinds["audio"]
    video_part, sound_part = part_stretch(row.layout, video), part_stretch(row.layout, sound)
    codes, offset = _codes(row, other, sound)
    _codes(row, plan, video)  # refuses what cannot be written, of a video without frames too
    row.begin_item()
    has_sound = sound.last > sound.first
    _video_head(row, plan, video, sound_part.start_s if has_sound else math.nan)
    order = clock.merged(row.layout, [video_part, sound_part])
    edges = np.flatnonzero(np.diff(order.member)) + 1
    for a, b in zip([0, *edges.tolist()], [*edges.tolist(), len(order.member)]):
        if a == b:
            continue
        first, last = int(order.unit[a]), int(order.unit[b - 1]) + 1
        if order.member[a] == 0:
            _frames(row, plan, video, first, last, False)
        else:
            some = codes[sound.first + first : sound.first + last] + offset
            _body(row, other, some[None], last - first, 1, row.new_block("audio"))
    if video.last == video.units and sound.last == sound.units:
        row.plain(plan.close.ids, row.layout.spec.loss.delimiters)
    row.end_item()


def _unit_streams(row: RowBuilder, unit: Unit) -> None:
    """open, then the units of all members by their times, then close."""
    plan = row.layout.kinds["audio"]
    values = []
    for part in unit:
        codes, offset = _codes(row, plan, part)
        values.append(codes[part.first : part.last] + offset)
    order = clock.merged(row.layout, [part_stretch(row.layout, part) for part in unit])
    row.begin_item()
    block = row.new_block("audio")
    _plain_head(row, plan, plan.open.ids, block)
    width = max((v.shape[1] for v in values), default=1)
    table = np.full((len(order.member), width), -1, np.int32)
    for m, some in enumerate(values):
        table[order.member == m, : some.shape[1]] = some[order.unit[order.member == m]]
    ids = table[table >= 0]
    row.ids.append(ids)
    row.scale_books(np.nonzero(table >= 0)[1])
    row.run(len(ids), plan.number, plan.weight, block)
    if row.places:
        row.places.text(len(ids))
    if all(part.last == part.units for part in unit):
        row.plain(plan.close.ids, row.layout.spec.loss.delimiters, row.edge(block))
    row.end_item()


def _soft(row: RowBuilder, plan: KindPlan, part: Part) -> None:
    item, loss, where = part.item, row.layout.spec.loss, f"item {part.index}"
    t, h, w = soft.soft_grid(row.layout, item, where)
    if plan.num_sizes or plan.size_text or plan.kind != "audio":
        check_soft(row.layout, plan, where, h, w)
    placeholder = row.layout.controls[getattr(row.layout.spec.soft, item.kind).placeholder]
    framed = item.kind == "video" and (len(plan.frame_open) or plan.frame_times)
    steps = None
    if item.kind == "video" and plan.frame_times:
        if len(item.times) != item.grid[0] or not np.isfinite(item.times).all():
            raise refusals.untimed(row.layout, where)
        times = soft.group_times(item.times, row.layout.spec.soft.video.frames)
        steps = row.layout.time_steps(times, plan.time_text)
    row.begin_item()
    block = row.new_block(item.kind)
    around = 0 if item.kind == "video" else block  # each frame of a video has a block of its own
    _plain_head(row, plan, head(row.layout, plan, h, w, item.start_s, item.end_s), around)
    before = sum(map(len, row.soft.get(item.kind, [])))
    seconds = positions.seconds_a_step(item, row.layout.spec.soft.video.frames) if item.kind == "video" else 1.0
    for f in range(t if framed else 1):
        count = h * w if framed else t * h * w
        if row.places:
            row.places.begin_frame()
        if steps is not None:
            row.plain(row.time_ids(plan, int(steps[f])), loss.time)
        row.plain(plan.frame_open.ids, loss.separators)
        row.ids.append(np.full(count, placeholder, np.int32))
        row.soft_places.append((row.n, np.arange(before, before + count, dtype=np.int32)))
        before += count
        row.run(count, plan.number, loss.soft, block if f == 0 else row.new_block(item.kind))
        if row.places:
            if item.kind == "audio":
                row.places.text(count)
            else:
                row.places.grid(1 if framed else t, h, w, seconds_a_step=seconds)
                row.places.grid_done()
        row.plain(plan.frame_close.ids, loss.separators)
    if row.dry:
        pass  # only the length is asked for
    elif row.media is not None:
        row.soft.setdefault(item.kind, []).append(soft.vectors(row.layout, item, row.media(item), (t, h, w)))
    else:
        raise ValueError(f"{item.kind} {item.digest or item.uri!r} is soft; give render its kept medium by `media=`")
    row.plain(plan.close.ids, loss.delimiters, row.edge(around))
    row.end_item()


def _plain_head(row: RowBuilder, plan: KindPlan, ids: np.ndarray, block: int = 0, times: int = 0) -> None:
    """The header, whose parts have weights of their own: open, sizes or their text, `times` ids, after_header."""
    loss, n = row.layout.spec.loss, len(ids)
    if not n:
        return
    edge = row.edge(block)
    if n == len(plan.open):
        row.plain(ids, loss.delimiters, edge)
        return
    opened, ending = len(plan.open), len(plan.after_header)
    row.ids.append(ids)
    sized = n - opened - ending - times if plan.size_text else plan.num_sizes
    timed = n - opened - ending - sized
    for count, weight in (
        (opened, loss.delimiters),
        (sized, loss.size),
        (timed, loss.time),
        (ending, loss.delimiters),
    ):
        if count:
            row.run(count, CONTROL, weight, edge)
    if row.places:
        row.places.text(n)


def _body(
    row: RowBuilder,
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
    loss = row.layout.spec.loss
    if plan.row_end >= 0:
        table = np.empty((h, w * K + 1), np.int32)
        table[:, :-1] = ids.reshape(h, -1)
        table[:, -1] = plan.row_end
        row.ids.append(table.reshape(-1))
        if loss.codebooks:
            factors = np.ones((h, w * K + 1), np.float32)
            factors[:, :-1] = row.factors(plan, h, w, K).reshape(h, -1)
            row.scaled.append((row.n, factors.reshape(-1)))
        row.counts += [w * K, 1] * h
        row.kinds += [plan.number, CONTROL] * h
        row.weights += [plan.weight * row.factor, loss.separators * row.factor] * h
        row.blocks += [block, block] * h
        row.n += table.size
    else:
        row.ids.append(ids)
        row.scale(plan, h, w, K, 1)
        row.run(len(ids), plan.number, plan.weight, block)
    if row.places:
        if plan.kind == "audio":
            row.places.text(len(ids))
        else:
            row.places.grid(1, h, w, K, plan.row_end >= 0, plan.body, max(frame, 0), seconds_a_step)
            if frame < 0:
                row.places.grid_done()


def _codes(row: RowBuilder, plan: KindPlan, part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Codes of a hard item and the first id of each of its codebooks; refuses what `measure` refuses."""
    layout, item = row.layout, part.item
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


def check_soft(layout: Layout, plan: KindPlan, where: str, h: int, w: int) -> None:
    """ValueError where the layout cannot write a soft grid of h x w positions."""
    if h < 1 or w < 1 or (plan.num_sizes and max(h, w) >= layout.spec.vocabulary.sizes):
        raise refusals.wrong_size(layout, plan, where, h, w)
