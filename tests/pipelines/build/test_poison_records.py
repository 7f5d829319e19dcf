"""A record that kills or hangs the parser, inside a file of many: it costs itself, in real workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toy_build import load_toy, toy_recipe
from toy_traps import HANGS, KILLS, open_trapped

import mmdata
from pipelines.build.engine import build
from pipelines.build.ledger import read_ledger
from pipelines.build.report import BuildReport
from pipelines.ingest.document import Part
from tests.pipelines.ingest.toy_archives import epub, hf, parquet, tar, warc
from tests.pipelines.ingest.toy_media import write


@pytest.fixture(autouse=True)
def untrapped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process opens sources too."""
    monkeypatch.setattr(Part, "__init__", Part.__init__)
    yield


def said(text: str) -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "yes"}]}


def files_of(*texts: str) -> dict[str, bytes]:
    """Of each format a file with these texts for records."""
    pages = [(f"http://a.org/{i % 4}", "text/html", f"<p>{text}</p>".encode()) for i, text in enumerate(texts)]
    rows = {"text": list(texts)}
    return {
        "warc/a.warc.gz": warc(*pages),
        "webdataset/a.tar": tar(*((f"{i % 4}.txt", text.encode()) for i, text in enumerate(texts))),
        "jsonl/a.jsonl": b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts),
        "parquet/a.parquet": parquet(rows, row_group_size=3),
        "epub/a.epub": epub({f"{i}.xhtml": f"<p>{text}</p>" for i, text in enumerate(texts)}),
        "chat/a.json": json.dumps([said(text) for text in texts]).encode(),
        "interleaved/a.jsonl": b"".join(
            json.dumps({"texts": [text], "images": [None]}).encode() + b"\n" for text in texts
        ),
        **{f"hf/{name}": data for name, data in hf(rows, {}).items()},
    }


LOST = {
    "warc": "a.warc.gz#http://a.org/2",
    "webdataset": "a.tar#2",
    "jsonl": "a.jsonl#L3",
    "parquet": "a.parquet#0.2",
    "epub": "a.epub#OEBPS/2.xhtml",
    "chat": "a.json#3",
    "interleaved": "a.jsonl#3",
    "hf": "data-00000-of-00001.arrow#2",
}


def run(root: Path, out: Path, formats: list[str], **changes: Any) -> BuildReport:
    sources = [{"name": name, "format": name, "path": name} for name in formats]
    recipe = toy_recipe(root, source=sources, validation=0.0, **changes)
    return build(recipe, out, 2, progress=False, load=load_toy, open=open_trapped)


def texts_of(out: Path, name: str) -> list[str]:
    """What a source's samples say, sorted."""
    samples = mmdata.open(out)[name].train
    return sorted(bytes(sample.items[0].codes.ravel().tolist()).decode() for sample in samples)


def test_a_record_that_kills_the_parser_costs_no_other_of_its_file(tmp_path: Path) -> None:
    """In every format with records; of an address or a key that comes twice, it is the one that kills."""
    texts = ["one", "two", KILLS, "four", "five", "six", "seven"]
    root, out = write(tmp_path / "in", files_of(*texts)), tmp_path / "out"
    assert run(root, out, list(LOST)).dropped == {"crashed its worker": len(LOST)}
    for name, uri in LOST.items():
        (line,) = read_ledger(out / "ledger" / f"{name}.jsonl")
        assert (line["uri"], line["stage"]) == (uri, "ingest") and line["detail"].startswith("SIGKILL")
        assert texts_of(out, name) == sorted(text for text in texts if text != KILLS)
    assert run(root, out, list(LOST)).units_run == 0


def test_records_that_hang_the_parser_cost_no_other_of_their_file(tmp_path: Path) -> None:
    texts = ["one", HANGS, "three", "four", HANGS + "!"]
    root, out = write(tmp_path / "in", files_of(*texts)), tmp_path / "out"
    report = run(root, out, ["warc"], limits={"stuck_seconds": 5.0})
    assert report.dropped == {"took too long": 2}
    lines = read_ledger(out / "ledger" / "warc.jsonl")
    assert [line["uri"] for line in lines] == ["a.warc.gz#http://a.org/1", "a.warc.gz#http://a.org/0"]
    assert texts_of(out, "warc") == ["four", "one", "three"]
