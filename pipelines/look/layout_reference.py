"""docs/layouts.md: what a layout file may say, out of the dataclasses that hold it (tokenizer/grammar.py).

A key's meaning is what `_MEANINGS` says, or else the comment on its line in the dataclass; `_MEANINGS` is for keys
without a comment, and for those whose comment only lists words. A test says whether the page is up to date.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from typing import Any

from pipelines.look.layouts import list_layouts
from tokenizer import grammar
from tokenizer.grammar import ItemRule, LayoutSpec, SoftRule, layout_text

_INTRODUCTION = """# Layouts

A **layout** says what a document looks like as a row of ids: which ids there are, which delimiters stand around an
item, what a picture's header says, in which order codes come, how times are written, what is a target and with which
weight, where tokens stand (positions) and which of them see one another. It is a TOML file; codes are stored without
one, so one dataset serves every layout. `mmdata layout list` names the shipped ones, and `mmdata layout show NAME`
prints what a layout keeps, its ids, what pictures and film cost, and a short row of it, token by token.

## One of your own

```sh
mmdata layout show mmdata --toml > my.toml    # a copy to change; any shipped one will do
mmdata layout show my.toml                    # what became of it, or the line that is wrong
```

Then `layout = "my.toml"` in a run file, or `mmdata.Loader(..., layout="my.toml")`. Give it a name of its own. What is
left out has its default; an unknown key names the nearest known one. A kind (`text`, `image`, `audio`, `video`) is
written if its table is in the file, an empty table too; an item of another kind is refused, or left out of rows with
`unwritten = "leave_out"` in `[document]`. Another layout
is another digest, and so another plan and another run: change a file before training, not during it.

## Literals

A **control** is an id of its own, named in `vocabulary.controls`. Names are appended at the end of that list, so that
no id moves; up to `control_places` of them. With `specials = "text"` a control that the text codec has as a special
token has that token's id. A **literal** is what a delimiter is made of: a control's name, a text, or a list of both:

```toml
open = "<image>"                        # one control
open = ["\\n\\n", "<start_of_image>"]     # the pieces of a text, then a control
```

Text in a literal goes through the text codec by itself, as do headers (`"16*16"`) and times (`"[00:05]"`) in words,
so its ids are those of the dataset's vocabulary. Only controls are found by a reader: nearly every delimiter needs
one. Control ids come only from the layout: a text that spells `<image>` stays text.

## Pieces

A document longer than a row goes on in another: it is cut between items, else between frames or seconds, else after a
sentence or a token of text. A piece that does not begin its document begins with `continued` in place of `begin`, and
repeats the header of an item it goes on with, with absolute times; one that does not end its document ends with
`continued` in place of `end`, and leaves a cut item unclosed. Each code stands in exactly one piece. Lengths are
known without rendering; what is drawn by chance (`[choices]`) never makes a row longer.

## Reading a row back

`layout.parse(ids)` gives the items of any ids, and the problems: what is malformed, and at which token. It never
fails, for a model may write anything: what cannot be understood is left out, and reading goes on at the next control.
What a layout *keeps* (`mmdata layout show`) comes back exactly: kind, order, codes and grid, times to the quantum
that it writes. The rest (uris, digests, groups; roles where turns are not written; the seam of two texts without a
delimiter) stays in the dataset, not in the row.

## What is refused

When the file is read, with its line and the change that mends it: a delimiter that is no control, a control with two
jobs, a picture whose grid nothing says (`header`, `grid` or `row_end`), items whose end cannot be found, a text
header or time without a control around it, kinds that see one another and are copied as targets, and tables that go
not together. When data meets the layout, naming the item: a kind it does not write, a codec it is not bound to, a
grid it cannot write (not square, not a multiple of `size_unit`), a soft item where there is no `[soft]` table or
codes where there must be soft ones, a video without times where they are written in words.
"""

_ABOUT = {
    "ItemRule": "Each has the same keys; some are for some kinds only. Pictures are images and videos.",
    "PositionRule": "Where tokens stand.",
    "ChoiceRule": "What is drawn anew in each epoch, from the seed, the sample and the epoch alone.",
}

_MEANINGS = {
    "LayoutSpec.name": "what it is called",
    "LayoutSpec.version": "yours to raise; part of the digest",
    "LayoutSpec.text_codec": "the only text codec it takes, `NAME@REVISION`; empty: the dataset's own",
    "VocabularyPlan.controls": "names of the control ids, in order",
    "VocabularyPlan.control_places": "ids kept for controls: names may be appended up to here and move no id",
    "VocabularyPlan.sizes": "ids of sizes, 0 up to one less; 0: none",
    "VocabularyPlan.time_hi": "ids of the high digit of a time; 0: times have no ids",
    "VocabularyPlan.time_lo": "ids of the low digit: times go up to `time_hi * time_lo - 1` steps, later ones saturate",
    "VocabularyPlan.time_quantum_s": "seconds of a step of time, also of times in words",
    "VocabularyPlan.specials": 'with `"text"`, a control that the text codec has as a special token has its id there',
    "VocabularyPlan.multiple": "the number of all ids is rounded up to a multiple of it",
    "DocumentRule.begin": "control before the first item; empty: none",
    "DocumentRule.end": "control after the last item; empty: none",
    "DocumentRule.continued": "control in place of `begin` and `end` where a document is cut",
    "DocumentRule.padding": "control that fills a row; may be that of `end`",
    "DocumentRule.task_text": "control after `begin` of a document of text alone; empty: none",
    "DocumentRule.task_media_last": "the same, of a document whose last item is no text",
    "DocumentRule.task_other": "the same, of any other document",
    "TurnRule.close": "after the last item of a turn",
    "TurnRule.system": "what {role} becomes in a system turn",
    "TurnRule.user": "the same, of the user",
    "TurnRule.assistant": "the same, of the assistant",
    "ItemRule.open": "before an item",
    "ItemRule.close": "after its last code; none: the next control ends it",
    "ItemRule.header": "what a picture says of its height and width: two size ids, or `header_text`",
    "ItemRule.header_text": "the header in words; holds {h} and {w}, in codes",
    "ItemRule.after_header": "between header and codes; ends a header in words",
    "ItemRule.grid": 'what need not be said: square (the number of codes tells its side), or one size, like `"32x32"`',
    "ItemRule.frame_open": "before each frame of a video",
    "ItemRule.frame_close": "after each frame",
    "ItemRule.order": "of the codes of a grid: by rows, by columns, to and fro, along a Hilbert curve",
    "ItemRule.codebooks": "order of several codebooks: all of a place, one after the other, or each later by its delay",
    "ItemRule.times": "where items have them: of a text `start` or `start_end`, of sound `start`, of a video `frames`",
    "ItemRule.time_form": "of frames: two ids, or `time_text` in words",
    "ItemRule.time_text": "a time in words; holds {seconds}, or {minutes} and {second}; begins with a mark, like `<`",
    "SoftImage.placeholder": "control at each soft position",
    "SoftImage.patch": "pixels on a side of the square of one position",
    "SoftVideo.placeholder": "control at each soft position",
    "SoftVideo.patch": "pixels on a side of the square of one position",
    "SoftVideo.frames": "frames merged in one position",
    "SoftAudio.placeholder": "control at each soft position",
    "SoftAudio.frames": "log-mel frames of one position, 20 ms each; or `samples`",
    "SoftAudio.samples": "samples of one position, as they are",
    "MergeRule.of": "a video and the sound after it, in chunks; or sounds of several codecs at one time, unit by unit",
    "MergeRule.chunk_s": "seconds of a chunk: its frames, then its sound",
    "PositionRule.plan": "`linear`: 0, 1, 2, ...; `grid`: (row, column) of codes; `three_axis`: (time, height, width),"
    " as Qwen2-VL; `one_per_item`: one position an image or frame; `restart`: each frame begins where the first began",
    "PositionRule.after": "where text after a grid goes on: behind the largest position of all axes, or of height and"
    " width only",
    "PositionRule.time": "the time axis of three_axis counts frames, or seconds",
    "PositionRule.per_second": 'steps a second of `time = "seconds"`',
    "LossRule.begin": "`begin` and task controls",
    "LossRule.continued": "`continued`",
    "LossRule.end": "`end`",
    "LossRule.delimiters": "what opens and closes an item",
    "LossRule.size": "headers",
    "LossRule.time": "times",
    "LossRule.text": "codes of texts",
    "LossRule.image": "codes of images",
    "LossRule.audio": "codes of sounds",
    "LossRule.video": "codes of videos",
    "LossRule.soft": "soft positions",
    "ChoiceRule.order": "of a caption and what it belongs to, in a group: as given, or either of them first",
    "ChoiceRule.condition_dropout": "share of the groups that lose their conditions",
}

_TYPES = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "Literal": "literal",
    "tuple[str, ...]": "list of text",
    "tuple[int, ...]": "list of whole number",
    "tuple[float, ...]": "list of number",
}
_CHOICES = re.compile(r"(?:^|: )(\w+(?:(?:: [\w ,]+?| [\w ]+?)? \| \w+)+)")


def layouts_page() -> str:
    """The whole page, Markdown."""
    blocks = [_INTRODUCTION, "## Shipped layouts", _shipped()]
    blocks += ["## Keys", "At the top of the file:"]
    fields = [f for f in dataclasses.fields(LayoutSpec) if f.init and f.name != "kinds"]  # kinds: the tables there are
    blocks.append(_table(LayoutSpec, [f.name for f in fields if _rule(f) is None]))
    kinds = [f.name for f in fields if _rule(f) is ItemRule]
    for f in fields:
        rule = _rule(f)
        if rule is ItemRule and f.name == kinds[0]:
            blocks += ["### " + ", ".join(f"`[{kind}]`" for kind in kinds), *_about(rule), _table(rule)]
        elif rule is SoftRule:
            for inner in dataclasses.fields(rule):
                blocks += [f"### `[{f.name}.{inner.name}]`", *_about(_rule(inner)), _table(_rule(inner))]
        elif rule not in (None, ItemRule):
            blocks += [f"### `[{f.name}]`", *_about(rule), _table(rule)]
    blocks += ["## The default layout", f"```toml\n{layout_text('mmdata')}```"]
    return "\n\n".join(block.strip() for block in blocks) + "\n"


def stale_meanings() -> set[str]:
    """Keys of `_MEANINGS` that no dataclass has."""
    names = {key.split(".")[0] for key in _MEANINGS}
    return set(_MEANINGS) - {f"{name}.{f.name}" for name in names for f in dataclasses.fields(getattr(grammar, name))}


def _shipped() -> str:
    rows = [
        f"| `{found['name']}` | {', '.join(found['kinds'])} | {_cell(found['about'])} |" for found in list_layouts()
    ]
    return "\n".join(["| name | writes | what it is |", "|---|---|---|", *rows])


def _rule(f: dataclasses.Field[Any]) -> Any:
    """The dataclass of a table, None of a plain value."""
    found = getattr(grammar, str(f.type), None)
    return found if dataclasses.is_dataclass(found) else None


def _about(rule: Any) -> list[str]:
    """What a table is for, by its dataclass."""
    words = " ".join((rule.__doc__ or "").split("\n\n")[0].split())
    own = "" if words.startswith(f"{rule.__name__}(") else words  # what dataclass() writes itself
    return [said for said in (own, _ABOUT.get(rule.__name__, "")) if said]


def _table(rule: Any, keys: list[str] | None = None) -> str:
    """Markdown rows of some keys of a dataclass (all of them without `keys`)."""
    comments = dict(re.findall(r"^    (\w+): [^#\n]*  # (.+)$", inspect.getsource(rule), re.MULTILINE))
    rows = []
    for f in dataclasses.fields(rule):
        if keys is not None and f.name not in keys:
            continue
        comment = comments.get(f.name, "")
        meaning = _MEANINGS.get(f"{rule.__name__}.{f.name}") or comment.replace(" | ", " or ")
        rows.append(f"| `{f.name}` | {_type(f, comment)} | {_default(f)} | {_cell(meaning)} |")
    return "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows])


def _type(f: dataclasses.Field[Any], comment: str) -> str:
    """A type in words; the words to choose from, where the comment lists them."""
    found = _CHOICES.search(comment) if f.type == "str" else None
    words = [re.split(r"[: ]", part)[0] for part in found[1].split(" | ")] if found else []
    if words and f.default in words:
        return " or ".join(f'`"{word}"`' for word in words)
    return _TYPES[str(f.type)]


def _default(f: dataclasses.Field[Any]) -> str:
    if f.default is dataclasses.MISSING:
        return "required"
    if f.type == "Literal" and not f.default:
        return "none"
    value = list(f.default) if isinstance(f.default, tuple) else f.default
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _cell(words: str) -> str:
    return " ".join(words.split()).replace("|", "\\|")
