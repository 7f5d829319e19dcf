"""The run file: what a training is, checked key by key, and the Loader it names.

A run file is TOML; paths in it are relative to it, or to the run's folder. Once started, a run's folder holds its own
run.toml with every default written out, so `mmdata train DIR/run.toml --out DIR` is the same run.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

import mmdata
from mmdata.errors import UserError
from mmdata.folder import CACHE_SHARDS
from mmdata.quarantine import LIMIT
from mmdata.remote import url_of
from pipelines.config import check, expand, read_toml
from pipelines.train.model import ModelConfig
from pipelines.train.optimizer import OptimizerSettings
from pipelines.train.quarantine import honour


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(_Table):
    """[model]: sizes of the decoder; the vocabulary's comes from the layout and the dataset's codecs."""

    layers: int = Field(4, ge=1)
    width: int = Field(128, ge=2)
    heads: int = Field(4, ge=1, description="query heads; keys and values have one (multi-query)")
    head_dim: int = Field(32, ge=2, multiple_of=2)
    mlp: int = Field(384, ge=1)
    embedding: int = Field(0, ge=0, description="width of a token's vector, in and out; 0: width")
    theta: float = Field(10_000.0, gt=0, description="of the rotary positions")
    dtype: str = Field("float32", pattern="^(float32|bfloat16)$", description="of the computation")
    remat: bool = Field(False, description="compute activations again in the backward pass: less memory, more work")


class MeshSettings(_Table):
    """[mesh]: devices along each axis."""

    data: int = Field(0, ge=0, description="0: all that fsdp and tensor leave")
    fsdp: int = Field(1, ge=1)
    tensor: int = Field(1, ge=1)


class CheckpointSettings(_Table):
    """[checkpoint]: what a killed run goes on from."""

    every: int = Field(100, ge=1, description="steps")
    keep: int = Field(2, ge=1, description="the newest ones")


class EvaluateSettings(_Table):
    """[evaluate]: loss on the validation split; always once at the end."""

    every: int = Field(0, ge=0, description="steps; 0: only at the end")
    batches: int = Field(0, ge=0, description="most batches; 0: the whole split")


class StageSettings(_Table):
    """[[stage]]: what is mixed from a step on."""

    from_step: int = Field(0, ge=0)
    batch_size: int = Field(0, ge=0, description="0: the run's")
    weights: dict[str, float] = Field(default_factory=dict, description="source = share of tokens; empty: by tokens")
    max_epochs: dict[str, float] = Field(default_factory=dict, description="source = most epochs over the whole run")


class RunSettings(_Table):
    """A run file."""

    data: str = Field("", description="the dataset's folder, or its URL (s3://, gs://); every source in it")
    sources: dict[str, str] = Field(
        default_factory=dict, description="instead of data: name = folder or URL of a source"
    )
    cache_shards: int = Field(
        CACHE_SHARDS, ge=1, description="of sources behind a URL: most shards of each kept on this machine"
    )
    seed: int = 0
    seq_len: int = Field(1024, ge=8, description="tokens of a row")
    batch_size: int = Field(8, ge=1, description="rows of a step, of all devices together")
    steps: int = Field(200, ge=1, description="batches learnt from, in all")
    layout: str = Field("mmdata", description="a layout's name, or its TOML file")
    codecs: list[str] = Field(
        default_factory=list,
        description="codecs (name@revision) whose ids come first, in this order; name those that a later source brings",
    )
    limits: dict[str, float] = Field(default_factory=dict, description="most images, frames, audio_seconds in a row")
    quarantine_limit: int = Field(LIMIT, ge=0, description="most records that may be left out as they cannot be read")
    split_share: float = Field(
        0.0, ge=0, le=1, description="most documents, as a share, split for fuller rows although they would fit one"
    )
    plan_version: int = Field(2, ge=1, le=2, description="2 pours pieces of long documents into gaps; 1 does not")
    workers: int = Field(
        0, ge=0, description="processes that make training's batches ahead, a host; 0: a thread of the trainer's"
    )
    model: ModelSettings = ModelSettings()  # type: ignore[call-arg]
    optimizer: OptimizerSettings = OptimizerSettings()  # type: ignore[call-arg]
    mesh: MeshSettings = MeshSettings()  # type: ignore[call-arg]
    checkpoint: CheckpointSettings = CheckpointSettings()  # type: ignore[call-arg]
    evaluate: EvaluateSettings = EvaluateSettings()  # type: ignore[call-arg]
    stage: list[StageSettings] = Field(default_factory=list, description="none: one stage, sources by their tokens")


# What may change while a run goes on: where things lie, how far it goes, on what machines. Its stages may be appended
# to: the loader's own state refuses another past, and so does the layout's digest.
FREE = (
    *("data", "sources", "cache_shards", "steps", "layout", "quarantine_limit", "workers"),
    *("mesh", "checkpoint", "evaluate", "stage"),
)


@dataclass(frozen=True)
class Run:
    """A checked run file with its paths resolved."""

    settings: RunSettings
    file: Path
    sources: dict[str, Path | str]  # name -> folder DIR/<source>, or its URL
    layout: str  # a name or an absolute path

    def resolved(self, out: Path) -> dict[str, Any]:
        """Every key with its value, paths relative to `out`."""
        table = self.settings.model_dump()
        for key in ("codecs", "split_share"):
            if not table[key]:
                del table[key]  # as runs that began before the key was there
        here = out.resolve()
        places = {n: p if isinstance(p, str) else os.path.relpath(p, here) for n, p in self.sources.items()}
        if self.settings.data:
            del table["sources"]
            if not url_of(self.settings.data):
                table["data"] = os.path.dirname(next(iter(places.values()))) or "."
        else:
            table["sources"] = places
            del table["data"]
        if self.layout != self.settings.layout:
            table["layout"] = "layout.toml"
        return table


def load_run(path: Path, out: Path | None = None) -> Run:
    """The run of a file, or of a run's folder. UserError says which key is wrong, or which folder is missing."""
    file = path / "run.toml" if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise UserError(f"{path} holds no run.toml: name a run file, or the folder that `mmdata train` was given")
    settings = check(RunSettings, read_toml(file), str(file))
    if not settings.optimizer.decay_steps:
        pinned = settings.optimizer.model_copy(update={"decay_steps": settings.steps})
        settings = settings.model_copy(update={"optimizer": pinned})
    if bool(settings.data) == bool(settings.sources):
        raise UserError(f'{file}: give either data = "DIR" or a [sources] table, not both or neither')
    folders = [file.resolve().parent, *([out.resolve()] if out else [])]

    def find(written: str, key: str) -> Path | str:
        if url := url_of(expand(written, f"{file}: {key}")):
            return url
        tried = [(folder / expand(written, f"{file}: {key}")).resolve() for folder in folders]
        for folder in tried:
            if folder.exists():
                return folder
        raise UserError(
            f"{file}: {key} = {written!r} is not there (tried {', '.join(map(str, tried))}); build it first"
        )

    if settings.data:
        data = find(settings.data, "data")
        opened = mmdata.open(data).sources
        sources = {n: s.files.where if url_of(s.files.where) else s.folder.resolve() for n, s in opened.items()}
    else:
        sources = {name: find(written, f"sources.{name}") for name, written in settings.sources.items()}
    layout = settings.layout
    return Run(settings, file, sources, str(find(layout, "layout")) if layout.endswith(".toml") else layout)


def make_loader(
    run: Run, split: str = "train", shard: tuple[int, int] = (0, 1), layout: Any = None, **more: Any
) -> mmdata.Loader:
    """The Loader of a run: its schedule for training, one epoch of all its sources for validation. `more`: other
    arguments of the Loader (quarantine, progress).

    Validation takes the training Loader's bound `layout`: a source that has no validation rows would leave its codecs,
    and so their ids, out of a vocabulary of its own. It has no workers, which would wait for it between evaluations.
    """
    settings = run.settings
    stages = settings.stage or [StageSettings()]  # type: ignore[call-arg]
    if split == "train":
        data: Any = mmdata.Schedule(
            [
                mmdata.Stage(
                    from_step=stage.from_step,
                    mixture=_mixture(run, stage),
                    batch_size=stage.batch_size or settings.batch_size,
                    max_epochs=stage.max_epochs or None,
                )
                for stage in stages
            ]
        )
    else:
        with_rows = {
            name: source
            for name, folder in run.sources.items()
            for source in mmdata.open(folder, cache_shards=settings.cache_shards).values()
            if len(source.splits[split])
        }
        if not with_rows:
            raise UserError(f"no source of {run.file} has a {split} split; build with validation > 0")
        data = mmdata.Mixture(with_rows)
    return mmdata.Loader(
        data,
        layout=layout or run.layout,
        seq_len=settings.seq_len,
        batch_size=None if split == "train" else settings.batch_size,
        seed=settings.seed,
        shard=shard,
        limits=settings.limits,
        split_share=settings.split_share,
        plan_version=settings.plan_version,
        split=split,
        codecs=settings.codecs,
        cache_shards=settings.cache_shards,
        quarantine_limit=settings.quarantine_limit,
        workers=settings.workers if split == "train" else 0,
        **more,
    )


def sized(settings: ModelSettings, layout: Any) -> ModelConfig:
    """The model of these sizes over a bound layout's vocabulary, its soft vectors and its parallel streams."""
    vocabulary = layout.vocabulary
    starts = tuple(r.start for r in vocabulary.ranges)
    digits = tuple(
        (int(first), codec.levels)
        for codec, offsets in zip(layout.codecs, layout.code_offsets)
        for first in offsets
        if codec.levels
    )
    soft = tuple((kind, math.prod(shape)) for kind, (shape, _) in sorted(layout.soft_shapes.items()))
    return ModelConfig(
        vocabulary=vocabulary.size,
        ranges=starts,
        digits=digits,
        soft=soft,
        streams=layout.num_streams,
        **settings.model_dump(),
    )


def open_loader(path: Path) -> mmdata.Loader:
    """The training Loader of a run file or a run's folder, as one process would read it, without what the run has left
    out."""
    loader = make_loader(load_run(path))
    honour(loader, path)
    return loader


def to_toml(table: dict[str, Any]) -> str:
    """Plain values, tables and arrays of tables as TOML."""
    plain = {k: v for k, v in table.items() if not isinstance(v, dict) and not _is_tables(v)}
    lines = [f"{_key(k)} = {_value(v)}" for k, v in plain.items()]
    for key, value in table.items():
        if isinstance(value, dict) and value:
            lines += ["", f"[{_key(key)}]", *(f"{_key(k)} = {_value(v)}" for k, v in value.items())]
        elif _is_tables(value):
            for entry in value:
                lines += ["", f"[[{_key(key)}]]", *(f"{_key(k)} = {_value(v)}" for k, v in entry.items())]
    return "\n".join(lines) + "\n"


def first_difference(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """(key, ours, theirs) of the first key, of those that make a run what it is, which differs."""
    a, b = _flat(ours), _flat(theirs)
    for key in sorted(set(a) | set(b)):
        if key.split(".")[0] not in FREE and a.get(key) != b.get(key):
            return key, a.get(key), b.get(key)
    return None


def _mixture(run: Run, stage: StageSettings) -> mmdata.Mixture:
    if not stage.weights:
        return mmdata.Mixture(run.sources)
    unknown = sorted(set(stage.weights) - set(run.sources))
    if unknown:
        raise UserError(f"{run.file}: stage.weights names {unknown[0]!r}; the sources are {sorted(run.sources)}")
    return mmdata.Mixture({name: run.sources[name] for name in stage.weights}, weights=stage.weights)


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            out.update(_flat(value, f"{prefix}{key}."))
        else:
            out[f"{prefix}{key}"] = value
    return out


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and (not value or isinstance(value[0], dict))


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = "".join(c if c >= " " and c not in '"\\\x7f' else f"\\u{ord(c):04x}" for c in value)
        return f'"{escaped}"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return repr(value)
