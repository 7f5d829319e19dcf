"""Text as a fit reads it: every line of a file, whatever its size, form and packing; and the texts of datasets."""

import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.errors import UserError
from pipelines.fit import text_sources
from pipelines.fit.exclude import Exclusions
from pipelines.fit.text_sources import TextDataConfig, blocks_of, open_set
from pipelines.ingest.media import MediaError
from tests.pipelines.fit.toy_texts import write_dataset

TEXTS = st.lists(st.text("aé你🙂 x"), max_size=12).map("\n".join)
NONE = Exclusions.of([])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_sources, "BLOCK_BYTES", 16)


def read(path: Path, form: str = "plain") -> str:
    """All lines, but for the ends of blocks."""
    return "\n".join(block.decode().removesuffix("\n") for block in blocks_of(path, form))


@settings(deadline=None)
@given(TEXTS)
def test_blocks_are_whole_lines_and_nothing_is_lost(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("blocks") / "a.txt"
    for data in (text.encode(), gzip.compress(text.encode()), b"\xef\xbb\xbf" + text.encode()):
        path.write_bytes(data or b"\n")
        blocks = [block.decode() for block in blocks_of(path)]  # each is UTF-8 by itself
        assert "".join(blocks) == text or (not text and "".join(blocks).strip() == "")
        assert all(len(block.encode()) <= 16 + 64 for block in blocks)


def test_line_ends_of_all_systems_are_one(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\rthree\n")
    assert read(tmp_path / "a.txt").split() == ["one", "two", "three"]
    (tmp_path / "b.txt").write_bytes("naïve\r\n你好".encode("utf-16"))
    assert read(tmp_path / "b.txt") == "naïve\n你好"


def test_a_file_is_read_up_to_where_it_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a good line, and one more\n" * 3 + b"\xff\xfe bad\n")
    found = []
    with pytest.raises(MediaError, match="not UTF-8 at byte 78"):
        found += blocks_of(tmp_path / "a.txt")
    whole = gzip.compress(np.random.default_rng(0).bytes(3000).hex().encode())
    (tmp_path / "b.gz").write_bytes(whole[:-900])
    with pytest.raises(MediaError, match="cannot decode"):
        list(blocks_of(tmp_path / "b.gz"))


def test_json_lines_give_their_field_and_count_what_has_none(tmp_path: Path) -> None:
    rows = [{"body": "one\r\ntwo"}, {"text": "no body"}, {"body": 7}, ["a list"], {"body": "你好"}]
    lines = [json.dumps(row) for row in rows] + ["{broken", "", '{"body": "\\ud800"}']
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    found: list[bytes] = []
    with pytest.raises(MediaError, match="5 of 7 lines are no object with a string 'body'"):
        for block in blocks_of(path, "jsonl", "body"):
            found += block.split(b"\n")
    assert [line.decode() for line in found if line] == ["one", "two", "你好"]


def test_pages_give_their_text(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<title>t</title><body><p>one<b>two</b></p><script>no</script></body>")
    assert {"one", "two"} <= set(read(tmp_path / "a.html", "html").split()) and "<p>" not in read(
        tmp_path / "a.html", "html"
    )


def config(*paths: str, **options: object) -> TextDataConfig:
    return TextDataConfig(name="toy", paths=list(paths), licence="CC0-1.0", **options)  # type: ignore[arg-type]


def test_folders_and_files_are_listed_once_without_those_that_are_excluded(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name, text in (("a.txt", "one"), ("sub/b.txt", "two"), ("c.md", "three")):
        (tmp_path / "in" / name).write_text(text)
    (tmp_path / "in" / "link.txt").symlink_to(tmp_path / "in" / "a.txt")
    (tmp_path / "eval.txt").write_text("two")
    found = open_set(config("in", include=["**/*.txt", "*"]), tmp_path, Exclusions.of([tmp_path / "eval.txt"]))
    assert [file.name for file in found.files] == ["in/a.txt", "in/c.md"]
    assert found.files[0].sha256 == hashlib.sha256(b"one").hexdigest()
    assert list(found.dropped) == ["in/sub/b.txt"] and "eval.txt" in found.dropped["in/sub/b.txt"]
    assert [file.name for file in open_set(config("in/c.md"), tmp_path, NONE).files] == ["c.md"]


@pytest.mark.parametrize(
    ("paths", "options", "words"),
    [
        (["nowhere"], {}, "no folder or file .*nowhere"),
        (["in"], {"include": ["*.txt"]}, r"no file in \['in'\]: none matches \['\*.txt'\]"),
        (["${MMDATA_NO_SUCH}/x"], {}, "MMDATA_NO_SUCH .*is not set"),
    ],
)
def test_a_set_without_files_says_why(tmp_path: Path, paths: list[str], options: dict[str, object], words: str) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match=words):
        open_set(config(*paths, **options), tmp_path, NONE)


def test_a_dataset_gives_the_texts_of_its_training_split(tmp_path: Path) -> None:
    texts = {"web": ["one\n  two", "\u2603 lost", "naïve", "你好", "five"], "talk": ["a", "b", "c", "d"]}
    write_dataset(tmp_path / "data", texts)
    (tmp_path / "eval.txt").write_text("five")
    found = open_set(config("data"), tmp_path, Exclusions.of([tmp_path / "eval.txt"]))
    assert len(found.files) == 4 and all(file.sha256 and file.size for file in found.files)
    read = "\n".join(block.decode() for file in found.files for block in file.blocks())
    assert read == "\n".join(text for each in texts.values() for text in each if text != "five").replace("five\n", "")
    one = open_set(config("data/web"), tmp_path, NONE)
    assert [file.name.split("/")[:2] for file in one.files] == [["web", "web"]] * 2
