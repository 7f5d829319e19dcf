"""What the rules of a recipe would do, on a sample of each source: `mmdata build --dry-run`. Writes nothing.

The sample is spread over the inputs, bounded in documents and time, and depends on the inputs alone unless time runs
out. Every rule is asked, also after one has failed, so a rule's share does not hide behind the rules before it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipelines.build.inputs import BuildSource
from pipelines.curate.judge import judge
from pipelines.curate.measure import Measure
from pipelines.ingest.document import Document
from pipelines.ingest.media import Limits
from pipelines.ingest.screen import screened

DOCUMENTS, SECONDS = 200, 20.0
_EXAMPLES, _FIRST = 2, 60


@dataclass
class RuleSample:
    """One rule on the sample of one source. `measured` and `failed` count documents, or parts for rules on parts."""

    rule: str
    limit: str  # "at least 50"
    measured: int = 0
    failed: int = 0
    lowest: float | None = None  # of the values, where they are numbers
    highest: float | None = None
    examples: list[dict[str, str]] = field(default_factory=list)  # uri, value, text: the first words of the document

    @property
    def share(self) -> float:
        return self.failed / self.measured


@dataclass
class SourceSample:
    """The sample of one source and its rules, in the order in which they are applied."""

    source: str
    documents: int = 0
    dropped: int = 0  # by any rule
    complete: bool = True  # False: time ran out
    rules: list[RuleSample] = field(default_factory=list)


def sample_rules(
    source: BuildSource, limits: Limits, documents: int = DOCUMENTS, seconds: float = SECONDS
) -> SourceSample:
    """Judge up to so many documents of a source, for at most about so long."""
    report, until = SourceSample(source.name), time.monotonic() + seconds
    rows: dict[str, RuleSample] = {}
    if source.curation is None:
        return report
    for document in _documents(source, documents):
        judged = judge(document, source.curation, limits, every=True)
        report.documents += 1
        report.dropped += judged.failed is not None
        for measure in judged.measures:
            limit = f"{measure.bound} {measure.limit}"
            _add(rows.setdefault(measure.rule, RuleSample(measure.rule, limit)), measure, document)
        if time.monotonic() > until:
            report.complete = False
            break
    report.rules = list(rows.values())
    return report


def _documents(source: BuildSource, most: int) -> Iterator[Document]:
    """Documents out of inputs at even distances, as many of each."""
    inputs = [item for cut in source.cuts for item in cut]
    chosen = [inputs[i * len(inputs) // min(most, len(inputs))] for i in range(min(most, len(inputs)))]
    opened = source.args.open()
    each = -(-most // max(1, len(chosen)))
    found = (one for item in chosen for one in itertools.islice(_read(opened, item), each))
    return itertools.islice(found, most)


def _read(opened: Any, item: Any) -> Iterator[Document]:
    return (one for one in screened(opened, opened.read(item)) if isinstance(one, Document) and one.parts)


def _add(row: RuleSample, measure: Measure, document: Document) -> None:
    row.measured += 1
    if not isinstance(measure.value, str):
        row.lowest = measure.value if row.lowest is None else min(row.lowest, measure.value)
        row.highest = measure.value if row.highest is None else max(row.highest, measure.value)
    if measure.kept:
        return
    row.failed += 1
    if len(row.examples) < _EXAMPLES:
        text = " ".join(next((part.text for part in document.parts if part.text), "")[: 4 * _FIRST].split())
        row.examples.append({"uri": document.uri, "value": measure.detail, "text": text[:_FIRST]})


def print_samples(console: Any, samples: list[SourceSample]) -> None:
    """A table a source: what each rule would leave out, and under it examples."""
    from rich.table import Table
    from rich.text import Text

    for sample in samples:
        cut = "" if sample.complete else "; time ran out"
        title = f"{sample.source}: of {sample.documents:,} documents {sample.dropped:,} would be dropped{cut}"
        table = Table("rule", "left out", "share", "values", "limit", title=title)
        for row in sample.rules:
            values = "" if row.lowest is None else f"{row.lowest:.4g} to {row.highest:.4g}"
            failed = f"{row.failed:,} of {row.measured:,}"
            table.add_row(Text(row.rule), failed, f"{row.share:.1%}", values, Text(row.limit))
        console.print(table)
        for row in sample.rules:
            for example in row.examples:
                line = f"  {row.rule}: {example['uri']} ({example['value']}): {example['text']}"
                console.print(Text(line), soft_wrap=True)
