"""Planted duplicates go, unrelated documents stay, and the ledger says which was kept; by whatever workers."""

from __future__ import annotations

import random
import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import mmdata
from mmdata.errors import UserError
from pipelines.build.engine import build
from pipelines.build.ledger import read_ledger
from pipelines.build.recipe import parse_recipe
from pipelines.build.report import BuildReport
from tests.pipelines.build.toy_build import load_toy, make_media, toy_recipe, tree
from tests.pipelines.fit.test_exclude import draw as draw_picture
from tests.pipelines.fit.test_exclude import speak

ALL = {"exact": "drop", "text": "minhash", "image": "phash", "audio": "bands", "video": "frames"}


def prose(seed: int, words: int = 120) -> str:
    draw = random.Random(seed)
    return " ".join(f"word{draw.randrange(3000)}" for _ in range(words))


def plant(root: Path) -> None:
    """Two sources of texts, captioned pictures and sounds with transcripts: some copies, some not."""
    for i in range(8):
        write(root / "text" / f"{i}.txt", prose(i))
    write(root / "text" / "exact.txt", prose(0))
    write(root / "text" / "case.txt", "«" + prose(1).upper().replace(" ", ",  ") + "»")
    words = prose(2).split()
    words[60] = "edited"
    write(root / "text" / "edited.txt", " ".join([*words, "and", "longer"]))
    write(root / "other" / "across.txt", prose(3))
    write(root / "other" / "own.txt", prose(100))
    for i in range(5):
        draw_picture(made(root / "pictures" / f"{i}.png"), i)
        write(root / "pictures" / f"{i}.txt", f"picture of {i}")
    copy_picture(root / "pictures" / "0.png", root / "pictures" / "small.jpg")
    write(root / "pictures" / "small.txt", "Picture of 0!")
    copy_picture(root / "pictures" / "1.png", root / "pictures" / "retold.jpg")
    write(root / "pictures" / "retold.txt", "another caption altogether")
    for i in range(4):
        speak(made(root / "speech" / f"{i}.wav"), i)
        write(root / "speech" / f"{i}.txt", f"speech of {i}")
    speak(root / "speech" / "quiet.wav", 0, rate=22_050, gain=0.2, silence=5_000)
    write(root / "speech" / "quiet.txt", "speech of 0")


def made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write(path: Path, text: str) -> None:
    made(path).write_text(text, "utf-8")


def copy_picture(path: Path, to: Path) -> None:
    with Image.open(path) as image:
        image.resize((120, 120)).save(to, quality=75)


def recipe(root: Path, dedup: dict[str, Any] = ALL, **changes: Any) -> Any:
    sources = [
        {"name": "text", "format": "text", "path": "text"},
        {"name": "other", "format": "text", "path": "other"},
        {"name": "pictures", "format": "captions", "path": "pictures"},
        {"name": "speech", "format": "speech", "path": "speech"},
    ]
    return toy_recipe(root, source=sources, dedup=dedup, **changes)


def run(root: Path, out: Path, workers: int = 1, dedup: dict[str, Any] = ALL, **changes: Any) -> BuildReport:
    return build(recipe(root, dedup, **changes), out, workers, progress=False, load=load_toy)


def lost(out: Path) -> dict[str, tuple[str, str]]:
    """source/uri -> (reason, what was kept and how near) of all that the dedup stage left out."""
    lines = [line for path in sorted((out / "ledger").glob("*.jsonl")) for line in read_ledger(path)]
    return {f"{x['source']}/{x['uri']}": (x["reason"], x["detail"]) for x in lines if x["stage"] == "dedup"}


def kept(out: Path) -> set[str]:
    return {f"{n}/{s.uri}" for n, source in mmdata.open(out).items() for s in (*source.train, *source.validation)}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("planted")
    plant(root)
    return root


@pytest.fixture(scope="module")
def whole(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BuildReport]:
    out = tmp_path_factory.mktemp("whole") / "out"
    return out, run(planted, out)


def test_copies_go_and_all_else_stays(whole: tuple[Path, BuildReport]) -> None:
    out, report = whole
    found = lost(out)
    reasons = {uri: reason for uri, (reason, _) in found.items()}
    pairs = [("text/0.txt", "text/exact.txt"), ("text/3.txt", "other/across.txt")]
    for pair in pairs:  # in one source the smaller id stays, which is a matter of the paths' hashes
        (gone,) = [uri for uri in pair if uri in reasons]
        (stays,) = set(pair) - {gone}
        assert gone != "text/3.txt"  # of two sources the first one's
        assert reasons.pop(gone) == "exact duplicate" and f"kept {stays} " in found[gone][1]
    (gone,) = {"text/1.txt", "text/case.txt"} & set(reasons)
    assert reasons.pop(gone) == "same text but for case and punctuation"
    assert reasons == {
        "text/2.txt": "near duplicate of text",  # the edited one is longer
        "pictures/small.jpg": "near duplicate of image",
        "speech/0.wav": "near duplicate of audio",  # the quiet one begins with silence: it is longer
    }
    assert "kept text/edited.txt (document " in found["text/2.txt"][1]
    assert "of the 5-grams are shared" in found["text/2.txt"][1]
    assert "of 64 bits differ" in found["pictures/small.jpg"][1]
    assert "of the sound's bits differ" in found["speech/0.wav"][1]
    assert len(kept(out)) == 13 + 7 + 5 - 6 and not kept(out) & set(found)
    assert sum(report.dropped.values()) == 6 == report.total("documents") - report.total("samples")


def test_three_workers_write_the_same_bytes(planted: Path, whole: tuple[Path, BuildReport], tmp_path: Path) -> None:
    run(planted, tmp_path / "out", workers=3)
    assert tree(tmp_path / "out") == tree(whole[0])


def test_how_the_work_is_cut_changes_nothing(planted: Path, whole: tuple[Path, BuildReport], tmp_path: Path) -> None:
    run(planted, tmp_path / "out", shards={"samples": 10, "unit_inputs": 100})
    assert tree(tmp_path / "out").keys() == tree(whole[0]).keys() and lost(tmp_path / "out") == lost(whole[0])
    assert kept(tmp_path / "out") == kept(whole[0])


def test_inside_each_source_copies_in_others_stay(planted: Path, tmp_path: Path) -> None:
    run(planted, tmp_path / "out", dedup={"exact": "drop", "scope": "source"})
    found = lost(tmp_path / "out")
    assert len(found) == 2 and not {"text/3.txt", "other/across.txt"} & set(found)


def test_near_ones_that_are_kept_share_a_split(planted: Path, tmp_path: Path) -> None:
    run(planted, tmp_path / "out", dedup={**ALL, "near": "group"}, validation=0.5)
    assert {reason for reason, _ in lost(tmp_path / "out").values()} == {
        "exact duplicate",
        "same text but for case and punctuation",
    }
    clusters = {
        f"{n}/{s.uri}": s.cluster for n, x in mmdata.open(tmp_path / "out").items() for s in (*x.train, *x.validation)
    }
    for one, other in [("text/2.txt", "text/edited.txt"), ("pictures/0.png", "pictures/small.jpg")]:
        assert clusters[one] == clusters[other]
    assert len(set(clusters.values())) == len(clusters) - 3


def test_turning_it_on_runs_no_unit_whose_verdicts_stay(planted: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(planted, out, dedup={})
    plain = tree(out)
    report = run(planted, out, dedup=ALL)
    ran = {(row.stage, row.source): row.stale for row in report.stages}
    assert not any(n for (stage, _), n in ran.items() if stage in ("ingest", "curate"))
    assert ran["dedup", "all sources"] == 1 and ran["sign", "text"] > 0
    units = {(row.stage, row.source): row.units for row in report.stages}
    assert 0 < ran["encode", "pictures"] < units["encode", "pictures"]
    again = run(planted, out, dedup=ALL)
    assert again.units_run == 0
    run(planted, out, dedup={})
    assert tree(out) == plain


def test_explain_says_that_what_comes_after_waits(planted: Path, tmp_path: Path) -> None:
    run(planted, tmp_path / "out", dedup={})
    report = build(recipe(planted), tmp_path / "out", explain=True, load=load_toy)
    assert [row.stage for row in report.stages if row.stale] == ["sign"] * 4 + ["dedup"] + ["finish"] * 4
    assert {row.stage for row in report.stages if row.maybe} == {"encode", "shuffle", "write"}
    run(planted, tmp_path / "out")
    report = build(recipe(planted, {**ALL, "image_bits": 3}), tmp_path / "out", explain=True, load=load_toy)
    stale = [(row.stage, row.source, row.why) for row in report.stages if row.stale]
    assert stale[0] == ("dedup", "all sources", "dedup.image_bits changed")
    assert {(stage, why) for stage, _, why in stale[1:]} == {("finish", "the manifest's dedup changed")}


def test_films_with_the_same_frames_are_one(tmp_path: Path) -> None:
    for name, seed, size in [("a", 0, 160), ("b", 50, 160), ("copy", 0, 96)]:
        film(made(tmp_path / "films" / f"{name}.mp4"), seed, size)
    sources = [{"name": "films", "format": "video", "path": "films"}]
    asked = toy_recipe(tmp_path, source=sources, dedup=ALL)
    build(asked, tmp_path / "out", 1, progress=False, load=load_toy)
    ((uri, (reason, detail)),) = lost(tmp_path / "out").items()
    assert uri == "films/copy.mp4" and reason == "near duplicate of video" and "kept films/a.mp4" in detail


def film(path: Path, seed: int, size: int) -> None:
    """Two seconds of five pictures."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt, video.bit_rate = size, size, "yuv420p", 1_000_000
        for i in range(20):
            with Image.open(draw_picture(path.with_suffix(".png"), seed + i // 4)) as image:
                frame = av.VideoFrame.from_ndarray(np.asarray(image.resize((size, size))), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode())
    path.with_suffix(".png").unlink()


def test_without_the_table_nothing_changes(tmp_path: Path) -> None:
    make_media(tmp_path / "media", texts=6, pictures=3)
    for name, changes in (("one", {}), ("two", {"dedup": {"exact": "keep", "scope": "source"}})):
        build(toy_recipe(tmp_path / "media", **changes), tmp_path / name, 1, progress=False, load=load_toy)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert b"dedup" not in b"".join(tree(tmp_path / "one").values())


def test_near_ones_cannot_go_while_exact_ones_stay(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'say exact = "drop" or near = "group"'):
        parse_recipe({"source": [], "dedup": {"text": "minhash"}}, tmp_path)


def test_recordings_with_the_same_jingle_stay(tmp_path: Path) -> None:
    for name, seeds in [("first", (1, 2, 3, 4)), ("second", (1, 5, 6, 7)), ("quiet", (1, 2, 3, 4))]:
        gain = 0.2 if name == "quiet" else 0.5
        parts = [read_wave(speak(tmp_path / "part.wav", seed, gain=gain)) for seed in seeds]
        with wave.open(str(made(tmp_path / "speech" / f"{name}.wav")), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(b"".join(parts))
        write(tmp_path / "speech" / f"{name}.txt", "the same words of welcome")
    asked = toy_recipe(tmp_path, source=[{"name": "speech", "format": "speech", "path": "speech"}], dedup=ALL)
    build(asked, tmp_path / "out", 1, progress=False, load=load_toy)
    ((uri, (reason, detail)),) = lost(tmp_path / "out").items()
    assert reason == "near duplicate of audio" and {uri, detail.split()[1]} == {"speech/first.wav", "speech/quiet.wav"}


def read_wave(path: Path) -> bytes:
    with wave.open(str(path)) as file:
        return file.readframes(file.getnframes())
