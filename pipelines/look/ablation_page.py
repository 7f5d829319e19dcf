"""Ablations of mixtures: the table for the terminal, and OUT/ablation.html with a line a kind over the mixtures."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from string import Template

from mmdata.commit import write_bytes
from pipelines.look.tables import console, plain_table
from pipelines.train.ablate import Point
from tokenizer.item import KINDS

COLORS = {"text": "#3b82f6", "image": "#16a34a", "audio": "#d97706", "video": "#db2777", "control": "#6b7280"}
_STEP, _HEIGHT = 130, 220


def print_ablation(points: Sequence[Point], out: Path) -> None:
    """A row a mixture: validation loss by kind, the lowest of each kind marked; with seeds, how far they lie apart."""
    kinds = _kinds(points)
    table = plain_table("mixture", *kinds, "tokens", "steps")
    lowest = {kind: min(point.loss[kind] for point in points) for kind in kinds}
    for point in points:
        losses = (_cell(point, kind, lowest[kind]) for kind in kinds)
        table.add_row(mixture_words(point), *losses, _each(point.tokens), _each(point.steps))
    console().print(table)
    console().print(
        f"validation loss, nats a token; * the lowest. {budget_words(points)}"
        f" A difference within the spread of seeds is none. Page: {out / 'ablation.html'}"
    )


def write_ablation_page(points: Sequence[Point], out: Path) -> Path:
    """Write OUT/ablation.html; returns its path."""
    kinds = _kinds(points)
    lead = f"{len(points)} mixtures; loss on the validation split, nats a token. {budget_words(points)}"
    rows = "".join(
        f"<tr><td>{html.escape(mixture_words(point))}"
        + "".join(
            f"<td>{point.loss[kind]:.4f}" + (f" ± {point.spread[kind] / 2:.4f}" if point.spread[kind] else "")
            for kind in kinds
        )
        + f"<td>{_each(point.tokens)}<td>{_each(point.steps)}"
        + f"<td class=words>{html.escape(', '.join(f'{name} {weight:.3g}' for name, weight in point.weights.items()))}"
        for point in points
    )
    head = "".join(f"<th>{name}" for name in ("mixture", *kinds, "tokens", "steps", "all weights"))
    sections = {
        "Loss by kind": "".join(_plot(points, kind) for kind in kinds),
        "Numbers": f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>',
    }
    body = "".join(f"<h2>{name}</h2>\n{inner}\n" for name, inner in sections.items())
    page = Template((Path(__file__).parent / "page.html").read_text("utf-8"))
    path = out / "ablation.html"
    title = html.escape(f"Ablation {out.resolve().name}")
    write_bytes(path, page.substitute(title=title, lead=html.escape(lead), links="", body=body).encode())
    return path


def budget_words(points: Sequence[Point]) -> str:
    """What is the same for all mixtures."""
    return (
        f"Each training learns from {points[0].budget:,} tokens that count in the loss, and stops at the first step"
        " that reaches them."
    )


def mixture_words(point: Point) -> str:
    """The shares that vary: "web 0.2, books 0.1"."""
    return ", ".join(f"{source} {share:g}" for source, share in point.varied.items())


def _kinds(points: Sequence[Point]) -> list[str]:
    return [kind for kind in KINDS[1:] if all(kind in point.loss for point in points)]


def _each(counts: Sequence[int]) -> str:
    """Of one training or of all seeds: "1,000" or "1,000-1,003"."""
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"


def _cell(point: Point, kind: str, lowest: float) -> str:
    spread = f" ±{point.spread[kind] / 2:.3f}" if point.spread[kind] else ""
    return f"{'*' if point.loss[kind] == lowest else ''}{point.loss[kind]:.3f}{spread}"


def _plot(points: Sequence[Point], kind: str) -> str:
    """Loss of one kind over the mixtures, each at a place of its own; a bar shows the spread of the seeds."""
    values = [point.loss[kind] for point in points]
    low = min(v - p.spread[kind] / 2 for v, p in zip(values, points, strict=True))
    high = max(v + p.spread[kind] / 2 for v, p in zip(values, points, strict=True))
    span = high - low or 1.0

    def y(value: float) -> float:
        return 20 + (1 - (value - low) / span) * (_HEIGHT - 60)

    at = [70 + i * _STEP for i in range(len(points))]
    color = COLORS[kind]
    drawn = f'<polyline fill="none" stroke="{color}" stroke-width="1.5" points="'
    drawn += " ".join(f"{x},{y(v):.1f}" for x, v in zip(at, values, strict=True)) + '"/>'
    for x, value, point in zip(at, values, points, strict=True):
        half = point.spread[kind] / 2
        drawn += f'<line x1="{x}" x2="{x}" y1="{y(value - half):.1f}" y2="{y(value + half):.1f}" stroke="{color}"/>'
        drawn += f'<circle cx="{x}" cy="{y(value):.1f}" r="3" fill="{color}"/>'
        drawn += f'<text x="{x + 6}" y="{y(value) - 6:.1f}">{value:.3f}</text>'
        drawn += f'<text x="{x - 40}" y="{_HEIGHT - 8}">{html.escape(mixture_words(point))}</text>'
    width = 140 + _STEP * len(points)
    drawn += f'<text x="4" y="14" style="fill:{color}">{kind}</text>'
    return f'<div class="scroll"><svg width="{width}" height="{_HEIGHT}" role="img">{drawn}</svg></div>'
