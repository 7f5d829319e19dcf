"""Training of a SentencePiece model from a config file: text in, model and card out (`mmdata fit text`).

Every line is read once, as a stream, and a sample of them is kept: by hash, set by set in proportion to their weights
(`pipelines.fit.text_sample`). The same files give the same model in whatever order they are read, and memory is that of
the sample (`sample_bytes`) and of SentencePiece's work on it, about 25 bytes a byte, not of the text. A set smaller
than its share gives all that it has. SentencePiece itself cannot go on after a stop; the samples are kept, set by set.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mmdata.commit import write_bytes
from mmdata.errors import UserError
from pipelines.config import check, read_toml
from pipelines.fit.card import Card, Data, write_card
from pipelines.fit.evaluate_text import evaluate_texts
from pipelines.fit.exclude import Exclusions
from pipelines.fit.text_sample import LineSample, Sample
from pipelines.fit.text_sources import TextDataConfig, TextSet, open_set
from pipelines.ingest.media import MediaError
from tokenizer.text import TextSpm

_SAMPLE_VERSION = 1  # raise it when the same files would give other lines


class TextConfig(BaseModel):
    """The file given to `mmdata fit text --config`."""

    model_config = ConfigDict(extra="forbid")
    name: str
    revision: int = Field(1, ge=1)
    licence: str
    summary: str = ""
    notes: list[str] = []
    pieces: int = Field(16_384, gt=257)  # all ids, bytes and reserved ones included
    reserved: int = Field(0, ge=0)  # control pieces <reserved_0>, ... for one's own use: no text becomes one
    sample_bytes: int = Field(24_000_000, gt=0)  # of all sets together; learning takes 25 times as much memory
    seed: int = Field(0, ge=0)  # another one is another sample
    character_coverage: float = Field(0.9995, gt=0, le=1)  # of characters; rarer ones are spelled in bytes
    threads: int = Field(1, ge=1)  # SentencePiece's sums depend on them: part of what makes a model the same again
    data: list[TextDataConfig] = Field(min_length=1)


@dataclass(frozen=True)
class SetSample:
    """The sample of a set. `unread`: file -> from where on it is no text, and why."""

    sample: Sample
    unread: dict[str, str]


def fit_text(config_path: Path, out: Path | None = None, exclude: Sequence[Path] = ()) -> dict[str, Any]:
    """Train the model of the config file; write OUT/NAME-REVISION.model with its card. Returns its figures.

    Files whose sha256 is that of an excluded file are left out. OUT is runs/fit-NAME-REVISION where it is not given.
    """
    from rich.console import Console

    config = check(TextConfig, read_toml(config_path), str(config_path))
    out = out or Path("runs") / f"fit-{config.name}-{config.revision}"
    sets = _sets(config_path, config, Exclusions.of(exclude, kinds=()))
    samples = sample_sets(sets, config.sample_bytes, config.seed, out / "samples")
    for data in sets:
        if not samples[data.name].sample.chosen:
            raise UserError(f"{config_path}: {_no_text(data, samples[data.name])}")
    started = time.monotonic()
    lines = [line for data in sets for line in samples[data.name].sample.chosen]
    with Console(stderr=True).status(f"learning {config.pieces:,} pieces of {len(lines):,} lines"):
        model = _named(config_path, train_spm, lines, config)
    path = out / f"{config.name}-{config.revision}.model"
    write_bytes(path, model)
    codec = TextSpm.of(config.name, config.revision, model)
    figures = {name: evaluate_texts(codec, found.sample.held) for name, found in samples.items()}
    card = Card(
        name=f"{config.name}@{config.revision}",
        summary=config.summary,
        command=" ".join(["mmdata fit text --config", str(config_path), *(f"--exclude {e.name}" for e in exclude)]),
        licence=config.licence,
        data=[_reported(ready, samples[ready.name], data) for ready, data in zip(sets, config.data)],
        settings=_settings(config, len(lines), time.monotonic() - started),
        figures=figures,
        notes=config.notes,
    )
    write_card(path, card)
    return figures


def sample_sets(
    sets: Sequence[TextSet], sample_bytes: int, seed: int = 0, folder: Path | None = None
) -> dict[str, SetSample]:
    """The sample of each set, by name; a bar on a terminal.

    In `folder` each is kept, and taken from there where its files, its share and the seed are the same again.
    """
    total = sum(data.weight for data in sets)
    samples: dict[str, SetSample] = {}
    with _bar("read", sum(file.size for data in sets for file in data.files)) as bar:
        for data in sets:
            budget = int(sample_bytes * data.weight / total)
            key = _key(data, budget, seed)
            kept = folder / f"{key[:16]}.txt" if folder and all(file.sha256 for file in data.files) else None
            found = _kept(kept, key) if kept else None
            if found is None:
                found = _sampled(data, budget, seed, bar)
                if kept:
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    write_bytes(kept, _stored(found, key))
            else:
                bar.advance(sum(file.size for file in data.files))
            samples[data.name] = found
    return samples


def train_spm(lines: Sequence[str], config: TextConfig) -> bytes:
    """The serialized model: unigram, byte fallback, digits split, white space kept, nothing normalised. ValueError
    where SentencePiece cannot make it of these lines."""
    import sentencepiece

    model = io.BytesIO()
    try:
        _train(sentencepiece.SentencePieceTrainer, lines, model, config)
    except RuntimeError as error:
        why = (str(error) or type(error).__name__).splitlines()[-1]
        raise ValueError(f"SentencePiece cannot make {config.pieces} pieces of {len(lines)} lines: {why}") from None
    return model.getvalue()


def _train(trainer: Any, lines: Sequence[str], model: io.BytesIO, config: TextConfig) -> None:
    trainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=config.pieces,
        model_type="unigram",
        character_coverage=config.character_coverage,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        max_sentence_length=1 << 20,
        num_threads=config.threads,
        shuffle_input_sentence=False,
        hard_vocab_limit=False,
        train_extremely_large_corpus=False,
        # Row control (begin, end, padding) belongs to a layout, whose ids lie behind the text's: the model has no such
        # pieces of its own, but for those that are asked for.
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        unk_id=0,
        minloglevel=2,
        **({"control_symbols": [f"<reserved_{i}>" for i in range(config.reserved)]} if config.reserved else {}),
    )


def _sets(config_path: Path, config: TextConfig, exclusions: Exclusions) -> list[TextSet]:
    """The sets of data, opened, each under a name of its own."""
    if twice := [name for name, count in Counter(data.name for data in config.data).items() if count > 1]:
        raise UserError(f"{config_path}: two sets of data have the name {twice[0]!r}; give one of them another")
    return [_named(config_path, open_set, data, config_path.parent, exclusions) for data in config.data]


def _settings(config: TextConfig, lines: int, seconds: float) -> dict[str, Any]:
    """What the card says of the config, and of the work."""
    kept = config.model_dump(exclude={"data", "summary", "notes", "licence"})
    return {**kept, "lines": lines, "seconds": round(seconds)}


def _sampled(data: TextSet, budget: int, seed: int, bar: _bar) -> SetSample:
    sample, unread = LineSample(budget, seed), {}
    for file in data.files:
        left = file.size
        try:
            for block in file.blocks():
                sample.add(block)
                bar.advance(min(left, len(block)))
                left -= min(left, len(block))
        except MediaError as error:
            unread[file.name] = str(error)
        bar.advance(left)
    return SetSample(sample.sample(), unread)


def _key(data: TextSet, budget: int, seed: int) -> str:
    """What decides a set's sample: two with the same key are the same."""
    files = sorted((file.name, file.sha256) for file in data.files)
    words = [_SAMPLE_VERSION, data.read_as, files, budget, seed]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()


def _stored(found: SetSample, key: str) -> bytes:
    """A line of JSON, then the lines, none of which holds a line end."""
    sample = found.sample
    head = {"key": key, "chosen": len(sample.chosen), "held": len(sample.held), "unread": found.unread}
    return "\n".join([json.dumps(head), *sample.chosen, *sample.held]).encode()


def _kept(path: Path, key: str) -> SetSample | None:
    if not path.is_file():
        return None
    first, *lines = path.read_bytes().decode().split("\n")
    head = json.loads(first)
    if head["key"] != key:
        return None
    chosen = head["chosen"]
    return SetSample(Sample(tuple(lines[:chosen]), tuple(lines[chosen:])), head["unread"])


def _reported(ready: TextSet, found: SetSample, data: TextDataConfig) -> Data:
    files = [(file.name, file.sha256) for file in ready.files]
    return Data(data.name, data.licence, data.origin, files, {**ready.dropped, **found.unread})


def _no_text(data: TextSet, found: SetSample) -> str:
    """Why a set gave no line."""
    name, why = next(iter(found.unread.items()), (data.files[0].name, "it is empty"))
    form = data.read_as[0] if data.read_as else "plain"
    return f"data {data.name!r} has no text in {len(data.files)} files read as {form!r}; {name}: {why}"


def _named(config_path: Path, run: Any, *args: Any) -> Any:
    """What `run` returns; its error with the config file's name in front."""
    try:
        return run(*args)
    except (UserError, ValueError) as error:
        raise UserError(f"{config_path}: {error}") from None


class _bar:
    """Bytes read, on a terminal; nothing elsewhere."""

    def __init__(self, name: str, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bars.add_task(name, total=total or None)

    def advance(self, size: int) -> None:
        self._bars.advance(self._task, size)

    def __enter__(self) -> _bar:
        self._bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bars.stop()
