"""Training on a small real dataset: learning, folders, resuming, killing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

import mmdata
from mmdata.errors import RunError, UserError
from pipelines.train import sharding
from pipelines.train.checkpoint import Checkpoints, restore_params
from pipelines.train.evaluate import entropy
from pipelines.train.folder import Metrics, read_layout, read_metrics
from pipelines.train.quarantine import next_batch
from pipelines.train.run import RunSettings, load_run, make_loader, open_loader, to_toml
from pipelines.train.trainer import train, train_on
from tests.mmdata.toy_data import write_toy_dataset
from tokenizer.codec import CodecSpec
from tokenizer.layout import load_layout

STEPS = 9
TOY = f"""
data = "data"
seq_len = 96
batch_size = 4
steps = {STEPS}
[model]
layers = 1
width = 16
heads = 2
head_dim = 8
mlp = 32
[optimizer]
learning_rate = 0.01
warmup_steps = 2
[checkpoint]
every = 3
[evaluate]
every = 4
batches = 2
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/ and a run file."""
    folder = tmp_path_factory.mktemp("train")
    write_toy_dataset(folder / "data")
    (folder / "run.toml").write_text(TOY)
    return folder


@pytest.fixture(scope="module")
def finished(home: Path) -> dict[str, Any]:
    """A run that nothing disturbed."""
    return train(home / "run.toml", home / "whole")


def variant(home: Path, name: str, old: str, new: str) -> Path:
    assert old in TOY
    (home / f"{name}.toml").write_text(TOY.replace(old, new))
    return home / f"{name}.toml"


def without_times(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in ("seconds", "data_wait_s", "tokens_per_s")} for line in lines]


def assert_same_run(folder: Path, other: Path) -> None:
    """The same steps, the same bits."""
    (step, ours), (other_step, theirs) = restore_params(folder / "checkpoints"), restore_params(other / "checkpoints")
    assert step == other_step
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert without_times(read_metrics(folder)) == without_times(read_metrics(other))


def test_a_run_learns_and_tells_loss_and_baseline_by_kind(home: Path, finished: dict[str, Any]) -> None:
    assert finished["steps"] == STEPS and finished["last_loss"] < finished["first_loss"]
    assert set(finished["validation"]) == {"text", "image", "audio", "control"}
    assert finished["validation"]["image"]["baseline"] == pytest.approx(np.log(50))
    assert 4 < finished["validation"]["text"]["baseline"] <= np.log(200)
    assert json.loads((home / "whole/summary.json").read_text()) == finished
    lines = [line for line in read_metrics(home / "whole") if "loss" in line]
    assert [line["step"] for line in lines] == list(range(STEPS))
    assert set(lines[0]["loss"]) <= {"text", "image", "audio", "video", "control"}
    assert [line["step"] for line in read_metrics(home / "whole") if "validation" in line] == [3, 7]


def test_a_folder_says_what_its_run_is(home: Path, finished: dict[str, Any]) -> None:
    told = json.loads((home / "whole/layout.json").read_text())
    layout = read_layout(home / "whole")
    assert told["digest"] == layout.digest == open_loader(home / "whole").layout.digest
    assert told["vocabulary_size"] == layout.vocabulary.size
    run = load_run(home / "whole")
    assert run.settings.optimizer.decay_steps == STEPS and set(run.sources) == {"web", "speech"}
    assert "/" not in (home / "whole/run.toml").read_text().replace("../data", "")  # no path of this machine


@pytest.mark.parametrize("ends", ["well", "no checkpoint"])
def test_workers_make_training_batches_alone_and_end_with_the_run(
    home: Path, finished: dict[str, Any], ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(variant(home, "workers", "steps = 9", "steps = 9\nworkers = 2"))
    loader = make_loader(run)
    validation = make_loader(run, "validation", layout=loader.layout)
    assert (loader.workers, validation.workers) == (2, 0)
    seen: list[list[int]] = []

    def batch(loader: mmdata.Loader, folder: Path) -> mmdata.Batch:
        made = next_batch(loader, folder)
        seen.append(loader.worker_pids)
        return made

    def close(self: Checkpoints) -> None:
        raise RunError("no space left for a checkpoint")

    monkeypatch.setattr("pipelines.train.trainer.next_batch", batch)
    mesh, out = sharding.make_mesh(1, 1, 1), home / f"workers-{ends.split()[0]}"
    if ends == "well":
        train_on(loader, validation, run, out, mesh)
        assert_same_run(out, home / "whole")
    else:
        monkeypatch.setattr(Checkpoints, "close", close)
        with pytest.raises(RunError, match="for a checkpoint"):
            train_on(loader, validation, run, out, mesh)
    assert len(seen) == STEPS and all(len(pids) == 2 for pids in seen)
    assert not any(Path(f"/proc/{pid}").exists() for pid in seen[-1]) and not loader.worker_pids


def test_a_finished_run_is_not_run_again(home: Path, finished: dict[str, Any]) -> None:
    before = (home / "whole/metrics.jsonl").read_bytes()
    assert train(home / "run.toml", home / "whole") == finished
    assert (home / "whole/metrics.jsonl").read_bytes() == before


def test_a_killed_run_goes_on_and_ends_with_the_same_bits(home: Path, finished: dict[str, Any], root: Path) -> None:
    out = home / "killed"
    program = "import sys; from pipelines.train.trainer import train; train(sys.argv[1], sys.argv[2])"
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(home / "run.toml"), str(out)],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while len(read_metrics(out)) < 5 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(read_metrics(out)) >= 5
    assert train(home / "run.toml", out)["steps"] == STEPS
    assert_same_run(out, home / "whole")


def test_steps_may_be_raised_where_the_cosine_is_pinned(home: Path, finished: dict[str, Any]) -> None:
    half = variant(home, "half", f"steps = {STEPS}", "steps = 5")
    half.write_text(half.read_text().replace("warmup_steps = 2", f"warmup_steps = 2\ndecay_steps = {STEPS}"))
    train(half, home / "raised")
    train(home / "run.toml", home / "raised")
    assert_same_run(home / "raised", home / "whole")


def test_a_folder_of_another_run_is_refused_by_the_first_difference(home: Path, finished: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"another run: optimizer.learning_rate is 0.01 in its run.toml and 0.02"):
        train(variant(home, "rate", "learning_rate = 0.01", "learning_rate = 0.02"), home / "whole")
    with pytest.raises(UserError, match="seq_len is 96"):
        train(variant(home, "length", "seq_len = 96", "seq_len = 64"), home / "whole")


def test_other_data_is_refused_when_going_on(home: Path, finished: dict[str, Any]) -> None:
    write_toy_dataset(home / "other", {"web": 100, "speech": 61})
    half = variant(home, "elsewhere", 'data = "data"', 'data = "other"')
    half.write_text(
        half.read_text()
        .replace(f"steps = {STEPS}", "steps = 12")
        .replace("warmup_steps = 2", f"warmup_steps = 2\ndecay_steps = {STEPS}")
    )
    with pytest.raises(UserError, match="another past"):
        train(half, home / "whole")


def test_a_folder_that_holds_something_else_is_refused(home: Path) -> None:
    with pytest.raises(UserError, match="holds a dataset"):
        train(home / "run.toml", home / "data")
    (home / "letters").mkdir()
    (home / "letters/a.txt").write_text("dear")
    with pytest.raises(UserError, match=r"not empty and holds no run \(a.txt\)"):
        train(home / "run.toml", home / "letters")
    assert os.listdir(home / "letters") == ["a.txt"]


def test_a_validation_loader_is_refused_as_training_data(home: Path) -> None:
    run = load_run(home / "run.toml")
    with pytest.raises(UserError, match="reads the validation split"):
        train_on(make_loader(run, "validation"), None, run, home / "never", sharding.make_mesh(1))
    assert not (home / "never").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("layers = 1", "layer = 1", "unknown key 'model.layer'; did you mean 'layers'"),
        ('data = "data"', 'data = "dota"', "data = 'dota' is not there"),
        ('data = "data"', "", "give either data"),
        ("head_dim = 8", "head_dim = 7", "model.head_dim"),
        ("batch_size = 4", "batch_size = 4\n[[stage]]\nweights = {web = 1, spech = 2}", "names 'spech'"),
        ("batch_size = 4", "batch_size = 4\n[[stage]]\nmax_epochs = {web = 1, speech = 1}\n", "epoch"),
    ],
)
def test_a_wrong_run_file_is_one_clear_line(home: Path, old: str, new: str, words: str) -> None:
    text = TOY.replace(old, new) if "[[stage]]" not in new else TOY + new.split("\n", 1)[1]
    (home / "wrong.toml").write_text(text.replace(f"steps = {STEPS}", "steps = 4000"))
    with pytest.raises(UserError, match=words.replace("'", ".")) as told:
        train(home / "wrong.toml", home / "never")
    assert "\n" not in str(told.value)


def test_stages_become_a_schedule(home: Path) -> None:
    text = TOY + "\n[[stage]]\nweights = {web = 0.75, speech = 0.25}\n[[stage]]\nfrom_step = 4\nbatch_size = 2\n"
    (home / "stages.toml").write_text(text)
    loader = open_loader(home / "stages.toml")
    assert loader.batch_at(0).tokens.shape == (4, 96) and loader.batch_at(4).tokens.shape == (2, 96)
    assert isinstance(loader, mmdata.Loader)


def test_toml_written_is_toml_read() -> None:
    import tomllib

    tail = {"g": [{"h": {"i": 1}}], "j": {}}
    table = {"a": 'x "y" \\ é\n', "b": [1, 2.5], "c": True, "d": {"e-f": 1e-05, "ü": "v"}, **tail}
    assert tomllib.loads(to_toml(table)) == {k: v for k, v in table.items() if k != "j"}


def test_metrics_drop_steps_that_are_done_again(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n{"step": 1}\n{"step": 2}\n{"ste')
    metrics = Metrics(tmp_path, 2)
    metrics.write({"step": 2})
    metrics.close()
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 1, 2]


def test_entropy_is_in_nats() -> None:
    assert entropy(np.array([3, 3, 0, 3])) == pytest.approx(np.log(3))


def test_a_layout_that_is_learnt_by_masking_is_refused(tmp_path: Path) -> None:
    codecs = [CodecSpec("t@1", "text", (300,), "", True), CodecSpec("i@1", "image", (16,), "", False)]
    loader = SimpleNamespace(split="train", layout=load_layout("show-o").bind(codecs))
    run = SimpleNamespace(settings=RunSettings())
    with pytest.raises(UserError, match=r"show-o learns image codes by masking.* set image = 0.0 under \[loss\]"):
        train_on(loader, None, run, tmp_path, None)
