"""Layouts of systems with public scripts only, held to rows derived by hand from the facts (tests/golden/layouts).

A golden file says its items and the row they give in symbols: `<s>` a control, `text 17` code 17 of the text codec,
`text: 'a cat'` the pieces of a text, `image 5` or `mimi/2 5` code 5 of codebook 0 or 2 of the codec of that kind or
name, `size 3` the token of a size. `row` has [symbol, loss weight, attention block] a place, weight and block where the
facts give them; `streams` and `loss` have a line a stream and an entry a column. `counts` are tokens of one medium at
the original's own size, less those `beside` it.
"""

import math
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokenizer.codec import Codec, CodecSpec, spec_of
from tokenizer.codecs import load_codec
from tokenizer.item import Item, ItemTable
from tokenizer.layout import Layout, load_layout

FOLDER = Path(__file__).parents[1] / "golden" / "layouts"
NAMES = ("lumina", "lwm", "moshi", "show-o", "spirit")
GOLDENS = {name: tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8")) for name in NAMES}
SAMPLES = [
    pytest.param(name, sample, id=f"{name}: {sample['name']}") for name in NAMES for sample in GOLDENS[name]["sample"]
]
COUNTS = [
    pytest.param(name, count, id=f"{name}: {count.get('grid') or count['seconds']}")
    for name in NAMES
    for count in GOLDENS[name]["counts"]
]
CAUSAL = 0


def bound(name: str) -> tuple[Layout, Codec, tuple[CodecSpec, ...]]:
    """The shipped layout of a golden file over its codecs, and the codec of text."""
    text = load_codec("text-spm16k@1")
    codecs = tuple(
        CodecSpec(c["name"], c["kind"], tuple(c["codebooks"]), "", False, c.get("rate", 0.0))
        for c in GOLDENS[name]["codecs"]
    )
    return load_layout(GOLDENS[name]["layout"]).bind((spec_of(text), *codecs), text=text), text, codecs


def item_of(said: dict[str, Any], text: Codec) -> Item:
    fields = {key: said[key] for key in ("role", "stream", "group", "group_role", "start_s", "end_s") if key in said}
    if said["kind"] == "text":
        words = np.array(said.get("words", []), np.float32).reshape(-1, 2)
        return Item("text", spec_of(text).name, text.encode(said["text"]).codes, unit_times=words, **fields)
    by_codebook = said.get("by_codebook") or [said["codes"]]
    codes = np.array(by_codebook, np.int32).T.copy()
    if said["kind"] != "audio":
        return Item(said["kind"], said["codec"], codes, tuple(said["grid"]), **fields)
    times = np.array([frame / said["rate"] for frame in said.get("frames", [])], np.float32)
    return Item("audio", said["codec"], codes, (len(codes), 0, 0), times=times, **fields)


def ids_of(symbol: str, layout: Layout, text: Codec, codecs: tuple[CodecSpec, ...]) -> list[int]:
    """Ids of a symbol: several for the pieces of a text, else one."""
    if symbol in layout.controls:
        return [layout.controls[symbol]]
    if literal := re.fullmatch(r"text: '(.*)'", symbol):
        return [layout.vocabulary["text"][code] for code in text.encode(literal[1]).codes[:, 0]]
    name, code = symbol.rsplit(" ", 1)
    if name in ("text", "size"):
        return [layout.vocabulary[name][int(code)]]
    name, _, codebook = name.partition("/")
    codec = next((c for c in codecs if name in (c.kind, c.name.partition("@")[0])), None)
    assert codec is not None, f"symbol {symbol!r} names no control and no codec; controls are {list(layout.controls)}"
    return [layout.vocabulary[f"{codec.name}/{codebook or 0}"][int(code)]]


def spoken(layout: Layout, ids: np.ndarray) -> list[str]:
    """Ids in words, for a failure that can be read."""
    return [" ".join(layout.vocabulary.describe(int(i))) for i in ids]


def places(row: list[list[Any]], *bound_to: Any) -> Iterator[tuple[int, float, float]]:
    """(id, weight, block) a place, NaN for what the facts do not give."""
    for symbol, *facts in row:
        weight, block = [*facts, math.nan, math.nan][:2]
        for i in ids_of(symbol, *bound_to):
            yield i, weight, block


@pytest.mark.parametrize(("name", "sample"), SAMPLES)
def test_a_row_is_that_of_the_original(name: str, sample: dict[str, Any]) -> None:
    layout, text, codecs = bound(name)
    items = [item_of(said, text) for said in sample["items"]]
    row = layout.render(items)
    if "streams" in sample:
        ids = np.array([[ids_of(s, layout, text, codecs)[0] for s in stream] for stream in sample["streams"]]).T
        weights, blocks = np.array(sample["loss"], np.float32).T, np.zeros(len(ids))
    else:
        ids, weights, blocks = map(np.array, zip(*places(sample["row"], layout, text, codecs), strict=True))
    assert row.tokens.dtype == np.int32
    for got, want in zip(row.tokens.T.reshape(-1, len(row.tokens)), ids.T.reshape(-1, len(ids)), strict=True):
        assert spoken(layout, got) == spoken(layout, want)
    assert np.array_equal(row.tokens, ids)
    given = ~np.isnan(weights)
    assert row.loss_weights.shape == ids.shape
    assert row.loss_weights[given].tolist() == weights[given].astype(np.float32).tolist()
    assert row.positions.tolist() == list(range(len(ids)))
    given = ~np.isnan(blocks)
    got_blocks = np.zeros(len(ids), np.int32) if row.blocks is None else row.blocks
    assert together(got_blocks[given]) == together(blocks[given])


def together(blocks: np.ndarray) -> list[int]:
    """Blocks by the first place of each, so that only which places are together counts."""
    first: dict[int, int] = {}
    return [CAUSAL if not b else 1 + first.setdefault(int(b), place) for place, b in enumerate(blocks)]


@pytest.mark.parametrize(("name", "sample"), SAMPLES)
def test_its_length_is_known_without_codes(name: str, sample: dict[str, Any]) -> None:
    layout, text, _ = bound(name)
    items = [item_of(said, text) for said in sample["items"]]
    assert layout.lengths(ItemTable.of([items])).tolist() == [len(layout.render(items))]


@pytest.mark.parametrize(("name", "sample"), SAMPLES)
def test_it_parses_back_without_a_problem(name: str, sample: dict[str, Any]) -> None:
    layout, text, _ = bound(name)
    items = [item_of(said, text) for said in sample["items"]]
    back, problems = layout.parse(layout.render(items).tokens)
    assert problems == []
    kept = layout.apply(items)
    assert [i.kind for i in back] == [i.kind for i in kept]
    assert [i.codes.tolist() for i in back] == [i.codes.tolist() for i in kept]


@pytest.mark.parametrize(("name", "count"), COUNTS)
def test_a_medium_of_the_original_size_takes_the_original_number_of_tokens(name: str, count: dict[str, Any]) -> None:
    layout, text, codecs = bound(name)
    codec = codecs[0]
    if "grid" in count:
        t, h, w = count["grid"]
        item = Item(count["kind"], codec.name, np.zeros((t * h * w, 1), np.int32), (t, h, w))
    else:
        frames = math.ceil(count["seconds"] * codec.rate)
        codes = np.zeros((frames, len(codec.codebooks)), np.int32)
        item = Item("audio", codec.name, codes, (frames, 0, 0), start_s=0.0, end_s=float(count["seconds"]))
    beside = sum(len(ids_of(symbol, layout, text, codecs)) for symbol in count.get("beside", []))
    assert layout.lengths(ItemTable.of([[item]])).tolist() == [beside + count["tokens"]]


def test_every_golden_file_is_read_and_none_is_empty() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.toml")) == sorted(NAMES)
    assert all(GOLDENS[name]["sample"] for name in NAMES)
    assert [GOLDENS[name]["layout"] for name in NAMES] == list(NAMES)
