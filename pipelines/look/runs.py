"""Opening a run to look at it: a run file, or the folder of a run with what it has left out. No model is loaded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import mmdata
from pipelines.build.progress import Bar, Progress
from pipelines.train.quarantine import read_quarantine
from pipelines.train.run import Run, load_run, make_loader


def open_run(path: Path, data_shards: int = 1, progress: bool = True) -> tuple[Run, mmdata.Loader, list[str]]:
    """(run, its training Loader, the sources whose plan was not cached and has been made, with a bar on a terminal)."""
    run = load_run(path)
    made: list[str] = []
    with ExitStack() as stack:
        loader = make_loader(
            run,
            shard=(0, data_shards),
            quarantine=read_quarantine(run.file.parent) if run.file.name == "run.toml" else (),
            progress=_told(stack, progress, made),
        )
    return run, loader, made


def _told(stack: ExitStack, shown: bool, made: list[str]) -> Callable[[str, int, int], None]:
    """The Loader's `progress`: a bar a source, over the windows of its plan; none where every plan is cached."""
    bars: dict[str, Bar] = {}
    opened: list[Progress] = []

    def told(source: str, done: int, windows: int) -> None:
        if not opened:
            opened.append(stack.enter_context(Progress(shown)))
        if source not in bars:
            made.append(source)
            bars[source] = opened[0].begin(source, windows)
        bars[source].advance()

    return told
