"""From ids back to items: a reader of rows that never fails, for rows a model wrote may say anything.

Works on runs of tokens of one class (text, one codec, control, size, time), so it costs Python an item and a frame, not
a token. What cannot be understood is reported with its place and left out; reading goes on at the next control.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tokenizer.item import Item
from tokenizer.row import Problem

if TYPE_CHECKING:
    from tokenizer.layout import Layout

_NOWHERE = -1


def parse(layout: Layout, ids: np.ndarray) -> tuple[list[Item], list[Problem]]:
    """[<bos>, <text>, 7, 9, <eos>] -> ([Item text 7 9], []); see Layout.parse."""
    flat = np.asarray(ids).reshape(-1)
    if flat.size and flat.dtype.kind not in "iu":
        return [], [Problem(0, "not an array of integers")]
    # An unsigned id past int64 turns negative, and is outside the vocabulary either way.
    flat = flat.astype(np.int64)
    reader = _Reader(layout, flat)
    reader.row()
    return reader.items, reader.problems


@dataclass(eq=False)
class _Reader:
    """A place in the ids, and what has been found so far."""

    layout: Layout
    ids: np.ndarray  # int64 [n]
    at: int = 0
    items: list[Item] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        layout, vocabulary = self.layout, self.layout.vocabulary
        groups = [r.group if r.name not in ("time_hi", "time_lo") else r.name for r in vocabulary.ranges]
        self.classes = sorted(set(groups))
        class_of = np.array([*(self.classes.index(g) for g in groups), _NOWHERE], np.int32)
        self.of = class_of[vocabulary.range_index(self.ids)]  # class of each token
        changes = np.flatnonzero(self.of[1:] != self.of[:-1]) + 1 if len(self.of) else np.zeros(0, np.int64)
        self.bounds = np.concatenate([changes, [len(self.of)]])
        self.names = {id: name for name, id in layout.controls.items()}
        self.codec_of_class = {self.classes.index(c.name): i for i, c in enumerate(layout.codecs)}
        self.openers = {layout.spec.rule(kind).open: kind for kind in layout.kinds}

    # -- looking -----------------------------------------------------------------------------------------------------

    def name(self, at: int) -> str:
        """The class of a token, "" past the end or outside the vocabulary."""
        return self.classes[self.of[at]] if at < len(self.of) and self.of[at] >= 0 else ""

    def control(self, at: int) -> str:
        """The control at a place, "" where there is none; a reserved place is called by its id."""
        return self.names.get(int(self.ids[at]), f"id {self.ids[at]}") if self.name(at) == "control" else ""

    def run_end(self, at: int) -> int:
        """Where the run of tokens of one class around `at` ends."""
        return int(self.bounds[np.searchsorted(self.bounds, at, "right")]) if at < len(self.of) else at

    def report(self, at: int, what: str) -> None:
        self.problems.append(Problem(int(at), what))

    # -- reading -----------------------------------------------------------------------------------------------------

    def row(self) -> None:
        document, n = self.layout.spec.document, len(self.ids)
        if self.control(0) in (document.begin, document.continued):
            self.at = 1
        else:
            self.report(0, f"does not begin with {document.begin} or {document.continued}")
        while self.at < n:
            control = self.control(self.at)
            if control in self.openers:
                self.item(self.openers[control])
            elif control in (document.end, document.continued):
                rest = self.ids[self.at + 1 :] != self.layout.controls[document.padding]
                if rest.any():
                    self.report(self.at + 1 + int(np.argmax(rest)), f"ids after {control}, which ends the row")
                return
            elif control:
                self.report(self.at, f"{control} does not belong here")
                self.at += 1
            else:
                end = self.run_end(self.at)
                what = self.name(self.at) or "ids outside the vocabulary"
                self.report(self.at, f"{end - self.at} of {what} outside an item")
                self.at = end
        self.report(n, f"does not end with {document.end} or {document.continued}")

    def item(self, kind: str) -> None:
        opened, rule = self.at, self.layout.spec.rule(kind)
        self.at += 1
        h = w = 0
        if rule.header == "two_sizes":
            sizes = self.sizes()
            if sizes is None:
                self.report(opened, f"{rule.open} without its two sizes")
                return
            h, w = sizes
            if not h or not w:
                self.report(opened + 1, f"{kind} of {h} x {w} codes")
                return
        start = end = float("nan")
        if rule.times in ("start", "start_end") and (first := self.time()) is not None:
            start = first
            if rule.times == "start_end" and (second := self.time()) is not None:
                end = second
        found = self.video(h, w) if kind == "video" else self.body(kind, opened, h, w, start, end)
        document = self.layout.spec.document
        # A piece may cut any item but an image, and leaves it unclosed.
        cut = kind != "image" and self.control(self.at) == document.continued
        if rule.close and self.control(self.at) == rule.close:
            self.at += 1
        elif rule.close and not cut and found is not None:
            self.report(self.at, f"{kind} is not closed by {rule.close}")
        if found is not None:
            self.items.append(found)

    def sizes(self) -> tuple[int, int] | None:
        if self.name(self.at) != "size" or self.name(self.at + 1) != "size":
            return None
        base = self.layout.vocabulary["size"].start
        self.at += 2
        return int(self.ids[self.at - 2]) - base, int(self.ids[self.at - 1]) - base

    def time(self) -> float | None:
        """Seconds of the two ids here, or None; half a time is reported by whoever finds it outside an item."""
        if self.name(self.at) != "time_hi" or self.name(self.at + 1) != "time_lo":
            return None
        vocabulary, plan = self.layout.vocabulary, self.layout.spec.vocabulary
        high = int(self.ids[self.at]) - vocabulary["time_hi"].start
        low = int(self.ids[self.at + 1]) - vocabulary["time_lo"].start
        self.at += 2
        return float((high * plan.time_lo + low) * plan.time_quantum_s)

    def body(self, kind: str, opened: int, h: int, w: int, start: float, end: float) -> Item | None:
        """The codes of a text, an image or a sound, which begin here."""
        soft = self.layout.spec.soft
        if soft.placeholder and self.control(self.at) == soft.placeholder and kind in ("image", "audio"):
            return self.soft_body(kind, opened, h, w, start, end)
        codec, stop = self.codec_here(kind), self.run_end(self.at)
        if codec < 0:
            stop = self.at
        want = h * w if kind == "image" else None
        codes = self.codes(kind, codec, stop, want)
        if codes is None:
            return None
        grid = (1, h, w) if kind == "image" else (len(codes), 0, 0) if kind == "audio" else (0, 0, 0)
        return Item(kind, self.codec_name(kind, codec), codes, grid, start, end)

    def soft_body(self, kind: str, opened: int, h: int, w: int, start: float, end: float) -> Item | None:
        soft = self.layout.spec.soft
        same = self.ids[self.at :] == self.layout.controls[soft.placeholder]
        count = len(same) if same.all() else int(np.argmin(same))
        self.at += count
        if kind == "image" and count != h * w:
            self.report(opened, f"{count} placeholders for an image of {h} x {w}")
            return None
        grid = (1, h * soft.patch, w * soft.patch) if kind == "image" else (count * soft.samples, 0, 0)
        return Item(kind, "", None, grid, start, end)

    def video(self, h: int, w: int) -> Item:
        """Frames from here on; a frame that is not whole is reported and left out, with all after it."""
        timed = self.layout.spec.video.times == "frames" and self.name(self.at) == "time_hi"
        frames: list[np.ndarray] = []
        times: list[float] = []
        used = -1
        while not self.control(self.at) and self.at < len(self.ids):
            began = self.at
            seconds = self.time() if timed else None
            codec = self.codec_here("video")
            if (timed and seconds is None) or codec < 0 or (used >= 0 and codec != used):
                self.report(began, "no whole frame of the video begins here")
                self.skip_to_control()
                break
            per_frame = h * w * len(self.layout.code_sizes[codec])
            stop = min(self.at + per_frame, self.run_end(self.at))
            codes = self.codes("video", codec, stop, h * w)
            if codes is None:
                self.skip_to_control()
                break
            used = codec
            frames.append(codes)
            if seconds is not None:
                times.append(seconds)
        codec_name = self.codec_name("video", used)
        empty = np.zeros((0, self.num_codebooks(codec_name)), np.int32)
        codes = np.concatenate(frames) if frames else empty
        return Item("video", codec_name, codes, (len(frames), h, w), times=np.array(times, np.float32))

    def codes(self, kind: str, codec: int, stop: int, want: int | None) -> np.ndarray | None:  # int32 [T, K]
        """Local codes up to `stop`, `want` rows of them if given; None, reported, where they are not as they should."""
        begin, self.at = self.at, stop
        if codec < 0 and not want:
            return np.zeros((0, self.num_codebooks(self.codec_name(kind, codec))), np.int32)
        if codec < 0:
            self.report(begin, f"no codes of {kind} where {want} should be")
            return None
        offsets, sizes = self.layout.code_offsets[codec], self.layout.code_sizes[codec].astype(np.int64)
        K = len(offsets)
        have, rest = divmod(stop - begin, K)
        if want is not None and have < want:
            self.report(begin, f"{have} codes of {kind} where {want} should be")
            return None
        if want is not None and (have > want or rest):
            self.report(begin + want * K, f"{stop - begin - want * K} ids more than the {want} codes of the {kind}")
            have = want
        elif rest:
            self.report(begin + have * K, f"the last code of {kind} has {rest} of {K} codebooks")
        local = self.ids[begin : begin + have * K].reshape(have, K) - offsets
        wrong = (local < 0) | (local >= sizes)
        if wrong.any():
            self.report(begin + int(np.argmax(wrong.reshape(-1))), f"codebooks of {kind} out of turn")
            return None
        return local.astype(np.int32)

    def skip_to_control(self) -> None:
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
        return len(self.layout.code_sizes[self.layout.codec_index[codec]]) if codec else 1
