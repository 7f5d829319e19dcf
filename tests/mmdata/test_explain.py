"""Explain: what is said of a batch is what its arrays hold, and the inverse finds what a scan of all batches finds."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmdata
from mmdata import Loader, Mixture, Schedule, Stage, UserError
from mmdata.dataset import Split, open_source
from mmdata.explain import ExplainedRow, explain_rows, gaps_of, parts_of, visits_of
from mmdata.find import find_document
from mmdata.manifest import finish_source
from mmdata.media import Media, write_media
from mmdata.sample import Sample
from mmdata.shards import write_shard
from tests.mmdata.toy_data import CODECS, toy_samples, write_source, write_toy_dataset
from tokenizer.item import KINDS, Item

L, STEPS = 128, 24
CONTROL = KINDS.index("control")


def films(num: int) -> list[Sample]:
    """Text, then a film of one or more frames."""
    rng = np.random.default_rng(7)
    out = []
    for i in range(num):
        words = Item("text", "toy-text@1", rng.integers(0, 200, (int(rng.integers(1, 30)), 1)).astype(np.int32))
        t = int(rng.integers(1, 9))
        codes = rng.integers(0, 50, (t * 6, 1)).astype(np.int32)
        film = Item("video", "toy-image@1", codes, grid=(t, 2, 3), times=np.arange(t, dtype=np.float32), uri=f"{i}.mp4")
        out.append(Sample(f"{i + 1:032x}", f"{i:032x}", "films", (words, film), uri=f"films/{i}"))
    return out


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_toy_dataset(tmp_path_factory.mktemp("data"))
    write_source(folder, "films", {"train": films(40)}, num_shards=3)
    return folder


def loader_of(data: Path, **more: Any) -> Loader:
    """Three sources in three stages: shares and batch size change, a source joins, another one's weight becomes 0."""
    two = {"web": data / "web", "films": data / "films"}
    stages = [
        Stage(0, Mixture(two, {"web": 0.6, "films": 0.4}), 4),
        Stage(9, Mixture({**two, "speech": data / "speech"}, {"web": 0.2, "films": 0.3, "speech": 0.5}), 8),
        Stage(17, Mixture(two, {"web": 1, "films": 0}), 4),
    ]
    return Loader(Schedule(stages), **{"seq_len": L, "window_shards": 1, "group_windows": 2, **more})


@pytest.fixture(scope="module")
def loader(data: Path) -> Loader:
    return loader_of(data)


@pytest.fixture(scope="module")
def rows(loader: Loader) -> list[ExplainedRow]:
    return [row for step in range(STEPS) for row in explain_rows(loader, step)]


def entry_of(loader: Loader, feed: int, sample: int, from_step: int) -> dict[str, Any]:
    """The quarantine entry of a sample's record."""
    split = loader.feeds.feeds[feed].source.train
    shard = int(np.searchsorted(split.shard_bounds, sample, side="right")) - 1
    record = sample - int(split.shard_bounds[shard])
    name = loader.feeds.feeds[feed].name
    return {"source": name, "shard": split.shards[shard].file, "record": record, "from_step": from_step}


def test_documents_and_spans_are_where_the_batch_has_them(loader: Loader, rows: list[ExplainedRow]) -> None:
    seen = set()
    for row in rows:
        batch = loader.batch_at(row.step)
        segments, kinds = batch.segment_ids[row.row], batch.kinds[row.row]
        expected = np.zeros(L, np.int32)
        in_spans = {kind: np.zeros(L, bool) for kind in KINDS[1:5]}
        for document in row.documents:
            here = slice(document.column, document.column + document.length)
            expected[here] = document.segment
            assert document.source == row.source and document.epoch == row.epoch
            for span in document.spans:
                assert document.column <= span["start"] < span["stop"] <= here.stop
                assert set(kinds[span["start"] : span["stop"]]) <= {KINDS.index(span["kind"]), CONTROL}
                in_spans[span["kind"]][span["start"] : span["stop"]] = True
                seen.add(span["kind"])
        np.testing.assert_array_equal(segments, expected)
        for kind, inside in in_spans.items():
            assert inside[kinds == KINDS.index(kind)].all(), "every code is in the span of an item of its kind"
        assert row.tokens == (segments > 0).sum() and row.padding == pytest.approx((segments == 0).mean())
    assert seen == {"text", "image", "audio", "video"}
    assert {row.source for row in rows} == {"web", "films", "speech"}
    assert [row.row for row in rows if row.step in (8, 9)] == [*range(4), *range(8)]


def test_the_parts_of_a_cut_document_have_each_unit_of_each_item_once(loader: Loader, data: Path) -> None:
    places: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for step in range(9, 17):
        for document in loader.explain(step):
            if document.source == "speech" and not document.epoch:
                places[document.id, document.uri] += [(s["item"], *s["units"]) for s in document.spans]
    samples = {sample.id: sample for sample in mmdata.open(data)["speech"].train}
    cut = 0
    for (id, _), spans in places.items():
        items: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for item, start, stop in spans:
            items[item].append((start, stop))
        cut += any(len(found) > 1 for found in items.values())
        for item, found in items.items():
            ends = [0, *(stop for _, stop in sorted(found))]
            assert [start for start, _ in sorted(found)] == ends[:-1]
            codes = samples[id].items[item].codes
            assert codes is not None and ends[-1] == (1 if samples[id].items[item].kind == "image" else len(codes))
    assert cut > 1 and len(places) > 40


def scan(rows: list[ExplainedRow]) -> dict[tuple[str, int], list[tuple[int, ...]]]:
    """(source, sample) -> (step, row, column, epoch, start, stop) of all its parts."""
    found: dict[tuple[str, int], list[tuple[int, ...]]] = defaultdict(list)
    for row in rows:
        for d in row.documents:
            found[d.source, d.sample].append((d.step, d.row, d.column, d.epoch, d.start, d.stop))
    return found


def visited(loader: Loader, feed: int, sample: int, last_step: int) -> list[tuple[int, ...]]:
    parts = parts_of(loader.feeds.feeds[feed], sample)
    return [
        (v.step, v.row, v.column, v.epoch, parts[v.part - 1].start, parts[v.part - 1].stop)
        for v in visits_of(loader, feed, sample, last_step)
        if not v.quarantined
    ]


def test_the_inverse_finds_what_a_scan_of_all_batches_finds(loader: Loader, rows: list[ExplainedRow]) -> None:
    found = scan(rows)
    several = 0
    for number, feed in enumerate(loader.feeds.feeds):
        for sample in range(len(feed.source.train)):
            expected = sorted(found[feed.name, sample])
            assert visited(loader, number, sample, STEPS) == expected
            several += len({part[4] for part in expected}) > 1
            (id,) = feed.source.train.catalog(["id"], sample, sample + 1).column("id").to_pylist()
            if sample % 9 == 0:
                assert loader.steps_of(id, STEPS) == sorted({place[:2] for place in expected})
    assert several > 5, "documents of several parts are among them"
    assert visits_of(loader, 0, 0, 0) == []


def test_the_inverse_holds_for_the_one_epoch_of_a_validation_split(data: Path) -> None:
    loader = Loader(data, seq_len=L, batch_size=5, split="validation")
    assert loader.num_steps
    rows = [row for step in range(loader.num_steps) for row in explain_rows(loader, step)]
    found = scan(rows)
    for number, feed in enumerate(loader.feeds.feeds):
        for sample in range(len(feed.source.validation)):
            assert visited(loader, number, sample, 10**6) == sorted(found[feed.name, sample]) != []
    past = [row for row in rows if not row.source]
    assert len(past) == -loader.feeds.num_rows % 5 and all(row.padding == 1 for row in past)  # type: ignore[operator]


def test_a_step_far_away_holds_the_documents_that_the_inverse_names(data: Path) -> None:
    loader = loader_of(data)
    first = loader.feeds.locate_rows(200_000, range(1))
    (number,), (epoch,) = first.feed.tolist(), first.epoch.tolist()
    document = loader.explain(200_000, row=0)[0]
    feed = loader.feeds.feeds[number]
    parts = parts_of(feed, document.sample)
    (part,) = [part for part in parts if part.start == document.start]
    assert (part.plan_row, document.epoch) == (first.row[0], epoch)
    places = loader.feeds.places(number, np.array([part.plan_row]), 200_001)
    assert (places.step[-1], places.row[-1], places.epoch[-1]) == (200_000, 0, epoch)


def test_what_is_quarantined_is_said_of_the_row_and_of_the_document(data: Path, loader: Loader) -> None:
    feed = next(i for i, feed in enumerate(loader.feeds.feeds) if feed.name == "web")
    sample = next(s for s in range(200) if len(parts_of(loader.feeds.feeds[feed], s)) > 1)
    visits = visits_of(loader, feed, sample, STEPS)
    from_step = visits[1].step
    entry = entry_of(loader, feed, sample, from_step)
    other = loader_of(data, quarantine=[entry])
    told = visits_of(other, feed, sample, STEPS)
    assert [(v.step, v.row, v.part) for v in told] == [(v.step, v.row, v.part) for v in visits]
    assert [v.quarantined for v in told] == [v.step >= from_step for v in visits]
    (id,) = other.feeds.feeds[feed].source.train.catalog(["id"], sample, sample + 1).column("id").to_pylist()
    assert other.steps_of(id, STEPS) == sorted({(v.step, v.row) for v in visits if v.step < from_step})
    gone = 0
    for step in range(STEPS):
        batch = other.batch_at(step)
        for row in explain_rows(other, step):
            assert row.tokens == (batch.segment_ids[row.row] > 0).sum()
            for left in row.quarantined:
                assert not batch.segment_ids[row.row, left.column : left.column + left.length].any()
                assert (left.id, left.sample, left.record, left.shard) == (id, sample, entry["record"], entry["shard"])
                gone += 1
            assert all(document.id != id for document in row.documents) or step < from_step
    assert gone == sum(v.quarantined for v in told) > 0


def test_parts_and_gaps_are_all_places_of_a_document(data: Path) -> None:
    loader = Loader(data, seq_len=14, batch_size=2)  # most images and frames fit no row
    gaps_seen = whole = 0
    for feed in loader.feeds.feeds:
        data_of = feed.source.train
        for sample in range(len(data_of)):
            parts = parts_of(feed, sample)
            gaps = gaps_of(loader, feed, sample, parts)
            both = sorted([*gaps, *((part.start, part.stop) for part in parts)])
            assert [start for start, _ in both] == [0, *(stop for _, stop in both[:-1])]
            item_places = data_of.item_table(sample, sample + 1).num_units().sum()
            assert both[-1][1] == item_places
            gaps_seen, whole = gaps_seen + len(gaps), whole + (not gaps)
        assert sum(len(parts_of(feed, s)) for s in range(len(data_of))) == len(feed.plan.sample)
    left_out = sum(feed.plan.report["left_out"]["parts"] for feed in loader.feeds.feeds)
    assert left_out and gaps_seen and whole
    assert gaps_seen <= left_out  # neighbouring parts that fit no row are one gap


def test_a_row_or_step_that_is_not_there_is_one_line(loader: Loader) -> None:
    for step, row, words in ((-1, None, "no step -1"), (0, 4, "no row 4 at step 0: its batch has rows 0 to 3")):
        with pytest.raises(UserError, match=words) as error:
            explain_rows(loader, step, row)
        assert "\n" not in str(error.value)


def test_media_that_are_kept_are_said(tmp_path: Path) -> None:
    picture = Media("ab" * 32, "image", np.zeros((4, 6, 3), np.uint8))
    items = [
        Item("image", "toy-image@1", np.zeros((2, 1), np.int32), grid=(1, 1, 2), digest=digest)
        for digest in ("ab" * 32, "cd" * 32)
    ]
    sample = Sample("0" * 32, "0" * 32, "pictures", tuple(items), uri="name\udcff.html")
    shard = write_shard(tmp_path / "pictures", "pictures", "train", 0, 1, [sample])
    kept = write_media(tmp_path / "pictures", [picture], "resized")
    finish_source(tmp_path / "pictures", "pictures", [shard], CODECS, {}, kept)
    (document,) = Loader(tmp_path / "pictures", seq_len=64, batch_size=1).explain(0)
    assert [span["media"] for span in document.spans] == ["resized", "none"]
    assert document.uri == "name\\xff.html"  # as the catalog has it: it can be printed, and asked for


# Finding


@pytest.fixture(scope="module")
def sources(data: Path) -> dict[str, Any]:
    return {name: open_source(data / name) for name in ("web", "speech", "films")}


def test_a_document_is_found_by_id_prefix_and_uri(sources: dict[str, Any]) -> None:
    sample = sources["speech"].train[17]
    for text in (sample.id, sample.id[:10], sample.uri, f" {sample.id}\n"):
        (found,) = find_document(sources, text)
        assert (found.source, found.split, found.sample) == ("speech", "train", 17)
        assert (found.id, found.uri) == (sample.id, sample.uri)
    held_out = sources["web"].validation[2]
    (found,) = find_document(sources, held_out.uri)
    assert (found.source, found.split, found.sample, found.id) == ("web", "validation", 2, held_out.id)


def test_a_prefix_of_several_documents_names_them(sources: dict[str, Any]) -> None:
    with pytest.raises(
        UserError, match=r"40 documents are '0{30}': name one by its id: 0{31}1 \(films/0\), .*, \.\.\.$"
    ):
        find_document({"films": sources["films"]}, "0" * 30)


def test_an_unknown_document_names_near_ones(sources: dict[str, Any]) -> None:
    sample = sources["web"].train[5]
    typo = sample.id[:9] + ("0" if sample.id[9] != "0" else "1") + sample.id[10:]
    for text, near in ((typo, sample.id), ("Films/3x", "films/3 ")):
        with pytest.raises(UserError, match="no document has the id or the uri") as error:
            find_document(sources, text)
        assert near in str(error.value).split("near are")[1] and "\n" not in str(error.value)
    for text in ("?", "quite something else", ""):
        with pytest.raises(UserError) as error:
            find_document(sources, text)
        assert "near" not in str(error.value)


def test_a_document_of_two_sources_is_found_in_both_and_a_shared_uri_in_none(tmp_path: Path) -> None:
    samples = toy_samples("web", 9, 0)
    write_source(tmp_path, "old", {"train": samples[:6]})
    write_source(tmp_path, "new", {"train": samples})
    sources = {name: open_source(tmp_path / name) for name in ("old", "new")}
    assert [(f.source, f.sample) for f in find_document(sources, samples[4].id)] == [("old", 4), ("new", 4)]
    twins = [Sample(f"{i:032x}", f"{i:032x}", "twins", samples[0].items, uri="same") for i in range(3)]
    write_source(tmp_path, "twins", {"train": twins})
    with pytest.raises(UserError, match="3 documents are 'same'"):
        find_document({"twins": open_source(tmp_path / "twins")}, "same")


def test_a_whole_id_opens_no_more_catalogs_than_it_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = toy_samples("many", 80, 0)
    write_source(tmp_path, "many", {"train": samples}, num_shards=80)
    source, opened, plain = open_source(tmp_path / "many"), [], Split.catalog

    def catalog(self: Split, columns: Any = None, start: int = 0, stop: int | None = None) -> Any:
        opened.append((start, columns))
        return plain(self, columns, start, stop)

    monkeypatch.setattr(Split, "catalog", catalog)
    (found,) = find_document({"many": source}, samples[3].id)
    assert found.sample == 3 and len(opened) <= 33
    assert all(columns == ["id"] for _, columns in opened[:-1]), "only the column asked about"
    opened.clear()
    assert find_document({"many": source}, samples[70].id)[0].sample == 70 and len(opened) > 70
