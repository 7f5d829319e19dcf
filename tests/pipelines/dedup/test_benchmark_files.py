"""What is read of evaluation files: cells, lines, rows; names of benchmarks; and what is not read is said."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.build.worker import Call
from pipelines.dedup.evaluation import Index, read_evaluation
from pipelines.dedup.matches import text_matches
from pipelines.ingest.media import Limits
from tests.pipelines.dedup.test_dedup_build import film, made, prose, write
from tests.pipelines.fit.test_exclude import draw as draw_picture

SHORT = "Which river runs through the oldest town here"  # 8 words
OTHER = "How many bridges were built over it last year"  # 9 words


def read(*paths: Path, call: Call | None = None) -> Index:
    return read_evaluation(paths, Limits(), call)


def met(text: str, index: Index) -> list[str]:
    return [match.item.uri for match in text_matches(text, index)]


@pytest.mark.parametrize("comma", [",", "\t"])
def test_each_cell_of_a_table_is_told_by_itself(tmp_path: Path, comma: str) -> None:
    rows = [f"question{comma}choices", f"{SHORT}{comma}one two three four five six", f"{OTHER}{comma}seven eight"]
    write(tmp_path / f"table.{'csv' if comma == ',' else 'tsv'}", "\n".join(rows))
    index = read(tmp_path)
    name = index.items[0].uri.partition("#")[0]
    assert met(f"before {SHORT.upper()} behind", index) == [f"{name}#L2"]
    assert met(f"before {OTHER} behind", index) == [f"{name}#L3"]


def test_quoted_cells_hold_commas_and_ends_of_lines(tmp_path: Path) -> None:
    write(tmp_path / "quiz.csv", f'n,question\r\n1,"{SHORT},\r\n{prose(3, 200_000)}"\r\n2,{OTHER}\r\n')
    index = read(tmp_path)
    assert met(f"a {SHORT} b", index) == [] and met(f"{SHORT} {' '.join(prose(3).split()[:5])}", index) == [
        "quiz.csv#L2"
    ]
    assert met(OTHER, index) == ["quiz.csv#L4"]


def test_a_quote_that_opens_a_cell_between_tabs_takes_in_no_other(tmp_path: Path) -> None:
    write(tmp_path / "quiz.tsv", f'1\t"{SHORT}\n2\t{OTHER}\n')
    assert met(SHORT, read(tmp_path)) == ["quiz.tsv#L1"] and met(OTHER, read(tmp_path)) == ["quiz.tsv#L2"]


def test_short_lines_of_a_text_file_are_told_beside_the_whole(tmp_path: Path) -> None:
    write(tmp_path / "all.txt", f"{SHORT}\nToo short\n{OTHER}\n{prose(5, 40)}\n")
    index = read(tmp_path)
    assert [item.uri for item in index.items] == ["all.txt"]
    assert all(met(f"before {words} behind", index) == ["all.txt"] for words in (SHORT, OTHER, prose(5, 40)))
    assert met(" ".join(prose(5, 40).split()[:12]), index) == []  # of a long line 13 are needed, as ever


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85"])
def test_ends_of_lines_inside_a_json_string_end_no_record(tmp_path: Path, end: str) -> None:
    line = json.dumps({"question": f"{SHORT}{end}{OTHER}"}, ensure_ascii=False)
    write(tmp_path / "quiz.jsonl", f"{line}\r\n{json.dumps({'question': prose(1)})}\n")
    index = read(tmp_path)
    assert [item.uri for item in index.items] == ["quiz.jsonl#L1", "quiz.jsonl#L2"] and len(met(prose(1), index)) == 1


def test_rows_of_parquet_are_records(tmp_path: Path) -> None:
    rows = [{"question": SHORT, "choices": ["a", OTHER]}, {"question": prose(1), "choices": []}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "quiz.parquet")
    index = read(tmp_path)
    assert {item.benchmark for item in index.items} == {"quiz"}
    assert met(OTHER, index) == ["quiz.parquet#0"] and met(prose(1), index) == ["quiz.parquet#1"]


def test_files_of_one_name_are_benchmarks_by_their_folders(tmp_path: Path) -> None:
    for i, name in enumerate(["mmlu/test.jsonl", "arc/test.jsonl", "arc/test.csv", "arc/own.jsonl"]):
        write(tmp_path / "eval" / name, json.dumps({"question": prose(i)}) + "\n")
    names = {item.uri.partition("#")[0]: item.benchmark for item in read(tmp_path / "eval").items}
    assert names == {
        "mmlu/test.jsonl": "mmlu/test",
        "arc/test.jsonl": "arc/test",
        "arc/test.csv": "arc/test",
        "arc/own.jsonl": "own",
    }
    two = read(tmp_path / "eval" / "mmlu", tmp_path / "eval" / "arc" / "test.jsonl")
    assert [item.benchmark for item in two.items] == ["mmlu/test", "arc/test"]
    write(tmp_path / "eval" / "mmlu" / "dev" / "test.jsonl", json.dumps({"question": prose(9)}))
    write(tmp_path / "eval" / "arc" / "dev" / "test.jsonl", json.dumps({"question": prose(10)}))
    assert {"mmlu/dev/test", "arc/dev/test"} < {item.benchmark for item in read(tmp_path / "eval").items}


def test_what_is_not_compared_is_said(tmp_path: Path) -> None:
    write(tmp_path / "quiz.jsonl", json.dumps({"question": SHORT}))
    write(tmp_path / "weights.bin", "words")
    write(tmp_path / "sets" / "packed.zip", "words")
    write(tmp_path / "broken.png", "no picture")
    unread = dict(read(tmp_path).unread)
    assert set(unread) == {"weights.bin", "sets/packed.zip", "broken.png"}
    assert unread["weights.bin"].startswith("not a format that is read (JSONL,")
    assert unread["broken.png"].startswith("told by its bytes only: ")


def test_a_file_that_kills_its_worker_is_left_out_by_the_name_it_was_blamed_by(tmp_path: Path) -> None:
    write(tmp_path / "eval" / "quiz.jsonl", json.dumps({"question": SHORT}))
    write(tmp_path / "eval" / "own.jsonl", json.dumps({"question": OTHER}))
    draw_picture(made(tmp_path / "eval" / "looks" / "a.png"), 0)
    film(made(tmp_path / "eval" / "films" / "a.mp4"), 0, 96)
    steps: list[str] = []
    whole = read(tmp_path / "eval", call=Call(None, at=steps.append))
    assert len(steps) == 4 and len(whole.looks) == len(whole.videos) == 1 and not whole.unread
    for step, name in zip(steps, ["films/a.mp4", "looks/a.png", "own.jsonl", "quiz.jsonl"], strict=True):
        again: list[str] = []
        index = read(tmp_path / "eval", call=Call(None, {step: "SIGKILL"}, at=again.append))
        ((said, why),) = index.unread
        assert said == name and "SIGKILL" in why and step not in again
        assert len(index.looks) == (name != "looks/a.png") and len(index.videos) == (name != "films/a.mp4")
        assert len(index.sha256) == 2  # media are still told by their bytes
        assert met(SHORT, index) == (["quiz.jsonl#L1"] if name != "quiz.jsonl" else [])
