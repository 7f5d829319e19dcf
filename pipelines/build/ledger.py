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
from pipelines.build.units import read_lines, write_lines
from pipelines.ingest.document import Dropped

DROPPED = "dropped.jsonl"


def write_dropped(folder: Path, dropped: Iterable[Dropped]) -> dict[str, int]:
    """A unit's ledger lines into its output; returns counts by reason."""
    lines = [asdict(d) for d in dropped]
    write_lines(folder / DROPPED, lines)
    return dict(sorted(Counter(str(line["reason"]) for line in lines).items()))


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
