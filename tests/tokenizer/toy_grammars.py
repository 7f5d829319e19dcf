"""Layout files drawn at random, and samples for those that load.

Each table is drawn nearly by itself, so that what one says may not go with what another says: about half of the files
are refused. A test of random layouts sees only what is drawn here; a new key of a layout needs its line in here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np

from tests.tokenizer.toy_layouts import AUDIO, NAN, PICTURES, Case, ToyText, codes_of, text_item
from tokenizer.ambiguity import sides
from tokenizer.grammar import MEDIA, LayoutSpec
from tokenizer.item import GROUP_ROLES, ROLES, Item
from tokenizer.layout import Layout

Table = dict[str, Any]
Tables = dict[str, Table]

_CONTROL = re.compile(r"</?(?!vision)[a-z_]+>")  # what is named so in a table becomes a control; <vision> is text
_WORDS = ["x", "\n\n", "<", "a b", "1", "!"]  # of literals; items' own texts begin and end with them too
_DELAYS = [[0], [0, 1], [0, 2], [1, 0]]
_SHARES = {"text": 0.95, "image": 0.65, "audio": 0.5, "video": 0.65}  # of the layouts, those that write the kind
_WEIGHTS = ["begin", "continued", "end", "delimiters", "size", "time", "text", "soft", "separators", "turn", "fill"]
_STREAM_FAULTS = [
    ("text", "open", ["<text>"]),
    ("document", "end", "<eos>"),
    ("document", "unwritten", "leave_out"),
    ("streams", "learn", 4),
    ("positions", "plan", "grid"),
    ("merge", "of", "units"),
    ("attention", "prefix", ["user"]),
]


def random_layout(rng: Random) -> str:
    """A layout file in TOML, with two tables or ten."""
    tables = _of_streams(rng) if rng.random() < 0.15 else _of_rows(rng)
    lines = ['name = "drawn"', "version = 1"]
    for name, table in {"vocabulary": _vocabulary(rng, tables), **tables}.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def random_binding(rng: Random, spec: LayoutSpec) -> Layout:
    """Bound to the toy codecs: to one of sound where sounds are streams; some controls are the text codec's own."""
    own = [name for name in spec.vocabulary.controls if rng.random() < 0.5]
    words = ToyText(tuple(own) if spec.vocabulary.specials == "text" else ())
    audio = (rng.choice(AUDIO),) if spec.streams.sounds else AUDIO
    return spec.bind([words.spec, *audio, *PICTURES], text=words)


def case_of(name: str, layout: Layout) -> Case:
    """A drawn layout as the checks of test_layouts.py take it, with what no row of it can tell."""
    turns, video = layout.spec.turns, layout.kinds.get("video")
    joined = video is not None and video.loose  # films that become one have positions of one
    roles_matter = set(turns.learn) != set(ROLES[1:])
    return Case(
        name,
        layout,
        shapes_lost=bool(layout.soft_shapes) or joined,
        roles_lost=roles_matter and not turns.open,
    )


def random_sample(rng: Random, layout: Layout) -> list[Item]:
    """Items that the layout takes, but for a few."""
    if layout.spec.streams.sounds:
        return _parallel(rng, layout)
    kinds = [kind for kind in MEDIA if _forms(layout, kind)]
    items = [_item(rng, layout, rng.choice(kinds)) for _ in range(rng.choice([0, 1, 2, 3, 5, 9]))]
    of = layout.spec.merge.of
    for _ in range(rng.randrange(3) if of != "none" else 0):
        first, second = _one_clock(rng) if of == "units" else _film_and_sound(rng, layout)
        between = [_item(rng, layout, rng.choice(kinds))] if rng.random() < 0.2 else []  # what shows not parts no group
        at = rng.randrange(len(items) + 1)
        items[at:at] = [first, *between, second]
    return items


# Tables of a layout file


def _of_rows(rng: Random) -> Tables:
    """A layout with one id a place."""
    kinds = [kind for kind, share in _SHARES.items() if rng.random() < share] or ["text"]
    tables = {"document": _document(rng)}
    if rng.random() < 0.4:
        tables["turns"] = _turns(rng)
    tables |= {kind: _RULES[kind](rng) for kind in kinds}
    if {"image", "video"} <= set(kinds) and rng.random() < 0.2:
        tables["image"] = {"as_video": True}
    _merge(rng, tables)
    _soft(rng, tables)
    _shared(rng, tables)
    if rng.random() < 0.5:
        tables["positions"] = _positions(rng)
    blocks: list[str] = []
    if rng.random() < 0.2:
        blocks = [kind for kind in kinds if kind != "text" and rng.random() < 0.5]
        tables["attention"] = _attention(rng, blocks)
    if rng.random() < 0.4 or blocks:
        tables["loss"] = _loss(rng, blocks)
    if rng.random() < 0.3:
        tables["choices"] = _choices(rng)
    return tables


def _of_streams(rng: Random) -> Tables:
    """A layout with text and sounds in parallel; a third with something that does not go with it."""
    sounds = rng.randint(1, 3)
    delays = rng.choice([*_DELAYS, [3], [0, 2, 1], [0, 0, 3]])
    streams = {"sounds": sounds, "delays": delays, "learn": rng.randint(0, sounds)}
    streams |= {key: f"<{key}>" for key in ("initial", "fill", "text_fill", "text_word")}
    if rng.random() < 0.5:
        streams["rate"] = rng.choice([1.0, 2.5, 12.5])
    tables: Tables = {"document": {**_document(rng), "begin": "<bos>", "end": "", "unwritten": "refuse"}}
    tables |= {kind: {} for kind in ("text", "audio") if rng.random() < 0.9}
    tables |= {"streams": streams, "loss": _loss(rng, [])}
    if rng.random() < 0.2:
        tables["choices"] = _choices(rng)
    if rng.random() < 0.15:
        table, key, value = rng.choice(_STREAM_FAULTS)
        tables.setdefault(table, {})[key] = value
    return tables


def _vocabulary(rng: Random, tables: Tables) -> Table:
    """Its controls are those that the tables name; now and then one is missing."""
    values = [value for table in tables.values() for value in table.values()]
    parts = [part for value in values for part in (value if isinstance(value, list) else [value])]
    named = [part for part in parts if isinstance(part, str) and _CONTROL.fullmatch(part)]
    controls = list(dict.fromkeys(["<pad>", "<bos>", "<cont>", *named]))
    return {
        "controls": controls[:-1] if rng.random() < 0.03 else controls,
        "sizes": 16,
        "time_hi": rng.choice([512, 512, 4]),  # the few saturate soon
        "time_lo": rng.choice([256, 3]),
        "time_quantum_s": rng.choice([0.1, 1.0, 0.25, 0.5]),
        "specials": rng.choice(["own", "text"]),
    }


def _document(rng: Random) -> Table:
    table = {
        "begin": rng.choice(["<bos>", "<bos>", ""]),
        "end": rng.choice(["<eos>", "<eos>", "<pad>", ""]),
        "continued": "<cont>",
        "padding": "<pad>",
        "unwritten": rng.choice(["refuse", "refuse", "leave_out"]),
    }
    if rng.random() < 0.2:
        table |= {"task_media_last": "<task_media>", "task_other": "<task_other>"}
        table |= {"task_text": "<task_text>"} if rng.random() < 0.5 else {}
    return table


def _turns(rng: Random) -> Table:
    table: Table = {}
    if rng.random() < 0.6:
        table["open"] = ["<turn>", rng.choice(["{role}\n", "{role}", "{role}:x"])]
        table["assistant"] = rng.choice(["assistant", "model", "use", "usual"])  # some begin like "user"
    if rng.random() < 0.9:
        table["close"] = ["</turn>", *_word(rng, 0.5)]
    if rng.random() < 0.3 or not table:
        table["learn"] = ["assistant"]
    return table


def _text(rng: Random) -> Table:
    if rng.random() < 0.6:
        return {}
    table: Table = {"open": ["<text>", *_word(rng, 0.3)]}
    if rng.random() < 0.5:
        table["close"] = ["</text>", *_word(rng, 0.3)]
    if rng.random() < 0.4:
        table["times"] = rng.choice(["start", "start_end"])
    if rng.random() < 0.2:
        table["after_header"] = ["<text_header>"]
    return table


def _audio(rng: Random) -> Table:
    table: Table = {"open": [*_word(rng, 0.1), "<audio>"]} if rng.random() < 0.9 else {}
    if rng.random() < 0.5:
        table["close"] = ["</audio>", *_word(rng, 0.3)]
    if rng.random() < 0.5:
        table["times"] = "start"
    if rng.random() < 0.2:
        table["after_header"] = ["<audio_header>"]
    return table | _codebooks(rng)


def _image(rng: Random) -> Table:
    return _picture(rng, "image")


def _picture(rng: Random, kind: str) -> Table:
    """What images and videos have in common: delimiters, and what tells the grid."""
    if rng.random() < 0.08:  # as LWM: the codes tell where it is
        return {"open": ["<vision>"], "close": [f"</{kind}>", "</vision>"], "grid": rng.choice(["square", "2x3"])}
    mark = [f"<{kind}>"] if rng.random() < 0.9 else []
    table: Table = {"open": [*_word(rng, 0.2), *mark, *_word(rng, 0.15)]}
    if rng.random() < 0.7:
        table["close"] = [f"</{kind}>", *_word(rng, 0.4)]
    header = table["header"] = rng.choice(["two_sizes", "two_sizes", "text", "none"])
    if rng.random() < (0.9 if header == "text" else 0.2):
        table["after_header"] = [f"<{kind}_header>", *_word(rng, 0.2)]
    if header == "text":
        table["header_text"] = rng.choice(["{h}*{w}", "{h}x{w}", "{h},{w};", "{h} by {w}", "{w}:{h}", "{h}{w}"])
    elif header == "two_sizes" and rng.random() < 0.15:
        table["size_unit"] = 2
    if rng.random() < (0.7 if header == "none" else 0.2):
        table["grid"] = rng.choice(["square", "2x3", "2x2"])
    if rng.random() < 0.2:
        return table | {"row_end": f"<{kind}_row>"}
    return table | {"order": rng.choice(["raster", "raster", "columns", "snake", "hilbert"])} | _codebooks(rng)


def _video(rng: Random) -> Table:
    table = _picture(rng, "video")
    if rng.random() < 0.3:
        table["frame_open"] = [*_word(rng, 0.2), "<frame>", *_word(rng, 0.2)]
        if rng.random() < 0.3:  # each frame stands by itself
            table = {key: v for key, v in table.items() if key not in ("open", "close", "header", "after_header")}
    if rng.random() < 0.2:
        table["frame_close"] = ["</frame>", *_word(rng, 0.3)]
    if rng.random() < 0.2:
        table["frame_separator"] = "<next>"
    return table | (_frame_times(rng) if rng.random() < 0.6 else {})


def _frame_times(rng: Random) -> Table:
    table: Table = {"times": "frames"}
    if rng.random() < 0.5:
        forms = ["<{seconds} seconds>", "[{minutes}:{second}]", "@{seconds}s", "x{seconds}", "{seconds}"]
        table |= {"time_form": "text", "time_text": rng.choice(forms)}
        if rng.random() < 0.5:
            table["time_text_quantum_s"] = rng.choice([0.1, 0.5, 1.0, 2.0])
    if rng.random() < 0.4:
        table["max_rate"] = rng.choice([1.0, 2.0, 0.5, 0.3, 3.0])
    return table


_RULES: dict[str, Callable[[Random], Table]] = {"text": _text, "image": _image, "audio": _audio, "video": _video}


def _codebooks(rng: Random) -> Table:
    if rng.random() < 0.8:
        return {}
    return {"codebooks": rng.choice(["coarse_to_fine", "delayed"]), "delays": rng.choice(_DELAYS)}


def _merge(rng: Random, tables: Tables) -> None:
    """Adds [merge] where there is something to merge, and mends the tables of what is merged."""
    if "audio" not in tables:
        return
    if "video" in tables and rng.random() < 0.5:
        tables["merge"] = {"of": "video_audio", "chunk_s": rng.choice([1.0, 2.0, 0.5, 0.3])}
        tables["audio"]["times"] = "start"
        tables["video"]["times"] = "frames"
    elif rng.random() < 0.25:
        tables["merge"] = {"of": "units"}
        for key in ("times", "codebooks"):
            tables["audio"].pop(key, None)


def _soft(rng: Random, tables: Tables) -> None:
    """Adds tables [soft.KIND]; half of the time pictures then have no header, and are taken soft only."""
    if rng.random() < 0.7:
        return
    dropped = ["grid", "size_unit", *rng.choice([["header", "after_header"], []])]
    for kind in ("image", "video"):
        if kind in tables and "as_video" not in tables[kind] and rng.random() < 0.6:
            tables[f"soft.{kind}"] = {"placeholder": f"<soft_{kind}>", "patch": rng.choice([8, 16])}
            for key in dropped:
                tables[kind].pop(key, None)
    if "soft.video" in tables and rng.random() < 0.6:
        tables["soft.video"]["frames"] = 2
    if "soft.image" in tables and rng.random() < 0.2:
        tables["soft.image"]["size"] = "16x24"
    if "audio" in tables and rng.random() < 0.5:
        tables["soft.audio"] = {"placeholder": "<soft_audio>", **rng.choice([{"samples": 100}, {"frames": 1}])}


def _shared(rng: Random, tables: Tables) -> None:
    """Pictures and films that are taken soft may begin alike: their placeholders tell them apart. Others may not."""
    soft = {"soft.image", "soft.video"} <= set(tables)
    if "open" not in tables.get("image", {}) or "video" not in tables or rng.random() > (0.5 if soft else 0.06):
        return
    tables["video"]["frame_open" if "frame_open" in tables["video"] else "open"] = tables["image"]["open"]
    if soft and rng.random() < 0.8:  # else sizes would say the grid of codes, and codes do not tell them apart
        for kind in ("image", "video"):
            for key in ("header", "after_header", "row_end"):
                tables[kind].pop(key, None)


def _positions(rng: Random) -> Table:
    table: Table = {"plan": rng.choice(["grid", "three_axis", "three_axis", "one_per_item", "restart"])}
    if table["plan"] == "three_axis":
        table |= {"time": rng.choice(["step", "seconds"]), "per_second": rng.choice([0.5, 1.0, 2.0, 25.0])}
    return table | {"after": rng.choice(["max", "side"])}


def _attention(rng: Random, blocks: Sequence[str]) -> Table:
    prefix = rng.choice([[], ["user"], ["image"], ["text"], ["condition", "caption"]])
    return {"blocks": blocks, "delimiters": rng.random() < 0.5, "masked": rng.random() < 0.5, "prefix": prefix}


def _loss(rng: Random, blocks: Sequence[str]) -> Table:
    """Weights of a few things; codes that see one another mostly have none."""
    table: Table = {key: rng.choice([0.0, 0.5, 2.0]) for key in rng.sample(_WEIGHTS, 3)}
    table |= {kind: 0.0 for kind in blocks if rng.random() < 0.8}
    if rng.random() < 0.5:
        table["codebooks"] = rng.choice([[2.0, 0.5], [100.0, 1.0, 0.0], [0.25]])
    if rng.random() < 0.2:
        table[rng.choice(["caption", "condition"])] = 0.25
    return table


def _choices(rng: Random) -> Table:
    return {"order": "either", "condition_dropout": 0.5, "dropped": rng.choice(["leave_out", "empty"])}


def _word(rng: Random, share: float) -> list[str]:
    """A text of a literal in this share of times, else none."""
    return [rng.choice(_WORDS)] if rng.random() < share else []


# Samples

_SAID = ["", "", "a", "x", "<", "\n\n", "1", "1.5", "a b", "!", "!x", "user\n", "é", "x\n\n", "see"]
_SAID += ["2*3", "2x3", ":", "x1.0", "[00:01]", "<1.5 seconds>", "@1.0s", "<vision>"]  # what layouts write themselves
_FRAME_S = [0, 0.3, 0.5, 1, 1.2, 1.25, 1.9, 2, 3, 7.77, 14_000, -1]


def _forms(layout: Layout, kind: str) -> list[bool]:
    """How items of a kind may come, soft or not: as the layout writes them, or as it leaves them out."""
    return [soft for soft in (False, True) if layout.writes(kind, soft) or layout.leaves_out(kind, soft)]


def _item(rng: Random, layout: Layout, kind: str) -> Item:
    make = _soft_item if rng.choice(_forms(layout, kind)) else _CODED[kind]
    return replace(
        make(rng, layout, kind),
        role=rng.choice(["none", "user", *ROLES]),
        group=rng.choice([-1, -1, 0, 1]),
        group_role=rng.choice(GROUP_ROLES),
    )


def _text_item(rng: Random, layout: Layout, kind: str) -> Item:
    ends = sorted({rng.randrange(6) for _ in range(rng.randrange(3))})
    item = text_item(rng.choice(_SAID), start_s=_seconds(rng), end_s=_seconds(rng))
    return replace(item, sentence_ends=np.array(ends, np.int32))


def _image_item(rng: Random, layout: Layout, kind: str) -> Item:
    h, w = _sides(rng, layout, kind)
    codec = rng.choice(["toy-image@1", "two-books@1"])
    return Item(kind, codec, _codes(rng, codec, h * w), (1, h, w))


def _audio_item(rng: Random, layout: Layout, kind: str) -> Item:
    codec = rng.choice([c.name for c in layout.codecs if c.kind == kind])
    count = rng.choice([0, 0, 1, 2, 3, 7, 12])
    times = np.sort(np.array([rng.random() * 9 for _ in range(count)], np.float32))
    if count and rng.random() < 0.3:
        times[:] = times[0]
    if rng.random() < 0.6:
        times = times[:0]
    start = _seconds(rng)
    end = rng.choice([NAN, start + 2, start + 4, _seconds(rng)])
    return Item(kind, codec, _codes(rng, codec, count), (count, 0, 0), start, end, times=times)


def _video_item(rng: Random, layout: Layout, kind: str) -> Item:
    h, w = _sides(rng, layout, kind)
    codec = rng.choice(["toy-image@1", "two-books@1", "toy-video@1"])
    t = rng.choice([0, 0, 1, 1, 2, 3, 5])
    plan = layout.kinds.get(kind)
    needs_times = plan is not None and plan.time_text is not None
    times = _frame_seconds(rng, t)[: 0 if rng.random() < (0.02 if needs_times else 0.3) else t]
    return Item(kind, codec, _codes(rng, codec, t * h * w), (t, h, w), _seconds(rng), _seconds(rng), times=times)


_CODED = {"text": _text_item, "image": _image_item, "audio": _audio_item, "video": _video_item}


def _soft_item(rng: Random, layout: Layout, kind: str) -> Item:
    """Drawn for a text too, which no layout writes and some leave out."""
    grid, times = (0, 0, 0), np.zeros(0, np.float32)
    h, w = rng.randint(1, 30), rng.randint(1, 30)
    if kind == "audio":
        grid = (rng.randrange(700), 0, 0)
    elif kind == "image":
        grid = (1, *(sides(layout.spec.soft.image.size) if layout.spec.soft.image.size else (h, w)))
    elif kind == "video":
        t = rng.randint(1, 5)
        grid, times = (t, h, w), np.sort(_frame_seconds(rng, t))[: 0 if rng.random() < 0.1 else t]
    return Item(kind, "", None, grid, _seconds(rng), digest=f"{rng.randrange(4):064x}", times=times)


def _sides(rng: Random, layout: Layout, kind: str) -> tuple[int, int]:
    """Height and width in codes that the layout writes; one in fifty it may not."""
    plan = layout.kinds.get(kind)
    if rng.random() < 0.02:
        return 1, 17
    h, w = rng.sample([1, 1, 2, 2, 3, 3, 11], 2)  # 11 in one side at most; in words it is two digits
    if plan is None:
        return h, w
    h, w = h * plan.rule.size_unit, w * plan.rule.size_unit
    return plan.fixed if plan.fixed[0] else (min(h, w),) * 2 if plan.rule.grid == "square" else (h, w)


def _seconds(rng: Random) -> float:
    return rng.choice([NAN, NAN, 0.0, 0.04, 1.0, 2.55, 7.3, -3.0, rng.random() * 20])


def _frame_seconds(rng: Random, count: int) -> np.ndarray:  # float32 [count]
    """Mostly in order."""
    times = np.array([rng.choice(_FRAME_S) for _ in range(count)], np.float32)
    return np.sort(times) if rng.random() < 0.7 else times


def _codes(rng: Random, codec: str, count: int) -> np.ndarray:  # int32 [count, K]
    return codes_of(codec, count, rng.randrange(1 << 30))


def _one_clock(rng: Random) -> list[Item]:
    """Unit streams of two codecs over one stretch."""
    said = {"role": rng.choice(["none", "user"]), "group": rng.choice([-1, 0]), "group_role": rng.choice(GROUP_ROLES)}
    counts = {"other-sound@1": rng.randrange(9), "toy-sound@1": rng.randrange(9)}
    return [Item("audio", codec, _codes(rng, codec, n), (n, 0, 0), 0.0, 4.0, **said) for codec, n in counts.items()]


def _film_and_sound(rng: Random, layout: Layout) -> list[Item]:
    """A film and the sound after it."""
    codec, count = rng.choice(["toy-sound@1", "other-sound@1"]), rng.randrange(14)
    sound = Item("audio", codec, _codes(rng, codec, count), (count, 0, 0), rng.choice([0.0, 0.25, 2.0, -1.0]))
    return [_video_item(rng, layout, "video"), sound]


def _parallel(rng: Random, layout: Layout) -> list[Item]:
    """Texts and sounds for parallel streams; now and then one sound too many."""
    items: list[Item] = []
    if "text" in layout.kinds:
        items += [_spoken(rng) for _ in range(rng.choice([0, 1, 1, 2, 3]))]
    if "audio" in layout.kinds:
        most = layout.spec.streams.sounds + (rng.random() < 0.05)
        items += [_audio_item(rng, layout, "audio") for _ in range(rng.randint(0, most))]
    rng.shuffle(items)
    return items


def _spoken(rng: Random) -> Item:
    """A text with times of its tokens, of its words, or of neither."""
    words = rng.choice(["", "a", "so it is", "one two", " x", "é!", "well\n\nyes"])
    item = text_item(words, start_s=_seconds(rng), end_s=_seconds(rng))
    count = rng.choice([0, len(words.split()), len(words.encode())])
    starts = sorted(rng.random() * 6 for _ in range(count))
    if count and rng.random() < 0.1:
        starts[rng.randrange(count)] = rng.choice([math.nan, -1.0, 0.0])
    return replace(item, unit_times=np.array([[s, s + 0.2] for s in starts], np.float32).reshape(-1, 2))
