"""`build`: a recipe to a dataset, stage by stage, each cut into units that any worker may run.

Stages: ingest -> curate -> (decontaminate, sign, dedup) -> encode -> shuffle -> write -> finish. What a unit makes
is decided by its fingerprint (graph.py), so the same command goes on where a build was killed, a touched file runs only
what it changes, and a new codec runs only from encode on. Here is the order of the stages, and what they hand on.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mmdata.errors import RunError, UserError
from pipelines.build import encode, stages, write
from pipelines.build.executor import Task
from pipelines.build.explain import Foresight
from pipelines.build.graph import Graph
from pipelines.build.inputs import EVERY, BuildSource, Marker, open_one, planned, reported
from pipelines.build.ledger import write_ledger
from pipelines.build.place import WORK, check_place, claim, release, resumable
from pipelines.build.progress import Progress
from pipelines.build.recipe import SOFT, Recipe
from pipelines.build.report import BuildReport
from pipelines.build.runner import EXECUTORS, Executor, Runner, open_executor
from pipelines.build.sample_rules import sample_rules
from pipelines.build.settings import codec_files, codec_names, limits_of, num_workers, recipe_settings
from pipelines.build.units import Unit, remove_units, write_json
from pipelines.build.worker import most_held
from pipelines.config import nearest
from pipelines.dedup.by_benchmark import by_benchmark
from pipelines.ingest.sources import open_source
from pipelines.look.build_page import write_build_page
from tokenizer.codecs import FileCodecs, load_codec


def build(
    recipe: Recipe,
    out: Path,
    workers: int = 0,
    executor: str = "local",
    dry_run: bool = False,
    explain: bool = False,
    progress: bool = True,
    *,
    load: encode.LoadCodec = load_codec,
    open: stages.OpenSource = open_source,
) -> BuildReport:
    """Build the dataset of `recipe` in `out` and return the report, which is also OUT/report.json and OUT/report.html.

    workers: processes, 0 for one a core; neither they nor `executor` change the output. dry_run, explain: say what
    there is to do, and write nothing. load, open: where codecs and sources come from, module-level functions (they
    travel to workers).
    Raises UserError (asked wrongly) and RunError (full disk, interrupted, a unit that fails): the same command goes on.
    """
    begun, held_before = time.monotonic(), most_held()
    out = Path(out).resolve()
    if executor not in EXECUTORS:
        raise UserError(f"no executor {executor!r}; {nearest(executor, list(EXECUTORS))}")
    cores = num_workers(workers)
    files = codec_files(recipe)
    names = codec_names(recipe, load, files)
    stages.forget_sources()
    sources = [open_one(recipe, entry, open, out / WORK) for entry in recipe.source]
    if dry_run:
        report = BuildReport(str(out), [planned(source) for source in sources], workers=cores, dry_run=True)
        ruled = [source for source in sources if source.curation is not None]
        with _scratch(out, explain=True) as scratch, open_executor("local", workers, scratch, recipe) as pool:
            report.rules = [sample_rules(source, limits_of(recipe), pool) for source in ruled]
        return report
    settings = {source.name: {"recipe": recipe_settings(recipe, names), **source.all_settings} for source in sources}
    if explain:
        check_place(out, settings)
    held = None if explain else claim(out, settings)
    try:
        with resumable(out), _scratch(out, explain) as scratch:
            bars = Progress(progress and not explain)
            with bars, open_executor("local" if explain else executor, workers, scratch, recipe) as pool:
                known = {source.name: source.known for source in sources}
                runner: Runner | Foresight = Runner(out / WORK, pool, bars, known)
                if explain:
                    follows = {source.name for source in sources if source.follows}
                    runner = Foresight(known, follows, recipe.keep_media != "none")
                graph = Graph(recipe, out / WORK, names, files, FileCodecs(files, load) if files else load)
                built = _Build(graph, sources, pool, runner)
                built.all_stages()
                if explain:
                    return BuildReport(str(out), [planned(source) for source in sources], runner.rows, dry_run=True)
                report = BuildReport(str(out), [reported(source) for source in sources], runner.rows, pool.workers)
                report.evaluation = built.evaluation
                kept = _publish(sources, report, out)
                _close(report, out, begun, lambda: _peak(pool, held_before))
                if not kept:
                    raise RunError(_nothing_kept(report, out))
                return report
    finally:
        release(held)


class _Build:
    """The stages of one build, in their order. `run` does the units of a stage, or foresees what there is to do."""

    def __init__(self, graph: Graph, sources: list[BuildSource], pool: Executor, runner: Runner | Foresight) -> None:
        self.graph, self.recipe, self.sources = graph, graph.recipe, sources
        self.pool, self.runner = pool, runner
        self.evaluation: dict[str, Any] = {}

    def all_stages(self) -> None:
        graph = self.graph
        self._stage("ingest", graph.ingest)
        self._stage("leftovers", graph.leftovers)
        self._stage("curate", graph.curate)
        for source in self.sources:
            # With rules, not the ledger's lines: another threshold may drop the same documents.
            kept = [marker["counts"].get("kept", marker["digest"]) for marker in source.markers["curate"]]
            source.verdicts = list(zip(source.folders("curate"), kept))
        if self.recipe.decontaminate.against:
            ((benchmarks, made),) = self._across("benchmarks", graph.benchmarks())
            self._stage("decontaminate", lambda source: graph.decontaminate(source, benchmarks, made))
            self._take_decontaminated()
            markers = [marker for source in self.sources for marker in source.markers["decontaminate"]]
            self.evaluation = by_benchmark(made["counts"], (marker["counts"] for marker in markers))
        if self.recipe.dedup.on:
            self._stage("sign", graph.sign)
            for unit, marker in self._across("dedup", graph.dedup(self.sources)):
                self._take_verdicts(unit, marker["counts"])
        # Codecs are loaded in a worker: this process stays free of JAX.
        wanted = sorted({name for name in graph.names.values() if name != SOFT})
        graph.describe_codecs(self.pool.run([Task("codecs", encode.describe_codecs, (wanted, graph.load))])["codecs"])
        for stage in ("encode", "shuffle", "write", "media", "finish"):
            self._stage(stage, getattr(graph, stage))

    def _stage(self, stage: str, units_of: Callable[[BuildSource], list[Unit]]) -> None:
        """A stage of all sources together."""
        for source in self.sources:
            source.units[stage] = units_of(source)
        found = self.runner.run(stage, {source.name: source.units[stage] for source in self.sources})
        for source in self.sources:
            source.markers[stage] = found[source.name]

    def _across(self, stage: str, units: dict[str, list[Unit]]) -> list[tuple[Unit, Marker]]:
        """A stage that looks at several sources at once."""
        found = self.runner.run(stage, units)
        return [pair for name in units for pair in zip(units[name], found[name], strict=True)]

    def _take_decontaminated(self) -> None:
        """Of the units that lost a document, the verdicts of the decontamination hold from here on."""
        for source in self.sources:
            dropped: Counter[str] = Counter()
            for i, (part, marker) in enumerate(zip(source.units["decontaminate"], source.markers["decontaminate"])):
                dropped.update(marker["counts"].get("dropped", {}))
                if verdicts := marker["counts"].get("verdicts"):
                    source.verdicts[i] = (part.folder, verdicts)
            source.judged["decontaminate"] = (list(source.folders("decontaminate")), dict(dropped))

    def _take_verdicts(self, unit: Unit, counts: dict[str, Any]) -> None:
        """Of the units whose verdicts it changed, those of `unit` hold from here on."""
        for source in self.sources:
            if source.name not in (changed := counts.get("changed", {})) or unit.source not in (EVERY, source.name):
                continue
            folders = []
            for i, part in enumerate(source.units["ingest"]):
                if part.name in changed[source.name]:
                    folders.append(unit.folder / source.name / part.name)
                    source.verdicts[i] = (folders[-1], changed[source.name][part.name])
            source.judged[unit.stage] = (folders, counts["dropped"].get(source.name, {}))


def _publish(sources: list[BuildSource], report: BuildReport, out: Path) -> bool:
    """Put the sources in place, then the dataset's manifest; then nothing refers to units that no stage has any
    more. False, and no dataset in place, where no document was kept: what an earlier build made there has no ledger
    any more. Its units stay, so that a rule that is taken back costs little."""
    full = [source for source in sources if source.units["finish"]]
    if not full:
        write.unpublish([source.name for source in sources], out)
    for source in sources:
        judged = [folder for folders, _ in source.judged.values() for folder in folders]
        folders = [*source.folders("ingest"), *source.folders("leftovers"), *source.folders("curate"), *judged]
        folders += [*source.folders("encode"), *source.folders("shuffle")]
        write_ledger(out / "ledger" / f"{source.name}.jsonl", folders)
    if not full:
        return False
    empty = [source.name for source in sources if source not in full]
    write.publish_dataset({s.name: s.units["finish"][0].folder for s in full}, out, out / WORK, empty)
    for row in report.sources:
        row.fingerprint = write.fingerprint(out / row.name)
    for source in sources:
        for stage, units in source.units.items():
            remove_units(out / WORK / stage / source.name, {unit.name for unit in units})
    return True


def _nothing_kept(report: BuildReport, out: Path) -> str:
    reasons = ", ".join(f"{n} {reason}" for reason, n in report.dropped.items()) or "the sources are empty"
    return f"no document was kept ({reasons}); see {out / 'report.html'} and {out / 'ledger'}"


@contextlib.contextmanager
def _scratch(out: Path, explain: bool) -> Iterator[Path]:
    """Where workers may write: OUT/.work, or with --explain and --dry-run a folder that goes away."""
    if not explain:
        yield out / ".work"
        return
    with tempfile.TemporaryDirectory(prefix="mmdata-") as folder:
        yield Path(folder)


def _peak(pool: Executor, held_before: int) -> int:
    """What the executor saw of this process and its workers, or more if this process alone, between its looks or after
    them, held more; what it held before the build is not the build's."""
    held = most_held()
    return max(pool.peak_bytes, held if held > held_before else 0)


def _close(report: BuildReport, out: Path, begun: float, peak: Callable[[], int]) -> None:
    report.seconds = round(time.monotonic() - begun, 3)
    report.documents_per_second = report.pace()
    report.peak_bytes = peak()
    write_json(out / "report.json", report.to_json())
    write_build_page(out, peak)
    report.peak_bytes = peak()  # the page is made of the whole catalog
    write_json(out / "report.json", report.to_json())
