"""Quarantine: what cannot be read is left out from the step that first delivers it, named once, and nothing else is."""

import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata import Batch, Loader, RunError, UserError
from mmdata.manifest import finish_source
from mmdata.media import Media, write_media
from mmdata.opened import OpenShard
from mmdata.quarantine import BadRecords
from mmdata.sample import Sample
from mmdata.shards import RecordFiles, write_shard
from mmdata.state import Quarantined
from tests.mmdata.toy_data import CODECS, toy_samples, write_source
from tokenizer.item import Item

L, B, STEPS = 128, 4, 12


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a source of four shards."""
    folder = tmp_path_factory.mktemp("whole")
    write_source(folder, "web", {"train": toy_samples("web", 60, 0), "validation": toy_samples("valid", 9, 1)})
    loader_of(folder / "web").batch_at(0)  # its plan is there from now on
    return folder / "web"


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "web")
    return tmp_path / "web"


def loader_of(folder: Path, **more: Any) -> Loader:
    return Loader(folder, **{"seq_len": L, "batch_size": B, "window_shards": 1, "group_windows": 2, **more})


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("web-train.array_record*"))


def spans_of(folder: Path, split: str = "train") -> list[list[range]]:
    """The bytes of each record's payload, by shard and record: found by what they hold, block headers apart."""
    out = []
    for path in sorted(folder.glob(f"web-{split}.array_record*")):
        data = path.read_bytes()
        records = RecordFiles([path]).read(0, range(RecordFiles([path]).num_records(0)))
        places = [data.find(record) for record in records]
        assert all(place > 0 for place in places)  # none crosses a block
        out.append([range(place, place + len(record)) for place, record in zip(places, records)])
    return out


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    written = path.with_suffix(".tmp")  # one file for another: a mapped one that is cut ends the process
    written.write_bytes(data)
    written.replace(path)


def columns_of(loader: Loader, step: int, gone: set[str]) -> np.ndarray:  # bool [B, L]
    """The planned columns of documents, by a Loader that reads whole files."""
    mask = np.zeros((loader.size_at(step), L), bool)
    for e in loader.explain(step):
        if e.id in gone:
            mask[e.row, e.column : e.column + e.length] = True
    return mask


def assert_only_gone(batch: Batch, expected: Batch, gone: np.ndarray) -> None:
    """Padding in the columns `gone`; all else as expected, but for the numbers of segments."""
    for name, array in batch.arrays().items():
        assert not array[gone].any(), name
        if name != "segment_ids":
            np.testing.assert_array_equal(array[~gone], expected.arrays()[name][~gone], err_msg=name)
    there = expected.segment_ids > 0
    np.testing.assert_array_equal(batch.segment_ids > 0, there & ~gone)


def same(a: Batch, b: Batch) -> bool:
    x, y = a.arrays(), b.arrays()
    return x.keys() == y.keys() and all(np.array_equal(x[name], y[name]) for name in x)


# What is lost


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_costs_the_span_of_one_record_and_nothing_else(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("flipped") / "web"
    shutil.copytree(whole, folder)
    number = data.draw(st.integers(0, 3))
    path, spans = shards(folder)[number], spans_of(folder)[number]
    size = path.stat().st_size
    where = data.draw(st.sampled_from(["record", "header", "anywhere", "end"]))
    byte = {
        "record": lambda: data.draw(st.sampled_from(data.draw(st.sampled_from(spans)))),
        "header": lambda: data.draw(st.sampled_from(spans)).start - data.draw(st.integers(1, 48)),
        "anywhere": lambda: data.draw(st.integers(0, size - 1)),
        "end": lambda: data.draw(st.integers(size - 2000, size - 1)),
    }[where]()
    flip(path, 8 * byte + data.draw(st.integers(0, 7)))
    hit = [record for record, span in enumerate(spans) if byte in span]
    plain, loader = loader_of(whole, threads=0), loader_of(folder, threads=0)
    batches = [next(loader) for _ in range(STEPS)]
    found = [(entry.shard, entry.record) for entry in loader.quarantine]
    if hit:  # its record and no other
        assert found == [(path.name, hit[0])]
    assert len(found) <= 1 and all(shard == path.name and record >= 0 for shard, record in found)
    bounds = plain.feeds.feeds[0].source.train.shard_bounds
    ids = plain.feeds.feeds[0].source.train.catalog(["id"]).column("id").to_pylist()
    gone = {ids[int(bounds[number]) + record] for _, record in found}
    seen = 0
    for step, batch in enumerate(batches):
        columns = columns_of(plain, step, gone)
        assert_only_gone(batch, plain.batch_at(step), columns)
        seen += columns.any()
        if columns.any() and seen == 1:
            assert loader.quarantine[0].from_step == step  # the step that first delivers it
    assert bool(seen) == bool(found)


@pytest.mark.parametrize("harm", ["missing", "cut", "empty", "nonsense"])
def test_a_shard_of_which_nothing_can_be_read_is_one_entry(
    harm: str, whole: Path, copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = shards(copy)[2]
    data = path.read_bytes()
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes({"cut": data[: spans_of(copy)[2][6].start], "empty": b"", "nonsense": bytes(len(data))}[harm])
    plain, loader = loader_of(whole), loader_of(copy)
    batches = [next(loader) for _ in range(STEPS)]
    (entry,) = loader.state()["quarantine"]
    assert entry["shard"] == path.name and entry["record"] == -1
    split = plain.feeds.feeds[0].source.train
    lost = range(*split.shard_bounds[2:4].tolist())
    explained = loader_of(copy, threads=0)  # which reads samples one by one
    explained.explain(entry["from_step"])
    assert explained.state()["quarantine"] == [entry]
    (line, _) = [record.getMessage() for record in caplog.records]
    said = f"source web, shard {path.name}, all {len(lost)} records"
    assert line.startswith(f"left out from step {entry['from_step']} on: {said}")
    gone = {row["id"] for row in split.catalog(["id"], lost.start, lost.stop).to_pylist()}
    for step, batch in enumerate(batches):
        assert_only_gone(batch, plain.batch_at(step), columns_of(plain, step, gone))
    loader.close()
    with pytest.raises(
        RunError, match=rf"^{len(lost)} records of 1 shards would .* quarantine_limit = {len(lost) - 1};"
    ):
        for batch, _ in zip(loader_of(copy, quarantine_limit=len(lost) - 1, threads=0), range(STEPS)):
            del batch
    for batch, _ in zip(loader_of(copy, quarantine_limit=len(lost), threads=0), range(STEPS)):
        del batch


def test_several_bad_records_are_each_named_once_and_count_against_the_limit(
    whole: Path, copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spans = spans_of(copy)
    harmed = [(0, 1), (0, 4), (1, 0), (3, 2)]
    for shard, record in harmed:
        flip(shards(copy)[shard], 8 * spans[shard][record].start + 300)
    loader = loader_of(copy, threads=2, read_ahead=4)
    with caplog.at_level(logging.WARNING, "mmdata"):
        for _ in range(3 * STEPS):  # three epochs
            next(loader)
    loader.close()
    found = {(entry.shard, entry.record) for entry in loader.quarantine}
    assert found == {(shards(copy)[shard].name, record) for shard, record in harmed} and len(loader.quarantine) == 4
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 4 and all("document" in line and "\n" not in line for line in lines)
    strict = loader_of(copy, quarantine_limit=3, threads=0)
    with pytest.raises(RunError, match=r"^4 records of 3 shards would be left out, more than quarantine_limit = 3; at"):
        for _ in range(3 * STEPS):
            next(strict)
    assert len(strict.quarantine) == 3  # it may go on from here, once the limit is raised
    with pytest.raises(RunError, match="more than quarantine_limit = 3"):
        loader_of(copy, quarantine_limit=3, quarantine=loader.quarantine)


# When it takes effect


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_all_batches_agree_with_batch_at_whatever_was_read_ahead(threads: int, whole: Path, copy: Path) -> None:
    """Files are damaged while a Loader reads: each batch is what batch_at, and a fresh Loader with the state, give."""
    spans = spans_of(copy)
    loader = loader_of(copy, threads=threads, read_ahead=6)
    batches = []
    # Of what is read ahead, some 40 steps, a busy machine may make all before the damage: it is met in the epochs after
    for step in range(6 * STEPS):
        if step in (2, 9):
            flip(shards(copy)[step % 4], 8 * spans[step % 4][3].start + 77)
        for feed in loader.feeds.feeds:  # a file that is open stays as it was; let all be opened again
            feed.source.train.opened.__setstate__(feed.source.train.opened.__getstate__())
        for filler in loader.renderer._fillers:
            filler.__post_init__()
        batches.append(next(loader))
    loader.close()
    assert len(loader.quarantine) == 2 and all(entry.from_step >= 2 for entry in loader.quarantine)
    again = loader_of(whole, quarantine=loader.quarantine)
    for step, batch in enumerate(batches):
        assert same(batch, again.batch_at(step)), step
    with pytest.raises(BadRecords):  # what was delivered before a record was bad cannot be changed, nor read
        for step in range(2 * STEPS):
            loader.batch_at(step)
    assert loader.quarantine == again.quarantine


@pytest.mark.parametrize("ahead", [{"threads": 0}, {"threads": 2, "read_ahead": 6}, {"workers": 2, "read_ahead": 6}])
def test_what_was_made_ahead_is_thrown_away_when_something_is_left_out(ahead: dict[str, int], whole: Path) -> None:
    """As where another process has found it, or batch_at."""
    loader, plain = loader_of(whole, **ahead), loader_of(whole, threads=0)
    for _ in range(3):
        next(loader)
    split = plain.feeds.feeds[0].source.train
    target = plain.explain(3)[0]
    shard = int(np.searchsorted(split.shard_bounds, target.sample, "right")) - 1
    record = target.sample - int(split.shard_bounds[shard])
    entry = {"source": "web", "shard": split.shards[shard].file, "record": record, "from_step": 3}
    loader.leave_out([entry])
    for step in range(3, STEPS):
        assert_only_gone(next(loader), plain.batch_at(step), columns_of(plain, step, {target.id}))
    loader.seek(3)
    assert_only_gone(next(loader), plain.batch_at(3), columns_of(plain, 3, {target.id}))
    loader.close()


def test_worker_processes_find_what_this_one_leaves_out(
    whole: Path, copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for shard in (1, 2):
        flip(shards(copy)[shard], 8 * spans_of(whole)[shard][3].start + 99)
    alone, loader = loader_of(copy, threads=0), loader_of(copy, workers=2, read_ahead=5)
    batches = [next(alone) for _ in range(STEPS)]
    caplog.clear()
    with caplog.at_level(logging.WARNING, "mmdata"):
        assert all(same(next(loader), batch) for batch in batches)
    loader.close()
    assert loader.quarantine == alone.quarantine and len(caplog.records) == len(loader.quarantine) == 2
    # Elsewhere, as in worker processes of Grain's own, nobody would learn of it.
    elsewhere = pickle.loads(pickle.dumps(loader_of(copy, threads=0)))
    with pytest.raises(BadRecords):
        for _ in range(STEPS):
            next(elsewhere)


def test_a_resume_over_healthy_files_gives_the_batches_of_before(whole: Path, copy: Path) -> None:
    spans = spans_of(copy)
    for shard in range(4):
        flip(shards(copy)[shard], 8 * spans[shard][2].start + 99)
    loader = loader_of(copy)
    batches, states = [], []
    for _ in range(2 * STEPS):
        states.append(loader.state())
        batches.append(next(loader))
    loader.close()
    assert [len(state["quarantine"]) for state in states][-1] == 4 and not states[0]["quarantine"]
    last = loader.state()
    for step in (0, 3, STEPS, 2 * STEPS - 1):
        healthy = loader_of(whole)
        # What was found after a state was taken is told by the log of the run (the trainer's quarantine.jsonl).
        healthy.restore(states[step])
        healthy.leave_out(last["quarantine"])
        for expected in batches[step:]:
            assert same(next(healthy), expected)
        healthy.close()
        assert healthy.state() == last


def test_a_record_found_bad_at_an_earlier_step_is_left_out_from_there(whole: Path, copy: Path) -> None:
    flip(shards(copy)[0], 8 * spans_of(copy)[0][1].start + 99)
    loader, plain = loader_of(copy, threads=0), loader_of(whole, threads=0)
    split = plain.feeds.feeds[0].source.train
    target = split.catalog(["id"], 1, 2).to_pylist()[0]["id"]
    steps = [step for step, _ in plain.steps_of(target, 10 * STEPS)]
    loader.batch_at(steps[3])
    assert [entry.from_step for entry in loader.quarantine] == [steps[3]] and loader.step == 0
    loader.batch_at(steps[1])
    assert [entry.from_step for entry in loader.quarantine] == [steps[1]]
    assert_only_gone(loader.batch_at(steps[2]), plain.batch_at(steps[2]), columns_of(plain, steps[2], {target}))
    assert not {target} & {e.id for step in steps[1:4] for e in loader.explain(step)}


# Who decides


def test_a_loader_that_is_one_of_several_raises_and_names_what_to_give_all(copy: Path, whole: Path) -> None:
    flip(shards(copy)[1], 8 * spans_of(copy)[1][5].start + 99)
    entries: list[Any] = []
    for part in ((0, 2), (1, 2)):
        loader = loader_of(copy, shard=part)
        for step in range(2 * STEPS):
            assert loader.step == step
            try:
                next(loader)
            except BadRecords as error:
                entries = [entry.to_json() for entry in error.entries]
                assert f"quarantine={entries}" in str(error) and loader.step == step and not loader.quarantine
                back = pickle.loads(pickle.dumps(error))
                assert back.entries == error.entries and str(back) == str(error)
                loader.leave_out(error.entries)
                next(loader)
        loader.close()
    assert entries[0]["record"] == 5
    parts = [loader_of(copy, shard=(i, 2), quarantine=entries, threads=0) for i in (0, 1)]
    alone = loader_of(whole, quarantine=entries, threads=0)
    for step in range(2 * STEPS):
        batch = np.concatenate([next(part).tokens for part in parts])
        np.testing.assert_array_equal(batch, alone.batch_at(step).tokens)


def test_a_loader_can_be_told_who_decides(copy: Path) -> None:
    flip(shards(copy)[1], 8 * spans_of(copy)[1][5].start + 99)
    told = loader_of(copy, shard=(0, 2), on_bad_record="quarantine", threads=0)
    for _ in range(2 * STEPS):
        next(told)
    assert [entry.record for entry in told.quarantine] in ([5], [])
    loader = loader_of(copy, on_bad_record="raise", threads=0)
    with pytest.raises(BadRecords):
        for _ in range(2 * STEPS):
            next(loader)
    with pytest.raises(UserError, match="on_bad_record is 'skip': use"):
        loader_of(copy, on_bad_record="skip")


def test_a_validation_split_leaves_out_too_and_is_read_to_its_end(copy: Path, whole: Path) -> None:
    path = next(copy.glob("web-validation*"))
    flip(path, 8 * spans_of(copy, "validation")[0][4].start + 99)
    loader, plain = loader_of(copy, split="validation"), loader_of(whole, split="validation")
    batches = list(loader)
    assert len(batches) == plain.num_steps and [entry.record for entry in loader.quarantine] == [4]
    target = plain.feeds.feeds[0].source.validation.catalog(["id"], 4, 5).to_pylist()[0]["id"]
    for step, batch in enumerate(batches):
        assert_only_gone(batch, plain.batch_at(step), columns_of(plain, step, {target}))
    train = loader_of(copy, quarantine=loader.quarantine)  # entries of another split are nobody's
    assert same(train.batch_at(0), loader_of(whole).batch_at(0))


def test_a_sample_whose_kept_medium_is_damaged_is_left_out(tmp_path: Path) -> None:
    samples, media = [], []
    for n in range(8):
        picture = np.full((16, 16, 3), n, np.uint8)
        media.append(Media(f"{n:064x}", "image", picture))
        text = Item("text", "toy-text@1", np.full((5, 1), n, np.int32))
        items = (text, Item("image", "", None, (1, 16, 16), digest=f"{n:064x}"))
        samples.append(Sample(f"{n:032x}", f"{n:032x}", "web", items))
    folder = tmp_path / "web"
    info = write_shard(folder, "web", "train", 0, 1, samples)
    finish_source(folder, "web", [info], CODECS, {}, write_media(folder, media, "resized"))
    (tmp_path / "soft.toml").write_text(SOFT)
    more = {"layout": str(tmp_path / "soft.toml"), "batch_size": 2, "threads": 0, "seq_len": 64}
    plain = loader_of(folder, **more)
    expected = [next(plain) for _ in range(4)]
    path = next((folder / "media").glob("*.array_record*"))
    flip(path, 8 * path.read_bytes().index(bytes([3]) * 700) + 2000)
    loader = loader_of(folder, **more)
    for batch in expected:
        found = next(loader)
        there = (batch.tokens == 3).any(axis=1)  # text of the third
        assert not there.all() and (found.segment_ids > 0).sum() <= (batch.segment_ids > 0).sum()
    assert [(entry.shard, entry.record) for entry in loader.quarantine] == [(info.file, 3)]


def test_a_file_that_cannot_be_fetched_now_is_no_bad_record(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(self: OpenShard, places: Any) -> list[bytes]:
        raise RunError("cannot fetch s3://bucket/web: 6 attempts failed")

    loader = loader_of(whole, threads=0)
    monkeypatch.setattr(OpenShard, "read", read)
    with pytest.raises(RunError, match="cannot fetch"):
        loader.explain(0)
    assert not loader.quarantine


def test_entries_are_read_from_their_json(whole: Path) -> None:
    entry = Quarantined("web", shards(whole)[0].name, 2, 5, "a reason")
    assert Quarantined.of({**entry.to_json(), "why": "x"}) == entry and "why" not in entry.to_json()
    with pytest.raises(UserError, match=r"it has \d+ \(record -1 stands for all\)"):
        loader_of(whole, quarantine=[{**entry.to_json(), "record": -2}])


SOFT = """
name = "soft"
version = 1
[vocabulary]
controls = ["<pad>", "<bos>", "<eos>", "<cont>", "<text>", "<image>", "</image>", "<p>"]
[text]
open = "<text>"
[image]
open = "<image>"
close = "</image>"
header = "two_sizes"
[soft.image]
placeholder = "<p>"
patch = 8
[loss]
image = 0.0
"""
