"""Mixtures by ablation: shares, their run files, and that only the mixture differs between trainings."""

import json
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mmdata.errors import UserError
from mmdata.manifest import write_dataset_manifest
from mmdata.sample import Sample
from pipelines.config import read_toml
from pipelines.look.ablation_page import print_ablation, write_ablation_page
from pipelines.look.layouts import layout_file
from pipelines.train.ablate import Point, ablate, base_weights, mixtures, parse_shares
from pipelines.train.folder import read_metrics
from pipelines.train.run import load_run
from tests.mmdata.toy_data import write_source, write_toy_dataset
from tests.pipelines.look.toy_run import say
from tokenizer.item import Item

RUN = """
data = "data"
seq_len = 96
batch_size = 4
steps = 4
[model]
layers = 1
width = 16
heads = 2
head_dim = 8
mlp = 32
[optimizer]
learning_rate = 0.01
warmup_steps = 2
[evaluate]
batches = 2
"""
BASE = {"web": Fraction(1, 2), "books": Fraction(1, 4), "talks": Fraction(1, 4)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablate")
    write_toy_dataset(folder / "data")
    (folder / "run.toml").write_text(RUN)
    return folder


def test_the_others_keep_their_proportions_in_what_is_left() -> None:
    (_, first), (_, second) = mixtures(BASE, {"books": ["0.5", "0.1"]}, "run.toml")
    assert first == {"web": Fraction(1, 3), "books": Fraction(1, 2), "talks": Fraction(1, 6)}
    assert second["web"] == 2 * second["talks"] and sum(second.values()) == 1


def test_every_combination_of_shares_is_a_mixture() -> None:
    found = mixtures(BASE, {"web": ["0.1", "0.2"], "books": ["0", "0.3"]}, "run.toml")
    assert [list(varied.values()) for varied, _ in found] == [
        ["0.1", "0"],
        ["0.1", "0.3"],
        ["0.2", "0"],
        ["0.2", "0.3"],
    ]
    assert all(sum(weights.values()) == 1 for _, weights in found)
    assert found[0][1]["talks"] == Fraction(9, 10)


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        ({"wep": ["0.1"]}, "no source 'wep'; did you mean 'web'"),
        ({"web": ["0.6"], "books": ["0.6"]}, "sum to 1.2; they are shares of all tokens, at most 1"),
        ({"web": ["0.2"], "books": ["0.2"], "talks": ["0.2"]}, "1 where no other source has a weight"),
        ({"web": ["-1"]}, "the share of 'web' is '-1'"),
        ({"web": ["0.2", "0.2"]}, "give different shares"),
        ({"web": []}, "give different shares"),
        ({}, "nothing varies"),
    ],
)
def test_shares_that_do_not_fit_are_refused(vary: dict[str, list[str]], words: str) -> None:
    with pytest.raises(UserError, match=words):
        mixtures(BASE, vary, "run.toml")


def test_shares_are_read_from_the_command_line() -> None:
    assert parse_shares(["web=0.2, 0.4", "books=0"]) == {"web": ["0.2", "0.4"], "books": ["0"]}
    for wrong in (["web"], ["=0.2"], ["web=0.1", "web=0.2"]):
        with pytest.raises(UserError, match="give each source once"):
            parse_shares(wrong)


def test_each_mixture_is_a_run_of_the_same_tokens_and_another_weight(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = load_run(home / "run.toml")
    base = base_weights(run)
    assert sum(base.values()) == 1 and all(base.values())
    source = sorted(base)[0]
    points = ablate(home / "run.toml", home / "out", {source: ["0.1", "0.7"]}, seeds=2)
    files = [read_toml(home / "out" / name / "run.toml") for point in points for name in point.runs]
    assert [file["stage"][0]["weights"][source] for file in files] == [0.1, 0.1, 0.7, 0.7]
    assert [file["seed"] for file in files] == [0, 1, 0, 1]
    apart = ("stage", "seed", "steps", "optimizer")  # the last two: as many steps as the tokens take
    same = [{key: value for key, value in file.items() if key not in apart} for file in files]
    assert all(file == same[0] for file in same)
    budget = points[0].tokens[0]  # of the four steps of the run
    assert [point.budget for point in points] == [budget, budget] and points[0].steps[0] == 4
    for point in points:
        for name, tokens, steps in zip(point.runs, point.tokens, point.steps, strict=True):
            lines = read_metrics(home / "out" / name)
            learnt = [sum(line["tokens"].values()) for line in lines if "tokens" in line]
            assert sum(learnt) == tokens and len(learnt) == steps
            assert sum(learnt[:-1]) < budget <= tokens
    for file in files:
        assert file["optimizer"]["decay_steps"] == file["steps"]
    assert points[0].loss != points[1].loss and all(value > 0 for value in points[0].spread.values())
    assert json.loads((home / "out" / "ablation.json").read_text())[1]["varied"] == {source: 0.7}
    # Nothing is trained again
    before = {path: path.stat().st_mtime_ns for path in (home / "out").rglob("metrics.jsonl")}
    assert ablate(home / "run.toml", home / "out", {source: ["0.1", "0.7"]}, seeds=2) == points
    assert before == {path: path.stat().st_mtime_ns for path in (home / "out").rglob("metrics.jsonl")}
    capsys.readouterr()
    print_ablation(points, home / "out")
    printed = capsys.readouterr().out
    assert f"{source} 0.1" in printed and "*" in printed and "±" in printed
    assert f"learns from {budget:,} tokens that count in the loss" in " ".join(printed.split())
    page = write_ablation_page(points, home / "out").read_text()
    assert f"learns from {budget:,} tokens" in page and f"<td>{budget:,}" in page
    assert page.count("<svg") == len(points[0].loss) and f"{points[0].loss['text']:.4f}" in page


def test_a_mixture_whose_batches_have_fewer_tokens_has_more_steps(tmp_path: Path) -> None:
    """Two documents of 49 codes do not fit a row of 96, one of 90 does."""
    write_source(tmp_path / "data", "texts", {"train": texts(60, 90), "validation": texts(2, 90)})
    write_source(tmp_path / "data", "halves", {"train": texts(60, 49), "validation": texts(2, 49)})
    write_dataset_manifest(tmp_path / "data", ["texts", "halves"])
    (tmp_path / "run.toml").write_text(RUN)
    few, many = ablate(tmp_path / "run.toml", tmp_path / "out", {"texts": ["0", "1"]}, tokens=900)
    assert few.steps[0] > many.steps[0] > 1
    for point in (few, many):
        assert 900 <= point.tokens[0] < 900 + 4 * 96
    with pytest.raises(UserError, match="give one of them"):
        ablate(tmp_path / "run.toml", tmp_path / "out", {"texts": ["0", "1"]}, tokens=900, steps=3)


def texts(num: int, length: int) -> list[Sample]:
    """Documents of one text of so many codes."""
    codes = np.arange(num * length, dtype=np.int32).reshape(num, length, 1) % 200
    names = [f"{length:016x}{i:016x}" for i in range(num)]
    return [Sample(name, name, "toy", (Item("text", "toy-text@1", one),), uri=name) for name, one in zip(names, codes)]


def test_a_mixture_that_teaches_nothing_is_refused(home: Path, tmp_path: Path) -> None:
    loss = re.compile(r"(?s)\n\[loss\].*?\n\n")
    (home / "silent.toml").write_text(loss.sub(lambda found: found[0].replace("1.0", "0.0"), layout_file("mmdata")))
    (home / "silent-run.toml").write_text(f'layout = "silent.toml"\n{RUN}')
    source = sorted(load_run(home / "run.toml").sources)[0]
    with pytest.raises(UserError, match=r"no token of 4 steps .* counts in the loss"):
        ablate(home / "silent-run.toml", tmp_path / "out", {source: ["0.1"]})


def test_the_command_needs_no_folder_and_its_json_is_all_that_it_prints(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    source = sorted(load_run(home / "run.toml").sources)[0]
    words = ("ablate", home / "run.toml", "--vary", f"{source}=0.2,0.4")
    code, printed, _ = say(capfd, monkeypatch, *words, "--json")
    assert code == 0
    points = json.loads(printed)
    assert [point["varied"] for point in points] == [{source: 0.2}, {source: 0.4}]
    folder = tmp_path / "runs" / "ablate" / "run"
    assert json.loads((folder / "ablation.json").read_text()) == points and (folder / "ablation.html").exists()
    code, printed, _ = say(capfd, monkeypatch, *words)
    assert code == 0 and f"{source} 0.4" in printed and "ablation.html" in printed


def test_a_run_of_several_stages_is_refused(home: Path) -> None:
    (home / "stages.toml").write_text(RUN + "[[stage]]\n[[stage]]\nfrom_step = 2\n")
    with pytest.raises(UserError, match="has 2 stages"):
        ablate(home / "stages.toml", home / "other", {"web": ["0.1"]})


def test_too_many_trainings_are_refused(home: Path) -> None:
    source = sorted(load_run(home / "run.toml").sources)[0]
    with pytest.raises(UserError, match="65 mixtures x 1 seeds"):
        ablate(home / "run.toml", home / "other", {source: [f"0.{i:03}" for i in range(65)]})
    assert not (home / "other").exists()


def test_a_point_says_what_varies() -> None:
    point = Point({"web": 0.2}, {"web": 0.2, "books": 0.8}, 10, (10,), (1,), {"text": 1.0}, {"text": 0.0}, ("web-0.2",))
    from pipelines.look.ablation_page import mixture_words

    assert mixture_words(point) == "web 0.2"
