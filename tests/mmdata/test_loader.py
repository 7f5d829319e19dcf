"""Loader: a batch is a pure function of its step; resume, data shards and threads change nothing."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import mmdata
from mmdata import Batch, Loader, Mixture, Schedule, Stage, UserError
from mmdata.errors import RunError
from mmdata.manifest import finish_source
from mmdata.media import Media, write_media
from mmdata.sample import Sample
from mmdata.shards import write_shard
from tests.mmdata.toy_data import CODECS, toy_samples, write_source, write_toy_dataset
from tokenizer.item import Item
from tokenizer.layout import load_layout

L, B = 128, 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_dataset(tmp_path_factory.mktemp("data"))


def loader_of(data: Any, **more: Any) -> Loader:
    return Loader(data, **{"seq_len": L, "batch_size": B, "window_shards": 1, "group_windows": 2, **more})


def equal(a: Batch, b: Batch) -> bool:
    x, y = a.arrays(), b.arrays()
    return x.keys() == y.keys() and all(np.array_equal(x[name], y[name]) for name in x)


def schedule_of(data: Path, **last: Any) -> Schedule:
    both = {"web": data / "web", "speech": data / "speech"}
    first = Mixture(both, weights={"web": 0.7, "speech": 0.3})
    second = Mixture(both, weights={"web": 0, "speech": 1})
    return Schedule([Stage(0, first, 8), Stage(3, second, 4), Stage(5, first, 16, **last)])


def test_a_batch_has_the_fields_and_types_of_the_format(data: Path) -> None:
    batch = loader_of(data).batch_at(0)
    shapes = {name: (array.dtype.name, array.shape) for name, array in batch.arrays().items()}
    assert shapes == {
        "tokens": ("int32", (B, L)),
        "targets": ("int32", (B, L)),
        "loss_weights": ("float32", (B, L)),
        "segment_ids": ("int32", (B, L)),
        "positions": ("int32", (B, L)),
        "kinds": ("uint8", (B, L)),
    }
    padding = batch.segment_ids == 0
    for array in batch.arrays().values():
        assert not array[padding].any()
    inside = batch.segment_ids[:, :-1] == batch.segment_ids[:, 1:]
    inside &= ~padding[:, :-1]
    np.testing.assert_array_equal(batch.targets[:, :-1][inside], batch.tokens[:, 1:][inside])
    assert not batch.loss_weights[:, :-1][~inside].any() and not batch.loss_weights[:, -1].any()
    assert batch.loss_weights.sum() > 0.5 * (~padding).sum()


def test_a_batch_is_a_pytree(data: Path) -> None:
    batch = loader_of(data).batch_at(0)
    assert len(jax.tree.leaves(batch)) == 6
    doubled = jax.tree.map(lambda a: a * 2, batch)
    assert isinstance(doubled, Batch) and (doubled.tokens == 2 * batch.tokens).all()
    assert int(jax.jit(lambda b: b.tokens.sum())(batch)) == batch.tokens.sum()


def test_an_epoch_holds_every_code_once_and_no_segment_mixes_documents(data: Path) -> None:
    loader = loader_of(data)
    layout, ds = loader.layout, mmdata.open(data)
    samples = {s.id: s for name in ds for s in ds[name].train}
    numbers = loader.report()["sources"]
    rows = sum(plan["rows"] for plan in numbers.values())
    seen: dict[str, list[tuple[int, int]]] = {}
    for step in range(rows // B + 3):
        batch = loader.batch_at(step)
        for e in loader.explain(step):
            if e.epoch:
                continue
            here = slice(e.column, e.column + e.length)
            assert (batch.segment_ids[e.row, here] == e.segment).all()
            sample = samples[e.id]
            row = layout.render(sample.items, layout.choose(sample.items, 0, e.id, e.epoch), (e.start, e.stop))
            np.testing.assert_array_equal(batch.tokens[e.row, here], row.tokens)
            assert e.uri == sample.uri and e.spans
            seen.setdefault(e.id, []).append((e.start, e.stop))
    missing = set(samples) - set(seen)
    assert len(missing) <= 2  # the sources end their first epoch at different steps
    for name, parts in seen.items():
        places = sum(item.codes.shape[0] if item.kind != "image" else 1 for item in samples[name].items)
        assert sum(b - a for a, b in parts) == places and len(set(parts)) == len(parts)
    assert any(len(parts) > 1 for parts in seen.values())


def test_the_stream_goes_on_exactly_from_every_state(data: Path) -> None:
    loader = loader_of(data)
    states, batches = [], []
    for _ in range(12):
        states.append(json.loads(json.dumps(loader.state())))
        batches.append(next(loader))
    loader.close()
    again = loader_of(data)
    for step, state in enumerate(states):
        again.restore(state)
        assert again.step == step and equal(next(again), batches[step])
        assert equal(again.batch_at(step), batches[step])
    again.close()


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_data_shards_and_threads_change_no_row(data: Path, shards: int) -> None:
    whole = loader_of(schedule_of(data), batch_size=None)
    for index in range(shards):
        part = loader_of(schedule_of(data), batch_size=None, shard=(index, shards), threads=shards - 1, read_ahead=3)
        for step in range(7):
            batch, expected = next(part), whole.batch_at(step)
            size = len(expected.tokens) // shards
            for name, array in batch.arrays().items():
                np.testing.assert_array_equal(array, expected.arrays()[name][index * size : (index + 1) * size])
        assert part.state() == {**whole.state(), "step": 7, "stages": part.state()["stages"]}
        part.close()


def test_stages_change_batch_size_and_share_and_go_on_with_each_source(data: Path) -> None:
    loader = loader_of(schedule_of(data), batch_size=None)
    assert [len(loader.batch_at(step).tokens) for step in (0, 3, 4, 5)] == [8, 4, 4, 16]
    assert {e.source for step in (3, 4) for e in loader.explain(step)} == {"speech"}
    # Whatever the stages, no piece of a source comes twice in one epoch.
    pieces = [(e.source, e.epoch, e.id, e.start) for step in range(8) for e in loader.explain(step)]
    assert len(set(pieces)) == len(pieces)


def test_an_epoch_cap_is_refused_beforehand_and_when_it_comes(data: Path) -> None:
    loader = loader_of(schedule_of(data, max_epochs={"speech": 1}), batch_size=None)
    loader.check(6)
    with pytest.raises(UserError, match=r"'speech' would give .* its max_epochs allow"):
        loader.check(200)
    with pytest.raises(UserError, match="has given all rows"):
        loader.batch_at(200)


def test_validation_is_one_epoch_and_can_be_read_again(data: Path) -> None:
    loader = loader_of(data, split="validation", batch_size=3)
    first, second = list(loader), list(loader)
    assert len(first) == len(second) == loader.num_steps
    assert all(equal(a, b) for a, b in zip(first, second))
    ids = {e.id for step in range(len(first)) for e in loader.explain(step)}
    ds = mmdata.open(data)
    assert ids == {s.id for name in ds for s in ds[name].validation}
    pieces = [(e.id, e.start) for step in range(len(first)) for e in loader.explain(step)]
    assert len(set(pieces)) == len(pieces)
    assert {len(batch.tokens) for batch in first} == {3}  # the last is filled up with padding
    with pytest.raises(UserError, match="read once"):
        loader_of(schedule_of(data), batch_size=None, split="validation")


def test_a_state_with_another_past_is_refused_by_its_first_difference(data: Path) -> None:
    loader = loader_of(schedule_of(data), batch_size=None)
    loader.restore({**loader.state(), "step": 4} | {"stages": loader._state_at(4, ())["stages"]})
    state = json.loads(json.dumps(loader.state()))
    for more, where in (
        ({"seed": 1}, "seed is 0 in it and 1 here"),
        ({"seq_len": 256}, "plan.seq_len is 128 in it and 256 here"),
        ({"limits": {"images": 1}}, "plan.limits.images is missing in it and 1 here"),
    ):
        with pytest.raises(UserError, match=where):
            loader_of(schedule_of(data), **{"batch_size": None, **more}).restore(state)
    changed = schedule_of(data)
    moved = Schedule([*changed.stages[:1], Stage(3, changed.stages[1].mixture, 8)])
    with pytest.raises(UserError, match=r"stages\[1\].batch_size is 4 in it and 8 here"):
        loader_of(moved, batch_size=None).restore(state)
    with pytest.raises(UserError, match="the number of stages is 2 in it and 1 here"):
        loader_of(Schedule(changed.stages[:1]), batch_size=None).restore(state)
    later = Schedule([*changed.stages[:2], Stage(4, changed.stages[0].mixture, 32)])
    other = loader_of(later, batch_size=None)
    other.restore(state)  # what begins now or later is free
    assert other.step == 4 and len(other.batch_at(4).tokens) == 32
    for wrong in ({}, {"step": 1, "version": 7}, "text"):
        with pytest.raises(UserError):
            loader.restore(wrong)  # type: ignore[arg-type]


def test_explain_finds_the_steps_of_a_document(data: Path) -> None:
    loader = loader_of(schedule_of(data), batch_size=None)
    seen: dict[str, set[tuple[int, int]]] = {}
    for step in range(20):
        for e in loader.explain(step):
            seen.setdefault(e.id, set()).add((step, e.row))
    for name in sorted(seen)[::10]:
        assert loader.steps_of(name, 20) == sorted(seen[name])
    assert loader.steps_of("0" * 32, 20) == []
    with pytest.raises(UserError, match="no row 8"):
        loader.explain(0, row=8)


def test_a_document_of_one_epoch_is_at_no_step_after_it(data: Path) -> None:
    loader = loader_of(data, split="validation", batch_size=7)
    assert loader.num_steps is not None
    explained = [e for step in range(loader.num_steps) for e in loader.explain(step)]
    for name in sorted({e.id for e in explained}):
        places = {(e.step, e.row) for e in explained if e.id == name}
        assert loader.steps_of(name, loader.num_steps + 50) == sorted(places)


def test_a_step_that_failed_is_not_passed_over(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader, expected = loader_of(data, read_ahead=4), [loader_of(data).batch_at(step) for step in range(5)]
    plain, failures = loader.read, [2]

    def batch_at(step: int) -> Batch:
        if step in failures:
            raise RunError("a bad moment")
        return plain(step)

    monkeypatch.setattr(loader, "read", batch_at)
    assert equal(next(loader), expected[0]) and equal(next(loader), expected[1])
    for _ in range(2):
        with pytest.raises(RunError, match="a bad moment"):
            next(loader)
    assert loader.state()["step"] == 2
    failures.clear()
    assert all(equal(next(loader), batch) for batch in expected[2:])
    loader.close()


def test_a_quarantined_record_keeps_its_place_as_padding(data: Path) -> None:
    plain = loader_of(data)
    target = plain.explain(4, row=0)[0]
    split = mmdata.open(data)[target.source].train
    shard = int(np.searchsorted(split.shard_bounds, target.sample, side="right")) - 1
    record = target.sample - int(split.shard_bounds[shard])
    entry = {"source": target.source, "shard": split.shards[shard].file, "record": record, "from_step": 4}
    loader = loader_of(data, quarantine=[entry])
    for step in range(8):
        a, b = plain.batch_at(step), loader.batch_at(step)
        gone = np.zeros((B, L), bool)
        for e in plain.explain(step):
            gone[e.row, e.column : e.column + e.length] |= step >= 4 and e.id == target.id
        assert not b.segment_ids[gone].any() and not b.loss_weights[gone].any()
        np.testing.assert_array_equal(b.tokens[~gone], a.tokens[~gone])
        assert gone.any() if step == 4 else True
    loader.restore(loader._state_at(6, loader.quarantine))
    assert loader.state()["quarantine"] == [entry]
    plain.restore(loader.state())  # the state brings its quarantine along
    assert equal(plain.batch_at(6), loader.batch_at(6)) and plain.quarantine == loader.quarantine
    with pytest.raises(UserError, match="from_step 6 or later"):
        loader_of(data, quarantine=[{**entry, "record": int(not record)}]).restore(loader.state())
    for wrong in ({**entry, "source": "x"}, {**entry, "shard": "x"}, {**entry, "record": 10**6}, {"record": 1}):
        with pytest.raises(UserError, match="quarantine"):
            loader_of(data, quarantine=[wrong])


def test_a_damaged_record_is_named_with_the_entry_that_leaves_it_out(tmp_path: Path) -> None:
    write_source(tmp_path, "web", {"train": toy_samples("web", 20, 0)}, num_shards=1)
    loader = loader_of(tmp_path / "web", batch_size=1, threads=0)
    loader.batch_at(0)
    shard = next((tmp_path / "web").glob("web-train.array_record*"))
    data = bytearray(shard.read_bytes())
    data[data.find(b"web/7.txt")] ^= 1  # inside a record
    shard.write_bytes(bytes(data))
    loader = loader_of(tmp_path / "web", batch_size=1, threads=0, on_bad_record="raise")
    with pytest.raises(RunError, match=r"cannot be read at step \d+ .*quarantine=\[\{'source': 'web'") as error:
        for step in range(40):
            loader.batch_at(step)
    entry = eval(str(error.value).split("quarantine=")[1].split(" to leave")[0])
    loader = loader_of(tmp_path / "web", batch_size=1, threads=0, quarantine=entry)
    for step in range(40):
        loader.batch_at(step)


def test_batches_are_never_written_again(data: Path) -> None:
    loader = loader_of(data, threads=2, read_ahead=4)
    held = [next(loader) for _ in range(10)]
    for _ in range(10):
        next(loader)
    loader.close()
    assert all(equal(batch, loader.batch_at(step)) for step, batch in enumerate(held))


SOFT = """
name = "soft"
version = 1
[vocabulary]
controls = ["<pad>", "<bos>", "<eos>", "<cont>", "<text>", "<image>", "</image>", "<audio>", "</audio>", "<p>", "<w>"]
[text]
open = "<text>"
[image]
open = "<image>"
close = "</image>"
header = "two_sizes"
[audio]
open = "<audio>"
close = "</audio>"
[soft.image]
placeholder = "<p>"
patch = 2
[soft.audio]
placeholder = "<w>"
samples = 5
[attention]
blocks = ["image"]
[loss]
image = 0.0
"""


def test_soft_items_come_from_kept_media_and_blocks_stay_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples, media, pictures = [], [], {}
    for i in range(6):
        picture, sound = rng.integers(0, 256, (4, 6, 3), np.uint8), rng.integers(-99, 99, 12, np.int16)
        digests = f"{i:064x}", f"{i + 99:064x}"
        media += [Media(digests[0], "image", picture), Media(digests[1], "audio", sound, 16_000)]
        hard = Item("image", "toy-image@1", np.full((2, 1), i, np.int32), grid=(1, 1, 2))
        items = (Item("image", "", None, (1, 4, 6), digest=digests[0]), hard)
        items += (Item("audio", "", None, (12, 0, 0), digest=digests[1]),)
        samples.append(Sample(id=f"{i:032x}", cluster=f"{i:032x}", source="soft", items=items))
        pictures[f"{i:032x}"] = picture, sound
    folder = tmp_path / "soft"
    shard = write_shard(folder, "soft", "train", 0, 1, samples)
    finish_source(folder, "soft", [shard], CODECS, {}, write_media(folder, media, "resized"))
    (tmp_path / "soft.toml").write_text(SOFT)
    loader = Loader(folder, layout=tmp_path / "soft.toml", seq_len=70, batch_size=1)
    batch = loader.batch_at(0)
    assert batch.soft["image"].shape == (1, 70, 2, 2, 3) and batch.soft["audio"].shape == (1, 70, 5)
    assert batch.soft_index is not None and batch.blocks is not None
    worked = Loader(folder, layout=tmp_path / "soft.toml", seq_len=70, batch_size=1, workers=1)
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(next(worked)), jax.tree.leaves(batch), strict=True))
    worked.close()
    explained = loader.explain(0)
    assert len(explained) > 1
    for e in explained:
        here = slice(e.column, e.column + e.length)
        index, kinds = batch.soft_index[0, here], batch.kinds[0, here]
        picture, sound = pictures[e.id]
        patches = batch.soft["image"][0, index[(index >= 0) & (kinds == 2)]]
        np.testing.assert_array_equal(patches.reshape(2, 3, 2, 2, 3).swapaxes(1, 2).reshape(4, 6, 3), picture)
        chunks = batch.soft["audio"][0, index[(index >= 0) & (kinds == 3)]]
        np.testing.assert_array_equal(chunks.reshape(-1)[:12], sound)
    blocks = [set(batch.blocks[0, e.column : e.column + e.length].tolist()) - {0} for e in explained]
    assert all(len(found) == 2 for found in blocks) and len(set.union(*blocks)) == 2 * len(blocks)
    with pytest.raises(ValueError, match="soft item, and layout mmdata takes none"):
        loader_of(folder)


def test_a_loader_of_one_source_can_have_the_vocabulary_of_all(data: Path) -> None:
    whole = loader_of(data)
    part = loader_of(data / "web", layout=whole.layout)
    assert part.layout.digest == whole.layout.digest == loader_of(data, layout=load_layout("mmdata")).layout.digest
    others = [dataclasses.replace(codec, fingerprint="0" * 64) for codec in whole.layout.codecs]
    with pytest.raises(UserError, match="is not that of the bound layout"):
        loader_of(data, layout=load_layout("mmdata").bind(others))


def test_limits_and_report(data: Path) -> None:
    loader = loader_of(data, limits={"images": 1})
    for step in range(6):
        for row in range(B):
            kinds = [span["kind"] for e in loader.explain(step, row=row) for span in e.spans]
            assert kinds.count("image") <= 1
    report = json.loads(json.dumps(loader_of(data).report()))
    assert set(report["sources"]) == {"web", "speech"}
    assert 0.8 < report["sources"]["web"]["fill"] <= 1 and report["sources"]["web"]["split"]["documents"] > 0
    shares = [s["row_share"] for s in report["stages"][0]["sources"].values()]
    assert abs(sum(shares) - 1) < 1e-5


def test_wrong_arguments_are_refused_in_one_line_with_the_fix(data: Path, tmp_path: Path) -> None:
    for more, message in (
        ({"seq_len": 0}, "seq_len is 0"),
        ({"batch_size": None}, "batch_size"),
        ({"split": "test"}, "no split 'test'"),
        ({"shard": (2, 2)}, r"shard is \(2, 2\)"),
        ({"batch_size": 6, "shard": (0, 4)}, "does not divide by 4"),
        ({"limits": {"pages": 3}}, "no limit 'pages'"),
    ):
        with pytest.raises(UserError, match=message) as error:
            loader_of(data, **more)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no dataset"):
        loader_of(tmp_path / "nothing")
    with pytest.raises(UserError, match="not int"):
        loader_of(7)
    write_source(tmp_path, "empty", {"train": []}, num_shards=1)
    with pytest.raises(UserError, match="no source of"):
        loader_of(tmp_path / "empty")
    both = {"web": data / "web", "empty": tmp_path / "empty"}
    with pytest.raises(UserError, match="'empty' has weight 1 and no row"):
        loader_of(Mixture(both, weights={"web": 1, "empty": 1}))
    assert equal(loader_of(Mixture(both)).batch_at(0), loader_of(data / "web").batch_at(0))
    for step in (-1, 99):
        with pytest.raises(UserError, match=f"no step {step}"):
            loader_of(data, split="validation").batch_at(step)
    a, b = Mixture({"web": data / "web"}), Mixture({"web": data / "speech"})
    with pytest.raises(UserError, match="'web' is another source from step 5 on"):
        loader_of(Schedule([Stage(0, a, 8), Stage(5, b, 8)]), batch_size=None)
    with pytest.raises(UserError, match="the same source"):
        loader_of(Mixture({"a": data / "web", "b": data / "web"}))
