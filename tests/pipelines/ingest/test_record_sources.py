"""Conversations and interleaved lists: JSON records whose media are references."""

from __future__ import annotations

import gzip
import hashlib
import json

import pytest
from toy_archives import parquet
from toy_media import png, read_all, read_folder, texts, write

from pipelines.ingest import records
from pipelines.ingest.media import Limits, MediaError
from pipelines.ingest.records import json_records
from pipelines.ingest.reference import lost_by_host
from pipelines.ingest.sources import open_source

TALK = {
    "id": "7",
    "image": "i/a.png",
    "conversations": [
        {"from": "system", "value": "Be kind."},
        {"from": "human", "value": "<image>\nWhat is this?"},
        {"from": "gpt", "value": "A cat."},
    ],
}


def chat(tmp_path, *talks, form=json.dumps, **options):
    return read_folder(
        "chat", tmp_path, {"t.json": form(list(talks)), "i/a.png": png(), "i/b.png": png(3, 3)}, **options
    )


def test_turns_have_roles_and_media_stand_at_their_marks(tmp_path):
    [document], dropped, left = chat(tmp_path, TALK)
    assert [(p.kind, p.role, p.text) for p in document.parts] == [
        ("text", "system", "Be kind."), ("image", "user", None), ("text", "user", "What is this?"),
        ("text", "assistant", "A cat."),
    ]  # fmt: skip
    assert document.parts[1].path == tmp_path / "i/a.png" and not dropped
    assert [(d.uri, d.reason) for d in left] == [("i/b.png", "nothing refers to it")]


def test_lines_and_other_names_are_understood(tmp_path):
    talk = {
        "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}],
        "images": ["i/b.png"],
    }
    [document], _, _ = read_folder("chat", tmp_path, {"t.jsonl": json.dumps(talk) + "\n", "i/b.png": png()})
    assert [(p.kind, p.role) for p in document.parts] == [("image", "user"), ("text", "user"), ("text", "assistant")]


def test_ids_follow_the_record(tmp_path):
    before, _, _ = chat(tmp_path, TALK)
    changed = {**TALK, "conversations": [{"from": "human", "value": "else"}]}
    after, _, _ = chat(tmp_path, {**changed, "id": "6"}, changed)
    assert before[0].id == after[1].id


def test_broken_turns_marks_and_media_cost_themselves(tmp_path):
    turns = [
        {"from": "human", "value": "<image><image>\nx"},
        {"from": "robot", "value": "y"},
        "z",
        {"from": "gpt", "value": 3},
    ]
    [document], dropped, _ = chat(tmp_path, {"image": "../../etc/passwd", "conversations": turns}, {"x": 1}, [1])
    assert texts(document) == ["x"]
    rest = ["empty", "missing file", "outside the folder"]
    assert sorted(d.reason for d in dropped) == ["cannot decode"] * 4 + rest


def test_a_list_streams_and_keeps_what_came_before_a_break(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_AT_ONCE", 100)
    talks = [{**TALK, "id": str(i), "note": "é" * i} for i in range(60)]
    whole = json.dumps(talks, ensure_ascii=False, indent=1)
    assert len(chat(tmp_path, *talks, form=lambda t: whole)[0]) == 60
    documents, dropped, _ = chat(tmp_path, form=lambda t: whole[: len(whole) // 2])
    assert 10 < len(documents) < 60 and dropped[-1].reason == "cannot decode"
    packed = gzip.compress(whole.encode())
    assert len(read_folder("chat", tmp_path / "gz", {"t.json.gz": packed, "i/a.png": png()})[0]) == 60


@pytest.mark.parametrize(
    ("text", "values", "broken"),
    [
        ("[]", 0, 0), ("[1, {}]", 1, 1), ('[{"a": 1}', 1, 1), ("[", 0, 1), ('\ufeff[{"a": 2}]', 1, 0),
        ("[{},,{}]", 2, 0),         ("[" * 100_000, 0, 1),
        ('{"a": 1}\n{', 1, 1), ('[{"a": "\\ud800"}, {}]', 1, 1), ("[12", 0, 2), ("[{} x]", 1, 1),
    ],
)  # fmt: skip
def test_records_of_broken_files(tmp_path, text, values, broken):
    found = list(json_records(write(tmp_path, {"a.json": text}) / "a.json", Limits()))
    assert len([f for f in found if isinstance(f, dict)]) == values
    assert len([f for f in found if isinstance(f, MediaError)]) == broken


def test_a_record_over_the_limit_ends_a_list(tmp_path):
    write(tmp_path, {"t.json": json.dumps([TALK, {**TALK, "note": "x" * 200_000}])})
    documents, dropped = read_all(open_source("t", "chat", tmp_path, {}, Limits(max_bytes=100_000 * 16)))
    assert len(documents) == 1 and dropped[-1].reason == "over limit"


PAGE = {
    "texts": ["before", None, "after"],
    "images": [None, "https://a.org/i/cat.png?w=1", None],
    "general_metadata": '{"url": "https://a.org/page", "language": "fr"}',
}


def test_parallel_lists_keep_the_order_of_the_page(tmp_path):
    files = {"p.jsonl": json.dumps(PAGE), "mirror/a.org/i/cat.png": png()}
    [document], dropped, left = read_folder("interleaved", tmp_path, files, mirror="mirror")
    assert [(p.kind, p.text) for p in document.parts] == [("text", "before"), ("image", None), ("text", "after")]
    assert (document.language, document.metadata) == ("fr", {"url": "https://a.org/page"}) and not dropped and not left


def test_link_rot_is_counted_by_host(tmp_path):
    images = ["https://a.org/1.png", "\thttps://a.org/2.png", " //b.net/3.png", "http://[broken/4.png", "gone.png"]
    page = {"texts": [None] * 5 + ["x"], "images": [*images, None]}
    [document], dropped, _ = read_folder("interleaved", tmp_path, {"p.jsonl": json.dumps(page)}, mirror="mirror")
    assert texts(document) == ["x"] and {d.reason for d in dropped} == {"missing file"}
    assert lost_by_host(dropped) == {"a.org": 2, "b.net": 1}


def test_a_digest_beside_each_image_is_checked(tmp_path):
    good = hashlib.sha256(png()).hexdigest()
    page = {"texts": ["x", None, None], "images": [None, "a.png", "a.png"], "sha256": [None, good, "0" * 64]}
    [document], dropped, _ = read_folder("interleaved", tmp_path, {"p.json": json.dumps([page]), "a.png": png()})
    assert [p.kind for p in document.parts] == ["text", "image"] and [d.reason for d in dropped] == ["another sha256"]


def test_lists_in_parquet_are_read_too(tmp_path):
    table = parquet({"texts": [["a", None]], "images": [[None, "i.png"]]})
    [document], _, left = read_folder("interleaved", tmp_path, {"p.parquet": table, "i.png": png()})
    assert [p.kind for p in document.parts] == ["text", "image"] and not left


def test_mmc4_images_go_before_their_texts(tmp_path):
    infos = [
        {"image_name": "b.png", "raw_url": "https://x/b.png", "matched_text_index": 1},
        {"image_name": "a.png", "matched_text_index": 0},
        {"raw_url": "https://x/c.png", "matched_text_index": 99},
    ]
    record = {"url": "https://x/", "text_list": ["one", "two"], "image_info": infos}
    files = {"p.jsonl": json.dumps(record), "a.png": png(), "b.png": png()}
    [document], dropped, _ = read_folder("interleaved", tmp_path, files)
    assert [p.text or p.uri for p in document.parts] == ["a.png", "one", "b.png", "two"]
    assert [d.uri for d in dropped] == ["https://x/c.png"]


def test_lists_that_are_not_parallel_are_refused(tmp_path):
    pages = [
        {"texts": ["a"], "images": []},
        {"texts": 3},
        {"texts": [{}], "images": [None]},
        PAGE,
        {"text_list": [None]},
    ]
    documents, dropped, _ = read_folder("interleaved", tmp_path, {"p.json": json.dumps(pages)})
    assert len(documents) == 1
    assert [d.reason for d in dropped if d.uri.startswith("p.json")] == ["cannot decode", "empty"] + [
        "cannot decode"
    ] * 2


DEEP = b'{"texts": ["x"], "images": [null], "messages": [{"role": "user", "content": "x"}], "x": %s1%s}'


@pytest.mark.parametrize("format", ["chat", "interleaved"])
@pytest.mark.parametrize("lead", [b"\n", b"[\n"])
def test_records_may_be_nested_as_deep_as_can_just_be_read(tmp_path, format, lead):
    for depth in range(900, 1000):
        data = lead + DEEP % (b"[" * depth, b"]" * depth) + (b"]" if lead == b"[\n" else b"")
        documents, dropped, _ = read_folder(format, tmp_path, {"a.json": data})
        assert len(documents) + len(dropped) == 1


def test_facts_in_a_string_that_cannot_be_stored_are_left_out(tmp_path):
    page = {"texts": ["x"], "images": [None], "general_metadata": json.dumps({"licence": "\ud800", "url": "u"})}
    [document], _, _ = read_folder("interleaved", tmp_path, {"p.json": json.dumps([page])})
    assert (document.licence, document.metadata) == ("", {})
