"""`mmdata explain`: a batch's documents and a document's steps, of a run file and of a run's folder."""

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdata.explain import explain_rows
from pipelines.look.runs import open_run
from tests.pipelines.look.toy_run import STEPS, say, write_run

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def mmdata(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    return partial(say, capfd, monkeypatch)


def test_a_step_is_told_as_the_loader_tells_it(mmdata: Say, run_file: Path) -> None:
    _, loader, _ = open_run(run_file)
    code, out, _ = mmdata("explain", run_file, "--step", 16, "--json")
    told = json.loads(out)
    batch = loader.batch_at(16)
    assert code == 0 and [row["row"] for row in told["rows"]] == list(range(8))
    for row, expected in zip(told["rows"], explain_rows(loader, 16), strict=True):
        assert row["tokens"] == (batch.segment_ids[row["row"]] > 0).sum()
        assert row["padding"] == pytest.approx((batch.segment_ids[row["row"]] == 0).mean(), abs=1e-6)
        for document, known in zip(row["documents"], expected.documents, strict=True):
            assert (document["id"], document["uri"], document["column"]) == (known.id, known.uri, known.column)
            assert [span["kind"] for span in document["spans"]] == [span["kind"] for span in known.spans]
    one = json.loads(mmdata("explain", run_file, "--step", 16, "--row", 5, "--json")[1])
    assert one["rows"] == [told["rows"][5]]


def test_a_pipe_gets_a_line_a_document_and_a_line_an_item(mmdata: Say, run_file: Path) -> None:
    code, out, err = mmdata("explain", run_file, "--step", 2)
    assert code == 0 and not err and "\x1b" not in out and "…" not in out
    lines = [line.split() for line in out.splitlines()]
    for row in json.loads(mmdata("explain", run_file, "--step", 2, "--json")[1])["rows"]:
        for document in row["documents"]:
            head = [str(row["row"]), str(document["segment"]), row["source"], "document", document["id"][:12]]
            (found,) = [line for line in lines if line[:5] == head]
            columns = f"{document['column']}:{document['column'] + document['length']}"
            assert found[5:] == [
                document["uri"],
                str(document["epoch"]),
                f"{document['start']}:{document['stop']}",
                columns,
            ]
            for span in document["spans"]:
                ends = [f"{span['units'][0]}:{span['units'][1]}", f"{span['start']}:{span['stop']}"]
                assert [head[0], head[1], span["kind"]] in [line[:3] for line in lines if line[-2:] == ends]
        assert [f"{row['padding']:.2%}"] in [line[4:5] for line in lines if line[:1] == [str(row["row"])]]


def test_a_document_is_told_with_all_its_steps(mmdata: Say, run_file: Path) -> None:
    _, loader, _ = open_run(run_file)
    seen: dict[str, list[Any]] = {}
    for step in range(STEPS):
        for d in loader.explain(step):
            seen.setdefault(d.id, []).append((d.step, d.row, d.epoch, d.start, d.stop))
    id = next(id for id, places in sorted(seen.items()) if len({place[3] for place in places}) > 1)
    second = seen[id][1][0]
    for more, last in (((), STEPS - 1), (("--until", second), second)):
        (told,) = json.loads(mmdata("explain", run_file, "--document", id[:12], "--json", *more)[1])
        parts = [(part["start"], part["stop"]) for part in told["parts"]]
        found = [(v["step"], v["row"], v["epoch"], *parts[v["part"] - 1]) for v in told["visits"]]
        assert found == sorted(place for place in seen[id] if place[0] <= last) and told["until"] == last
        code, out, _ = mmdata("explain", run_file, "--document", told["document"]["uri"], *more)
        lines = [line.split() for line in out.splitlines()]
        for step, row, epoch, start, stop in found:
            assert any(
                line[:3] == [str(step), str(row), str(epoch)] and line[-1] == f"{start}:{stop}" for line in lines
            )
        assert code == 0 and f"in {len(found)} rows of steps 0 to {last}" in out


def test_a_document_of_the_validation_split_is_at_no_step(mmdata: Say, run_file: Path) -> None:
    code, out, _ = mmdata("explain", run_file, "--document", "speech/2")
    assert code == 0 and "it is in the validation split: no training step sees it" in out
    assert json.loads(mmdata("explain", run_file, "--document", "speech/2", "--json")[1])[0]["visits"] == []


def test_the_folder_of_a_run_has_its_run_file_and_its_quarantine(mmdata: Say, run_file: Path) -> None:
    _, loader, _ = open_run(run_file)
    document = loader.explain(7, row=1)[0]
    split = next(feed.source.train for feed in loader.feeds.feeds if feed.name == document.source)
    shard = int(np.searchsorted(split.shard_bounds, document.sample, side="right")) - 1
    record = document.sample - int(split.shard_bounds[shard])
    entry = {"source": document.source, "shard": split.shards[shard].file, "record": record, "from_step": 7}
    folder = run_file.parent / "run"
    folder.mkdir()
    shutil.copyfile(run_file, folder / "run.toml")
    words = (folder / "run.toml").read_text().replace('data = "data"', 'data = "../data"')
    (folder / "run.toml").write_text(words)
    (folder / "quarantine.jsonl").write_text(json.dumps(entry) + '\n{"source": "w')  # the last was cut off by a kill
    for run in (folder, folder / "run.toml"):
        (row,) = json.loads(mmdata("explain", run, "--step", 7, "--row", 1, "--json")[1])["rows"]
        (gone,) = row["quarantined"]
        assert (gone["id"], gone["record"], gone["column"]) == (document.id, record, document.column)
        assert document.id not in [d["id"] for d in row["documents"]]
    out = mmdata("explain", folder, "--step", 7, "--row", 1)[1]
    assert "quarantined" in out and f"record {record} of {entry['shard']} from step 7" in out
    out = mmdata("explain", folder, "--document", document.id)[1]
    assert next(line for line in out.splitlines() if line.split()[:2] == ["7", "1"]).endswith("quarantined: padding ")
    (folder / "quarantine.jsonl").write_text('{"source": "w\n' + json.dumps(entry))
    assert "quarantine.jsonl, line 1, is no JSON" in mmdata("explain", folder, "--step", 7)[2]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--step", STEPS], f"no step {STEPS}: .* has steps 0 to {STEPS - 1}"),
        (["--step", -1], "no step -1"),
        (["--step", 3, "--row", 4], "no row 4 at step 3: its batch has rows 0 to 3"),
        (["--document", "web/33", "--until", STEPS], f"no step {STEPS}"),
        (["--document", "web/3333"], "no document has .* 'web/3333'; near are web/33 "),
        ([], "give either --step N"),
        (["--step", 1, "--document", "web/33"], "give either --step N"),
        (["--step", 1, "--until", 3], "--until goes with --document"),
        (["--document", "web/33", "--row", 3], "--row goes with --step"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(mmdata: Say, run_file: Path, words: list[Any], line: str) -> None:
    code, out, err = mmdata("explain", run_file, *words)
    assert (code, out) == (2, "") and err.startswith("mmdata: ") and err.count("\n") == 1
    assert re.search(line, err), err
