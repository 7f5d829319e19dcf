"""Opening a run to look at it: a run file, or the folder of a run with what it has left out. No model is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import mmdata
from mmdata.errors import UserError
from pipelines.build.progress import Bar, Progress
from pipelines.train.run import Run, load_run, make_loader

QUARANTINE = "quarantine.jsonl"  # of a run's folder: an entry a line, as in a Loader's state


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


def read_quarantine(folder: Path) -> list[dict[str, Any]]:
    """The entries of a run folder's quarantine.jsonl, if there is one; a last line that a kill cut off is left out."""
    path = folder / QUARANTINE
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise UserError(f"{path}, line {number}, is no JSON ({error.msg}): mend or delete that line") from None
    return entries


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
