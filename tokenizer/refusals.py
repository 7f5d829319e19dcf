"""Why a layout refuses an item: what, which and the fix. One home for what lengths and render both say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizer.codec import CodecSpec

if TYPE_CHECKING:
    from tokenizer.layout import Layout


def codes_for(codec: CodecSpec, kind: str) -> bool:
    """Whether a codec's codes may stand in an item of a kind: frames may be coded by an image codec."""
    return codec.kind == kind or (kind == "video" and codec.kind == "image")


def not_written(layout: Layout, where: str, kind: str) -> ValueError:
    return ValueError(f"{where} is {kind}; layout {layout.spec.name} writes none, add a table [{kind}] to it")


def stranger(layout: Layout, where: str, kind: str, codec: str, num_codebooks: int) -> ValueError:
    known = [f"{c.name} ({len(c.codebooks)} codebooks)" for c in layout.codecs if codes_for(c, kind)]
    fix = "bind the layout with the codecs of the data's manifest"
    if kind == "text":
        fix += f", or run `mmdata recode DIR --text {layout.default_codec('text') or 'CODEC'} --out DIR2`"
    return ValueError(
        f"{where} is {kind} by {codec!r} with {num_codebooks} codebooks;"
        f" this layout is bound to {known or 'none'} for it: {fix}"
    )


def wrong_grid(where: str, kind: str, grid: tuple[int, int, int], T: int) -> ValueError:
    return ValueError(f"{where} ({kind}) has {T} codes for a grid of {grid}; `mmdata verify` the data")


def wrong_size(layout: Layout, where: str, kind: str, h: int, w: int) -> ValueError:
    return ValueError(
        f"{where} is {kind} of {h} x {w} codes; layout {layout.spec.name} writes sides of"
        f" 1 to {layout.spec.vocabulary.sizes - 1}, raise vocabulary.sizes in it"
    )


def no_time(where: str) -> ValueError:
    return ValueError(f"{where} (video) has a frame without a time; leave `times` empty for a video without times")


def no_soft(layout: Layout, where: str) -> ValueError:
    return ValueError(
        f"{where} is a soft item, and layout {layout.spec.name} takes none of its kind;"
        " encode it with a codec in the recipe, or use a layout with a [soft] table"
    )
