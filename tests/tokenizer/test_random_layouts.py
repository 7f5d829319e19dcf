"""Whatever layout loads is read back: over layout files drawn at random, not only those that somebody thought of.

A failure names its seed and prints the file; `check_layout(drawn(SEED)[1], Random(SEED))` is the failure again.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

import numpy as np
import pytest
from hypothesis.vendor.pretty import pretty

from tests.tokenizer.test_layouts import check_row, check_strange, check_units, count_codes
from tests.tokenizer.toy_grammars import case_of, random_binding, random_layout, random_sample
from tests.tokenizer.toy_layouts import Case, ToyText, medium_of
from tokenizer.grammar import LayoutSpec
from tokenizer.item import Item, ItemTable
from tokenizer.layout import PLAIN, Choice, Layout, Row, read_layout

SAMPLES = 8  # of each layout


@pytest.mark.parametrize("chunk", range(8))
def test_whatever_loads_is_read_back(chunk: int) -> None:
    check_layouts(chunk * 1000, 40)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(8, 28))
def test_whatever_loads_is_read_back_of_many(chunk: int) -> None:
    check_layouts(chunk * 1000, 180)


def drawn(seed: int) -> tuple[str, Case | None]:
    """The layout file of a seed, and its layout over toy codecs if it is not refused."""
    rng = Random(seed)
    text = random_layout(rng)
    try:
        return text, case_of(f"seed {seed}", random_binding(rng, read_layout(text, "f")))
    except ValueError:
        return text, None


@contextmanager
def told(what: Callable[[], str]) -> Iterator[None]:
    """An error in here says what it was about."""
    try:
        yield
    except Exception as error:
        error.add_note(what())
        raise


def check_layouts(seed: int, count: int) -> None:
    """From this seed on, samples and strange ids of so many layouts that load."""
    while count:
        text, case = drawn(seed)
        if case is not None:
            with told(lambda seed=seed, text=text: f"seed {seed}, layout f:\n{text}"):
                check_layout(case, Random(seed))
            count -= 1
        seed += 1


def check_layout(case: Case, rng: Random) -> None:
    layout, rendered, lengths = case.layout, [], []
    for _ in range(SAMPLES):
        sample = random_sample(rng, layout)
        with told(lambda sample=sample: f"sample {pretty(sample)}"):
            tokens = check_sample(case, sample, rng)
        if tokens is not None:
            rendered.append(sample)
            lengths.append(len(tokens))
        for ids in (wild_ids(rng, layout), damaged(rng, layout, tokens)):
            with told(lambda ids=ids: f"ids {ids.tolist()}"):
                check_strange(case, ids)
    assert layout.lengths(ItemTable.of(rendered)).tolist() == lengths, "of many samples: those of each"


def check_sample(case: Case, sample: list[Item], rng: Random) -> np.ndarray | None:  # int32 [n] or [n, K]
    """The ids of a sample's row, in which all holds that holds of rows; None where lengths and render refuse it."""
    layout, table = case.layout, ItemTable.of([sample])
    refusals = [refusal(lambda: layout.lengths(table)), refusal(lambda: layout.render(sample, media=medium_of))]
    if any(refusals):
        assert all(refusals), f"one alone refuses, of lengths and render: {refusals}"
        return None
    length = int(layout.lengths(table)[0])
    row = check_row(case, sample, PLAIN, None)
    assert len(row) == length
    choice = layout.choose(sample, rng.randrange(99), "id", 0)
    assert len(check_row(case, sample, choice, None)) <= length
    check_pieces(case, sample, choice, rng)
    return row.tokens


def refusal(act: Callable[[], object]) -> str:
    """The words of a ValueError, "" where there is none."""
    try:
        act()
    except ValueError as error:
        return str(error)
    return ""


def check_pieces(case: Case, sample: list[Item], choice: Choice, rng: Random) -> None:
    """Pieces between cuts have the length foretold, and every code lies in one of them."""
    layout, table = case.layout, ItemTable.of([sample])
    places = layout.cuts(table)[0].tolist()
    edges = sorted({0, places[-1], *rng.choices(places, k=rng.randrange(5))})
    pieces = list(itertools.pairwise(edges)) or [(0, 0)]
    lengths = layout.lengths(table, np.array(pieces), samples=np.zeros(len(pieces), int))
    counts: dict = {}
    for piece, length in zip(pieces, lengths):
        with told(lambda piece=piece: f"piece {piece} of {pieces}"):
            row = check_row(case, sample, PLAIN, piece)
            assert len(row) == length
            assert len(check_row(case, sample, choice, piece)) <= length
            check_units_of(case, table, piece, row)
        for item in layout.apply(sample, PLAIN, piece):
            count_codes(item, counts)
    whole: dict = {}
    for item in layout.apply(sample):
        count_codes(item, whole)
    assert counts == whole
    check_units(case, table, pieces)


def check_units_of(case: Case, table: ItemTable, piece: tuple[int, int], row: Row) -> None:
    """`units` says of each item what the spans of a piece's row say; these count frames that thinning leaves out."""
    spec = case.layout.spec
    if spec.streams.sounds or spec.video.max_rate:
        return
    _, items, units = case.layout.units(table, np.zeros(1, int), *np.array(piece).reshape(2, 1))
    spans = {int(s["item"]): int(np.diff(s["piece"])[0]) for s in row.spans}
    assert {m: n for m, n in zip(items.tolist(), units.tolist()) if n} == {m: n for m, n in spans.items() if n}


def wild_ids(rng: Random, layout: Layout) -> np.ndarray:  # int64 [n]
    """Ids that look like a row often enough to reach every branch of the parser."""
    controls = sorted(layout.controls.values())
    starts = [r.start for r in layout.vocabulary.ranges if r.size]
    words = ["x", "<1.5 seconds>", "2*3", "[00:01]", "@1.0s", "user\n", "\n\n", "!", "1"]
    near: list[Callable[[], list[int]]] = [
        lambda: [rng.choice(controls)],
        lambda: [rng.choice(starts)] * rng.choice([1, 1, 2, 4]),
        lambda: [rng.randrange(layout.vocabulary.size + 3)],
        lambda: ToyText().encode(rng.choice(words)).codes[:, 0].tolist(),
    ]
    runs = rng.choices(near, weights=[5, 3, 1, 1], k=rng.randrange(40))
    return np.array([id for run in runs for id in run()], np.int64)


def damaged(rng: Random, layout: Layout, tokens: np.ndarray | None) -> np.ndarray:  # int64 [n]
    """A row cut off, with places taken out or said twice, or with another id; streams column after column."""
    row = np.zeros(0, np.int64) if tokens is None else tokens.astype(np.int64)
    for _ in range(rng.randint(1, 3)):
        if not len(row):
            break
        a, b = sorted((rng.randrange(len(row)), rng.randrange(len(row))))
        changed = row.copy()
        changed.reshape(-1)[rng.randrange(row.size)] = rng.choice([rng.randrange(500), *layout.controls.values()])
        row = rng.choice([row[:b], np.delete(row, a, 0), np.concatenate([row[:b], row[a:]]), changed])
    return row.reshape(-1)


# What must be among the layouts that load, or the tests above say little
WANTED: dict[str, Callable[[LayoutSpec], bool]] = {
    "turns with roles": lambda spec: bool(spec.turns.open),
    "turns without": lambda spec: bool(spec.turns.close) and not spec.turns.open,
    "some roles learnt": lambda spec: spec.turns.learn == ("assistant",),
    "tasks": lambda spec: bool(spec.document.task_other),
    "what is not written left out": lambda spec: spec.document.unwritten == "leave_out" and len(spec.kinds) < 4,
    "sizes": lambda spec: spec.image.header == "two_sizes",
    "sizes in words": lambda spec: spec.image.header == "text",
    "rows with ends": lambda spec: bool(spec.image.row_end or spec.video.row_end),
    "a picture as a film": lambda spec: spec.image.as_video,
    "frames that stand by themselves": lambda spec: bool(spec.video.frame_open and not spec.video.open),
    "frames apart": lambda spec: bool(spec.video.frame_separator),
    "times in words": lambda spec: spec.video.time_form == "text",
    "a quantum of times in words": lambda spec: spec.video.time_text_quantum_s > 0,
    "thinned frames": lambda spec: spec.video.max_rate > 0,
    "codebooks late": lambda spec: any(spec.rule(kind).codebooks == "delayed" for kind in spec.kinds),
    "soft images": lambda spec: spec.soft.image.patch > 0,
    "soft images of one size": lambda spec: bool(spec.soft.image.size),
    "soft films": lambda spec: spec.soft.video.patch > 0,
    "soft sounds": lambda spec: bool(spec.soft.audio.samples or spec.soft.audio.frames),
    "one begin of two kinds": lambda spec: bool(spec.image.open) and spec.image.open == spec.video.open,
    "film and sound": lambda spec: spec.merge.of == "video_audio",
    "units": lambda spec: spec.merge.of == "units",
    "streams": lambda spec: spec.streams.sounds > 1 and max(spec.streams.delays) > 0,
    "seconds on three axes": lambda spec: spec.positions.plan == "three_axis" and spec.positions.time == "seconds",
    "blocks": lambda spec: bool(spec.attention.blocks),
    "a prefix": lambda spec: bool(spec.attention.prefix),
    "weights of codebooks": lambda spec: bool(spec.loss.codebooks),
    "dropped conditions": lambda spec: spec.choices.condition_dropout > 0,
}


def test_a_share_loads_with_all_that_is_wanted_and_every_refusal_names_file_and_line() -> None:
    loaded: list[LayoutSpec] = []
    refused: list[str] = []
    for seed in range(600):
        text = random_layout(Random(seed))
        with told(lambda seed=seed, text=text: f"seed {seed}, layout f:\n{text}"):
            try:
                loaded.append(read_layout(text, "f"))
            except ValueError as error:
                found = re.fullmatch(r"f, line (\d+): (.+)", str(error))
                assert found and 1 <= int(found[1]) <= len(text.splitlines()), str(error)
                refused.append(found[2])
    assert min(len(loaded), len(refused)) >= 600 / 5
    assert [name for name, has in WANTED.items() if not any(map(has, loaded))] == []
    assert len({re.sub(r"'.*?'|\d|\[\w+\]", "", what) for what in refused}) > 25, "refused for many reasons"
