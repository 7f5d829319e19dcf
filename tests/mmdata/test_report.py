"""Report and forecast: each number against a count over the batches that are read."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdata import Batch, Loader, Mixture, Schedule, Stage, UserError
from mmdata.explain import explain_rows
from mmdata.feeds import Feed
from mmdata.plan import Plan
from mmdata.report import forecast
from tests.mmdata.test_explain import films
from tests.mmdata.toy_data import write_source, write_toy_dataset
from tokenizer.item import KINDS
from tokenizer.layout import Layout

L = 128
NAMES = ("web", "films", "speech")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_toy_dataset(tmp_path_factory.mktemp("data"))
    write_source(folder, "films", {"train": films(40)}, num_shards=3)
    return folder


def loader_of(what: Any, **more: Any) -> Loader:
    return Loader(what, **{"seq_len": L, "window_shards": 1, "group_windows": 2, **more})


def staged(data: Path, caps: dict[str, float] | None = None, **more: Any) -> Loader:
    two = {"web": data / "web", "films": data / "films"}
    three = {**two, "speech": data / "speech"}
    stages = [
        Stage(0, Mixture(two, {"web": 0.6, "films": 0.4}), 4),
        Stage(9, Mixture(three, {"web": 0.2, "films": 0.3, "speech": 0.5}), 8, caps),
    ]
    return loader_of(Schedule(stages), **more)


def counted(batch: Batch) -> Counter[str]:
    """Tokens of a batch by kind."""
    return Counter(dict(enumerate(np.bincount(batch.kinds.reshape(-1), minlength=len(KINDS)).tolist())))  # type: ignore[arg-type]


@pytest.mark.parametrize("seq_len", [L, 24])  # in rows of 24 some hold two parts of one document
@pytest.mark.parametrize("name", NAMES)
def test_of_whole_epochs_every_number_is_what_is_read(data: Path, name: str, seq_len: int) -> None:
    rows = loader_of(data / name, batch_size=1, seq_len=seq_len).feeds.feeds[0].plan.num_rows
    loader = loader_of(data / name, batch_size=rows, seq_len=seq_len)  # a step is an epoch
    (feed,) = loader.feeds.feeds
    told = json.loads(json.dumps(forecast(loader, 3)))
    (stage,) = told["stages"]
    kinds: Counter[Any] = sum((counted(loader.batch_at(step)) for step in range(3)), Counter())
    size = sum(
        record_bytes(feed, [d.sample for d in row.documents]) for s in range(3) for row in explain_rows(loader, s)
    )
    for numbers in (stage, stage["sources"][name], told["all"]):
        assert numbers["exact"] and numbers["rows"] == 3 * rows
        assert numbers["codes"] == {kind: kinds[KINDS.index(kind)] for kind in KINDS[1:5]}
        assert numbers["other"] == kinds[KINDS.index("control")]
        assert numbers["tokens"] == sum(kinds.values()) - kinds[0]
        assert numbers["bytes"] == size
    source = told["sources"][name]
    assert (source["tokens"] * 3, source["record_bytes"] * 3) == (stage["tokens"], size)
    assert source["other"] * 3 == stage["other"]
    assert told["all"]["fill"] == pytest.approx(1 - kinds[0] / (3 * rows * seq_len), abs=1e-6)
    assert stage["sources"][name]["epochs"] == 3 and stage["sources"][name]["steps_an_epoch"] == 1
    assert told["all"]["first_epoch_steps"] == 1


def record_bytes(feed: Feed, samples: list[int]) -> int:
    """Of what a row reads: each document's record once."""
    return sum(map(len, feed.source.train.read_records(sorted(set(samples)))))


def test_rows_epochs_and_means_of_two_stages_are_those_of_the_batches(data: Path) -> None:
    loader, steps = staged(data), 26
    told = json.loads(json.dumps(forecast(loader, steps)))
    assert [(s["from_step"], s["to_step"], s["rows"]) for s in told["stages"]] == [(0, 9, 36), (9, 26, 136)]
    past: Counter[str] = Counter()
    for stage in told["stages"]:
        rows: Counter[str] = Counter()
        tokens: Counter[str] = Counter()
        kinds: dict[str, Counter[Any]] = {name: Counter() for name in NAMES}
        for step in range(stage["from_step"], stage["to_step"]):
            batch = loader.batch_at(step)
            for row in explain_rows(loader, step):
                rows[row.source] += 1
                tokens[row.source] += row.tokens
                kinds[row.source].update(batch.kinds[row.row].tolist())
        past += rows
        assert {name: s["rows"] for name, s in stage["sources"].items()} == dict(rows)
        assert sum(s["row_share"] for s in stage["sources"].values()) == pytest.approx(1, abs=1e-5)
        for name, source in stage["sources"].items():
            plan = plan_of(loader, name)
            assert source["epochs"] == pytest.approx(past[name] / plan.num_rows)
            assert rows[name] == pytest.approx(stage["rows"] * source["row_share"], abs=2)
            assert source["steps_an_epoch"] == pytest.approx(
                plan.num_rows / stage["batch_size"] / source["row_share"], 1e-4
            )
            assert not source["exact"]
            assert source["tokens"] == pytest.approx(tokens[name], rel=0.06)
            for kind, codes in source["codes"].items():
                assert codes == pytest.approx(kinds[name][KINDS.index(kind)], rel=0.35, abs=30)
        for key in ("tokens", "bytes", "other"):
            assert stage[key] == sum(s[key] for s in stage["sources"].values())
    assert told["all"]["rows"] == 172 and told["all"]["tokens"] == sum(s["tokens"] for s in told["stages"])
    assert told["all"]["epochs"] == pytest.approx({n: past[n] / plan_of(loader, n).num_rows for n in NAMES})


def plan_of(loader: Loader, name: str) -> Plan:
    return next(feed.plan for feed in loader.feeds.feeds if feed.name == name)


def test_the_first_epoch_of_the_whole_ends_when_the_last_row_has_come(data: Path) -> None:
    loader = staged(data)
    steps = forecast(loader, 100)["all"]["first_epoch_steps"]
    wanted = {(feed.name, row) for feed in loader.feeds.feeds for row in range(feed.plan.num_rows)}
    for step in range(steps):
        assert wanted, f"all had come before step {step}"
        found = loader.feeds.locate(step)
        wanted -= {(loader.feeds.feeds[i].name, row) for i, row in zip(found.feed.tolist(), found.row.tolist())}
    assert not wanted
    never = Schedule([Stage(0, Mixture({"web": data / "web"}), 1), Stage(2, Mixture({"films": data / "films"}), 1)])
    assert forecast(loader_of(never), 10)["all"]["first_epoch_steps"] is None


def test_bytes_are_shared_by_data_shards_and_steps(data: Path) -> None:
    told = forecast(staged(data), 26, data_shards=4)["all"]
    assert told["bytes_a_data_shard"] == pytest.approx(told["bytes"] / 4, abs=1)
    assert told["bytes_a_step"] == pytest.approx(told["bytes"] / 26, abs=1)


def test_a_cap_is_passed_at_the_step_that_the_loader_refuses(data: Path) -> None:
    num_rows = plan_of(staged(data), "speech").num_rows
    for most_rows in range(num_rows, num_rows + 8):
        loader = staged(data, {"speech": (most_rows + 0.5) / num_rows, "web": 1000})
        told = forecast(loader, 60)
        speech, web = sorted(told["caps"], key=lambda cap: cap["source"])
        assert speech["most_rows"] == most_rows < speech["rows"] and speech["rows_an_epoch"] == num_rows
        assert web["passed_at"] is None and web["rows"] < web["most_rows"]
        loader.batch_at(speech["passed_at"] - 1)
        with pytest.raises(UserError, match="has given all rows"):
            loader.batch_at(speech["passed_at"])
        with pytest.raises(UserError) as error:
            loader.check(60)
        assert told["error"] == str(error.value) and "'speech'" in told["error"]
        assert forecast(loader, speech["passed_at"])["error"] is None


def test_stages_after_the_last_step_are_not_counted(data: Path) -> None:
    told = forecast(staged(data), 9)
    assert [stage["from_step"] for stage in told["stages"]] == [0] and told["unreached_stages"] == [9]
    assert told["all"]["rows"] == 36 and told["all"]["epochs"]["speech"] == 0


def test_waste_is_what_last_rows_leave_empty(data: Path) -> None:
    loader = staged(data)
    for name, source in forecast(loader, 1)["sources"].items():
        plan = plan_of(loader, name)
        empty = 0
        for first, last in zip(plan.windows.tolist(), plan.windows.tolist()[1:]):
            if last > first:
                empty += L - int(plan.length[plan.rows[last - 1] : plan.rows[last]].sum())
        assert source["waste"]["tokens"] == empty and 0 < source["waste"]["share"] < 1 - source["fill"] + 1e-6
        assert source["waste"]["share"] == pytest.approx(empty / (plan.num_rows * L), abs=1e-6)


def test_split_and_left_out_documents_are_counted_with_examples(data: Path) -> None:
    loader = staged(data, seq_len=24)
    for feed in loader.feeds.feeds:
        source = forecast(loader, 1)["sources"][feed.name]
        pieces = Counter(feed.plan.sample.tolist())
        split = sorted(sample for sample, count in pieces.items() if count > 1)
        assert source["split"]["documents"] == len(split) > 5
        assert [(e["sample"], e["pieces"]) for e in source["split"]["examples"]] == [(s, pieces[s]) for s in split[:5]]
        for example in source["split"]["examples"]:
            sample = feed.source.train[example["sample"]]
            assert (example["id"], example["uri"]) == (sample.id, sample.uri)
    assert any(feed.plan.report["left_out"]["examples"] for feed in loader.feeds.feeds)


def test_parallel_streams_have_no_other_tokens(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = staged(data)
    monkeypatch.setattr(Layout, "num_streams", 3)
    told = forecast(loader, 3)
    assert told["all"]["other"] is None and told["stages"][0]["other"] is None and told["all"]["tokens"]
