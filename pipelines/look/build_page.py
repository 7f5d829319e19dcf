"""OUT/report.html: what a build did, on one page: what came through, what was left out, tokens, lengths, time.

Made from the dataset itself (catalog, ledger) and from the numbers of OUT/report.json. No script and nothing fetched.
"""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

import mmdata
from mmdata.commit import write_bytes
from mmdata.manifest import MANIFEST
from tokenizer.item import KINDS

MEDIA = KINDS[1:5]
_EXAMPLES = 3  # inputs shown for a reason
_LARGEST = 5  # clusters of duplicates shown
_STAGES = (
    "ingest", "curate", "benchmarks", "decontaminate", "sign", "dedup", "encode", "shuffle", "write", "media", "finish",
)  # fmt: skip


def write_build_page(folder: Path, peak_bytes: Callable[[], int] = lambda: 0) -> Path:
    """Write the page of the build in `folder`, which kept samples or none, to its report.html; returns that path.
    `peak_bytes`: of memory, asked for once the page is made, where that may be more than report.json knows."""
    report = json.loads((folder / "report.json").read_text("utf-8"))
    ledger = [entry for path in sorted((folder / "ledger").glob("*.jsonl")) for entry in _lines(path)]
    sources = mmdata.open(folder).sources if (folder / MANIFEST).exists() else {}
    tables = {name: source.catalog for name, source in sources.items()}
    sections = [
        ("What came through", _funnel(report, ledger)),
        ("What was left out", _left_out(ledger)),
        ("Tokens", _tokens(tables)),
        ("Lengths", _lengths(tables)),
        ("Duplicates", _duplicates(tables, ledger)),
        ("Where time went", _time(report)),
    ]
    lead = (
        f"{report['documents']:,} documents in, {report['samples']:,} samples in {report['seconds']:,.1f} s"
        f" ({report['documents_per_second']:,.1f} documents/s, {report['workers']} workers, peak memory"
        f" {max(report['peak_bytes'], peak_bytes()) / 1e9:.2f} GB). Tokens are codes: a layout adds its own."
    )
    links = "".join(f'<a href="#{_anchor(name)}">{name}</a>' for name, _ in sections)
    body = "".join(f'<h2 id="{_anchor(name)}">{name}</h2>\n{inner}\n' for name, inner in sections)
    page = Template((Path(__file__).parent / "page.html").read_text("utf-8"))
    title = html.escape(f"Build of {folder.resolve().name}")
    out = folder / "report.html"
    write_bytes(out, page.substitute(title=title, lead=html.escape(lead), links=links, body=body).encode())
    return out


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _funnel(report: dict[str, Any], ledger: list[dict[str, Any]]) -> str:
    """A row a source: inputs, documents, what each stage took away of inputs, documents and parts, samples."""
    taken = Counter((entry["source"], entry["stage"]) for entry in ledger)
    stages = [stage for stage in (*_STAGES, "decode") if any(key[1] == stage for key in taken)]
    names = ("source", "inputs", "documents", *(f"left out in {stage}" for stage in stages), "samples", "of documents")
    rows = []
    for source in report["sources"]:
        share = f"{source['samples'] / source['documents']:.1%}" if source["documents"] else ""
        lost = [f"{taken[source['name'], stage]:,}" for stage in stages]
        rows.append((source["name"], f"{source['inputs']:,}", f"{source['documents']:,}", *lost,
                     f"{source['samples']:,}", share))  # fmt: skip
    note = "<p>A line of the ledger is an input, a record or a part: a document may lose parts and stay.</p>"
    return _table(names, rows) + note


def _left_out(ledger: list[dict[str, Any]]) -> str:
    if not ledger:
        return "<p>nothing: every input is in the shards</p>"
    counts = Counter((entry["stage"], entry["reason"]) for entry in ledger)
    examples: dict[tuple[str, str], list[str]] = {}
    for entry in ledger:
        some = examples.setdefault((entry["stage"], entry["reason"]), [])
        if len(some) < _EXAMPLES:
            some.append(f"{entry['source']}/{entry['uri']}: {entry['detail']}".removesuffix(": "))
    rows = [
        (stage, reason, f"{count:,}", "\n".join(examples[stage, reason]))
        for (stage, reason), count in sorted(counts.items(), key=lambda row: (-row[1], row[0]))
    ]
    return _table(("stage", "reason", "count", "for example"), rows, words=(1, 3))


def _tokens(tables: dict[str, Any]) -> str:
    """Codes by source and kind, then by language."""
    by_source, by_language = [], Counter[tuple[str, str]]()
    samples: Counter[str] = Counter()
    for name, table in tables.items():
        languages = table.column("language").to_pylist()
        samples.update(languages)
        sums = []
        for kind in MEDIA:
            codes = table.column(f"{kind}_codes").to_numpy()
            sums.append(int(codes.sum()))
            for language, count in zip(languages, codes.tolist(), strict=True):
                by_language[language, kind] += count
        by_source.append((name, *(f"{n:,}" for n in sums)))
    rows = [
        (language or "not said", f"{count:,}", *(f"{by_language[language, kind]:,}" for kind in MEDIA))
        for language, count in samples.most_common()
    ]
    kinds = tuple(f"{kind} codes" for kind in MEDIA)
    return _table(("source", *kinds), by_source) + "<br>" + _table(("language", "samples", *kinds), rows)


def _lengths(tables: dict[str, Any]) -> str:
    """For each source: how many samples have 2^n to 2^(n+1) codes."""
    drawn = []
    for name, table in tables.items():
        codes = sum(table.column(f"{kind}_codes").to_numpy() for kind in MEDIA)
        if not len(table) or not np.any(codes):
            continue
        bins = np.bincount(np.log2(np.maximum(codes, 1)).astype(int))
        middle = f"median {int(np.median(codes)):,}, longest {int(np.max(codes)):,} codes a sample"
        drawn.append(f"<h3>{html.escape(name)}</h3><p>{middle}</p>{_bars(bins)}")
    return "".join(drawn) or "<p>no codes</p>"


def _bars(bins: np.ndarray) -> str:
    first = int(np.flatnonzero(bins)[0])
    bins, width, height = bins[first:], 46, 90
    drawn = ""
    for i, count in enumerate(bins.tolist()):
        tall = height * count / int(bins.max())
        x, y = 10 + i * width, 16 + height - tall
        drawn += f'<rect x="{x}" y="{y:.1f}" width="{width - 6}" height="{tall:.1f}" fill="#3b82f6"/>'
        drawn += f'<text x="{x}" y="{y - 3:.1f}">{count:,}</text>' if count else ""
        drawn += f'<text x="{x}" y="{height + 30}">{_short(1 << (first + i))}+</text>'
    return f'<div class="scroll"><svg width="{20 + width * len(bins)}" height="{height + 36}">{drawn}</svg></div>'


def _duplicates(tables: dict[str, Any], ledger: list[dict[str, Any]]) -> str:
    """What dedup left out, and the clusters of which more than one sample was kept."""
    reasons = Counter(entry["reason"] for entry in ledger if entry["stage"] == "dedup")
    sizes: Counter[str] = Counter()
    example: dict[str, str] = {}
    for name, table in tables.items():
        for cluster, uri in zip(*(table.column(column).to_pylist() for column in ("cluster", "uri")), strict=True):
            sizes[cluster] += 1
            example.setdefault(cluster, f"{name}/{uri}")
    many = [(cluster, count) for cluster, count in sizes.most_common() if count > 1]
    said = f"<p>{sum(reasons.values()):,} documents were left out as duplicates of others"
    said += (
        f" ({', '.join(f'{count:,} {html.escape(why)}' for why, count in reasons.most_common())})." if reasons else "."
    )
    said += f" {sum(count for _, count in many):,} samples that were kept share a cluster with another, in"
    said += f" {len(many):,} clusters; a cluster is never in both splits.</p>"
    rows = [(example[cluster], f"{count:,}") for cluster, count in many[:_LARGEST]]
    return said + (_table(("largest clusters, the first of each", "samples"), rows) if rows else "")


def _time(report: dict[str, Any]) -> str:
    """Seconds of workers by stage, of units run by this build and by those before it whose output stands."""
    seconds: Counter[str] = Counter()
    units: Counter[str] = Counter()
    ran: Counter[str] = Counter()
    for row in report["stages"]:
        seconds[row["stage"]] += row["seconds"]
        units[row["stage"]] += row["units"]
        ran[row["stage"]] += row["stale"]
    total = sum(seconds.values())
    rows = []
    for stage in [stage for stage in _STAGES if units[stage]]:
        spent = seconds[stage]
        pace = f"{report['documents'] / spent:,.1f}" if spent else ""
        share = f"{spent / total:.1%}" if total else ""
        rows.append((stage, f"{units[stage]:,}", f"{ran[stage]:,}", f"{spent:,.1f}", share, pace))
    names = ("stage", "units", "run now", "seconds of workers", "share", "documents/s of a worker")
    return _table(names, rows)


def _table(names: Iterable[str], rows: Iterable[Iterable[str]], words: tuple[int, ...] = (0,)) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = ""
    for row in rows:
        cells = (
            f"<td class=words>{html.escape(value).replace(chr(10), '<br>')}"
            if i in words
            else f"<td>{html.escape(value)}"
            for i, value in enumerate(row)
        )
        body += f"<tr>{''.join(cells)}"
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _short(n: int) -> str:
    return f"{n:,}" if n < 10_000 else f"{n >> 10}k" if n < 1 << 20 else f"{n >> 20}M"


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")
