"""Runs what is not done of a stage, on the executor that was asked for, and notes what of a unit killed its worker."""

from __future__ import annotations

import json
from pathlib import Path

from mmdata.errors import RunError
from pipelines.build.executor import LocalExecutor, Task
from pipelines.build.explain import Known, why_of
from pipelines.build.inputs import Marker
from pipelines.build.progress import Progress
from pipelines.build.ray_executor import RayExecutor
from pipelines.build.recipe import Recipe
from pipelines.build.report import StageReport
from pipelines.build.settings import num_workers, platform_words, worker_environment
from pipelines.build.units import Unit, read_marker, run_unit, write_json

EXECUTORS = ("local", "ray")
Executor = LocalExecutor | RayExecutor  # one interface; which one never changes the output


def open_executor(name: str, workers: int, work: Path, recipe: Recipe) -> Executor:
    words = (work / "logs", worker_environment(work), recipe.limits.stuck_seconds, recipe.limits.worker_bytes)
    if name == "ray":
        return RayExecutor(workers, *words, platform_words())
    return LocalExecutor(num_workers(workers), *words)


class Runner:
    """See the module docstring; `explain.Foresight` stands in for it where nothing is to be run."""

    def __init__(self, work: Path, pool: Executor, bars: Progress, known: Known) -> None:
        self.rows: list[StageReport] = []
        self.work, self.pool, self.bars, self.known = work, pool, bars, known
        self.poison = _read_poison(work)

    def run(self, stage: str, units: dict[str, list[Unit]]) -> dict[str, list[Marker]]:
        """The markers of each owner's units: a source's, or those over several sources."""
        waiting = {owner: [unit for unit in row if read_marker(unit) is None] for owner, row in units.items()}
        why = {owner: why_of(row, self.known) for owner, row in waiting.items()}  # before they are others
        self._run(stage, [unit for row in waiting.values() for unit in row])
        markers = {owner: [_marker(unit) for unit in row] for owner, row in units.items()}
        for owner, row in units.items():
            seconds = round(sum(marker["seconds"] for marker in markers[owner]), 3)
            found = StageReport(stage, owner, len(row), len(waiting[owner]), why[owner], seconds)
            for marker in markers[owner]:
                for step, spent in marker["counts"].get("cpu_seconds", {}).items():
                    found.cpu_seconds[step] = round(found.cpu_seconds.get(step, 0.0) + spent, 4)
            self.rows.append(found)
        return markers

    def _run(self, stage: str, units: list[Unit]) -> None:
        if not units:
            return
        bar = self.bars.begin(stage, len(units))
        self.pool.run(
            [Task(unit.key, run_unit, unit, self.poison.get(_poison_key(unit), {})) for unit in units],
            on_done=lambda task, marker: bar.advance(),
            on_poison=self._note_poison,
        )
        bar.finish()

    def _note_poison(self, task: Task, step: str, cause: str) -> None:
        """Remember what killed workers, so that a build which goes on does not meet it again."""
        self.poison.setdefault(_poison_key(task.args), {})[step] = cause
        write_json(self.work / "poison.json", self.poison)


def _marker(unit: Unit) -> Marker:
    marker = read_marker(unit)
    if marker is None:
        raise RunError(f"unit {unit.key} left no output in {unit.folder}; was {unit.work} changed? Run it again")
    return marker


def _poison_key(unit: Unit) -> str:
    """With the fingerprint and the limits: a file that was mended is tried again, and so is one that has more time."""
    limits = " ".join(f"{name}={value}" for name, value in sorted(unit.worker_limits.items()))
    return f"{unit.key} {unit.fingerprint} {limits}"


def _read_poison(work: Path) -> dict[str, dict[str, str]]:
    try:
        return json.loads((work / "poison.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
