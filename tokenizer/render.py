"""Rendering: parts of a sample to the arrays of one row, and the items a parse must give back.

On the loader's hot path: arrays are allocated once from the lengths and filled by slices, so Python works an item,
never a token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tokenizer import refusals
from tokenizer.choose import Part, parts_of
from tokenizer.item import AUDIO, IMAGE, Item
from tokenizer.row import SPAN, Choice, Row

if TYPE_CHECKING:
    from tokenizer.layout import Layout

# What a token is, finer than its kind: 1 .. 4 are codes of the kind, the others as named. Decides kind and loss weight;
# Layout.loss_of_field has the same order.
_DELIMITER, _BEGIN, _END, _CONTINUED, _SIZE, _TIME, _SOFT_IMAGE, _SOFT_AUDIO = range(5, 13)
_KIND_OF_FIELD = np.array([0, 1, 2, 3, 4, 5, 5, 5, 5, 5, 5, IMAGE, AUDIO], np.uint8)

Media = Callable[[Item], np.ndarray]


def render(
    layout: Layout, items: Sequence[Item], choice: Choice, piece: tuple[int, int] | None, media: Media | None
) -> Row:
    """See Layout.render."""
    parts, begins, ends = parts_of(items, choice, piece)
    plans = []
    total = 2
    for part in parts:
        head, body = _head_and_body(layout, part)
        closed = 1 if part.last == part.units and layout.kinds[part.item.kind].close >= 0 else 0
        plans.append((head, body, closed))
        total += len(head) + body + closed
    tokens = np.empty(total, np.int32)
    fields = np.full(total, _DELIMITER, np.uint8)
    blocks = np.zeros(total, np.int32) if layout.needs_blocks else None
    soft_index = None
    soft: dict[str, list[np.ndarray]] = {}
    spans = []
    document = layout.spec.document
    tokens[0] = layout.controls[document.begin if begins else document.continued]
    fields[0] = _BEGIN if begins else _CONTINUED
    at, block = 1, 1
    for part, (head, num_body, closed) in zip(parts, plans):
        plan = layout.kinds[part.item.kind]
        body = at + len(head)
        stop = body + num_body
        tokens[at:body] = head
        if len(head) > 1:
            sizes = at + 1 + plan.num_sizes
            fields[at + 1 : sizes] = _SIZE
            fields[sizes:body] = _TIME
        if part.item.codes is None:
            if soft_index is None:
                soft_index = np.full(total, -1, np.int32)
            soft_index[body:stop] = _add_soft(layout, part.item, soft, media, num_body)
            tokens[body:stop] = layout.controls[layout.spec.soft.placeholder]
            fields[body:stop] = _SOFT_IMAGE if plan.number == IMAGE else _SOFT_AUDIO
        else:
            _write_codes(layout, part, tokens[body:stop], fields[body:stop])
        if blocks is not None and part.item.kind in layout.spec.attention.blocks:
            block = _write_blocks(part, fields[body:stop], blocks[body:stop], block)
        if closed:
            tokens[stop] = plan.close
        spans.append((part.index, at, stop + closed, (part.first, part.last)))
        at = stop + closed
    tokens[at] = layout.controls[document.end if ends else document.continued]
    fields[at] = _END if ends else _CONTINUED
    return Row(
        tokens=tokens,
        loss_weights=layout.loss_of_field.take(fields),
        positions=np.arange(total, dtype=np.int32),
        kinds=_KIND_OF_FIELD.take(fields),
        spans=np.array(spans, SPAN),
        choice=choice,
        blocks=blocks,
        soft={kind: np.concatenate(arrays) for kind, arrays in soft.items()},
        soft_index=soft_index,
    )


def kept(layout: Layout, part: Part) -> Item:
    """A part as an item with only what the layout keeps."""
    item, first, last = part.item, part.first, part.last
    codes, grid, times = item.codes, item.grid, np.zeros(0, np.float32)
    if codes is None:
        h, w, count = _soft_size(layout, item)
        patch, samples = layout.spec.soft.patch, layout.spec.soft.samples
        grid = (1, h * patch, w * patch) if item.kind == "image" else (count * samples, 0, 0)
    elif item.kind == "video":
        _, h, w = grid
        codes, grid = codes[first * h * w : last * h * w], (last - first, h, w)
        if _frames_timed(layout, item) and last > first:
            times = (layout.time_steps(item.times[first:last]) * layout.spec.vocabulary.time_quantum_s).astype(
                np.float32
            )
    elif item.kind == "audio":
        codes, grid = codes[first:last], (last - first, 0, 0)
    elif item.kind == "text":
        codes, grid = codes[first:last], (0, 0, 0)
    result = Item(item.kind, item.codec, codes, grid, times=times)
    if codes is not None and not len(codes):
        # Nothing is left to tell the codec by: the parser takes the first of the kind.
        codec = layout.default_codec(item.kind)
        result = replace(result, codec=codec, codes=np.zeros((0, layout.num_codebooks(codec)), np.int32))
    num_times, start = layout.kinds[item.kind].num_times, _start_of(layout, part)
    if num_times and math.isfinite(start):
        result = replace(result, start_s=layout.quantised(start))
        if num_times == 2 and math.isfinite(item.end_s):
            result = replace(result, end_s=layout.quantised(item.end_s))
    return result


def _head_and_body(layout: Layout, part: Part) -> tuple[list[int], int]:
    """Ids of an item's header, and how many tokens its body takes; refuses what `measure` refuses."""
    item, kind = part.item, part.item.kind
    plan = layout.kinds.get(kind)
    if plan is None:
        raise refusals.not_written(layout, f"item {part.index}", kind)
    if item.codes is None:
        h, w, count = _soft_size(layout, item)
        if plan.num_sizes and not (0 < h < layout.spec.vocabulary.sizes and 0 < w < layout.spec.vocabulary.sizes):
            raise refusals.wrong_size(layout, f"item {part.index}", kind, h, w)
        return layout.opening(kind, h, w, item.start_s, item.end_s), count
    T, K = item.codes.shape
    codec = layout.codec_index.get(item.codec, -1)
    if codec < 0 or not refusals.codes_for(layout.codecs[codec], kind) or len(layout.code_sizes[codec]) != K:
        raise refusals.stranger(layout, f"item {part.index}", kind, item.codec, K)
    if not plan.num_sizes:
        return layout.opening(kind, 0, 0, _start_of(layout, part), item.end_s), (part.last - part.first) * K
    t, h, w = item.grid
    if t * h * w != T:
        raise refusals.wrong_grid(f"item {part.index}", kind, item.grid, T)
    if not (0 < h < layout.spec.vocabulary.sizes and 0 < w < layout.spec.vocabulary.sizes):
        raise refusals.wrong_size(layout, f"item {part.index}", kind, h, w)
    if kind == "image":
        return layout.opening("image", h, w), T * K
    per_frame = h * w * K
    if _frames_timed(layout, item):
        per_frame += 2
        if not np.isfinite(item.times).all():
            raise refusals.no_time(f"item {part.index}")
    return layout.opening("video", h, w), (part.last - part.first) * per_frame


def _start_of(layout: Layout, part: Part) -> float:
    """Start of a part on the clock: a continued sound starts later than its item."""
    item = part.item
    if not part.first or item.kind != "audio" or item.codes is None or not math.isfinite(item.start_s):
        return item.start_s
    rate = layout.rate(item.codec, len(item.codes), item.start_s, item.end_s)
    return item.start_s + (part.first / rate if rate else 0.0)


def _frames_timed(layout: Layout, item: Item) -> bool:
    return layout.spec.video.times == "frames" and item.grid[0] > 0 and len(item.times) == item.grid[0]


def _write_codes(layout: Layout, part: Part, tokens: np.ndarray, fields: np.ndarray) -> None:
    """Fills the body of an item; both arrays are views of the row's."""
    item = part.item
    codec, number = layout.codec_index[item.codec], layout.kinds[item.kind].number
    offsets, sizes = layout.code_offsets[codec], layout.code_sizes[codec]
    codes = item.codes
    assert codes is not None
    if item.kind != "image":
        step = item.grid[1] * item.grid[2] if item.kind == "video" else 1
        codes = codes[part.first * step : part.last * step]
    # As unsigned, a negative code is a huge one: one comparison checks both ends.
    if len(offsets) == 1:
        # The usual case, on one axis: NumPy's loop over an inner axis of one is ten times slower.
        codes = codes[:, 0]
        outside = codes.size > 0 and int(codes.view(np.uint32).max()) >= int(sizes[0])
    else:
        outside = codes.size > 0 and bool((codes.view(np.uint32).max(axis=0) >= sizes).any())
    if outside:
        raise ValueError(
            f"item {part.index} ({item.kind}) has codes outside [0, size) of {item.codec}, sizes {sizes.tolist()};"
            " `mmdata verify` the data"
        )
    if item.kind != "video" or not _frames_timed(layout, item):
        np.add(codes, offsets, out=tokens.reshape(codes.shape))
        fields[:] = number
        return
    frames = part.last - part.first
    if not frames:
        return
    body, marks = tokens.reshape(frames, -1), fields.reshape(frames, -1)
    high, low = np.divmod(layout.time_steps(item.times[part.first : part.last]), layout.spec.vocabulary.time_lo)
    body[:, 0] = high + layout.time_hi_start
    body[:, 1] = low + layout.time_lo_start
    body[:, 2:] = (codes + offsets).reshape(frames, -1)
    marks[:, :2] = _TIME
    marks[:, 2:] = number


def _write_blocks(part: Part, fields: np.ndarray, blocks: np.ndarray, block: int) -> int:
    """Gives the codes of each image, frame or sound one block id; returns the next id."""
    frames = part.last - part.first if part.item.kind == "video" else 1
    if not frames or not len(fields):
        return block
    ids = np.arange(block, block + frames, dtype=np.int32)[:, None]
    blocks.reshape(frames, -1)[:] = np.where(fields.reshape(frames, -1) == _TIME, 0, ids)
    return block + frames


def _soft_size(layout: Layout, item: Item) -> tuple[int, int, int]:
    """(patches down, patches across, positions) of a soft item; (0, 0, n) for sound."""
    soft = layout.spec.soft
    size, h, w = item.grid
    if item.kind == "image" and soft.patch:
        rows, columns = -(-h // soft.patch), -(-w // soft.patch)
        return rows, columns, rows * columns
    if item.kind == "audio" and soft.samples:
        return 0, 0, -(-size // soft.samples)
    raise refusals.no_soft(layout, f"{item.kind} {item.digest or item.uri!r}")


def _add_soft(
    layout: Layout, item: Item, soft: dict[str, list[np.ndarray]], media: Media | None, count: int
) -> np.ndarray:  # int32 [count]
    """Cuts the kept medium of a soft item into `count` pieces; returns their indices among those of its kind."""
    what = f"{item.kind} {item.digest or item.uri!r}"
    if media is None:
        raise ValueError(f"{what} is soft; give render its kept medium by `media=`")
    rule = layout.spec.soft
    cut = _patches(media(item), rule.patch) if item.kind == "image" else _chunks(media(item), rule.samples)
    if len(cut) != count:
        raise ValueError(
            f"the kept medium of {what} makes {len(cut)} positions, the grid {item.grid} in its item {count}"
        )
    arrays = soft.setdefault(item.kind, [])
    before = sum(map(len, arrays))
    arrays.append(cut)
    return np.arange(before, before + count, dtype=np.int32)


def _patches(image: np.ndarray, patch: int) -> np.ndarray:  # uint8 [h * w, patch, patch, 3]
    """Square patches of uint8 [H, W, 3] in raster order, black beyond the edges."""
    H, W, channels = image.shape
    h, w = -(-H // patch), -(-W // patch)
    full = np.zeros((h * patch, w * patch, channels), image.dtype)
    full[:H, :W] = image
    return full.reshape(h, patch, w, patch, channels).swapaxes(1, 2).reshape(h * w, patch, patch, channels)


def _chunks(sound: np.ndarray, samples: int) -> np.ndarray:  # int16 [n, samples]
    """Runs of `samples` of int16 [n], silent beyond the end."""
    full = np.zeros(-(-len(sound) // samples) * samples, sound.dtype)
    full[: len(sound)] = sound
    return full.reshape(-1, samples)
