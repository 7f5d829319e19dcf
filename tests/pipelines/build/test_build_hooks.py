"""A build whose rules ask functions beside the recipe, in its workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from toy_build import load_toy, make_media, toy_recipe, tree

from mmdata.errors import RunError, UserError
from pipelines.build.engine import build
from pipelines.build.ledger import read_ledger
from pipelines.build.report import BuildReport, print_report

# Of make_media's pictures the greener ones are unsafe, and the model cannot make anything of one.
HOOK = """
def green(pixels):
    red, level = int(pixels[0, 0, 0]), int(pixels[0, 0, 1])
    if red == 27:
        raise ValueError("cannot say")
    return level / 255
"""
SAFE = {"classifier": "green_model:green", "max_score": 0.65}


@pytest.fixture
def media(tmp_path: Path) -> Path:
    root = tmp_path / "media"
    make_media(root, texts=0, pictures=12)
    (root / "green_model.py").write_text(HOOK, "utf-8")
    return root


def run(
    root: Path,
    out: Path,
    workers: int = 1,
    safe: dict[str, Any] = SAFE,
    limits: dict[str, Any] | None = None,
    **options: Any,
) -> BuildReport:
    sources = [{"name": "pictures", "format": "captions", "path": "pictures"}]
    curate = {"rules": ["safe_pictures"], "safe_pictures": safe}
    recipe = toy_recipe(root, source=sources, curate=curate, limits=limits or {})
    return build(recipe, out, workers, progress=False, load=load_toy, **options)


def test_what_a_function_says_is_in_the_ledger_and_in_the_report(media: Path, tmp_path: Path) -> None:
    report = run(media, tmp_path / "a")
    lines = [row for row in read_ledger(tmp_path / "a" / "ledger" / "pictures.jsonl") if row["stage"] == "curate"]
    assert {(row["uri"], row["reason"], row["detail"]) for row in lines} == {
        ("00.png", "safe_pictures: unsafe", "0.7843, at most 0.65"),
        ("01.png", "safe_pictures: unsafe", "0.7647, at most 0.65"),
        ("02.png", "safe_pictures: unsafe", "0.7451, at most 0.65"),
        ("03.png", "safe_pictures: the hook failed", "green_model:green: ValueError: cannot say, not an answer"),
        ("04.png", "safe_pictures: unsafe", "0.7059, at most 0.65"),
        ("05.png", "safe_pictures: unsafe", "0.6863, at most 0.65"),
        ("06.png", "safe_pictures: unsafe", "0.6667, at most 0.65"),
    }
    assert report.dropped["safe_pictures: unsafe"] == 6 and report.dropped["safe_pictures: the hook failed"] == 1
    settings = json.loads((tmp_path / "a" / "pictures" / "manifest.json").read_text())["settings"]
    assert settings["curate"]["safe_pictures"]["classifier"] == "green_model:green"
    run(media, tmp_path / "b", workers=2)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_another_version_of_the_function_is_asked_again(media: Path, tmp_path: Path) -> None:
    run(media, tmp_path / "out")
    (media / "green_model.py").write_text("def green(pixels):\n    return 0\n", "utf-8")
    report = run(media, tmp_path / "out", safe={**SAFE, "version": "2"})
    stale = {stage.stage: stage.stale for stage in report.stages}
    assert stale["ingest"] == 0 and stale["curate"] > 0 and "safe_pictures: unsafe" not in report.dropped


def test_a_dry_run_shows_what_the_function_would_leave_out(
    media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run(media, tmp_path / "out", dry_run=True)
    rows = {row.rule: (row.failed, row.measured) for row in report.rules[0].rules}
    assert rows == {"safe_pictures: unsafe": (6, 11), "safe_pictures: the hook failed": (1, 1)}
    print_report(report)
    assert "safe_pictures: unsafe" in capsys.readouterr().out and not (tmp_path / "out").exists()


HOSTILE = """
import os, time

def green(pixels):
    level = int(pixels[0, 0, 1])
    if level == 195:
        os._exit(3)
    if level == 185:
        time.sleep(600)
    return level / 255
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_dry_run_shows_what_kills_or_hangs_its_worker_and_counts_the_others(
    media: Path, tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (media / "green_model.py").write_text(HOSTILE, "utf-8")
    report = run(media, tmp_path / "out", workers, dry_run=True, limits={"stuck_seconds": 4})
    (sample,) = report.rules
    assert sample.lost == [
        {"uri": "01.png", "reason": "crashed its worker", "detail": "exit status 3"},
        {"uri": "03.png", "reason": "took too long", "detail": "no progress in 4 s"},
    ]
    assert sample.documents == 11 and sample.complete  # the picture that is none too: nobody asks about it
    assert {row.rule: (row.failed, row.measured) for row in sample.rules} == {"safe_pictures: unsafe": (5, 10)}
    print_report(report)
    shown = " ".join(capsys.readouterr().out.split())
    assert "2 would be left out with a lost worker" in shown and "crashed its worker: 01.png (exit status 3)" in shown
    assert not (tmp_path / "out").exists()


def test_a_function_that_is_not_there_stops_the_build_with_its_name(media: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"curate.safe_pictures.classifier: no module gone_model .* put gone_model.py"):
        run(media, tmp_path / "out", safe={"classifier": "gone_model:green"})
    with pytest.raises(RunError, match=r"'green_model:blue': the module green_model has no function blue"):
        run(media, tmp_path / "out", safe={"classifier": "green_model:blue"})
