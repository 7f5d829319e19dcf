"""A build from end to end with toy codecs: same bytes however it ran, and a verdict on every input."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_build
from toy_build import load_toy, make_media, paint, toy_recipe, tree

import mmdata
from mmdata.errors import RunError, UserError
from mmdata.manifest import read_json
from mmdata.verify import verify
from pipelines.build.engine import build
from pipelines.build.inputs import cut_inputs
from pipelines.build.ledger import read_ledger
from pipelines.build.report import BuildReport
from pipelines.build.worker import most_held
from pipelines.ingest.source import Input
from pipelines.look.page import write_page
from pipelines.look.tables import dataset_stats
from tests.pipelines.ingest.toy_media import movie


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("media")
    make_media(root)
    return root


@pytest.fixture(scope="module")
def whole(media: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BuildReport]:
    """An uninterrupted build with one worker."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return out, run(media, out)


def run(media: Path, out: Path, workers: int = 1, **changes: Any) -> BuildReport:
    return build(toy_recipe(media, **changes), out, workers, progress=False, load=load_toy)


def test_it_says_what_became_of_every_document(whole: tuple[Path, BuildReport]) -> None:
    out, report = whole
    by_name = {s.name: s for s in report.sources}
    assert by_name["text"].samples == 30 and by_name["pictures"].documents == 13 and by_name["speech"].samples == 3
    assert report.codes["text"] > 2000 and report.codes["image"] > 100 and report.codes["audio"] == 120
    assert report.dropped == {"cannot decode": 1}
    assert [(line["uri"], line["stage"]) for line in read_ledger(out / "ledger" / "pictures.jsonl")] == [
        ("broken.png", "decode")
    ]
    assert json.loads((out / "report.json").read_text())["samples"] == report.total("samples") == 46
    assert report.peak_bytes > 1e6 and report.documents_per_second


def test_its_page_shows_the_funnel_reasons_tokens_lengths_and_time(whole: tuple[Path, BuildReport]) -> None:
    out, report = whole
    page = (out / "report.html").read_text("utf-8")
    cells = re.sub(r"<[^>]+>", "|", page)
    # Inputs, documents after ingest, curate, encode (the broken one has a caption) and shuffle, samples
    assert re.search(r"\|pictures\|+13\|+13\|+13\|+13\|+13\|+13\|+100.0%", cells)
    assert re.search(r"\|pictures\|+encode\|+13\|+0\|+cannot decode 1\|", cells)
    assert re.search(r"\|decode\|+cannot decode\|+1\|+pictures 1\|+pictures/broken\.png: ", cells)
    assert f"|{report.codes['text']:,}|" in cells and f"{report.codes['audio']:,}" in cells
    assert page.count("<svg") == len(report.sources) and "median" in page
    for stage in ("ingest", "encode", "write"):
        row = next(row for row in report.stages if row.stage == stage)
        assert row.seconds > 0 and re.search(rf"\|{stage}\|+\d", cells)
    assert "<script" not in page and "http" not in page


def test_a_page_escapes_what_documents_are_called(media: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "<b>bold&.txt").write_bytes(b"\xff\xfe\x00broken")
    (tmp_path / "in" / "good.txt").write_text("A text of some words. " * 20)
    source = [{"name": "odd", "format": "text", "path": "in"}]
    build(toy_recipe(tmp_path, source=source), tmp_path / "out", 1, progress=False, load=load_toy)
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "&lt;b&gt;bold&amp;.txt" in page and "<b>bold" not in page


def test_it_reads_back(whole: tuple[Path, BuildReport]) -> None:
    dataset = mmdata.open(whole[0])
    samples = [*dataset["pictures"].train, *dataset["pictures"].validation]
    assert len(samples) == 13
    texts = [toy_build.ToyText().decode(code(item)) for s in samples for item in s.items if item.kind == "text"]
    assert sorted(texts) == sorted([f"picture {i}" for i in range(12)] + ["a caption without a picture"])
    item = next(item for s in samples for item in s.items if item.kind == "image")
    assert item.codec == "toy-image@1" and item.codes is not None and len(item.codes) == item.grid[1] * item.grid[2]
    assert len(item.digest) == 64 and item.group_role == "target"


def code(item: Any) -> Any:
    from tokenizer.codec import Codes, Shape

    return Codes(item.codes, Shape(len(item.codes), 1))


def test_two_workers_write_the_same_bytes(media: Path, whole: tuple[Path, BuildReport], tmp_path: Path) -> None:
    run(media, tmp_path / "out", workers=2)
    assert tree(tmp_path / "out") == tree(whole[0])


def test_units_of_another_size_write_the_same_shards(
    media: Path, whole: tuple[Path, BuildReport], tmp_path: Path
) -> None:
    run(media, tmp_path / "out", shards={"samples": 10, "unit_inputs": 100})
    assert tree(tmp_path / "out") == tree(whole[0])


def test_a_part_that_cannot_be_encoded_costs_itself_or_its_document(media: Path, tmp_path: Path) -> None:
    bad = tmp_path / "media"
    shutil.copytree(media, bad)
    paint(bad / "pictures" / "05.png", toy_build.REFUSED)
    report = run(bad, tmp_path / "a")
    assert report.total("samples") == 46 and report.dropped["cannot encode"] == 1
    report = run(bad, tmp_path / "b", on_bad_part="drop_document")
    assert report.total("samples") == 44
    assert report.dropped == {"a part failed": 2, "cannot decode": 1, "cannot encode": 1}


def test_only_what_changed_is_run_again(media: Path, tmp_path: Path) -> None:
    own, out = tmp_path / "media", tmp_path / "out"
    shutil.copytree(media, own)
    first = run(own, out)
    assert run(own, out).units_run == 0
    os.utime(own / "text" / "1" / "004.txt")
    touched = {s.stage: s.stale for s in run(own, out).stages if s.source == "text"}
    assert touched["ingest"] == touched["curate"] == 1 and touched["encode"] == touched["write"] == 0
    (own / "text" / "1" / "004.txt").write_text("other words", "utf-8")
    report = run(own, out)
    stale = {s.stage: s.stale for s in report.stages if s.source == "text"}
    assert stale["ingest"] == stale["encode"] == stale["finish"] == 1
    assert sum(s.stale for s in report.stages if s.source != "text") == 0
    assert report.sources[0].fingerprint != first.sources[0].fingerprint
    assert report.sources[1].fingerprint == first.sources[1].fingerprint
    words = [toy_build.ToyText().decode(code(s.items[0])) for s in mmdata.open(out)["text"].train]
    words += [toy_build.ToyText().decode(code(s.items[0])) for s in mmdata.open(out)["text"].validation]
    assert "other words" in words


def test_a_source_may_join_and_leaves_the_others_alone(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sources = toy_recipe(media).model_dump()["source"]
    run(media, out, source=sources[:1])
    before = tree(out)
    report = run(media, out, source=sources)
    assert not sum(s.stale for s in report.stages if s.source == "text")
    after = tree(out)
    assert all(after[name] == data for name, data in before.items() if name.startswith("text/"))
    assert mmdata.open(out).sources


def test_moved_inputs_and_outputs_keep_the_fingerprint(
    media: Path, whole: tuple[Path, BuildReport], tmp_path: Path
) -> None:
    shutil.copytree(media, tmp_path / "elsewhere")
    report = run(tmp_path / "elsewhere", tmp_path / "out")
    assert [s.fingerprint for s in report.sources] == [s.fingerprint for s in whole[1].sources]
    assert str(tmp_path) not in json.dumps(read_json(tmp_path / "out" / "text"))


def test_soft_items_and_kept_media_are_read_back(media: Path, tmp_path: Path) -> None:
    codecs = {"text": "toy-text@1", "image": "soft", "audio": "toy-audio@1", "video": "toy-image@1"}
    run(media, tmp_path / "out", codecs=codecs, keep_media="resized")
    dataset = mmdata.open(tmp_path / "out")
    pictures = dataset["pictures"]
    soft = [i for split in (pictures.train, pictures.validation) for s in split for i in s.items if i.kind == "image"]
    assert len(soft) == 12 and all(i.is_soft for i in soft)
    for item in soft:
        kept = pictures.media[item.digest]
        assert kept.dtype == np.uint8 and kept.shape == (*item.grid[1:], 3)
    speech = dataset["speech"]
    sound = next(i for s in speech.train for i in s.items if i.kind == "audio")
    wave = speech.media[sound.digest]
    assert wave.dtype == np.int16 and sound.codes is not None and len(sound.codes) == -(-len(wave) // 160)


def test_soft_videos_keep_their_frames_and_their_times(media: Path, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    movie(tmp_path / "films" / "a.mp4", [0, 400, 1100, 1900], size=(80, 60), sound_s=2.0)
    movie(tmp_path / "films" / "b.mp4", [0], size=(64, 48))
    run(
        tmp_path,
        tmp_path / "out",
        codecs={"text": "toy-text@1", "image": "toy-image@1", "audio": "soft", "video": "soft"},
        keep_media="resized",
        image={"tokens": 16},
        video={"fps": 2.0, "policy": "area", "multiple": 28, "min_pixels": 3136, "max_pixels": 5000},
        source=[{"name": "films", "format": "video", "path": "films"}],
        validation=0,
    )
    source = mmdata.open(tmp_path / "out")["films"]
    found = {s.uri: s.items for s in source.train}
    video, sound = found["a.mp4"][:2]
    assert (video.kind, video.codec, video.codes, video.grid) == ("video", "", None, (4, 56, 84))
    np.testing.assert_allclose(video.times, [0, 0.5, 1, 1.5], atol=1e-6)
    kept = source.media.get(video.digest, "video")
    assert kept.data.shape == (4, 56, 84, 3) and kept.times.tolist() == video.times.tolist()
    np.testing.assert_allclose(kept.data.mean((1, 2, 3)), [20, 60, 60, 100], atol=4)  # of the frame on the screen
    assert sound.kind == "audio" and sound.is_soft and sound.grid == (len(source.media[sound.digest, "audio"]), 0, 0)
    assert [(i.kind, i.grid) for i in found["b.mp4"]] == [("video", (1, 56, 56))]
    assert verify(tmp_path / "out").ok, verify(tmp_path / "out").problems
    stats = dataset_stats(tmp_path / "out")["sources"]["films"]
    assert stats["soft_items"] == 3 and stats["items"]["video"] == 2 and stats["tokens"]["video"] == 0
    page = write_page(tmp_path / "out", tmp_path / "page.html").read_text("utf-8")
    assert page.count("data:image/png") == 5 and page.count("data:audio/wav") == 1
    assert "4 frames of 56x84" in page and f"{sound.grid[0]:,} samples" in page


def test_soft_images_have_the_size_that_the_recipe_names(media: Path, tmp_path: Path) -> None:
    codecs = {"text": "toy-text@1", "image": "soft", "audio": "toy-audio@1"}
    sources = [{"name": "pictures", "format": "captions", "path": "pictures"}]
    for name, image, sizes in (
        ("gemma", {"policy": "stretch", "size": [42, 70], "multiple": 14}, {(42, 70)}),
        ("qwen", {"policy": "area", "multiple": 28, "max_pixels": 7000}, {(56, 56), (56, 112), (28, 112)}),
        ("plain", {"tokens": 16, "multiple": 10}, {(40, 40), (30, 50), (20, 50)}),
    ):
        run(media, tmp_path / name, codecs=codecs, keep_media="resized", image=image, source=sources)
        pictures = mmdata.open(tmp_path / name)["pictures"]
        soft = [i for split in (pictures.train, pictures.validation) for s in split for i in s.items if i.is_soft]
        assert {item.grid[1:] for item in soft} == sizes and len(soft) == 12
        assert all(pictures.media[item.digest].shape == (*item.grid[1:], 3) for item in soft)
        assert pictures.manifest.settings["image"]["multiple"] == image["multiple"]


def test_a_size_that_the_codec_cannot_take_is_one_line(media: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\[image\]: size is \[40, 40\]: .* multiples of 16 pixels"):
        run(media, tmp_path / "out", image={"policy": "stretch", "size": [40, 40]})


def test_original_media_are_the_bytes_of_the_files(media: Path, tmp_path: Path) -> None:
    run(media, tmp_path / "out", keep_media="original")
    pictures = mmdata.open(tmp_path / "out")["pictures"]
    item = next(i for s in pictures.train for i in s.items if i.kind == "image")
    assert pictures.media[item.digest] == (media / "pictures" / item.uri).read_bytes()


def test_copies_share_a_cluster_and_a_split(media: Path, tmp_path: Path) -> None:
    own = tmp_path / "media"
    for i in range(8):
        (own / "text").mkdir(parents=True, exist_ok=True)
        (own / "text" / f"{i}.txt").write_text("the same words", "utf-8")
    run(own, tmp_path / "out", source=[{"name": "text", "format": "text", "path": "text"}], validation=0.5)
    source = mmdata.open(tmp_path / "out")["text"]
    assert sorted([len(source.train), len(source.validation)]) == [0, 8]
    assert len({s.cluster for split in (source.train, source.validation) for s in split}) == 1


def test_dry_run_and_explain_write_nothing(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = build(toy_recipe(media), out, 1, dry_run=True, load=load_toy)
    assert report.dry_run and report.sources[0].inputs == 30 and report.sources[0].input_bytes > 1000
    report = build(toy_recipe(media), out, 1, explain=True, load=load_toy)
    assert {row.why.split(";")[0] for row in report.stages if row.units} == {"not done yet"}
    assert all(row.stale == row.units and not row.maybe for row in report.stages)
    assert not out.exists()


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ({"notes.txt": "mine"}, "holds other files .notes.txt."),
        ({"manifest.json": "{}"}, "holds another dataset"),
    ],
)
def test_a_folder_of_somebody_else_is_refused(media: Path, tmp_path: Path, there: dict[str, str], message: str) -> None:
    for name, words in there.items():
        (tmp_path / name).write_text(words)
    with pytest.raises(UserError, match=message):
        run(media, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(there)


def test_the_folder_of_another_recipe_is_refused_naming_the_first_difference(
    media: Path, whole: tuple[Path, BuildReport]
) -> None:
    before = tree(whole[0])
    with pytest.raises(UserError, match=r"holds the dataset of another recipe \(recipe.seed was 0, is 7\)"):
        run(media, whole[0], seed=7)
    assert tree(whole[0]) == before


def test_wrong_wishes_are_named(media: Path, tmp_path: Path) -> None:
    for how, message in [
        ({"workers": -1}, "--workers -1"),
        ({"executor": "rai"}, "no executor 'rai'; did you mean 'ray'"),
    ]:
        with pytest.raises(UserError, match=message):
            build(toy_recipe(media), tmp_path / "out", load=load_toy, **how)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no codec 'image-fsq61'; did you mean 'image-fsq16"):
        build(toy_recipe(media, codecs={"text": "image-fsq16", "image": "image-fsq61"}), tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        run(media, tmp_path / "file")
    with pytest.raises(UserError, match="there is no folder"):
        run(media, tmp_path / "out", source=[{"name": "a", "format": "text", "path": "nowhere"}])
    (media / "empty").mkdir(exist_ok=True)
    with pytest.raises(UserError, match="is empty"):
        run(media, tmp_path / "out", source=[{"name": "a", "format": "text", "path": "empty"}])
    with pytest.raises(UserError, match=r"codecs.image: toy-text@1 is a codec of text"):
        run(media, tmp_path / "out", codecs={"text": "toy-text@1", "image": "toy-text@1", "audio": "toy-audio@1"})


def test_nothing_kept_is_no_dataset(tmp_path: Path) -> None:
    media = tmp_path / "media"
    (media / "pictures").mkdir(parents=True)
    (media / "pictures" / "a.png").write_bytes(b"no picture")
    with pytest.raises(RunError, match="no document was kept"):
        run(media, tmp_path / "out", source=[{"name": "pictures", "format": "captions", "path": "pictures"}])
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert read_ledger(tmp_path / "out" / "ledger" / "pictures.jsonl")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["samples"] == 0 and report["dropped"] == {"cannot decode": 1, "no part left": 1}
    assert "cannot decode" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_a_build_that_keeps_nothing_any_more_leaves_no_earlier_dataset(media: Path, tmp_path: Path) -> None:
    """What is in the folder is of one build: the ledger and the report of this one, and no samples of another."""
    source = [{"name": name, "format": "text", "path": f"text/{i}"} for i, name in enumerate("ab")]
    out = tmp_path / "out"
    run(media, out, source=source)
    before = tree(out)
    strict = {"rules": ["gopher_quality"], "gopher_quality": {"min_words": 10_000}}
    with pytest.raises(RunError, match=r"no document was kept .20 gopher: .*; see .*report.html and .*ledger"):
        run(media, out, source=source, curate=strict)
    with pytest.raises(UserError, match="not a finished dataset"):
        mmdata.open(out)
    assert sorted(p.name for p in out.iterdir()) == [".work", "ledger", "report.html", "report.json"]
    assert [len(read_ledger(out / "ledger" / f"{name}.jsonl")) for name in "ab"] == [10, 10]
    report = json.loads((out / "report.json").read_text())
    assert report["documents"] == 20 and report["samples"] == 0 and report["seconds"] > 0
    assert "after curate" in (out / "report.html").read_text("utf-8")
    run(media, out, source=source)
    assert tree(out) == before


def test_the_peak_of_memory_is_taken_last(media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is made by the supervisor, out of the whole catalog: it may take more than all workers did."""
    most = most_held() + (300 << 20)

    def tokens(tables: Any) -> str:
        return str(np.ones(most, np.uint8)[0])

    monkeypatch.setattr("pipelines.look.build_page._tokens", tokens)
    report = run(media, tmp_path / "out", source=[{"name": "text", "format": "text", "path": "text"}])
    assert report.peak_bytes > most - (100 << 20)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["peak_bytes"] == report.peak_bytes
    assert f"peak memory {report.peak_bytes / 1e9:.2f} GB" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_inputs_are_cut_by_number_and_bytes() -> None:
    inputs = [Input(str(i), size=size) for i, size in enumerate([5, 5, 20, 1, 1, 1, 1])]
    assert [[item.path for item in run] for run in cut_inputs(inputs, 3, 10)] == [
        ["0", "1"],
        ["2"],
        ["3", "4", "5"],
        ["6"],
    ]


def test_an_unfinished_build_may_go_on_with_a_corrected_recipe(
    media: Path, whole: tuple[Path, BuildReport], tmp_path: Path
) -> None:
    wrong = {"text": "toy-text@1", "image": "toy-text@1", "audio": "toy-audio@1"}
    with pytest.raises(UserError, match=r"codecs.image"):
        run(media, tmp_path / "out", codecs=wrong)
    report = run(media, tmp_path / "out")
    assert not sum(s.stale for s in report.stages if s.stage == "ingest")
    assert tree(tmp_path / "out") == tree(whole[0])


def test_a_picture_that_a_page_names_is_read_again_when_it_changes_or_comes(tmp_path: Path) -> None:
    own, out = tmp_path / "media", tmp_path / "out"
    source = [{"name": "web", "format": "html", "path": "."}]
    toy_build.paint(own / "a.png", (0, 0, 0))
    (own / "page.html").write_text('<p>words<img src="a.png"><img src="b.png">', "utf-8")
    first = run(own, out, source=source)
    assert first.codes["image"] == 16 and first.dropped == {"missing file": 1}
    toy_build.paint(own / "a.png", (250, 250, 250))
    second = run(own, out, source=source)
    assert second.sources[0].fingerprint != first.sources[0].fingerprint
    toy_build.paint(own / "b.png", (250, 0, 0))
    third = run(own, out, source=source)
    assert third.codes["image"] == 32 and not third.dropped
    assert run(own, out, source=source).units_run == 0
    run(own, tmp_path / "new", source=source)
    assert tree(out) == tree(tmp_path / "new")
