"""OUT/report.html: what a build did, on one page: what came through, what was left out, tokens, lengths, time.

Made from the dataset itself (catalogs, ledger) and from the numbers of OUT/report.json. No script and nothing fetched.
The ledger is read line by line and the catalogs shard by shard, a few columns of each; what is held of them is counts,
and 8 bytes a sample to find those that share a cluster.
"""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

import mmdata
from mmdata.catalog import read_catalog
from mmdata.commit import write_bytes
from mmdata.manifest import MANIFEST
from tokenizer.item import KINDS

MEDIA = KINDS[1:5]
_CODES = tuple(f"{kind}_codes" for kind in MEDIA)
_EXAMPLES = 3  # inputs shown for a reason
_LARGEST = 5  # clusters of duplicates shown
_MOST = 30  # hosts and languages shown
_READ = (  # the stages that read documents, each those that the one before it left
    "ingest", "curate", "decontaminate", "sign", "dedup", "encode", "shuffle", "write",
)  # fmt: skip
_OF_STAGE = {"decode": "encode"}  # ledger lines of another name than their stage


@dataclass
class _Ledger:
    """The ledger's lines, counted by source, stage and reason, and the first few of each stage and reason."""

    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], list[str]] = field(default_factory=dict)


@dataclass
class _Catalogs:
    """What the page says of the samples, added up over all shards."""

    codes: dict[str, Counter[str]] = field(default_factory=dict)  # source -> "text_codes" -> number
    languages: dict[str, Counter[str]] = field(default_factory=dict)  # language -> "samples", "text_codes" -> number
    lengths: dict[str, Counter[int]] = field(default_factory=dict)  # source -> codes of a sample -> samples
    clusters: list[np.ndarray] = field(default_factory=list)  # uint64 [samples of a shard]: the first half of each


def write_build_page(folder: Path, peak_bytes: Callable[[], int] = lambda: 0) -> Path:
    """Write the page of the build in `folder`, which kept samples or none, to its report.html; returns that path.
    `peak_bytes`: of memory, asked for once the page is made, where that may be more than report.json knows."""
    report = json.loads((folder / "report.json").read_text("utf-8"))
    ledger, catalogs = _read_ledger(folder), _read_catalogs(folder)
    sections = [
        ("What came through", _funnel(report, ledger)),
        ("What was left out", _left_out(ledger)),
        *([("Media that hosts did not give", _hosts(report))] if report["lost_by_host"] else []),
        ("Tokens", _tokens(catalogs)),
        ("Lengths", _lengths(catalogs)),
        ("Duplicates", _duplicates(report, ledger, catalogs, folder)),
        ("Where time went", _time(report)),
    ]
    pace, most = report["documents_per_second"], max(report["peak_bytes"], peak_bytes())
    lead = (
        f"{report['documents']:,} documents in, {report['samples']:,} samples, in {report['seconds']:,.1f} s"
        + (f" ({pace:,.1f} documents/s)" if pace else " (units of earlier runs stand, so without a rate)")
        + f", {report['workers']} workers, peak memory {most / 1e9:.2f} GB. Tokens are codes: a layout adds its own."
    )
    links = "".join(f'<a href="#{_anchor(name)}">{name}</a>' for name, _ in sections)
    body = "".join(f'<h2 id="{_anchor(name)}">{name}</h2>\n{inner}\n' for name, inner in sections)
    page = Template((Path(__file__).parent / "page.html").read_text("utf-8"))
    title = html.escape(f"Build of {folder.resolve().name}")
    out = folder / "report.html"
    write_bytes(out, page.substitute(title=title, lead=html.escape(lead), links=links, body=body).encode())
    return out


def _read_ledger(folder: Path) -> _Ledger:
    found = _Ledger()
    for path in sorted((folder / "ledger").glob("*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                entry = json.loads(line)
                stage, reason = entry["stage"], entry["reason"]
                found.counts[entry["source"], stage, reason] += 1
                some = found.examples.setdefault((stage, reason), [])
                if len(some) < _EXAMPLES:
                    some.append(f"{entry['source']}/{entry['uri']}: {entry['detail']}".removesuffix(": "))
    return found


def _read_catalogs(folder: Path) -> _Catalogs:
    found = _Catalogs()
    for name, table in _shards(folder, (*_CODES, "language", "cluster")):
        columns = {column: table.column(column).to_numpy() for column in _CODES}
        by_source = found.codes.setdefault(name, Counter())
        by_source.update({column: int(values.sum()) for column, values in columns.items()})
        lengths, samples = np.unique(sum(columns.values()), return_counts=True)
        found.lengths.setdefault(name, Counter()).update(dict(zip(lengths.tolist(), samples.tolist())))
        sums = [*((column, "sum") for column in _CODES), ("language", "count")]
        for row in table.group_by("language").aggregate(sums).to_pylist():
            counts = {column: row[f"{column}_sum"] for column in _CODES}
            of_language = found.languages.setdefault(row["language"], Counter())
            of_language.update({**counts, "samples": row["language_count"]})
        found.clusters.append(np.array([int(word[:16], 16) for word in table.column("cluster").to_pylist()], np.uint64))
    return found


def _shards(folder: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """(source, these columns of the catalog of one shard); nothing of a build that kept nothing."""
    sources = mmdata.open(folder).sources if (folder / MANIFEST).exists() else {}
    for name, source in sources.items():
        for shard in source.manifest.shards:
            yield name, read_catalog([source.folder / shard.catalog], list(columns))


def _funnel(report: dict[str, Any], ledger: _Ledger) -> str:
    """A row a source: how many documents each stage left. Then a row a source and stage: what it left out and why."""
    left = {source["name"]: source["remaining"] for source in report["sources"]}
    stages = [stage for stage in _READ if any(stage in counts for counts in left.values())]
    names = ("source", "inputs", *(f"after {stage}" for stage in stages), "samples", "of documents")
    rows = [
        (source["name"], f"{source['inputs']:,}", *(f"{left[source['name']].get(stage, 0):,}" for stage in stages),
         f"{source['samples']:,}", _share(source["samples"], source["documents"]))
        for source in report["sources"]
    ]  # fmt: skip
    if len(rows) > 1:
        whole = [f"{sum(counts.get(stage, 0) for counts in left.values()):,}" for stage in stages]
        inputs = sum(source["inputs"] for source in report["sources"])
        rows.append(("all", f"{inputs:,}", *whole, f"{report['samples']:,}",
                     _share(report["samples"], report["documents"])))  # fmt: skip
    reasons: dict[tuple[str, str], Counter[str]] = {}
    for (source, stage, reason), count in ledger.counts.items():
        reasons.setdefault((source, _OF_STAGE.get(stage, stage)), Counter())[reason] += count
    others = sorted({stage for _, stage in reasons} - set(stages))  # of files that nothing reads, for example
    each = []
    for source in left:
        before = 0
        for stage in (*stages, *others):
            why = reasons.get((source, stage), Counter())
            after = left[source].get(stage)
            fewer = f"{before - after:,}" if after is not None and stage != "ingest" else ""
            if why or after is not None:
                words = ", ".join(f"{reason} {count:,}" for reason, count in why.most_common())
                each.append((source, stage, "" if after is None else f"{after:,}", fewer, words))
            before = before if after is None else after
    return (
        "<p>Documents that are left after each stage.</p>" + _table(names, rows)
        + "<p>The same a stage at a time, with the lines of the ledger. A line is an input, a record, a document or a"
        " part of one: a document may lose parts and stay.</p>"
        + _table(("source", "stage", "documents left", "fewer by", "left out"), each, words=(0, 1, 4))
    )  # fmt: skip


def _left_out(ledger: _Ledger) -> str:
    if not ledger.counts:
        return "<p>nothing: every input is in the shards</p>"
    by_source: dict[tuple[str, str], Counter[str]] = {}
    for (source, stage, reason), count in ledger.counts.items():
        by_source.setdefault((stage, reason), Counter())[source] += count
    rows = [
        (*key, f"{counts.total():,}", ", ".join(f"{source} {count:,}" for source, count in counts.most_common()),
         "\n".join(ledger.examples[key]))
        for key, counts in sorted(by_source.items(), key=lambda row: (-row[1].total(), row[0]))
    ]  # fmt: skip
    return _table(("stage", "reason", "lines", "of source", "for example"), rows, words=(1, 3, 4))


def _hosts(report: dict[str, Any]) -> str:
    """Remote media that could not be had: the hosts with the most."""
    hosts = sorted(report["lost_by_host"].items(), key=lambda row: (-row[1], row[0]))
    rows = [
        (host, f"{count:,}", ", ".join(s["name"] for s in report["sources"] if host in s["lost_by_host"]))
        for host, count in hosts[:_MOST]
    ]
    said = f"<p>{sum(count for _, count in hosts):,} media of {len(hosts):,} hosts could not be had"
    said += f"; the {_MOST} hosts with the most:</p>" if len(hosts) > _MOST else ".</p>"
    return said + _table(("host", "media", "of source"), rows, words=(0, 2))


def _tokens(catalogs: _Catalogs) -> str:
    """Codes by source and kind, then by language."""
    by_source = [(name, *(f"{codes[column]:,}" for column in _CODES)) for name, codes in catalogs.codes.items()]
    languages = sorted(catalogs.languages.items(), key=lambda row: (-row[1]["samples"], row[0]))
    rows = [
        (language or "not said", *(f"{counts[column]:,}" for column in ("samples", *_CODES)))
        for language, counts in languages[:_MOST]
    ]
    more = f"<p>and {len(languages) - _MOST:,} more languages</p>" if len(languages) > _MOST else ""
    kinds = tuple(f"{kind} codes" for kind in MEDIA)
    return _table(("source", *kinds), by_source) + "<br>" + _table(("language", "samples", *kinds), rows) + more


def _lengths(catalogs: _Catalogs) -> str:
    """For each source: how many samples have 2^n to 2^(n+1) codes."""
    drawn = []
    for name, counts in catalogs.lengths.items():
        lengths = np.array(sorted(counts), np.int64)
        samples = np.array([counts[length] for length in lengths.tolist()], np.int64)
        if not np.any(lengths):
            continue
        bins = np.bincount(np.log2(np.maximum(lengths, 1)).astype(int), samples).astype(int)
        median = int(lengths[np.searchsorted(np.cumsum(samples), samples.sum() / 2)])
        middle = f"median {median:,}, longest {int(lengths[-1]):,} codes a sample"
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


def _duplicates(report: dict[str, Any], ledger: _Ledger, catalogs: _Catalogs, folder: Path) -> str:
    """What dedup left out, and the clusters of which more than one sample was kept."""
    read, left = _documents(report)["dedup"], sum(s["remaining"].get("dedup", 0) for s in report["sources"])
    ran = any("dedup" in source["remaining"] for source in report["sources"])
    reasons: Counter[str] = Counter()
    for (_, stage, reason), count in ledger.counts.items():
        if stage == "dedup":
            reasons[reason] += count
    said = f"<p>{read - left:,} documents were left out as duplicates of others" if ran else "<p>[dedup] was off"
    words = ", ".join(f"{count:,} {html.escape(why)}" for why, count in reasons.most_common())
    said += f" (lines of the ledger: {words})." if words else "."
    clusters = np.concatenate(catalogs.clusters or [np.zeros(0, np.uint64)])
    found, counts = np.unique(clusters, return_counts=True)
    many = counts > 1
    said += f" {int(counts[many].sum()):,} samples that were kept share a cluster with another, in"
    said += f" {int(many.sum()):,} clusters; a cluster is never in both splits.</p>"
    order = np.argsort(-counts[many], kind="stable")[:_LARGEST]
    largest = dict(zip(found[many][order].tolist(), counts[many][order].tolist()))
    firsts = _first_of(set(largest), folder)
    rows = [(firsts[cluster], f"{count:,}") for cluster, count in largest.items()]
    return said + (_table(("largest clusters, the first of each", "samples"), rows) if rows else "")


def _first_of(clusters: set[int], folder: Path) -> dict[int, str]:
    """Of each cluster the first sample in the order of the catalogs, as "source/uri"."""
    firsts: dict[int, str] = {}
    for name, table in _shards(folder, ("cluster", "uri")) if clusters else ():
        words = table.column("cluster").to_pylist()
        for row, word in enumerate(words):
            if (cluster := int(word[:16], 16)) in clusters and cluster not in firsts:
                firsts[cluster] = f"{name}/{table.column('uri')[row].as_py()}"
        if len(firsts) == len(clusters):
            break
    return firsts


def _documents(report: dict[str, Any]) -> dict[str, int]:
    """How many documents each stage reads: of ingestion, how many it finds."""
    left: Counter[str] = Counter()
    for source in report["sources"]:
        left.update(source["remaining"])
    read, now = {}, left["ingest"]
    for stage in _READ:
        read[stage] = now
        now = left.get(stage, now)
    return read


def _time(report: dict[str, Any]) -> str:
    """Seconds of workers by stage, of units run by this build and by those before it whose output stands."""
    seconds: Counter[str] = Counter()
    units: Counter[str] = Counter()
    ran: Counter[str] = Counter()
    for row in report["stages"]:
        seconds[row["stage"]] += row["seconds"]
        units[row["stage"]] += row["units"]
        ran[row["stage"]] += row["stale"]
    total, documents = sum(seconds.values()), _documents(report)
    rows = []
    for stage in [stage for stage in seconds if units[stage]]:  # in the order in which they ran
        spent = seconds[stage]
        read = f"{documents[stage]:,}" if stage in documents else ""
        pace = f"{documents[stage] / spent:,.1f}" if spent and stage in documents else ""
        rows.append((stage, f"{units[stage]:,}", f"{ran[stage]:,}", read, f"{spent:,.1f}", _share(spent, total), pace))
    names = ("stage", "units", "run now", "documents", "seconds of workers", "share", "documents/s of a worker")
    return _table(names, rows) + _steps(report, seconds["encode"])


def _steps(report: dict[str, Any], encode: float) -> str:
    """What of the seconds of encode went into decoding and into codecs."""
    steps: Counter[str] = Counter()
    for row in report["stages"]:
        steps.update(row["cpu_seconds"])
    rows = [(step, f"{spent:,.1f}", _share(spent, encode)) for step, spent in steps.most_common()]
    return "<p>Of encode:</p>" + _table(("step", "CPU seconds", "of encode"), rows) if rows else ""


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else ""


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
