"""Packed sources through a whole build: the same bytes for any workers, and losses counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from toy_build import load_toy, tree

from mmdata.verify import verify
from pipelines.build.engine import build
from pipelines.build.ledger import read_ledger
from pipelines.build.recipe import parse_recipe
from pipelines.build.report import BuildReport
from tests.pipelines.ingest.toy_archives import epub, hf, link, parquet, pdf, tar, warc
from tests.pipelines.ingest.toy_media import png, sine, wav, write

PICTURE = png(64, 64)
TALK = {
    "image": "a.png",
    "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A"}],
}
PAGE = {"texts": ["one", None, None], "images": [None, "https://a.org/1.png", "https://a.org/2.png"]}
FILES: dict[str, str | bytes] = {
    "webdataset/a.tar": tar(
        ("1.png", PICTURE), ("1.txt", b"a picture"), ("2.wav", wav(sine())), ("2.txt", b"a hum"),
        ("3.png", b"no picture"), link("4.txt", "/etc/passwd"),
    ),
    "parquet/a.parquet": parquet({"image": [PICTURE, PICTURE], "caption": ["x", "y"]}, row_group_size=1),
    "warc/a.warc.gz": warc(("https://a.org/", "text/html", b"<p>page<img src='https://b.net/x.png'>")),
    "epub/a.epub": epub({"a.xhtml": "<p>chapter</p><img src='i.png'>"}, {"OEBPS/i.png": PICTURE}),
    "pdf/a.pdf": pdf(
        "BT /F 12 Tf 20 250 Td (A page) Tj ET q 90 0 0 90 9 9 cm /P Do Q", picture=(32, 32, b"\xff\0\0" * 1024)
    ),
    "chat/a.json": json.dumps([TALK]),
    "chat/a.png": PICTURE,
    "interleaved/a.jsonl": json.dumps(PAGE),
    "interleaved/mirror/a.org/1.png": PICTURE,
    **{f"hf/{name}": data for name, data in hf({"text": ["a row"]}, {}).items()},
}  # fmt: skip


def run(root: Path, out: Path, workers: int) -> BuildReport:
    formats = sorted({name.split("/")[0] for name in FILES})
    sources: list[dict[str, Any]] = [{"name": f, "format": f, "path": f} for f in formats]
    next(s for s in sources if s["name"] == "interleaved")["mirror"] = "mirror"
    recipe = {
        "codecs": {"text": "toy-text@1", "image": "toy-image@1", "audio": "toy-audio@1"},
        "image": {"tokens": 16},
        "validation": 0.0,
        "source": sources,
    }
    return build(parse_recipe(recipe, root), out, workers, progress=False, load=load_toy)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("packed"), FILES)


def test_packed_sources_become_samples_and_losses_are_counted(root: Path, tmp_path: Path) -> None:
    report = run(root, tmp_path / "one", 1)
    kept = {source.name: source.samples for source in report.sources}
    assert kept == {
        "chat": 1, "epub": 1, "hf": 1, "interleaved": 1, "parquet": 2, "pdf": 1, "warc": 1, "webdataset": 2
    }  # fmt: skip
    assert report.lost_by_host == {"a.org": 1, "b.net": 1}
    assert report.to_json()["lost_by_host"] == report.lost_by_host
    lines = read_ledger(tmp_path / "one" / "ledger" / "webdataset.jsonl")
    assert [(line["uri"], line["reason"]) for line in lines] == [
        ("a.tar#4.txt", "outside the folder"), ("a.tar#3.png", "cannot decode"), ("a.tar#3", "no part left"),
    ]  # fmt: skip
    assert not verify(tmp_path / "one").problems
    run(root, tmp_path / "two", 2)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
