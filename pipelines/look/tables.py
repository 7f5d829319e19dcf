"""Tables for the terminal: statistics, samples, checks. Numbers are gathered here; pages use them too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import mmdata
from mmdata.errors import UserError
from tokenizer.item import KINDS, Item

MEDIA = KINDS[1:5]
_PIPE_WIDTH = 400
Stats = dict[str, Any]


def dataset_stats(folder: Path) -> Stats:
    """Samples and codes of a dataset, read from its manifests and catalogs alone.

    {"sources": {name: {"train": n, "validation": n, "tokens": {kind: n}, "items": {kind: n}, "soft_items": n,
    "languages": {tag: samples}, "fingerprint": hex}}}
    """
    dataset = mmdata.open(folder)
    sources = {}
    for name, source in dataset.sources.items():
        table = source.catalog
        languages = table.column("language").value_counts().to_pylist()
        sources[name] = {
            "train": len(source.train),
            "validation": len(source.validation),
            "tokens": {kind: _sum(table, f"{kind}_codes") for kind in MEDIA},
            "items": {kind: _sum(table, f"{kind}_items") for kind in MEDIA},
            "soft_items": _sum(table, "soft_items"),
            "languages": {row["values"]: row["counts"] for row in sorted(languages, key=lambda r: -r["counts"])},
            "fingerprint": source.fingerprint,
        }
    return {"folder": str(folder), "sources": sources}


def ledger_counts(folder: Path) -> dict[tuple[str, str], tuple[int, str]]:
    """(source, reason) -> (inputs left out, an example with its detail), from DIR/ledger/*.jsonl."""
    counts: dict[tuple[str, str], tuple[int, str]] = {}
    for path in sorted((folder / "ledger").glob("*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            entry = json.loads(line)
            key = (entry["source"], entry["reason"])
            count, example = counts.get(key, (0, f"{entry['uri']}: {entry['detail']}".removesuffix(": ")))
            counts[key] = (count + 1, example)
    return dict(sorted(counts.items(), key=lambda row: (-row[1][0], row[0])))


def print_stats(stats: Stats) -> None:
    """Samples, items and codes by source and kind; then languages."""
    table = plain_table("source", "train", "valid.", *MEDIA, "soft", words=("languages",))
    for name, row in stats["sources"].items():
        languages = ", ".join(f"{tag or '?'} {n}" for tag, n in list(row["languages"].items())[:3])
        numbers = (row["train"], row["validation"], *(row["tokens"][kind] for kind in MEDIA), row["soft_items"])
        table.add_row(name, *(f"{n:,}" for n in numbers), languages)
    total = [sum(row[key] for row in stats["sources"].values()) for key in ("train", "validation")]
    codes = [sum(row["tokens"][kind] for row in stats["sources"].values()) for kind in MEDIA]
    soft = sum(row["soft_items"] for row in stats["sources"].values())
    table.add_section()
    table.add_row("all", *(f"{n:,}" for n in (*total, *codes, soft)), "")
    Console().print(table)
    Console().print("samples by split, codes by kind")


def print_samples(folder: Path, samples: int) -> None:
    """A few samples of each source: their items with sizes and the beginning of their text."""
    from pipelines.look import media

    if not (folder / "manifest.json").exists() and (folder / "metrics.jsonl").exists():
        raise UserError(f"{folder} is a run; `mmdata show {folder} --html FILE` writes its page")
    console = Console()
    for name, source in mmdata.open(folder).sources.items():
        split = source.train if len(source.train) else source.validation
        console.rule(f"{name}: {len(source.train):,} train, {len(source.validation):,} validation", align="left")
        for i in _spread(len(split), samples):
            sample = split[i]
            console.print(f"[bold]{sample.id[:12]}[/bold] {sample.uri} {sample.language}", highlight=False)
            for item in sample.items[:12]:
                size = f"soft {size_words(item)}" if item.codes is None else f"{item.codes.size:,} codes"
                words = item.uri
                if item.kind == "text" and item.codes is not None:
                    words = repr(media.decode_item(item, source.load_codec)[:70])
                console.print(
                    f"   {item.kind:5} {size:>12}  {words}", highlight=False, markup=False, overflow="ellipsis"
                )


def size_words(item: Item) -> str:
    """The size of an item: rows and columns of codes; of a soft item its kept pixels or samples."""
    t, h, w = item.grid
    sound = f"{t:,} samples" if item.is_soft else ""
    return {"image": f"{h}x{w}", "video": f"{t} frames of {h}x{w}", "audio": sound}.get(item.kind, "")


def print_verified(report: Any) -> None:
    """What `mmdata verify` found: a line a problem, then what was checked."""
    for where, what in report.problems:
        print(f"{where}: {what}")
    checked = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in report.checked.items())
    print(f"{'no problem' if report.ok else f'{len(report.problems):,} problems'} in {checked}")


def print_answer(answer: Any, name: str = "") -> None:
    """Any nested answer as `key value` lines; lists of flat dicts as a table."""
    console = Console()
    for path, value in _flat(answer, name):
        console.print(f"{path:40} {value}", highlight=False, markup=False)


def console() -> Console:
    """On a terminal as wide as that is; a pipe has no width: nothing is folded or cut short in it."""
    out = Console(highlight=False, markup=False)
    if not out.is_terminal:
        out.width = _PIPE_WIDTH
    return out


def plain_table(name: str, *numbers: str, words: tuple[str, ...] = ()) -> Table:
    """A plain table: a name, numbers at the right, words at the end."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    table.add_column(name, no_wrap=True)
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    for word in words:
        table.add_column(word, overflow="fold")
    return table


def _flat(value: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [row for key, inner in value.items() for row in _flat(inner, f"{path}.{key}" if path else str(key))]
    if isinstance(value, float):
        return [(path, f"{value:,.4f}")]
    if isinstance(value, int) and not isinstance(value, bool):
        return [(path, f"{value:,}")]
    return [(path, value)]


def _sum(table: Any, column: str) -> int:
    return int(np.sum(table.column(column).to_numpy())) if len(table) else 0


def _spread(size: int, most: int) -> list[int]:
    """At most `most` indices, spread over a split."""
    return sorted({int(i) for i in np.linspace(0, size - 1, min(most, size))}) if size else []
