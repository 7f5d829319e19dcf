"""From ids back to items: a reader of rows that never fails, for rows a model wrote may say anything.

Works on runs of tokens of one class (text, one codec, control, size, time), so it costs Python an item and a frame, not
a token. What cannot be understood is reported with its place and left out; reading goes on at the next control.
Text that the layout itself writes (leads, headers, times, ends) is taken off by comparing ids, never by guessing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from tokenizer import kept, soft, streams
from tokenizer.bodies import restore
from tokenizer.item import Item
from tokenizer.literals import Literal
from tokenizer.row import Problem

if TYPE_CHECKING:
    from tokenizer.layout import KindPlan, Layout

_NOWHERE = -1
_LONGEST_TIME = 64  # ids of a time as text, at most


def parse(layout: Layout, ids: np.ndarray) -> tuple[list[Item], list[Problem]]:
    """[<bos>, <text>, 7, 9, <eos>] -> ([Item text 7 9], []); see Layout.parse."""
    array = np.asarray(ids)
    if array.size and array.dtype.kind not in "iu":
        return [], [Problem(0, "not an array of integers")]
    # An unsigned id past int64 turns negative, and is outside the vocabulary either way.
    array = array.astype(np.int64)
    if layout.spec.streams.sounds:
        if array.ndim != 2 or array.shape[1] != layout.num_streams:
            return [], [Problem(0, f"not a row of {layout.num_streams} streams: shape {list(array.shape)}")]
        return streams.parse(layout, array)
    reader = _Reader(layout, array.reshape(-1))
    reader.row()
    return kept.joined(layout, reader.items), reader.problems


@dataclass(eq=False)
class _Reader:
    """A place in the ids, and what has been found so far."""

    layout: Layout
    ids: np.ndarray  # int64 [n]
    at: int = 0
    text_from: int = 0  # text up to `at` which no item has yet
    items: list[Item] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    role: str = "none"
    turn_begins: int = 0  # first item since the last close of a turn
    turn_closed: bool = True
    turns: int = 0  # closed so far, where the layout does not name roles
    clock_s: float = 0.0

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
        self.marks: dict[int, list[KindPlan]] = {}
        for plan in layout.kinds.values():
            if plan.as_video:
                continue  # the video's rule reads it
            for literal in (plan.open, plan.frame_open):
                if literal.mark >= 0 and plan not in self.marks.setdefault(literal.mark, []):
                    self.marks[literal.mark].append(plan)
                if literal.mark >= 0 and literal is plan.open:
                    break  # its frames begin inside of it

    # -- looking -----------------------------------------------------------------------------------------------------

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

    # -- a row -------------------------------------------------------------------------------------------------------

    def row(self) -> None:
        document, n = self.layout.spec.document, len(self.ids)
        task = self.beginning()
        self.text_from = self.at
        before = -1
        while self.at < n:
            assert self.at > before, "the reader stands still"  # a bug of ours: never loop
            before = self.at
            control = self.control(self.at)
            if control and control in (document.end, document.continued):
                self.flush(self.at)
                self.end_turns(control == document.end)
                rest = self.ids[self.at + 1 :] != self.layout.controls[document.padding]
                if rest.any():
                    self.report(self.at + 1 + int(np.argmax(rest)), f"ids after {control}, which ends the row")
                if control == document.end:
                    self.check_task(task)
                return
            if control:
                self.at_control()
            elif self.name(self.at) == self.text_class:
                self.at = self.run_end(self.at)
            elif (plan := self.unmarked()) is not None:
                self.item(plan, self.at)
            else:
                self.flush(self.at)
                end = self.run_end(self.at)
                what = self.name(self.at) or "ids outside the vocabulary"
                self.report(self.at, f"{end - self.at} of {what} outside an item")
                self.at = self.text_from = end
        self.flush(self.at)
        self.end_turns(True)
        if n == 1 and self.control(0) == document.continued:
            return  # a piece of which a choice left nothing
        if document.end:
            self.report(n, f"does not end with {document.end} or {document.continued}")
        else:
            self.check_task(task)

    def beginning(self) -> int:
        """Reads how the row begins; the task control, -1 none, -2 of a piece that has none."""
        document = self.layout.spec.document
        if self.control(0) == document.continued:
            self.at = 1
            return -2
        if document.begin:
            if self.control(0) != document.begin:
                self.report(0, f"does not begin with {document.begin} or {document.continued}")
            else:
                self.at = 1
        if self.layout.tasks and self.mark(self.at) in self.layout.tasks and self.mark(self.at) >= 0:
            self.at += 1
            return int(self.ids[self.at - 1])
        return -1

    def check_task(self, task: int) -> None:
        from tokenizer.render import task_of

        want = task_of(self.layout, [item.kind for item in self.items])
        if task >= -1 and task != want:
            said = self.names.get(want, "no task control")
            self.report(0, f"begins with {self.names.get(task, 'no task control')} where {said} belongs")

    def at_control(self) -> None:
        """A control that is no end of the row."""
        layout, id = self.layout, self.mark(self.at)
        if id in self.marks:
            self.item(self.pick(self.marks[id], self.at), self.at)
        elif layout.turn_open and id == next(iter(layout.turn_open.values())).mark:
            self.open_turn()
        elif layout.turn_close.mark >= 0 and id == layout.turn_close.mark:
            self.close_turn()
        else:
            self.flush(self.at)
            self.report(self.at, f"{self.control(self.at)} does not belong here")
            self.at += 1
            self.text_from = self.at

    def open_turn(self) -> None:
        layout, began = self.layout, self.at
        self.flush(began)
        if self.role != "none":
            self.report(began, f"a turn of {self.role} is not closed")
        for role, literal in layout.turn_open.items():
            if self.follows(began + 1, literal.rest):
                if role == self.role or (self.items and not self.turn_closed and self.items[-1].role == role):
                    self.report(began, f"a second turn of {role}, which one turn would hold")
                self.role, self.at = role, began + 1 + len(literal.rest)
                break
        else:
            self.report(began, f"a turn of nobody: the roles are {list(layout.turn_open)}")
            self.role, self.at = "none", began + 1
        self.text_from = self.at
        self.turn_begins = len(self.items)
        self.turn_closed = False

    def close_turn(self) -> None:
        layout, began = self.layout, self.at
        self.flush(began)
        close = layout.turn_close
        if not self.follows(began + 1, close.rest):
            self.report(began + 1, f"{self.control(began)} is not followed by what belongs to it")
            self.at = began + 1
        else:
            self.at = began + 1 + len(close.rest)
        self.text_from = self.at
        empty = len(self.items) == self.turn_begins
        if layout.turn_open:
            if self.role == "none" or empty:
                self.report(began, "the end of a turn that holds nothing")
            self.role = "none"
        elif empty:
            self.report(began, "the end of a turn that holds nothing")
        else:
            role = ("user", "assistant")[self.turns % 2]
            self.items[self.turn_begins :] = [replace(i, role=role) for i in self.items[self.turn_begins :]]
            self.turns += 1
        self.turn_begins = len(self.items)
        self.turn_closed = True

    def end_turns(self, whole: bool) -> None:
        if whole and self.layout.turn_open and self.role != "none":
            self.report(self.at, f"a turn of {self.role} is not closed")
        elif self.layout.turn_open and self.role != "none" and len(self.items) == self.turn_begins:
            self.report(self.at, f"a turn of {self.role} that holds nothing")

    def flush(self, stop: int) -> None:
        """Text up to `stop` that belongs to nothing else is a text item, where texts need no opener."""
        start, self.text_from = self.text_from, max(stop, self.text_from)
        if stop <= start:
            return
        plan = self.layout.kinds.get("text")
        if plan is None or plan.open.mark >= 0:
            self.report(start, f"{stop - start} of {self.text_class} outside an item")
            return
        codes = (self.ids[start:stop] - self.layout.vocabulary["text"].start).astype(np.int32).reshape(-1, 1)
        self.add(Item("text", self.layout.default_codec("text"), codes))

    def add(self, item: Item) -> None:
        self.items.append(replace(item, role=self.role) if self.role != "none" else item)

    # -- which item --------------------------------------------------------------------------------------------------

    def pick(self, plans: list[KindPlan], at: int) -> KindPlan:
        """Which of the kinds that share a mark: the one whose placeholder comes next."""
        if len(plans) == 1:
            return plans[0]
        for place in range(at + 1, min(at + 8, len(self.ids))):
            for plan in plans:
                soft_rule = getattr(self.layout.spec.soft, plan.kind, None)
                if soft_rule and soft_rule.placeholder and self.control(place) == soft_rule.placeholder:
                    return plan
        return plans[0]

    def unmarked(self) -> KindPlan | None:
        """The kind of an item that begins here without a control of its own: by its codes."""
        codec = self.codec_of_class.get(int(self.of[self.at]), -1)
        for plan in self.layout.kinds.values():
            if plan.kind == "text" or plan.open.mark >= 0 or plan.frame_open.mark >= 0 or plan.as_video:
                continue
            has = self.layout.codecs[codec].kind if codec >= 0 else ""
            if has == plan.kind or (plan.kind == "video" and has == "image"):
                return plan
        return None

    def strip(self, lead: tuple[int, ...], at: int, what: str) -> int:
        """Takes the text of a lead off what came before `at`; where the rest ends."""
        if not lead:
            return at
        if at - len(lead) >= self.text_from and self.follows(at - len(lead), lead):
            return at - len(lead)
        self.report(at, f"{what} without the text that stands before it")
        return at

    def expect(self, literal: Literal, what: str) -> bool:
        """Reads the rest of a literal whose mark is here."""
        if self.follows(self.at + 1, literal.rest):
            self.at += 1 + len(literal.rest)
            return True
        self.report(self.at + 1, f"{what} is not followed by what belongs to it")
        self.at += 1
        return False

    # -- items -------------------------------------------------------------------------------------------------------

    def item(self, plan: KindPlan, opened: int) -> None:
        """An item whose open (or first frame, or first code) is here."""
        document = self.layout.spec.document
        if plan.open.mark < 0 and plan.frame_open.mark >= 0:
            self.framed_video(plan)
            return
        self.flush(self.strip(plan.open.lead, opened, plan.kind))
        if plan.open.mark >= 0:
            self.expect(plan.open, plan.kind)
        found = self.inside(plan, opened)
        # A piece may cut any item but an image, and leaves it unclosed.
        cut = plan.kind != "image" and self.control(self.at) == document.continued
        if plan.close.mark >= 0 and self.mark(self.at) == plan.close.mark:
            self.expect(plan.close, f"{plan.kind}'s {self.control(self.at)}")
        elif plan.close.mark >= 0 and not cut and found:
            self.report(self.at, f"{plan.kind} is not closed by {plan.rule.close[0]}")
        for item in found:
            self.add(item)
        self.text_from = self.at

    def inside(self, plan: KindPlan, opened: int) -> list[Item]:
        """Header and body; no items where they cannot be read."""
        h, w = plan.fixed
        if plan.num_sizes or plan.size_text:
            sizes = self.sizes(plan)
            if sizes is None:
                name = plan.rule.open[-1] if plan.rule.open else plan.kind
                self.report(opened, f"{name} without its {'two sizes' if plan.num_sizes else 'size'}")
                self.skip()
                return []
            h, w = sizes
            if not h or not w or (plan.fixed[0] and (h, w) != plan.fixed) or (plan.rule.grid == "square" and h != w):
                self.report(opened + 1, f"{plan.kind} of {h} x {w} codes")
                self.skip()
                return []
        start = end = math.nan
        if plan.num_times and (first := self.time()) is not None:
            start = first
            if plan.num_times == 2 and (second := self.time()) is not None:
                end = second
        sound_start = self.sound_time(plan)
        if len(plan.after_header):
            after = plan.after_header
            if self.follows(self.at, tuple(after.ids.tolist())):
                self.at += len(after)
            else:
                self.report(self.at, f"{plan.kind} without {plan.rule.after_header[0]} after its header")
        soft_rule = getattr(self.layout.spec.soft, plan.kind, None)
        if soft_rule and soft_rule.placeholder:
            if plan.kind == "video" and self.soft_frame_here(plan):
                return self.soft_frames(plan, opened, h, w)
            elif self.control(self.at) == soft_rule.placeholder and plan.kind == "video":
                self.report(self.at, "a frame without its time or its begin")
                self.placeholders(soft_rule.placeholder)
                return []
            elif self.control(self.at) == soft_rule.placeholder:
                return self.soft_body(plan, opened, h, w, start, end)
            if plan.only_soft:
                self.report(self.at, f"no {soft_rule.placeholder} of {plan.kind}")
                self.skip()
                return []
        if plan.kind == "video":
            return self.video(plan, h, w, sound_start)
        if plan.kind == "audio" and self.layout.spec.merge.of == "units":
            return self.units()
        found = self.body(plan, h, w)
        if found is None:
            return []
        codec, codes, h, w = found
        if not len(codes):
            return [replace(self.layout.nothing_of(plan.kind), start_s=start, end_s=end)]
        grid = {"image": (1, h, w), "audio": (len(codes), 0, 0)}.get(plan.kind, (0, 0, 0))
        return [Item(plan.kind, self.codec_name(plan.kind, codec), codes, grid, start, end)]

    def sizes(self, plan: KindPlan) -> tuple[int, int] | None:
        if plan.size_text:
            stop = self.run_end(self.at) if self.name(self.at) == self.text_class else self.at
            found = None
            if 0 < stop - self.at <= _LONGEST_TIME:
                found = plan.size_text.read(self.layout.words.text(self.ids[self.at : stop]))
                if found and not self.follows(self.at, self.layout.words.ids(plan.size_text.write(*found))):
                    found = None
            if found:
                self.at = stop
            return found
        if self.name(self.at) != "size" or self.name(self.at + 1) != "size":
            return None
        base, unit = self.layout.vocabulary["size"].start, plan.rule.size_unit
        self.at += 2
        return (int(self.ids[self.at - 2]) - base) * unit, (int(self.ids[self.at - 1]) - base) * unit

    def time(self) -> float | None:
        """Seconds of the two ids here, or None; half a time is reported by whoever finds it outside an item."""
        if self.name(self.at) != "time_hi" or self.name(self.at + 1) != "time_lo":
            return None
        vocabulary, plan = self.layout.vocabulary, self.layout.spec.vocabulary
        high = int(self.ids[self.at]) - vocabulary["time_hi"].start
        low = int(self.ids[self.at + 1]) - vocabulary["time_lo"].start
        self.at += 2
        return float((high * plan.time_lo + low) * plan.time_quantum_s)

    def sound_time(self, plan: KindPlan) -> float:
        """The start of the sound that is merged with the frames: a time before that of the first frame."""
        if plan.kind != "video" or self.layout.spec.merge.of != "video_audio":
            return math.nan
        began = self.at
        seconds = self.time()
        if seconds is None:
            return math.nan
        sound = self.codec_here("audio") >= 0
        if not sound and not plan.time_text and self.name(self.at) != "time_hi":
            self.at = began  # it is the first frame's own
            return math.nan
        return seconds

    def body(self, plan: KindPlan, h: int, w: int) -> tuple[int, np.ndarray, int, int] | None:
        """(codec, codes int32 [T, K], h, w) of a text, an image, a sound or one frame, which begin here."""
        kind = plan.kind
        codec = self.codec_here(kind)
        if codec < 0:
            if kind in ("image", "video"):
                expected = f"{h * w} should be" if h else "some should be"
                self.report(self.at, f"no codes of {kind} where {expected}")
                self.skip()
                return None
            return codec, np.zeros((0, self.num_codebooks(self.codec_name(kind, codec))), np.int32), h, w
        K = len(self.layout.code_sizes[codec])
        begin = self.at
        if plan.row_end >= 0:
            flat, h, w = self.rows(plan, codec, h, w)
            if flat is None:
                return None
        else:
            stop = self.run_end(begin)
            if kind in ("image", "video") and not h:  # a square, by the number of its codes
                h = w = math.isqrt((stop - begin) // K)
                if h * w * K != stop - begin:
                    self.report(begin, f"{stop - begin} ids are no square of codes of {kind}")
                    self.at = stop
                    return None
            want = h * w if kind in ("image", "video") else 0
            if kind == "video":
                stop = min(begin + want * K, stop)
            checked = self.counted(plan, begin, stop, K, want)
            if checked is None:
                return None
            flat, stop = checked
            self.at = stop
        n = len(flat) // K
        grid = (h, w) if kind in ("image", "video") else (n, 1)
        ordered = restore(flat[None], plan.body, *grid, K)[0]
        local = ordered - self.layout.code_offsets[codec]
        wrong = (local < 0) | (local >= self.layout.code_sizes[codec].astype(np.int64))
        if wrong.any():
            self.report(begin, f"codebooks of {kind} out of turn")
            return None
        return codec, local.astype(np.int32), h, w

    def counted(self, plan: KindPlan, begin: int, stop: int, K: int, want: int) -> tuple[np.ndarray, int] | None:
        """Codes from `begin` on, `want` of them if given; None, reported, where they are not as they should."""
        kind = plan.kind
        have, rest = divmod(stop - begin, K)
        if want and have < want:
            self.report(begin, f"{have} codes of {kind} where {want} should be")
            self.at = stop
            return None
        if want and (have > want or rest):
            self.report(begin + want * K, f"{stop - begin - want * K} ids more than the {want} codes of the {kind}")
            have = want
        elif rest:
            self.report(begin + have * K, f"the last code of {kind} has {rest} of {K} codebooks")
        return self.ids[begin : begin + have * K], stop

    def rows(self, plan: KindPlan, codec: int, h: int, w: int) -> tuple[np.ndarray | None, int, int]:
        """Codes row by row, each followed by its separator; the width is that of the first row where none is given."""
        K, begin = len(self.layout.code_sizes[codec]), self.at
        rows: list[np.ndarray] = []
        while self.codec_here(plan.kind) == codec:
            stop = self.run_end(self.at)
            row = self.ids[self.at : stop]
            w = w or len(row) // K
            if len(row) != w * K or not w or self.mark(stop) != plan.row_end:
                what = f"a row of {len(row)} ids where {w * K} and {plan.rule.row_end} should be"
                self.report(self.at, what)
                self.skip()
                return None, h, w
            rows.append(row)
            self.at = stop + 1
            if h and len(rows) == h:
                break
        if (h and len(rows) != h) or not rows:
            self.report(begin, f"{len(rows)} rows of {plan.kind} where {h} should be")
            return None, h, w
        square = plan.rule.grid == "square" and len(rows) != w
        if square or (plan.fixed[0] and (len(rows), w) != plan.fixed):
            self.report(begin, f"{plan.kind} of {len(rows)} x {w} codes")
            return None, h, w
        return np.concatenate(rows), len(rows), w

    def video(self, plan: KindPlan, h: int, w: int, sound_start: float) -> list[Item]:
        """Frames from here on; a frame that is not whole is reported and left out, with all after it."""
        merge = self.layout.spec.merge.of == "video_audio"
        timed = plan.frame_times and (
            plan.time_text is not None or self.name(self.at) == "time_hi" or not math.isnan(sound_start)
        )
        frames: list[np.ndarray] = []
        sound: list[np.ndarray] = []
        times: list[float] = []
        used = sound_codec = -1
        while self.at < len(self.ids):
            began = self.at
            if merge and (codec := self.codec_here("audio")) >= 0:
                part = self.body(self.layout.kinds["audio"], 0, 0)
                if part is None or math.isnan(sound_start) or sound_codec not in (-1, codec):
                    self.report(began, "sound between frames that has no start")
                    self.skip()
                    break
                sound_codec = codec
                sound.append(part[1])
                continue
            if not self.frame_here(plan):
                break
            found = self.frame(plan, h, w, timed)
            if found is None or (used >= 0 and found[1] != used):
                if found is not None:
                    self.report(began, "no whole frame of the video begins here")
                self.skip()
                break
            seconds, used, codes, h, w = found
            frames.append(codes)
            if timed:
                times.append(seconds)
            if plan.separator >= 0:
                if self.mark(self.at) != plan.separator:
                    break
                self.at += 1
                if self.at == len(self.ids) or not self.frame_here(plan):
                    self.report(self.at, "no whole frame of the video begins here")
        name = self.codec_name("video", used)
        codes = np.concatenate(frames) if frames else np.zeros((0, self.num_codebooks(name)), np.int32)
        if self.layout.reads_as_image(len(frames), name):
            return [Item("image", name, codes, (1, h, w))]
        if not frames and not plan.marked:
            return []
        items = [Item("video", name, codes, (len(frames), h, w), times=np.array(times, np.float32))]
        if sound:
            joined = np.concatenate(sound)
            items.append(
                Item("audio", self.layout.codecs[sound_codec].name, joined, (len(joined), 0, 0), start_s=sound_start)
            )
        elif not math.isnan(sound_start):
            self.report(self.at, "the start of a sound that does not come")
        if not self._thinned(plan, times):
            self.report(self.at, f"frames closer than {1 / plan.rule.max_rate:g} s")
        return items

    def _thinned(self, plan: KindPlan, times: list[float]) -> bool:
        shown = self.layout.shown_frames(np.array(times, np.float32)) if times else None
        return shown is None or bool(shown.all())

    def frame_here(self, plan: KindPlan) -> bool:
        """Whether something that wants to be a frame begins here."""
        if plan.frame_open.mark >= 0 and self.mark(self.at) == plan.frame_open.mark:
            return True
        return not self.control(self.at)

    def frame(self, plan: KindPlan, h: int, w: int, timed: bool) -> tuple[float, int, np.ndarray, int, int] | None:
        """(seconds, codec, codes, h, w) of the frame here, None, reported, where there is no whole one."""
        began = self.at
        seconds = math.nan
        if timed:
            found = self.time_in_words(plan) if plan.time_text else self.time()
            if found is None:
                self.report(began, "no whole frame of the video begins here")
                return None
            seconds = found
        if len(plan.frame_open):
            if self.mark(self.at) != plan.frame_open.mark:
                self.report(self.at, "no whole frame of the video begins here")
                return None
            self.expect(plan.frame_open, "a frame's begin")
        if self.codec_here("video") < 0:
            self.report(began, "no whole frame of the video begins here")
            return None
        body = self.body(plan, h, w)
        if body is None:
            return None
        if len(plan.frame_close):
            if self.mark(self.at) != plan.frame_close.mark:
                self.report(self.at, "a frame is not closed")
                return None
            self.expect(plan.frame_close, "a frame's end")
        return seconds, *body

    def time_in_words(self, plan: KindPlan) -> float | None:
        """A time written as text, which is all the text here."""
        if self.name(self.at) != self.text_class:
            return None
        stop = self.run_end(self.at)
        step = self.step_of(plan, self.at, stop)
        if step is None:
            return None
        self.at = stop
        return step * self.layout.frame_quantum_s

    def step_of(self, plan: KindPlan, start: int, stop: int) -> int | None:
        """The time step that exactly the ids start .. stop spell."""
        assert plan.time_text is not None
        if not 0 < stop - start <= _LONGEST_TIME:
            return None
        step = plan.time_text.read(self.layout.words.text(self.ids[start:stop]))
        if step is None or not self.follows(start, self.layout.words.ids(plan.time_text.write(step))):
            return None
        return step

    def framed_video(self, plan: KindPlan) -> None:
        """One frame (or group of frames) with delimiters of its own; `kept.joined` makes a video of them."""
        seconds = math.nan
        stop = self.strip(plan.frame_open.lead, self.at, "a frame")
        if plan.frame_times and plan.time_text:
            step = None
            for start in range(max(self.text_from, stop - _LONGEST_TIME), stop):
                if (step := self.step_of(plan, start, stop)) is not None:
                    stop = start
                    break
            if step is None:
                self.report(stop, "a frame without its time")
            else:
                seconds = step * self.layout.frame_quantum_s
        self.flush(stop)
        self.expect(plan.frame_open, "a frame's begin")
        soft_rule = self.layout.spec.soft.video
        item = None
        if soft_rule.placeholder and self.control(self.at) == soft_rule.placeholder:
            count = self.placeholders(soft_rule.placeholder)
            grid = kept.soft_video_grid(self.layout, plan, 1, 1, count)
            item = Item("video", "", None, grid)
        elif plan.only_soft:
            self.report(self.at, f"no {soft_rule.placeholder} of {plan.kind}")
            self.skip()
        elif (found := self.body(plan, *plan.fixed)) is not None:
            codec, codes, h, w = found
            item = Item("video", self.codec_name("video", codec), codes, (1, h, w))
        if plan.frame_close.mark >= 0 and self.mark(self.at) == plan.frame_close.mark:
            self.expect(plan.frame_close, "a frame's end")
        elif len(plan.frame_close):
            self.report(self.at, "a frame is not closed")
        if item is not None and not (plan.frame_times and math.isnan(seconds)):
            if plan.frame_times:
                item = replace(item, times=np.full(item.grid[0], seconds, np.float32))
            self.add(item)
        self.text_from = self.at

    def units(self) -> list[Item]:
        """Codes of several audio codecs, one unit after the other, on one clock."""
        codes: dict[int, list[np.ndarray]] = {}
        member: list[int] = []
        while (codec := self.codec_here("audio")) >= 0:
            begin, self.at = self.at, self.run_end(self.at)
            K = len(self.layout.code_sizes[codec])
            have, rest = divmod(self.at - begin, K)
            if rest:
                self.report(begin + have * K, f"the last code of audio has {rest} of {K} codebooks")
            local = self.ids[begin : begin + have * K].reshape(have, K) - self.layout.code_offsets[codec]
            if ((local < 0) | (local >= self.layout.code_sizes[codec].astype(np.int64))).any():
                self.report(begin, "codebooks of audio out of turn")
                continue
            codes.setdefault(codec, []).append(local.astype(np.int32))
            member += [list(codes).index(codec)] * have
        if not member:
            return [self.layout.nothing_of("audio")]
        names = [self.layout.codecs[codec].name for codec in codes]
        joined = [np.concatenate(parts) for parts in codes.values()]
        items, self.clock_s = kept.unit_streams(self.layout, names, joined, np.array(member), self.clock_s)
        return items

    def soft_body(self, plan: KindPlan, opened: int, h: int, w: int, start: float, end: float) -> list[Item]:
        rule = self.layout.spec.soft
        count = self.placeholders(getattr(rule, plan.kind).placeholder)
        if plan.kind == "audio":
            grid = (count * soft.samples_a_position(rule), 0, 0)
        else:
            if plan.num_sizes or plan.size_text:
                want = h * w
            elif rule.image.size:
                high, wide = kept.soft_image_grid(self.layout, plan, 0, 0)[1:]
                h, w = -(-high // rule.image.patch), -(-wide // rule.image.patch)
                want = h * w
            else:
                h, w, want = 1, count, count
            if count != want:
                said = f"{h} x {w}"
                self.report(opened, f"{count} placeholders for an image of {said}")
                return []
            grid = kept.soft_image_grid(self.layout, plan, h, w)
        return [Item(plan.kind, "", None, grid, start, end)]

    def soft_frame_here(self, plan: KindPlan) -> bool:
        """Whether a placeholder of a video comes next, behind the time and the delimiter of its frame."""
        at = self.at
        if plan.frame_times:
            at = self.run_end(at) if plan.time_text else at + 2
        if plan.frame_open.mark >= 0:
            at += len(plan.frame_open)
        return self.control(at) == self.layout.spec.soft.video.placeholder

    def soft_frames(self, plan: KindPlan, opened: int, h: int, w: int) -> list[Item]:
        """Groups of merged frames, each with its time and delimiters where the layout writes them."""
        rule = self.layout.spec.soft.video
        framed = len(plan.frame_open) or plan.frame_times
        counts: list[int] = []
        times: list[float] = []
        while self.soft_frame_here(plan):
            began = self.at
            if plan.frame_times:
                seconds = self.time_in_words(plan) if plan.time_text else self.time()
                if seconds is None:
                    self.report(began, "a frame without its time")
                    self.skip()
                    return []
                times.append(seconds)
            if plan.frame_open.mark >= 0:
                self.expect(plan.frame_open, "a frame's begin")
            counts.append(self.placeholders(rule.placeholder))
            if plan.frame_close.mark >= 0:
                if self.mark(self.at) != plan.frame_close.mark:
                    self.report(self.at, "a frame is not closed")
                    return []
                self.expect(plan.frame_close, "a frame's end")
            if not framed:
                break
        sized = bool(plan.num_sizes or plan.size_text)
        if not framed and sized:
            counts = [h * w] * (counts[0] // (h * w)) if counts[0] % (h * w) == 0 else [counts[0]]
        if len(set(counts)) > 1 or (sized and counts[0] != h * w):
            self.report(opened, f"{sorted(set(counts))} placeholders a frame of {h} x {w}")
            return []
        grid = kept.soft_video_grid(self.layout, plan, len(counts), *((h, w) if sized else (1, counts[0])))
        return [Item("video", "", None, grid, times=np.repeat(np.array(times, np.float32), rule.frames))]

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
