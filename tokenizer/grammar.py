"""LayoutSpec: a layout as data, read from TOML (docs/layouts.md lists every key).

Holds what a layout file may say; `tokenizer/ambiguity.py` refuses, naming the line, what could not be rendered or
parsed back. It knows no codec and no id: `LayoutSpec.bind(codecs)` in `tokenizer/layout.py` gives the Layout that
renders. A *literal* is a control's name, a text, or a list of both: `open = ["\\n\\n", "<start_of_image>"]`.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizer.codec import CodecSpec

if TYPE_CHECKING:
    from tokenizer.layout import Layout

MEDIA = ("text", "image", "audio", "video")
Literal = tuple[str, ...]


@dataclass(frozen=True)
class VocabularyPlan:
    """Sizes of the ranges that no codec decides."""

    controls: tuple[str, ...]
    control_places: int = 64
    sizes: int = 256
    time_hi: int = 512
    time_lo: int = 256
    time_quantum_s: float = 0.1
    multiple: int = 128
    specials: str = "own"  # own | text: a control that the text codec has as a special token keeps its id there


@dataclass(frozen=True)
class DocumentRule:
    """Controls around a document, and between its pieces."""

    begin: str = "<bos>"  # "": none
    end: str = "<eos>"  # "": none
    continued: str = "<cont>"
    padding: str = "<pad>"
    unwritten: str = "refuse"  # items that no rule writes: refuse | leave_out
    # A task control after `begin`: of a document without media ("" none), of one with media last, of any other
    task_text: str = ""
    task_media_last: str = ""
    task_other: str = ""


@dataclass(frozen=True)
class TurnRule:
    """Around consecutive items of one role; items without a role stand outside of turns."""

    open: Literal = ()  # a text in it holds {role}; none: only `close` is written, and roles are read back in turn
    close: Literal = ()
    system: str = "system"  # what {role} becomes
    user: str = "user"
    assistant: str = "assistant"
    learn: tuple[str, ...] = ("system", "user", "assistant")  # roles whose tokens are targets


@dataclass(frozen=True)
class ItemRule:
    """How items of one kind are written."""

    open: Literal = ()
    close: Literal = ()  # none: the next control ends it
    header: str = "none"  # none | two_sizes | text
    header_text: str = "{h}*{w}"
    after_header: Literal = ()
    size_unit: int = 1  # codes on a side that one step of two_sizes counts
    grid: str = "any"  # any | square | "32x32": what a header or row_end need not say
    row_end: str = ""  # control after each row of codes
    frame_open: Literal = ()  # around each frame of a video
    frame_close: Literal = ()
    frame_separator: str = ""  # control between frames
    order: str = "raster"  # of the codes of a grid: raster | columns | snake | hilbert
    codebooks: str = "interleaved"  # interleaved | coarse_to_fine | delayed
    delays: tuple[int, ...] = ()  # of codebook 0, 1, ...; the last one holds for the rest
    times: str = "none"  # text: none | start | start_end; audio: none | start; video: none | frames
    time_form: str = "tokens"  # of frames: tokens | text
    time_text: str = "<{seconds} seconds>"  # or with {minutes} and {second}
    time_text_quantum_s: float = 0.0  # of times as text; 0: vocabulary.time_quantum_s
    max_rate: float = 0.0  # frames a second, thinned from those stored; 0: all
    as_video: bool = False  # an image is written as a video of one frame


@dataclass(frozen=True)
class SoftImage:
    """A soft image takes one position a square of `patch` pixels; 0 refuses soft images."""

    placeholder: str = ""
    patch: int = 0
    size: str = ""  # "896x896": kept pixels, height x width, that it must have; "": any


@dataclass(frozen=True)
class SoftVideo:
    """A soft video takes one position a square of `patch` pixels of `frames` merged frames."""

    placeholder: str = ""
    patch: int = 0
    frames: int = 1


@dataclass(frozen=True)
class SoftAudio:
    """Soft sound takes one position a run of `frames` log-mel frames (tokenizer/audio.py) or of `samples` samples."""

    placeholder: str = ""
    frames: int = 0
    samples: int = 0


@dataclass(frozen=True)
class SoftRule:
    image: SoftImage = SoftImage()
    video: SoftVideo = SoftVideo()
    audio: SoftAudio = SoftAudio()


@dataclass(frozen=True)
class MergeRule:
    """Items on one clock written as one, by time."""

    of: str = "none"  # none | video_audio: frames and their sound, in chunks | units: sounds of several codecs
    chunk_s: float = 0.0  # video_audio: the frames of a chunk, then its sound


@dataclass(frozen=True)
class StreamRule:
    """Text and up to `sounds` sounds as parallel streams, a column a code frame."""

    sounds: int = 0  # 0: no streams, one id a place
    rate: float = 12.5  # columns a second, where no codec says it
    delays: tuple[int, ...] = (0,)  # of codebook 0, 1, ... in columns; the last one holds for the rest
    learn: int = 1  # sounds, from the first on, whose codes are targets
    initial: str = ""  # control of the sounds in the first column
    fill: str = ""  # control where a sound has no code
    text_fill: str = ""  # control where no text is
    text_word: str = ""  # control before the first token of a word, where the place is free


@dataclass(frozen=True)
class PositionRule:
    plan: str = "linear"  # linear | grid | three_axis | one_per_item | restart
    time: str = "step"  # of three_axis: step | seconds
    per_second: float = 1.0  # of time = "seconds"
    after: str = "max"  # where the next token stands after a grid: max of all axes | side: of height and width only


@dataclass(frozen=True)
class AttentionRule:
    blocks: tuple[str, ...] = ()  # kinds whose codes see one another, image by image and frame by frame
    delimiters: bool = False  # what opens and closes an image or a sound belongs to its block
    masked: bool = False  # such codes are learnt by masking, in their own place: the trainer's business
    prefix: tuple[str, ...] = ()  # kinds, roles, group roles: leading items that have one see one another, no targets


@dataclass(frozen=True)
class LossRule:
    """Weight of a token as a target, by what it is."""

    begin: float = 0.0
    continued: float = 0.0
    end: float = 1.0
    delimiters: float = 1.0
    size: float = 1.0
    time: float = 1.0
    text: float = 1.0
    image: float = 1.0
    audio: float = 1.0
    video: float = 1.0
    soft: float = 0.0
    separators: float = 1.0  # row_end, frame_separator, frame_open, frame_close
    turn: float = 0.0  # what opens a turn
    turn_close: float = 1.0  # what closes one
    fill: float = 1.0  # text_fill and text_word of streams
    caption: float = 1.0  # times the weights of a caption which stands before what it describes
    condition: float = 1.0  # times the weights of items of this group role
    codebooks: tuple[float, ...] = ()  # times the weights of codebook 0, 1, ...; the last one holds for the rest


@dataclass(frozen=True)
class ChoiceRule:
    order: str = "given"  # of a caption and its target in a group: given | either
    condition_dropout: float = 0.0
    dropped: str = "leave_out"  # what a text condition becomes: leave_out | empty (its delimiters stay)


@dataclass(frozen=True)
class LayoutSpec:
    """One layout file: frozen, complete, and free of clashes. `digest` changes when what it says changes."""

    name: str
    version: int
    vocabulary: VocabularyPlan
    text_codec: str = ""
    document: DocumentRule = DocumentRule()
    turns: TurnRule = TurnRule()
    text: ItemRule = ItemRule()
    image: ItemRule = ItemRule()
    audio: ItemRule = ItemRule()
    video: ItemRule = ItemRule()
    soft: SoftRule = SoftRule()
    merge: MergeRule = MergeRule()
    streams: StreamRule = StreamRule()
    positions: PositionRule = PositionRule()
    attention: AttentionRule = AttentionRule()
    loss: LossRule = LossRule()
    choices: ChoiceRule = ChoiceRule()
    kinds: tuple[str, ...] = ()  # those with a table in the file: what the layout writes
    digest: str = field(init=False, default="")

    def __post_init__(self) -> None:
        stated = _stated(self)
        stated.pop("kinds", None)  # follows from the tables
        canonical = json.dumps(stated, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        object.__setattr__(self, "digest", hashlib.sha256(canonical.encode()).hexdigest())

    def rule(self, kind: str) -> ItemRule:
        """The rule of items of one kind: rule("image").open == ("<image>",)."""
        return getattr(self, kind)

    def bind(self, codecs: Iterable[CodecSpec], text: Any = None, first: Iterable[str] = ()) -> Layout:
        """See `tokenizer.layout.bind`."""
        from tokenizer.layout import bind  # layout.py needs the types of this file

        return bind(self, codecs, text, first)


def _stated(rule: Any) -> dict[str, Any]:
    """What a rule says beyond its defaults: a key that a later version adds moves no digest of a layout without it."""
    said = {}
    for f in dataclasses.fields(rule):
        value = getattr(rule, f.name)
        if f.init and (f.default is dataclasses.MISSING or value != f.default):
            if f.type == "Literal" and len(value) == 1:
                value = value[0]  # as written before literals could be lists
            said[f.name] = _stated(value) if dataclasses.is_dataclass(value) else value
    return said


def load_layout(name_or_path: str) -> LayoutSpec:
    """A shipped layout by name ("mmdata"), or one's own by path ("my/layout.toml")."""
    if name_or_path.endswith(".toml") or "/" in name_or_path:
        path = Path(name_or_path)
        if not path.is_file():
            raise ValueError(f"no layout file {name_or_path}; the shipped ones are {shipped_layouts()}")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{name_or_path} is not TOML: byte {error.start} is no UTF-8; save it as UTF-8") from None
        return read_layout(text, name_or_path)
    if name_or_path not in shipped_layouts():
        near = difflib.get_close_matches(name_or_path, shipped_layouts(), 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"no layout {name_or_path!r}; the shipped ones are {shipped_layouts()}, and a path to a .toml file"
            f" is one's own.{hint}"
        )
    return read_layout(layout_text(name_or_path), f"layout {name_or_path}")


def layout_text(name: str) -> str:
    """The TOML of a shipped layout."""
    return (resources.files("tokenizer") / "layouts" / f"{name}.toml").read_text(encoding="utf-8")


def shipped_layouts() -> list[str]:
    """Names of the layouts that come with the package."""
    folder = resources.files("tokenizer") / "layouts"
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def read_layout(text: str, where: str = "layout") -> LayoutSpec:
    """A LayoutSpec from TOML text; ValueError names `where`, the line and the change that mends it."""
    from tokenizer.ambiguity import check

    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{where} is not TOML: {error}") from error
    reader = Reader(text, where)
    reader.known("", data, [f.name for f in dataclasses.fields(LayoutSpec) if f.init and f.name != "kinds"])
    for key in ("name", "version", "vocabulary"):
        if key not in data:
            raise ValueError(f"{where} has no {key!r}; add it")
    reader.typed("", data, {"name": str, "version": int, "text_codec": str})
    parts = {name: reader.table(name, data[name], cls) for name, cls in _TABLES.items() if name in data}
    kinds = tuple(kind for kind in MEDIA if kind in data)
    spec = LayoutSpec(
        name=data["name"], version=data["version"], text_codec=data.get("text_codec", ""), kinds=kinds, **parts
    )
    check(spec, reader)
    return spec


_TABLES: dict[str, type] = {
    "vocabulary": VocabularyPlan,
    "document": DocumentRule,
    "turns": TurnRule,
    "text": ItemRule,
    "image": ItemRule,
    "audio": ItemRule,
    "video": ItemRule,
    "soft": SoftRule,
    "merge": MergeRule,
    "streams": StreamRule,
    "positions": PositionRule,
    "attention": AttentionRule,
    "loss": LossRule,
    "choices": ChoiceRule,
}
_NESTED = {"SoftImage": SoftImage, "SoftVideo": SoftVideo, "SoftAudio": SoftAudio}
_SCALARS = {"str": str, "int": int, "float": float, "bool": bool}
_LISTS: dict[str, type] = {"tuple[str, ...]": str, "tuple[int, ...]": int, "tuple[float, ...]": float}


@dataclass(frozen=True)
class Reader:
    """Turns TOML tables into frozen dataclasses; knows the text, to name lines."""

    text: str
    where: str

    def line(self, table: str, key: str = "") -> int:
        """Where `key` of `table` stands, 1-based; 0 when it is not written."""
        inside, begin = table == "", 0
        for number, line in enumerate(self.text.splitlines(), 1):
            bare = line.strip()
            if bare.startswith("["):
                inside = bare.split("#")[0].strip() == f"[{table}]"
                if inside:
                    begin = number
            if inside and key and bare.split("=")[0].strip() == key:
                return number
        # What is not written has a default: the controls that it should have been among
        return begin or (self.line("vocabulary", "controls") if table not in ("", "vocabulary") else 0)

    def error(self, table: str, key: str, what: str) -> ValueError:
        return ValueError(f"{self.where}, line {self.line(table, key)}: {what}")

    def known(self, table: str, data: dict[str, Any], names: list[str]) -> None:
        for key in data:
            if key not in names:
                near = difflib.get_close_matches(key, names, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"the keys are {names}"
                inside = f"[{table}]" if table else "a layout"
                at = table if table or not isinstance(data[key], dict) else key
                raise self.error(at, key, f"{inside} has no key {key!r}; {hint}")

    def typed(self, table: str, data: dict[str, Any], types: dict[str, type]) -> None:
        for key, kind in types.items():
            value = data.get(key)
            if value is None or (type(value) is kind) or (kind is float and type(value) is int):
                continue
            raise self.error(table, key, f"{key} is {value!r}; it must be of type {kind.__name__}")

    def table(self, name: str, data: Any, cls: type) -> Any:
        if not isinstance(data, dict):
            raise self.error("", name, f"{name} is {data!r}; it must be a table [{name}]")
        types = {f.name: str(f.type) for f in dataclasses.fields(cls)}
        self.known(name, data, list(types))
        values = {key: self.value(name, key, value, types[key]) for key, value in data.items()}
        missing = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING and f.name not in values]
        if missing:
            raise self.error(name, "", f"[{name}] has no {missing[0]!r}; add it")
        return cls(**values)

    def value(self, table: str, key: str, value: Any, kind: str) -> Any:
        """A value of a table's key as the dataclass holds it."""
        if kind in _NESTED:
            return self.table(f"{table}.{key}", value, _NESTED[kind])
        if kind in _SCALARS:
            self.typed(table, {key: value}, {key: _SCALARS[kind]})
            return float(value) if kind == "float" else value
        if kind == "Literal" and isinstance(value, str):
            value = [value] if value else []
        of = _LISTS.get(kind, str)
        if not isinstance(value, list):
            raise self.error(table, key, f"{key} is {value!r}; it must be of type list")
        if not all(type(entry) is of or (of is float and type(entry) is int) for entry in value):
            words = {str: "strings", int: "whole numbers", float: "numbers"}[of]
            raise self.error(table, key, f"{key} must be a list of {words}")
        return tuple(of(entry) for entry in value)
