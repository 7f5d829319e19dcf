"""What a change of the inputs or of the recipe runs again: what --explain says beforehand, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from toy_build import hum, load_toy, paint, toy_recipe, tree

import mmdata
from mmdata.errors import UserError
from pipelines.build import graph
from pipelines.build.engine import build
from pipelines.build.executor import Task
from pipelines.build.ledger import read_ledger
from pipelines.build.report import BuildReport, print_report
from pipelines.build.worker import Call
from tests.pipelines.ingest.toy_archives import parquet, tar

PAGE = "This page has words to read, and it is number {} of them. Here we have more of that {}. And so it ends."
ASKED = "If a train leaves the station at noon and travels sixty miles an hour when does it reach the sea"
RULES = {
    "rules": ["lists", "gopher_quality"],
    "lists": {"hosts": ["hosts.txt"]},
    "gopher_quality": {"min_words": 10},
}
SOURCES = [
    {"name": "text", "format": "text", "path": "text"},
    {"name": "pictures", "format": "captions", "path": "pictures"},
    {"name": "speech", "format": "speech", "path": "speech"},
    {"name": "lines", "format": "jsonl", "path": "lines", "curate": RULES},
    {"name": "rows", "format": "parquet", "path": "rows"},
    {"name": "tars", "format": "webdataset", "path": "tars"},
]
CLEAN = {"dedup": {"exact": "drop", "text": "minhash", "image": "phash"}, "decontaminate": {"against": ["quiz.jsonl"]}}


class InProcess:
    """The units one after the other, here: what runs is asked, not how. (Real executors have tests of their own.)"""

    workers, peak_bytes = 1, 0

    def __init__(self, *_: Any) -> None: ...

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None: ...

    def run(self, tasks: list[Task], on_done: Any = None, on_poison: Any = None) -> dict[str, Any]:
        return {task.key: task.function(Call(task.args)) for task in tasks}


@pytest.fixture(scope="module", autouse=True)
def in_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.build.engine.open_executor", InProcess)
        patch.setattr("pipelines.build.engine.write_build_page", lambda *words: None)
        patch.setattr("os.fsync", lambda file: None)
        yield


def page(number: int) -> str:
    return PAGE.format(number, " ".join(f"word{number}x{i}" for i in range(12 + number % 4)))


def lines(*numbers: int) -> bytes:
    return b"".join(json.dumps({"text": page(n), "url": f"https://h{n}.org/"}).encode() + b"\n" for n in numbers)


def rows(*numbers: int) -> bytes:
    return parquet({"text": [page(n) for n in numbers]}, row_group_size=2)


def members(*numbers: int) -> bytes:
    return tar(*((f"{n:03d}.txt", page(n).encode()) for n in numbers))


def plant(root: Path) -> None:
    for i in range(1, 9):
        write(root / "text" / f"{i}.txt", page(i).encode())
    for i in range(4):
        paint(root / "pictures" / f"{i}.png", (i * 60, 200 - i * 50, 40))
        write(root / "pictures" / f"{i}.txt", f"picture {i}".encode())
    hum(root / "speech" / "a.wav", 0.3)
    write(root / "speech" / "a.txt", b"a hum")
    write(root / "lines" / "a.jsonl", lines(*range(20, 24)))
    write(root / "rows" / "a.parquet", rows(*range(30, 35)))
    write(root / "tars" / "a.tar", members(*range(40, 44)))
    write(root / "hosts.txt", b"bad.org\n")
    write(root / "quiz.jsonl", json.dumps({"question": ASKED}).encode())


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def run(root: Path, out: Path, changes: dict[str, Any], explain: bool = False) -> BuildReport:
    table = {"validation": 0, "source": SOURCES, "shards": {"samples": 10, "unit_inputs": 3}, **changes}
    return build(toy_recipe(root, **table), out, 1, explain=explain, progress=False, load=load_second)


def load_second(name: str) -> Any:
    """The toy codecs, and another of each kind."""
    if not name.endswith("@2"):
        return load_toy(name)
    codec = load_toy(name.replace("@2", "@1"))
    codec.revision, codec.fingerprint = 2, "another"  # type: ignore[attr-defined]
    return codec


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Two folders with inputs and a finished dataset; True: with duplicates and evaluation data looked for."""
    folders = {}
    for clean in (False, True):
        folders[clean] = tmp_path_factory.mktemp("built")
        plant(folders[clean] / "in")
        run(folders[clean] / "in", folders[clean] / "out", CLEAN if clean else {})
    return folders


def codecs(**changed: str) -> dict[str, Any]:
    return {"codecs": {"text": "toy-text@1", "image": "toy-image@1", "audio": "toy-audio@1", **changed}}


def curated(**changed: Any) -> dict[str, Any]:
    return {"source": [s | {"curate": {**RULES, **changed}} if s["name"] == "lines" else s for s in SOURCES]}


def adds(name: str, data: bytes) -> Callable[[Path], dict[str, Any]]:
    def change(root: Path) -> dict[str, Any]:
        write(root / name, data)
        return {}

    return change


def removes(name: str) -> Callable[[Path], dict[str, Any]]:
    def change(root: Path) -> dict[str, Any]:
        (root / name).unlink()
        return {}

    return change


def touches(name: str) -> Callable[[Path], dict[str, Any]]:
    def change(root: Path) -> dict[str, Any]:
        write(root / name, (root / name).read_bytes())
        return {}

    return change


def sets(**changes: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda root: changes


def adds_a_source(root: Path) -> dict[str, Any]:
    write(root / "more" / "1.txt", page(90).encode())
    return {"source": [*SOURCES, {"name": "more", "format": "text", "path": "more"}]}


def then(source: str, units: int, *lead: str) -> dict[str, int]:
    """What runs of one source when documents of so many units are others: by "stage source"."""
    counts = {"ingest": units, "curate": units, "encode": units, "shuffle": 1, "write": 1, "finish": 1}
    return {f"{stage} {source}": n for stage, n in counts.items() if not lead or stage in lead}


def also(source: str, units: int) -> dict[str, int]:
    """And when duplicates and evaluation data are looked for."""
    return {f"decontaminate {source}": units, f"sign {source}": units, "dedup all sources": 1}


ALL = [source["name"] for source in SOURCES]
UNITS = {"text": 3, "pictures": 2}
AFTER = ("encode", "shuffle", "write", "finish")
RULED = ("curate", "encode", "shuffle", "write", "finish")
FINISH = {f"finish {name}": 1 for name in ALL}
DECONTAMINATE = {f"decontaminate {name}": UNITS.get(name, 1) for name in ALL}
TEXT_CODEC = {key: n for name in ALL for key, n in then(name, UNITS.get(name, 1), *AFTER).items()}

# name: (the change, what runs, what runs too with duplicates and evaluation data on, why the first stage does)
CASES: dict[str, tuple[Callable[[Path], dict[str, Any]], dict[str, int], dict[str, int], str]] = {
    "nothing": (sets(), {}, {}, ""),
    "a file touched": (touches("text/5.txt"), {"ingest text": 1, "curate text": 1}, {}, "5.txt changed"),
    "a file changed": (adds("text/5.txt", b"other words"), then("text", 1), also("text", 1), "5.txt changed"),
    "a file at the start": (adds("text/0.txt", page(50).encode()), then("text", 1), also("text", 1), "0.txt is new"),
    "a file in the middle": (
        adds("text/55.txt", page(51).encode()), then("text", 2), also("text", 2), "55.txt is new; 6.txt .* another"
    ),
    "a file at the end": (adds("text/9.txt", page(52).encode()), then("text", 1), also("text", 1), "9.txt is new"),
    "a file gone": (removes("text/5.txt"), then("text", 1), also("text", 1), "5.txt is gone"),
    "the first file of a unit gone": (
        removes("text/4.txt"), then("text", 1), also("text", 1), "5.txt begins a unit now"
    ),
    "a line at the start": (
        adds("lines/a.jsonl", lines(60, *range(20, 24))), then("lines", 1), also("lines", 1), "a.jsonl changed"
    ),
    "a line in the middle": (
        adds("lines/a.jsonl", lines(20, 21, 60, 22, 23)), then("lines", 1), also("lines", 1), "a.jsonl changed"
    ),
    "a line at the end": (
        adds("lines/a.jsonl", lines(*range(20, 24), 60)), then("lines", 1), also("lines", 1), "a.jsonl changed"
    ),
    "a row at the start": (
        adds("rows/a.parquet", rows(60, *range(30, 35))), then("rows", 1), also("rows", 1), "a.parquet#00000 changed"
    ),
    "a row in the middle": (
        adds("rows/a.parquet", rows(30, 60, *range(31, 35))), then("rows", 1), also("rows", 1), "a.parquet"
    ),
    "a row at the end": (
        adds("rows/a.parquet", rows(*range(30, 35), 60)), then("rows", 1), also("rows", 1), "a.parquet"
    ),
    "a member at the start": (
        adds("tars/a.tar", members(60, *range(40, 44))), then("tars", 1), also("tars", 1), "a.tar changed"
    ),
    "a member in the middle": (
        adds("tars/a.tar", members(40, 60, *range(41, 44))), then("tars", 1), also("tars", 1), "a.tar changed"
    ),
    "a member at the end": (
        adds("tars/a.tar", members(*range(40, 44), 60)), then("tars", 1), also("tars", 1), "a.tar changed"
    ),
    "a file that nothing reads": (
        adds("text/notes.bin", b"?"), {"leftovers text": 1}, {}, "files that nothing reads changed"
    ),
    "a source": (
        adds_a_source, then("more", 1) | {"leftovers more": 1}, also("more", 1), "not done yet"
    ),
    "the codec of images": (
        sets(**codecs(image="toy-image@2")), then("pictures", 2, *AFTER), {}, "codecs.image changed"
    ),
    "the codec of sounds": (
        sets(**codecs(audio="toy-audio@2")), then("speech", 1, *AFTER), {}, "codecs.audio changed"
    ),
    "the codec of texts": (sets(**codecs(text="toy-text@2")), TEXT_CODEC, {}, "codecs.text changed"),
    "a rule's number that drops nothing": (
        sets(**curated(gopher_quality={"min_words": 11})), {"curate lines": 1, "finish lines": 1}, {},
        "curate.gopher_quality changed",
    ),
    "a rule's number": (
        sets(**curated(gopher_quality={"min_words": 36})),
        then("lines", 1, *RULED), also("lines", 1), "curate.gopher_quality changed",
    ),
    "a list": (adds("hosts.txt", b"h21.org\n"), then("lines", 1, *RULED), also("lines", 1), "curate.lists changed"),
}  # fmt: skip

# Only where duplicates and evaluation data are looked for.
CLEAN_CASES = {
    "a setting of dedup": (
        sets(dedup={**CLEAN["dedup"], "image_bits": 3}), {"dedup all sources": 1} | FINISH, "dedup.image_bits changed"
    ),
    "evaluation data": (
        adds("quiz.jsonl", json.dumps({"question": page(2)}).encode()),
        {"benchmarks all sources": 1, "sign text": 1, "dedup all sources": 1}
        | DECONTAMINATE | then("text", 1, *AFTER),
        "evaluation data changed",
    ),
    "a longer copy": (
        adds("text/9.txt", f"{page(1)} A word.".encode()),
        {**then("text", 1), "encode text": 2} | also("text", 1), "9.txt is new",
    ),
}  # fmt: skip
TABLE = [
    *((name, False, *case) for name, case in CASES.items() if not name.startswith(("a line ", "a row ", "a member "))),
    *((name, True, *case) for name, case in CASES.items()),
    *((name, True, change, ran, {}, why) for name, (change, ran, why) in CLEAN_CASES.items()),
]


@pytest.mark.parametrize(
    ("name", "clean", "change", "ran", "more", "why"),
    [pytest.param(*case, id=f"{case[0]}{', clean' if case[1] else ''}") for case in TABLE],
)
def test_what_explain_says_is_what_runs(
    built: dict[bool, Path],
    tmp_path: Path,
    name: str,
    clean: bool,
    change: Callable[[Path], dict[str, Any]],
    ran: dict[str, int],
    more: dict[str, int],
    why: str,
) -> None:
    root, out, ran = tmp_path / "in", tmp_path / "out", ran | (more if clean else {})
    shutil.copytree(built[clean], tmp_path, dirs_exist_ok=True)  # with the times of files
    before, ids = stamps(out), sample_ids(out)
    changes = (CLEAN if clean else {}) | change(root)
    said = run(root, out, changes, explain=True)
    assert stamps(out) == before, "it wrote something"
    report = run(root, out, changes)
    found = {f"{row.stage} {row.source}": row for row in report.stages}
    assert {key: row.stale for key, row in found.items() if row.stale} == ran

    # What was said is a bound from both sides, but for the number of shards; and markers say that the report is right
    for row in said.stages:
        units = found[f"{row.stage} {row.source}"].stale
        if row.about:
            assert (row.stale > 0) <= (units > 0) <= (row.stale + row.maybe > 0)
        else:
            assert row.stale <= units <= row.stale + row.maybe
        if units:
            assert row.why and (found[f"{row.stage} {row.source}"].why or row.maybe)
    first = next((row.why for row in said.stages if row.stale), "")
    assert re.match(why, first) if why else not first
    after = stamps(out)
    anew = [file for file, stamp in after.items() if file.endswith(".done.json") and before.get(file) != stamp]
    assert len(anew) == sum(ran.values())
    for source in ALL:
        if f"finish {source}" not in ran:
            own = [file for file in before if file.startswith(f"{source}/")]
            assert own and all(after[file] == before[file] for file in own), f"{source} was written anew"

    # The outcome is that of a build from nothing, and no sample got another id
    if clean and not name.endswith(("in the middle", "at the end")):  # a second each
        run(root, tmp_path / "fresh", changes)
        assert tree(out) == tree(tmp_path / "fresh")
    kept = sample_ids(out)
    assert all(kept[uri] == ids[uri] for uri in kept.keys() & ids.keys())
    assert not run(root, out, changes).units_run


@pytest.mark.parametrize("path", ["a.jsonl", "*.jsonl"])
def test_a_picture_that_comes_beside_a_narrow_path_is_read_and_the_builds_own_files_are_not(
    tmp_path: Path, path: str
) -> None:
    changes = {"source": [{"name": "lines", "format": "jsonl", "path": path}]}
    write(tmp_path / "a.jsonl", json.dumps({"text": page(1), "image": "i/1.png"}).encode())
    run(tmp_path, tmp_path / "out", changes)
    [line] = read_ledger(tmp_path / "out" / "ledger" / "lines.jsonl")
    assert (line["reason"], line["detail"]) == ("missing file", "i/1.png is not in the folder")
    assert not run(tmp_path, tmp_path / "out", changes).units_run
    paint(tmp_path / "i" / "1.png", (9, 9, 9))
    report = run(tmp_path, tmp_path / "out", changes)
    assert report.to_json()["sources"][0]["codes"]["image"] and not report.dropped
    assert not run(tmp_path, tmp_path / "out", changes).units_run


def test_what_is_not_copied_from_a_url_is_in_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMDATA_CACHE", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    page_of = '<p>words<img src="i/1.png"><img src="i/large.png"><img src="b.html">'
    for name, size in {"p.html": 0, "i/1.png": 0, "i/large.png": 5000, "b.html": 0}.items():
        store.pipe(f"/increments/{name}", (page_of if name == "p.html" else "x").encode() + bytes(size))
    source = {"name": "web", "format": "html", "path": "memory://increments", "exclude": ["b.*"]}
    changes = {"source": [source], "limits": {"max_bytes": 4999}}
    try:
        run(tmp_path, tmp_path / "out", changes)
        assert not run(tmp_path, tmp_path / "out", changes).units_run
    finally:
        store.rm("/increments", recursive=True)
    lines = read_ledger(tmp_path / "out" / "ledger" / "web.jsonl")
    assert sorted((line["uri"], line["reason"]) for line in lines) == [
        ("b.html", "excluded by the recipe"), ("i/1.png", "cannot decode"), ("i/large.png", "over limit"),
        ("p.html", "excluded by the recipe"), ("p.html", "over limit"),
    ]  # fmt: skip
    assert not list((tmp_path / "cache").rglob("large.png")) and list((tmp_path / "cache").rglob("p.html"))


def stamps(out: Path) -> dict[str, tuple[int, int]]:
    """Of every file (but for the reports) its inode and time: another one where it was written again."""
    found = {path.relative_to(out).as_posix(): path.stat() for path in out.rglob("*") if path.is_file()}
    return {name: (s.st_ino, s.st_mtime_ns) for name, s in found.items() if not name.startswith("report.")}


def sample_ids(out: Path) -> dict[tuple[str, bytes], str]:
    """(source, the codes of its items) -> id: of records, uris hold their numbers."""
    return {
        (name, b"".join(item.codes.tobytes() for item in sample.items)): sample.id
        for name, source in mmdata.open(out).items()
        for split in (source.train, source.validation)
        for sample in split
    }


def test_ids_stay_when_a_copy_comes_and_when_rows_move(built: dict[bool, Path], tmp_path: Path) -> None:
    """Equal rows are told apart by number, so the first keeps its id; and so does a row that moves to another group."""
    shutil.copytree(built[False], tmp_path, dirs_exist_ok=True)
    before = sample_ids(tmp_path / "out")
    write(tmp_path / "in" / "rows" / "a.parquet", rows(60, 30, 31, 32, 30, 33, 34, 61))
    run(tmp_path / "in", tmp_path / "out", {})
    ids = {s.id for split in mmdata.open(tmp_path / "out")["rows"].splits.values() for s in split}
    assert len(ids) == 8 and ids >= {i for (name, _), i in before.items() if name == "rows"}


def test_ranges_of_a_large_file_of_lines_are_units_and_lines_keep_their_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line at the end runs the last range alone; a line before all others moves them, and changes no id."""
    monkeypatch.setattr("pipelines.ingest.jsonl._RANGE", 1000)
    root, out = tmp_path / "in", tmp_path / "out"
    changes = {"source": [{"name": "lines", "format": "jsonl", "path": "lines"}], "shards": {"unit_inputs": 1}}

    def encoded(data: bytes) -> tuple[int, int]:
        write(root / "lines" / "a.jsonl", data)
        row = next(row for row in run(root, out, changes).stages if row.stage == "encode")
        return row.units, row.stale

    assert encoded(lines(*range(20))) == (6, 6)
    before = sample_ids(out)
    assert encoded(lines(*range(20), 60)) == (6, 1)
    assert encoded(lines(60, *range(20)))[1] > 1
    after = sample_ids(out)
    assert len(after) == 21 and all(after[key] == before[key] for key in before)
    run(root, tmp_path / "fresh", changes)
    assert tree(out) == tree(tmp_path / "fresh")

    # A line that comes again in another range is the same record
    encoded(lines(*range(20), 0))
    (line,) = read_ledger(out / "ledger" / "lines.jsonl")
    assert (line["stage"], line["reason"]) == ("shuffle", "same id") and sample_ids(out) == before


def test_what_would_run_is_shown_with_the_reason(
    built: dict[bool, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shutil.copytree(built[False], tmp_path, dirs_exist_ok=True)
    print_report(run(tmp_path / "in", tmp_path / "out", {}, explain=True))
    assert "nothing has changed; no unit would run" in capsys.readouterr().out
    (tmp_path / "in" / "text" / "0.txt").write_text(page(50))
    print_report(run(tmp_path / "in", tmp_path / "out", codecs(image="toy-image@2"), explain=True))
    cells = [re.split(r" *│ *", row)[1:-1] for row in capsys.readouterr().out.splitlines() if "│" in row]
    assert ["ingest", "text", "4", "1", "", "0.txt is new"] in cells
    assert ["encode", "pictures", "2", "2", "", "codecs.image changed"] in cells
    assert not any(row[1] == "speech" and len(row) > 4 for row in cells), "it has nothing to do"


def test_a_source_that_is_taken_out_is_refused_before_anything_runs(built: dict[bool, Path], tmp_path: Path) -> None:
    shutil.copytree(built[False], tmp_path, dirs_exist_ok=True)
    before = stamps(tmp_path / "out")
    for explain in (True, False):
        with pytest.raises(UserError, match="its source 'tars' is not in this recipe"):
            run(tmp_path / "in", tmp_path / "out", {"source": SOURCES[:-1]}, explain=explain)
    assert stamps(tmp_path / "out") == before


def test_a_source_of_which_nothing_is_kept_any_more_goes(built: dict[bool, Path], tmp_path: Path) -> None:
    shutil.copytree(built[False], tmp_path, dirs_exist_ok=True)
    changes = curated(gopher_quality={"min_words": 1000})
    run(tmp_path / "in", tmp_path / "out", changes)
    run(tmp_path / "in", tmp_path / "fresh", changes)
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh") and not (tmp_path / "out" / "lines").exists()
    run(tmp_path / "in", tmp_path / "out", {})
    assert tree(tmp_path / "out") == tree(built[False] / "out")


def test_files_that_no_document_shows_are_told_without_reading_records_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.ingest.rows.shown_by", None)
    root, out = tmp_path / "in", tmp_path / "out"
    for i, name in enumerate("ab"):
        paint(root / "rows" / f"{name}.png", (i, 0, 0))
    changes = {"source": [{"name": "rows", "format": "parquet", "path": "rows"}]}

    def left(shown: str) -> list[str]:
        write(root / "rows" / "a.parquet", parquet({"text": ["words"], "image": [shown]}))
        run(root, out, changes)
        lines = read_ledger(out / "ledger" / "rows.jsonl")
        return [line["uri"] for line in lines if line["reason"] == "nothing refers to it"]

    assert left("a.png") == ["b.png"] and left("b.png") == ["a.png"]
    said = run(root, out, changes, explain=True)
    assert not any(row.stale or row.maybe for row in said.stages)


@pytest.mark.parametrize("family", ["picture_copies", "pictures", "safe_pictures", "similarity", "speech"])
@pytest.mark.parametrize("what", ["pillow", "cpu"])
def test_another_decoder_or_cpu_asks_the_rules_on_media_again_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, what: str
) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    plant(root)
    write(root / "hook_of_a_test.py", b"def one(*_):\n    return 1.0\n")
    hooks = {"safe_pictures": "classifier", "similarity": "scorer"}
    table = {hooks[family]: "hook_of_a_test:one"} if family in hooks else {}
    ruled = {"curate": {"rules": [family], family: table}}
    changes = {"source": [source | ruled if source["name"] == "pictures" else source for source in SOURCES]}
    run(root, out, changes)
    for name in ("versions", "platform_words"):
        words = getattr(graph, name)()
        monkeypatch.setattr(graph, name, lambda words=words: {k: "other" if k == what else v for k, v in words.items()})
    said = run(root, out, changes, explain=True)
    stale = {row.source: (row.stale, row.why) for row in said.stages if row.stage == "curate" and row.stale}
    assert stale == {"pictures": (2, "library versions and CPU changed")}


def test_another_weight_plans_and_writes_nothing_anew(built: dict[bool, Path], tmp_path: Path) -> None:
    """Weights are of a run: the dataset and the plans beside it stay, the order of rows is another."""
    out = tmp_path / "out"
    shutil.copytree(built[False] / "out", out)

    def sources_of(weights: dict[str, float]) -> list[str]:
        mixture = mmdata.Mixture({name: str(out / name) for name in weights}, weights=weights)
        loader = mmdata.Loader(mixture, seq_len=256, batch_size=8, seed=0)
        return [row.source for step in range(4) for row in loader.explain(step)]

    even = sources_of({"text": 0.5, "tars": 0.5})
    before = stamps(out)
    uneven = sources_of({"text": 0.9, "tars": 0.1})
    assert stamps(out) == before and any("/plans/" in name for name in before)
    assert uneven.count("tars") < even.count("tars")


def test_inputs_are_cut_where_they_were() -> None:
    from pipelines.build.inputs import cut_inputs
    from pipelines.ingest.source import Input

    def cut(names: str, begins: set[str], most: int = 3) -> list[str]:
        return ["".join(i.path for i in run) for run in cut_inputs([Input(n) for n in names], most, 100, begins)]

    assert cut("abcdefgh", set()) == ["abc", "def", "gh"]
    assert cut("Aabcdefgh", {"a", "d", "g"}) == ["A", "abc", "def", "gh"]
    assert cut("abBcdefgh", {"a", "d", "g"}) == ["abB", "c", "def", "gh"]
    assert cut("abcdefghi", {"a", "d", "g"}) == ["abc", "def", "ghi"]
    assert cut("abcefgh", {"a", "d", "g"}) == ["abc", "ef", "gh"]
    assert cut("abcefgh", {"a", "d", "g"}, 5) == ["abcef", "gh"]
