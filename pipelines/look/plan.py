"""`mmdata plan`: what a run will read, before it reads it. The numbers are those of `mmdata.report.forecast`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal

from mmdata.report import forecast
from pipelines.look.runs import open_run
from pipelines.look.tables import MEDIA, console, plain_table

Report = dict[str, Any]


def plan_run(path: Path, data_shards: int = 1, progress: bool = True) -> Report:
    """`forecast` of a run's steps, with "run", and "planning": seconds to open and plan, the sources whose plans were
    made and those whose plans were cached.

    Plans that are not cached are made. UserError where a batch does not divide by the data shards.
    """
    begun = time.monotonic()
    run, loader, made = open_run(path, data_shards, progress)
    seconds = time.monotonic() - begun
    names = [feed.source.name for feed in loader.feeds.feeds]
    planning = {"seconds": round(seconds, 3), "made": made, "cached": [name for name in names if name not in made]}
    return {"run": str(path), "planning": planning, **forecast(loader, run.settings.steps, data_shards)}


def print_plan(report: Mapping[str, Any]) -> None:
    """Each source's plan; what each stage reads of it; the whole; caps; what was split or left out."""
    out = console()
    out.print(f"{report['run']}: {report['steps']:,} steps of rows of {report['seq_len']:,} tokens")
    _print_sources(out, report)
    for stage in report["stages"]:
        _print_stage(out, stage)
    _print_all(out, report)
    for cap in report["caps"]:
        out.print(_cap(cap))
    for name, source in report["sources"].items():
        _print_examples(out, name, source)
    planning = report["planning"]
    made = f"made {len(planning['made'])} plans, {len(planning['cached'])} were cached"
    size = sum(source["plan_bytes"] for source in report["sources"].values())
    out.print(f"planned in {planning['seconds']:.2f} s: {made}; they hold {decimal(size)}")


def _print_sources(out: Console, report: Mapping[str, Any]) -> None:
    sources = report["sources"]
    table = plain_table("source", "documents", "rows", "fill", "last rows", "split", "left out", "read an epoch")
    for name, source in sources.items():
        shares = (f"{source['fill']:.2%}", f"{source['waste']['share']:.2%}")
        docs = (_count(source["split"]["documents"]), _count(source["left_out"]["documents"]))
        table.add_row(
            name, _count(source["samples"]), _count(source["rows"]), *shares, *docs, decimal(source["record_bytes"])
        )
    out.print(table)
    _print_tokens(out, "an epoch of", {name: {**source, "exact": True} for name, source in sources.items()})
    out.print(
        "last rows: share of the places that is empty in the last row of each window; split: documents in several rows;"
        " left out: documents with a part that fits no row; read: bytes of records, of a document in two rows twice;"
        " other: delimiters, sizes, times, soft positions"
    )


def _print_stage(out: Console, stage: Mapping[str, Any]) -> None:
    out.print()
    size = f"{stage['batch_size']:,} rows a step, {stage['rows']:,} rows"
    out.print(f"steps {stage['from_step']:,} to {stage['to_step'] - 1:,}: {size}")
    table = plain_table("source", "share", "rows", "steps an epoch", "epochs by the end", "read")
    for name, source in stage["sources"].items():
        each = f"{source['steps_an_epoch']:,.1f}" if source["steps_an_epoch"] else "never"
        counts = (f"{source['row_share']:.2%}", _count(source["rows"]), each, f"{source['epochs']:,.2f}")
        table.add_row(name, *counts, _about(source, decimal(source["bytes"])))
    out.print(table)
    all_of_it = {"all": stage} if len(stage["sources"]) > 1 else {}
    _print_tokens(out, "tokens of", {**stage["sources"], **all_of_it})


def _print_tokens(out: Console, head: str, parts: Mapping[str, Mapping[str, Any]]) -> None:
    """A line a part: codes of the kinds that there are, other tokens, tokens in all."""
    kinds = [kind for kind in MEDIA if any(part["codes"][kind] for part in parts.values())]
    table = plain_table(head, *kinds, "other", "in all")
    for name, part in parts.items():
        numbers = [*(part["codes"][kind] for kind in kinds), part["other"], part["tokens"]]
        table.add_row(name, *("" if n is None else _about(part, _count(n)) if n else "0" for n in numbers))
    out.print(table)


def _print_all(out: Console, report: Mapping[str, Any]) -> None:
    whole, stages = report["all"], report["stages"]
    if not whole["exact"]:
        out.print("~: of a part of an epoch, tokens and bytes are the source's mean a row")
    out.print()
    if len(stages) > 1:
        _print_tokens(out, "tokens of", {"the run": whole})
    if report["unreached_stages"]:
        out.print(f"stages from steps {report['unreached_stages']} on begin after the run's last step")
    first = whole["first_epoch_steps"]
    seen = f"every row of every source has come once after {first:,} steps" if first else "some rows never come"
    out.print(f"{seen}; {whole['fill']:.2%} of all places hold tokens")
    shards = report["data_shards"]
    read = f"{decimal(whole['bytes'])} of records read, {decimal(whole['bytes_a_step'])} a step"
    parts = f", {decimal(whole['bytes_a_data_shard'])} by each of {shards} data shards" if shards > 1 else ""
    disk = sum(source["shard_bytes"] for source in report["sources"].values())
    out.print(f"{read}{parts}; the shards are {decimal(disk)}")


def _cap(cap: Mapping[str, Any]) -> str:
    epochs, most = (cap[key] / max(1, cap["rows_an_epoch"]) for key in ("rows", "most_rows"))
    passed = f": PASSED at step {cap['passed_at']:,}" if cap["passed_at"] is not None else ""
    return f"cap: {cap['source']} has given {epochs:,.2f} of {most:,.2f} epochs by step {cap['to_step']:,}{passed}"


def _print_examples(out: Console, name: str, source: Mapping[str, Any]) -> None:
    for example in source["split"]["examples"]:
        words = f"{example['id']} {example['uri']} in {example['pieces']} pieces"
        out.print(f"split, of {name}: {words}", soft_wrap=True)
    for example in source["left_out"]["examples"]:
        words = f"{example['id']} {example['uri']} places {example['start']}:{example['stop']}"
        out.print(f"left out, of {name}: {words}, {example['tokens']:,} tokens", soft_wrap=True)


def _about(part: Mapping[str, Any], words: str) -> str:
    return words if part["exact"] else f"~{words}"


def _count(number: int) -> str:
    """Whole below a million; then four digits and a letter."""
    for letter, size in (("T", 10**12), ("G", 10**9), ("M", 10**6)):
        if number >= size:
            return f"{number / size:.4g} {letter}"
    return f"{number:,}"
