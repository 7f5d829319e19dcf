"""Evaluation data among what is trained on: left out of a build, found in a dataset, with the words they share."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mmdata.errors import UserError
from pipelines.build.engine import build
from pipelines.build.ledger import read_ledger
from pipelines.build.report import print_report
from pipelines.cli import app
from pipelines.dedup.audit import audit
from pipelines.dedup.evaluation import read_evaluation
from pipelines.dedup.matches import text_matches, video_match
from pipelines.ingest.looks import video_look
from pipelines.ingest.media import Limits
from tests.pipelines.build.toy_build import load_toy, toy_recipe, tree
from tests.pipelines.dedup.test_dedup_build import copy_picture, film, made, prose, write
from tests.pipelines.fit.test_exclude import draw as draw_picture
from tests.pipelines.fit.test_exclude import speak

QUESTION = "If a train leaves the station at noon and travels sixty miles an hour, when does it reach the sea?"
SHORT = "What is the capital of the old empire?"  # 8 words


def plant(root: Path) -> Path:
    """Evaluation sets in `eval`, and sources of which some documents hold their items; returns the root."""
    records = [
        {"question": QUESTION, "answer": "at nine"},
        {"question": SHORT, "choices": ["here", "there"]},
        {"question": "Too short", "answer": "yes"},
    ]
    write(root / "eval" / "quiz.jsonl", "".join(json.dumps(r) + "\n" for r in records))
    write(root / "eval" / "unmet.jsonl", json.dumps({"text": prose(900, 30)}))
    draw_picture(made(root / "eval" / "looks" / "a.png"), 0)
    speak(made(root / "eval" / "voices" / "a.wav"), 0)
    write(root / "text" / "clean.txt", prose(1) + " " + " ".join(QUESTION.split()[:9]))
    held = QUESTION.lower().replace(",", " ,").replace(" ", "\n")
    write(root / "text" / "held.txt", f"{prose(2)} {held} {prose(3)}")
    write(root / "text" / "short.txt", f"{prose(4)} {SHORT} {prose(5)}")
    for i in range(3):
        draw_picture(made(root / "pictures" / f"{i}.png"), 10 + i)
    copy_picture(root / "eval" / "looks" / "a.png", root / "pictures" / "met.jpg")
    for i in range(2):
        speak(made(root / "speech" / f"{i}.wav"), 10 + i)
    speak(root / "speech" / "met.wav", 0, rate=22_050, gain=0.3)
    for path in [*(root / "pictures").iterdir(), *(root / "speech").iterdir()]:
        path.with_suffix(".txt").write_text(f"words on {path.stem}")
    return root


def recipe(root: Path, **changes: Any) -> Any:
    sources = [
        {"name": "text", "format": "text", "path": "text"},
        {"name": "pictures", "format": "captions", "path": "pictures"},
        {"name": "speech", "format": "speech", "path": "speech"},
    ]
    return toy_recipe(root, source=sources, **changes)


def run(root: Path, out: Path, workers: int = 1, **changes: Any) -> Any:
    return build(recipe(root, **changes), out, workers, progress=False, load=load_toy)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plant(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def clean(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("clean") / "out"
    run(planted, out, decontaminate={"against": ["eval"]})
    return out


@pytest.fixture(autouse=True)
def toy_codecs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The datasets of these tests were made with toy codecs."""
    monkeypatch.setattr("mmdata.dataset.Source.load_codec", lambda source, name: load_toy(name))


def test_documents_that_hold_items_are_left_out_with_the_words_they_share(clean: Path) -> None:
    lines = {
        f"{line['source']}/{line['uri']}": (line["stage"], line["reason"], line["detail"])
        for path in sorted((clean / "ledger").glob("*.jsonl"))
        for line in read_ledger(path)
    }
    words = "if a train leaves the station at noon and travels sixty miles an hour when does it reach the sea"
    assert lines.pop("text/held.txt") == (
        "decontaminate", "text of evaluation data", f"quiz: quiz.jsonl#L1: 20 words: '{words}'"
    )  # fmt: skip
    assert lines.pop("text/short.txt")[2] == "quiz: quiz.jsonl#L2: 8 words: 'what is the capital of the old empire'"
    _, reason, detail = lines.pop("pictures/met.jpg")
    assert reason == "image of evaluation data" and detail.startswith("looks: looks/a.png: ") and "of 64 bits" in detail
    _, reason, detail = lines.pop("speech/met.wav")
    assert reason == "audio of evaluation data" and detail.startswith("voices: voices/a.wav: ")
    assert not lines


def test_three_workers_leave_out_the_same(planted: Path, clean: Path, tmp_path: Path) -> None:
    run(planted, tmp_path / "out", workers=3, decontaminate={"against": ["eval"]})
    assert tree(tmp_path / "out") == tree(clean)


def test_an_audit_says_what_was_left_out_and_that_nothing_is_left(planted: Path, clean: Path) -> None:
    report = audit(clean, [planted / "eval"], progress=False)
    rows = {b.name: (b.items, b.unchecked, b.before, b.found) for b in report.benchmarks}
    assert rows == {"quiz": (3, 1, 2, 0), "unmet": (1, 0, 0, 0), "looks": (1, 0, 1, 0), "voices": (1, 0, 1, 0)}
    (quiz,) = [b for b in report.benchmarks if b.name == "quiz"]
    assert report.found == 0 and [line["uri"] for line in quiz.left_out] == ["held.txt", "short.txt"]
    assert "20 words: 'if a train leaves" in quiz.left_out[0]["detail"]


def test_an_audit_of_a_dataset_with_kept_media_finds_all(planted: Path, tmp_path: Path) -> None:
    run(planted, tmp_path / "out", keep_media="original")
    report = audit(tmp_path / "out", [planted / "eval"], progress=False)
    found = {b.name: (b.found, b.items_found, sorted(e["uri"] for e in b.examples)) for b in report.benchmarks}
    assert found == {
        "quiz": (2, 2, ["held.txt", "short.txt"]),
        "unmet": (0, 0, []),
        "looks": (1, 1, ["met.jpg"]),
        "voices": (1, 1, ["met.wav"]),
    }
    assert report.looked_at == {"pictures, kept original": 4, "sounds, kept original": 3, "texts": 10}


def test_where_no_media_are_kept_it_says_so(planted: Path, tmp_path: Path) -> None:
    run(planted, tmp_path / "out")
    report = audit(tmp_path / "out", [planted / "eval" / "looks", planted / "pictures" / "0.png"], progress=False)
    assert report.looked_at["pictures, by their bytes only"] == 4
    found = {b.name: [e["match"] for e in b.examples] for b in report.benchmarks}
    assert found == {"looks": [], "0.png": ["the same bytes"]}


def test_the_command_exits_with_1_where_something_was_found(planted: Path, clean: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    command = ["decontaminate", str(clean), "--against", str(planted / "eval")]
    assert runner.invoke(app, command).exit_code == 0
    run(planted, tmp_path / "out")
    command[1] = str(tmp_path / "out")
    answer = runner.invoke(app, [*command, "--json"])
    assert answer.exit_code == 1 and json.loads(answer.stdout)["found"] == 2
    table = runner.invoke(app, command)
    assert table.exit_code == 1 and "20 words" in table.stdout and "quiz" in table.stdout


def test_evaluation_sets_that_change_run_what_they_touch(tmp_path: Path) -> None:
    root = plant(tmp_path)
    run(root, tmp_path / "out", decontaminate={"against": ["eval/quiz.jsonl"]})
    assert run(root, tmp_path / "out", decontaminate={"against": ["eval/quiz.jsonl"]}).units_run == 0
    write(root / "eval" / "quiz.jsonl", json.dumps({"question": prose(1)}))
    report = run(root, tmp_path / "out", decontaminate={"against": ["eval/quiz.jsonl"]})
    ran = {(row.stage, row.source): row.stale for row in report.stages}
    assert ran["ingest", "text"] == ran["curate", "text"] == ran["encode", "pictures"] == 0 < ran["encode", "text"]
    assert {line["uri"] for line in read_ledger(tmp_path / "out" / "ledger" / "text.jsonl")} == {"clean.txt"}


def test_ngrams_of_13_words_where_there_are_13_and_of_8_where_there_are_not(tmp_path: Path) -> None:
    draw = random.Random(1)
    words = [f"w{draw.randrange(10_000)}" for _ in range(40)]
    write(tmp_path / "long.txt", " ".join(words))
    write(tmp_path / "short.txt", " ".join(words[:12]))
    write(tmp_path / "tiny.txt", " ".join(words[:7]))
    index = read_evaluation([tmp_path], Limits())
    assert [item.checked for item in index.items] == [True, True, False]

    def met(begin: int, end: int) -> list[str]:
        return [m.item.uri for m in text_matches(f"before {' '.join(words[begin:end])} behind", index)]

    assert met(20, 33) == ["long.txt"] and met(20, 32) == []
    assert met(2, 10) == ["short.txt"] and met(2, 9) == []


def test_sets_are_read_packed_and_by_lines(tmp_path: Path) -> None:
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(json.dumps({"a": {"b": [prose(1)]}}).encode()))
    write(tmp_path / "table.tsv", f"{prose(2)}\tyes\n{prose(3)}\tno\n")
    write(tmp_path / "list.json", json.dumps([prose(4), prose(5)]))
    index = read_evaluation([tmp_path], Limits())
    assert [(i.benchmark, i.uri) for i in index.items] == [
        ("list", "list.json#0"),
        ("list", "list.json#1"),
        ("packed", "packed.jsonl.gz#L1"),
        ("table", "table.tsv#L1"),
        ("table", "table.tsv#L2"),
    ]
    assert [m.item.uri for m in text_matches(prose(1), index)] == ["packed.jsonl.gz#L1"]


def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path) -> None:
    write(tmp_path / "broken.jsonl", "{no json")
    with pytest.raises(UserError, match=r"broken\.jsonl cannot be read"):
        read_evaluation([tmp_path], Limits())
    with pytest.raises(UserError, match="no evaluation set"):
        run(plant(tmp_path / "planted"), tmp_path / "out", decontaminate={"against": ["gone"]})
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no evaluation item"):
        read_evaluation([tmp_path / "empty"], Limits())


def films(root: Path) -> Path:
    """Films with subtitles that read out a question in short cues, and one that is an evaluation film at another size;
    two sets ask the same question."""
    write(root / "eval" / "quiz.jsonl", json.dumps({"question": QUESTION}) + "\n" + json.dumps({"q": prose(70)}))
    write(root / "eval" / "other" / "set.csv", f'n,question\n1,"{prose(60)}"\n2,"{prose(61)}"\n')
    film(made(root / "eval" / "clips" / "a.mp4"), 0, 160)
    write(root / "eval" / "weights.bin", "words")
    for name, seed, size in [("told", 50, 160), ("own", 100, 160), ("copy", 0, 96)]:
        film(made(root / "films" / f"{name}.mp4"), seed, size)
    said = QUESTION.split() + prose(60).split() + prose(61).split()
    cues = [" ".join(said[i : i + 4]) for i in range(0, len(said), 4)]
    stamps = [f"00:00:0{i // 100}.{i % 100:02}0" for i in range(len(cues) + 1)]
    lines = [f"{begin} --> {end}\n{cue}\n" for begin, end, cue in zip(stamps, stamps[1:], cues)]
    write(root / "films" / "told.vtt", "WEBVTT\n\n" + "\n".join(lines))
    return root


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return films(tmp_path_factory.mktemp("filmed"))


def run_films(root: Path, out: Path, **changes: Any) -> Any:
    source = {"name": "films", "format": "video", "path": "films"}
    asked = toy_recipe(root, source=[source], **changes)
    return build(asked, out, 1, progress=False, load=load_toy)


def test_words_that_subtitles_break_apart_and_films_that_look_the_same_are_met(filmed: Path, tmp_path: Path) -> None:
    report = run_films(filmed, tmp_path / "out", decontaminate={"against": ["eval"]})
    lines = {line["uri"]: line for line in read_ledger(tmp_path / "out" / "ledger" / "films.jsonl")}
    assert set(lines) == {"told.mp4", "copy.mp4"}
    assert lines["copy.mp4"]["reason"] == "video of evaluation data"
    assert lines["copy.mp4"]["detail"].startswith("clips: clips/a.mp4: ")
    told, also = reversed(lines["told.mp4"]["detail"].split("; also "))
    words = "if a train leaves the station at noon and travels sixty miles an hour when does it reach the sea"
    assert told == f"quiz: quiz.jsonl#L1: 20 words: '{words}'"
    assert also.startswith("set: other/set.csv#L2: 120 words: '") and also.endswith(" ...'; and 1 more")
    assert report.evaluation == {
        "benchmarks": {
            "clips": {"items": 1, "short": 0, "left_out": 1},
            "quiz": {"items": 2, "short": 0, "left_out": 1},
            "set": {"items": 3, "short": 1, "left_out": 1},
        },
        "unread": [
            [
                "weights.bin",
                "not a format that is read (JSONL, JSON, CSV, TSV, Parquet, text, pictures, sounds and videos)",
            ]
        ],
    }


def test_an_audit_counts_a_document_for_every_benchmark_that_it_met(filmed: Path, tmp_path: Path) -> None:
    run_films(filmed, tmp_path / "clean", decontaminate={"against": ["eval"]})
    report = audit(tmp_path / "clean", [filmed / "eval"], progress=False)
    assert {b.name: (b.before, b.found) for b in report.benchmarks} == {"clips": (1, 0), "quiz": (1, 0), "set": (1, 0)}
    assert [name for name, _ in report.unread] == ["weights.bin"]
    run_films(filmed, tmp_path / "all", keep_media="original")
    report = audit(tmp_path / "all", [filmed / "eval"], progress=False)
    found = {b.name: (b.found, b.items_found, [e["uri"] for e in b.examples]) for b in report.benchmarks}
    assert found == {"clips": (1, 1, ["copy.mp4"]), "quiz": (1, 1, ["told.mp4"]), "set": (1, 2, ["told.mp4"])}
    assert report.looked_at["videos, kept original"] == 3
    run_films(filmed, tmp_path / "frames", keep_media="resized")
    report = audit(tmp_path / "frames", [filmed / "eval" / "clips"], progress=False)
    assert report.found == 0 and report.looked_at["videos, by their bytes only"] == 3


def test_a_build_ends_with_a_table_by_benchmark(
    filmed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    print_report(run_films(filmed, tmp_path / "out", decontaminate={"against": ["eval"]}))
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()]
    assert ["benchmark", "items", "too", "short", "left", "out"] in rows and ["set", "3", "1", "1"] in rows
    assert "evaluation file weights.bin: not a format that is read" in printed
    print_report(run_films(filmed, tmp_path / "plain"))
    assert "benchmark" not in capsys.readouterr().out


def test_an_evaluation_film_of_another_length_or_with_other_frames_is_not_met(tmp_path: Path) -> None:
    film(made(tmp_path / "eval" / "a.mp4"), 0, 96)
    index = read_evaluation([tmp_path / "eval"], Limits())
    look = video_look(tmp_path / "eval" / "a.mp4", Limits())
    assert video_match(look, index)
    assert not video_match(replace(look, seconds=look.seconds * 1.1), index)
    assert not video_match(replace(look, frames=~look.frames), index)
    flat = np.where(np.arange(8) == 0, look.frames ^ np.uint64(0x0FFF), 0).astype(np.uint64)
    black = replace(index, videos=index.videos.copy())
    black.videos["frames"][0, 1:] = 0  # seven flat frames are alike in all films, and the one that is not differs
    assert not video_match(replace(look, frames=flat), black)
