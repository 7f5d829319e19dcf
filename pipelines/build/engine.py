"""`build`: a recipe to a dataset, stage by stage, each cut into units that any worker may run.

Stages: ingest -> curate -> (decontaminate, sign, dedup) -> encode -> shuffle -> write -> finish. What a unit makes
is decided by its fingerprint, which hashes what it reads: the inputs' sizes and times for ingestion, digests of the
stage before it from there on. So the same command goes on where a build was killed, a touched file runs only what it
changes, and a new codec runs only from encode on.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mmdata.errors import RunError, UserError
from mmdata.media import MediaInfo, MediaShard
from pipelines.build import encode, stages, write
from pipelines.build.executor import LocalExecutor, Task
from pipelines.build.inputs import BuildSource, Marker, open_one, planned, reported, touched
from pipelines.build.ledger import write_ledger
from pipelines.build.media import MediaSettings
from pipelines.build.place import claim, release, resumable
from pipelines.build.progress import Progress
from pipelines.build.ray_executor import RayExecutor
from pipelines.build.recipe import SOFT, Recipe, soft_multiple
from pipelines.build.report import BuildReport, StageReport
from pipelines.build.sample_rules import sample_rules
from pipelines.build.settings import (
    codec_files,
    codec_names,
    limits_of,
    media_words,
    num_workers,
    own_settings,
    platform_words,
    recipe_settings,
    worker_environment,
)
from pipelines.build.shuffle import PLAN, ShuffleArgs, shuffle
from pipelines.build.units import Unit, fingerprint_of, read_marker, run_unit, write_json
from pipelines.config import nearest
from pipelines.dedup.decontaminate import DecontaminateArgs, decontaminate
from pipelines.dedup.duplicates import DedupArgs, SignedUnit, dedup
from pipelines.dedup.evaluation import IndexArgs, check_paths, make_index, state_of
from pipelines.dedup.sign import SignArgs, sign, versions
from pipelines.ingest.sources import open_source
from pipelines.look.build_page import write_build_page
from tokenizer.codec import CodecSpec
from tokenizer.codecs import CodecFile, FileCodecs, load_codec

# Raise a stage's number when its code changes what it writes.
VERSIONS = {
    "ingest": 2, "curate": 1, "benchmarks": 1, "decontaminate": 1, "sign": 1, "dedup": 1, "encode": 1, "shuffle": 1,
    "write": 1, "media": 1, "finish": 1,
}  # fmt: skip
EXECUTORS = ("local", "ray")
Executor = LocalExecutor | RayExecutor  # one interface; which one never changes the output
EVERY = "all sources"  # in place of a source, of what is done over all of them: no source can be named so


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
    begun = time.monotonic()
    out = Path(out).resolve()
    if executor not in EXECUTORS:
        raise UserError(f"no executor {executor!r}; {nearest(executor, list(EXECUTORS))}")
    cores = num_workers(workers)
    files = codec_files(recipe)
    names = codec_names(recipe, load, files)
    stages.forget_sources()
    sources = [open_one(recipe, entry, open) for entry in recipe.source]
    if dry_run:
        report = BuildReport(str(out), [planned(source) for source in sources], workers=cores, dry_run=True)
        report.rules = [sample_rules(source, limits_of(recipe)) for source in sources if source.curation is not None]
        return report
    settings = {source.name: {"recipe": recipe_settings(recipe, names), **source.all_settings} for source in sources}
    held = None if explain else claim(out, settings)
    try:
        with resumable(out), _scratch(out, explain) as work:
            bars = Progress(progress and not explain)
            with bars, _executor("local" if explain else executor, workers, work, recipe) as pool:
                run = _Build(recipe, out, sources, names, files, load, pool, bars, explain)
                report = run.all_stages()
                report.workers, report.peak_bytes = pool.workers, pool.peak_bytes
                return report if explain else _close(report, out, time.monotonic() - begun)
    finally:
        release(held)


class _Build:
    """The stages of one build. With `explain` it stops a source at the first stage that has to run."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        sources: list[BuildSource],
        names: dict[str, str],
        files: tuple[CodecFile, ...],
        load: encode.LoadCodec,
        pool: Executor,
        bars: Progress,
        explain: bool,
    ) -> None:
        self.recipe, self.out, self.work = recipe, out, out / ".work"
        self.sources, self.names, self.files = sources, names, files
        self.load: encode.LoadCodec = FileCodecs(files, load) if files else load
        self.pool, self.bars, self.explain = pool, bars, explain
        self.rows: list[StageReport] = []
        self.poison = _read_poison(self.work)
        self.across: dict[str, list[tuple[Unit, Marker]]] = {}  # stages that are of no one source
        self.specs: dict[str, CodecSpec] = {}
        self.media: MediaSettings | None = None

    def all_stages(self) -> BuildReport:
        self._stage("ingest", self._ingest)
        self._stage("curate", self._curate)
        for source in self._alive():
            # With rules, not the ledger's lines: another threshold may drop the same documents.
            kept = [marker["counts"].get("kept", marker["digest"]) for marker in source.markers["curate"]]
            source.verdicts = list(zip(source.folders("curate"), kept))
        if self.recipe.decontaminate.against:
            self._across("benchmarks", self._benchmarks)
            self._stage("decontaminate", self._decontaminate)
            self._take_decontaminated()
        if self.recipe.dedup.on:
            self._stage("sign", self._sign)
            self._across("dedup", self._dedup)
            for unit, marker in self.across.get("dedup", []):
                self._take_verdicts(unit, marker["counts"])
        self._describe_codecs()
        self._stage("encode", self._encode)
        self._stage("shuffle", self._shuffle)
        self._stage("write", self._write)
        self._stage("media", self._media)
        self._stage("finish", self._finish)
        report = BuildReport(str(self.out), [reported(source) for source in self.sources], self.rows)
        report.dry_run = self.explain
        if not self.explain:
            self._publish(report)
        return report

    def _stage(self, stage: str, units_of: Callable[[BuildSource], list[Unit]]) -> None:
        """Run what is not done of a stage, of all sources together."""
        stale: list[Unit] = []
        alive = self._alive()
        for source in alive:
            source.units[stage] = units_of(source)
            waiting = [unit for unit in source.units[stage] if read_marker(unit) is None]
            self.rows.append(_why(stage, source.name, source.units[stage], waiting))
            stale += waiting
        if self.explain:
            alive = [s for s in alive if not self._stopped(s)]
        else:
            self._run(stage, stale)
        for source in alive:
            source.markers[stage] = [_marker(unit) for unit in source.units[stage]]
            row = next(row for row in self.rows if (row.stage, row.source) == (stage, source.name))
            row.seconds = round(sum(marker["seconds"] for marker in source.markers[stage]), 3)

    def _across(self, stage: str, units_of: Callable[[], list[Unit]]) -> None:
        """Run what is not done of a stage that looks at several sources at once."""
        if len(self._alive()) < len(self.sources):
            self.rows.append(StageReport(stage, EVERY, 1, 1, "a stage before it will run"))
            return
        units = units_of()
        stale = [unit for unit in units if read_marker(unit) is None]
        self.rows += [_why(stage, unit.source, [unit], [unit] if unit in stale else []) for unit in units]
        if stale and self.explain:
            return
        self._run(stage, stale)
        self.across[stage] = [(unit, _marker(unit)) for unit in units]
        for row, (_, marker) in zip(self.rows[-len(units) :], self.across[stage], strict=True):
            row.seconds = marker["seconds"]

    def _take_decontaminated(self) -> None:
        """Of the units that lost a document, the verdicts of the decontamination hold from here on."""
        for source in self._alive():
            dropped: Counter[str] = Counter()
            for i, marker in enumerate(source.markers["decontaminate"]):
                dropped.update(marker["counts"]["dropped"])
                if marker["counts"]["verdicts"]:
                    source.verdicts[i] = (source.folders("decontaminate")[i], marker["counts"]["verdicts"])
            source.judged["decontaminate"] = (list(source.folders("decontaminate")), dict(dropped))

    def _take_verdicts(self, unit: Unit, counts: dict[str, Any]) -> None:
        """Of the units whose verdicts it changed, those of `unit` hold from here on."""
        for source in self.sources:
            if source.name not in (changed := counts["changed"]) or unit.source not in (EVERY, source.name):
                continue
            folders = []
            for i, part in enumerate(source.units["ingest"]):
                if part.name in changed[source.name]:
                    folders.append(unit.folder / source.name / part.name)
                    source.verdicts[i] = (folders[-1], changed[source.name][part.name])
            source.judged[unit.stage] = (folders, counts["dropped"].get(source.name, {}))

    def _alive(self) -> list[BuildSource]:
        return [source for source in self.sources if not self._stopped(source)]

    def _stopped(self, source: BuildSource) -> bool:
        return self.explain and any(row.source in (source.name, EVERY) and row.stale for row in self.rows)

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

    def _unit(self, stage: str, source: BuildSource, name: str, function: Any, args: Any, *decides: Any) -> Unit:
        fingerprint = fingerprint_of(stage, VERSIONS[stage], source.name, *decides)
        return Unit(stage, source.name, name, fingerprint, function, self.work, args)

    def _ingest(self, source: BuildSource) -> list[Unit]:
        units = []
        opened, limits = source.args.open(), vars(limits_of(self.recipe))
        listed = ""  # digest of the names of the files that a page or a record may name
        if getattr(opened, "follows", False):
            inputs = {item.path for cut in source.cuts for item in cut}
            listed = fingerprint_of(sorted(opened.folder.names - inputs))  # type: ignore[attr-defined]
        for i, cut in enumerate(source.cuts):
            state = [[p.path, p.size, [touched(source.root / f) for f in p.files or (p.path,)]] for p in cut]
            args = stages.IngestArgs(source.args, cut)
            decides = (source.settings, limits, listed, state)
            units.append(self._unit("ingest", source, f"{i:05d}", stages.ingest, args, *decides))
        # The files that nothing reads are few words and always up to date: a fingerprint of their own time.
        left = stages.IngestArgs(source.args, (), leftovers=True)
        listing = [[line.uri, line.reason] for line in opened.leftovers()]
        return [*units, self._unit("ingest", source, "leftovers", stages.ingest, left, source.settings, listing)]

    def _curate(self, source: BuildSource) -> list[Unit]:
        units = []
        for before, marker in zip(source.units["ingest"], source.markers["ingest"]):
            args = stages.CurateArgs(before.folder, source.root, limits_of(self.recipe), source.curation)
            # Media that a page or a record names: their content may change while the page does not.
            state = [touched(source.root / path) for path in marker["counts"]["media"]]
            rules = () if source.curation is None else (source.curation.settings(), vars(args.limits))
            decides = (before.fingerprint, marker["digest"], state, *rules)
            units.append(self._unit("curate", source, before.name, stages.curate, args, *decides))
        return units

    def _benchmarks(self) -> list[Unit]:
        paths, limits = self.recipe.evaluation_paths(), limits_of(self.recipe)
        check_paths(paths)
        fingerprint = fingerprint_of("benchmarks", VERSIONS["benchmarks"], state_of(paths), vars(limits), versions())
        return [Unit("benchmarks", EVERY, "all", fingerprint, make_index, self.work, IndexArgs(paths, limits))]

    def _decontaminate(self, source: BuildSource) -> list[Unit]:
        ((benchmarks, made),) = self.across["benchmarks"]
        limits, units = limits_of(self.recipe), []
        for i, before in enumerate(source.units["ingest"]):
            verdicts, digest = source.verdicts[i]
            args = DecontaminateArgs(
                before.folder,
                source.folders("curate")[i],
                verdicts,
                source.root,
                benchmarks.folder,
                made["digest"],
                limits,
            )
            decides = (*_contents(source, i), digest, made["digest"], vars(limits), versions())
            units.append(self._unit("decontaminate", source, before.name, decontaminate, args, *decides))
        return units

    def _sign(self, source: BuildSource) -> list[Unit]:
        kinds, limits, units = self.recipe.dedup.near_kinds, limits_of(self.recipe), []
        for i, before in enumerate(source.units["ingest"]):
            verdicts, digest = source.verdicts[i]
            args = SignArgs(before.folder, source.folders("curate")[i], verdicts, source.root, kinds, limits)
            decides = (*_contents(source, i), digest, kinds, vars(limits), versions())
            units.append(self._unit("sign", source, before.name, sign, args, *decides))
        return units

    def _dedup(self) -> list[Unit]:
        options, units = self.recipe.dedup, []
        groups = {EVERY: self.sources} if options.scope == "all" else {s.name: [s] for s in self.sources}
        for name, sources in groups.items():
            signed, decides = [], []
            for source in sources:
                for i, part in enumerate(source.units["sign"]):
                    verdicts, digest = source.verdicts[i]
                    signed.append(SignedUnit(source.name, part.name, part.folder, verdicts))
                    decides.append((source.name, part.name, source.markers["sign"][i]["digest"], digest))
            fingerprint = fingerprint_of("dedup", VERSIONS["dedup"], name, options.words(), decides)
            args = DedupArgs(tuple(signed), options)
            units.append(Unit("dedup", name, "all", fingerprint, dedup, self.work, args))
        return units

    def _describe_codecs(self) -> None:
        """Codecs are loaded in a worker: this process stays free of JAX."""
        wanted = sorted({name for name in self.names.values() if name != SOFT})
        found = self.pool.run([Task("codecs", encode.describe_codecs, (wanted, self.load))])["codecs"]
        self.specs = {name: found[name]["spec"] for name in wanted}
        for kind, name in self.names.items():
            right = ("image",) if kind == "video" else (kind,)
            if name != SOFT and self.specs[name].kind not in (*right, kind):
                raise UserError(f"codecs.{kind}: {name} is a codec of {self.specs[name].kind}, not of {kind}")
        if self.recipe.codecs.video not in ("", SOFT) and not found[self.names["video"]]["frames"]:
            raise UserError(f"codecs.video: {self.names['video']} gives each frame a grid of its own; it is for images")
        limits = limits_of(self.recipe)
        rate = found.get(self.names["audio"], {}).get("sample_rate_hz") or self.recipe.audio.sample_rate_hz
        resizing = {kind: self.recipe.resizing(kind, self._multiple(kind, found)) for kind in ("image", "video")}
        self.media = MediaSettings(self.recipe.image, self.recipe.video, rate, resizing, limits)

    def _multiple(self, kind: str, codecs: dict[str, dict[str, Any]]) -> int:
        """Pixels that the sides of resized pictures of a kind are a multiple of: a code of the codec, or a patch."""
        if self.names[kind] == SOFT:
            return soft_multiple(self.recipe, kind)
        return codecs[self.names[kind]]["multiple"] or 16

    def _encode(self, source: BuildSource) -> list[Unit]:
        assert self.media is not None
        recipe = self.recipe
        settings = encode.EncodeSettings(
            tuple(sorted(self.names.items())), self.media, recipe.keep_media, recipe.on_bad_part, self.load
        )
        decides = [
            media_words(self.media), recipe.keep_media, recipe.on_bad_part, self.names,
            [self.specs[name].to_json() for name in sorted(self.specs)], platform_words(),
        ]  # fmt: skip
        units = []
        for i, before in enumerate(source.units["ingest"]):
            verdicts, digest = source.verdicts[i]
            args = encode.EncodeArgs(before.folder, source.folders("curate")[i], verdicts, source.root, settings)
            digests = [*_contents(source, i), digest]
            units.append(self._unit("encode", source, before.name, encode.encode, args, digests, *decides))
        return units

    def _shuffle(self, source: BuildSource) -> list[Unit]:
        shards = self.recipe.shards
        args = ShuffleArgs(
            source.folders("encode"), self.recipe.seed, self.recipe.validation, shards.samples, shards.bytes
        )
        decides = (source.digests("encode"), args.seed, args.validation, shards.samples, shards.bytes)
        return [self._unit("shuffle", source, "all", shuffle, args, *decides)]

    def _plan(self, source: BuildSource) -> dict[str, Any]:
        (before,) = source.folders("shuffle")
        return json.loads((before / PLAN).read_text("ascii"))

    def _write(self, source: BuildSource) -> list[Unit]:
        (places,) = source.folders("shuffle")
        units = []
        for shard in self._plan(source)["shards"]:
            split, index, num = shard["split"], shard["index"], shard["num_shards"]
            args = write.WriteArgs(source.folders("encode"), places, split, index, num)
            decides = (source.digests("shuffle"), source.digests("encode"), split, index, num)
            units.append(self._unit("write", source, f"{split}-{index:05d}", write.write, args, *decides))
        return units

    def _media(self, source: BuildSource) -> list[Unit]:
        (places,) = source.folders("shuffle")
        num, form = self._plan(source)["media_shards"], self.recipe.keep_media
        units = []
        for index in range(num):
            args = write.MediaArgs(source.folders("encode"), places, form, index, num)
            decides = (source.digests("shuffle"), source.digests("encode"), form, index, num)
            units.append(self._unit("media", source, f"{index:05d}", write.write_kept_media, args, *decides))
        return units

    def _finish(self, source: BuildSource) -> list[Unit]:
        shards = tuple(marker["counts"]["shard"] for marker in source.markers["write"])
        if not shards:
            return []  # no document of it was kept; the report says so
        used = {name for shard in shards for name in shard["codecs"]}
        codecs = tuple(self.specs[name] for name in sorted(used))
        kept = [marker["counts"]["shard"] for marker in source.markers["media"]]
        media = MediaInfo(self.recipe.keep_media if kept else "none", tuple(MediaShard(**m) for m in kept))
        kinds = {kind for shard in shards for kind, counts in shard["counts"].items() if counts.get("items")}
        settings = {**source.all_settings, **own_settings(recipe_settings(self.recipe, self.names), kinds - {"soft"})}
        written = source.folders("write") + source.folders("media")
        files = tuple(file for file in self.files if file.codec in used)
        args = write.FinishArgs(written, shards, codecs, settings, media, files)
        decides = (shards, [c.to_json() for c in codecs], settings, media.to_json(), *(f.sha256 for f in files))
        return [self._unit("finish", source, "all", write.finish, args, *decides)]

    def _publish(self, report: BuildReport) -> None:
        """Put the sources in place, then the dataset's manifest."""
        full = [source for source in self.sources if source.units["finish"]]
        for source in self.sources:
            judged = [folder for folders, _ in source.judged.values() for folder in folders]
            folders = [*source.folders("ingest"), *source.folders("curate"), *judged]
            folders += [*source.folders("encode"), *source.folders("shuffle")]
            write_ledger(self.out / "ledger" / f"{source.name}.jsonl", folders)
        if not full:
            reasons = ", ".join(f"{n} {reason}" for reason, n in report.dropped.items()) or "the sources are empty"
            raise RunError(f"no document was kept ({reasons}); see {self.out / 'ledger'}")
        write.publish_dataset({s.name: s.units["finish"][0].folder for s in full}, self.out, self.work)
        for row in report.sources:
            row.fingerprint = write.fingerprint(self.out / row.name)


def _executor(name: str, workers: int, work: Path, recipe: Recipe) -> Executor:
    words = (work / "logs", worker_environment(work), recipe.limits.stuck_seconds, recipe.limits.worker_bytes)
    if name == "ray":
        return RayExecutor(workers, *words, platform_words())
    return LocalExecutor(num_workers(workers), *words)


@contextlib.contextmanager
def _scratch(out: Path, explain: bool) -> Iterator[Path]:
    """Where workers may write: OUT/.work, or with --explain a folder that goes away."""
    if not explain:
        yield out / ".work"
        return
    with tempfile.TemporaryDirectory(prefix="mmdata-") as folder:
        yield Path(folder)


def _marker(unit: Unit) -> Marker:
    marker = read_marker(unit)
    if marker is None:
        raise RunError(f"unit {unit.key} left no output in {unit.folder}; was {unit.work} changed? Run it again")
    return marker


def _contents(source: BuildSource, i: int) -> list[str]:
    """Digests of the documents that an ingest unit found and, where rules may have changed them, of what is left."""
    ingested, curated = (source.markers[stage][i] for stage in ("ingest", "curate"))
    return [ingested["digest"], *([curated["counts"]["kept"]] if "kept" in curated["counts"] else [])]


def _why(stage: str, source: str, units: list[Unit], stale: list[Unit]) -> StageReport:
    why = ""
    if stale:
        changed = sum(unit.marker_path.exists() for unit in stale)
        why = "not done yet" if not changed else "its inputs or settings have changed"
    return StageReport(stage, source, len(units), len(stale), why)


def _close(report: BuildReport, out: Path, seconds: float) -> BuildReport:
    report.seconds = round(seconds, 3)
    report.documents_per_second = round(report.total("documents") / max(seconds, 1e-9), 3)
    write_json(out / "report.json", report.to_json())
    write_build_page(out)
    return report


def _poison_key(unit: Unit) -> str:
    """With the fingerprint: a file that was mended is tried again."""
    return f"{unit.key} {unit.fingerprint}"


def _read_poison(work: Path) -> dict[str, dict[str, str]]:
    try:
        return json.loads((work / "poison.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
