"""A build with a quality classifier of the user's own: what it drops and shows, what runs again, what stops it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy_build import load_toy, toy_recipe

from mmdata.errors import RunError
from pipelines.build.engine import build
from pipelines.build.ledger import read_ledger

PROSE = "When a river meets the sea it slows down, and the sand which it carried sinks to the ground. " * 4
MENU = "Home | Products | Login | Cart (0) | Contact\nPrev Next Index Up\n" * 8


def test_a_build_with_a_hook_drops_shows_and_runs_again_for_another_version(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "a.txt").write_text(PROSE)
    (tmp_path / "web" / "b.txt").write_text(MENU)
    (tmp_path / "river_scores.py").write_text("def score(text):\n    return 0.75 if 'river' in text else 0.25\n")

    def recipe(**quality: Any) -> Any:
        source = {"name": "web", "format": "text", "path": "web"}
        curate = {"rules": ["quality"], "quality": {"classifier": "river_scores:score", **quality}}
        return toy_recipe(tmp_path, source=[source], curate=curate)

    (sample,) = build(recipe(), tmp_path / "out", dry_run=True, progress=False, load=load_toy).rules
    (row,) = sample.rules
    assert (row.rule, row.measured, row.failed, row.lowest, row.highest) == ("quality: improbable", 2, 1, 0.25, 0.75)
    report = build(recipe(), tmp_path / "out", workers=1, progress=False, load=load_toy)
    assert report.dropped == {"quality: improbable": 1} and report.total("samples") == 1
    (line,) = read_ledger(tmp_path / "out" / "ledger" / "web.jsonl")
    assert (line["uri"], line["stage"], line["detail"]) == ("b.txt", "curate", "0.25, at least 0.5")
    again = build(recipe(), tmp_path / "out", workers=1, progress=False, load=load_toy)
    assert sum(stage.stale for stage in again.stages) == 0
    other = build(recipe(version="2"), tmp_path / "out", workers=1, explain=True, progress=False, load=load_toy)
    assert {stage.stage: stage.stale for stage in other.stages}["curate"] == 1
    (tmp_path / "failing_scores.py").write_text("def score(text):\n    raise OSError('no model')\n")
    with pytest.raises(RunError, match=r"no document was kept \(2 quality: the hook failed\)"):
        build(recipe(classifier="failing_scores:score"), tmp_path / "not", workers=1, progress=False, load=load_toy)
