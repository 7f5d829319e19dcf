"""What a build left out for its evaluation sets, by benchmark: for OUT/report.json and the closing table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = 5  # files that are named


def by_benchmark(index_counts: dict[str, Any], counts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """`benchmarks`: name -> its `items`, those that are too `short` to be told, and the documents `left_out`, each
    counted for every benchmark that it meets; `unread`: [evaluation file, why it is not compared].

    Out of the counts of the unit of benchmarks and of those of all units of the decontamination.
    """
    met: Counter[str] = Counter()
    for unit in counts:
        met.update(unit.get("met", {}))
    rows = {
        name: {"items": items, "short": short, "left_out": met[name]}
        for name, (items, short) in index_counts.get("benchmarks", {}).items()
    }
    return {"benchmarks": rows, "unread": index_counts.get("unread", [])}


def print_by_benchmark(console: Console, found: dict[str, Any]) -> None:
    """The table of `by_benchmark`; nothing where nothing was held against evaluation sets."""
    if not found:
        return
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table("benchmark", "items", "too short", "left out", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in table.columns[1:]:
        column.justify = "right"
    for name, row in found["benchmarks"].items():
        table.add_row(escape(name), *(f"{row[key]:,}" for key in ("items", "short", "left_out")))
    console.print(table)
    for words in unread_words(found["unread"]):
        console.print(f"  {escape(words)}", soft_wrap=True, highlight=False)


def unread_words(unread: Sequence[Sequence[str]]) -> list[str]:
    """A line each for the first evaluation files that are not compared, and one for the others."""
    lines = [f"evaluation file {name}: {why}" for name, why in unread[:_SHOWN]]
    more = len(unread) - _SHOWN
    return [*lines, f"{more:,} more evaluation files are not compared; the JSON report has all"] if more > 0 else lines
