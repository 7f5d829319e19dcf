"""Every shipped layout, and layouts that use what no shipped one does, over toy codecs; and samples that each takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

from tokenizer.codec import CodecSpec, Codes, Shape
from tokenizer.grammar import layout_text
from tokenizer.item import Item
from tokenizer.layout import Layout, read_layout, shipped_layouts

NAN = float("nan")
AUDIO = (
    CodecSpec("toy-sound@1", "audio", (16, 8, 4), "", False, 2.5),
    CodecSpec("other-sound@1", "audio", (9,), "", False, 4.0),
    CodecSpec("timeless@1", "audio", (9,), "", False),
)
PICTURES = (
    CodecSpec("toy-image@1", "image", (50,), "", False),
    CodecSpec("two-books@1", "image", (20, 30), "", False),
    CodecSpec("toy-video@1", "video", (11,), "", False),
)
BOOKS = {c.name: c.codebooks for c in (*AUDIO, *PICTURES)}


@dataclass(frozen=True)
class ToyText:
    """A text codec of bytes, with special tokens behind them."""

    names: tuple[str, ...] = ()
    name: str = "bytes"
    revision: int = 1
    kind: str = "text"
    fingerprint: str = ""
    exact: bool = True

    @property
    def codebooks(self) -> tuple[int, ...]:
        return (256 + len(self.names),)

    @property
    def specials(self) -> tuple[tuple[str, int], ...]:
        return tuple((name, 256 + i) for i, name in enumerate(self.names))

    @property
    def spec(self) -> CodecSpec:
        return CodecSpec("bytes@1", "text", self.codebooks, "", True, specials=self.specials)

    def encode(self, text: str) -> Codes:
        codes = np.frombuffer(text.encode(), np.uint8).astype(np.int32)[:, None]
        return Codes(codes, Shape(len(codes), 1))

    def decode(self, codes: Codes) -> str:
        return bytes(c for c in codes.codes[:, 0].tolist() if c < 256).decode("utf-8", "replace")

    def token_bytes(self, code: int) -> bytes:
        return bytes([code]) if code < 256 else b""


@dataclass(frozen=True)
class Case:
    """A layout and what its samples may hold."""

    name: str
    layout: Layout
    square: bool = False
    sides: tuple[int, ...] = (1, 2, 3, 4)
    shapes_lost: bool = False  # soft sizes do not come back, so positions need not either
    roles_lost: bool = False  # so weights need not come back
    timed: bool = False  # every video has times

    @property
    def groups_weighed(self) -> bool:
        """Weights depend on groups, which no row tells."""
        spec = self.layout.spec
        return spec.loss.caption != 1 or spec.loss.condition != 1 or bool(spec.attention.prefix)

    def __repr__(self) -> str:
        return self.name

    def _repr_pretty_(self, printer, cycle: bool) -> None:  # hypothesis prints what failed by it
        printer.text(self.name)


def bound(text: str, where: str, audio: Sequence[CodecSpec] = AUDIO) -> Layout:
    spec = read_layout(text, where)
    words = ToyText(spec.vocabulary.controls[2:] if spec.vocabulary.specials == "text" else ())
    return spec.bind([words.spec, *audio, *PICTURES], text=words)


def _shipped(name: str) -> Case:
    audio = AUDIO[:1] if name == "moshi" else AUDIO
    case = Case(name, bound(layout_text(name), name, audio))
    if name in ("chameleon", "show-o", "lwm"):
        case = replace(case, square=True)
    if name == "lumina":
        case = replace(case, sides=(2, 4))
    if name in ("qwen2.5-vl", "qwen3-vl"):
        case = replace(case, shapes_lost=True)
    if name in ("chameleon", "lumina", "lwm"):
        case = replace(case, roles_lost=True)
    return replace(case, timed=name in ("gemini", "qwen3-vl"))


MMDATA = layout_text("mmdata")
# What no shipped layout uses, in a few layouts of our own.
OWN = {
    # No closers, no text times, blocks, a prefix of conditions; caption and codebooks with weights.
    "bare": MMDATA.replace('close = "</image>"', "")
    .replace('close = "</audio>"', "")
    .replace('close = "</video>"', "")
    .replace('times = "start_end"', 'times = "none"')
    .replace('times = "frames"', 'times = "none"')
    .replace("blocks = []", 'blocks = ["image", "video"]\nprefix = ["condition", "user"]')
    .replace("image = 1.0", "image = 0.0\ncodebooks = [2.0, 0.5]\ncaption = 0.25")
    .replace("video = 1.0", "video = 0.0")
    .replace("condition_dropout = 0.0", "condition_dropout = 0.5"),
    # Orders of codes, three axes by seconds, soft items of every kind beside hard ones.
    "orders": MMDATA.replace('"</video>"]', '"</video>", "<soft-i>", "<soft-v>", "<soft-a>"]')
    .replace('open = "<image>"', 'open = "<image>"\norder = "hilbert"\ncodebooks = "coarse_to_fine"')
    .replace('open = "<video>"', 'open = "<video>"\norder = "snake"\ncodebooks = "delayed"\ndelays = [0, 2]')
    .replace('open = "<audio>"', 'open = "<audio>"\ncodebooks = "delayed"\ndelays = [0, 1]')
    .replace('plan = "linear"', 'plan = "three_axis"\ntime = "seconds"\nper_second = 2.0')
    + '\n[soft.image]\nplaceholder = "<soft-i>"\npatch = 16\n[soft.video]\nplaceholder = "<soft-v>"\npatch = 8\n'
    + "frames = 2"
    + '\n[soft.audio]\nplaceholder = "<soft-a>"\nsamples = 100\n',
    # Rows, separators and frames with delimiters of their own; columns; positions on a grid.
    "frames": MMDATA.replace('"</video>"]', '"</video>", "<row>", "<frame>", "</frame>", "<next>"]')
    .replace('open = "<image>"', 'open = "<image>"\nrow_end = "<row>"')
    .replace('open = "<video>"', 'open = "<video>"\nframe_open = "<frame>"\nframe_close = "</frame>"')
    .replace('times = "frames"', 'times = "frames"\nframe_separator = "<next>"\norder = "columns"\nmax_rate = 2.0')
    .replace('plan = "linear"', 'plan = "grid"'),
    # Frames and sound merged in chunks, with times in ids; turns that are named; one position an image.
    "merged": MMDATA.replace('"</video>"]', '"</video>", "<turn>", "</turn>"]')
    .replace(
        "[text]\n", '[turns]\nopen = ["<turn>", "{role}:"]\nclose = ["</turn>", "!"]\nlearn = ["assistant"]\n\n[text]\n'
    )
    .replace("[positions]", '[merge]\nof = "video_audio"\nchunk_s = 2.0\n\n[positions]')
    .replace('plan = "linear"', 'plan = "one_per_item"'),
    # Positions that begin again at each frame; a fixed grid; text sizes; texts without a delimiter.
    "restart": MMDATA.replace('open = "<text>"\ntimes = "start_end"', "")
    .replace('open = "<image>"', 'open = ["see:", "<image>"]')
    .replace(
        'close = "</image>"\nheader = "two_sizes"',
        'close = ["</image>", "."]\nheader = "text"\nafter_header = "<text>"',
    )
    .replace('plan = "linear"', 'plan = "restart"'),
}
# A system's layout over data that has more than it writes.
LEAVE_OUT = 'padding = "<pad>"\nunwritten = "leave_out"'
OWN["lwm-without"] = layout_text("lwm").replace('padding = "<pad>"', LEAVE_OUT)
OWN["merged-without"] = re.sub(r"\[image\]\n(.+\n)+", "", OWN["merged"]).replace('padding = "<pad>"', LEAVE_OUT)
CASES = [_shipped(name) for name in shipped_layouts()] + [
    Case(
        name,
        bound(text, f"own layout {name}"),
        square="lwm" in name,
        shapes_lost=name == "orders",
        roles_lost="lwm" in name,
    )
    for name, text in OWN.items()
]


def codes_of(codec: str, num: int, seed: int) -> np.ndarray:  # int32 [num, K]
    return np.random.default_rng(seed).integers(0, BOOKS[codec], (num, len(BOOKS[codec]))).astype(np.int32)


def text_item(words: str, **fields) -> Item:
    return Item("text", "bytes@1", ToyText().encode(words).codes, **fields)


@st.composite
def item_of(draw: st.DrawFn, case: Case) -> Item:
    """An item that the case's layout takes."""
    layout = case.layout
    leaves_out = layout.spec.document.unwritten == "leave_out"
    kind = draw(st.sampled_from(("text", "image", "audio", "video") if leaves_out else layout.spec.kinds))
    softly = kind in layout.soft_shapes and (layout.kinds[kind].only_soft or draw(st.booleans()))
    seed = draw(st.integers(0, 99))
    seconds = st.one_of(st.just(NAN), st.floats(-5, 20_000), st.floats(0, 9))
    fields = {
        "group": draw(st.sampled_from([-1, -1, 0, 1])),
        "group_role": draw(st.sampled_from(["none", "caption", "condition", "target"])),
        "role": draw(st.sampled_from(["none", "none", "system", "user", "assistant"])),
    }
    if kind == "text":
        words = draw(
            st.text("abc <!.\né", max_size=6) | st.sampled_from(["\n\n", "<vision>", "<1.5 seconds>", "user\n"])
        )
        ends = np.array(sorted(draw(st.sets(st.integers(0, 12), max_size=3))), np.int32)
        return text_item(words, start_s=draw(seconds), end_s=draw(seconds), sentence_ends=ends, **fields)
    if softly:
        return draw(soft_item(case, kind, fields))
    if kind == "audio":
        names = [c.name for c in layout.codecs if c.kind == "audio"]
        codec = draw(st.sampled_from(names))
        codes = codes_of(codec, draw(st.integers(0, 12)), seed)
        start = draw(seconds)
        end = start + draw(st.floats(0.1, 5)) if draw(st.booleans()) else draw(seconds)
        times = np.sort(np.float32(draw(st.lists(st.floats(0, 9, width=32), min_size=len(codes), max_size=len(codes)))))
        times = times.astype(np.float32) if draw(st.booleans()) else np.zeros(0, np.float32)
        return Item(kind, codec, codes, (len(codes), 0, 0), start, end, times=times, **fields)
    h = draw(st.sampled_from(case.sides))
    w = h if case.square else draw(st.sampled_from(case.sides))
    if kind == "image":
        codec = draw(st.sampled_from(["toy-image@1", "two-books@1"]))
        return Item(kind, codec, codes_of(codec, h * w, seed), (1, h, w), **fields)
    codec, t = draw(st.sampled_from(["toy-image@1", "two-books@1", "toy-video@1"])), draw(st.integers(0, 5))
    spread = st.floats(-1, 14_000, width=32) | st.floats(0, 6, width=32)
    times = np.array(draw(st.lists(spread, min_size=t, max_size=t)), np.float32)
    if not case.timed and draw(st.booleans()):
        times = times[:0]
    return Item(kind, codec, codes_of(codec, t * h * w, seed), (t, h, w), times=times, **fields)


@st.composite
def soft_item(draw: st.DrawFn, case: Case, kind: str, fields: dict) -> Item:
    rule = case.layout.spec.soft
    digest = f"{draw(st.integers(0, 3)):064x}"
    if kind == "audio":
        return Item(kind, "", None, (draw(st.integers(0, 350)), 0, 0), digest=digest, start_s=1.0, **fields)
    if kind == "image" and rule.image.size:
        return Item(kind, "", None, (1, 896, 896), digest=digest, **fields)
    high, wide = (draw(st.integers(1, 80)) for _ in range(2))
    if kind == "image":
        return Item(kind, "", None, (1, high, wide), digest=digest, **fields)
    t = draw(st.integers(1, 5))
    times = np.sort(np.array(draw(st.lists(st.floats(0, 600, width=32), min_size=t, max_size=t)), np.float32))
    return Item(kind, "", None, (t, high, wide), times=times, digest=digest, **fields)


def medium_of(item: Item) -> np.ndarray:
    """The kept medium of a soft item, drawn from its digest."""
    rng = np.random.default_rng(int(item.digest or "0", 16) % 1000)
    if item.kind == "audio":
        return rng.integers(-99, 99, item.grid[0]).astype(np.int16)
    shape = item.grid if item.kind == "video" else item.grid[1:]
    return rng.integers(0, 256, (*shape, 3), np.uint8)


@st.composite
def sample_of(draw: st.DrawFn, case: Case) -> list[Item]:
    items = draw(st.lists(item_of(case), max_size=5))
    if case.layout.spec.streams.sounds:
        sounds = [i for i in items if i.kind == "audio"][: case.layout.spec.streams.sounds]
        items = [i for i in items if i.kind != "audio"] + sounds
    if case.layout.spec.merge.of == "units" and draw(st.booleans()):
        items = items + draw(one_clock(case))
    if case.layout.spec.merge.of == "video_audio" and draw(st.booleans()):
        items = items + draw(picture_and_sound(case))
    return items


@st.composite
def one_clock(draw: st.DrawFn, case: Case) -> list[Item]:
    """Unit streams of two codecs over one stretch."""
    out = []
    for codec in ("other-sound@1", "toy-sound@1"):
        codes = codes_of(codec, draw(st.integers(0, 9)), draw(st.integers(0, 9)))
        out.append(Item("audio", codec, codes, (len(codes), 0, 0), 0.0, 4.0))
    return out


@st.composite
def picture_and_sound(draw: st.DrawFn, case: Case) -> list[Item]:
    """A film of a frame a second, and its sound."""
    t, h = draw(st.integers(0, 6)), draw(st.sampled_from(case.sides))
    times = (np.arange(t) * draw(st.sampled_from([0.4, 1.0, 1.7])) + draw(st.sampled_from([0, 0.3]))).astype(np.float32)
    film = Item("video", "toy-image@1", codes_of("toy-image@1", t * h * h, 1), (t, h, h), times=times)
    codes = codes_of("toy-sound@1", draw(st.integers(0, 14)), 2)
    sound = Item("audio", "toy-sound@1", codes, (len(codes), 0, 0), draw(st.sampled_from([0.0, 0.25, 2.0])))
    return [film, sound]


def _short(item: Item, printer, cycle: bool) -> None:
    """What a failing example shows of an item: the fields that say something."""
    said = [item.kind, item.codec or "soft", f"grid={item.grid}"]
    said += [f"codes={item.codes.tolist()}"] if item.codes is not None else []
    said += [f"{n}={getattr(item, n)}" for n in ("start_s", "end_s") if getattr(item, n) == getattr(item, n)]
    said += [f"times={item.times.tolist()}"] if len(item.times) else []
    said += [f"role={item.role}"] if item.role != "none" else []
    said += [f"group={item.group} {item.group_role}"] if item.group >= 0 else []
    printer.text(f"Item({', '.join(said)})")


Item._repr_pretty_ = _short  # type: ignore[attr-defined]
