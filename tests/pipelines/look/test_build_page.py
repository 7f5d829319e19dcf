"""The page of a build: what each stage left of the documents, rates of what was done, and little memory for it."""

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from pipelines.build.engine import build
from pipelines.build.report import BuildReport, print_report
from pipelines.look.build_page import write_build_page
from tests.pipelines.build.toy_build import load_toy, paint, toy_recipe

GOOD = "This page has words to read, and it is one of them. Here we have more of that. And so it ends with number {}."
MET = "If a train leaves the station at noon and travels sixty miles an hour, when does it reach the sea?"
SHORT = "Too short to be kept."
WEB = [*(GOOD.format(word) for word in "abcdef"), GOOD.format("a"), GOOD.format("b"), f"{GOOD} {MET}", *[SHORT] * 3]
PAGE = {"texts": ["one", None, None], "images": [None, "https://a.org/1.png", "https://b.net/<2>.png"]}
LEFT = {
    "web": {"ingest": 12, "curate": 9, "decontaminate": 8, "dedup": 6, "encode": 6, "shuffle": 6},
    "pictures": {"ingest": 3, "curate": 3, "decontaminate": 3, "dedup": 3, "encode": 2, "shuffle": 2},
    "pages": {"ingest": 1, "curate": 1, "decontaminate": 1, "dedup": 1, "encode": 1, "shuffle": 1},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sources of which every stage leaves something out."""
    root = tmp_path_factory.mktemp("inputs")
    (root / "web").mkdir()
    for number in range(2):
        rows = [json.dumps({"id": str(i), "text": text}) for i, text in enumerate(WEB)][6 * number : 6 * number + 6]
        (root / "web" / f"{number}.jsonl").write_text("\n".join(rows))
    (root / "web" / "other.bin").write_bytes(b"nothing reads this")
    for i in range(2):
        paint(root / "pictures" / f"{i}.png", (90 * i, 9, 9))
    (root / "pictures" / "broken.png").write_bytes(b"\x89PNG no picture")
    (root / "pages").mkdir()
    (root / "pages" / "a.jsonl").write_text(json.dumps(PAGE))
    (root / "eval").mkdir()
    (root / "eval" / "quiz.jsonl").write_text(json.dumps({"question": MET}))
    return root


def run(root: Path, out: Path, **changes: Any) -> BuildReport:
    sources = [
        {
            "name": "web",
            "format": "jsonl",
            "path": "web",
            "curate": {"rules": ["gopher_quality"], "gopher_quality": {"min_words": 10}},
        },
        {"name": "pictures", "format": "captions", "path": "pictures"},
        {"name": "pages", "format": "interleaved", "path": "pages"},
    ]
    more = {"source": sources, "dedup": {"exact": "drop"}, "decontaminate": {"against": ["eval"]}, **changes}
    return build(toy_recipe(root, **more), out, 1, progress=False, load=load_toy)


@pytest.fixture(scope="module")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BuildReport]:
    out = tmp_path_factory.mktemp("built") / "out"
    return out, run(root, out)


def cells_of(out: Path) -> str:
    """The page's words with one bar for each run of tags."""
    return re.sub(r"(<[^>]+>\s*)+", "|", (out / "report.html").read_text("utf-8"))


def test_documents_left_after_each_stage_are_counted_by_source(built: tuple[Path, BuildReport]) -> None:
    out, report = built
    assert {source.name: source.remaining for source in report.sources} == LEFT
    saved = json.loads((out / "report.json").read_text())
    assert saved["remaining"] == {
        "ingest": 16, "curate": 13, "decontaminate": 12, "dedup": 10, "encode": 9, "shuffle": 9
    }  # fmt: skip
    assert saved["samples"] == 9 and saved["documents"] == 16


def test_the_page_shows_them_beside_what_each_stage_left_out(
    built: tuple[Path, BuildReport], capsys: pytest.CaptureFixture[str]
) -> None:
    out, report = built
    cells = cells_of(out)
    assert "|source|inputs|after ingest|after curate|after decontaminate|after dedup|after encode|" in cells
    assert "|web|2|12|9|8|6|6|6|6|50.0%|" in cells and "|all|6|16|13|12|10|9|9|9|56.2%|" in cells
    for row in (
        "|web|curate|9|3|gopher: too few words 3|",
        "|web|decontaminate|8|1|text of evaluation data 1|",
        "|web|dedup|6|2|exact duplicate 2|",
        "|pictures|encode|2|1|cannot decode 1, no part left 1|",
    ):
        assert row in cells, row
    assert "2 documents were left out as duplicates" in cells
    print_report(report)
    assert "documents after ingest 16, curate 13, decontaminate 12, dedup 10, encode 9" in capsys.readouterr().out


def test_hosts_that_did_not_give_their_media_are_on_the_page(built: tuple[Path, BuildReport]) -> None:
    assert "2 media of 2 hosts could not be had." in cells_of(built[0])
    assert "|a.org|1|pages|b.net|1|pages|" in cells_of(built[0])


def test_rates_are_of_the_documents_that_a_stage_read(built: tuple[Path, BuildReport]) -> None:
    out, report = built
    cells = cells_of(out)
    rows = {row.stage: 0.0 for row in report.stages}
    for row in report.stages:
        rows[row.stage] += row.seconds
    for stage, documents in (("ingest", 16), ("curate", 16), ("sign", 12), ("dedup", 12), ("encode", 10), ("write", 9)):
        found = re.search(rf"\|{stage}\|\d+\|\d+\|(\d+)\|([\d.]+)\|[\d.]+%\|([\d.,]+)\|", cells)
        assert found is not None, stage
        assert int(found[1]) == documents
        assert float(found[3].replace(",", "")) == pytest.approx(documents / rows[stage], rel=0.01)
    shown = re.findall(r"\|\d+\|\d+\|[\d,]*\|?([\d.,]+)\|([\d.]+)%\|", cells.split("seconds of workers")[1])
    assert sum(float(share) for _, share in shown) == pytest.approx(100, abs=1)  # no stage without a row
    assert "|leftovers|" in cells


def test_a_build_that_ran_in_part_has_no_rate(root: Path, built: tuple[Path, BuildReport], tmp_path: Path) -> None:
    assert built[1].documents_per_second == pytest.approx(16 / built[1].seconds, rel=0.01)
    run(root, tmp_path / "out")
    report = run(root, tmp_path / "out")
    assert report.units_run == 0 and report.documents_per_second is None
    assert json.loads((tmp_path / "out" / "report.json").read_text())["documents_per_second"] is None
    assert "documents/s)" not in cells_of(tmp_path / "out").split("Where time went")[0]


def test_the_page_holds_no_ledger_and_no_catalog(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    run(root, out)
    monkeypatch.setattr("mmdata.dataset.Source.catalog", property(lambda source: pytest.fail("the whole catalog")))
    lines = (out / "ledger" / "web.jsonl").read_text().splitlines()
    with (out / "ledger" / "web.jsonl").open("a") as ledger:
        for number in range(40_000):
            ledger.write(json.dumps({**json.loads(lines[0]), "uri": f"{number}.jsonl", "detail": "x" * 200}) + "\n")
    size = (out / "ledger" / "web.jsonl").stat().st_size
    write_build_page(out)  # what is imported now is not counted below
    tracemalloc.start()
    write_build_page(out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 10e6 and peak < size / 5
    assert "|40,00" in cells_of(out)
