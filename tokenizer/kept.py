"""What a layout keeps of items: `apply` gives just what `parse` gives back, `in_words` says it to people.

Where a system's own form loses something, so does ours, and says so: two texts without a delimiter between them are
one text afterwards, a soft picture without a header is so many positions, a video of one frame is a picture where the
system writes pictures so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tokenizer import clock, refusals, soft, streams
from tokenizer.ambiguity import only_soft, sides
from tokenizer.choose import Part, Unit, part_stretch, parts_of
from tokenizer.grammar import MEDIA, LayoutSpec
from tokenizer.item import Item
from tokenizer.render import turn_closes
from tokenizer.row import Choice

if TYPE_CHECKING:
    from tokenizer.layout import KindPlan, Layout

_ALTERNATE = ("user", "assistant")  # roles of turns that a layout closes and does not name


def apply(layout: Layout, items: Sequence[Item], choice: Choice, piece: tuple[int, int] | None) -> list[Item]:
    """See Layout.apply."""
    if layout.spec.streams.sounds:
        return streams.apply(layout, items, piece)
    units, _, ends = parts_of(layout, items, choice, piece)
    roles = _roles(layout, units, items, ends)
    found: list[Item] = []
    clock_s = 0.0  # of unit streams: their times are lost, their order is not
    for unit, role in zip(units, roles):
        if len(unit) == 1:
            some = [_kept(layout, unit[0])]
        elif unit[0].item.kind == "video":
            some = _video_and_sound(layout, unit)
        else:
            some, clock_s = unit_streams(layout, *_streams_of(layout, unit), clock_s)
        found += [replace(item, role=role) for item in some]
    return joined(layout, found)


def joined(layout: Layout, items: Sequence[Item]) -> list[Item]:
    """Neighbours that nothing in a row holds apart, as one item."""
    runs: list[list[Item]] = []
    for item in items:
        if runs and layout.kinds[item.kind].loose and _alike(layout, runs[-1][-1], item):
            runs[-1].append(item)
        else:
            runs.append([item])
    return [run[0] if len(run) == 1 else _sum(run) for run in runs]


def _alike(layout: Layout, a: Item, b: Item) -> bool:
    """Whether b goes on where a ends. One-frame pictures of a kind that has a close are never here (`loose`)."""
    if (a.kind, a.codec, a.role) != (b.kind, b.codec, b.role) or (a.codes is None) != (b.codes is None):
        return False
    if a.kind == "text":
        return True
    return a.kind == "video" and a.grid[1:] == b.grid[1:] and (len(a.times) > 0) == (len(b.times) > 0)


def _sum(run: list[Item]) -> Item:
    first = run[0]
    codes = [item.codes for item in run if item.codes is not None]
    grid = (sum(item.grid[0] for item in run), *first.grid[1:]) if first.kind == "video" else first.grid
    times = np.concatenate([item.times for item in run])
    return replace(first, codes=np.concatenate(codes) if codes else None, grid=grid, times=times)


def _roles(layout: Layout, units: list[Unit], items: Sequence[Item], ends: bool) -> list[str]:
    """The role of each unit as a row tells it."""
    own = [unit[0].item.role for unit in units]
    if layout.turn_open:
        return own
    if layout.turn_close.mark < 0:
        return ["none"] * len(units)
    roles: list[str] = []
    turn, begun = 0, 0
    for i, role in enumerate(own):
        last = i + 1 == len(own)
        closed = role != "none" and (turn_closes(layout, units, items, ends) if last else own[i + 1] != role)
        if closed:
            roles += [_ALTERNATE[turn % 2]] * (i + 1 - begun)
            turn, begun = turn + 1, i + 1
    return roles + ["none"] * (len(own) - begun)


def _kept(layout: Layout, part: Part) -> Item:
    """A part as an item with only what the layout keeps."""
    item, first, last = part.item, part.first, part.last
    plan = layout.kinds.get(item.kind)
    if plan is None:
        raise refusals.not_written(layout, f"item {part.index}", item.kind)
    if item.codes is None:
        result = _soft(layout, plan, part)
    elif item.kind == "video" or (item.kind == "image" and plan.as_video):
        result = _video(layout, plan, part)
    else:
        codes = item.codes[first:last] if item.kind != "image" else item.codes
        grid = {"text": (0, 0, 0), "audio": (last - first, 0, 0)}.get(item.kind, item.grid)
        result = Item(item.kind, item.codec, codes, grid)
    if (result.codes is not None and not len(result.codes)) or (item.kind == "audio" and result.grid[0] == 0):
        result = replace(layout.nothing_of(item.kind), grid=result.grid, times=result.times)
    start = item.start_s if item.codes is None else part_stretch(layout, part).start_s
    if plan.num_times and math.isfinite(start):
        result = replace(result, start_s=layout.quantised(start))
        if plan.num_times == 2 and math.isfinite(item.end_s):
            result = replace(result, end_s=layout.quantised(item.end_s))
    return result


def _video(layout: Layout, plan: KindPlan, part: Part) -> Item:
    item = part.item
    t, h, w = item.grid
    assert item.codes is not None
    chosen = np.arange(part.first, part.last)
    times = np.zeros(0, np.float32)
    if t == 0 and not plan.says_grid:
        return Item("video", item.codec, item.codes, (0, 0, 0))  # nothing in the row tells its size
    if plan.frame_times and len(item.times) == t and t > 0:
        if (shown := layout.shown_frames(item.times)) is not None:
            chosen = chosen[shown[chosen]]
        steps = layout.frame_steps(item.times[chosen])
        times = (steps * layout.frame_quantum_s).astype(np.float32)
    codes = item.codes.reshape(t, h * w, item.codes.shape[1])[chosen].reshape(-1, item.codes.shape[1])
    if layout.reads_as_image(len(chosen), item.codec):
        return Item("image", item.codec, codes, (1, h, w))
    if not len(chosen) and not plan.says_grid:
        h = w = 0
    return Item("video", item.codec, codes, (len(chosen), h, w), times=times)


def _video_and_sound(layout: Layout, unit: Unit) -> list[Item]:
    plan = layout.kinds["video"]
    video = _video(layout, plan, unit[0])
    if video.codes is not None and not len(video.codes):
        video = replace(layout.nothing_of("video"), grid=video.grid)
    sound = unit[1]
    assert sound.item.codes is not None
    codes = sound.item.codes[sound.first : sound.last]
    if not len(codes):
        return [video]
    start = layout.quantised(part_stretch(layout, sound).start_s)
    return [video, Item("audio", sound.item.codec, codes, (len(codes), 0, 0), start_s=start)]


def _streams_of(layout: Layout, unit: Unit) -> tuple[list[str], list[np.ndarray], np.ndarray]:
    """(codec, codes) of each member of a group, and the member of each unit in the order of the row."""
    order = clock.merged(layout, [part_stretch(layout, part) for part in unit])
    codes = [part.item.codes[part.first : part.last] for part in unit]  # type: ignore[index]
    return [part.item.codec for part in unit], codes, order.member


def unit_streams(
    layout: Layout, codecs: list[str], codes: list[np.ndarray], member: np.ndarray, clock_s: float
) -> tuple[list[Item], float]:
    """The items of merged unit streams, by their first unit; and the clock after them.

    Their times are lost: each unit takes a quantum of a clock of its own, on which the same order comes out again.
    """
    quantum = layout.spec.vocabulary.time_quantum_s
    end = clock_s + len(member) * quantum
    found = []
    for m in dict.fromkeys(member.tolist()):
        places = np.flatnonzero(member == m)
        item = Item("audio", codecs[m], codes[m], (len(codes[m]), 0, 0))
        if len(set(member.tolist())) > 1:
            times = (clock_s + places * quantum).astype(np.float32)
            item = replace(item, times=times, start_s=clock_s, end_s=end)
        found.append(item)
    return found, end if len(found) > 1 else clock_s


def _soft(layout: Layout, plan: KindPlan, part: Part) -> Item:
    item, rule = part.item, layout.spec.soft
    t, h, w = soft.soft_grid(layout, item, f"item {part.index}")
    if item.kind == "audio":
        return Item("audio", "", None, (t * soft.samples_a_position(rule), 0, 0))
    if item.kind == "image":
        return Item("image", "", None, soft_image_grid(layout, plan, h, w))
    if not (len(plan.frame_open) or plan.frame_times) and not (plan.num_sizes or plan.size_text):
        return Item("video", "", None, soft_video_grid(layout, plan, 1, 1, t * h * w))
    result = Item("video", "", None, soft_video_grid(layout, plan, t, h, w))
    if plan.frame_times:
        frames = rule.video.frames
        steps = layout.time_steps(soft.group_times(item.times, frames), plan.time_text)
        seconds = np.repeat(steps * layout.frame_quantum_s, frames).astype(np.float32)
        result = replace(result, times=seconds)
    return result


def soft_image_grid(layout: Layout, plan: KindPlan, h: int, w: int) -> tuple[int, int, int]:
    """Kept pixels of a soft picture as a row tells them: exact where it writes sizes or has one size only."""
    rule = layout.spec.soft.image
    if rule.size:
        return 1, *sides(rule.size)
    if plan.num_sizes or plan.size_text:
        return 1, h * rule.patch, w * rule.patch
    return 1, rule.patch, h * w * rule.patch


def soft_video_grid(layout: Layout, plan: KindPlan, groups: int, h: int, w: int) -> tuple[int, int, int]:
    """Of a soft video: so many groups of frames of h x w positions, or a row of as many where no sizes are written."""
    rule = layout.spec.soft.video
    if not (plan.num_sizes or plan.size_text):
        h, w = 1, h * w
    return groups * rule.frames, h * rule.patch, w * rule.patch


def in_words(spec: LayoutSpec) -> tuple[str, ...]:
    """What `parse` gives back, a line each."""
    plan = spec.vocabulary
    written = list(spec.kinds)
    if spec.streams.sounds:
        return (
            "audio: codec, codes, order of the sounds",
            "text: codes in the order they are said, at the frame where they stand; not what comes after the sounds",
        )
    hard = [kind for kind in written if not only_soft(spec, kind)]
    softly = [kind for kind in written if getattr(getattr(spec.soft, kind, None), "placeholder", "")]
    said = [f"{', '.join(hard)}: kind, order, codec, codes, grid"]
    for kind in softly:
        sized = spec.rule(kind).header != "none" or (kind == "image" and spec.soft.image.size)
        said.append(f"soft {kind}: " + ("size in positions" if sized or kind == "audio" else "number of positions"))
    if "text" in written and not spec.text.open:
        said.append("text: neighbours in one turn become one")
    if "image" in written and spec.image.as_video:
        said.append("video: one of a single frame becomes an image")
    if "video" in written and not (spec.video.open or spec.video.close):
        said.append("video: neighbours of one size become one")
    if spec.turns.open:
        said.append("roles")
    elif spec.turns.close:
        said.append("turns, without their roles")
    if spec.document.unwritten == "leave_out":
        said.append("items of no kind of these are left out")
    if spec.video.max_rate:
        said.append(f"video: the first frame in each stretch of {1 / spec.video.max_rate:g} s")
    if spec.merge.of == "units":
        said.append("audio of several codecs on one clock: the order of all units; not their times")
    words = {"start": "start_s", "start_end": "start_s, end_s", "frames": "times"}
    last = (plan.time_hi * plan.time_lo - 1) * plan.time_quantum_s
    for kind in (k for k in MEDIA if k in written):
        rule = spec.rule(kind)
        if times := words.get(rule.times):
            piece = " (a piece: its own start)" if kind == "audio" else ""
            words_of = kind == "video" and rule.time_form == "text"
            quantum = (rule.time_text_quantum_s if words_of else 0) or plan.time_quantum_s
            down = ", rounded down" if rule.max_rate else ""
            end = "100 hours" if words_of else f"{last:g} s"
            said.append(f"{kind}: {times}{piece} to {quantum:g} s{down}, saturated at 0 and {end}")
    return tuple(said)
