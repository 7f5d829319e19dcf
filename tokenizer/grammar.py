"""LayoutSpec: a layout as data, read from TOML and checked before anything is rendered.

Holds what a layout file may say and refuses, naming the line, what could not be parsed back. It knows no codec and no
id: `LayoutSpec.bind(codecs)` in `tokenizer/layout.py` gives the Layout that renders.
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
_HEADERS = {"text": ("none",), "image": ("two_sizes",), "audio": ("none",), "video": ("two_sizes",)}
_TIMES = {
    "text": ("none", "start", "start_end"),
    "image": ("none",),
    "audio": ("none", "start"),
    "video": ("none", "frames"),
}


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


@dataclass(frozen=True)
class DocumentRule:
    """Controls around a document, and between its pieces."""

    begin: str = "<bos>"
    end: str = "<eos>"
    continued: str = "<cont>"
    padding: str = "<pad>"


@dataclass(frozen=True)
class ItemRule:
    """How items of one kind are written."""

    open: str = ""
    close: str = ""  # "": the next control ends it
    header: str = "none"
    times: str = "none"


@dataclass(frozen=True)
class SoftRule:
    """Soft items take placeholders; 0 refuses soft items of that kind."""

    placeholder: str = ""
    patch: int = 0  # pixels on a side, of an image
    samples: int = 0  # samples a position, of audio


@dataclass(frozen=True)
class PositionRule:
    plan: str = "linear"


@dataclass(frozen=True)
class AttentionRule:
    blocks: tuple[str, ...] = ()  # kinds whose codes see one another, image by image and frame by frame


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


@dataclass(frozen=True)
class ChoiceRule:
    order: str = "given"
    condition_dropout: float = 0.0


@dataclass(frozen=True)
class LayoutSpec:
    """One layout file: frozen, complete, and free of clashes. `digest` changes when what it says changes."""

    name: str
    version: int
    vocabulary: VocabularyPlan
    text_codec: str = ""
    document: DocumentRule = DocumentRule()
    text: ItemRule = ItemRule()
    image: ItemRule = ItemRule()
    audio: ItemRule = ItemRule()
    video: ItemRule = ItemRule()
    soft: SoftRule = SoftRule()
    positions: PositionRule = PositionRule()
    attention: AttentionRule = AttentionRule()
    loss: LossRule = LossRule()
    choices: ChoiceRule = ChoiceRule()
    digest: str = field(init=False, default="")

    def __post_init__(self) -> None:
        canonical = json.dumps(_stated(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        object.__setattr__(self, "digest", hashlib.sha256(canonical.encode()).hexdigest())

    def rule(self, kind: str) -> ItemRule:
        """The rule of items of one kind: rule("image").open == "<image>"."""
        return getattr(self, kind)

    def bind(self, codecs: Iterable[CodecSpec]) -> Layout:
        """The layout over these codecs: the same set in any order gives the same ids."""
        from tokenizer.layout import bind  # layout.py needs the types of this file

        return bind(self, codecs)


def _stated(rule: Any) -> dict[str, Any]:
    """What a rule says beyond its defaults: a key that a later version adds moves no digest of a layout without it."""
    said = {}
    for f in dataclasses.fields(rule):
        value = getattr(rule, f.name)
        if f.init and (f.default is dataclasses.MISSING or value != f.default):
            said[f.name] = _stated(value) if dataclasses.is_dataclass(value) else value
    return said


def load_layout(name_or_path: str) -> LayoutSpec:
    """A shipped layout by name ("mmdata"), or one's own by path ("my/layout.toml")."""
    if name_or_path.endswith(".toml") or "/" in name_or_path:
        path = Path(name_or_path)
        if not path.is_file():
            raise ValueError(f"no layout file {name_or_path}; the shipped ones are {shipped_layouts()}")
        return read_layout(path.read_text(encoding="utf-8"), name_or_path)
    if name_or_path not in shipped_layouts():
        near = difflib.get_close_matches(name_or_path, shipped_layouts(), 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"no layout {name_or_path!r}; the shipped ones are {shipped_layouts()}, and a path to a .toml file"
            f" is one's own.{hint}"
        )
    file = resources.files("tokenizer") / "layouts" / f"{name_or_path}.toml"
    return read_layout(file.read_text(encoding="utf-8"), f"layout {name_or_path}")


def shipped_layouts() -> list[str]:
    """Names of the layouts that come with the package."""
    folder = resources.files("tokenizer") / "layouts"
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def read_layout(text: str, where: str = "layout") -> LayoutSpec:
    """A LayoutSpec from TOML text; ValueError names `where`, the line and the change that mends it."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{where} is not TOML: {error}") from error
    reader = _Reader(text, where)
    tables = {
        "vocabulary": VocabularyPlan,
        "document": DocumentRule,
        "text": ItemRule,
        "image": ItemRule,
        "audio": ItemRule,
        "video": ItemRule,
        "soft": SoftRule,
        "positions": PositionRule,
        "attention": AttentionRule,
        "loss": LossRule,
        "choices": ChoiceRule,
    }
    reader.known("", data, [f.name for f in dataclasses.fields(LayoutSpec) if f.init])
    for key in ("name", "version", "vocabulary"):
        if key not in data:
            raise ValueError(f"{where} has no {key!r}; add it")
    reader.typed("", data, {"name": str, "version": int, "text_codec": str})
    parts = {name: reader.table(name, data[name], cls) for name, cls in tables.items() if name in data}
    spec = LayoutSpec(name=data["name"], version=data["version"], text_codec=data.get("text_codec", ""), **parts)
    _check(spec, reader)
    return spec


@dataclass(frozen=True)
class _Reader:
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
        return begin

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
        names = {f.name: str(f.type) for f in dataclasses.fields(cls)}
        self.known(name, data, list(names))
        kinds = {"str": str, "int": int, "float": float, "tuple[str, ...]": list}
        self.typed(name, data, {key: kinds[kind] for key, kind in names.items()})
        values = {}
        for key, value in data.items():
            if names[key] == "tuple[str, ...]":
                if not all(isinstance(entry, str) for entry in value):
                    raise self.error(name, key, f"{key} must be a list of strings")
                value = tuple(value)
            values[key] = float(value) if names[key] == "float" else value
        missing = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING and f.name not in values]
        if missing:
            raise self.error(name, "", f"[{name}] has no {missing[0]!r}; add it")
        return cls(**values)


def _check(spec: LayoutSpec, reader: _Reader) -> None:
    """Refuses what could not be rendered, or not be parsed back."""
    plan = spec.vocabulary
    for key in ("control_places", "sizes", "time_hi", "time_lo", "multiple"):
        if getattr(plan, key) < 1:
            raise reader.error("vocabulary", key, f"{key} is {getattr(plan, key)}; it must be at least 1")
    if plan.time_quantum_s <= 0:
        raise reader.error(
            "vocabulary", "time_quantum_s", f"time_quantum_s is {plan.time_quantum_s}; it must be above 0"
        )
    twice = sorted({c for c in plan.controls if plan.controls.count(c) > 1})
    if twice:
        raise reader.error("vocabulary", "controls", f"control {twice[0]!r} is listed twice; remove one")
    if len(plan.controls) > plan.control_places:
        raise reader.error(
            "vocabulary",
            "control_places",
            f"{len(plan.controls)} controls in {plan.control_places} places; raise control_places",
        )
    _check_delimiters(spec, reader)
    for kind in MEDIA:
        rule = spec.rule(kind)
        for key, choices in (("header", _HEADERS[kind]), ("times", _TIMES[kind])):
            value = getattr(rule, key)
            # A kind whose table is absent is not written at all, so it needs no header.
            if rule.open and value not in choices:
                raise reader.error(
                    kind,
                    key,
                    f"{key} of {kind} is {value!r}; it must be one of {list(choices)}, or it cannot be parsed back",
                )
    if spec.positions.plan != "linear":
        raise reader.error("positions", "plan", f"plan is {spec.positions.plan!r}; it must be one of ['linear']")
    for kind in spec.attention.blocks:
        if kind not in MEDIA[1:]:
            raise reader.error("attention", "blocks", f"blocks has {kind!r}; it may hold {list(MEDIA[1:])}")
    if spec.choices.order not in ("given", "either"):
        raise reader.error("choices", "order", f"order is {spec.choices.order!r}; it must be 'given' or 'either'")
    if not 0 <= spec.choices.condition_dropout <= 1:
        raise reader.error("choices", "condition_dropout", "condition_dropout must lie between 0 and 1")
    for f in dataclasses.fields(LossRule):
        if not 0 <= getattr(spec.loss, f.name) < float("inf"):
            raise reader.error("loss", f.name, f"the weight of {f.name} must be 0 or above")


def _check_delimiters(spec: LayoutSpec, reader: _Reader) -> None:
    """Every delimiter is a control, and no control has two jobs: else a row could be read in two ways."""
    jobs: dict[str, tuple[str, str]] = {}
    needed = [("document", key) for key in ("begin", "end", "continued", "padding")]
    optional = [(kind, key) for kind in MEDIA for key in ("open", "close")] + [("soft", "placeholder")]
    for table, key in needed + optional:
        control = getattr(getattr(spec, table), key)
        if not control:
            if (table, key) in needed:
                raise reader.error(table, key, f"{key} of [{table}] is empty; it needs a delimiter")
            continue
        if control not in spec.vocabulary.controls:
            raise reader.error(table, key, f"{key} = {control!r} is not in vocabulary.controls; add it at the end")
        if control in jobs:
            other = jobs[control]
            raise reader.error(
                table,
                key,
                f"{control!r} is {key} of [{table}] and {other[1]} of [{other[0]}]; a row could be read in two ways,"
                " give one of them its own control",
            )
        jobs[control] = (table, key)
    for kind in MEDIA:
        if spec.rule(kind) != ItemRule() and not spec.rule(kind).open:
            raise reader.error(kind, "open", f"[{kind}] has no open; it needs a delimiter")
    if (spec.soft.patch or spec.soft.samples) and not spec.soft.placeholder:
        raise reader.error("soft", "placeholder", "[soft] has no placeholder; it needs a control")
    if spec.soft.patch < 0 or spec.soft.samples < 0:
        raise reader.error("soft", "patch", "patch and samples of [soft] must be 0 or above")
