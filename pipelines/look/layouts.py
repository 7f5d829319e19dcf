"""`mmdata layout`: what a layout keeps, which ids it has, what it costs, and an example of a row, token by token.

The example and the numbers come from the layout's own functions (`render`, `parse`, `lengths`) over the shipped codecs;
nothing here knows what a layout writes. The document is made in `layout_example.py`, tables in `layout_print.py`.
"""

from __future__ import annotations

import bisect
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.look.layout_example import (
    Bound,
    Example,
    bind_shown,
    example,
    hard_image,
    hard_sound,
    hard_video,
    writes_codes,
)
from pipelines.look.tables import size_words
from tokenizer.grammar import LayoutSpec, layout_text, load_layout, shipped_layouts
from tokenizer.item import KINDS, Item, ItemTable
from tokenizer.layout import Layout
from tokenizer.vocabulary import IdRange

_PICTURE = (16, 16)  # codes of a picture of 256 x 256 pixels by the shipped codec
_ROW = 32_768  # places, of a budget


@dataclass(frozen=True)
class Published:
    """Tokens that a layout's original is said to take, by its own encoders."""

    frame: int
    time: int
    sound: int  # a second of it
    source: str

    @property
    def second(self) -> int:
        """A second of video at 1 frame a second, with its sound."""
        return self.frame + self.time + self.sound


PUBLISHED = {"gemini": Published(258, 7, 32, 'Google Cloud, "Gemini on Distributed Cloud hosted: video"')}


@dataclass(frozen=True)
class Token:
    """One id of the example."""

    index: int  # place in the row: a column of parallel streams
    stream: int  # 0 but in parallel streams
    id: int
    kind: str  # text | image | audio | video | control
    range: str  # of the vocabulary
    meaning: str  # '" cat"', "<image>", "image-fsq16@1/0:812", "size 16"
    position: list[int]  # one an axis
    loss: float
    block: int | None  # None: the layout has no blocks
    soft_index: int | None  # index into the soft vectors of its kind; None: an id stands here


@dataclass(frozen=True)
class Budget:
    """What pictures and film cost, in tokens; 0 where the layout writes none in codes."""

    image_codes: int
    image: int
    second: int  # of video at 1 frame a second, with its sound
    frame: int  # of these, the codes of the frame
    sound: int  # of these, the codes of the sound
    time: int  # of these, the rest: the time, and what stands around a frame
    row: int
    seconds: int  # of such video that fit a row
    published: Published | None


@dataclass(frozen=True, eq=False)
class Shown:
    """All that `mmdata layout show` says."""

    bound: Bound
    digest: str  # of the file
    example: Example
    tokens: list[Token]
    budget: Budget

    @property
    def layout(self) -> Layout:
        return self.bound.layout

    def to_json(self) -> dict[str, Any]:
        """Everything, in plain JSON values."""
        layout, found = self.layout, self.example
        budget = asdict(self.budget)
        if self.budget.published:
            budget["published"] |= {"second": self.budget.published.second}
        return {
            "name": layout.spec.name,
            "version": layout.spec.version,
            "digest": self.digest,
            "bound_digest": layout.digest,
            "codecs": [c.to_json() for c in layout.codecs],
            "made_up_codecs": list(self.bound.made_up),
            "kinds": list(layout.kinds),
            "keeps": list(layout.keeps),
            "vocabulary_size": layout.vocabulary.size,
            "ranges": [
                {"name": r.name, "start": r.start, "size": r.size, "meaning": meaning(layout, r)}
                for r in layout.vocabulary.ranges
                if r.size
            ],
            "controls": layout.controls,
            "budget": budget,
            "example": {
                "document": [item_words(self.bound, item) for item in found.items],
                "choice": found.choice.to_json(),
                "problems": found.problems,
                "num_streams": layout.num_streams,
                "tokens": [asdict(token) for token in self.tokens],
            },
        }


def show_layout(name: str) -> Shown:
    """A shipped layout by name, or one's own by path; ValueError says what is wrong with it."""
    spec = load_layout(name)
    bound = bind_shown(spec)
    found = example(bound)
    return Shown(bound, spec.digest, found, _tokens(bound, found), budget_of(bound.layout))


def layout_file(name: str) -> str:
    """The TOML of a layout: the beginning of one's own."""
    load_layout(name)
    return layout_text(name) if name in shipped_layouts() else Path(name).read_text("utf-8")


def list_layouts() -> list[dict[str, Any]]:
    """Shipped layouts: name, kinds that they write, and the first sentence of the file."""
    return [
        {"name": name, "kinds": _kinds_of(load_layout(name)), "about": first_sentence(layout_text(name))}
        for name in shipped_layouts()
    ]


def _kinds_of(spec: LayoutSpec) -> list[str]:
    """["text", "soft image"]"""
    soft = {kind for kind in ("image", "video", "audio") if getattr(spec.soft, kind).placeholder}
    return [f"soft {kind}" if kind in soft else kind for kind in spec.kinds]


def first_sentence(toml: str) -> str:
    """Of the comment that a layout file begins with; "" where it has none."""
    lines = []
    for line in toml.splitlines():
        if not line.startswith("# "):
            break
        lines.append(line[2:].strip())
    words = " ".join(lines)
    found = re.match(r".+?\.(?= |$)", words)
    return found[0] if found else words


def meaning(layout: Layout, r: IdRange) -> str:
    """What an id of a range stands for."""
    plan = layout.spec.vocabulary
    if r.name == "text":
        return f"pieces of {layout.default_codec('text') or 'no text codec'}"
    if r.name == "control":
        return ", ".join(f"{id} {name}" for name, id in layout.controls.items())
    if r.name == "size":
        units = {plan.rule.size_unit for plan in layout.kinds.values() if plan.num_sizes} or {1}
        return " or ".join(f"{unit} n" if unit > 1 else "n" for unit in sorted(units)) + " codes on a side"
    if r.name in ("time_hi", "time_lo"):
        digit = "high" if r.name == "time_hi" else "low"
        last = layout.last_step() * plan.time_quantum_s
        return f"{digit} digit of a time in steps of {plan.time_quantum_s:g} s, up to {last:,.6g} s"
    return f"codes of {r.group}, codebook {r.name.rpartition('/')[2]}"


# What it costs


def budget_of(layout: Layout) -> Budget:
    """Differences of `lengths`: of two pictures and one, of two seconds and one."""

    def tokens(*items: Item) -> int:
        return int(layout.lengths(ItemTable.of([items]))[0])

    def film(seconds: int) -> list[Item]:
        return [hard_video(layout, np.arange(seconds), _PICTURE), *([sound(seconds)] if heard else [])]

    def sound(seconds: int) -> Item:
        return hard_sound(layout, float(seconds))

    hard = [kind for kind in layout.kinds if writes_codes(layout, kind)]
    heard = "audio" in hard and layout.spec.merge.of != "units"
    image_codes = image = second = frame = sounded = fit = 0
    if "image" in hard:
        one = hard_image(layout, _PICTURE)
        image_codes, image = _num_codes(one), tokens(one, one) - tokens(one)
    if "video" in hard and not 0 < layout.spec.video.max_rate < 1:  # else a second has no frame of its own
        second = tokens(*film(2)) - tokens(*film(1))
        frame = _num_codes(hard_video(layout, np.arange(1), _PICTURE))
        sounded = tokens(sound(2)) - tokens(sound(1)) if heard else 0
        fit = bisect.bisect_right(range(1, _ROW // second + 2), _ROW, key=lambda seconds: tokens(*film(seconds)))
    published = PUBLISHED.get(layout.spec.name)
    return Budget(image_codes, image, second, frame, sounded, second - frame - sounded, _ROW, fit, published)


def _num_codes(item: Item) -> int:
    return 0 if item.codes is None else item.codes.size


# The example, token by token


def _tokens(bound: Bound, found: Example) -> list[Token]:
    layout, row = bound.layout, found.row
    parallel = layout.num_streams > 1
    positions = row.positions.reshape(-1, len(row))
    weights = row.loss_weights.reshape(len(row), -1)
    tokens = []
    for (index, stream), id in np.ndenumerate(row.tokens.reshape(len(row), -1)):
        range_name, _ = layout.vocabulary.describe(int(id))
        soft = -1 if row.soft_index is None else int(row.soft_index[index])
        tokens.append(
            Token(
                index=index,
                stream=stream,
                id=int(id),
                kind=_kind_of(layout, range_name) if parallel else KINDS[row.kinds[index]],
                range=range_name,
                meaning=_token_words(bound, row.tokens.reshape(-1), index, int(id)),
                position=positions[:, index].tolist(),
                loss=round(float(weights[index, stream]), 6),
                block=None if row.blocks is None else int(row.blocks[index]),
                soft_index=soft if soft >= 0 else None,
            )
        )
    return tokens


def _kind_of(layout: Layout, range_name: str) -> str:
    """Of an id by its range: in parallel streams a place has ids of several kinds."""
    if range_name == "text":
        return "text"
    codec = layout.codec_index.get(range_name.rpartition("/")[0], -1)
    return layout.codecs[codec].kind if codec >= 0 else "control"


def _token_words(bound: Bound, ids: np.ndarray, index: int, id: int) -> str:
    """What an id says: a control's name, a text's piece, a code of a codebook, a size, a time."""
    layout = bound.layout
    name, meaning = layout.vocabulary.describe(id)
    if name == "text":
        piece = bound.text.token_bytes(int(meaning))
        text = piece.decode("utf-8", "replace")
        return f'"{text}"' if text.isprintable() else repr(text).replace("'", '"')
    if name == "time_lo" and index:
        plan = layout.spec.vocabulary
        steps = (int(ids[index - 1]) - layout.time_hi_start) * plan.time_lo + int(meaning)
        return f"{name} {meaning} ({steps * plan.time_quantum_s:g} s)"
    if name in ("size", "time_hi"):
        return f"{name} {meaning}"
    return meaning if name == "control" else f"{name}:{meaning}"


def item_words(bound: Bound, item: Item) -> str:
    """One item of the document: 'user text "A red cat."', "image 2x3", "audio 0-2 s, 100 codes"."""
    words = [item.role] if item.role != "none" else []
    words += ["soft"] if item.is_soft else []
    words.append(item.kind)
    if item.kind == "text" and item.codes is not None:
        words.append(f'"{_decoded(bound, item)}"')
    if said := size_words(item):
        words.append(said)
    if item.kind == "audio" and item.codes is not None:
        words.append(f"{len(item.codes)} codes of {item.codec}")
    if item.group >= 0:
        words.append(f"({item.group_role} of group {item.group})")
    return " ".join(words)


def _decoded(bound: Bound, item: Item) -> str:
    assert item.codes is not None
    return b"".join(bound.text.token_bytes(c) for c in item.codes[:, 0].tolist()).decode()
