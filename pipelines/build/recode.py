"""`recode`: a dataset with its texts in another codec's codes, made without the sources it was built from.

Each text is decoded exactly (the item keeps it where its codec lost some) and encoded anew. All else stays: ids,
clusters, splits, order, shards, other items, kept media (hard links) and the ledger. What comes out is a dataset like
any other, and where no shard was closed by its bytes, the very one that a build with that codec gives. One unit a
shard, under the build's executor: byte-identical for any number of workers, and a killed recode goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.commit import sha256_of, write_bytes
from mmdata.dataset import Dataset, Source, Split, open_dataset, open_source
from mmdata.errors import RunError, UserError
from mmdata.sample import Sample
from mmdata.shards import write_shard
from pipelines.build import write
from pipelines.build.encode import text_words
from pipelines.build.executor import LocalExecutor, Task
from pipelines.build.place import WORK, claim, release, resumable
from pipelines.build.progress import Progress
from pipelines.build.settings import num_workers, worker_environment
from pipelines.build.units import Counts, Unit, fingerprint_of, read_marker, run_unit, write_json
from pipelines.build.worker import Call
from tokenizer.codec import Codec, CodecSpec, Codes, Shape, spec_of
from tokenizer.codecs import CodecFile, FileCodecs, full_name, is_codec_file
from tokenizer.item import Item

# Raise a stage's number when its code changes what it writes.
VERSIONS = {"recode": 1, "finish": 1}

_BATCH = 256  # samples a read


@dataclass(frozen=True)
class ShardArgs:
    folder: Path  # DIR/<source>
    split: str
    index: int
    codec: str
    files: tuple[CodecFile, ...]


@dataclass(frozen=True)
class FinishArgs:
    folder: Path  # DIR/<source>
    keep: tuple[str, ...]  # files in it that stay as they are
    rest: write.FinishArgs


@dataclass
class RecodedSource:
    """Numbers of one source."""

    name: str
    samples: int
    texts: int = 0  # encoded anew
    kept: int = 0  # of these, texts that the codec loses something of: the items keep them
    codes_before: int = 0
    codes: int = 0  # of all its texts
    fingerprint: str = ""


@dataclass
class RecodeReport:
    """What was recoded; also OUT/report.json."""

    out: str
    text: str  # the codec
    sources: list[RecodedSource] = field(default_factory=list)
    units_run: int = 0
    workers: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def recode(folder: Path | str, text: str, out: Path | str, workers: int = 0, progress: bool = True) -> RecodeReport:
    """Write the dataset in `folder` to `out` with its texts in the codes of the codec `text`: the name of a shipped one
    or of one that the dataset keeps, or the path of a tokenizer.json or a SentencePiece .model.

    workers: processes, 0 for one a core; they never change the output. Raises UserError (asked wrongly) and RunError
    (full disk, interrupted, damaged shard): the same command goes on.
    """
    begun = time.monotonic()
    out, workers = Path(out).resolve(), num_workers(workers)
    dataset = open_dataset(folder)
    files = _files(dataset, text)
    codec = _codec(files, text)
    spec = spec_of(codec)
    stale = _check(dataset, spec, out)
    settings = {
        name: {"recode": {"source": source.fingerprint, "text": spec.to_json()}} for name, source in dataset.items()
    }
    held = claim(out, settings)
    work = out / WORK
    try:
        with (
            resumable(out),
            Progress(progress) as bars,
            LocalExecutor(workers, work / "logs", worker_environment(work)) as pool,
        ):
            run = _Recode(dataset, spec, files, stale, work, pool, bars)
            report = RecodeReport(str(out), spec.name, workers=workers)
            finished = run.all_stages()
            for path in sorted((Path(folder) / "ledger").glob("*.jsonl")):
                (out / "ledger").mkdir(exist_ok=True)
                write_bytes(out / "ledger" / path.name, path.read_bytes())
            write.publish_dataset(finished, out, work)
            report.sources = [run.reported(source, out) for source in dataset.values()]
            report.units_run = run.units_run
            report.seconds = round(time.monotonic() - begun, 3)
            write_json(out / "report.json", report.to_json())
            return report
    finally:
        release(held)


class _Recode:
    """The stages of one recode: shards, then each source's folder."""

    def __init__(
        self,
        dataset: Dataset,
        spec: CodecSpec,
        files: tuple[CodecFile, ...],
        stale: dict[str, set[str]],
        work: Path,
        pool: LocalExecutor,
        bars: Progress,
    ) -> None:
        self.dataset, self.spec, self.files, self.stale = dataset, spec, files, stale
        self.work, self.pool, self.bars = work, pool, bars
        self.shards: dict[str, list[Unit]] = {}
        self.units_run = 0

    def all_stages(self) -> dict[str, Path]:
        """The finished folder of each source, in the dataset's order."""
        self.shards = {name: self._shards(source) for name, source in self.dataset.items()}
        self._run("recode", [unit for units in self.shards.values() for unit in units])
        finish = {name: self._finish(source) for name, source in self.dataset.items()}
        self._run("finish", list(finish.values()))
        return {name: unit.folder for name, unit in finish.items()}

    def reported(self, source: Source, out: Path) -> RecodedSource:
        counts = [_marker(unit)["counts"] for unit in self.shards[source.name]]
        before = sum(shard.counts["text"]["codes"] for shard in source.manifest.shards)
        return RecodedSource(
            name=source.name,
            samples=sum(shard.samples for shard in source.manifest.shards),
            texts=sum(c["texts"] for c in counts),
            kept=sum(c["kept"] for c in counts),
            codes_before=before,
            codes=sum(c["shard"]["counts"]["text"]["codes"] for c in counts) if counts else before,
            fingerprint=write.fingerprint(out / source.name),
        )

    def _shards(self, source: Source) -> list[Unit]:
        """One unit a shard of a source that has texts of another codec."""
        if not self.stale[source.name]:
            return []
        units = []
        before = [c.to_json() for c in source.codecs if c.name in self.stale[source.name]]
        for shard in source.manifest.shards:
            args = ShardArgs(source.folder.resolve(), shard.split, shard.index, self.spec.name, self.files)
            num = len(source.manifest.of_split(shard.split))
            decides = (shard.sha256, shard.index, num, before, self.spec.to_json(), _library_words())
            units.append(self._unit("recode", source, f"{shard.split}-{shard.index:05d}", recode_shard, args, *decides))
        return units

    def _finish(self, source: Source) -> Unit:
        manifest, units = source.manifest, self.shards[source.name]
        shards = tuple(_marker(u)["counts"]["shard"] for u in units) or tuple(s.to_json() for s in manifest.shards)
        keep = [f"media/{name}" for shard in manifest.media.shards for name in (shard.file, shard.index_file)]
        if not units:
            keep += [name for shard in manifest.shards for name in (shard.file, shard.catalog)]
        gone = self.stale[source.name]
        codecs = {c.name: c for c in source.codecs if c.name not in gone}
        settings = manifest.settings
        if units:
            codecs[self.spec.name] = self.spec
            if "text" in settings.get("codecs", {}):
                settings = {**settings, "codecs": {**settings["codecs"], "text": self.spec.name}}
        files = {kept.codec: kept.found(source.folder.resolve()) for kept in manifest.codec_files}
        files |= {file.codec: file for file in self.files}
        own = tuple(file for name, file in files.items() if name in codecs)
        written = tuple(unit.folder for unit in units)
        rest = write.FinishArgs(written, shards, tuple(codecs.values()), settings, manifest.media, own)
        decides = (shards, [c.to_json() for c in codecs.values()], settings, manifest.media.to_json(), keep)
        args = FinishArgs(source.folder.resolve(), tuple(keep), rest)
        return self._unit("finish", source, "all", finish, args, *decides, [f.sha256 for f in own])

    def _unit(self, stage: str, source: Source, name: str, function: Any, args: Any, *decides: Any) -> Unit:
        fingerprint = fingerprint_of(stage, VERSIONS[stage], source.name, *decides)
        return Unit(stage, source.name, name, fingerprint, function, self.work, args)

    def _run(self, stage: str, units: list[Unit]) -> None:
        """Run what is not done of a stage."""
        waiting = [unit for unit in units if read_marker(unit) is None]
        self.units_run += len(waiting)
        if not waiting:
            return
        bar = self.bars.begin(stage, len(waiting))
        self.pool.run([Task(u.key, run_unit, u) for u in waiting], on_done=lambda task, marker: bar.advance())
        bar.finish()


def recode_shard(call: Call, unit: Unit, folder: Path) -> Counts:
    """One shard with its catalog; `texts` counts those encoded anew, `kept` those of them that keep their text."""
    args: ShardArgs = unit.args
    source = open_source(args.folder)
    split = source.splits[args.split]
    shard = split.shards[args.index]
    if sha256_of(args.folder / shard.file) != shard.sha256:
        raise RunError(f"{args.folder / shard.file} is damaged: its sha256 is not the manifest's; run `mmdata verify`")
    counts = {"texts": 0, "kept": 0}
    codec = FileCodecs(args.files)(args.codec)
    samples = _samples(call, source, split, args, codec, counts)
    info = write_shard(folder, unit.source, args.split, args.index, len(split.shards), samples)
    return {"shard": info.to_json(), **counts}


def _samples(
    call: Call, source: Source, split: Split, args: ShardArgs, codec: Codec, counts: dict[str, int]
) -> Iterator[Sample]:
    begin, end = split.shard_bounds[args.index : args.index + 2].tolist()
    for start in range(begin, end, _BATCH):
        for sample in split.read(range(start, min(start + _BATCH, end))):
            call.at(sample.id)
            items = []
            for item in sample.items:
                if item.kind == "text" and item.codec not in ("", args.codec):
                    item = _recoded(item, sample, source, codec, args.codec)
                    counts["texts"] += 1
                    counts["kept"] += item.text is not None
                items.append(item)
            yield replace(sample, items=tuple(items))


def _recoded(item: Item, sample: Sample, source: Source, codec: Codec, name: str) -> Item:
    """A text item in the codes of another codec."""
    text = text_of(item, source)
    try:
        codes = codec.encode(text)
        words = text_words(codec, codes, text)
    except Exception as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise RunError(f"{name} cannot encode a text of document {sample.id} in source {source.name}: {why}") from error
    return replace(
        item,
        codec=name,
        codes=np.ascontiguousarray(codes.codes, np.int32),
        text=words.get("text"),
        sentence_ends=words.get("sentence_ends", np.zeros(0, np.int32)),
        times=np.zeros(0, np.float32),  # of text they could only be one a token
        unit_times=word_times(item, text),
    )


def text_of(item: Item, source: Source) -> str:
    """The exact text of a text item."""
    if item.text is not None:
        return item.text
    assert item.codes is not None
    return source.load_codec(item.codec).decode(Codes(item.codes, Shape(*item.codes.shape)))


def word_times(item: Item, text: str) -> np.ndarray:  # float32 [n, 2]
    """The times of an item's words: they outlive its tokens, times of the tokens themselves do not."""
    assert item.codes is not None
    count = len(item.unit_times)
    if count == len(item.codes) and count != len(text.split()):
        return np.zeros((0, 2), np.float32)
    return item.unit_times


def finish(call: Call, unit: Unit, folder: Path) -> Counts:
    """The whole folder of a source: what stays, what is new, and its manifest."""
    args: FinishArgs = unit.args
    for name in args.keep:
        call.at(name)
        write.link_file(args.folder / name, folder / name)
    return write.finish(call, replace(unit, args=args.rest), folder)


def _files(dataset: Dataset, text: str) -> tuple[CodecFile, ...]:
    """The file of the codec that is asked for, where it is one: a path, or a name that the dataset keeps a file of."""
    if is_codec_file(text):
        try:
            return (CodecFile.of(Path(os.path.abspath(os.path.expanduser(text)))),)
        except ValueError as error:
            raise UserError(f"--text: {error}") from None
    for source in dataset.values():
        for kept in source.manifest.codec_files:
            if text in (kept.codec, kept.codec.partition("@")[0]):
                return (kept.found(source.folder.resolve()),)
    return ()


def _codec(files: tuple[CodecFile, ...], text: str) -> Any:
    try:
        codec = FileCodecs(files)(files[0].codec if files else full_name(text))
    except ValueError as error:
        hint = "" if files else "; or give the path of a tokenizer.json or a SentencePiece .model"
        raise UserError(f"--text: {error}{hint}") from None
    if codec.kind != "text":
        raise UserError(f"--text: {text} is a codec of {codec.kind}, not of text")
    return codec


def _check(dataset: Dataset, spec: CodecSpec, out: Path) -> dict[str, set[str]]:
    """The text codecs of each source that are to be replaced; UserError where that cannot be done or is nothing."""
    here = dataset.folder.resolve()
    if out == here or here in out.parents:
        raise UserError(f"--out {out} lies in the dataset itself; choose another folder")
    stale = {}
    for name, source in dataset.items():
        used = {codec for shard in source.manifest.shards for codec in shard.codecs}
        stale[name] = {c.name for c in source.codecs if c.kind == "text" and c.name in used} - {spec.name}
        for codec in sorted(stale[name]):
            source.load_codec(codec)  # one that is missing is told before the work, not after
    if not any(stale.values()):
        raise UserError(f"{dataset.folder} has no text of another codec than {spec.name}: there is nothing to recode")
    return stale


def _marker(unit: Unit) -> dict[str, Any]:
    marker = read_marker(unit)
    if marker is None:
        raise RunError(f"unit {unit.key} left no output in {unit.folder}; was {unit.work} changed? Run it again")
    return marker


def _library_words() -> dict[str, str]:
    """What cuts texts into tokens: shards of two versions are never mixed."""
    found = {}
    for name in ("sentencepiece", "tokenizers"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


def print_recoded(report: RecodeReport) -> None:
    """Texts and codes by source, before and after."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table("source", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for head in ("samples", "texts", "codes before", "codes", "texts kept"):
        table.add_column(head, justify="right")
    for s in report.sources:
        table.add_row(s.name, *(f"{n:,}" for n in (s.samples, s.texts, s.codes_before, s.codes, s.kept)))
    console = Console()
    console.print(table)
    if not report.units_run:
        console.print("nothing had changed; no unit was run again")
    console.print(f"text codec {report.text}; {report.seconds:.1f} s, {report.workers} workers", highlight=False)
    console.print(f"dataset: {report.out}", soft_wrap=True)
