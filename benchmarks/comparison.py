"""Ours, other loaders and the limit on the same documents: each asked in turn, in processes of their own, and a table.

A system which cannot be imported, written or read is listed with its error and left out; the others go on.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from drawn import BATCH, RING, SEQ_LEN, documents, warm
from jobs import JobError, ask
from peers import systems
from peers.system import System

WORKS = ("packed", "padded", "rows", "limit")


@dataclass(frozen=True)
class Settings:
    documents: int
    seconds: float  # of a measurement
    warm_seconds: float  # of reading before it
    repetitions: int
    only: tuple[str, ...] = ()  # parts of names; none: all
    check: bool = True  # read an epoch of each first, and compare it with what was written


def compare(work: Path, settings: Settings) -> dict[str, Any]:
    """All figures, as plain JSON values."""
    drawn = documents(work, settings.documents)
    asked = _Asked(work, settings)
    chosen = [s for name, s in systems().items() if not settings.only or any(part in name for part in settings.only)]
    ready = [system for system in chosen if asked.ask("prepare", system, 1) is not None]
    warm(work)
    checks = _checks(asked, ready, drawn.tokens, drawn.rows()) if settings.check else []
    runs = _runs(asked, ready, settings.repetitions)
    table = _table(ready, runs)
    said = {"documents": len(drawn), "tokens": len(drawn.tokens), "seq_len": SEQ_LEN, "batch": BATCH, "ring": RING}
    said |= {"seconds": settings.seconds, "repetitions": settings.repetitions}
    return {
        "settings": said,
        "table": table,
        "ratios": _ratios(table),
        "checks": checks,
        "errors": asked.errors,
        "runs": runs,
    }


def lines_of(found: dict[str, Any]) -> list[str]:
    """What `compare` found, to be read."""
    settings = found["settings"]
    out = [
        f"{settings['documents']:,} documents, {settings['tokens']:,} tokens, rows of {settings['seq_len']:,},"
        f" batch {settings['batch']}, the last {settings['ring']} batches held;",
        f"median of {settings['repetitions']} runs of {settings['seconds']} s each, million tokens",
        f"{'':24} {'work':7} {'1 process: a second':>20} {'a CPU second':>13} {'2: a second':>12} {'a CPU second':>13}",
    ]
    for name in dict.fromkeys(row["system"] for row in found["table"]):
        rows = {row["processes"]: row for row in found["table"] if row["system"] == name}
        cells = [
            f"{rows[n]['rate']:{width}.1f} {rows[n]['cpu_rate']:13.1f}" if n in rows else " " * (width + 14)
            for n, width in ((1, 20), (2, 12))
        ]
        out.append(f"{name:24} {next(iter(rows.values()))['work']:7} {' '.join(cells)}")
    for ratio in found["ratios"]:
        peer = "the limit" if ratio["work"] == "limit" else f"the fastest that is {ratio['work']} ({ratio['peer']})"
        unit = "tokens a second" if ratio["by"] == "rate" else "tokens a CPU second"
        out.append(f"{ratio['ours']}, processes: {ratio['processes']}, {unit}, over {peer}: {ratio['ratio']:.3g}")
    if checks := found["checks"]:
        wrong = [f"{c['system']} ({c['processes']})" for c in checks if not c["as_written"]]
        out.append(f"an epoch's tokens as written: {len(checks) - len(wrong)} of {len(checks)} {wrong or ''}".rstrip())
    return out + [f"failed: {what}: {error}" for what, error in found["errors"].items()]


class _Asked:
    """Asks for jobs, and keeps what failed."""

    def __init__(self, work: Path, settings: Settings) -> None:
        self.errors: dict[str, str] = {}
        self._common = {"work": str(work), "documents": settings.documents}
        self._common |= {"seconds": settings.seconds, "warm_seconds": settings.warm_seconds}

    def ask(self, do: str, system: System, processes: int) -> dict[str, Any] | None:
        try:
            return ask("timing.py", {**self._common, "do": do, "system": system.name, "processes": processes})
        except JobError as error:
            self.errors[f"{do} {system.name} ({processes})"] = str(error)
            return None


def _checks(asked: _Asked, ready: list[System], tokens: np.ndarray, rows: np.ndarray) -> list[dict[str, Any]]:
    """Of an epoch of each: its useful tokens, their sum and that of their squares, and whether those were written."""
    whole, cut = _totals(tokens), _totals(rows)
    out = []
    for system in ready:
        for processes in (1,) if system.ranks else system.processes:
            found = asked.ask("check", system, processes)
            if found is not None:
                same = found == (cut if system.work in ("rows", "limit") else whole)
                out.append({"system": system.name, "processes": processes, **found, "as_written": same})
                _say(f"{system.name:24} {processes}: {found['tokens']:,} tokens, as written: {same}")
    return out


def _runs(asked: _Asked, ready: list[System], repetitions: int) -> list[dict[str, Any]]:
    turns = [(system, processes) for system in ready for processes in system.processes]
    out = []
    for repetition in range(repetitions):
        random.Random(repetition).shuffle(turns)  # a slow minute of a shared machine hits one as well as another
        for system, processes in turns:
            found = asked.ask("measure", system, processes)
            if found is not None:
                run = {"system": system.name, "processes": processes, "repetition": repetition, **found}
                out.append({**run, "load": os.getloadavg()[0]})
                _say(f"{repetition} {system.name:24} {processes}: {_rate(run):8.1f} M tokens/s")
    return out


def _totals(tokens: np.ndarray) -> dict[str, int]:
    """As timing.count finds them, a part at a time."""
    out = {"tokens": tokens.size, "sum": 0, "squares": 0}
    for part in np.array_split(tokens.reshape(-1), 64):
        ids = part.astype(np.int64)
        out["sum"] += int(ids.sum())
        out["squares"] += int((ids * ids).sum())
    return out


def _rate(run: dict[str, Any]) -> float:
    return run["tokens"] / run["seconds"] / 1e6


def _table(ready: list[System], runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians of each system and number of processes, in million tokens."""
    out = []
    for system in ready:
        for processes in system.processes:
            mine = [run for run in runs if run["system"] == system.name and run["processes"] == processes]
            if mine:
                rates = [_rate(run) for run in mine]
                cpu_rate = statistics.median(run["tokens"] / run["cpu_seconds"] / 1e6 for run in mine)
                row = {"system": system.name, "work": system.work, "processes": processes, "setting": system.setting}
                found = {"rate": statistics.median(rates), "cpu_rate": cpu_rate, "least": min(rates)}
                out.append({**row, **found, "most": max(rates)})
    return out


def _ratios(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ours over the fastest peer of each kind of work, and over the limit, with as many processes."""
    out = []
    for ours in (row for row in table if row["system"].startswith("ours")):
        others = [r for r in table if r["processes"] == ours["processes"] and not r["system"].startswith("ours")]
        for work in WORKS:
            for by in ("rate", "cpu_rate"):
                best = max((row for row in others if row["work"] == work), key=lambda row: row[by], default=None)
                if best is not None:
                    of = {"ours": ours["system"], "processes": ours["processes"], "work": work, "by": by}
                    out.append({**of, "peer": best["system"], "ratio": ours[by] / best[by]})
    return out


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
