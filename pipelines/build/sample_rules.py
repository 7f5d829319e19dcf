"""What the rules of a recipe would do, on a sample of each source: `mmdata build --dry-run`. Writes nothing.

The sample is spread over the inputs, bounded in documents and time, and depends on the inputs alone unless time runs
out. Every rule is asked, also after one has failed, so a rule's share does not hide behind the rules before it; of a
part that a family leaves out, the families after it see nothing. Workers read and judge, an input at a time, under the
limits of the recipe: what hangs or kills one is shown, and the rest of the sample is counted.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pipelines.build.executor import Task
from pipelines.build.inputs import BuildSource
from pipelines.build.runner import Executor
from pipelines.build.stages import SourceArgs, loss_of
from pipelines.build.worker import Call
from pipelines.curate.judge import judge
from pipelines.curate.measure import Measure
from pipelines.curate.settings import Curation
from pipelines.ingest.document import Document
from pipelines.ingest.media import Limits
from pipelines.ingest.screen import screened
from pipelines.ingest.source import Input

DOCUMENTS, SECONDS = 200, 20.0
_EXAMPLES, _FIRST = 2, 60


@dataclass
class RuleSample:
    """One rule on the sample of one source. `measured` and `failed` count documents, or parts for rules on parts."""

    rule: str
    bound: str  # "at least"
    limits: list[float | str] = field(default_factory=list)  # those met: a language may have its own
    measured: int = 0
    failed: int = 0
    lowest: float | None = None  # of the values, where they are numbers
    highest: float | None = None
    examples: list[dict[str, str]] = field(default_factory=list)  # uri, value, text: the first words of the document

    @property
    def share(self) -> float:
        return self.failed / self.measured

    @property
    def limit(self) -> str:
        """
        >>> RuleSample("few", "at least", [50]).limit, RuleSample("few", "at least", [50, 0.5, 20]).limit
        ('at least 50', 'at least 0.5 to 50')
        """
        numbers = sorted(limit for limit in self.limits if not isinstance(limit, str))
        words = [limit for limit in self.limits if isinstance(limit, str)]
        ends = list(dict.fromkeys(f"{number:,}" for number in (*numbers[:1], *numbers[-1:])))
        return f"{self.bound} {'; or '.join([*words, ' to '.join(ends)] if ends else words)}"


@dataclass
class SourceSample:
    """The sample of one source and its rules, in the order in which they are applied."""

    source: str
    documents: int = 0  # that were judged
    dropped: int = 0  # of these, by any rule
    complete: bool = True  # False: time ran out
    rules: list[RuleSample] = field(default_factory=list)
    lost: list[dict[str, str]] = field(default_factory=list)  # uri, reason, detail of what hung or killed its worker


@dataclass(frozen=True)
class SampleArgs:
    """One input of a sample."""

    source: SourceArgs
    item: Input
    documents: int  # at most so many of it
    curation: Curation
    limits: Limits
    until: float  # of time.monotonic(), which all processes of a machine share
    first: bool  # of its source: one document of it is judged, however late it is


def sample_rules(
    source: BuildSource, limits: Limits, pool: Executor, documents: int = DOCUMENTS, seconds: float = SECONDS
) -> SourceSample:
    """Judge up to so many documents of a source on the workers of `pool`, for at most about so long."""
    report, until = SourceSample(source.name), time.monotonic() + seconds
    inputs = [item for cut in source.cuts for item in cut]
    if source.curation is None or not inputs:
        return report
    count = min(documents, len(inputs))  # at even distances, as many documents of each
    tasks = []
    for i in range(count):
        item, most = inputs[i * len(inputs) // count], documents * (i + 1) // count - documents * i // count
        args = SampleArgs(source.args, item, most, source.curation, limits, until, i == 0)
        tasks.append(Task(f"sample {source.name} {i}", sample_input, args, isolate=True))

    def lose(task: Task, step: str, cause: str) -> None:
        report.lost.append({"uri": step, "reason": loss_of(cause), "detail": cause})

    found = pool.run(tasks, on_poison=lose)
    rows: dict[str, RuleSample] = {}
    for task in tasks:
        _add_sample(report, rows, found[task.key])
    report.rules = list(rows.values())
    report.lost.sort(key=lambda lost: lost["uri"])
    return report


def sample_input(call: Call) -> SourceSample:
    """Judge documents of one input; those that `call` says to skip have cost a worker, and are not counted."""
    args: SampleArgs = call.args
    report, rows = SourceSample(args.source.name), dict[str, RuleSample]()
    if args.item.path in call.skip:
        return report
    if not args.first and time.monotonic() > args.until:
        report.complete = False
        return report
    call.at(args.item.path)
    opened = args.source.open()
    seen = 0
    for document in screened(opened, opened.read(args.item)):
        if isinstance(document, Document) and document.parts:
            seen += 1
            if document.uri not in call.skip:
                call.at(document.uri)
                _judge(report, rows, document, args)
            if seen == args.documents:
                break
        if time.monotonic() > args.until:
            report.complete = False
            break
        call.at(args.item.path)
    report.rules = list(rows.values())
    return report


def _judge(report: SourceSample, rows: dict[str, RuleSample], document: Document, args: SampleArgs) -> None:
    judged = judge(document, args.curation, args.limits, every=True)
    report.documents += 1
    report.dropped += judged.failed is not None
    for measure in judged.measures:
        _add(rows.setdefault(measure.rule, RuleSample(measure.rule, measure.bound)), measure, document)


def _add(row: RuleSample, measure: Measure, document: Document) -> None:
    row.measured += 1
    row.limits = _united(row.limits, [measure.limit])
    _widen(row, measure.value)
    if measure.kept:
        return
    row.failed += 1
    if len(row.examples) < _EXAMPLES:
        text = " ".join(next((part.text for part in document.parts if part.text), "")[: 4 * _FIRST].split())
        row.examples.append({"uri": document.uri, "value": measure.detail, "text": text[:_FIRST]})


def _add_sample(report: SourceSample, rows: dict[str, RuleSample], more: SourceSample) -> None:
    """The sample of one more input into that of its source."""
    report.documents += more.documents
    report.dropped += more.dropped
    report.complete = report.complete and more.complete
    for new in more.rules:
        row = rows.setdefault(new.rule, RuleSample(new.rule, new.bound))
        row.limits = _united(row.limits, new.limits)
        row.measured += new.measured
        row.failed += new.failed
        for value in (new.lowest, new.highest):
            _widen(row, value)
        row.examples = [*row.examples, *new.examples][:_EXAMPLES]


def _widen(row: RuleSample, value: float | str | None) -> None:
    if value is not None and not isinstance(value, str):
        row.lowest = value if row.lowest is None else min(row.lowest, value)
        row.highest = value if row.highest is None else max(row.highest, value)


def _united(limits: Iterable[float | str], more: Iterable[float | str]) -> list[float | str]:
    return list(dict.fromkeys([*limits, *more]))


def print_samples(console: Any, samples: list[SourceSample]) -> None:
    """A table a source: what each rule would leave out, and under it examples."""
    from rich.table import Table
    from rich.text import Text

    for sample in samples:
        cut = "" if sample.complete else "; time ran out"
        cut += f"; {len(sample.lost):,} would be left out with a lost worker" if sample.lost else ""
        title = f"{sample.source}: of {sample.documents:,} documents {sample.dropped:,} would be dropped{cut}"
        table = Table("rule", "left out", "share", "values", "limit", title=title)
        for row in sample.rules:
            values = "" if row.lowest is None else f"{row.lowest:.4g} to {row.highest:.4g}"
            failed = f"{row.failed:,} of {row.measured:,}"
            table.add_row(Text(row.rule), failed, f"{row.share:.1%}", values, Text(row.limit))
        console.print(table)
        for lost in sample.lost:
            console.print(Text(f"  {lost['reason']}: {lost['uri']} ({lost['detail']})"), soft_wrap=True)
        for row in sample.rules:
            for example in row.examples:
                line = f"  {row.rule}: {example['uri']} ({example['value']}): {example['text']}"
                console.print(Text(line), soft_wrap=True)
