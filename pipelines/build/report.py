"""What a build made: the report, its JSON, and the closing table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from pipelines.dedup.by_benchmark import print_by_benchmark

KINDS = ("text", "image", "audio", "video")


@dataclass
class SourceReport:
    """Numbers of one source. `documents` counts those that ingestion found."""

    name: str
    inputs: int = 0
    input_bytes: int = 0
    units: int = 0
    documents: int = 0
    remaining: dict[str, int] = field(default_factory=dict)  # documents that are left after each stage, in their order
    samples: int = 0
    train: int = 0
    validation: int = 0
    codes: dict[str, int] = field(default_factory=dict)  # by kind: codes are tokens of most layouts
    soft: int = 0
    dropped: dict[str, int] = field(default_factory=dict)  # by reason: inputs, records and parts
    lost_by_host: dict[str, int] = field(default_factory=dict)  # remote media and pages that could not be had
    changed: dict[str, int] = field(default_factory=dict)  # by what: lines taken out, addresses masked
    bytes: int = 0
    fingerprint: str = ""


@dataclass
class StageReport:
    """Units of one stage of one source: how many there are, how many run, and why. `seconds`: what workers spent
    on all of them, in this build or an earlier one. `cpu_seconds`: what of it went into decoding and into codecs, by
    kind ("decode image", "encode text"); only encode says so.

    Of a build that is only explained: `maybe` more run if what comes before them comes out otherwise than last time;
    `about`: how many shards there are is known once the samples are.
    """

    stage: str
    source: str
    units: int
    stale: int
    why: str = ""
    seconds: float = 0.0
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    maybe: int = 0
    about: bool = False


@dataclass
class BuildReport:
    """The whole build. `dry_run`: nothing was written and only inputs, bytes, units and a sample are known.

    `documents_per_second`: of all documents, by the clock; None where units of an earlier run stand, whose seconds are
    not in `seconds`.
    """

    out: str
    sources: list[SourceReport]
    stages: list[StageReport] = field(default_factory=list)
    workers: int = 0
    seconds: float = 0.0
    documents_per_second: float | None = None
    peak_bytes: int = 0
    dry_run: bool = False
    evaluation: dict[str, Any] = field(default_factory=dict)  # `by_benchmark`, where there is [decontaminate]
    rules: list[Any] = field(default_factory=list)  # of a dry run, a SourceSample for each source with rules

    @property
    def units_run(self) -> int:
        return sum(stage.stale for stage in self.stages)

    def total(self, name: str) -> int:
        return sum(getattr(source, name) for source in self.sources)

    def pace(self) -> float | None:
        """`documents_per_second`, once `seconds` are known."""
        whole = all(stage.stale == stage.units for stage in self.stages)
        return round(self.total("documents") / max(self.seconds, 1e-9), 3) if whole else None

    @property
    def remaining(self) -> dict[str, int]:
        """Documents that are left after each stage, of all sources."""
        total: dict[str, int] = {}
        for source in self.sources:
            for stage, count in source.remaining.items():
                total[stage] = total.get(stage, 0) + count
        return total

    @property
    def codes(self) -> dict[str, int]:
        """Codes by kind, of all sources."""
        return {kind: sum(source.codes.get(kind, 0) for source in self.sources) for kind in KINDS}

    @property
    def dropped(self) -> dict[str, int]:
        """Ledger lines by reason, of all sources, the most frequent first."""
        return _summed(source.dropped for source in self.sources)

    @property
    def changed(self) -> dict[str, int]:
        """What rules changed in documents, of all sources, the most frequent first."""
        return _summed(source.changed for source in self.sources)

    @property
    def lost_by_host(self) -> dict[str, int]:
        """Remote media and pages that could not be had by host, of all sources, the most frequent first."""
        return _summed(source.lost_by_host for source in self.sources)

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "documents": self.total("documents"),
            "remaining": self.remaining,
            "samples": self.total("samples"),
            "codes": self.codes,
            "dropped": self.dropped,
            "lost_by_host": self.lost_by_host,
            "changed": self.changed,
            "units_run": self.units_run,
        }


def _summed(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for some in counts:
        total.update(some)
    return dict(sorted(total.items(), key=lambda entry: (-entry[1], entry[0])))


def print_report(report: BuildReport) -> None:
    """The closing table, or what there is to do. Tokens are codes: a layout adds its own."""
    from rich.console import Console

    console = Console()
    if report.dry_run:
        console.print(_plan_table(report))
        if any(row.stale or row.maybe for row in report.stages):
            console.print(_stage_table(report))
        elif report.stages:
            console.print("nothing has changed; no unit would run")
        if report.rules:
            from pipelines.build.sample_rules import print_samples

            print_samples(console, report.rules)
        return
    console.print(_table(report))
    console.print(f"tokens by kind; train {report.total('train'):,} samples, validation {report.total('validation'):,}")
    console.print(
        "documents after " + ", ".join(f"{stage} {count:,}" for stage, count in report.remaining.items()),
        soft_wrap=True,
    )
    for reason, count in report.dropped.items():
        console.print(f"  left out: {count:,} {reason}")
    print_by_benchmark(console, report.evaluation)
    if lost := report.lost_by_host:
        most = ", ".join(f"{host} {count:,}" for host, count in list(lost.items())[:5])
        console.print(f"  media or pages of {len(lost):,} hosts could not be had: {most}", soft_wrap=True)
    for what, count in report.changed.items():
        console.print(f"  changed: {count:,} {what}")
    if report.total("soft"):
        console.print(f"  soft items: {report.total('soft'):,}")
    if not report.units_run:
        console.print("nothing had changed; no unit was run again")
    pace = "" if report.documents_per_second is None else f"{report.documents_per_second:,.1f} documents/s, "
    console.print(
        f"{report.total('documents'):,} documents in, {report.total('samples'):,} kept, in {report.seconds:.1f} s"
        f" ({pace}{report.workers} workers,"
        f" peak memory {report.peak_bytes / 1e9:.2f} GB)",
        soft_wrap=True,
    )
    console.print(
        f"dataset: {report.out}   ledger: {report.out}/ledger   report: {report.out}/report.html", soft_wrap=True
    )


def _table(report: BuildReport) -> Any:
    from rich import box
    from rich.table import Table

    words = ("docs", "kept", "left out", *KINDS, "MB")
    table = Table("source", *words, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in table.columns:
        column.no_wrap = True
        column.justify = "left" if column.header == "source" else "right"

    def add(name: str, numbers: list[int], size: int) -> None:
        table.add_row(name, *map(_short, numbers), f"{size / 1e6:.1f}")

    for s in report.sources:
        codes = [s.codes.get(kind, 0) for kind in KINDS]
        add(s.name, [s.documents, s.samples, sum(s.dropped.values()), *codes], s.bytes)
    table.add_section()
    left_out = sum(report.dropped.values())
    totals = [report.total("documents"), report.total("samples"), left_out, *report.codes.values()]
    add("all", totals, report.total("bytes"))
    return table


def _short(n: int) -> str:
    """12,345 or 751k or 3.55M: six characters at most, so that the table fits 80 columns."""
    return f"{n:,}" if n < 100_000 else f"{n / 1e3:.0f}k" if n < 999_500 else f"{n / 1e6:.4g}M"


def _plan_table(report: BuildReport) -> Any:
    from rich.table import Table

    table = Table("source", "inputs", "MB", "units", title=f"to build in {report.out}")
    for s in report.sources:
        table.add_row(s.name, f"{s.inputs:,}", f"{s.input_bytes / 1e6:.1f}", f"{s.units:,}")
    return table


def _stage_table(report: BuildReport) -> Any:
    from rich.table import Table

    table = Table("stage", "source", "units", "to run", "perhaps", "why", title="what would run")
    for s in (row for row in report.stages if row.stale or row.maybe):
        about = "about " if s.about else ""
        table.add_row(s.stage, s.source, f"{about}{s.units}", str(s.stale), str(s.maybe or ""), s.why)
    return table
