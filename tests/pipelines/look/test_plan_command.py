"""`mmdata plan`: what it prints is the forecast, it makes plans once, and needs neither a model nor a device."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from mmdata.report import forecast
from pipelines.look.runs import open_run
from tests.pipelines.look.toy_run import RUN, STEPS, say, write_run

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def mmdata(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    return partial(say, capfd, monkeypatch)


def test_json_is_the_forecast_of_the_runs_steps(mmdata: Say, run_file: Path) -> None:
    code, out, err = mmdata("plan", run_file, "--json", "--data-shards", 2)
    told = json.loads(out)
    assert code == 0 and not err
    run, loader, _ = open_run(run_file)
    assert run.settings.steps == STEPS
    expected = json.loads(json.dumps(forecast(loader, STEPS, 2)))
    assert {key: told[key] for key in expected} == expected
    assert told["run"] == str(run_file) and told["data_shards"] == 2


def test_plans_are_made_once(mmdata: Say, tmp_path: Path) -> None:
    run_file = write_run(tmp_path)
    first, second = (json.loads(mmdata("plan", run_file, "--json")[1])["planning"] for _ in range(2))
    assert sorted(first["made"]) == ["speech", "web"] and not first["cached"] and first["seconds"] > 0
    assert sorted(second["cached"]) == ["speech", "web"] and not second["made"]


def test_a_pipe_gets_plain_lines_that_say_all_of_it(mmdata: Say, run_file: Path) -> None:
    code, out, err = mmdata("plan", run_file)
    assert code == 0 and not err and "\x1b" not in out and "…" not in out
    told = json.loads(mmdata("plan", run_file, "--json")[1])
    for stage in told["stages"]:
        assert f"steps {stage['from_step']:,} to {stage['to_step'] - 1:,}: {stage['batch_size']} rows a step" in out
        for name, source in stage["sources"].items():
            line = next(line for line in out.splitlines() if line.split()[:2] == [name, f"{source['row_share']:.2%}"])
            assert line.split()[2:5] == [
                str(source["rows"]),
                f"{source['steps_an_epoch']:.1f}",
                f"{source['epochs']:.2f}",
            ]
            assert f"~{source['tokens']:,}" in out
    assert f"every row of every source has come once after {told['all']['first_epoch_steps']} steps" in out
    for source in told["sources"].values():
        for example in source["split"]["examples"]:
            assert f"{example['id']} {example['uri']} in {example['pieces']} pieces" in out
    assert "cap: speech has given" in out and "PASSED" not in out


def test_a_cap_that_would_be_passed_is_said_and_fails(mmdata: Say, run_file: Path) -> None:
    long = run_file.with_name("long.toml")
    long.write_text(RUN.replace(f"steps = {STEPS}", "steps = 900"))
    code, out, err = mmdata("plan", long)
    told = json.loads(mmdata("plan", long, "--json")[1])
    (cap,) = told["caps"]
    assert code == 2 and f"PASSED at step {cap['passed_at']}" in out
    assert err == f"mmdata: {told['error']}\n" and "'speech'" in err and "raise the cap" in err


def test_a_batch_that_does_not_divide_is_refused(mmdata: Say, run_file: Path) -> None:
    code, out, err = mmdata("plan", run_file, "--data-shards", 3)
    assert (code, out) == (2, "") and err.count("\n") == 1 and "does not divide by 3 data shards" in err


def test_planning_starts_no_device(run_file: Path) -> None:
    """With a platform that there is none of, anything that asks JAX for a device fails."""
    words = [sys.executable, "-m", "pipelines.cli", "plan", str(run_file), "--json"]
    done = subprocess.run(words, env={**os.environ, "JAX_PLATFORMS": "none"}, capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)["steps"] == STEPS, done.stderr
