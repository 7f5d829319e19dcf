"""A recipe's sources opened, with their inputs cut into the ranges that units work on, and what is known of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mmdata.errors import UserError
from mmdata.remote import url_of
from pipelines.build.encode import documents_read
from pipelines.build.recipe import Recipe, SourceEntry
from pipelines.build.report import SourceReport
from pipelines.build.settings import limits_of
from pipelines.build.stages import OpenSource, SourceArgs
from pipelines.build.units import Unit
from pipelines.config import expand, nearest
from pipelines.curate.settings import Curation
from pipelines.ingest.fetched import Wanted, fetched
from pipelines.ingest.media import Limits
from pipelines.ingest.source import Input
from pipelines.ingest.sources import SOURCES, open_source, parse_options, require_inputs, source_class

Marker = dict[str, Any]
EVERY = "all sources"  # in place of a source, of what is done over all of them: no source can be named so
INPUT = "input "  # before the path of an input, among what decides an ingest unit


@dataclass
class BuildSource:
    """One source on its way through the stages: the units of each stage that is done, and their markers."""

    entry: SourceEntry
    args: SourceArgs
    root: Path
    settings: dict[str, Any]
    cuts: list[tuple[Input, ...]]
    curation: Curation | None = None
    known: KnownInputs = field(default_factory=lambda: KnownInputs(None))
    units: dict[str, list[Unit]] = field(default_factory=dict)
    markers: dict[str, list[Marker]] = field(default_factory=dict)
    # Of each ingest unit the verdicts that hold so far: their folder and what says whether they are others now.
    verdicts: list[tuple[Path, str]] = field(default_factory=list)
    # Ledger folders and counts by reason of what stages over all sources left out of this one, by stage.
    judged: dict[str, tuple[list[Path], dict[str, int]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def all_settings(self) -> dict[str, Any]:
        """What decides its bytes: with its rules, which ingestion does not know."""
        return self.settings if self.curation is None else {**self.settings, "curate": self.curation.settings()}

    @property
    def follows(self) -> bool:
        """Whether its documents show files that are no inputs."""
        return getattr(self.args.open(), "follows", False)

    def contents(self, i: int) -> list[str]:
        """Digests of the documents that ingest unit `i` found and, where rules may have changed them, of what is
        left."""
        ingested, curated = (self.markers[stage][i] for stage in ("ingest", "curate"))
        return [ingested["digest"], *([curated["counts"]["kept"]] if "kept" in curated["counts"] else [])]

    def folders(self, stage: str) -> tuple[Path, ...]:
        return tuple(unit.folder for unit in self.units[stage])

    def digests(self, stage: str) -> list[str]:
        return [marker["digest"] for marker in self.markers[stage]]


class KnownInputs:
    """The inputs of a source's last build, out of the markers of its ingest units in `folder` (None: no build)."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @cached_property
    def begins(self) -> frozenset[str]:
        """The input that each unit began with."""
        return frozenset(paths[0] for paths in self._units())

    @cached_property
    def paths(self) -> frozenset[str]:
        """All of them."""
        return frozenset(path for paths in self._units() for path in paths)

    def _units(self) -> Iterator[list[str]]:
        for marker in sorted(self._folder.glob("*.done.json")) if self._folder is not None else ():
            with contextlib.suppress(OSError, ValueError, KeyError):
                words = json.loads(marker.read_text("utf-8"))["decides"]
                if paths := [word.removeprefix(INPUT) for word in words if word.startswith(INPUT)]:
                    yield paths


def open_one(recipe: Recipe, entry: SourceEntry, opener: OpenSource, work: Path | None = None) -> BuildSource:
    """The source with its inputs cut into units, at the places of the last build in `work`; UserError where there is
    nothing to read."""
    if opener is open_source and entry.format not in SOURCES:
        raise UserError(f"source {entry.name!r}: no format {entry.format!r}; {nearest(entry.format, list(SOURCES))}")
    options = json.dumps(_resolved(recipe, entry), sort_keys=True)
    url = url_of(expand(entry.path, f"source {entry.name!r}"))
    limits = limits_of(recipe)
    path = fetched(entry.name, url, wanted=_wanted(recipe, entry, limits)) if url else recipe.source_path(entry)
    args = SourceArgs(entry.name, entry.format, path, options, limits, opener)
    source = args.open()
    require_inputs(source)
    known = KnownInputs(None if work is None else work / "ingest" / entry.name)
    cuts = list(cut_inputs(source.inputs(), recipe.shards.unit_inputs, recipe.shards.unit_bytes, known.begins))
    settings = {"name": entry.name, "format": entry.format, "source": source.settings()}
    return BuildSource(entry, args, source.root, settings, cuts, recipe.curation(entry), known)


def _wanted(recipe: Recipe, entry: SourceEntry, limits: Limits) -> Wanted:
    """What is copied of a URL's files; UserError where the options are wrong, before anything comes."""
    if entry.format not in SOURCES:  # of an opener of the caller's
        return Wanted(max_bytes=limits.max_bytes)
    model = source_class(entry.format, entry.name).Options
    options = parse_options(entry.name, entry.format, model, _resolved(recipe, entry))
    return Wanted.of(entry.format, options, limits)  # type: ignore[arg-type]


def _resolved(recipe: Recipe, entry: SourceEntry) -> dict[str, Any]:
    """The options, with a manifest that lies beside the recipe found from there, as the path is."""
    options = entry.options
    for key in ("manifest", "manifest_root", "licences", "opt_out"):
        if isinstance(options.get(key), str) and options[key]:
            options[key] = expand(options[key], f"source {entry.name!r}")
            if (recipe.folder / options[key]).exists():
                options[key] = str((recipe.folder / options[key]).resolve())
    return options


def cut_inputs(
    inputs: list[Input], most: int, most_bytes: int, begins: Container[str] = frozenset()
) -> Iterator[tuple[Input, ...]]:
    """Runs of inputs, each of at most `most` inputs and `most_bytes` bytes (one input may pass the bytes).

    A run begins at each of `begins`, where runs began before: an input that comes or goes moves none but its own.

    >>> [[i.path for i in run] for run in cut_inputs([Input(p) for p in "abcde"], 2, 9, {"b", "d"})]
    [['a'], ['b', 'c'], ['d', 'e']]
    """
    run: list[Input] = []
    size = 0
    for item in inputs:
        if run and (len(run) >= most or size + item.size > most_bytes or item.path in begins):
            yield tuple(run)
            run, size = [], 0
        run.append(item)
        size += item.size
    if run:
        yield tuple(run)


def touched(path: Path) -> list[int]:
    """Size and time of a file: they decide only whether it is read again, never what is written."""
    try:
        stat = path.stat()
    except OSError:
        return [0, 0]
    return [stat.st_size, stat.st_mtime_ns]


def planned(source: BuildSource) -> SourceReport:
    inputs = [item for cut in source.cuts for item in cut]
    size = sum(item.size for item in inputs)
    return SourceReport(source.name, len(inputs), size, units=len(source.cuts))


def reported(source: BuildSource) -> SourceReport:
    """The numbers of a source out of its units' markers."""
    report = planned(source)
    for stage in ("ingest", "leftovers", "curate", "encode", "shuffle"):
        for marker in source.markers.get(stage, []):
            for name in ("dropped", "changed", "lost_by_host"):
                totals = getattr(report, name)
                for reason, count in marker["counts"].get(name, {}).items():
                    totals[reason] = totals.get(reason, 0) + count
    for _, dropped in source.judged.values():
        for reason, count in dropped.items():
            report.dropped[reason] = report.dropped.get(reason, 0) + count
    report.remaining = _remaining(source)
    report.documents = report.remaining["ingest"]
    for marker in source.markers.get("encode", []):
        report.soft += marker["counts"]["soft"]
        for kind, count in marker["counts"]["codes"].items():
            report.codes[kind] = report.codes.get(kind, 0) + count
    for marker in source.markers.get("write", []):
        shard = marker["counts"]["shard"]
        setattr(report, shard["split"], getattr(report, shard["split"]) + shard["samples"])
    report.samples = report.train + report.validation
    report.bytes = sum(m["counts"]["bytes"] for m in source.markers.get("finish", []))
    return report


def _remaining(source: BuildSource) -> dict[str, int]:
    """How many documents are left after each stage, in the order of the stages."""
    counts = {stage: [marker["counts"] for marker in markers] for stage, markers in source.markers.items()}
    left: dict[str, int] = {
        stage: sum(of_unit["documents"] for of_unit in counts[stage])
        for stage in ("ingest", "curate", "decontaminate")
        if stage in counts
    }
    if "sign" in counts:  # there was a dedup, a unit of all sources: what encode read is what it left
        left["dedup"] = sum(map(documents_read, counts["encode"]))
    return left | {stage: sum(of_unit["samples"] for of_unit in counts[stage]) for stage in ("encode", "shuffle")}
