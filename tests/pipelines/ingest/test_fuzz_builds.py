"""Damaged files of every format through a whole build: it ends, each file is in samples or in the ledger, and what is
made of the whole files among them is what a build of these alone makes."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import WHOLE, write_mutants, write_wholes

import mmdata
from mmdata.sample import Sample
from mmdata.verify import verify
from pipelines.build.engine import build
from pipelines.build.ledger import read_ledger
from pipelines.build.recipe import parse_recipe
from pipelines.ingest.sources import SOURCES
from tests.pipelines.build.toy_build import load_toy

MUTANTS = 16  # of each format
FORMATS = sorted(set(SOURCES) - {"tfds"})  # TensorFlow Datasets takes seconds to import in each worker


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(whole files alone, the same among damaged ones), a folder a format."""
    alone, among = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("among")
    for format in FORMATS:
        write_wholes(format, alone / format)
        write_mutants(format, among / format, MUTANTS, seed=zlib.crc32(format.encode()) + 1)
        write_wholes(format, among / format)
    return alone, among


def run(root: Path, out: Path) -> None:
    recipe: dict[str, Any] = {
        "codecs": {"text": "toy-text@1", "image": "toy-image@1", "audio": "toy-audio@1"},
        "image": {"tokens": 16},
        "validation": 0.0,
        "limits": {"max_pixels": 4_000_000, "max_seconds": 60.0, "max_bytes": 32 << 20, "max_expansion": 50},
        "source": [{"name": f, "format": f, "path": f} for f in FORMATS],
    }
    build(parse_recipe(recipe, root), out, 2, progress=False, load=load_toy)


def of_whole_files(out: Path) -> dict[str, list[Any]]:
    """Format -> what its whole files came to, in samples and in the ledger."""
    dataset = mmdata.open(out)
    found: dict[str, list[Any]] = {}
    for format in FORMATS:
        samples = [described(sample) for sample in dataset[format].train]
        lines = [tuple(line.values()) for line in read_ledger(out / "ledger" / f"{format}.jsonl")]
        found[format] = [
            sorted(one for one in samples if one[1].startswith(WHOLE)),
            sorted(line for line in lines if line[1].startswith(WHOLE)),
        ]
    return found


def described(sample: Sample) -> tuple[str, ...]:
    items = [(i.kind, i.digest, i.uri, "" if i.codes is None else np.asarray(i.codes).tolist()) for i in sample.items]
    facts = (sample.language, sample.licence, sample.created, sorted(sample.metadata.items()))
    return sample.id, sample.uri, repr(facts), repr(items)


def test_a_build_of_damaged_files_ends_with_each_in_samples_or_in_the_ledger(
    roots: tuple[Path, Path], tmp_path: Path
) -> None:
    for root, name in zip(roots, ("alone", "among")):
        run(root, tmp_path / name)
    out = tmp_path / "among"
    assert not verify(out).problems
    for format in FORMATS:
        samples = mmdata.open(out)[format].train
        seen = {uri.split("#")[0] for sample in samples for uri in (sample.uri, *(item.uri for item in sample.items))}
        seen |= {line["uri"].split("#")[0] for line in read_ledger(out / "ledger" / f"{format}.jsonl")}
        files = {path.relative_to(roots[1] / format).as_posix() for path in (roots[1] / format).rglob("*.*")}
        assert {file for file in files if not file.endswith("dataset_info.json")} <= seen
    assert of_whole_files(out) == of_whole_files(tmp_path / "alone")
