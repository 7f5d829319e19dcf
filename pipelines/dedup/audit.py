"""`decontaminate DIR --against EVAL`: a finished dataset held against evaluation sets, from what it stores alone.

Texts are decoded exactly, and those of a sample read as one. Pictures, sounds and videos are compared by their kept
media; where none are kept, by the sha256 of the files that they came from, which finds the very files only, and so are
videos of which some frames were kept: the report says how many were looked at in which way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.dataset import Source, open_dataset
from mmdata.errors import UserError
from mmdata.media import Media
from mmdata.sample import Sample
from pipelines.build.ledger import read_ledger
from pipelines.build.progress import Progress
from pipelines.dedup.by_benchmark import unread_words
from pipelines.dedup.evaluation import Index, check_paths, read_evaluation
from pipelines.dedup.matches import (
    Match,
    benchmarks_told,
    bytes_match,
    look_match,
    sound_match,
    text_matches,
    video_match,
)
from pipelines.dedup.sounds import RATE_HZ, SHIFTS, audio_bits
from pipelines.ingest.looks import hash_of
from pipelines.ingest.media import Limits, MediaError
from tokenizer.codec import Codes, Shape
from tokenizer.item import Item

_BATCH = 256  # samples a read
_EXAMPLES = 5  # of a benchmark


@dataclass
class BenchmarkReport:
    """One evaluation set. `before`: documents that the build left out for it; `found`: samples that meet it now."""

    name: str
    items: int = 0
    unchecked: int = 0  # items too short to tell anything by
    before: int = 0
    found: int = 0
    items_found: int = 0  # of `items`, those that some sample meets
    left_out: list[dict[str, str]] = field(default_factory=list)  # examples of `before`, out of the ledger
    examples: list[dict[str, str]] = field(default_factory=list)  # of `found`


@dataclass
class AuditReport:
    """What the audit looked at, and what it found."""

    dataset: str
    samples: int = 0
    looked_at: dict[str, int] = field(default_factory=dict)  # texts, pictures..., by how they were compared
    benchmarks: list[BenchmarkReport] = field(default_factory=list)
    unread: list[tuple[str, str]] = field(default_factory=list)  # evaluation files that are not compared, and why

    @property
    def found(self) -> int:
        return sum(benchmark.found for benchmark in self.benchmarks)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "found": self.found}


def audit(folder: Path | str, against: Sequence[Path], progress: bool = True) -> AuditReport:
    """Hold all samples of the dataset in `folder` against the evaluation sets. Raises UserError where either is not
    there or cannot be read."""
    if not against:
        raise UserError("name what to hold the dataset against: --against EVAL")
    check_paths(against)
    dataset = open_dataset(folder)
    index = read_evaluation(against, Limits())
    report = AuditReport(str(folder), benchmarks=_benchmarks(index), unread=list(index.unread))
    by_name = {benchmark.name: benchmark for benchmark in report.benchmarks}
    met: dict[str, set[str]] = {name: set() for name in by_name}
    looked: Counter[str] = Counter()
    with Progress(progress) as bars:
        splits = [split for source in dataset.values() for split in (source.train, source.validation)]
        bar = bars.begin("samples", sum(map(len, splits)))
        for source in dataset.values():
            for split, sample in _samples(source):
                report.samples += 1
                bar.advance()
                _note(sample, split, source.name, _matches(sample, source, index, looked), by_name, met)
        bar.finish()
    report.looked_at = dict(sorted(looked.items()))
    for name, benchmark in by_name.items():
        benchmark.items_found = len(met[name])
    for line in _left_out(Path(folder)):
        for named in (by_name[name] for name in benchmarks_told(line["detail"]) if name in by_name):
            named.before += 1
            if len(named.left_out) < _EXAMPLES:
                named.left_out.append({word: line[word] for word in ("source", "uri", "reason", "detail")})
    return report


def _benchmarks(index: Index) -> list[BenchmarkReport]:
    return [BenchmarkReport(name, items, short) for name, (items, short) in index.benchmarks().items()]


def _samples(source: Source) -> Iterator[tuple[str, Sample]]:
    for split in (source.train, source.validation):
        for begin in range(0, len(split), _BATCH):
            for sample in split.read(range(begin, min(begin + _BATCH, len(split)))):
                yield split.name, sample


def _note(
    sample: Sample,
    split: str,
    source: str,
    matches: list[Match],
    benchmarks: dict[str, BenchmarkReport],
    met: dict[str, set[str]],
) -> None:
    seen = set()
    for match in matches:
        benchmark = benchmarks[match.item.benchmark]
        met[benchmark.name].add(match.item.uri)
        if benchmark.name in seen:
            continue
        seen.add(benchmark.name)
        benchmark.found += 1
        if len(benchmark.examples) < _EXAMPLES:
            where = {"source": source, "split": split, "uri": sample.uri, "id": sample.id}
            benchmark.examples.append({**where, "item": match.item.uri, "kind": match.kind, "match": match.what})


def _matches(sample: Sample, source: Source, index: Index, looked: Counter[str]) -> list[Match]:
    texts = [_text(item, source) for item in sample.items if item.kind == "text"]
    looked["texts"] += len(texts)
    found = text_matches("\n".join(texts), index)
    for item in sample.items:
        if item.kind != "text":
            found += _medium(item, source, index, looked)
    return found


def _text(item: Item, source: Source) -> str:
    if item.text:
        return item.text
    assert item.codes is not None
    return source.load_codec(item.codec).decode(Codes(item.codes, Shape(*item.codes.shape)))


def _medium(item: Item, source: Source, index: Index, looked: Counter[str]) -> list[Match]:
    same = bytes_match(item.kind, item.digest, index)
    what = {"image": "pictures", "audio": "sounds", "video": "videos"}[item.kind]
    try:
        medium = source.media.get(item.digest, item.kind)
    except KeyError:
        medium = None
    if medium is None or (item.kind == "video" and not isinstance(medium.data, bytes)):
        looked[f"{what}, by their bytes only"] += 1
        return same
    looked[f"{what}, kept {medium.form}"] += 1
    if same:
        return same
    try:
        return {"image": _look, "audio": _sound, "video": _video}[item.kind](medium, index)
    except MediaError:
        return []


def _look(medium: Media, index: Index) -> list[Match]:
    if isinstance(medium.data, bytes):
        from pipelines.ingest.looks import look_of

        return look_match(look_of(medium.data, Limits()).bits, index)
    from PIL import Image

    return look_match(hash_of(Image.fromarray(medium.data)), index)


def _video(medium: Media, index: Index) -> list[Match]:
    from pipelines.ingest.looks import video_look

    assert isinstance(medium.data, bytes)
    return video_match(video_look(medium.data, Limits()), index) if len(index.videos) else []


def _sound(medium: Media, index: Index) -> list[Match]:
    if isinstance(medium.data, bytes):
        from pipelines.ingest.decode_audio import decode_audio

        samples = decode_audio(medium.data, RATE_HZ, Limits())
    else:
        import soxr

        samples = soxr.resample(medium.data.astype(np.float32) / 32767, medium.sample_rate_hz, RATE_HZ, quality="HQ")
    return sound_match(audio_bits(samples, SHIFTS), index)


def _left_out(folder: Path) -> Iterator[dict[str, Any]]:
    """The ledger's lines on documents that the build left out for an evaluation set."""
    for path in sorted((folder / "ledger").glob("*.jsonl")):
        yield from (line for line in read_ledger(path) if line["stage"] == "decontaminate")


def print_audit(report: AuditReport) -> None:
    """The table by benchmark, with examples below."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table("benchmark", "items", "too short", "left out by the build", "samples that meet it now", "items met")
    for column in table.columns[1:]:
        column.justify = "right"
    for b in report.benchmarks:
        numbers = (b.items, b.unchecked, b.before, b.found, b.items_found)
        table.add_row(escape(b.name), *(f"{n:,}" for n in numbers))
    console.print(table)
    for b in report.benchmarks:
        for one in b.left_out:
            console.print(
                f"  left out: {escape(one['source'])}/{escape(one['uri'])}: {escape(one['detail'])}",
                soft_wrap=True,
                highlight=False,
            )
        for one in b.examples:
            where = f"{one['source']}/{one['uri']} ({one['split']}) meets {b.name} {one['item']}: {one['match']}"
            console.print(f"  {escape(where)}", soft_wrap=True, highlight=False)
    for words in unread_words(report.unread):
        console.print(escape(words), soft_wrap=True, highlight=False)
    seen = ", ".join(f"{n:,} {what}" for what, n in report.looked_at.items())
    console.print(f"{report.samples:,} samples: {seen or 'nothing to compare'}", soft_wrap=True)
