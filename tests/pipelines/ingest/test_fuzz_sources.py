"""Damaged files of every format, 2,520 of them: each is a document or a ledger line, and nothing else happens. Whole
files among them give what they give alone.

Python's own readers run here; those that go through native code (pyarrow, PDFium, ArrayRecord, Pillow, FFmpeg) run as
the units of a build do, in workers that may be killed and are replaced.
"""

from __future__ import annotations

import itertools
import os
import zlib
from pathlib import Path
from typing import Any

import pytest
from fuzzing import (
    LIMITS,
    MOST_MEMORY,
    WHOLE,
    check_found,
    decode_files,
    described,
    media_seeds,
    mutants,
    write_mutants,
    write_wholes,
)

from pipelines.build import stages
from pipelines.build.documents import read_documents
from pipelines.build.executor import LocalExecutor, Task, _resident
from pipelines.build.ledger import DROPPED, read_ledger
from pipelines.build.units import Unit, run_unit
from pipelines.ingest.document import Document, Dropped
from pipelines.ingest.sources import SOURCES, open_source

IN_PROCESS = {
    "html": 200, "text": 200, "jsonl": 150, "speech": 100, "webdataset": 250, "warc": 150, "epub": 200, "chat": 150,
    "interleaved": 100, "captions": 100, "video": 100,
}  # fmt: skip
IN_WORKERS = {"parquet": 150, "hf": 150, "pdf": 150, "tfds": 40}
MEDIA = {"image": 240, "audio": 70, "video": 20}


def test_every_format_is_here() -> None:
    assert {*IN_PROCESS, *IN_WORKERS} == set(SOURCES)
    assert sum((*IN_PROCESS.values(), *IN_WORKERS.values(), *MEDIA.values())) >= 2000


@pytest.mark.parametrize("format", sorted(IN_PROCESS))
def test_damaged_files_are_documents_or_ledger_lines(tmp_path: Path, format: str) -> None:
    root = tmp_path / "root"
    names = write_mutants(format, root, IN_PROCESS[format], seed=_seed(format))
    wholes = write_wholes(format, root)
    source = open_source("fuzz", format, root, {}, LIMITS)
    inputs = {input.path: input for input in source.inputs()}
    assert sorted(inputs) == sorted([*names, *wholes])
    documents = []
    for name in names:
        found = list(source.read(inputs[name]))
        assert found, f"{name} is neither in a document nor in the ledger"
        check_found(root, found)
        documents += [one for one in found if isinstance(one, Document)]
    alone = _alone(format, tmp_path / "alone")
    assert {name: described(root, source.read(inputs[name])) for name in wholes} == alone
    _check_all(root, names, documents, source.leftovers())


@pytest.mark.parametrize("format", sorted(IN_WORKERS))
def test_damaged_files_for_native_readers_end_in_the_ledger(tmp_path: Path, format: str) -> None:
    root = tmp_path / "root"
    names = write_mutants(format, root, IN_WORKERS[format], seed=_seed(format))
    names += write_wholes(format, root)
    args = stages.SourceArgs("fuzz", format, root, "{}", LIMITS, open_source)
    inputs = tuple(open_source("fuzz", format, root, {}, LIMITS).inputs())
    work = tmp_path / "work"
    units = [
        Unit(
            "ingest",
            "fuzz",
            f"{begin:05d}",
            "f",
            stages.ingest,
            work,
            stages.IngestArgs(args, inputs[begin : begin + 50]),
        )
        for begin in range(0, len(inputs), 50)
    ]
    pool = LocalExecutor(1, tmp_path / "logs", stuck_s=30)
    own = _resident(os.getpid())[0]
    with pool:
        pool.run([Task(unit.key, run_unit, unit) for unit in units])
    documents = [document for unit in units for document in read_documents(unit.folder, root)]
    dropped = [Dropped(**line) for unit in units for line in read_ledger(unit.folder / DROPPED)]
    check_found(root, [*documents, *dropped])
    seen = {one.uri.split("#")[0] for one in [*documents, *dropped]}
    assert {input.files[0] for input in inputs} <= seen, "an input is neither in a document nor in the ledger"
    found: dict[str, list[Document | Dropped]] = {}
    for one in [*documents, *dropped]:
        found.setdefault(one.uri.split("#")[0], []).append(one)
    alone = _alone(format, tmp_path / "alone")
    assert {name: described(root, found[name]) for name in found if name.startswith(WHOLE)} == alone
    _check_all(root, [input.files[0] for input in inputs], documents, [])
    assert set(names) >= {input.files[0] for input in inputs} and pool.peak_bytes - own < MOST_MEMORY


@pytest.mark.parametrize("kind", sorted(MEDIA))
def test_damaged_media_decode_within_the_limits_or_say_why_not(tmp_path: Path, kind: str) -> None:
    wholes = [data for _, data in media_seeds()[kind]]
    files = []
    for i, data in enumerate(mutants(wholes, MEDIA[kind], seed=_seed(kind))):
        files.append((kind, tmp_path / f"{i:04d}"))
        files[-1][1].write_bytes(data)
    pool = LocalExecutor(1, tmp_path / "logs", stuck_s=30)
    own = _resident(os.getpid())[0]  # what earlier tests left in this process is no worker's
    with pool:
        said = pool.run([Task("decode", decode_files, files)])["decode"]
    assert sorted(said) == [path.name for _, path in files] and all(said.values())
    assert 0 < sum(word == "decoded" for word in said.values()) < len(files), "too little damage, or too much"
    assert pool.peak_bytes - own < MOST_MEMORY


def _alone(format: str, root: Path) -> dict[str, list[Any]]:
    """File -> what it gives in a folder that holds nothing else than whole files."""
    write_wholes(format, root)
    source = open_source("fuzz", format, root, {}, LIMITS)
    alone: dict[str, list[Any]] = {}
    for input in source.inputs():
        alone.setdefault(input.files[0], []).extend(described(root, source.read(input)))
    assert any(not isinstance(one, Dropped) for one in itertools.chain(*alone.values()))
    return alone


def _check_all(root: Path, names: list[str], documents: list[Document], left: list[Dropped]) -> None:
    """Ids are unique, some files were read and some not, and nothing was written."""
    assert len({document.id for document in documents}) == len(documents)
    assert 0 < len({document.uri.split("#")[0] for document in documents}) <= len(names)
    written = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert written >= set(names)
    assert {path.name for path in root.parent.iterdir()} <= {"root", "secret.png", "work", "logs", "whole", "alone"}
    assert not {line.uri for line in left} & set(names)


def _seed(word: str) -> int:
    return zlib.crc32(word.encode())
