"""A run's folder: what the run is (run.toml, layout.json), what it learnt (metrics.jsonl, summary.json), checkpoints/.

A folder belongs to one run: another run file, another layout or a dataset's folder is refused, naming the difference.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mmdata.commit import write_bytes
from mmdata.errors import UserError
from pipelines.config import read_toml
from pipelines.train.run import Run, first_difference, to_toml
from tokenizer.codec import CodecSpec
from tokenizer.layout import load_layout

RUN, LAYOUT, METRICS, SUMMARY, CHECKPOINTS = "run.toml", "layout.json", "metrics.jsonl", "summary.json", "checkpoints"


def open_folder(run: Run, out: Path, layout: Any) -> None:
    """Make `out` this run's folder, or see that it is: writes run.toml and layout.json. UserError where it is not."""
    table, bound = run.resolved(out), describe_layout(run.layout, layout)
    if (out / RUN).exists():
        _check_same(table, bound, run, out)
    else:
        _check_free(run, out)
        out.mkdir(parents=True, exist_ok=True)
    if table["layout"] == "layout.toml" and Path(run.layout) != (out / "layout.toml").resolve():
        shutil.copyfile(run.layout, out / "layout.toml")
    write_bytes(out / LAYOUT, (json.dumps(bound, indent=1) + "\n").encode())
    write_bytes(out / RUN, to_toml(table).encode())


def describe_layout(name: str, layout: Any) -> dict[str, Any]:
    """A bound layout as JSON: digest, codecs, vocabulary. Enough to bind it again without the dataset."""
    return {
        "layout": Path(name).name,
        "digest": layout.digest,
        "vocabulary_size": layout.vocabulary.size,
        "vocabulary": [{"name": r.name, "start": r.start, "stop": r.stop} for r in layout.vocabulary.ranges],
        "codecs": [codec.to_json() for codec in layout.codecs],
    }


def read_layout(folder: Path, load: Callable[[str], Any] | None = None) -> Any:
    """The bound layout of a run's folder. UserError if this mmdata's layout of that name is another one by now.

    load: gives a text codec by its name, where the layout writes words; without it the shipped ones are known."""
    path = folder / LAYOUT
    if not path.exists():
        raise UserError(f"{folder} is no run's folder: it holds no {LAYOUT}; name the --out of `mmdata train`")
    told = json.loads(path.read_text("utf-8"))
    copied = folder / "layout.toml"
    codecs = [CodecSpec.from_json(codec) for codec in told["codecs"]]
    layout = load_layout(str(copied) if copied.exists() else told["layout"]).bind(
        codecs, load, [codec.name for codec in codecs]
    )
    if layout.digest != told["digest"]:
        raise UserError(
            f"{folder} was trained with layout {told['layout']} of digest {told['digest'][:12]}, here it has"
            f" {layout.digest[:12]}: use the mmdata that trained it"
        )
    return layout


class Metrics:
    """metrics.jsonl: one line a step, as JSON; lines of steps that will be done again are dropped first."""

    def __init__(self, folder: Path, done: int) -> None:
        path = folder / METRICS
        kept = [line for line in read_metrics(folder) if line["step"] < done]
        write_bytes(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._file = path.open("a", encoding="utf-8")

    def write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last one that was cut off by a kill is left out."""
    path = folder / METRICS
    lines: list[dict[str, Any]] = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    write_bytes(folder / SUMMARY, (json.dumps(summary, indent=1) + "\n").encode())


def codebook_loss(codecs: Iterable[CodecSpec], kind: str) -> float | None:
    """ln(codes) of the largest codec that a kind may use: the loss of guessing; None where there is none."""
    kinds = ("image", "video") if kind == "video" else (kind,)
    sizes = [sum(map(math.log, c.codebooks)) / len(c.codebooks) for c in codecs if c.kind in kinds]
    return max(sizes, default=None)


def _check_same(table: dict[str, Any], bound: dict[str, Any], run: Run, out: Path) -> None:
    fix = "put it back, or give another --out"
    if found := first_difference(table, read_toml(out / RUN)):
        key, ours, theirs = found
        raise UserError(
            f"{out} belongs to another run: {key} is {theirs} in its run.toml and {ours} in {run.file}; {fix}"
        )
    told = json.loads((out / LAYOUT).read_text("utf-8")) if (out / LAYOUT).exists() else bound
    if told["digest"] != bound["digest"]:
        raise UserError(
            f"{out} belongs to another run: its layout {told['layout']} has digest {told['digest'][:12]}, that of"
            f" {run.file} {bound['digest'][:12]} (another layout, or a dataset of other codecs); {fix}"
        )


def _check_free(run: Run, out: Path) -> None:
    """UserError if a new run may not use this folder: it holds something, other than the run's own data."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file; give --out a folder")
    if (out / "manifest.json").exists():
        raise UserError(f"{out} holds a dataset; give --out a folder for the run, such as {out / 'run'}")
    inside = {path.resolve() for path in run.sources.values() if isinstance(path, Path)}
    strange = [
        name
        for name in sorted(os.listdir(out))
        if name != LAYOUT  # of a start that was killed before it wrote run.toml
        and name != "layout.toml"
        and not name.endswith(".tmp")
        and not any(path.is_relative_to((out / name).resolve()) for path in [*inside, run.file.resolve()])
    ]
    if strange:
        raise UserError(f"{out} is not empty and holds no run ({strange[0]}); give --out a new folder")
