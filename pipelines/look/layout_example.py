"""A short document made for a layout: an item of every kind that it writes, bound to codecs, rendered.

Texts go through the real text codec; codes of pictures and sound are made up (nothing is encoded), and so are kept
media of soft items, which are black and silent. Codecs are the shipped ones; where a layout wants what none of them is
(several codebooks in parallel streams, several codecs on one clock), codecs are made up too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tokenizer.codec import CodecSpec, spec_of
from tokenizer.codecs import CODECS, load_codec
from tokenizer.grammar import LayoutSpec, TurnRule
from tokenizer.item import Item
from tokenizer.layout import Choice, Layout, Row, bind
from tokenizer.soft import samples_a_position

SHIPPED = {"text": "text-spm16k", "image": "image-fsq16", "audio": "speech-melfsq"}

# As Mimi, for parallel streams; as SpiRit-LM's, for units on one clock: (codebook sizes, codes a second).
_PARALLEL = CodecSpec("made-up-mimi@1", "audio", (2048,) * 8, "", False, 12.5)
_UNITS = (
    CodecSpec("made-up-style@1", "audio", (100,), "", False, 1.0),
    CodecSpec("made-up-pitch@1", "audio", (64,), "", False, 12.5),
    CodecSpec("made-up-hubert@1", "audio", (501,), "", False, 24.99),
)
_UNIT_TIMES = ((0.0,), (0.0, 0.16, 0.32), (0.0, 0.04, 0.12, 0.16, 0.24, 0.32))  # repeated units are left out
_SIDES = (2, 3)  # codes, or soft positions, down and across
_FRAMES = 2  # of a video; of a soft one, positions in time


@dataclass(frozen=True, eq=False)
class Bound:
    """A layout over codecs that show it."""

    layout: Layout
    text: Any  # the text codec: encode, token_bytes
    made_up: tuple[str, ...]  # names of those that are no shipped codecs
    other_text: str  # the text codec that the layout names, where it is no shipped one; else ""


@dataclass(frozen=True, eq=False)
class Example:
    """A document and its row."""

    items: list[Item]
    choice: Choice
    row: Row
    problems: list[str]  # what parsing the row says


def bind_shown(spec: LayoutSpec) -> Bound:
    """The layout over the shipped codecs, or over made up ones where it needs others."""
    other = "" if spec.text_codec in ("", *CODECS) else spec.text_codec
    spec = replace(spec, text_codec="") if other else spec
    text = load_codec(spec.text_codec or SHIPPED["text"])
    made_up: tuple[CodecSpec, ...] = ()
    if spec.streams.sounds:
        made_up = (_PARALLEL,)
    elif spec.merge.of == "units":
        made_up = _UNITS
    codecs = [spec_of(text), spec_of(load_codec(SHIPPED["image"]))]
    codecs += made_up or (spec_of(load_codec(SHIPPED["audio"])),)
    layout = bind(spec, codecs, text)
    kinds = {"image" if kind == "video" else kind for kind in layout.kinds if writes_codes(layout, kind)}
    wanted = {"text", *kinds, *(c.kind for c in made_up)}
    layout = bind(spec, [c for c in codecs if c.kind in wanted], text)
    return Bound(layout, text, tuple(c.name for c in made_up), other)


def writes_codes(layout: Layout, kind: str) -> bool:
    """Whether a layout takes items of a kind in codes, soft ones or not."""
    return kind in layout.kinds and not layout.kinds[kind].only_soft


def example(bound: Bound) -> Example:
    """The document that shows a layout, with the choices of seed 0."""
    layout = bound.layout
    draft = _Draft(layout, bound.text)
    items = draft.streams() if layout.spec.streams.sounds else draft.document()
    choice = layout.choose(items, 0, "example", 0)
    row = layout.render(items, choice, media=_medium)
    problems = [f"{problem.what} (token {problem.position})" for problem in layout.parse(row.tokens)[1]]
    return Example(items, choice, row, problems)


def picture_grid(layout: Layout, kind: str, sides: tuple[int, int]) -> tuple[int, int]:
    """(h, w) in codes, the nearest to `sides` that the layout writes: (2, 3) -> (2, 2) where it wants squares."""
    plan = layout.kinds[kind]
    if plan.fixed[0]:
        return plan.fixed
    h, w = sides
    if plan.num_sizes:
        unit = plan.rule.size_unit
        most = (layout.spec.vocabulary.sizes - 1) * unit
        h, w = (max(min(-(-side // unit) * unit, most), unit) for side in (h, w))
    return (h, h) if plan.rule.grid == "square" else (h, w)


def made_codes(layout: Layout, codec: str, num: int) -> np.ndarray:  # int32 [num, K]
    """Codes of no meaning, the same each time, inside their codebooks."""
    sizes = layout.code_sizes[layout.codec_index[codec]].astype(np.int64)
    numbers = np.arange(1, num * len(sizes) + 1).reshape(num, len(sizes))
    return (numbers * 7919 % sizes).astype(np.int32)


def hard_video(layout: Layout, times: np.ndarray, sides: tuple[int, int], **fields: Any) -> Item:
    """A video of frames at these seconds."""
    h, w = picture_grid(layout, "video", sides)
    codec = layout.default_codec("video")
    codes = made_codes(layout, codec, len(times) * h * w)
    return Item("video", codec, codes, (len(times), h, w), times=times.astype(np.float32), **fields)


def hard_image(layout: Layout, sides: tuple[int, int], **fields: Any) -> Item:
    h, w = picture_grid(layout, "image", sides)
    codec = layout.default_codec("image")
    return Item("image", codec, made_codes(layout, codec, h * w), (1, h, w), **fields)


def hard_sound(layout: Layout, seconds: float, **fields: Any) -> Item:
    """A sound from second 0 on."""
    codec = layout.default_codec("audio")
    num = round(seconds * layout.rate(codec, 0, 0.0, seconds))
    return Item("audio", codec, made_codes(layout, codec, num), (num, 0, 0), 0.0, seconds, **fields)


@dataclass(frozen=True)
class _Draft:
    """Makes items for one layout."""

    layout: Layout
    text: Any

    def document(self) -> list[Item]:
        """A sound and what it says, a video with its sound, then a text and its picture."""
        roles = self.layout.spec.turns != TurnRule()
        user = {"role": "user"} if roles else {}
        assistant = {"role": "assistant"} if roles else {}
        items = self._sounds(user)
        if items:
            items += self._words("Hello.", start_s=0.5, end_s=1.2, **user)
        items += self._videos(user)
        items += self._soft("image", user)
        if writes_codes(self.layout, "image"):
            return items + (self._words("Draw it.", **user) if roles else []) + self._pair(assistant)
        if roles:
            return items + self._words("What is it?", **user) + self._words("A cat.", **assistant)
        return items if any(item.kind == "text" for item in items) else items + self._words("A cat.")

    def streams(self) -> list[Item]:
        """A text of two words at their times, and as many sounds as there are streams, each shorter than the last."""
        layout = self.layout
        codec = layout.default_codec("audio")
        rate = layout.rate(codec, 0, 0.0, 1.0) or layout.spec.streams.rate
        items = self._words("Hi.", unit_times=np.array([[1 / rate, 4 / rate]], np.float32))
        for number in range(layout.spec.streams.sounds if "audio" in layout.kinds else 0):
            codes = made_codes(layout, codec, max(4 - number, 1))
            items.append(Item("audio", codec, codes, (len(codes), 0, 0), 0.0))
        return items

    def _pair(self, fields: dict[str, Any]) -> list[Item]:
        """A text and the picture it belongs to; in a group where that decides a choice or a weight."""
        choices, loss = self.layout.spec.choices, self.layout.spec.loss
        role = ""
        if choices.order == "either" or loss.caption != 1.0:
            role = "caption"
        if choices.order == "given" and (choices.condition_dropout or loss.condition != 1.0):
            role = "condition"
        text = {"group": 0, "group_role": role} if role else {}
        image = {"group": 0, "group_role": "target"} if role else {}
        return [*self._words("A red cat.", **text, **fields), hard_image(self.layout, _SIDES, **image, **fields)]

    def _sounds(self, fields: dict[str, Any]) -> list[Item]:
        layout = self.layout
        if "audio" not in layout.kinds:
            return []
        if layout.spec.merge.of != "units":
            return [hard_sound(layout, 0.1, **fields), *self._soft("audio", fields)]
        found = []
        for codec, times in zip(_UNITS, _UNIT_TIMES):
            codes = made_codes(layout, codec.name, len(times))
            stamps = np.array(times, np.float32)
            found.append(Item("audio", codec.name, codes, (len(codes), 0, 0), 0.0, 0.4, times=stamps, **fields))
        return found

    def _videos(self, fields: dict[str, Any]) -> list[Item]:
        if "video" not in self.layout.kinds:
            return []
        items = []
        if writes_codes(self.layout, "video"):
            items.append(hard_video(self.layout, np.arange(_FRAMES), _SIDES, **fields))
            if "audio" in self.layout.kinds and self.layout.spec.merge.of != "units":
                items.append(hard_sound(self.layout, float(_FRAMES), **fields))
        return items + self._soft("video", fields)

    def _soft(self, kind: str, fields: dict[str, Any]) -> list[Item]:
        """The soft form of a kind, where the layout has one."""
        rule = self.layout.spec.soft
        if kind not in self.layout.soft_shapes:
            return []
        if kind == "audio":
            return [Item(kind, "", None, (3 * samples_a_position(rule), 0, 0), 0.0, **fields)]
        if kind == "image":
            h, w = (side * rule.image.patch for side in _SIDES)
            if rule.image.size:
                h, w = map(int, rule.image.size.split("x"))
            return [Item(kind, "", None, (1, h, w), **fields)]
        t = _FRAMES * rule.video.frames
        h, w = (side * rule.video.patch for side in _SIDES)
        return [Item(kind, "", None, (t, h, w), times=np.arange(t, dtype=np.float32), **fields)]

    def _words(self, words: str, **fields: Any) -> list[Item]:
        if "text" not in self.layout.kinds:
            return []
        return [Item("text", spec_of(self.text).name, self.text.encode(words).codes, **fields)]


def _medium(item: Item) -> np.ndarray:
    """The kept medium of a soft item: int16 [samples], uint8 [H, W, 3] or [T, H, W, 3]."""
    t, h, w = item.grid
    if item.kind == "audio":
        return np.zeros(t, np.int16)
    return np.zeros((t, h, w, 3) if item.kind == "video" else (h, w, 3), np.uint8)
