"""Progress bars of a build or a check, one a stage, on stderr: silent when it is no terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Bar:
    """One stage."""

    def __init__(self, bars: Any, task: Any) -> None:
        self._bars, self._task = bars, task

    def advance(self) -> None:
        if self._bars is not None:
            self._bars.advance(self._task)

    def finish(self) -> None:
        if self._bars is not None:
            self._bars.refresh()


class Progress:
    """Shows the bars while it is entered, if `shown` and stderr is a terminal."""

    def __init__(self, shown: bool) -> None:
        self._bars: Any = None
        if shown:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bars

            console = Console(stderr=True)
            if console.is_terminal:
                columns = (TextColumn("{task.description:8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
                self._bars = Bars(*columns, console=console)

    def begin(self, stage: str, total: int) -> Bar:
        return Bar(self._bars, self._bars.add_task(stage, total=total) if self._bars is not None else None)

    def follow(self, stage: str) -> Callable[[int, int], None]:
        """A function that is told (done, total) and shows it."""
        bars: list[Bar] = []

        def tell(done: int, total: int) -> None:
            if not bars:
                bars.append(self.begin(stage, total))
            bars[0].advance()

        return tell

    def __enter__(self) -> Progress:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()
