"""A build with somebody else's text vocabulary: a tokenizer.json or a SentencePiece model named by its path."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from toy_build import load_mixed, make_media, toy_recipe, tree

import mmdata
from mmdata.errors import UserError
from mmdata.manifest import read_json
from mmdata.verify import verify
from pipelines.build.engine import build
from pipelines.build.report import BuildReport
from pipelines.look.page import write_page
from pipelines.look.tables import print_samples
from tests.tokenizer.toy_vocabularies import LONG, byte_level, spm, unigram
from tokenizer.codec import Codes, Shape
from tokenizer.codecs import CodecFile
from tokenizer.item import Item

MEDIA = {"image": "toy-image@1", "audio": "toy-audio@1"}
FILES = {"byte.json": byte_level, "lossy.json": unigram, "theirs.model": spm}


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("media")
    make_media(root)
    (root / "text" / "0" / "long.txt").write_text(LONG * 2, "utf-8")
    for name, data in FILES.items():
        (root / name).write_bytes(data())
    return root


def run(media: Path, out: Path, text: str, workers: int = 1, **changes: Any) -> BuildReport:
    recipe = toy_recipe(media, codecs={"text": text, **MEDIA}, **changes)
    return build(recipe, out, workers, progress=False, load=load_mixed)


@pytest.fixture(scope="module", params=FILES)
def built(request: pytest.FixtureRequest, media: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("built") / "out"
    run(media, out, request.param)
    return request.param, out


def texts_of(source: mmdata.Source) -> list[tuple[Item, str]]:
    """Each text item, with what its codes alone decode to."""
    found = []
    for split in source.splits.values():
        for item in (item for sample in split for item in sample.items if item.kind == "text"):
            assert item.codes is not None
            codes = Codes(item.codes, Shape(*item.codes.shape))
            found.append((item, source.load_codec(item.codec).decode(codes)))
    return found


def test_every_text_is_recoverable_and_kept_only_where_codes_lose_it(media: Path, built: tuple[str, Path]) -> None:
    name, out = built
    codec = CodecFile.of(media / name)
    found = [entry for source in mmdata.open(out).values() for entry in texts_of(source)]
    assert {item.codec for item, _ in found} == {codec.codec}
    exact = [item.text is None for item, _ in found]
    assert all(exact) if name == "byte.json" else any(exact) != all(exact)
    assert all(item.text is None or item.text != decoded for item, decoded in found)
    whole = sorted(decoded if item.text is None else item.text for item, decoded in found)
    assert LONG * 2 in whole and "picture 3" in whole and len(whole) == 31 + 13 + 3


def test_sentence_ends_of_long_texts_are_kept(built: tuple[str, Path]) -> None:
    source = mmdata.open(built[1])["text"]
    (long,) = [item for item, _ in texts_of(source) if len(item.codes) > 256 and item.uri.endswith("long.txt")]  # type: ignore[arg-type]
    assert len(long.sentence_ends) > 80


def test_the_codec_lies_in_each_source_that_uses_it(media: Path, built: tuple[str, Path], tmp_path: Path) -> None:
    name, out = built
    file = CodecFile.of(media / name)
    place = f"codecs/{file.codec}{Path(name).suffix}"
    for source in ("text", "pictures", "speech"):
        (listed,) = read_json(out / source)["codec_files"]
        assert listed == {
            "codec": file.codec, "file": place, "bytes": (media / name).stat().st_size, "sha256": file.sha256,
        }  # fmt: skip
        assert (out / source / place).read_bytes() == (media / name).read_bytes()
    shutil.copytree(out / "text", tmp_path / "alone")  # the folder of one source is enough
    assert texts_of(mmdata.open(tmp_path / "alone")["text"])
    assert verify(out).ok


def test_two_workers_write_the_same_bytes(media: Path, built: tuple[str, Path], tmp_path: Path) -> None:
    name, out = built
    run(media, tmp_path / "out", name, workers=2)
    assert tree(tmp_path / "out") == tree(out)
    assert run(media, tmp_path / "out", name).units_run == 0


def test_a_moved_vocabulary_is_the_same_codec(media: Path, built: tuple[str, Path], tmp_path: Path) -> None:
    name, out = built
    (tmp_path / "deep" / "er").mkdir(parents=True)
    shutil.copy(media / name, tmp_path / "deep" / "er" / name)
    run(media, tmp_path / "out", str(tmp_path / "deep" / "er" / name))
    assert tree(tmp_path / "out") == tree(out)
    copy = next((out / "text" / "codecs").iterdir())  # and so is the copy in a dataset
    run(media, tmp_path / "again", str(copy))
    assert tree(tmp_path / "again") == tree(out)


def test_a_dataset_of_shipped_codecs_lists_no_files(media: Path, tmp_path: Path) -> None:
    run(media, tmp_path / "out", "text-spm16k@1")
    manifest = read_json(tmp_path / "out" / "text")
    assert "codec_files" not in manifest and not any("specials" in codec for codec in manifest["codecs"])
    assert not list((tmp_path / "out").rglob("codecs"))


def test_specials_are_in_the_manifest(media: Path, built: tuple[str, Path]) -> None:
    codec = CodecFile.of(media / built[0]).load()
    (listed,) = [c for c in read_json(built[1] / "text")["codecs"] if c["kind"] == "text"]
    assert listed["specials"] == [list(pair) for pair in codec.specials]  # type: ignore[attr-defined]
    assert listed["specials"]
    assert mmdata.open(built[1])["text"].codecs[0].specials == codec.specials  # type: ignore[attr-defined]


@pytest.mark.parametrize("harm", ["change", "remove"])
def test_verify_finds_a_damaged_codec(built: tuple[str, Path], tmp_path: Path, harm: str) -> None:
    shutil.copytree(built[1], tmp_path / "out")
    (copy,) = (tmp_path / "out" / "text" / "codecs").iterdir()
    if harm == "change":
        copy.write_bytes(copy.read_bytes()[:-1] + b" ")
    else:
        copy.unlink()
    for full in (True, False):
        report = verify(tmp_path / "out", full=full)
        assert [where for where, _ in report.problems] == [f"text/codecs/{copy.name}"]
    with pytest.raises(UserError, match=r"has changed|check the path"):
        mmdata.open(tmp_path / "out")["text"].load_codec(copy.stem)


def test_a_source_gives_only_its_own_codecs(built: tuple[str, Path], tmp_path: Path) -> None:
    source = mmdata.open(built[1])["text"]
    with pytest.raises(UserError, match="has no codec 'text-spm16k@1'; it has"):
        source.load_codec("text-spm16k@1")
    shutil.copytree(built[1] / "text", tmp_path / "text")
    manifest = read_json(tmp_path / "text")
    manifest["codecs"][0]["fingerprint"] = "0" * 64
    (tmp_path / "text" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="is not the one that source text was made with"):
        mmdata.open(tmp_path / "text")["text"].load_codec(manifest["codecs"][0]["name"])


def test_it_can_be_looked_at(built: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = write_page(built[1] / "text", tmp_path / "page.html", 40).read_text("utf-8")
    assert "This is text 5. It has two sentences." in re.sub("<[^>]+>", "", page)
    print_samples(built[1] / "text", 40)
    assert "'This is text 5. It has two sentences." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nothing.json", "codecs.text: cannot read the text codec .*check the path"),
        ("text/0/000.json", "no tokenizer.json"),
        ("junk.model", "no SentencePiece model"),
        ("${NO_SUCH_FOLDER}/a.json", "NO_SUCH_FOLDER"),
    ],
)
def test_a_vocabulary_that_cannot_be_used_is_told_before_the_work(
    media: Path, tmp_path: Path, text: str, words: str
) -> None:
    (media / "text/0/000.json").write_text("{}")
    (media / "junk.model").write_text("no model")
    with pytest.raises(UserError, match=words) as error:
        run(media, tmp_path / "out", text)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()
    (media / "text/0/000.json").unlink()
