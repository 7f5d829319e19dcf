"""Parallel streams: text and sounds side by side, a column a code frame (Moshi: arXiv 2410.00037, section 3.4).

    column      0          1        2        3     ...
    text        BEGIN      pad      word     piece        pieces from the frame at which their word starts
    sound 1/0   INITIAL    c[0]     c[1]     c[2]         codebook 0, delay 0
    sound 1/1   INITIAL    INITIAL  c[0]     c[1]         codebook 1, delay 1: its first places repeat INITIAL

A row is as many columns longer as the longest delay, so that no code is lost; there and where a sound has ended stands
`fill`. A row has no end of its own. Pieces are ranges of columns. Without a sound, text has one token a column.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tokenizer import refusals
from tokenizer.item import AUDIO, CONTROL, KINDS, TEXT, Item, ItemTable
from tokenizer.row import SPAN, Choice, Problem, Row

if TYPE_CHECKING:
    from tokenizer.layout import Layout


def render(layout: Layout, items: Sequence[Item], choice: Choice, piece: tuple[int, int] | None) -> Row:
    """See Layout.render: tokens and loss_weights are [n, K], everything else is a column's."""
    plan = _Plan(layout, items)
    first, last = plan.columns(piece)
    rule, loss, controls = layout.spec.streams, layout.spec.loss, layout.controls
    K = layout.sound_codebooks
    delays = [rule.delays[min(k, len(rule.delays) - 1)] for k in range(K)]
    extra = max(delays, default=0) if plan.sounds else 0
    n, T = 1 + last - first + extra, last - first
    fill, initial = controls[rule.fill], controls[rule.initial]
    tokens = np.full((n, layout.num_streams), fill, np.int32)
    weights = np.zeros((n, layout.num_streams), np.float32)
    tokens[0, 1:] = initial
    starts = piece is None or int(piece[0]) == 0
    document = layout.spec.document
    tokens[0, 0] = controls[document.begin if starts else document.continued]
    text, is_fill = plan.text(first, last)
    tokens[1:, 0] = controls[rule.text_fill]
    tokens[1 : 1 + T, 0] = text
    weights[1 : 1 + T, 0] = np.where(is_fill, loss.fill, loss.text)
    for s, (codes, offset) in enumerate(plan.sounds):
        some = codes[first:last]
        for k in range(K):
            column = 1 + s * K + k
            begin = 1 + delays[k]
            tokens[1:begin, column] = initial
            tokens[begin : begin + len(some), column] = some[:, k] + offset[k]
            if s < rule.learn:
                factor = loss.codebooks[min(k, len(loss.codebooks) - 1)] if loss.codebooks else 1.0
                weights[begin : begin + len(some), column] = loss.audio * factor
    kinds = np.full(n, AUDIO if plan.sounds else TEXT, np.uint8)
    kinds[0] = CONTROL
    spans = [(index, 0, n, plan.units(index, first, last)) for index in plan.written]
    return Row(
        tokens=tokens,
        loss_weights=weights,
        positions=np.arange(n, dtype=np.int32),
        kinds=kinds,
        spans=np.array(spans, SPAN),
        choice=choice,
    )


def apply(layout: Layout, items: Sequence[Item], piece: tuple[int, int] | None) -> list[Item]:
    """What parse gives back of a piece: text first, its tokens at the frames where they stand; then the sounds."""
    plan = _Plan(layout, items)
    first, last = plan.columns(piece)
    found: list[Item] = []
    placed = plan.placed_in(first, last)
    if placed:
        codes = np.array([code for _, code in placed], np.int32).reshape(-1, 1)
        item = Item("text", layout.default_codec("text"), codes)
        if plan.sounds:
            item = _timed(item, np.array([column - first for column, _ in placed]), layout, plan.rate)
        found.append(item)
    for index, (codes, _) in zip(plan.sound_indices, plan.sounds):
        some = codes[first:last]
        if len(some) or _before_later_sound(plan, index, first, last):
            found.append(Item("audio", items[index].codec, some, (len(some), 0, 0)))
    return [item for item in found if item.codes is not None and (len(item.codes) or item.kind == "audio")]


def _before_later_sound(plan: _Plan, index: int, first: int, last: int) -> bool:
    """An empty sound is kept where one with codes comes after it: the streams have an order."""
    later = plan.sound_indices[plan.sound_indices.index(index) + 1 :]
    return any(len(plan.sounds[plan.sound_indices.index(i)][0][first:last]) for i in later)


def parse(layout: Layout, ids: np.ndarray) -> tuple[list[Item], list[Problem]]:
    """Items of a row [n, K] of parallel streams; any ids at all."""
    problems: list[Problem] = []
    K, rule, controls = layout.sound_codebooks, layout.spec.streams, layout.controls
    n = len(ids)
    document = layout.spec.document
    if not n or int(ids[0, 0]) not in (controls[document.begin], controls[document.continued]):
        return [], [Problem(0, f"does not begin with {document.begin} or {document.continued}")]
    if (ids[0, 1:] != controls[rule.initial]).any():
        problems.append(Problem(0, f"a stream of sound does not begin with {rule.initial}"))
    delays = [rule.delays[min(k, len(rule.delays) - 1)] for k in range(K)]
    fill, text_range = controls[rule.fill], layout.vocabulary["text"]
    index = next((i for i, c in enumerate(layout.codecs) if c.kind == "audio"), -1)
    sounds: list[np.ndarray] = []
    for s in range(rule.sounds if index >= 0 else 0):
        counts = []
        columns = []
        for k in range(K):
            column = ids[:, 1 + s * K + k].astype(np.int64)
            begin = 1 + delays[k]
            if (column[1:begin] != controls[rule.initial]).any() and not (column[1:] == fill).all():
                bad = 1 + int(np.argmax(column[1:begin] != controls[rule.initial]))
                problems.append(Problem(bad, f"codebook {k} of sound {s} comes {delays[k]} columns late"))
            body = column[begin:] - int(layout.code_offsets[index][k])
            good = (body >= 0) & (body < int(layout.code_sizes[index][k]))
            count = len(good) if good.all() else int(np.argmin(good))
            strange = np.flatnonzero(column[begin + count :] != fill)
            if len(strange):
                problems.append(Problem(begin + count + int(strange[0]), f"no code of sound {s} where it should end"))
            counts.append(count)
            columns.append(body)
        T = min(counts)
        if len(set(counts)) > 1:
            problems.append(Problem(n, f"codebooks of sound {s} end at {counts} frames"))
        sounds.append(np.stack([c[:T] for c in columns], axis=1).astype(np.int32))
    while sounds and not len(sounds[-1]):
        sounds.pop()
    extra = max(delays, default=0) if sounds else 0
    T = max((len(s) for s in sounds), default=n - 1)
    if n != 1 + T + extra:
        problems.append(Problem(n, f"{n} columns where {1 + T + extra} should be"))
    text = ids[1:, 0].astype(np.int64)
    is_text = (text >= text_range.start) & (text < text_range.stop) & ("text" in layout.kinds)
    if layout.special_codes is not None:
        is_text &= ~np.isin(text, list(controls.values()))
    fills = np.isin(text, [controls[rule.text_fill], controls[rule.text_word]])
    problems += [Problem(1 + int(i), "neither text nor its fill") for i in np.flatnonzero(~is_text & ~fills)]
    problems += [Problem(1 + int(i), "text behind the last frame") for i in np.flatnonzero(is_text) if i >= T]
    places = np.flatnonzero(is_text[:T])
    found: list[Item] = []
    if len(places):
        codes = (text[places] - text_range.start).astype(np.int32).reshape(-1, 1)
        item = Item("text", layout.default_codec("text"), codes)
        rate = _rate(layout)
        if sounds:
            item = _timed(item, places, layout, rate)
        elif len(places) != T:
            problems.append(Problem(1, "fill between text where there is no sound"))
        found.append(item)
    name = layout.codecs[index].name if index >= 0 else ""
    found += [Item("audio", name, codes, (len(codes), 0, 0)) for codes in sounds]
    marked = _words_marked(layout, text[:T], is_text[:T]) if sounds else text[:T]
    if (strange := np.flatnonzero(marked != text[:T])).size:
        problems.append(Problem(1 + int(strange[0]), f"{rule.text_word} stands before each word, and nowhere else"))
    return found, problems


def lengths(
    layout: Layout, table: ItemTable, pieces: np.ndarray | None, samples: np.ndarray | None
) -> np.ndarray:  # int32 [n]
    """Columns of samples or pieces."""
    _check_table(layout, table)
    T, has = _columns(layout, table)
    rule, K = layout.spec.streams, layout.sound_codebooks
    extra = max((rule.delays[min(k, len(rule.delays) - 1)] for k in range(K)), default=0)
    if pieces is None:
        return (1 + T + extra * has).astype(np.int32)
    which = np.arange(len(table)) if samples is None else np.asarray(samples, np.int64)
    pieces = np.asarray(pieces, np.int64).reshape(-1, 2)
    out = np.empty(len(pieces), np.int64)
    for i, (sample, (start, stop)) in enumerate(zip(which.tolist(), pieces.tolist())):
        places = _Places.of_table(layout, table, sample)
        if not 0 <= start <= stop <= places.total:
            raise ValueError(f"piece {[start, stop]} of a sample with places 0 .. {places.total}")
        first, last = places.columns((start, stop))
        out[i] = 1 + last - first + extra * bool(has[sample])
    return out.astype(np.int32)


def all_cuts(layout: Layout, table: ItemTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Seconds of the sounds; tokens of a text without sound; and both ends."""
    found = [_cuts(layout, table, sample) for sample in range(len(table))]
    places = np.concatenate([np.zeros(0, np.int32), *(p for p, _ in found)])
    ranks = np.concatenate([np.zeros(0, np.uint8), *(r for _, r in found)])
    return places, ranks, np.cumsum([0, *(len(p) for p, _ in found)], dtype=np.int64)


def _cuts(layout: Layout, table: ItemTable, sample: int) -> tuple[np.ndarray, np.ndarray]:
    places = _Places.of_table(layout, table, sample)
    found = {0: 0, places.total: 0}
    if places.sounds:
        T = max(places.sounds)
        for second in range(1, int(T / places.rate) + 1):
            column = math.ceil(second * places.rate - 1e-9)
            if 0 < column < T:
                found.setdefault(places.place(column), 1)
    else:
        found.update({p: 3 for p in range(1, places.total)})
    keys = np.array(sorted(found), np.int32)
    return keys, np.array([found[int(k)] for k in keys], np.uint8)


def units(
    layout: Layout, table: ItemTable, samples: np.ndarray, starts: np.ndarray, stops: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """See Layout.units."""
    out: list[tuple[int, int, int]] = []
    for number, (sample, start, stop) in enumerate(zip(samples.tolist(), starts.tolist(), stops.tolist())):
        places = _Places.of_table(layout, table, sample)
        first, last = places.columns((start, stop))
        at = 0
        for m in range(int(table.offsets[sample]), int(table.offsets[sample + 1])):
            count = int(table.T[m])
            if table.kind[m] == AUDIO:
                out.append((number, m, max(0, min(last, count) - min(first, count))))
            elif not places.sounds:
                out.append((number, m, max(0, min(last - at, count) - max(first - at, 0))))
                at += count
            elif stop == places.total:
                out.append((number, m, count))
    rows = np.array(out, np.int64).reshape(-1, 3)
    return rows[:, 0], rows[:, 1], rows[:, 2]


class _Places:
    """Places of a sample and columns of its row."""

    def __init__(self, sounds: list[int], total: int, rate: float) -> None:
        self.sounds, self.total, self.rate = sounds, total, rate

    @classmethod
    def of_table(cls, layout: Layout, table: ItemTable, sample: int) -> _Places:
        here = slice(int(table.offsets[sample]), int(table.offsets[sample + 1]))
        sounds = [int(t) for t, kind in zip(table.T[here], table.kind[here]) if kind == AUDIO]
        return cls([t for t in sounds if t], int(table.T[here].sum()), _rate(layout))

    def place(self, column: int) -> int:
        """The place before a column: units of all sounds up to it."""
        return sum(min(t, column) for t in self.sounds)

    def columns(self, piece: tuple[int, int]) -> tuple[int, int]:
        """(first, last) column of a piece, counted from the first code frame."""
        start, stop = int(piece[0]), int(piece[1])
        if not self.sounds:
            return start, stop
        T = max(self.sounds)
        last = T if stop == self.total else self._column(stop)
        return min(0 if start == 0 else self._column(start), last), last

    def _column(self, place: int) -> int:
        low, high = 0, max(self.sounds)
        while low < high:  # the last column whose place is at or before this one
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.place(middle) <= place else (low, middle - 1)
        return low


class _Plan:
    """The streams of a sample, checked."""

    def __init__(self, layout: Layout, items: Sequence[Item]) -> None:
        self.layout, self.items = layout, items
        self.sounds: list[tuple[np.ndarray, np.ndarray]] = []
        self.sound_indices: list[int] = []
        self.texts: list[int] = []
        for i, item in enumerate(items):
            where = f"item {i}"
            if item.kind not in layout.kinds:
                raise refusals.not_written(layout, where, item.kind)
            if item.codes is None:
                raise refusals.no_soft(layout, f"{where} ({item.kind})")
            codec = layout.codec_index.get(item.codec, -1)
            K = item.codes.shape[1]
            if codec < 0 or layout.codecs[codec].kind != item.kind or len(layout.code_sizes[codec]) != K:
                raise refusals.stranger(layout, where, item.kind, item.codec, K)
            sizes = layout.code_sizes[codec]
            if item.codes.size and (item.codes.view(np.uint32).max(axis=0) >= sizes).any():
                raise ValueError(
                    f"{where} ({item.kind}) has codes outside [0, size) of {item.codec}, sizes {sizes.tolist()};"
                    " `mmdata verify` the data"
                )
            if item.kind == "audio":
                self.sounds.append((item.codes, layout.code_offsets[codec]))
                self.sound_indices.append(i)
            else:
                self.texts.append(i)
        if len(self.sounds) > layout.spec.streams.sounds:
            raise refusals.too_many_sounds(layout, "the sample", len(self.sounds))
        while self.sounds and not len(self.sounds[-1][0]):  # an empty last stream is no stream
            self.sounds.pop()
            self.sound_indices.pop()
        self.rate = _rate(layout)
        counts = [len(codes) for codes, _ in self.sounds]
        total = sum(len(item.codes) for item in items if item.codes is not None)
        self.places = _Places([c for c in counts if c], total, self.rate)
        self.T = max(counts) if counts else total  # columns of code frames; without a sound, of tokens
        self.placed = self._place_text()
        self.written = [*self.texts, *self.sound_indices]

    def columns(self, piece: tuple[int, int] | None) -> tuple[int, int]:
        if piece is None:
            return 0, self.T
        start, stop = int(piece[0]), int(piece[1])
        if not 0 <= start <= stop <= self.places.total:
            raise ValueError(f"piece {start} .. {stop} of a sample with places 0 .. {self.places.total}")
        return self.places.columns(piece)

    def units(self, index: int, first: int, last: int) -> tuple[int, int]:
        codes = self.items[index].codes
        assert codes is not None
        if self.items[index].kind == "audio":
            return min(first, len(codes)), min(last, len(codes))
        return 0, len(codes)

    def placed_in(self, first: int, last: int) -> list[tuple[int, int]]:
        return [(column, code) for column, code in self.placed if first <= column < last]

    def text(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:  # int32 [n], bool [n]: where it is fill
        controls, rule = self.layout.controls, self.layout.spec.streams
        start = self.layout.vocabulary["text"].start
        row = np.full(last - first, controls[rule.text_fill], np.int32)
        is_fill = np.ones(last - first, bool)
        here = self.placed_in(first, last)
        for column, code in here:
            row[column - first] = code + start
            is_fill[column - first] = False
        if self.sounds:
            row = _words_marked(self.layout, row, ~is_fill).astype(np.int32)
        return row, is_fill

    def _place_text(self) -> list[tuple[int, int]]:
        """(column, code) of each token of text: from the frame of its word's start on, one a column, never on another;
        what finds no column before the sounds end is left out."""
        placed: list[tuple[int, int]] = []
        free = 0
        for i in self.texts:
            item = self.items[i]
            codes = item.codes
            assert codes is not None
            starts = _starts(self.layout, item)
            for code, start in zip(codes[:, 0].tolist(), starts):
                wanted = math.floor(start * self.rate + 1e-4) if self.sounds and math.isfinite(start) else free
                column = max(free, wanted)
                if column >= self.T:
                    return placed
                placed.append((column, code))
                free = column + 1
        return placed


def _starts(layout: Layout, item: Item) -> list[float]:
    """When each token of a text is said, NaN where right after the one before it: by a time of its own, else with its
    word (what follows white space), else with its whole item."""
    assert item.codes is not None
    count = len(item.codes)
    times = item.unit_times[:, 0]
    if len(times) == count:
        return [float(t) for t in times]
    starts = [math.nan] * count
    if len(times) and hasattr(layout.words.codec, "token_bytes"):
        pieces = [layout.words.codec.token_bytes(code) for code in item.codes[:, 0].tolist()]
        before = [True, *(piece[-1:].isspace() for piece in pieces[:-1])]
        words = [i for i, piece in enumerate(pieces) if before[i] or piece[:1].isspace()]
        if len(words) == len(times):
            for i, start in zip(words, times):
                starts[i] = float(start)
            return starts
    if count:
        starts[0] = item.start_s
    return starts


def _timed(item: Item, columns: np.ndarray, layout: Layout, rate: float) -> Item:
    times = np.stack([columns / rate, (columns + 1) / rate], axis=1).astype(np.float32)
    return replace(item, unit_times=times)


def _words_marked(layout: Layout, row: np.ndarray, is_text: np.ndarray) -> np.ndarray:
    """The fill before the first token after a stretch of fill becomes `text_word`, every other `text_fill`."""
    controls, rule = layout.controls, layout.spec.streams
    out = np.where(is_text, row, controls[rule.text_fill])
    before = np.flatnonzero(~is_text[:-1] & is_text[1:])
    out[before] = controls[rule.text_word]
    return out


def _rate(layout: Layout) -> float:
    return next((c.rate for c in layout.codecs if c.kind == "audio" and c.rate), layout.spec.streams.rate)


def _columns(layout: Layout, table: ItemTable) -> tuple[np.ndarray, np.ndarray]:  # int64 [n], bool [n]
    """Code frames of each sample's row, and whether it has a sound."""
    n = len(table)
    sample = np.repeat(np.arange(n), np.diff(table.offsets))
    sound, text = np.zeros(n, np.int64), np.zeros(n, np.int64)
    audio = table.kind == AUDIO
    np.maximum.at(sound, sample[audio], table.T[audio])
    np.add.at(text, sample[~audio], table.T[~audio])
    return np.where(sound > 0, sound, text), sound > 0


def _check_table(layout: Layout, table: ItemTable) -> None:
    def where(m: int) -> str:
        sample = int(np.searchsorted(table.offsets, m, "right")) - 1
        return f"item {m - int(table.offsets[sample])} of sample {sample}"

    written = [KINDS.index(kind) for kind in layout.kinds]
    if (bad := np.flatnonzero(~np.isin(table.kind, written))).size:
        raise refusals.not_written(layout, where(int(bad[0])), KINDS[table.kind[bad[0]]])
    if (bad := np.flatnonzero(table.codec < 0)).size:
        raise refusals.no_soft(layout, f"{where(int(bad[0]))} ({KINDS[table.kind[bad[0]]]})")
    for index, codec in enumerate(table.codecs):
        bound = layout.codec_index.get(codec)
        here = table.codec == index
        for number, kind in ((TEXT, "text"), (AUDIO, "audio")):
            good = bound is not None and layout.codecs[bound].kind == kind
            K = len(layout.code_sizes[bound]) if good and bound is not None else -1
            if (bad := np.flatnonzero(here & (table.kind == number) & (table.K != K))).size:
                raise refusals.stranger(layout, where(int(bad[0])), kind, codec, int(table.K[bad[0]]))
    sample = np.repeat(np.arange(len(table)), np.diff(table.offsets))
    counts = np.bincount(sample[table.kind == AUDIO], minlength=len(table))
    if (bad := np.flatnonzero(counts > layout.spec.streams.sounds)).size:
        raise refusals.too_many_sounds(layout, f"sample {bad[0]}", int(counts[bad[0]]))
