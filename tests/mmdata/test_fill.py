"""Filling by compiled code gives what rendering gives, in every layout; and batches belong to who holds them."""

import dataclasses
import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata import Batch, Loader, RunError, UserError
from mmdata.feeds import Located
from mmdata.manifest import finish_source
from mmdata.ring import ALIGNMENT, Ring
from mmdata.sample import Sample
from mmdata.shards import write_shard
from tokenizer.codec import CodecSpec, spec_of
from tokenizer.codecs import load_codec
from tokenizer.item import Item
from tokenizer.layout import load_layout, shipped_layouts
from tokenizer.programs import Programs

L, B = 512, 4
TEXT = spec_of(load_codec("text-spm16k")).name
CODECS = (
    spec_of(load_codec("text-spm16k")),
    CodecSpec("image@1", "image", (70_000,), "c", False),
    CodecSpec("sound@1", "audio", (40,), "d", False, rate=50.0),
    CodecSpec("sound2@1", "audio", (16, 256, 7), "e", False, rate=12.5),
)
PLAIN = ("mmdata", "gemini", "chameleon", "lumina", "lwm", "emu3", "spirit")


def sample_of(number: int, kinds: str) -> Sample:
    """A document with items of these kinds: t(ext) i(mage) v(ideo) a(udio) A(udio of three codebooks)."""
    rng = np.random.default_rng(number)

    def codes(T: int, *tops: int) -> np.ndarray:
        return np.stack([rng.integers(0, top, T) for top in tops], 1).astype(np.int32)

    items = []
    for kind in kinds:
        role = ["none", "user", "assistant"][rng.integers(3)]
        group = {"group": int(rng.integers(-1, 2)), "group_role": ["none", "caption", "condition"][rng.integers(3)]}
        if kind == "t":
            n = int(rng.choice([0, 1, 5, 60, 900], p=[0.05, 0.2, 0.4, 0.3, 0.05]))
            items.append(Item("text", TEXT, codes(n, 16_000), role=role, sentence_ends=np.arange(7, n, 9, np.int32)))
        elif kind == "i":
            h = w = 2 * int(rng.integers(1, 5))
            items.append(Item("image", "image@1", codes(h * w, 70_000), (1, h, w), **group))
        elif kind == "v":
            t, h = int(rng.integers(1, 4)), 2 * int(rng.integers(1, 3))
            times = np.cumsum(rng.random(t)).astype(np.float32)
            items.append(Item("video", "image@1", codes(t * h * h, 300), (t, h, h), times=times, role=role))
        else:
            T = int(rng.integers(1, 150))
            tops, name = ((40,), "sound@1") if kind == "a" else ((16, 256, 7), "sound2@1")
            start = float(rng.choice([np.nan, 0.0, 1.5]))
            items.append(Item("audio", name, codes(T, *tops), (T, 0, 0), start, start + T / 50, stream="left"))
    name = f"{number:032x}"
    return Sample(name, name, "web", tuple(items), uri=f"d/{number}")


def write(folder: Path, samples: list[Sample]) -> Path:
    shards = [write_shard(folder / "web", "web", "train", i, 3, samples[i::3]) for i in range(3)]
    used = {item.codec for sample in samples for item in sample.items}
    finish_source(folder / "web", "web", shards, [c for c in CODECS if c.name in used], {})
    return folder / "web"


def both(loader: Loader) -> Iterator[tuple[Batch, Batch]]:
    """(filled, rendered) batches of the first epoch."""
    for step in range(-(-loader.feeds.feeds[0].plan.num_rows // B)):
        rows = loader.feeds.locate(step)
        yield loader.renderer.batch(rows, step), loader.renderer._rendered(rows, step, loader.renderer.left_out)


def assert_same(a: Batch, b: Batch) -> None:
    x, y = a.arrays(), b.arrays()
    assert x.keys() == y.keys()
    for name in x:
        assert x[name].dtype == y[name].dtype
        np.testing.assert_array_equal(x[name], y[name], err_msg=name)


def count_rendered(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Entries that were not filled, counted as batches are made."""
    counts: list[int] = []
    inner = loader.renderer._render_into

    def counted(batch: Batch, feed: int, epochs: np.ndarray, todo: np.ndarray, *more: Any) -> None:
        counts.append(len(todo))
        inner(batch, feed, epochs, todo, *more)

    monkeypatch.setattr(loader.renderer, "_render_into", counted)
    return counts


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("turns", [False, True])
def test_filled_rows_are_the_rendered_ones(
    name: str, turns: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load_layout(name)
    samples = []
    for number, kinds in enumerate(("t", "ti", "tit", "ita", "tv", "va", "ttA", "tA", "aaA", "itiva") * 8):
        items = [item for item in sample_of(number, kinds).items if item.kind in spec.kinds]
        if not turns:
            items = [dataclasses.replace(item, role="none") for item in items]
        whole = tuple(items) or sample_of(number, "t").items
        samples.append(Sample(f"{number:032x}", f"{number:032x}", "web", whole, uri=f"d/{number}"))
    loader = Loader(write(tmp_path, samples), layout=spec, seq_len=L, batch_size=B, seed=3, threads=0)
    counts = count_rendered(loader, monkeypatch)
    entries = 0
    for filled, rendered in both(loader):
        assert_same(filled, rendered)
        entries += sum(len(np.unique(row[row > 0])) for row in filled.segment_ids)
    mostly = not turns and name not in ("emu3", "spirit")  # captions with a weight, sounds on one clock
    assert sum(counts) < (0.5 if mostly else 1.0) * entries


def test_layouts_whose_items_look_at_one_another_are_rendered(tmp_path: Path) -> None:
    folder = write(tmp_path, [sample_of(n, "t") for n in range(9)])
    for name in sorted(set(shipped_layouts()) - set(PLAIN) - {"moshi"}):  # moshi needs sound
        assert not Loader(folder, layout=name, seq_len=2048, batch_size=1, threads=0).renderer._fillers


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.text("tiav", min_size=1, max_size=5), min_size=3, max_size=30))
def test_filled_rows_are_the_rendered_ones_of_any_documents(
    tmp_path_factory: pytest.TempPathFactory, seed: int, kinds: list[str]
) -> None:
    samples = [sample_of(seed + n, k) for n, k in enumerate(kinds)]
    folder = write(tmp_path_factory.mktemp("d"), samples)
    loader = Loader(folder, seq_len=300, batch_size=B, seed=seed, threads=0, too_long="leave_out")
    for filled, rendered in both(loader):
        assert_same(filled, rendered)


def test_the_default_layout_is_filled_not_rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [sample_of(n, "tiat"[: 1 + n % 4]) for n in range(60)]
    loader = Loader(write(tmp_path, samples), seq_len=L, batch_size=B, threads=0)
    counts = count_rendered(loader, monkeypatch)
    entries = 0
    for filled, _ in both(loader):
        entries += sum(len(np.unique(row[row > 0])) for row in filled.segment_ids)
    assert entries > 60 and sum(counts) < 0.15 * entries  # empty texts, and sounds that begin in an earlier row


def test_records_across_blocks_of_the_file_are_filled_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    samples = []
    for n in range(12):
        codes = rng.integers(0, 70_000, (2, 40_000, 1)).astype(np.int32)
        items = tuple(Item("image", "image@1", some, (1, 200, 200)) for some in codes)
        samples.append(Sample(f"{n:032x}", f"{n:032x}", "web", items))
    loader = Loader(write(tmp_path, samples), seq_len=81_000, batch_size=B, threads=0)
    counts = count_rendered(loader, monkeypatch)
    for filled, rendered in both(loader):
        assert_same(filled, rendered)
    assert not sum(counts)


def test_a_code_outside_its_codebook_is_named_not_filled(tmp_path: Path) -> None:
    bad = Item("text", TEXT, np.array([[1], [16_384]], np.int32))
    good = [sample_of(n, "ti") for n in range(5)]
    loader = Loader(write(tmp_path, [*good, Sample("f" * 32, "f" * 32, "web", (bad,))]), seq_len=L, batch_size=2)
    with pytest.raises(RunError, match=r"document f{32} .* codes outside .*mmdata verify"):
        for step in range(8):
            loader.batch_at(step)


def test_programs_of_one_shape_are_made_once(tmp_path: Path) -> None:
    samples = [sample_of(n, "titi") for n in range(30)]
    loader = Loader(write(tmp_path, samples), seq_len=L, batch_size=B, threads=0)
    table = loader.feeds.feeds[0].source.train.item_table()
    found = Programs(loader.layout).of_table(table)
    shapes = {(k, h, w, r, g) for k, h, w, r, g in zip(table.kind, table.h, table.w, table.role, table.group_role)}
    assert len(found.programs) <= 2 * len(shapes) and (found.number[table.num_units() > 0] >= 0).all()


def test_shards_of_coming_steps_are_opened_while_the_steps_go_on(tmp_path: Path) -> None:
    samples = [sample_of(n, "t") for n in range(3000)]
    shards = [write_shard(tmp_path / "web", "web", "train", i, 30, samples[i::30]) for i in range(30)]
    finish_source(tmp_path / "web", "web", shards, [c for c in CODECS if c.name == TEXT], {})
    loader = Loader(tmp_path / "web", seq_len=L, batch_size=1, window_shards=1, group_windows=1, threads=0)
    filler = loader.renderer._fillers[0]

    def opened() -> int:
        return int((filler._opened.slots >= 0).sum())

    for step in range(64):
        loader.batch_at(step)
    before = opened()
    loader.batch_at(64)
    assert loader._opener is not None
    loader._opener.join()
    assert opened() > before + 1
    loader.batch_at(900)
    assert opened() < 30  # a step by itself opens what it reads


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Loader:
    samples = [sample_of(n, "tit") for n in range(80)]
    return Loader(write(tmp_path_factory.mktemp("d"), samples), seq_len=L, batch_size=B, threads=0)


@pytest.mark.parametrize("hold", ["batch", "one array", "a view", "jax.device_put", "jax.numpy"])
def test_memory_that_someone_holds_is_never_written_again(loader: Loader, hold: str) -> None:
    def held(batch: Batch) -> Any:
        if hold == "batch":
            return batch
        if hold == "one array":
            return batch.tokens
        if hold == "a view":
            return batch.tokens[1:, ::2].T
        return jax.device_put(batch) if hold == "jax.device_put" else jax.numpy.asarray(batch.tokens)

    def tokens(value: Any) -> np.ndarray:
        return np.asarray(value.tokens if hasattr(value, "tokens") else value)

    first = [held(loader.batch_at(step)) for step in range(40)]
    for step in range(40, 120):
        loader.batch_at(step)
    for step, value in enumerate(first):
        np.testing.assert_array_equal(tokens(value), tokens(held(loader.batch_at(step))))


def test_memory_is_used_again_when_no_one_holds_it() -> None:
    ring = Ring(1000, keep=3)
    first = ring.take()
    address = first.ctypes.data
    assert address % ALIGNMENT == 0 and len(first) == 1000 and first.flags.writeable
    part = first[10:20].view(np.int16).reshape(5, 1)
    del first
    gc.collect()
    assert ring.take().ctypes.data != address  # `part` is still there
    del part
    assert address in [array.ctypes.data for array in [ring.take(), ring.take()]]
    many = [ring.take() for _ in range(9)]
    del many
    assert len(ring._free) == 3


def test_padding_rows_are_zero_whatever_the_memory_held(loader: Loader) -> None:
    for _ in range(40):
        loader.batch_at(3).tokens.fill(77)
    rows = Located(np.full(B, -1, np.int32), np.zeros(B, np.int64), np.zeros(B, np.int64), np.array([0, B]))
    assert not any(array.any() for array in loader.renderer.batch(rows, 0).arrays().values())


def test_a_batch_that_needs_more_shards_than_are_kept_open_is_made(tmp_path: Path) -> None:
    samples = [sample_of(n, "ti") for n in range(60)]
    shards = [write_shard(tmp_path / "web", "web", "train", i, 20, samples[i::20]) for i in range(20)]
    finish_source(tmp_path / "web", "web", shards, [c for c in CODECS if c.name in (TEXT, "image@1")], {})
    loader = Loader(tmp_path / "web", seq_len=L, batch_size=12, group_windows=10, threads=0)
    wanted = [loader.batch_at(step) for step in range(3)]
    few = Loader(tmp_path / "web", seq_len=L, batch_size=12, group_windows=10, threads=0)
    few.renderer._fillers = [dataclasses.replace(filler, max_open=1) for filler in few.renderer._fillers]
    for step, batch in enumerate(wanted):
        assert_same(few.batch_at(step), batch)


def test_threads_may_make_the_first_batches(tmp_path: Path) -> None:
    samples = [sample_of(n, "t") for n in range(60)]
    folder = write(tmp_path, samples)
    program = f"""
import sys, threading
sys.setswitchinterval(1e-6)
from mmdata import Loader
loader = Loader({str(folder)!r}, seq_len={L}, batch_size={B}, threads=0)
failed = []
def make(step):
    try:
        loader.batch_at(step)
    except BaseException as error:
        failed.append(repr(error))
threads = [threading.Thread(target=make, args=(step,)) for step in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failed, failed
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def rewritten(folder: Path, change: Any) -> None:
    """Change the first catalog of a source, whose plan is made and cached."""
    Loader(folder, seq_len=L, batch_size=B)
    path = sorted((folder / "catalog").glob("train-*.parquet"))[0]
    pq.write_table(change(pq.read_table(path)), path)


def column_times(table: pa.Table, name: str, factor: int) -> pa.Table:
    values = [[factor * v for v in row] for row in table.column(name).to_pylist()]
    return table.set_column(table.column_names.index(name), name, pa.array(values, table.schema.field(name).type))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.slice(0, t.num_rows - 3), "rows, its shard has"),
        (lambda t: column_times(t, "item_offset", -1), "does not match its shard"),
        (lambda t: column_times(t, "item_T", 1000), "does not match its shard"),
        (lambda t: column_times(t, "item_T", -1), "does not match its shard"),
    ],
)
def test_a_catalog_of_another_shard_is_one_line(tmp_path: Path, change: Any, words: str) -> None:
    folder = write(tmp_path, [sample_of(n, "ti") for n in range(60)])
    rewritten(folder, change)
    loader = Loader(folder, seq_len=L, batch_size=B, threads=0)
    with pytest.raises((UserError, RunError), match=words) as error:
        for step in range(20):
            loader.batch_at(step)
    assert "\n" not in str(error.value) and ("mmdata verify" in str(error.value))


def test_codes_that_a_catalog_does_not_know_of_are_found(tmp_path: Path) -> None:
    samples = [
        Sample(f"{n:032x}", f"{n:032x}", "web", (Item("text", TEXT, np.full((8, 1), n, np.int32)),)) for n in range(9)
    ]
    folder = write(tmp_path, samples)
    rewritten(
        folder,
        lambda t: t.set_column(
            t.column_names.index("item_T"), "item_T", pa.array([[4]] * t.num_rows, t.schema.field("item_T").type)
        ),
    )
    for path in (folder / "plans").glob("*"):
        path.unlink()
    loader = Loader(folder, seq_len=L, batch_size=1, threads=0)
    with pytest.raises(UserError, match=r"catalog .* does not match its shard .record 0."):
        for step in range(9):
            loader.batch_at(step)


def test_a_plan_that_points_where_nothing_is_is_one_line(tmp_path: Path) -> None:
    folder = write(tmp_path, [sample_of(n, "ti") for n in range(60)])
    plan = Loader(folder, seq_len=L, batch_size=B).feeds.feeds[0].plan
    for name, value in (("sample", 10**9), ("sample", -1), ("start", -5), ("length", 10**6), ("rows", 10**7)):
        array = getattr(plan, name).copy()
        array[len(array) // 2] = value
        loader = Loader(folder, seq_len=L, batch_size=B, threads=0)
        damaged = dataclasses.replace(plan, **{name: array})
        loader.renderer._fillers = [dataclasses.replace(f, plan=damaged) for f in loader.renderer._fillers]
        with pytest.raises(UserError, match=r"is damaged .*: delete it"):
            for step in range(-(-plan.num_rows // B)):
                loader.batch_at(step)
