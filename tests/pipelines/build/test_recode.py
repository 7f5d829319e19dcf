"""`mmdata recode`: the dataset that a build with another text codec gives, without its sources."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_build import load_mixed, make_media, toy_recipe, tree

import mmdata
from mmdata.errors import RunError, UserError
from mmdata.manifest import finish_source, read_json, write_dataset_manifest
from mmdata.shards import write_shard
from mmdata.verify import verify
from pipelines.build.engine import build
from pipelines.build.recode import RecodeReport, print_recoded, recode
from tests.mmdata.toy_source import assert_same, sample
from tests.tokenizer.toy_vocabularies import LONG, byte_level, spm, unigram
from tokenizer.codec import CodecSpec, Codes, Shape, spec_of
from tokenizer.codecs import CodecFile, load_codec
from tokenizer.item import Item
from tokenizer.layout import load_layout

MEDIA = {"image": "toy-image@1", "audio": "toy-audio@1"}
FILES = {"byte.json": byte_level, "lossy.json": unigram, "theirs.model": spm}
SPM = "text-spm16k@1"


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("media")
    make_media(root)
    (root / "text" / "0" / "long.txt").write_text(LONG * 2, "utf-8")
    for name, data in FILES.items():
        (root / name).write_bytes(data())
    return root


def built(media: Path, out: Path, text: str) -> Path:
    recipe = toy_recipe(media, codecs={"text": text, **MEDIA}, keep_media="original")
    build(recipe, out, 1, progress=False, load=load_mixed)
    return out


@pytest.fixture(scope="module")
def whole(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(media, tmp_path_factory.mktemp("whole") / "out", SPM)


@pytest.fixture(scope="module", params=FILES)
def pair(
    request: pytest.FixtureRequest, media: Path, whole: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """(a vocabulary, the dataset recoded for it)."""
    out = tmp_path_factory.mktemp("recoded") / "out"
    run(whole, media / request.param, out)
    return media / request.param, out


def run(folder: Path, text: object, out: Path, workers: int = 1) -> RecodeReport:
    return recode(folder, str(text), out, workers, progress=False)


def test_it_is_the_dataset_of_a_build_with_that_codec(media: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Shards, catalogs, manifests, ledger, kept media and the codec's file, byte for byte."""
    assert tree(pair[1]) == tree(built(media, tmp_path / "out", pair[0].name))
    assert verify(pair[1]).ok


def test_there_and_back_is_the_same_dataset(whole: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    run(pair[1], SPM, tmp_path / "back")
    assert tree(tmp_path / "back") == tree(whole)


def test_one_may_recode_from_theirs_to_theirs(media: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    other = media / ("theirs.model" if pair[0].suffix == ".json" else "byte.json")
    run(pair[1], other, tmp_path / "other")
    assert [p.name for p in (tmp_path / "other/text/codecs").iterdir()] == [CodecFile.of(other).codec + other.suffix]
    run(tmp_path / "other", next((pair[1] / "text/codecs").iterdir()), tmp_path / "back")
    assert tree(tmp_path / "back") == tree(pair[1])


def test_two_workers_write_the_same_bytes(whole: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    run(whole, pair[0], tmp_path / "out", workers=2)
    assert tree(tmp_path / "out") == tree(pair[1])
    assert run(whole, pair[0], tmp_path / "out").units_run == 0


def test_the_report_counts_texts_and_codes(whole: Path, media: Path, tmp_path: Path) -> None:
    report = run(whole, media / "lossy.json", tmp_path / "out")
    by_name = {s.name: s for s in report.sources}
    assert [(s.samples, s.texts) for s in by_name.values()] == [(31, 31), (13, 13), (3, 3)]
    assert by_name["text"].kept == 31 and by_name["speech"].kept < 3
    assert by_name["text"].codes > by_name["text"].codes_before > 2000
    assert [s.fingerprint for s in report.sources] == [s.fingerprint for s in mmdata.open(tmp_path / "out").values()]
    assert json.loads((tmp_path / "out/report.json").read_text()) == json.loads(json.dumps(report.to_json()))
    print_recoded(report)


def test_media_are_shared_not_copied(whole: Path, pair: tuple[Path, Path]) -> None:
    shards = sorted((whole / "pictures" / "media").iterdir())
    assert shards
    for path in shards:
        assert path.samefile(pair[1] / "pictures" / "media" / path.name)


# --- samples with every field


def written(folder: Path, name: str, samples: list[mmdata.Sample], codec: str = SPM) -> CodecSpec:
    """A dataset of one source, of these samples, whose texts are in the codes of a shipped codec."""
    spec = spec_of(load_codec(codec))
    others = [CodecSpec("toy-image@2", "image", (70_000,), "b" * 64, False)]
    others.append(CodecSpec("toy-audio@1", "audio", (16, 256), "c" * 64, False, 50.0))
    shard = write_shard(folder / name, name, "train", 0, 1, samples)
    finish_source(folder / name, name, [shard], [spec, *others], {"toy": True})
    write_dataset_manifest(folder, [name])
    return spec


def with_text(item: Item, text: str, **fields: Any) -> Item:
    return replace(item, codec=SPM, codes=load_codec(SPM).encode(text).codes, text=None, **fields)


def test_all_but_the_codes_of_texts_stays(media: Path, tmp_path: Path) -> None:
    texts = ["A red Cat", LONG, ""]
    samples = []
    for seed in range(4):
        given = sample(seed)
        items = [
            with_text(item, texts[(seed + n) % 3]) if item.kind == "text" else item
            for n, item in enumerate(given.items)
        ]
        samples.append(replace(given, items=tuple(items)))
    written(tmp_path / "in", "toy", samples)
    run(tmp_path / "in", media / "lossy.json", tmp_path / "out")
    codec = CodecFile.of(media / "lossy.json")
    after = mmdata.open(tmp_path / "out")["toy"].train
    for old, new in zip(samples, after, strict=True):
        same = []
        for a, b in zip(old.items, new.items, strict=True):
            if a.kind == "text":
                assert b.codec == codec.codec and b.codes is not None
                np.testing.assert_array_equal(b.codes, codec.load().encode(text_of(a)).codes)
                assert text_of(b, codec.load()) == text_of(a)
                assert (len(b.sentence_ends) > 40) == (text_of(a) == LONG)
                b = replace(b, codec=a.codec, codes=a.codes, text=a.text, sentence_ends=a.sentence_ends)
            same.append(b)
        assert_same(old, replace(new, items=tuple(same)))


def text_of(item: Item, codec: Any = None) -> str:
    assert item.codes is not None
    if item.text is not None:
        return item.text
    return (codec or load_codec(SPM)).decode(Codes(item.codes, Shape(*item.codes.shape)))


@pytest.mark.parametrize(
    ("text", "count", "kept"),
    [
        ("one two three", 3, True),  # words, be they tokens too
        ("unbelievable words", 2, True),
        ("unbelievable words", -1, False),  # one a token: of no use to other tokens
        ("unbelievable words", 1, True),  # a unit that is neither: no token's
        ("", 0, True),
    ],
)
def test_times_of_words_stay_and_times_of_tokens_go(
    media: Path, tmp_path: Path, text: str, count: int, kept: bool
) -> None:
    tokens = len(load_codec(SPM).encode(text).codes)
    count = tokens if count < 0 else count
    times = np.arange(2 * count, dtype=np.float32).reshape(-1, 2)
    item = with_text(Item("text", SPM, None), text, unit_times=times, times=np.arange(tokens, dtype=np.float32))
    written(tmp_path / "in", "toy", [replace(sample(1), items=(item,))])
    run(tmp_path / "in", media / "byte.json", tmp_path / "out")
    (found,) = mmdata.open(tmp_path / "out")["toy"].train[0].items
    np.testing.assert_array_equal(found.unit_times, times if kept else times[:0])
    assert len(found.times) == 0


def test_a_mixed_dataset_is_brought_to_one_vocabulary(whole: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Sources of two text codecs: the layout refuses them and says which command to run; that command helps."""
    both = tmp_path / "both"
    shutil.copytree(whole / "text", both / "text")
    shutil.copytree(pair[1] / "pictures", both / "pictures")
    shutil.copytree(whole / "speech", both / "speech")
    write_dataset_manifest(both, ["text", "pictures", "speech"])
    dataset = mmdata.open(both)
    theirs = next(c.name for c in dataset["pictures"].codecs if c.kind == "text")
    with pytest.raises(ValueError, match=r"run `mmdata recode DIR --text \S+ --out DIR2`"):
        load_layout("mmdata").bind([codec for source in dataset.values() for codec in source.codecs])
    run(both, theirs, tmp_path / "out")  # a name that the dataset has a file of
    out = mmdata.open(tmp_path / "out")
    assert tree(tmp_path / "out" / "pictures") == tree(pair[1] / "pictures")  # nothing to do there
    assert tree(tmp_path / "out" / "text") == tree(pair[1] / "text")
    load_layout("mmdata").bind([codec for source in out.values() for codec in source.codecs])
    run(both, SPM.partition("@")[0], tmp_path / "back")
    assert tree(tmp_path / "back" / "pictures") == tree(whole / "pictures")


# --- faults

# Kills itself and its workers after the first unit of a stage, or once the first source is in place.
KILLED = """
import os, signal, sys
from pipelines.build import progress, recode, write

stage, seen = sys.argv[4], []
begin, publish = progress.Progress.begin, write.publish
progress.Progress.begin = lambda self, name, total: (seen.append(name), begin(self, name, total))[1]
progress.Bar.advance = lambda self: seen[-1] == stage and os.killpg(0, signal.SIGKILL)
write.publish = lambda *args: (publish(*args), stage == "publish" and os.killpg(0, signal.SIGKILL))
recode.recode(*sys.argv[1:4], 1, progress=False)
"""


@pytest.mark.parametrize("stage", ["recode", "finish", "publish"])
def test_a_killed_recode_goes_on_to_the_same_bytes(
    whole: Path, pair: tuple[Path, Path], tmp_path: Path, stage: str
) -> None:
    out = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED, *map(str, (whole, pair[0], out)), stage]
    assert subprocess.run(command, env=environment, start_new_session=True).returncode == -signal.SIGKILL
    with pytest.raises(UserError, match="not a finished dataset"):
        mmdata.open(out)
    report = run(whole, pair[0], out, workers=2)
    units = 3 + sum(len(s.manifest.shards) for s in mmdata.open(out).values())
    assert report.units_run == {"recode": units - 1, "finish": 2, "publish": 0}[stage]
    assert tree(out) == tree(pair[1])
    assert not list(out.rglob("*.tmp"))


def test_a_damaged_shard_is_refused_not_recoded(whole: Path, media: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "in")
    shard = next((tmp_path / "in" / "speech").glob("*train.array_record*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(RunError, match=r"speech-train\S+ is damaged.*mmdata verify"):
        run(tmp_path / "in", media / "byte.json", tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_text_that_the_codec_cannot_take_names_its_document(media: Path, tmp_path: Path) -> None:
    item = replace(with_text(Item("text", SPM, None), "x"), text="\udcff")
    written(tmp_path / "in", "toy", [replace(sample(1), items=(item,))])
    with pytest.raises(RunError, match=rf"document {sample(1).id} in source toy: a lone surrogate") as error:
        run(tmp_path / "in", media / "byte.json", tmp_path / "out")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("text-spm16", "no codec 'text-spm16'; did you mean 'text-spm16k"),
        ("nothing.json", "cannot read the text codec .*check the path"),
        ("image-fsq16", "is a codec of image, not of text"),
        (SPM, "no text of another codec than text-spm16k@1"),
    ],
)
def test_a_wrong_codec_is_refused_before_anything_is_written(
    whole: Path, tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(UserError, match=words) as error:
        run(whole, text, tmp_path / "out")
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_another_dataset_at_out_is_left_alone(
    whole: Path, pair: tuple[Path, Path], media: Path, tmp_path: Path
) -> None:
    other = media / ("theirs.model" if pair[0].suffix == ".json" else "byte.json")
    for out, words in (
        (whole, "lies in the dataset itself"),
        (whole / "text" / "new", "lies in the dataset itself"),
        (pair[1], r"another recipe \(recode\.text\.\S+ was"),
    ):
        before = tree(whole), tree(pair[1])
        with pytest.raises(UserError, match=words):
            run(whole, other, out)
        assert before == (tree(whole), tree(pair[1]))
    shutil.copytree(whole, tmp_path / "built", ignore=shutil.ignore_patterns(".work"))
    with pytest.raises(UserError, match="holds another dataset"):
        run(whole, other, tmp_path / "built")
    assert tree(tmp_path / "built") == tree(whole)
    with pytest.raises(UserError, match="no dataset"):
        run(tmp_path / "nowhere", other, tmp_path / "out")


def test_a_codec_that_is_not_the_datasets_is_refused(whole: Path, media: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "text", tmp_path / "text")
    manifest = read_json(tmp_path / "text")
    manifest["codecs"][0]["fingerprint"] = "0" * 64
    (tmp_path / "text" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="is not the one that source text was made with"):
        run(tmp_path / "text", media / "byte.json", tmp_path / "out")


def test_the_command_says_it_as_json(whole: Path, media: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "recode", str(whole), "--json", "--workers", "1"]
    done = subprocess.run(
        [*command, "--text", str(media / "byte.json"), "--out", str(tmp_path / "out")],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert json.loads(done.stdout)["text"] == CodecFile.of(media / "byte.json").codec
