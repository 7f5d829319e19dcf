"""Version 2 of the plan: pieces that are held out fill the gaps of the others, as docs/format.md words it."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata import Loader
from mmdata.errors import UserError
from mmdata.pieces import costs_of, places_of
from mmdata.plan import Plan, PlanSettings, make_plan
from tests.mmdata.slow_packing import OpenRow, pack_slowly
from tests.mmdata.toy_data import write_toy_dataset
from tests.mmdata.toy_plan import ToyLayout, audio, drawn, plan_for, source_of
from tokenizer.codec import spec_of
from tokenizer.codecs import load_codec
from tokenizer.item import Item, ItemTable
from tokenizer.layout import load_layout

RATES = {"toy-audio@1": 50.0}
LIMITS = [{}, {"images": 2}, {"audio_seconds": 0.3, "images": 3}]
SHARES = [0.0, 0.05, 0.3]


def by_row(plan: Plan) -> list[list[tuple[int, int, int]]]:
    entries = list(zip(plan.sample.tolist(), plan.start.tolist(), plan.stop.tolist()))
    return [entries[a:b] for a, b in pairwise(plan.rows.tolist())]


@given(st.integers(0, 10**6), st.sampled_from(SHARES), st.sampled_from(LIMITS), st.sampled_from([22, 30, 47]))
@settings(max_examples=25, deadline=None)
def test_a_plan_of_version_2_is_whole_within_its_limits_and_no_longer(
    seed: int, share: float, limits: dict[str, Any], capacity: int
) -> None:
    docs = drawn(seed)
    more = {"limits": limits, "too_long": "leave_out", "version": 2, "split_share": share}
    plan, before = plan_for(docs, capacity, shard=20, **more), plan_for(docs, capacity, shard=20, limits=limits)
    layout, table = ToyLayout(), ItemTable.of([docs[s] for s in plan.sample])
    lengths = layout.lengths(table, np.stack([plan.start, plan.stop], axis=1))
    np.testing.assert_array_equal(lengths, plan.length)
    assert (np.add.reduceat(plan.length, plan.rows[:-1]) <= capacity).all() and (np.diff(plan.rows) > 0).all()
    costs, codes = costs_of(layout, table, np.arange(len(table)), plan.start, plan.stop, RATES)
    sums = np.add.reduceat(costs, plan.rows[:-1])
    assert sums[:, 0].max() <= limits.get("images", 99) and sums[:, 2].max() <= 1000 * limits.get("audio_seconds", 99)
    # The places are those of version 1, each once, cut where the layout allows it.
    total = places_of(ItemTable.of(docs))
    legal = [set(layout.cuts(ItemTable.of(docs), s)[0].tolist()) for s in range(len(docs))]
    seen = [np.zeros(n, int) for n in total]
    for sample, start, stop in zip(plan.sample, plan.start, plan.stop):
        seen[sample][start:stop] += 1
        assert {int(start), int(stop)} <= legal[sample] and start < stop
    expected = [np.zeros(n, int) for n in total]
    for sample, start, stop in zip(before.sample, before.start, before.stop):
        expected[sample][start:stop] += 1
    assert all((a == b).all() for a, b in zip(seen, expected))
    assert plan.report["codes"] == before.report["codes"] == codes
    # Nothing is split for nothing, and of what fits a row no more than the share of each window.
    assert (np.diff(plan.windows) <= np.diff(before.windows)).all()
    for first, last in pairwise(range(0, len(docs) + 40, 40)):
        here = [s for s in range(first, min(last, len(docs)))]
        whole = [s for s in here if (before.sample == s).sum() == 1 and (seen[s] == 1).all()]
        assert sum((plan.sample == s).sum() > 1 for s in whole) <= share * len(whole)
    for row in by_row(plan):
        assert row == sorted(row)


@st.composite
def windows(draw: st.DrawFn) -> dict[str, Any]:
    """A window, its rows and its layout; in rows of 300 an entry is poured into up to three gaps."""
    capacity = draw(st.sampled_from([22, 30, 47, 130, 300]))
    num, sides = draw(st.sampled_from([15, 30, 60])), ((8, 12) if capacity == 300 else (3, 4))
    return {
        "docs": drawn(draw(st.integers(0, 10**6)), num, min(capacity, 150), sides),
        "capacity": capacity,
        "share": draw(st.sampled_from(SHARES)),
        "limits": draw(st.sampled_from(LIMITS)),
        "layout": ToyLayout(draw(st.sampled_from([0, 0, 7]))),
    }


@given(windows())
@settings(max_examples=40, deadline=None)
def test_pouring_equals_its_slow_twin(case: dict[str, Any]) -> None:
    more = {"limits": case["limits"], "layout": case["layout"], "version": 2, "split_share": case["share"]}
    plan = plan_for(case["docs"], case["capacity"], **more)
    assert by_row(plan) == _poured_slowly(**case)


def test_pouring_saves_rows_and_splits_fitting_documents_only_with_a_share() -> None:
    docs = drawn(3, num=300)
    rows = {}
    for share in (None, 0.0, 0.1):
        more = {} if share is None else {"version": 2, "split_share": share}
        plan = plan_for(docs, 40, **more)
        rows[share], split = plan.num_rows, plan.report["split"]
        assert split["largest_share"] <= (share or 0.0)
        assert (split["would_fit_a_row"] > 0) == bool(share)
    assert rows[0.1] < rows[0.0] < rows[None]


def test_documents_without_gaps_are_left_as_version_1_has_them() -> None:
    docs = [[audio(20)] for _ in range(40)]
    plan = plan_for(docs, 22, version=2, split_share=1.0)
    assert plan.num_rows == 40 and plan.report["split"]["documents"] == 0


@pytest.mark.parametrize(
    ("version", "share", "digest"),
    [(1, 0.0, "906f1606582db6fc"), (2, 0.0, "8569714238625028"), (2, 0.1, "36445e2b08327ccf")],
)
def test_plans_are_fixed_for_good(version: int, share: float, digest: str) -> None:
    docs = drawn(5, num=250)
    more = {"limits": {"images": 3}, "version": version, "split_share": share}
    plan = plan_for(docs, 40, shard=50, **more)
    arrays = [plan.windows, plan.rows, plan.sample, plan.start, plan.stop, plan.length]
    assert hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()[:16] == digest


@given(st.integers(0, 10**6), st.sampled_from(["mmdata", "gemini"]))
@settings(max_examples=8, deadline=None)
def test_poured_pieces_render_to_their_planned_length(seed: int, name: str) -> None:
    shipped = {"text": "text-spm16k@1", "image": "image-fsq16@1", "audio": "speech-melfsq@1", "video": "image-fsq16@1"}
    layout = load_layout(name).bind(spec_of(load_codec(codec)) for codec in sorted(set(shipped.values())))
    docs = [
        [replace(item, codec=shipped[item.kind]) for item in [*doc, *_film(n)]]
        for n, doc in enumerate(drawn(seed, num=40))
    ]
    wanted = PlanSettings(layout.digest, 60, version=2, split_share=0.3)
    plan = make_plan(source_of(docs), "train", layout, wanted)
    for sample, start, stop, length in zip(plan.sample, plan.start, plan.stop, plan.length):
        assert len(layout.render(docs[sample], piece=(start, stop))) == length <= 60


def _film(n: int) -> list[Item]:
    """A film with its sound, of every third document."""
    if n % 3:
        return []
    codes = np.zeros((100, 1), np.int32)
    times = np.arange(3, dtype=np.float32)
    return [
        Item("video", "toy-image@1", codes[:6], grid=(3, 1, 2), times=times),
        Item("audio", "toy-audio@1", codes[:75], grid=(75, 0, 0), start_s=0.0, end_s=1.5),
    ]


def _poured_slowly(
    docs: list[list[Item]], capacity: int, share: float, limits: dict[str, Any], layout: ToyLayout
) -> list[list[tuple[int, int, int]]]:
    """The rows of one window, step by step as the format says."""
    table = ItemTable.of(docs)
    names = {"images": 0, "audio_seconds": 2}
    most = [round(limits[k] * (1000 if k == "audio_seconds" else 1)) for k in names if k in limits]
    columns = [c for k, c in names.items() if k in limits]

    @cache
    def length(s: int, a: int, b: int) -> int:
        return int(layout.lengths(table, np.array([[a, b]]), np.array([s]))[0])

    @cache
    def cost(s: int, a: int, b: int) -> list[int]:
        return costs_of(layout, table, np.array([s]), np.array([a]), np.array([b]), RATES)[0][0, columns].tolist()

    def fits(s: int, a: int, b: int, gap: int, used: list[int]) -> bool:
        return length(s, a, b) <= gap and all(u + c <= m for u, c, m in zip(used, cost(s, a, b), most))

    def packed(entries: list[tuple[int, int, int]], rows: list[OpenRow]) -> list[int]:
        return pack_slowly([length(*e) for e in entries], capacity, [cost(*e) for e in entries], most, rows)

    first = plan_for(docs, capacity, limits=limits, layout=layout)
    version_1 = by_row(first)
    entries = sorted(e for row in version_1 for e in row)
    rows: list[OpenRow] = []
    packed(entries, rows)
    least = max(1, capacity // 64)
    wide = [row.gap for row in rows if row.gap >= least]
    if sum(wide) < capacity:
        return version_1
    total = places_of(table)
    documents = [e for e in entries if (e[1], e[2]) == (0, total[e[0]])]
    held = _held(entries, documents, int(share * len(documents)), wide, length)
    rest = [e for e in entries if e not in held]
    rows = []
    chosen = dict(zip(rest, packed(rest, rows)))
    parts = [[s, a, b, 0] for s, a, b in sorted(held)]  # sample, begin, end, gaps
    for k in range(16):
        share_of_gap = 15 / 16 if k < 8 else 3 / 4 if k < 12 else 1 / 2
        todo = sorted((p for p in parts if p[1] < p[2] and p[3] < 3), key=lambda p: -length(*p[:3]))
        open_ = sorted((r for r, row in enumerate(rows) if row.gap >= least), key=lambda r: -rows[r].gap)
        pairs = min(len(todo), len(open_))
        for i in range(pairs):
            s, a, b, _ = part = todo[i]
            row = rows[open_[(i + 37 * k) % pairs]]
            cuts = [p for p in layout.cuts(table, s)[0].tolist() if a <= p <= b]
            low, high = 0, len(cuts)
            while high - low > 1:
                middle = (low + high) // 2
                if fits(s, a, cuts[middle], row.gap, row.used):
                    low = middle
                else:
                    high = middle
            stop = cuts[low]
            if low == 0 or length(s, a, stop) < share_of_gap * row.gap:
                continue
            if stop < b and not fits(s, stop, b, capacity, [0] * len(most)):
                continue
            chosen[s, a, stop] = open_[(i + 37 * k) % pairs]
            row.gap -= length(s, a, stop)
            row.used = [u + c for u, c in zip(row.used, cost(s, a, stop))]
            part[1], part[3] = stop, part[3] + 1
    left = [(s, a, b) for s, a, b, _ in parts if a < b]
    for number, row in enumerate(rows):
        row.since = number
    chosen |= dict(zip(left, packed(left, rows)))
    if len(rows) >= len(version_1):
        return version_1
    out: list[list[tuple[int, int, int]]] = [[] for _ in rows]
    for entry in sorted(chosen):
        out[chosen[entry]].append(entry)
    return out


def _held(
    entries: list[tuple[int, int, int]],
    documents: list[tuple[int, int, int]],
    most: int,
    wide: list[int],
    length: Callable[[int, int, int], int],
) -> list[tuple[int, int, int]]:
    number = -(-len(wide) // 2)
    enough = sum(wide) // number
    order = sorted(
        (e for e in entries if e[2] - e[1] > 1),
        key=lambda e: (length(*e) > 2 * (e[2] - e[1]), length(*e) < enough, abs(length(*e) - enough), e),
    )
    taken: list[tuple[int, int, int]] = []
    for entry in order:
        if entry in documents and sum(e in documents for e in taken) >= most:
            continue
        if len(taken) == number or sum(length(*e) for e in taken) >= 2 * sum(wide):
            break
        taken.append(entry)
    return taken


def test_a_loader_reads_such_a_plan_and_its_state_names_it(tmp_path: Path) -> None:
    data = write_toy_dataset(tmp_path, {"web": 600})
    more = {"seq_len": 90, "batch_size": 3, "threads": 0}
    plain, split = Loader(data, plan_version=1, **more), Loader(data, split_share=0.2, **more)
    assert plain.state()["plan"]["version"] == 1 and split.state()["plan"]["version"] == 2
    newest = Loader(data, **more).state()["plan"]
    assert newest["split_share"] == 0.0 and newest["version"] == 2
    with pytest.raises(UserError, match=r"another past: plan\.split_share is 0\.2 in it and 0\.0 here"):
        plain.restore(split.state())
    plan = split.feeds.feeds[0].plan
    assert plan.num_rows < plain.feeds.feeds[0].plan.num_rows
    tokens = sum(int((split.batch_at(step).segment_ids > 0).sum()) for step in range(plan.num_rows // 3))
    assert plan.num_tokens - 180 <= tokens <= plan.num_tokens
