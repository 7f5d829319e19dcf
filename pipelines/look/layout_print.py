"""A layout on paper: what layouts.py found, in colours where the terminal has them, and without as clear."""

from __future__ import annotations

import re
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pipelines.look.layouts import Budget, Shown, Token, item_words, list_layouts, meaning
from tokenizer.item import KINDS
from tokenizer.layout import Layout

COLOURS = {"text": "green", "image": "magenta", "audio": "cyan", "video": "yellow", "control": "bright_blue"}
_WIDTH = 100  # columns
_RUN = 12  # tokens of one kind in a row that are all shown; of longer runs the first and the last
_SHOWN = (4, 1)
_AXES = {"grid": " (h, w)", "three_axis": " (t, h, w)"}


def print_layouts() -> None:
    """The shipped layouts, a line each."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column()
    for found in list_layouts():
        about = re.sub(r" \(([^;)]*);[^)]*\)", r" (\1)", found["about"])  # of its sources the first
        table.add_row(found["name"], ", ".join(found["kinds"]), Text(about))
    _console().print(table)


def print_layout(shown: Shown) -> None:
    """Everything for people: with colours where the terminal has them, and without as clear."""
    console, layout = _console(), shown.layout
    _line(console, f"{layout.spec.name}, version {layout.spec.version}", "bold")
    _line(console, f"digest {shown.digest[:16]}, over these codecs {layout.digest[:16]}")
    _line(console, f"codecs {', '.join(_codec_words(shown, c.name) for c in layout.codecs)}")
    if shown.bound.other_text:
        _line(console, f"its text codec {shown.bound.other_text} is no shipped one: texts here are of another")
    console.print()
    _line(console, "keeps", "bold")
    for line in layout.keeps:
        _line(console, line, indent=2)
    console.print()
    _line(console, "ids", "bold")
    _print_ranges(console, layout)
    if lines := budget_lines(shown.budget):
        _line(console, "budget", "bold")
        for line in lines:
            _line(console, line.lstrip(), indent=2 + len(line) - len(line.lstrip()))
        console.print()
    _line(console, "example", "bold")
    _print_example(console, shown)


def budget_lines(budget: Budget) -> list[str]:
    """The budget in words, a line a fact."""
    lines = []
    if budget.image:
        lines.append(f"an image of {budget.image_codes} codes: {budget.image} tokens")
    if budget.second:
        sounded, sound = (", with its sound", f" + {budget.sound} codes of sound") if budget.sound else ("", "")
        parts = f"{budget.frame} codes of a frame + {budget.time} around it (time, delimiters){sound}"
        lines.append(f"a second of video at 1 frame a second{sounded}: {budget.second} tokens")
        lines += [f"  {parts}", f"  {budget.seconds} s of it in a row of {budget.row:,}"]
    if (said := budget.published) is not None:
        lines.append(f"published for the original: {said.second} tokens a second")
        lines.append(f"  {said.frame} of a frame + {said.time} of its time + {said.sound} of sound ({said.source})")
        lines.append(f"  {budget.row // said.second} s of it in a row of {budget.row:,}")
    return lines


def _print_ranges(console: Console, layout: Layout) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    table.add_column("range", no_wrap=True)
    for name in ("ids", "size"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("meaning", overflow="fold")
    for r in layout.vocabulary.ranges:
        if r.size:
            table.add_row(r.name, f"{r.start:,}-{r.stop - 1:,}", f"{r.size:,}", Text(meaning(layout, r)))
    table.add_row("all", "", f"{layout.vocabulary.size:,}", f"a multiple of {layout.spec.vocabulary.multiple}")
    console.print(table)


def _print_example(console: Console, shown: Shown) -> None:
    layout, found = shown.layout, shown.example
    facts = Table.grid(padding=(0, 2))
    facts.add_row("document", Text("\n".join(item_words(shown.bound, item) for item in found.items)))
    if layout.spec.choices != type(layout.spec.choices)():
        facts.add_row("choice", _choice_words(shown))
    read = "; ".join(found.problems) or "no problem"
    what = "columns" if layout.num_streams > 1 else "tokens"
    facts.add_row("row", Text(f"{len(found.row)} {what}; read back: {read}"))
    words = [Text(f"{kind} {COLOURS[kind].replace('_', ' ')}", COLOURS[kind]) for kind in (*layout.kinds, "control")]
    facts.add_row("colours", Text(", ").join(words))
    console.print(Padding(facts, (0, 0, 0, 2), expand=False))
    console.print(_matrix(shown) if layout.num_streams > 1 else _list(shown))


def _choice_words(shown: Shown) -> str:
    """What was chosen for the example, of what."""
    rule, choice = shown.layout.spec.choices, shown.example.choice
    words = [f"group {group}: {order.replace('_', ' ')}" for group, order in choice.order]
    words += [f"group {group}: condition dropped" for group in choice.dropped]
    could = ["captions first or last"] if rule.order == "either" else []
    could += [f"conditions dropped in {rule.condition_dropout:.0%}"] if rule.condition_dropout else []
    return f"{', '.join(words) or 'as given'} (drawn: {', '.join(could) or 'nothing'})"


def _list(shown: Shown) -> Table:
    """A row of one id a place: a line a token, long runs cut short."""
    layout, tokens = shown.layout, shown.tokens
    blocks, soft = layout.needs_blocks, bool(layout.soft_shapes)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    table.add_column("position" + _AXES.get(layout.spec.positions.plan, ""), justify="right", no_wrap=True)
    table.add_column("id", justify="right", no_wrap=True)
    table.add_column("token", overflow="fold")
    table.add_column("kind", no_wrap=True)
    for name, there in (("loss", True), ("block", blocks), ("soft", soft)):
        if there:
            table.add_column(name, justify="right", no_wrap=True)
    for run in _runs(tokens, layout):
        for token in run if len(run) <= _RUN else run[: _SHOWN[0]]:
            table.add_row(*_cells(token, blocks, soft), style=COLOURS[token.kind])
        if len(run) > _RUN:
            more = len(run) - sum(_SHOWN)
            table.add_row("", "", f"... {more} more", run[0].kind, style=COLOURS[run[0].kind])
            table.add_row(*_cells(run[-1], blocks, soft), style=COLOURS[run[-1].kind])
    return table


def _cells(token: Token, blocks: bool, soft: bool) -> list[str | Text]:
    cells: list[str | Text] = [" ".join(map(str, token.position)), str(token.id), Text(token.meaning), token.kind]
    cells.append(f"{token.loss:g}")
    cells += [str(token.block)] if blocks else []
    return [*cells, "" if token.soft_index is None else str(token.soft_index)] if soft else cells


def _runs(tokens: list[Token], layout: Layout) -> list[list[Token]]:
    """Neighbours that are alike: of one kind, codec, block, all soft or none."""

    def alike(token: Token) -> tuple[Any, ...]:
        return token.kind, token.range.rpartition("/")[0] or token.range, token.block, token.soft_index is None

    runs: list[list[Token]] = []
    for token in tokens:
        if runs and token.kind != "control" and alike(runs[-1][-1]) == alike(token):
            runs[-1].append(token)
        else:
            runs.append([token])
    return runs


def _matrix(shown: Shown) -> Table:
    """Parallel streams: a line a stream, a column a place; in a cell what stands there and its id."""
    layout, row = shown.layout, shown.example.row
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    table.add_column("position\nkind", no_wrap=True)
    for index in range(len(row)):
        table.add_column(f"{row.positions[index]}\n{KINDS[row.kinds[index]]}", overflow="fold")
    table.add_column("loss", justify="right", no_wrap=True)
    K = max(layout.sound_codebooks, 1)
    for stream in range(layout.num_streams):
        tokens = [token for token in shown.tokens if token.stream == stream]
        weights = sorted({token.loss for token in tokens[1:]})
        name = "text" if stream == 0 else f"sound {(stream - 1) // K}/{(stream - 1) % K}"
        said = [t.meaning.rpartition(":")[2] if t.kind == "audio" else t.meaning for t in tokens]
        cells = [Text(f"{words}\n{t.id}", COLOURS[t.kind]) for words, t in zip(said, tokens)]
        table.add_row(f"{name}\n  id", *cells, " ".join(f"{weight:g}" for weight in weights))
    return table


def _codec_words(shown: Shown, name: str) -> str:
    return f"{name} (made up)" if name in shown.bound.made_up else name


def _line(console: Console, words: str, style: str = "", indent: int = 0) -> None:
    console.print(Padding(Text(words, style), (0, 0, 0, indent), expand=False))


def _console() -> Console:
    """At most 100 columns; a pipe has no width of its own."""
    console = Console(highlight=False)
    console.width = min(console.width, _WIDTH) if console.is_terminal else _WIDTH
    return console
