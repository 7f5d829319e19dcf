"""Reading the inside of an item from a cursor on: header, times, body. What is not whole is reported and left out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tokenizer import kept, soft
from tokenizer.bodies import restore
from tokenizer.cursor import Cursor
from tokenizer.item import Item

if TYPE_CHECKING:
    from tokenizer.layout import KindPlan

LONGEST_TIME = 64  # ids of a time or a size as text, at most


def read_inside(cursor: Cursor, plan: KindPlan, opened: int) -> list[Item]:
    """Header and body; no items where they cannot be read."""
    h, w = plan.fixed
    if plan.num_sizes or plan.size_text:
        sizes = _sizes(cursor, plan)
        if sizes is None:
            name = plan.rule.open[-1] if plan.rule.open else plan.kind
            cursor.report(opened, f"{name} without its {'two sizes' if plan.num_sizes else 'size'}")
            cursor.skip()
            return []
        h, w = sizes
        if not h or not w or (plan.fixed[0] and (h, w) != plan.fixed) or (plan.rule.grid == "square" and h != w):
            cursor.report(opened + 1, f"{plan.kind} of {h} x {w} codes")
            cursor.skip()
            return []
    start = end = math.nan
    if plan.num_times and (first := _time(cursor)) is not None:
        start = first
        if plan.num_times == 2 and (second := _time(cursor)) is not None:
            end = second
    sound_start = _sound_time(cursor, plan)
    if len(plan.after_header):
        after = plan.after_header
        if cursor.follows(cursor.at, tuple(after.ids.tolist())):
            cursor.at += len(after)
        else:
            cursor.report(cursor.at, f"{plan.kind} without {plan.rule.after_header[0]} after its header")
    soft_rule = getattr(cursor.layout.spec.soft, plan.kind, None)
    if soft_rule and soft_rule.placeholder:
        if plan.kind == "video" and _soft_frame_here(cursor, plan):
            return _soft_frames(cursor, plan, opened, h, w)
        elif cursor.control(cursor.at) == soft_rule.placeholder and plan.kind == "video":
            cursor.report(cursor.at, "a frame without its time or its begin")
            cursor.placeholders(soft_rule.placeholder)
            return []
        elif cursor.control(cursor.at) == soft_rule.placeholder:
            return _soft_body(cursor, plan, opened, h, w, start, end)
        if plan.only_soft:
            cursor.report(cursor.at, f"no {soft_rule.placeholder} of {plan.kind}")
            cursor.skip()
            return []
    if plan.kind == "video":
        return _video(cursor, plan, h, w, sound_start)
    if plan.kind == "audio" and cursor.layout.spec.merge.of == "units":
        return _units(cursor)
    found = read_body(cursor, plan, h, w)
    if found is None:
        return []
    codec, codes, h, w = found
    if not len(codes):
        return [replace(cursor.layout.nothing_of(plan.kind), start_s=start, end_s=end)]
    grid = {"image": (1, h, w), "audio": (len(codes), 0, 0)}.get(plan.kind, (0, 0, 0))
    return [Item(plan.kind, cursor.codec_name(plan.kind, codec), codes, grid, start, end)]


def _sizes(cursor: Cursor, plan: KindPlan) -> tuple[int, int] | None:
    if plan.size_text:
        stop = cursor.run_end(cursor.at) if cursor.name(cursor.at) == cursor.text_class else cursor.at
        found = None
        if 0 < stop - cursor.at <= LONGEST_TIME:
            found = plan.size_text.read(cursor.layout.words.text(cursor.ids[cursor.at : stop]))
            if found and not cursor.follows(cursor.at, cursor.layout.words.ids(plan.size_text.write(*found))):
                found = None
        if found:
            cursor.at = stop
        return found
    if cursor.name(cursor.at) != "size" or cursor.name(cursor.at + 1) != "size":
        return None
    base, unit = cursor.layout.vocabulary["size"].start, plan.rule.size_unit
    cursor.at += 2
    return (int(cursor.ids[cursor.at - 2]) - base) * unit, (int(cursor.ids[cursor.at - 1]) - base) * unit


def _time(cursor: Cursor) -> float | None:
    """Seconds of the two ids here, or None; half a time is reported by whoever finds it outside an item."""
    if cursor.name(cursor.at) != "time_hi" or cursor.name(cursor.at + 1) != "time_lo":
        return None
    vocabulary, plan = cursor.layout.vocabulary, cursor.layout.spec.vocabulary
    high = int(cursor.ids[cursor.at]) - vocabulary["time_hi"].start
    low = int(cursor.ids[cursor.at + 1]) - vocabulary["time_lo"].start
    cursor.at += 2
    return float((high * plan.time_lo + low) * plan.time_quantum_s)


def _sound_time(cursor: Cursor, plan: KindPlan) -> float:
    """The start of the sound that is merged with the frames: a time before that of the first frame."""
    if plan.kind != "video" or cursor.layout.spec.merge.of != "video_audio":
        return math.nan
    began = cursor.at
    seconds = _time(cursor)
    if seconds is None:
        return math.nan
    sound = cursor.codec_here("audio") >= 0
    if not sound and not plan.time_text and cursor.name(cursor.at) != "time_hi":
        cursor.at = began  # it is the first frame's own
        return math.nan
    return seconds


def read_body(cursor: Cursor, plan: KindPlan, h: int, w: int) -> tuple[int, np.ndarray, int, int] | None:
    """(codec, codes int32 [T, K], h, w) of a text, an image, a sound or one frame, which begin here."""
    kind = plan.kind
    codec = cursor.codec_here(kind)
    if codec < 0:
        if kind in ("image", "video"):
            expected = f"{h * w} should be" if h else "some should be"
            cursor.report(cursor.at, f"no codes of {kind} where {expected}")
            cursor.skip()
            return None
        return codec, np.zeros((0, cursor.num_codebooks(cursor.codec_name(kind, codec))), np.int32), h, w
    K = len(cursor.layout.code_sizes[codec])
    begin = cursor.at
    if plan.row_end >= 0:
        flat, h, w = _rows(cursor, plan, codec, h, w)
        if flat is None:
            return None
    else:
        stop = cursor.run_end(begin)
        if kind in ("image", "video") and not h:  # a square, by the number of its codes
            h = w = math.isqrt((stop - begin) // K)
            if h * w * K != stop - begin:
                cursor.report(begin, f"{stop - begin} ids are no square of codes of {kind}")
                cursor.at = stop
                return None
        want = h * w if kind in ("image", "video") else 0
        if kind == "video":
            stop = min(begin + want * K, stop)
        checked = _counted(cursor, plan, begin, stop, K, want)
        if checked is None:
            return None
        flat, stop = checked
        cursor.at = stop
    n = len(flat) // K
    grid = (h, w) if kind in ("image", "video") else (n, 1)
    ordered = restore(flat[None], plan.body, *grid, K)[0]
    local = ordered - cursor.layout.code_offsets[codec]
    wrong = (local < 0) | (local >= cursor.layout.code_sizes[codec].astype(np.int64))
    if wrong.any():
        cursor.report(begin, f"codebooks of {kind} out of turn")
        return None
    return codec, local.astype(np.int32), h, w


def _counted(cursor: Cursor, plan: KindPlan, begin: int, stop: int, K: int, want: int) -> tuple[np.ndarray, int] | None:
    """Codes from `begin` on, `want` of them if given; None, reported, where they are not as they should."""
    kind = plan.kind
    have, rest = divmod(stop - begin, K)
    if want and have < want:
        cursor.report(begin, f"{have} codes of {kind} where {want} should be")
        cursor.at = stop
        return None
    if want and (have > want or rest):
        cursor.report(begin + want * K, f"{stop - begin - want * K} ids more than the {want} codes of the {kind}")
        have = want
    elif rest:
        cursor.report(begin + have * K, f"the last code of {kind} has {rest} of {K} codebooks")
    return cursor.ids[begin : begin + have * K], stop


def _rows(cursor: Cursor, plan: KindPlan, codec: int, h: int, w: int) -> tuple[np.ndarray | None, int, int]:
    """Codes row by row, each followed by its separator; the width is that of the first row where none is given."""
    K, begin = len(cursor.layout.code_sizes[codec]), cursor.at
    rows: list[np.ndarray] = []
    while cursor.codec_here(plan.kind) == codec:
        stop = cursor.run_end(cursor.at)
        row = cursor.ids[cursor.at : stop]
        w = w or len(row) // K
        if len(row) != w * K or not w or cursor.mark(stop) != plan.row_end:
            what = f"a row of {len(row)} ids where {w * K} and {plan.rule.row_end} should be"
            cursor.report(cursor.at, what)
            cursor.skip()
            return None, h, w
        rows.append(row)
        cursor.at = stop + 1
        if h and len(rows) == h:
            break
    if (h and len(rows) != h) or not rows:
        cursor.report(begin, f"{len(rows)} rows of {plan.kind} where {h} should be")
        return None, h, w
    square = plan.rule.grid == "square" and len(rows) != w
    if square or (plan.fixed[0] and (len(rows), w) != plan.fixed):
        cursor.report(begin, f"{plan.kind} of {len(rows)} x {w} codes")
        return None, h, w
    return np.concatenate(rows), len(rows), w


def _video(cursor: Cursor, plan: KindPlan, h: int, w: int, sound_start: float) -> list[Item]:
    """Frames from here on; a frame that is not whole is reported and left out, with all after it."""
    merge = cursor.layout.spec.merge.of == "video_audio"
    timed = plan.frame_times and (
        plan.time_text is not None or cursor.name(cursor.at) == "time_hi" or not math.isnan(sound_start)
    )
    frames: list[np.ndarray] = []
    sound: list[np.ndarray] = []
    times: list[float] = []
    used = sound_codec = -1
    while cursor.at < len(cursor.ids):
        began = cursor.at
        if merge and (codec := cursor.codec_here("audio")) >= 0:
            part = read_body(cursor, cursor.layout.kinds["audio"], 0, 0)
            if part is None or math.isnan(sound_start) or sound_codec not in (-1, codec):
                cursor.report(began, "sound between frames that has no start")
                cursor.skip()
                break
            sound_codec = codec
            sound.append(part[1])
            continue
        if not _frame_here(cursor, plan):
            break
        found = _frame(cursor, plan, h, w, timed)
        if found is None or (used >= 0 and found[1] != used):
            if found is not None:
                cursor.report(began, "no whole frame of the video begins here")
            cursor.skip()
            break
        seconds, used, codes, h, w = found
        frames.append(codes)
        if timed:
            times.append(seconds)
        if plan.separator >= 0:
            if cursor.mark(cursor.at) != plan.separator:
                break
            cursor.at += 1
            if cursor.at == len(cursor.ids) or not _frame_here(cursor, plan):
                cursor.report(cursor.at, "no whole frame of the video begins here")
    name = cursor.codec_name("video", used)
    codes = np.concatenate(frames) if frames else np.zeros((0, cursor.num_codebooks(name)), np.int32)
    if cursor.layout.reads_as_image(len(frames), name):
        return [Item("image", name, codes, (1, h, w))]
    if not frames and not plan.marked:
        return []
    items = [Item("video", name, codes, (len(frames), h, w), times=np.array(times, np.float32))]
    if sound:
        joined = np.concatenate(sound)
        items.append(
            Item("audio", cursor.layout.codecs[sound_codec].name, joined, (len(joined), 0, 0), start_s=sound_start)
        )
    elif not math.isnan(sound_start):
        cursor.report(cursor.at, "the start of a sound that does not come")
    if not _thinned(cursor, plan, times):
        cursor.report(cursor.at, f"frames closer than {1 / plan.rule.max_rate:g} s")
    return items


def _thinned(cursor: Cursor, plan: KindPlan, times: list[float]) -> bool:
    shown = cursor.layout.shown_frames(np.array(times, np.float32)) if times else None
    return shown is None or bool(shown.all())


def _frame_here(cursor: Cursor, plan: KindPlan) -> bool:
    """Whether something that wants to be a frame begins here."""
    if plan.frame_open.mark >= 0 and cursor.mark(cursor.at) == plan.frame_open.mark:
        return True
    return not cursor.control(cursor.at)


def _frame(
    cursor: Cursor, plan: KindPlan, h: int, w: int, timed: bool
) -> tuple[float, int, np.ndarray, int, int] | None:
    """(seconds, codec, codes, h, w) of the frame here, None, reported, where there is no whole one."""
    began = cursor.at
    seconds = math.nan
    if timed:
        found = _time_in_words(cursor, plan) if plan.time_text else _time(cursor)
        if found is None:
            cursor.report(began, "no whole frame of the video begins here")
            return None
        seconds = found
    if len(plan.frame_open):
        if cursor.mark(cursor.at) != plan.frame_open.mark:
            cursor.report(cursor.at, "no whole frame of the video begins here")
            return None
        cursor.expect(plan.frame_open, "a frame's begin")
    if cursor.codec_here("video") < 0:
        cursor.report(began, "no whole frame of the video begins here")
        return None
    body = read_body(cursor, plan, h, w)
    if body is None:
        return None
    if len(plan.frame_close):
        if cursor.mark(cursor.at) != plan.frame_close.mark:
            cursor.report(cursor.at, "a frame is not closed")
            return None
        cursor.expect(plan.frame_close, "a frame's end")
    return seconds, *body


def _time_in_words(cursor: Cursor, plan: KindPlan) -> float | None:
    """A time written as text, which is all the text here."""
    if cursor.name(cursor.at) != cursor.text_class:
        return None
    stop = cursor.run_end(cursor.at)
    step = step_of(cursor, plan, cursor.at, stop)
    if step is None:
        return None
    cursor.at = stop
    return step * cursor.layout.frame_quantum_s


def step_of(cursor: Cursor, plan: KindPlan, start: int, stop: int) -> int | None:
    """The time step that exactly the ids start .. stop spell."""
    assert plan.time_text is not None
    if not 0 < stop - start <= LONGEST_TIME:
        return None
    step = plan.time_text.read(cursor.layout.words.text(cursor.ids[start:stop]))
    if step is None or not cursor.follows(start, cursor.layout.words.ids(plan.time_text.write(step))):
        return None
    return step


def _units(cursor: Cursor) -> list[Item]:
    """Codes of several audio codecs, one unit after the other, on one clock."""
    codes: dict[int, list[np.ndarray]] = {}
    member: list[int] = []
    while (codec := cursor.codec_here("audio")) >= 0:
        begin, cursor.at = cursor.at, cursor.run_end(cursor.at)
        K = len(cursor.layout.code_sizes[codec])
        have, rest = divmod(cursor.at - begin, K)
        if rest:
            cursor.report(begin + have * K, f"the last code of audio has {rest} of {K} codebooks")
        local = cursor.ids[begin : begin + have * K].reshape(have, K) - cursor.layout.code_offsets[codec]
        if ((local < 0) | (local >= cursor.layout.code_sizes[codec].astype(np.int64))).any():
            cursor.report(begin, "codebooks of audio out of turn")
            continue
        codes.setdefault(codec, []).append(local.astype(np.int32))
        member += [list(codes).index(codec)] * have
    if not member:
        return [cursor.layout.nothing_of("audio")]
    names = [cursor.layout.codecs[codec].name for codec in codes]
    joined = [np.concatenate(parts) for parts in codes.values()]
    items, cursor.clock_s = kept.unit_streams(cursor.layout, names, joined, np.array(member), cursor.clock_s)
    return items


def _soft_body(cursor: Cursor, plan: KindPlan, opened: int, h: int, w: int, start: float, end: float) -> list[Item]:
    rule = cursor.layout.spec.soft
    count = cursor.placeholders(getattr(rule, plan.kind).placeholder)
    if plan.kind == "audio":
        grid = (count * soft.samples_a_position(rule), 0, 0)
    else:
        if plan.num_sizes or plan.size_text:
            want = h * w
        elif rule.image.size:
            high, wide = kept.soft_image_grid(cursor.layout, plan, 0, 0)[1:]
            h, w = -(-high // rule.image.patch), -(-wide // rule.image.patch)
            want = h * w
        else:
            h, w, want = 1, count, count
        if count != want:
            said = f"{h} x {w}"
            cursor.report(opened, f"{count} placeholders for an image of {said}")
            return []
        grid = kept.soft_image_grid(cursor.layout, plan, h, w)
    return [Item(plan.kind, "", None, grid, start, end)]


def _soft_frame_here(cursor: Cursor, plan: KindPlan) -> bool:
    """Whether a placeholder of a video comes next, behind the time and the delimiter of its frame."""
    at = cursor.at
    if plan.frame_times:
        at = cursor.run_end(at) if plan.time_text else at + 2
    if plan.frame_open.mark >= 0:
        at += len(plan.frame_open)
    return cursor.control(at) == cursor.layout.spec.soft.video.placeholder


def _soft_frames(cursor: Cursor, plan: KindPlan, opened: int, h: int, w: int) -> list[Item]:
    """Groups of merged frames, each with its time and delimiters where the layout writes them."""
    rule = cursor.layout.spec.soft.video
    framed = len(plan.frame_open) or plan.frame_times
    counts: list[int] = []
    times: list[float] = []
    while _soft_frame_here(cursor, plan):
        began = cursor.at
        if plan.frame_times:
            seconds = _time_in_words(cursor, plan) if plan.time_text else _time(cursor)
            if seconds is None:
                cursor.report(began, "a frame without its time")
                cursor.skip()
                return []
            times.append(seconds)
        if plan.frame_open.mark >= 0:
            cursor.expect(plan.frame_open, "a frame's begin")
        counts.append(cursor.placeholders(rule.placeholder))
        if not counts[-1]:
            cursor.report(cursor.at, f"no {rule.placeholder} of video")
            cursor.skip()
            return []
        if plan.frame_close.mark >= 0:
            if cursor.mark(cursor.at) != plan.frame_close.mark:
                cursor.report(cursor.at, "a frame is not closed")
                return []
            cursor.expect(plan.frame_close, "a frame's end")
        if not framed:
            break
    sized = bool(plan.num_sizes or plan.size_text)
    if not framed and sized:
        counts = [h * w] * (counts[0] // (h * w)) if counts[0] % (h * w) == 0 else [counts[0]]
    if len(set(counts)) > 1 or (sized and counts[0] != h * w):
        cursor.report(opened, f"{sorted(set(counts))} placeholders a frame of {h} x {w}")
        return []
    grid = kept.soft_video_grid(cursor.layout, plan, len(counts), *((h, w) if sized else (1, counts[0])))
    return [Item("video", "", None, grid, times=np.repeat(np.array(times, np.float32), rule.frames))]
