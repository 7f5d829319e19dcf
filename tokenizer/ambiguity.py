"""What a layout file may not say: a grammar that could not be rendered, or whose rows could not be parsed back.

Every refusal names the file's line, what clashes, and the change which mends it. Called when a layout is read; what
only codecs can show (a role's words that begin another's) is refused by `tokenizer.layout.bind`.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

from tokenizer.grammar import MEDIA, ItemRule, Literal, LossRule

if TYPE_CHECKING:
    from tokenizer.grammar import LayoutSpec, Reader

_CHOICES = {
    ("vocabulary", "specials"): ("own", "text"),
    ("document", "unwritten"): ("refuse", "leave_out"),
    ("positions", "plan"): ("linear", "grid", "three_axis", "one_per_item", "restart"),
    ("positions", "time"): ("step", "seconds"),
    ("positions", "after"): ("max", "side"),
    ("merge", "of"): ("none", "video_audio", "units"),
    ("choices", "order"): ("given", "either"),
    ("choices", "dropped"): ("leave_out", "empty"),
}
_ITEM_CHOICES: dict[str, dict[str, tuple[str, ...]]] = {
    "header": {"text": ("none",), "audio": ("none",)},
    "times": {
        "text": ("none", "start", "start_end"),
        "image": ("none",),
        "audio": ("none", "start"),
        "video": ("none", "frames"),
    },
    "order": {},
    "codebooks": {},
    "time_form": {},
}
_ALL = {
    "header": ("none", "two_sizes", "text"),
    "order": ("raster", "columns", "snake", "hilbert"),
    "codebooks": ("interleaved", "coarse_to_fine", "delayed"),
    "time_form": ("tokens", "text"),
}
_ROLES = ("system", "user", "assistant")
_PREFIX = (*MEDIA, *_ROLES, "caption", "condition")
_GRID = re.compile(r"([1-9]\d*)x([1-9]\d*)")


def sides(grid: str) -> tuple[int, int]:
    """ "32x48" -> (32, 48): height, width; (0, 0) where it is not of that form."""
    found = _GRID.fullmatch(grid)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def only_soft(spec: LayoutSpec, kind: str) -> bool:
    """Whether a kind is taken soft only, as nothing would say the grid of its codes."""
    rule = spec.rule(kind)
    soft_rule = getattr(spec.soft, kind, None)
    gridless = kind in ("image", "video") and rule.header == "none" and rule.grid == "any"
    if kind == "image" and rule.row_end:
        gridless = False  # of a picture its rows tell it
    return gridless and soft_rule is not None and bool(soft_rule.placeholder)


def check(spec: LayoutSpec, reader: Reader) -> None:
    """ValueError for the first thing that is wrong."""
    _numbers(spec, reader)
    _words(spec, reader)
    _controls(spec, reader)
    for kind in spec.kinds:
        _item(spec, kind, reader)
    _shared(spec, reader)
    _leads(spec, reader)
    _document(spec, reader)
    _turns(spec, reader)
    _soft(spec, reader)
    _merge(spec, reader)
    _streams(spec, reader)
    _attention(spec, reader)


def _numbers(spec: LayoutSpec, reader: Reader) -> None:
    plan = spec.vocabulary
    for key, least in (("control_places", 1), ("sizes", 0), ("time_hi", 0), ("time_lo", 0), ("multiple", 1)):
        if getattr(plan, key) < least:
            raise reader.error("vocabulary", key, f"{key} is {getattr(plan, key)}; it must be at least {least}")
    for kind in spec.kinds:
        for key in ("max_rate", "time_text_quantum_s"):
            if not 0 <= getattr(spec.rule(kind), key) < float("inf"):
                raise reader.error(kind, key, f"{key} is {getattr(spec.rule(kind), key)}; it must be 0 or above")
    if not 0 <= spec.merge.chunk_s < float("inf"):
        raise reader.error("merge", "chunk_s", f"chunk_s is {spec.merge.chunk_s}; it must be above 0")
    for table, key in (("vocabulary", "time_quantum_s"), ("positions", "per_second"), ("streams", "rate")):
        if not 0 < getattr(getattr(spec, table), key) < float("inf"):
            raise reader.error(table, key, f"{key} is {getattr(getattr(spec, table), key)}; it must be above 0")
    if not 0 <= spec.choices.condition_dropout <= 1:
        raise reader.error("choices", "condition_dropout", "condition_dropout must lie between 0 and 1")
    for f in dataclasses.fields(LossRule):
        value = getattr(spec.loss, f.name)
        if not all(0 <= v < float("inf") for v in (value if isinstance(value, tuple) else (value,))):
            raise reader.error("loss", f.name, f"the weight of {f.name} must be 0 or above")


def _words(spec: LayoutSpec, reader: Reader) -> None:
    """Keys that hold one of a few words."""
    for (table, key), choices in _CHOICES.items():
        value = getattr(getattr(spec, table), key)
        if value not in choices:
            said = " or ".join(map(repr, choices)) if len(choices) == 2 else f"one of {list(choices)}"
            raise reader.error(table, key, f"{key} is {value!r}; it must be {said}")
    for kind in spec.kinds:
        for key, by_kind in _ITEM_CHOICES.items():
            value, choices = getattr(spec.rule(kind), key), by_kind.get(kind, _ALL.get(key, ()))
            if value not in choices:
                raise reader.error(kind, key, f"{key} of {kind} is {value!r}; it must be one of {list(choices)}")


def controls_in(spec: LayoutSpec, literal: Literal) -> list[str]:
    """The controls that a literal names; everything else in it is text."""
    return [part for part in literal if part in spec.vocabulary.controls]


def _controls(spec: LayoutSpec, reader: Reader) -> None:
    """Every named delimiter is a control, and no control has two jobs: else a row could be read in two ways."""
    plan = spec.vocabulary
    twice = sorted({c for c in plan.controls if plan.controls.count(c) > 1})
    if twice:
        raise reader.error("vocabulary", "controls", f"control {twice[0]!r} is listed twice; remove one")
    if "" in plan.controls:
        raise reader.error("vocabulary", "controls", "a control has no name; remove it")
    if len(plan.controls) > plan.control_places:
        what = f"{len(plan.controls)} controls in {plan.control_places} places; raise control_places"
        raise reader.error("vocabulary", "control_places", what)
    jobs: dict[str, tuple[str, str]] = {}
    for table, key in _CONTROL_KEYS:
        control = str(_get(spec, table, key))
        if not control:
            continue
        if control not in plan.controls:
            raise reader.error(table, key, f"{key} = {control!r} is not in vocabulary.controls; add it at the end")
        _job(reader, jobs, control, table, key)
    for table, key in _LITERAL_KEYS:
        for part in _get(spec, table, key):
            looks_like_one = part.startswith("<") and part.endswith(">") and " " not in part and "{" not in part
            if looks_like_one and part not in plan.controls and not _text_on_purpose(spec, part):
                what = f"{key} = {part!r} is not in vocabulary.controls; add it at the end"
                raise reader.error(table, key, what)
        for name in controls_in(spec, _get(spec, table, key)):
            _job(reader, jobs, name, table, key)


def _text_on_purpose(spec: LayoutSpec, part: str) -> bool:
    """A delimiter spelled as text (LWM's <vision>) stands alone, where the codes after it tell what it is."""
    return any(
        (part,) == rule.open or part in rule.close[1:] for rule in map(spec.rule, MEDIA) if rule.header == "none"
    ) and any(part.replace("<", "</") in spec.rule(k).close or part in spec.rule(k).close for k in MEDIA)


def _job(reader: Reader, jobs: dict[str, tuple[str, str]], control: str, table: str, key: str) -> None:
    other = jobs.setdefault(control, (table, key))
    if other == (table, key):
        return
    if {(table, key), other} == {("document", "end"), ("document", "padding")}:
        return  # what comes after the end is padding, whatever its id
    if key == other[1] and {table, other[0]} <= set(MEDIA):
        return  # two kinds with one delimiter: `_shared` asks how they are told apart
    alike = {key, other[1]} in ({"open", "frame_open"}, {"close", "frame_close"})
    if alike and {table, other[0]} == {"image", "video"}:
        return  # a frame written as an image is: `_shared` again
    raise reader.error(
        table,
        key,
        f"{control!r} is {key} of [{table}] and {other[1]} of [{other[0]}]; a row could be read in two ways, give"
        " one of them its own control",
    )


_CONTROL_KEYS = [
    *(("document", key) for key in ("begin", "end", "continued", "padding")),
    *(("document", key) for key in ("task_text", "task_media_last", "task_other")),
    *((kind, key) for kind in MEDIA for key in ("row_end", "frame_separator")),
    *((f"soft.{kind}", "placeholder") for kind in ("image", "video", "audio")),
    *(("streams", key) for key in ("initial", "fill", "text_fill", "text_word")),
]
_LITERAL_KEYS = [
    *((kind, key) for kind in MEDIA for key in ("open", "after_header", "frame_open", "frame_close", "close")),
    *(("turns", key) for key in ("open", "close")),
]


def _get(spec: LayoutSpec, table: str, key: str) -> Any:
    value: Any = spec
    for part in table.split("."):
        value = getattr(value, part)
    return getattr(value, key)


def _item(spec: LayoutSpec, kind: str, reader: Reader) -> None:
    rule = spec.rule(kind)
    if rule.as_video:
        if kind != "image":
            raise reader.error(kind, "as_video", "as_video belongs to [image]")
        if rule != dataclasses.replace(ItemRule(), as_video=True):
            raise reader.error("image", "as_video", "[image] with as_video takes all from [video]; drop other keys")
        return
    opened, closed = controls_in(spec, rule.open), controls_in(spec, rule.close)
    for key in ("open", "close", "frame_open", "frame_close"):
        literal = getattr(rule, key)
        if len(controls_in(spec, literal)) > 1 and key != "close":
            raise reader.error(kind, key, f"{key} of [{kind}] has two controls; one is enough to find it by")
        if key in ("close", "frame_close") and literal and literal[0] not in spec.vocabulary.controls:
            raise reader.error(kind, key, f"{key} of [{kind}] must begin with a control, or its text is read as codes")
    if rule.open and opened and rule.header == "text" and not controls_in(spec, rule.after_header):
        raise reader.error(
            kind, "header", f"a text header of {kind} has no end; set after_header to a control that ends it"
        )
    if rule.header == "text" and not ({"{h}", "{w}"} <= set(re.findall(r"\{\w+\}", rule.header_text))):
        raise reader.error(kind, "header_text", f"header_text is {rule.header_text!r}; it must hold {{h}} and {{w}}")
    if rule.header == "text" and not _parted(rule.header_text):
        what = f"header_text is {rule.header_text!r}; put marks that are no digits between and around its numbers"
        raise reader.error(kind, "header_text", what)
    if not opened and (rule.header != "none" or rule.after_header):
        if not rule.open and not rule.frame_open:
            raise reader.error(kind, "open", f"[{kind}] has no open; it needs a delimiter")
        key = "header" if rule.header != "none" else "after_header"
        raise reader.error(kind, key, f"[{kind}] has {key} and no control in open, which a reader would find it by")
    if rule.header == "two_sizes" and not spec.vocabulary.sizes:
        raise reader.error("vocabulary", "sizes", f"[{kind}] writes two sizes and vocabulary.sizes is 0; raise it")
    if rule.size_unit < 1:
        raise reader.error(kind, "size_unit", f"size_unit is {rule.size_unit}; it must be at least 1")
    if rule.grid not in ("any", "square") and sides(rule.grid) == (0, 0):
        raise reader.error(kind, "grid", f'grid is {rule.grid!r}; it must be "any", "square" or like "32x32"')
    tokens = rule.times != "none" and (kind != "video" or rule.time_form == "tokens")
    if tokens and not spec.vocabulary.time_hi * spec.vocabulary.time_lo:
        raise reader.error("vocabulary", "time_hi", f"[{kind}] writes times and there are no time ids; raise time_hi")
    if rule.times != "none" and kind in ("text", "audio") and not opened:
        raise reader.error(kind, "times", f"[{kind}] has times and no control in open; a time would have no owner")
    if kind in ("image", "video"):
        _picture(spec, kind, reader)
    elif kind == "audio" and not opened and not closed and spec.merge.of != "units" and not spec.streams.sounds:
        raise reader.error(kind, "open", "[audio] has no open; two sounds in a row would be read as one")
    elif kind == "text" and rule.close and not opened:
        raise reader.error(kind, "open", "[text] has a close and no open; it needs a delimiter")
    elif kind == "text" and rule.open and not opened:
        raise reader.error(kind, "open", "open of [text] is text itself; it needs a control, or none at all")
    if rule.codebooks == "delayed" and not rule.delays:
        raise reader.error(kind, "codebooks", f'codebooks = "delayed" of [{kind}] needs delays, like [0, 1]')
    if any(d < 0 for d in rule.delays):
        raise reader.error(kind, "delays", f"delays of [{kind}] must be 0 or above")


def _picture(spec: LayoutSpec, kind: str, reader: Reader) -> None:
    rule = spec.rule(kind)
    soft = getattr(spec.soft, kind).patch > 0
    opened = controls_in(spec, rule.open) or controls_in(spec, rule.frame_open)
    if rule.open and not opened and rule.frame_open:
        raise reader.error(kind, "open", f"open of [{kind}] is text and frame_open holds no control; give it one")
    if not opened and not rule.open:
        raise reader.error(kind, "open", f"[{kind}] has no open; it needs a delimiter")
    if not opened and not controls_in(spec, rule.close):
        raise reader.error(kind, "close", f"[{kind}] has no control in open nor in close; its end could not be found")
    if rule.header == "none" and rule.grid == "any" and not rule.row_end and not soft:
        raise reader.error(
            kind,
            "header",
            f"header of {kind} is 'none' and nothing else says its grid: it cannot be parsed back; set"
            ' header = "two_sizes", grid = "square" or row_end',
        )
    if rule.row_end and (rule.order != "raster" or rule.codebooks != "interleaved"):
        key = "order" if rule.order != "raster" else "codebooks"
        raise reader.error(kind, key, f"row_end of [{kind}] needs order = 'raster' and codebooks = 'interleaved'")
    if kind == "image":
        for key in ("frame_open", "frame_close", "frame_separator"):
            if getattr(rule, key):
                raise reader.error(kind, key, f"[image] has {key}; only a video has frames")
        if rule.max_rate:
            raise reader.error(kind, "max_rate", "[image] has max_rate; only a video has frames")
        return
    marked = rule.frame_separator or controls_in(spec, rule.frame_open) or controls_in(spec, rule.frame_close)
    if rule.header == "none" and rule.grid in ("any", "square") and not marked and not soft:
        raise reader.error(
            kind,
            "frame_separator",
            "nothing says where a frame of [video] ends; set frame_separator, a header, or a fixed grid",
        )
    if rule.times == "frames" and rule.time_form == "text":
        _time_text(rule, reader)
        inside = bool(controls_in(spec, rule.open))
        if not inside and not controls_in(spec, rule.frame_open):
            raise reader.error(
                kind,
                "time_form",
                "text times of [video] stand outside any control; give it an open or a frame_open with one",
            )
    _frames(spec, rule, reader)
    if rule.max_rate and rule.times != "frames":
        raise reader.error(kind, "max_rate", "max_rate needs times = 'frames', or thinning is not seen again in a row")
    if rule.max_rate and not controls_in(spec, rule.open):
        raise reader.error(kind, "max_rate", "max_rate needs a control in open: a part may have no frame left")


def _frames(spec: LayoutSpec, rule: ItemRule, reader: Reader) -> None:
    """Delimiters of frames, and what may come after a video."""
    opened, framed = controls_in(spec, rule.open), controls_in(spec, rule.frame_open)
    if rule.frame_open and not framed:
        raise reader.error("video", "frame_open", "frame_open of [video] is text; it needs a control to be found by")
    if opened and framed and rule.frame_open[0] not in spec.vocabulary.controls:
        raise reader.error("video", "frame_open", "frame_open of [video] begins with text; begin it with its control")
    if framed and not opened:  # every frame stands by itself
        for key in ("open", "after_header", "close", "frame_separator"):
            if getattr(rule, key):
                what = f"[video] has {key} and no control in open: each of its frames stands by itself, drop {key}"
                raise reader.error("video", key, what)
        if rule.times == "frames" and rule.time_form == "tokens":
            what = 'times before a frame_open that stands by itself are read as text only; set time_form = "text"'
            raise reader.error("video", "time_form", what)
    if not framed and not opened and rule.times != "none":
        what = "times of [video] stand outside any control; give it an open or a frame_open with one"
        raise reader.error("video", "times", what)
    if spec.image.as_video and "image" in spec.kinds and (rule.times != "none" or (framed and not opened)):
        key = "times" if rule.times != "none" else "frame_open"
        raise reader.error("video", key, f"[image] is written as_video, so [video] can have no {key}; drop one of them")
    if spec.merge.of == "video_audio":
        for key in ("after_header", "frame_separator"):
            if getattr(rule, key):
                raise reader.error("video", key, f"{key} does not go with merged sound; drop it")
    if opened and not controls_in(spec, rule.close):
        loose = [k for k in spec.kinds if not spec.rule(k).as_video and _begins_with_text(spec, k)]
        if loose:
            what = f"[video] has no control in close, and a {loose[0]} after it may begin without one; give it a close"
            raise reader.error("video", "close", what)


def _begins_with_text(spec: LayoutSpec, kind: str) -> bool:
    """Whether an item may begin with anything but a control."""
    rule = spec.rule(kind)
    first = (*rule.open, *rule.frame_open)[:1]
    return not first or first[0] not in spec.vocabulary.controls


def _parted(form: str) -> bool:
    """Whether numbers in a form can be told apart: no two side by side, none beside a digit or a point."""
    parts = re.split(r"\{\w+\}", form)
    inner = parts[1:-1]
    beside = "".join(part[:1] + part[-1:] for part in inner) + parts[0][-1:] + parts[-1][:1]
    return all(inner) and not any(c.isdigit() or c == "." for c in beside)


def _time_text(rule: ItemRule, reader: Reader) -> None:
    if not _parted(rule.time_text):
        what = f"time_text is {rule.time_text!r}; put marks that are no digits between and around its numbers"
        raise reader.error("video", "time_text", what)
    fields = set(re.findall(r"\{(\w*)\}", rule.time_text))
    if fields not in ({"seconds"}, {"minutes", "second"}):
        raise reader.error(
            "video",
            "time_text",
            f"time_text is {rule.time_text!r}; it must hold {{seconds}}, or {{minutes}} and {{second}}",
        )
    begin = rule.time_text.split("{")[0]
    if not begin or begin.strip() != begin or any(c.isdigit() for c in begin):
        what = f"time_text is {rule.time_text!r}; it must begin with a mark of its own, like '<' or '['"
        raise reader.error("video", "time_text", what)


def _shared(spec: LayoutSpec, reader: Reader) -> None:
    """Two kinds may begin with one control only where what follows tells them apart."""
    pictures = [kind for kind in ("image", "video") if kind in spec.kinds and not spec.rule(kind).as_video]
    if len(pictures) == 2 and not any(
        controls_in(spec, spec.rule(kind).open) or controls_in(spec, spec.rule(kind).frame_open) for kind in pictures
    ):
        what = "neither [image] nor [video] has a control in open, and the codes of one may be the other's; give one"
        raise reader.error("video", "open", f"{what} a control, or write [image] as_video")
    marks: dict[str, str] = {}
    for kind in spec.kinds:
        rule = spec.rule(kind)
        if rule.as_video:
            if "video" not in spec.kinds:
                raise reader.error("image", "as_video", "[image] with as_video needs a table [video]")
            continue
        for control in {*controls_in(spec, rule.open), *controls_in(spec, rule.frame_open)}:
            other = marks.setdefault(control, kind)
            if other == kind:
                continue
            if not (only_soft(spec, kind) and only_soft(spec, other)):  # their placeholders tell them apart
                key = "open" if control in rule.open else "frame_open"
                raise reader.error(
                    kind,
                    key,
                    f"{control!r} is {key} of [{kind}] and open of [{other}]; a row could be read in two ways, give"
                    " one of them its own control",
                )


def _leads(spec: LayoutSpec, reader: Reader) -> None:
    """Text before a control is taken off the text before it, which must then be open-ended."""
    if "text" not in spec.kinds or not spec.text.open:
        return
    for kind in spec.kinds:
        rule = spec.rule(kind)
        for key in ("open", "frame_open"):
            literal = getattr(rule, key)
            if literal and literal[0] not in spec.vocabulary.controls:
                what = f"{key} of [{kind}] begins with text, and a text before it has an open and no end of its own"
                raise reader.error(kind, key, f"{what}; drop open of [text]")
        if kind == "video" and rule.time_form == "text" and not controls_in(spec, rule.open):
            raise reader.error(kind, "time_form", "text times before a frame's control need [text] without an open")


def _document(spec: LayoutSpec, reader: Reader) -> None:
    document = spec.document
    for key in ("continued", "padding"):
        if not getattr(document, key):
            raise reader.error("document", key, f"{key} of [document] is empty; it needs a delimiter")
    if spec.streams.sounds and document.unwritten != "refuse":
        raise reader.error("document", "unwritten", "parallel streams leave nothing out; drop unwritten")
    if spec.streams.sounds and document.end:
        raise reader.error("document", "end", 'parallel streams have no end of their own; set end to ""')
    if bool(document.task_media_last) != bool(document.task_other) or (document.task_text and not document.task_other):
        key = "task_other" if document.task_media_last else "task_media_last"
        raise reader.error("document", key, f"a task control is missing: {key} of [document] needs one")


def _turns(spec: LayoutSpec, reader: Reader) -> None:
    turns = spec.turns
    for role in turns.learn:
        if role not in _ROLES:
            raise reader.error("turns", "learn", f"learn has {role!r}; it may hold {list(_ROLES)}")
    if not turns.open and not turns.close:
        return
    if turns.open and turns.open[0] not in spec.vocabulary.controls:
        raise reader.error("turns", "open", "open of [turns] must begin with a control, or a turn cannot be found")
    if turns.open and not any("{role}" in part for part in turns.open):
        raise reader.error("turns", "open", "open of [turns] does not name the {role}; add it")
    if turns.open and not turns.close:
        raise reader.error("turns", "close", "[turns] has an open and no close; where a turn ends could not be seen")
    if turns.close and turns.close[0] not in spec.vocabulary.controls:
        raise reader.error("turns", "close", "close of [turns] must begin with a control, or its text is the item's")
    if spec.streams.sounds:
        raise reader.error("turns", "open", "[turns] and [streams] go not together; drop one")


def _soft(spec: LayoutSpec, reader: Reader) -> None:
    for kind in ("image", "video", "audio"):
        soft, table = getattr(spec.soft, kind), f"soft.{kind}"
        if soft == type(soft)():
            continue
        if kind not in spec.kinds:
            raise reader.error(table, "", f"[{table}] is there and [{kind}] is not; add a table [{kind}]")
        if not soft.placeholder:
            raise reader.error(table, "placeholder", f"[{table}] has no placeholder; it needs a control")
        rule = spec.rule(kind)
        if rule.grid != "any" or rule.size_unit != 1:
            key = "grid" if rule.grid != "any" else "size_unit"
            raise reader.error(
                kind, key, f"{key} of [{kind}] is of codes, and [{table}] takes it soft; drop one of them"
            )
        if not controls_in(spec, rule.open) and not (kind == "video" and controls_in(spec, rule.frame_open)):
            raise reader.error(kind, "open", f"[{kind}] has no control in open, which its soft positions need; add one")
        if kind in ("image", "video") and spec.image.as_video and "image" in spec.kinds:
            raise reader.error("image", "as_video", f"[image] is written as_video, and [{table}] is soft; drop one")
        amounts = [getattr(soft, key) for key in ("patch", "frames", "samples") if hasattr(soft, key)]
        if min(amounts) < 0 or not max(amounts):
            raise reader.error(table, "", f"[{table}] says not what a position holds; set it to 1 or more")
        if kind == "audio" and soft.frames and soft.samples:
            raise reader.error(table, "samples", "[soft.audio] has frames and samples; choose one")
        if kind == "video" and (not soft.patch or not soft.frames):
            raise reader.error(table, "patch", "[soft.video] needs patch and frames of 1 or more")
    if spec.soft.image.size and sides(spec.soft.image.size) == (0, 0):
        raise reader.error("soft.image", "size", f'size is {spec.soft.image.size!r}; it must be like "896x896"')


def _merge(spec: LayoutSpec, reader: Reader) -> None:
    merge = spec.merge
    if merge.of == "video_audio":
        for kind in ("video", "audio"):
            if kind not in spec.kinds:
                raise reader.error("merge", "of", f"merging needs a table [{kind}]; add it")
        if merge.chunk_s <= 0:
            raise reader.error("merge", "chunk_s", f"chunk_s is {merge.chunk_s}; it must be above 0")
        for kind, times in (("video", "frames"), ("audio", "start")):
            if spec.rule(kind).times != times:
                what = f'times of merged {kind} is {spec.rule(kind).times!r}; set it to "{times}", or the order is lost'
                raise reader.error(kind, "times", what)
        if not controls_in(spec, spec.video.open):
            raise reader.error("video", "open", "a merged video needs a control in open")
    elif merge.chunk_s:
        raise reader.error("merge", "chunk_s", 'chunk_s is for of = "video_audio"; drop it')
    if merge.of == "units":
        if "audio" not in spec.kinds or not controls_in(spec, spec.audio.open):
            raise reader.error("merge", "of", "merged units need a table [audio] with a control in open")
        if spec.audio.times != "none" or spec.audio.codebooks != "interleaved" or spec.audio.after_header:
            raise reader.error("audio", "times", "merged units have neither times nor codebook orders; drop them")


def _streams(spec: LayoutSpec, reader: Reader) -> None:
    streams = spec.streams
    if streams == type(streams)():
        return
    if streams.sounds < 1:
        raise reader.error("streams", "sounds", f"sounds is {streams.sounds}; it must be at least 1")
    for key in ("initial", "fill", "text_fill", "text_word"):
        if not getattr(streams, key):
            raise reader.error("streams", key, f"[streams] has no {key}; it needs a control")
    if "audio" not in spec.kinds:
        raise reader.error("streams", "sounds", "[streams] needs a table [audio]; add it")
    if not spec.document.begin:
        raise reader.error("document", "begin", "[streams] needs a begin: it opens the text's stream")
    if not 0 <= streams.learn <= streams.sounds:
        raise reader.error("streams", "learn", f"learn is {streams.learn}; it must lie between 0 and {streams.sounds}")
    if not streams.delays or min(streams.delays) < 0:
        raise reader.error("streams", "delays", "delays of [streams] must be a list of 0 and above, like [0, 1]")
    if extra := [kind for kind in spec.kinds if kind in ("image", "video")]:
        raise reader.error(extra[0], "", f"[{extra[0]}] has no place in parallel streams; drop it")
    for kind in spec.kinds:
        if spec.rule(kind) != ItemRule():
            raise reader.error(kind, "", f"[{kind}] of a layout with [streams] is written without delimiters; empty it")
    if spec.merge.of != "none" or spec.positions.plan != "linear":
        raise reader.error("streams", "", "[streams] is one clock already: drop [merge], and set positions to linear")
    if spec.attention.blocks or spec.attention.prefix:
        key = "blocks" if spec.attention.blocks else "prefix"
        raise reader.error("attention", key, f"parallel streams are causal; drop {key}")


def _attention(spec: LayoutSpec, reader: Reader) -> None:
    for kind in spec.attention.blocks:
        if kind not in MEDIA[1:]:
            raise reader.error("attention", "blocks", f"blocks has {kind!r}; it may hold {list(MEDIA[1:])}")
        soft_only = getattr(spec.soft, kind, None) not in (None, type(getattr(spec.soft, kind))())
        if getattr(spec.loss, kind) and not soft_only and kind in spec.kinds and not spec.attention.masked:
            raise reader.error(
                "attention",
                "blocks",
                f"codes of {kind} that see one another would be copied from the place after them: set {kind} = 0.0 in"
                " [loss], or masked = true here if your trainer masks them",
            )
    for role in spec.attention.prefix:
        if role not in _PREFIX:
            raise reader.error("attention", "prefix", f"prefix has {role!r}; it may hold {list(_PREFIX)}")
