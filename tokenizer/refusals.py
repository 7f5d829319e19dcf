"""Why a layout refuses an item: what, which and the fix. One home for what lengths and render both say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizer.codec import CodecSpec

if TYPE_CHECKING:
    from tokenizer.layout import KindPlan, Layout


def codes_for(codec: CodecSpec, kind: str) -> bool:
    """Whether a codec's codes may stand in an item of a kind: frames may be coded by an image codec."""
    return codec.kind == kind or (kind == "video" and codec.kind == "image")


def not_written(layout: Layout, where: str, kind: str) -> ValueError:
    return ValueError(
        f"{where} is {kind}; layout {layout.spec.name} writes none, add a table [{kind}] to it, or"
        ' unwritten = "leave_out" to its [document]'
    )


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


def check_grid(layout: Layout, plan: KindPlan, where: str, h: int, w: int) -> None:
    """ValueError where the layout cannot write a grid of h x w."""
    unit, most = plan.rule.size_unit, layout.spec.vocabulary.sizes
    bad = h < 1 or w < 1
    if plan.num_sizes:
        bad |= bool(h % unit or w % unit) or h // unit >= most or w // unit >= most
    if plan.fixed[0]:
        bad |= (h, w) != plan.fixed
    elif plan.rule.grid == "square":
        bad |= h != w
    if bad:
        raise wrong_size(layout, plan, where, h, w)


def wrong_size(layout: Layout, plan: KindPlan, where: str, h: int, w: int) -> ValueError:
    """Why h x w codes are refused, and what would mend it."""
    said = f"{where} is {plan.kind} of {h} x {w} codes; layout {layout.spec.name}"
    if plan.fixed[0]:
        return ValueError(f"{said} writes {plan.rule.grid} only: build with a resize that gives it, or change its grid")
    if plan.rule.grid == "square":
        return ValueError(f'{said} writes squares only: build with policy = "crop", or give it a header')
    unit = plan.rule.size_unit
    steps = f" in steps of {unit}" if unit > 1 else ""
    return ValueError(
        f"{said} writes sides of {unit} to {(layout.spec.vocabulary.sizes - 1) * unit}{steps}, raise vocabulary.sizes"
        f"{' or build with another multiple' if unit > 1 else ''} in it"
    )


def no_time(where: str) -> ValueError:
    return ValueError(f"{where} (video) has a frame without a time; leave `times` empty for a video without times")


def untimed(layout: Layout, where: str) -> ValueError:
    return ValueError(
        f"{where} (video) has no times, and layout {layout.spec.name} writes them in words before each frame: build"
        " the data with frame times"
    )


def no_soft(layout: Layout, where: str) -> ValueError:
    return ValueError(
        f"{where} is a soft item, and layout {layout.spec.name} takes none of its kind;"
        " encode it with a codec in the recipe, or use a layout with a [soft] table"
    )


def only_soft(layout: Layout, where: str, kind: str) -> ValueError:
    return ValueError(
        f'{where} is {kind} in codes, and layout {layout.spec.name} takes it soft: build with codecs.{kind} = "soft"'
        ' and keep_media = "resized"'
    )


def wrong_pixels(layout: Layout, where: str, h: int, w: int) -> ValueError:
    size = layout.spec.soft.image.size
    return ValueError(
        f"{where} is an image of {h}x{w} pixels, and layout {layout.spec.name} takes {size}: build with"
        f' policy = "stretch" and size = [{size.replace("x", ", ")}] in [image]'
    )


def too_many_sounds(layout: Layout, where: str, count: int) -> ValueError:
    return ValueError(
        f"{where} has {count} sounds, and layout {layout.spec.name} has {layout.spec.streams.sounds} streams for them;"
        " raise streams.sounds, or give each document fewer"
    )
