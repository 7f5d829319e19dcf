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

from tokenizer import kept, streams
from tokenizer.cursor import Cursor
from tokenizer.item import Item
from tokenizer.read_items import LONGEST_TIME, read_body, read_inside, step_of
from tokenizer.render import task_of
from tokenizer.row import Problem

if TYPE_CHECKING:
    from tokenizer.layout import KindPlan, Layout

_LOOK_AHEAD = 8  # controls and runs between the mark of an item and its first placeholder, at most


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
    reader = _Reader(layout, Cursor(layout, array.reshape(-1)))
    reader.row()
    return kept.joined(layout, reader.items), reader.cursor.problems


@dataclass(eq=False)
class _Reader:
    """Reads a row: its begin and end, its turns, which item comes next, and text that belongs to no other."""

    layout: Layout
    cursor: Cursor
    text_from: int = 0  # text up to the cursor which no item has yet
    items: list[Item] = field(default_factory=list)
    role: str = "none"
    turn_begins: int = 0  # first item since the last close of a turn
    turn_closed: bool = True
    turns: int = 0  # closed so far, where the layout does not name roles

    def __post_init__(self) -> None:
        self.marks: dict[int, list[KindPlan]] = {}
        for plan in self.layout.kinds.values():
            if plan.as_video:
                continue  # the video's rule reads it
            for literal in (plan.open, plan.frame_open):
                if literal.mark >= 0 and plan not in self.marks.setdefault(literal.mark, []):
                    self.marks[literal.mark].append(plan)
                if literal.mark >= 0 and literal is plan.open:
                    break  # its frames begin inside of it

    def row(self) -> None:
        cursor = self.cursor
        document, n = self.layout.spec.document, len(cursor.ids)
        task = self.beginning()
        self.text_from = cursor.at
        before = -1
        while cursor.at < n:
            assert cursor.at > before, "the reader stands still"  # a bug of ours: never loop
            before = cursor.at
            control = cursor.control(cursor.at)
            if control and control in (document.end, document.continued):
                self.flush(cursor.at)
                self.end_turns(control == document.end)
                rest = cursor.ids[cursor.at + 1 :] != self.layout.controls[document.padding]
                if rest.any():
                    cursor.report(cursor.at + 1 + int(np.argmax(rest)), f"ids after {control}, which ends the row")
                if control == document.end:
                    self.check_task(task)
                return
            if control:
                self.at_control()
            elif cursor.name(cursor.at) == cursor.text_class:
                cursor.at = cursor.run_end(cursor.at)
            elif (plan := self.unmarked()) is not None:
                self.item(plan, cursor.at)
            else:
                self.flush(cursor.at)
                end = cursor.run_end(cursor.at)
                what = cursor.name(cursor.at) or "ids outside the vocabulary"
                cursor.report(cursor.at, f"{end - cursor.at} of {what} outside an item")
                cursor.at = self.text_from = end
        self.flush(cursor.at)
        self.end_turns(True)
        if n == 1 and cursor.control(0) == document.continued:
            return  # a piece of which a choice left nothing
        if document.end:
            cursor.report(n, f"does not end with {document.end} or {document.continued}")
        else:
            self.check_task(task)

    def beginning(self) -> int:
        """Reads how the row begins; the task control, -1 none, -2 of a piece that has none."""
        cursor = self.cursor
        document = self.layout.spec.document
        if cursor.control(0) == document.continued:
            cursor.at = 1
            return -2
        if document.begin:
            if cursor.control(0) != document.begin:
                cursor.report(0, f"does not begin with {document.begin} or {document.continued}")
            else:
                cursor.at = 1
        task = cursor.mark(cursor.at)
        if self.layout.tasks and task >= 0 and task in self.layout.tasks:
            cursor.at += 1
            return task
        return -1

    def check_task(self, task: int) -> None:
        """A whole document's task is that of its items."""
        cursor = self.cursor
        want = task_of(self.layout, [item.kind for item in self.items])
        if task >= -1 and task != want:
            said = cursor.names.get(want, "no task control")
            cursor.report(0, f"begins with {cursor.names.get(task, 'no task control')} where {said} belongs")

    def at_control(self) -> None:
        """A control that is no end of the row."""
        cursor = self.cursor
        layout, id = self.layout, cursor.mark(cursor.at)
        if id in self.marks:
            self.item(self.pick(self.marks[id], cursor.at), cursor.at)
        elif layout.turn_open and id == next(iter(layout.turn_open.values())).mark:
            self.open_turn()
        elif layout.turn_close.mark >= 0 and id == layout.turn_close.mark:
            self.close_turn()
        else:
            self.flush(cursor.at)
            cursor.report(cursor.at, f"{cursor.control(cursor.at)} does not belong here")
            cursor.at += 1
            self.text_from = cursor.at

    def open_turn(self) -> None:
        cursor = self.cursor
        layout, began = self.layout, cursor.at
        self.flush(began)
        if self.role != "none":
            cursor.report(began, f"a turn of {self.role} is not closed")
        for role, literal in layout.turn_open.items():
            if cursor.follows(began + 1, literal.rest):
                if role == self.role or (self.items and not self.turn_closed and self.items[-1].role == role):
                    cursor.report(began, f"a second turn of {role}, which one turn would hold")
                self.role, cursor.at = role, began + 1 + len(literal.rest)
                break
        else:
            cursor.report(began, f"a turn of nobody: the roles are {list(layout.turn_open)}")
            self.role, cursor.at = "none", began + 1
        self.text_from = cursor.at
        self.turn_begins = len(self.items)
        self.turn_closed = False

    def close_turn(self) -> None:
        cursor = self.cursor
        layout, began = self.layout, cursor.at
        self.flush(began)
        close = layout.turn_close
        if not cursor.follows(began + 1, close.rest):
            cursor.report(began + 1, f"{cursor.control(began)} is not followed by what belongs to it")
            cursor.at = began + 1
        else:
            cursor.at = began + 1 + len(close.rest)
        self.text_from = cursor.at
        empty = len(self.items) == self.turn_begins
        if layout.turn_open:
            if self.role == "none" or empty:
                cursor.report(began, "the end of a turn that holds nothing")
            self.role = "none"
        elif empty:
            cursor.report(began, "the end of a turn that holds nothing")
        else:
            role = ("user", "assistant")[self.turns % 2]
            self.items[self.turn_begins :] = [replace(i, role=role) for i in self.items[self.turn_begins :]]
            self.turns += 1
        self.turn_begins = len(self.items)
        self.turn_closed = True

    def end_turns(self, whole: bool) -> None:
        cursor = self.cursor
        if whole and self.layout.turn_open and self.role != "none":
            cursor.report(cursor.at, f"a turn of {self.role} is not closed")
        elif self.layout.turn_open and self.role != "none" and len(self.items) == self.turn_begins:
            cursor.report(cursor.at, f"a turn of {self.role} that holds nothing")

    def flush(self, stop: int) -> None:
        """Text up to `stop` that belongs to nothing else is a text item, where texts need no opener."""
        cursor = self.cursor
        start, self.text_from = self.text_from, max(stop, self.text_from)
        if stop <= start:
            return
        plan = self.layout.kinds.get("text")
        if plan is None or plan.open.mark >= 0:
            cursor.report(start, f"{stop - start} of {cursor.text_class} outside an item")
            return
        codes = (cursor.ids[start:stop] - self.layout.vocabulary["text"].start).astype(np.int32).reshape(-1, 1)
        self.add(Item("text", self.layout.default_codec("text"), codes))

    def add(self, item: Item) -> None:
        self.items.append(replace(item, role=self.role) if self.role != "none" else item)

    def pick(self, plans: list[KindPlan], at: int) -> KindPlan:
        """Which of the kinds that share a mark: the one whose placeholder comes next, behind sizes and times."""
        cursor, place = self.cursor, at + 1
        for _ in range(_LOOK_AHEAD if len(plans) > 1 else 0):
            for plan in plans:
                if cursor.control(place) == getattr(self.layout.spec.soft, plan.kind).placeholder:
                    return plan
            place = place + 1 if cursor.control(place) else cursor.run_end(place)
        return plans[0]

    def unmarked(self) -> KindPlan | None:
        """The kind of an item that begins here without a control of its own: by its codes."""
        cursor = self.cursor
        codec = cursor.codec_of_class.get(int(cursor.of[cursor.at]), -1)
        for plan in self.layout.kinds.values():
            if plan.kind == "text" or plan.open.mark >= 0 or plan.frame_open.mark >= 0 or plan.as_video:
                continue
            has = self.layout.codecs[codec].kind if codec >= 0 else ""
            if has == plan.kind or (plan.kind == "video" and has == "image"):
                return plan
        return None

    def strip(self, lead: tuple[int, ...], at: int, what: str) -> int:
        """Takes the text of a lead off what came before `at`; where the rest ends."""
        cursor = self.cursor
        if not lead:
            return at
        if at - len(lead) >= self.text_from and cursor.follows(at - len(lead), lead):
            return at - len(lead)
        cursor.report(at, f"{what} without the text that stands before it")
        return at

    def item(self, plan: KindPlan, opened: int) -> None:
        """An item whose open (or first frame, or first code) is here."""
        cursor = self.cursor
        document = self.layout.spec.document
        if plan.open.mark < 0 and plan.frame_open.mark >= 0:
            self.framed_video(plan)
            return
        self.flush(self.strip(plan.open.lead, opened, plan.kind))
        if plan.open.mark >= 0:
            cursor.expect(plan.open, plan.kind)
        found = read_inside(cursor, plan, opened)
        # A piece may cut any item but an image, and leaves it unclosed.
        cut = plan.kind != "image" and cursor.control(cursor.at) == document.continued
        if plan.close.mark >= 0 and cursor.mark(cursor.at) == plan.close.mark:
            cursor.expect(plan.close, f"{plan.kind}'s {cursor.control(cursor.at)}")
        elif plan.close.mark >= 0 and not cut and found:
            cursor.report(cursor.at, f"{plan.kind} is not closed by {plan.rule.close[0]}")
        for item in found:
            self.add(item)
        self.text_from = cursor.at

    def framed_video(self, plan: KindPlan) -> None:
        """One frame (or group of frames) with delimiters of its own; `kept.joined` makes a video of them."""
        cursor = self.cursor
        seconds = math.nan
        stop = self.strip(plan.frame_open.lead, cursor.at, "a frame")
        if plan.frame_times and plan.time_text:
            step = None
            for start in range(max(self.text_from, stop - LONGEST_TIME), stop):
                if (step := step_of(cursor, plan, start, stop)) is not None:
                    stop = start
                    break
            if step is None:
                cursor.report(stop, "a frame without its time")
            else:
                seconds = step * self.layout.frame_quantum_s
        self.flush(stop)
        cursor.expect(plan.frame_open, "a frame's begin")
        soft_rule = self.layout.spec.soft.video
        item = None
        if soft_rule.placeholder and cursor.control(cursor.at) == soft_rule.placeholder:
            count = cursor.placeholders(soft_rule.placeholder)
            grid = kept.soft_video_grid(self.layout, plan, 1, 1, count)
            item = Item("video", "", None, grid)
        elif plan.only_soft:
            cursor.report(cursor.at, f"no {soft_rule.placeholder} of {plan.kind}")
            cursor.skip()
        elif (found := read_body(cursor, plan, *plan.fixed)) is not None:
            codec, codes, h, w = found
            item = Item("video", cursor.codec_name("video", codec), codes, (1, h, w))
        if plan.frame_close.mark >= 0 and cursor.mark(cursor.at) == plan.frame_close.mark:
            cursor.expect(plan.frame_close, "a frame's end")
        elif len(plan.frame_close):
            cursor.report(cursor.at, "a frame is not closed")
        if item is not None and not (plan.frame_times and math.isnan(seconds)):
            if plan.frame_times:
                item = replace(item, times=np.full(item.grid[0], seconds, np.float32))
            self.add(item)
        self.text_from = cursor.at
