"""Plan: rows are full, whole and within limits; long documents are cut at the best places; the file reads back."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.errors import UserError
from mmdata.pieces import costs_of, places_of, take
from mmdata.plan import Plan, PlanSettings, make_plan, plan_fingerprint, plan_of, read_plan, write_plan
from tests.mmdata.toy_plan import CODECS, ToyLayout, audio, image, plan_for, source_of, text
from tokenizer.item import Item, ItemTable
from tokenizer.layout import load_layout


def check(plan: Plan, documents: list[list[Item]]) -> None:
    """No row is too full; pieces lie side by side and are as long as the layout says."""
    layout = ToyLayout()
    filled = np.add.reduceat(plan.length, plan.rows[:-1]) if plan.num_rows else np.zeros(0)
    assert (filled <= plan.settings.capacity).all() and (np.diff(plan.rows) > 0).all()
    assert plan.windows[0] == 0 and plan.windows[-1] == plan.num_rows
    table = ItemTable.of([documents[s] for s in plan.sample])
    lengths = layout.lengths(table, np.stack([plan.start, plan.stop], axis=1))
    np.testing.assert_array_equal(lengths, plan.length)
    for row in range(plan.num_rows):
        inside = slice(plan.rows[row], plan.rows[row + 1])
        entries = list(zip(plan.sample[inside], plan.start[inside]))
        assert entries == sorted(entries)


@st.composite
def documents(draw: st.DrawFn) -> list[list[Item]]:
    item = st.one_of(
        st.builds(lambda n: text(n, tuple(range(7, n, 7))), st.integers(1, 60)),
        st.builds(image, st.integers(1, 6), st.integers(1, 6)),
        st.builds(audio, st.integers(1, 120)),
    )
    return draw(st.lists(st.lists(item, min_size=1, max_size=5), max_size=12))


@given(documents(), st.integers(5, 80), st.integers(1, 4), st.sampled_from([{}, {"images": 1}, {"audio_seconds": 1.5}]))
@settings(max_examples=60, deadline=None)
def test_every_place_is_in_one_piece_or_left_out(docs: Any, seq_len: int, shard: int, limits: dict[str, Any]) -> None:
    plan = plan_for(docs, seq_len, shard, window_shards=2, limits=limits)
    check(plan, docs)
    lost = plan.report["left_out"]
    for s, doc in enumerate(docs):
        mine = plan.sample == s
        parts = sorted(zip(plan.start[mine].tolist(), plan.stop[mine].tolist()))
        assert all(a[1] <= b[0] for a, b in pairwise(parts))
        total = int(places_of(ItemTable.of([doc]))[0])
        missing = total - sum(b - a for a, b in parts)
        assert missing == 0 or lost["parts"]
    if not lost["parts"]:
        codes = sum(len(i.codes) for doc in docs for i in doc if i.codes is not None)
        assert sum(plan.report["codes"].values()) == codes


@given(documents(), st.integers(12, 90), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_pieces_of_the_default_layout_render_to_their_planned_length(docs: Any, seq_len: int, epoch: int) -> None:
    layout = load_layout("mmdata").bind(CODECS)
    docs = [[*doc, *with_more_fields(n)] for n, doc in enumerate(docs)]
    plan = make_plan(source_of(docs, 3), "train", layout, PlanSettings(layout.digest, seq_len))
    covered: dict[int, list[tuple[int, int]]] = {}
    for sample, start, stop, length in zip(plan.sample, plan.start, plan.stop, plan.length):
        covered.setdefault(int(sample), []).append((int(start), int(stop)))
        assert len(layout.render(docs[sample], piece=(start, stop))) == length <= seq_len
        choice = layout.choose(docs[sample], 0, f"id{sample}", epoch)
        assert len(layout.render(docs[sample], choice, (start, stop))) <= length
    if not plan.report["left_out"]["parts"]:
        total = places_of(ItemTable.of(docs))
        for sample, parts in covered.items():
            parts.sort()
            assert parts[0][0] == 0 and parts[-1][1] == total[sample]
            assert all(a[1] == b[0] for a, b in pairwise(parts))


def with_more_fields(n: int) -> list[Item]:
    """Timed text, an empty one, a video with times, and a captioned picture."""
    frames = np.zeros((8, 1), np.int32)
    return [
        Item("text", "toy-text@1", np.zeros((5, 1), np.int32), start_s=1.5, end_s=2.5),
        Item("text", "toy-text@1", np.zeros((0, 1), np.int32)),
        Item("video", "toy-image@1", frames, grid=(4, 1, 2), times=np.arange(4, dtype=np.float32) + n),
        Item("text", "toy-text@1", np.zeros((3, 1), np.int32), group=0, group_role="caption"),
        Item("image", "toy-image@1", np.zeros((4, 1), np.int32), grid=(1, 2, 2), group=0, group_role="target"),
    ][: n % 6]


def test_limits_of_a_row_are_held() -> None:
    docs = [[text(3), image(2, 2)] for _ in range(20)] + [[audio(75)] for _ in range(8)]
    plan = plan_for(docs, 400, limits={"images": 3, "audio_seconds": 4.5})
    check(plan, docs)
    table = ItemTable.of([docs[s] for s in plan.sample])
    costs, _ = costs_of(ToyLayout(), table, np.arange(len(table)), plan.start, plan.stop, {"toy-audio@1": 50.0})
    sums = np.add.reduceat(costs, plan.rows[:-1])
    assert sums[:, 0].max() == 3 and sums[:, 2].max() == 4500


def test_long_documents_are_cut_at_items_then_seconds_then_sentences() -> None:
    doc = [text(20), image(3, 3), text(20, ends=(6, 15))]
    plan = plan_for([doc], 40)
    order = np.argsort(plan.start)
    assert list(zip(plan.start[order], plan.stop[order])) == [(0, 21), (21, 41)]  # behind the image
    plan = plan_for([[text(30, ends=(11, 17))]], 20)
    assert sorted(zip(plan.start.tolist(), plan.stop.tolist())) == [(0, 17), (17, 30)]  # a sentence
    plan = plan_for([[audio(130)]], 80)
    assert sorted(zip(plan.start.tolist(), plan.stop.tolist())) == [(0, 50), (50, 100), (100, 130)]  # whole seconds
    assert plan.report["split"] == {"documents": 1, "would_fit_a_row": 0, "largest_share": 0.0}


def test_what_fits_no_row_is_left_out_and_named() -> None:
    docs = [[text(3), image(9, 9), text(4)], [text(5)]]
    plan = plan_for(docs, 40)
    assert plan.report["left_out"] == {
        "parts": 1,
        "documents": 1,
        "tokens": 84,
        "examples": [{"id": "id0", "uri": "uri0", "sample": 0, "start": 3, "stop": 4, "tokens": 84}],
    }
    assert sorted(zip(plan.sample, plan.start, plan.stop)) == [(0, 0, 3), (0, 4, 8), (1, 0, 5)]
    with pytest.raises(UserError, match=r"document id0 \(uri0\) has a part of 84 tokens"):
        plan_for(docs, 40, too_long="error")


def test_a_plan_reads_back_byte_for_byte(tmp_path: Path) -> None:
    docs = [[text(n % 30 + 1), image(2, n % 3 + 1)] for n in range(50)]
    plan = plan_for(docs, 64, shard=7)
    write_plan(tmp_path / "a", plan)
    write_plan(tmp_path / "b", plan_for(docs, 64, shard=7))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again = read_plan(tmp_path / "a")
    assert again.report == plan.report and again.settings == plan.settings and again.fingerprint == plan.fingerprint
    for name in ("windows", "rows", "sample", "start", "stop", "length"):
        a, b = getattr(plan, name), getattr(again, name)
        assert a.dtype == b.dtype and a.tolist() == b.tolist()
    (tmp_path / "c").write_bytes(b"not a plan")
    with pytest.raises(UserError, match="is not a plan"):
        read_plan(tmp_path / "c")


def test_a_plan_is_cached_beside_the_source_or_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMDATA_CACHE", str(tmp_path / "cache"))
    source = source_of([[text(5)]])
    source.folder = tmp_path / "data"
    wanted = PlanSettings("toy", 16)
    name = f"{plan_fingerprint(wanted, 'f0', 'train')}.safetensors"
    plan_of(source, "train", ToyLayout(), wanted)
    assert (source.folder / "plans" / name).is_file()
    blocked = tmp_path / "file"
    blocked.write_text("a folder cannot be made here")
    source.folder = blocked
    assert plan_of(source, "train", ToyLayout(), wanted).num_rows == 1
    assert (tmp_path / "cache" / "plans" / name).is_file()
    source.splits = {}  # nothing to pack from: it can only come from the cache
    assert plan_of(source, "train", ToyLayout(), wanted).num_rows == 1


def test_settings_have_one_fingerprint_each() -> None:
    base = PlanSettings("toy", 16)
    others = [PlanSettings("toy2", 16), PlanSettings("toy", 17), PlanSettings("toy", 16, window_shards=3)]
    others += [PlanSettings("toy", 16, limits={"images": 2}), PlanSettings("toy", 16, group_windows=1)]
    prints = {plan_fingerprint(s, "f0", "train") for s in [base, *others]}
    assert len(prints) == len(others) + 1
    assert plan_fingerprint(base, "f0", "validation") not in prints
    assert plan_fingerprint(PlanSettings("toy", 16, limits={"images": 2.0}), "f0", "train") in prints
    assert PlanSettings("toy", 16, limits={"audio_seconds": 4.5, "images": 2.0}).to_json()["limits"] == {
        "images": 2,
        "audio_seconds": 4.5,
    }
    for wrong in ({"seq_len": 0}, {"limits": {"pages": 1}}, {"too_long": "cut"}, {"split_share": 1.1}, {"version": 9}):
        with pytest.raises(UserError):
            PlanSettings(**{"layout": "toy", "seq_len": 8, **wrong})
    with pytest.raises(UserError, match="version 1 splits no document that fits"):
        PlanSettings("toy", 8, split_share=0.1, version=1)
    with pytest.raises(UserError, match="limits"):
        PlanSettings("toy", 8, limits={"images": float("inf")})


def test_the_newest_version_is_meant_and_older_ones_can_be_named() -> None:
    assert [PlanSettings("toy", 8).version, PlanSettings("toy", 8, version=1).version] == [2, 1]
    assert PlanSettings(**PlanSettings("toy", 8, version=1).to_json()) == PlanSettings("toy", 8, version=1)
    whole, as_number = PlanSettings("toy", 8, version=1), PlanSettings("toy", 8, split_share=0, version=1)
    assert plan_fingerprint(whole, "f0", "train") == plan_fingerprint(as_number, "f0", "train")
    expected = "684f18ebb3a403cf"
    assert plan_fingerprint(whole, "f0", "train").startswith(expected)  # what plans were named before version 2


def test_item_tables_can_be_taken_apart() -> None:
    docs = [[text(4, (2,)), image(1, 2)], [audio(3)], [text(6, (1, 5))]]
    part = take(ItemTable.of(docs), np.array([2, 0, 2]))
    whole = ItemTable.of([docs[2], docs[0], docs[2]])
    for name in ("offsets", "T", "h", "sentence_ends", "sentence_offsets", "times_offsets"):
        assert getattr(part, name).tolist() == getattr(whole, name).tolist()
    names = [part.codecs[c] for c in part.codec]
    assert names == ["toy-text@1", "toy-text@1", "toy-image@1", "toy-text@1"]
