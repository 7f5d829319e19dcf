"""What a training shows: a bar with the loss by kind on a terminal, nothing elsewhere, and a table at the end."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


class TrainingBar:
    """Steps done of all, with the loss by kind and tokens a second."""

    def __init__(self, done: int, steps: int, shown: bool = True) -> None:
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[words]}"),
            console=Console(stderr=True),
            disable=not (shown and sys.stderr.isatty()),
        )
        self._task = self._bar.add_task("training", total=steps, completed=done, words="compiling")

    def __enter__(self) -> TrainingBar:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def show(self, done: int, line: Mapping[str, Any]) -> None:
        """After a step: its line of metrics.jsonl."""
        losses = " ".join(f"{kind} {loss:.2f}" for kind, loss in line["loss"].items())
        self._bar.update(self._task, completed=done, words=f"{losses} · {line['tokens_per_s']:,.0f} tokens/s")

    def say(self, words: str) -> None:
        self._bar.update(self._task, words=words)


def print_summary(summary: Mapping[str, Any], folder: Any) -> None:
    """Steps, speed, and loss beside baseline by kind."""
    console = Console()
    console.print(
        f"{summary['steps']:,} steps, {summary['tokens']:,} tokens, {summary['seconds']:,.0f} s;"
        f" loss {summary['first_loss']:.3f} -> {summary['last_loss']:.3f}; the run is in {folder}",
        highlight=False,
    )
    if not summary["validation"]:
        console.print("no validation split: build with validation > 0 to have one measured")
        return
    table = Table("kind", "loss (nats)", "baseline", "better by", "which baseline", "validation tokens", box=None)
    for kind, row in summary["validation"].items():
        baseline = row["baseline"]
        known = (f"{baseline:.3f}", f"{baseline - row['loss']:+.3f}") if baseline is not None else ("", "")
        table.add_row(kind, f"{row['loss']:.3f}", *known, row["baseline_name"], f"{row['tokens']:,}")
    console.print(table)
