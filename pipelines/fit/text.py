"""Training of a SentencePiece model from a config file: text in, model and card out (`mmdata fit text`).

Lines reach the trainer as a stream, set by set in proportion to their weights, chosen by hash: the same files give the
same model, and what is held in memory is the sample (`sample_bytes`), not the text.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from mmdata.errors import UserError
from pipelines.config import check, expand, read_toml
from pipelines.fit.card import Card, Data, write_card
from pipelines.fit.evaluate_text import evaluate_texts
from pipelines.fit.exclude import Exclusions, digest
from pipelines.ingest.files import read_text
from pipelines.ingest.media import Limits, MediaError
from tokenizer.text import TextSpm

_HELD_OUT = 64  # one line of 64, by its hash, is for the figures
_MOST_CHARACTERS = 1_000  # a longer line is given in parts: SentencePiece would leave it out


class TextDataConfig(BaseModel):
    """One set of training texts."""

    model_config = ConfigDict(extra="forbid")
    name: str
    paths: list[str]  # folders, relative to the config file; ${VARIABLE} is expanded
    include: list[str] = ["**/*"]
    form: str = "plain"  # plain (gzip too), or html
    origin: str = ""
    licence: str
    weight: float = 1.0


class TextConfig(BaseModel):
    """The file given to `mmdata fit text --config`."""

    model_config = ConfigDict(extra="forbid")
    name: str
    revision: int = 1
    licence: str
    summary: str = ""
    notes: list[str] = []
    pieces: int = 16_384
    sample_bytes: int = 24_000_000
    character_coverage: float = 0.9995
    threads: int = 1  # SentencePiece's sums depend on them: part of what makes a model the same again
    data: list[TextDataConfig]


def fit_text(config_path: Path, out: Path | None = None, exclude: Sequence[Path] = ()) -> dict[str, Any]:
    """Train the model of the config file; write OUT/NAME-REVISION.model with its card. Returns its figures.

    Files whose sha256 is that of an excluded file are left out. OUT is runs/fit-NAME-REVISION where it is not given.
    """
    config = check(TextConfig, read_toml(config_path), str(config_path))
    out = out or Path("runs") / f"fit-{config.name}-{config.revision}"
    exclusions = Exclusions.of(exclude, kinds=())
    total = sum(data.weight for data in config.data)
    train: list[str] = []
    held: dict[str, list[str]] = {}
    reports: list[Data] = []
    for data in config.data:
        files, report = _files(data, config_path.parent, exclusions)
        reports.append(report)
        budget = int(config.sample_bytes * data.weight / total)
        chosen, held[data.name] = _sample(files, data.form, budget)
        if not chosen:
            raise UserError(f"{config_path}: data {data.name!r} has no text in {data.paths}")
        train += chosen
    started = time.monotonic()
    model = train_spm(train, config)
    codec = TextSpm.of(config.name, config.revision, model)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{config.name}-{config.revision}.model"
    path.write_bytes(model)
    figures = {name: evaluate_texts(codec, texts) for name, texts in held.items()}
    settings = config.model_dump(exclude={"data", "summary", "notes", "licence"})
    command = " ".join(["mmdata fit text --config", str(config_path), *(f"--exclude {e.name}" for e in exclude)])
    card = Card(
        name=f"{config.name}@{config.revision}",
        summary=config.summary,
        command=command,
        licence=config.licence,
        data=reports,
        settings={**settings, "lines": len(train), "seconds": round(time.monotonic() - started)},
        figures=figures,
        notes=config.notes,
    )
    write_card(path, card)
    return figures


def train_spm(lines: Sequence[str], config: TextConfig) -> bytes:
    """The serialized model: unigram, byte fallback, digits split, white space kept, nothing normalised."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
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
        # Row control (begin, end, padding) belongs to a layout: the model has no such pieces of its own.
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        unk_id=0,
        minloglevel=2,
    )
    return model.getvalue()


def _files(data: TextDataConfig, base: Path, exclusions: Exclusions) -> tuple[list[Path], Data]:
    kept: list[Path] = []
    listed: list[tuple[str, str]] = []
    dropped: dict[str, str] = {}
    for name in data.paths:
        root = (base / expand(name, f"data {data.name!r}")).resolve()
        if not root.exists():
            raise UserError(f"data {data.name!r}: no folder {root}")
        seen: set[Path] = set()
        for pattern in data.include:
            for path in sorted(root.glob(pattern)):
                if path in seen or not path.is_file() or path.is_symlink():
                    continue
                seen.add(path)
                relative = f"{root.name}/{path.relative_to(root).as_posix()}"
                sha256 = digest(path)
                if sha256 in exclusions.sha256:
                    dropped[relative] = f"same bytes as {exclusions.sha256[sha256]}"
                else:
                    kept.append(path)
                    listed.append((relative, sha256))
    return kept, Data(data.name, data.licence, data.origin, listed, dropped)


def _sample(files: Sequence[Path], form: str, budget: int) -> tuple[list[str], list[str]]:
    """(lines to train on, lines held out): of all lines those with the smallest hashes, once each, up to the budget."""
    lines = {line: hashlib.blake2b(line.encode(), digest_size=8).digest() for p in files for line in _lines(p, form)}
    held: list[str] = []
    chosen: list[str] = []
    for line in sorted(lines, key=lambda line: lines[line]):
        if lines[line][-1] % _HELD_OUT == 0:
            held.append(line)
        elif budget > 0:
            chosen.append(line)
            budget -= len(line.encode())
        if budget <= 0 and len(held) >= 2_000:
            break
    return chosen, held[:2_000]


def _lines(path: Path, form: str) -> Iterator[str]:
    try:
        text = read_text(path, Limits())
    except MediaError:
        return  # an index or a picture among the texts
    if form == "html":
        from selectolax.lexbor import LexborHTMLParser

        body = LexborHTMLParser(text).body
        text = body.text(separator="\n") if body else ""
    for line in text.split("\n"):
        for start in range(0, len(line), _MOST_CHARACTERS):
            if part := line[start : start + _MOST_CHARACTERS].replace("\0", ""):
                yield part
