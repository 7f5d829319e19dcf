"""The ledger: every input (file, record or part) that did not make it, with stage, reason and detail.

A stage's unit writes its lines into `dropped.jsonl` of its output; at the end they are joined, in the order of stages
and units, into OUT/ledger/<source>.jsonl. So the ledger too is the same bytes for any number of workers.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmdata.commit import commit, temporary, writing
from pipelines.build.units import LineWriter, read_lines
from pipelines.ingest.document import Dropped

DROPPED = "dropped.jsonl"


class LedgerWriter:
    """A unit's ledger lines into its output, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._lines = LineWriter(folder / DROPPED)
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> dict[str, int]:
        """By reason."""
        return dict(sorted(self._counts.items()))

    def write(self, dropped: Dropped) -> None:
        self._lines.write(asdict(dropped))
        self._counts[dropped.reason] += 1

    def __enter__(self) -> LedgerWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()


def write_dropped(folder: Path, dropped: Iterable[Dropped]) -> dict[str, int]:
    """A unit's ledger lines into its output; returns counts by reason."""
    with LedgerWriter(folder) as ledger:
        for one in dropped:
            ledger.write(one)
    return ledger.counts


def write_ledger(path: Path, folders: Iterable[Path]) -> None:
    """Join the lines of the units' output folders, in their order, into `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path), temporary(path).open("wb") as ledger:
        for folder in folders:
            if (folder / DROPPED).exists():
                with (folder / DROPPED).open("rb") as lines:
                    shutil.copyfileobj(lines, ledger)
    commit(temporary(path), path)


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """The lines of one source's ledger: source, uri, stage, reason, detail."""
    return list(read_lines(path))
