"""The whole sample corpus through the build: every file ends in a sample or in the ledger."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mmdata
from pipelines.build.recipe import load_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def built(corpus: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("corpus") / "data"
    command = [sys.executable, "-m", "pipelines.cli", "build", str(root / "examples/corpus.toml"), "--out", str(out)]
    environment = {**os.environ, "MMDATA_CORPUS": str(corpus)}
    subprocess.run(command, cwd=root, env=environment, check=True, timeout=1100)
    return out


def test_every_file_of_the_manifest_is_in_a_sample_or_in_the_ledger(built: Path, corpus: Path, root: Path) -> None:
    os.environ.setdefault("MMDATA_CORPUS", str(corpus))
    recipe = load_recipe(root / "examples/corpus.toml")
    folders = {entry.name: recipe.source_path(entry).relative_to(corpus.resolve()) for entry in recipe.source}
    in_samples: set[str] = set()
    in_ledger: set[str] = set()
    dataset = mmdata.open(built)
    for name, source in dataset.sources.items():
        for split in source.splits.values():
            for sample in split:
                uris = {sample.uri, *(item.uri for item in sample.items)}
                in_samples |= {(folders[name] / uri.partition("#")[0]).as_posix() for uri in uris}
        for line in (built / "ledger" / f"{name}.jsonl").read_text("utf-8").splitlines():
            entry = json.loads(line)
            assert entry["reason"] and entry["stage"] and entry["source"] == name
            in_ledger.add((folders[name] / entry["uri"].partition("#")[0]).as_posix())
    with (corpus / "MANIFEST.tsv").open(newline="", encoding="utf-8") as file:
        listed = [row["path"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    lost = [path for path in listed if path not in in_samples and path not in in_ledger]
    assert not lost, f"{len(lost)} of {len(listed)} files are nowhere: {lost[:10]}"
    assert sum(path in in_samples for path in listed) > 0.9 * len(listed)


def test_the_corpus_holds_every_kind_and_many_languages(built: Path) -> None:
    dataset = mmdata.open(built)
    codes = {kind: 0 for kind in ("text", "image", "audio", "video")}
    languages: set[str] = set()
    for source in dataset.sources.values():
        for kind in codes:
            codes[kind] += sum(source.catalog.column(f"{kind}_codes").to_pylist())
        languages |= set(source.catalog.column("language").to_pylist())
    assert min(codes.values()) > 1_000, codes
    assert {"en", "de", "es", "fr", "ja", "ru", "cs"} <= languages
