"""Sources whose path is a file or a glob pattern: what lies beside it can be referred to, and is no input."""

from __future__ import annotations

import json

import pytest
from toy_media import png, read_all, sine, texts, wav, write

from pipelines.ingest.sources import open_source

SRT = "1\n00:00:00,000 --> 00:00:01,000\nwords\n"


def read(root, path, format, files, **options):
    source = open_source("t", format, write(root, files) / path, options)
    documents, dropped = read_all(source)
    return documents, [(d.uri, d.reason) for d in [*dropped, *source.leftovers()]]


@pytest.mark.parametrize("path", ["x/a.{}", "x/*.{}", "**/a.{}"])
@pytest.mark.parametrize(
    ("format", "ending", "record"),
    [
        ("html", "html", '<p>words<img src="i/1.png">'),
        ("jsonl", "jsonl", json.dumps({"text": "words", "image": "i/1.png"})),
        ("chat", "json", json.dumps([{"image": "i/1.png", "conversations": [{"from": "user", "value": "words"}]}])),
        ("interleaved", "jsonl", json.dumps({"texts": ["words", None], "images": [None, "i/1.png"]})),
    ],
)
def test_what_lies_beside_a_path_can_be_referred_to(tmp_path, path, format, ending, record):
    files = {f"x/a.{ending}": record, "x/i/1.png": png(), "x/i/2.png": png(), "x/other.bin": b"1"}
    [document], lines = read(tmp_path, path.format(ending), format, files)
    assert sorted(p.kind for p in document.parts) == ["image", "text"] and not lines


def test_captions_go_with_the_images_of_a_pattern(tmp_path):
    files = {"p/d/a.jpg": png(), "p/d/a.txt": "an A", "p/d/a.fr.ogg": b"x", "p/b.jpg": png(), "p/c.txt": "no image"}
    documents, lines = read(tmp_path, "p/**/*.jpg", "captions", files)
    assert [d.uri for d in documents] == ["b.jpg", "d/a.jpg"] and not lines
    assert [p.kind for p in documents[1].parts] == ["text", "image", "audio"] and texts(documents[1]) == ["an A"]
    documents, lines = read(tmp_path, "p/d/a.jpg", "captions", {})
    assert [texts(d) for d in documents] == [["an A"]] and not lines


def test_subtitles_go_with_the_videos_of_a_pattern(tmp_path):
    [document], lines = read(tmp_path, "*.mp4", "video", {"v.mp4": b"no video", "v.cs.srt": SRT})
    assert texts(document) == ["words"] and not lines


def test_transcripts_go_with_the_sounds_of_a_pattern_and_sounds_with_the_transcripts(tmp_path):
    table = "path\ttext\na.wav\tone\nb.wav\ttwo\ngone.wav\tthree\n"
    files = {"s/t.tsv": table, "s/a.wav": wav(sine()), "s/b.wav": wav(sine()), "s/c.wav": wav(sine()), "s/c.txt": "c"}
    documents, lines = read(tmp_path, "s/[ac].wav", "speech", files, transcripts="t.tsv")
    assert [(d.uri, texts(d)) for d in documents] == [("a.wav", ["one"]), ("c.wav", ["c"])] and not lines
    documents, lines = read(tmp_path, "s/t.tsv", "speech", {}, transcripts="t.tsv")
    assert [(d.uri, texts(d)) for d in documents] == [("a.wav", ["one"]), ("b.wav", ["two"])]
    assert lines == [("t.tsv#L4", "missing file")]


def test_what_the_recipe_excludes_is_not_called_missing(tmp_path):
    files = {"x/a.html": '<p>words<img src="1.png"><img src="2.png"><img src="../b.png">', "x/1.png": png()}
    documents, lines = read(tmp_path, "x/*.html", "html", files, exclude=["*.png"])
    assert [texts(d) for d in documents] == [["words"]]
    assert lines == [
        ("a.html", "excluded by the recipe"), ("a.html", "missing file"), ("a.html", "outside the folder"),
    ]  # fmt: skip


def test_a_file_gone_since_the_listing_is_a_ledger_line(tmp_path):
    source = open_source("t", "text", write(tmp_path, {"a.txt": "x", "b.txt": "y"}))
    assert source.folder.files == ("a.txt", "b.txt")
    (tmp_path / "a.txt").unlink()
    documents, dropped = read_all(source)
    assert [d.uri for d in documents] == ["b.txt"] and [(d.uri, d.reason) for d in dropped] == [
        ("a.txt", "missing file")
    ]
