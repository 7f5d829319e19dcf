"""Files that change between listing and reading, or while they are read, and streams that are no files."""

from __future__ import annotations

import json
import os
import random
import threading

import pytest
from fuzzing import LIMITS, check_found, ending_of, seeds
from toy_archives import tar, warc
from toy_media import png, read_folder, texts, write

from pipelines.ingest.document import Document, Dropped
from pipelines.ingest.sources import open_source

FORMATS = ("html", "text", "jsonl", "webdataset", "warc", "epub", "chat", "interleaved", "parquet", "hf", "pdf")


def listed(format: str, root):
    """A source of one whole file, listed already, and the file."""
    ending, wholes = ending_of(format), seeds(format)
    write(root, {f"a{ending}": wholes[-1] if format == "text" else wholes[0]})
    source = open_source("t", format, root, {}, LIMITS)
    return source, source.inputs(), root / f"a{ending}"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("change", ["gone", "empty", "folder", "pipe", "other"])
def test_what_became_of_a_file_after_listing_is_in_the_ledger(tmp_path, format, change):
    source, inputs, path = listed(format, tmp_path / "root")
    path.unlink()
    if change == "empty":
        path.touch()
    elif change == "folder":
        path.mkdir()
    elif change == "pipe":
        os.mkfifo(path)  # to open it would wait for ever
    elif change == "other":
        path.write_bytes(random.Random(0).randbytes(64))
    found = [one for input in inputs for one in source.read(input)]
    check_found(tmp_path / "root", found)
    assert found and all(isinstance(one, Dropped) for one in found)
    reasons = {"gone": {"missing file"}, "folder": {"missing file"}, "pipe": {"missing file"}, "empty": {"empty"}}
    assert {one.reason for one in found} <= reasons.get(change, {"cannot decode", "empty", "over limit"})


RECORDS = b"".join(json.dumps({"text": f"record {i} " + "x" * 900}).encode() + b"\n" for i in range(400))
GROWING = {
    "jsonl": ("a.jsonl", RECORDS),
    "webdataset": ("a.tar", tar(*((f"{i}.txt", b"words %d" % i + b"x" * 900) for i in range(400)))),
    "warc": ("a.warc", warc(*((f"http://a/{i}", "text/html", b"<p>" + b"x" * 900) for i in range(400)), gzip=False)),
}  # fmt: skip


@pytest.mark.parametrize("format", sorted(GROWING))
def test_a_file_cut_short_while_it_is_read_keeps_what_came_before(tmp_path, format):
    name, data = GROWING[format]
    source = open_source("t", format, write(tmp_path, {name: data}), {}, LIMITS)
    reading = source.read(source.inputs()[0])
    found = [next(reading)]
    os.truncate(tmp_path / name, len(data) // 2 + 100)
    found += list(reading)
    documents = [one for one in found if isinstance(one, Document)]
    assert 50 < len(documents) < 400
    assert isinstance(found[-1], Dropped) and found[-1].reason == "cannot decode"


def test_a_file_that_grows_while_it_is_read_ends_at_the_limit(tmp_path):
    path = write(tmp_path, {"a.txt": "x" * 1000}) / "a.txt"
    source, stop = open_source("t", "text", tmp_path, {}, LIMITS), threading.Event()

    def grow() -> None:
        with path.open("ab") as file:
            while not stop.is_set() and file.tell() < 4 * LIMITS.max_text_bytes:
                file.write(b"x" * (1 << 20))

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        found = list(source.read(source.inputs()[0]))
    finally:
        stop.set()
        writer.join()
    check_found(tmp_path, found)
    assert len(found) == 1


def test_pipes_and_sockets_are_ledgered_not_opened(tmp_path):
    os.mkfifo(tmp_path / "endless.txt")
    os.symlink("/dev/zero", tmp_path / "zero.txt")
    documents, _, left = read_folder("text", tmp_path, {"a.txt": "x", "zero-length.txt": b""})
    assert [texts(d) for d in documents] == [["x"]]
    assert [(d.uri, d.reason) for d in left] == [
        ("endless.txt", "outside the folder"), ("zero.txt", "outside the folder"),
    ]  # fmt: skip


def test_an_endless_gzip_stops_at_the_limit(tmp_path):
    import zlib

    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = packer.compress(b"0" * (100 << 20))  # the end never comes
    for format, name in (("text", "a.txt.gz"), ("jsonl", "a.jsonl.gz"), ("webdataset", "a.tgz"), ("warc", "a.warc.gz")):
        source = open_source("t", format, write(tmp_path / format, {name: data}), {}, LIMITS)
        found = [one for input in source.inputs() for one in source.read(input)]
        assert found and all(isinstance(one, Dropped) for one in found)


@pytest.mark.parametrize("name", ["picture.txt", "picture.html", "picture.jsonl", "picture.tar", "picture.parquet"])
def test_a_wrong_extension_is_in_the_ledger(tmp_path, name):
    formats = {"txt": "text", "html": "html", "jsonl": "jsonl", "tar": "webdataset", "parquet": "parquet"}
    documents, dropped, _ = read_folder(formats[name.split(".")[1]], tmp_path, {name: png()})
    assert not documents and {d.reason for d in dropped} == {"cannot decode"}
