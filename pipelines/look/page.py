"""One HTML page, with everything in it, that shows a dataset or a run: originals beside what the codes give back.

No script and nothing fetched: it opens from a disk, in a mail, or from a bucket. Every word of a document is escaped.
"""

from __future__ import annotations

import html
import json
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

import mmdata
from mmdata.errors import UserError
from pipelines.look import media
from pipelines.look.tables import Stats, dataset_stats, ledger_counts, size_words
from tokenizer.item import KINDS, Item

MAX_TEXT = 1_500  # characters of one text shown
MAX_ITEMS = 24  # items of one sample shown
MAX_SOUND_BYTES = 1 << 20  # of one kept sound: a page stays of a size that opens
MAX_FRAMES = 16  # of one kept video


def write_page(folder: Path, out: Path, samples: int = 6) -> Path:
    """Write the page of a dataset or of a run's folder to `out`; returns it.

    Raises UserError where `folder` is neither.
    """
    if (folder / "metrics.jsonl").exists():
        title, lead, sections = _run_sections(folder)
    elif (folder / "manifest.json").exists():
        title, lead, sections = _dataset_sections(folder, samples)
    else:
        raise UserError(
            f"{folder} is neither a finished dataset nor a run; build one with `mmdata build RECIPE --out DIR`"
        )
    links = "".join(f'<a href="#{_anchor(name)}">{html.escape(name)}</a>' for name, _ in sections)
    body = "".join(f'<h2 id="{_anchor(name)}">{html.escape(name)}</h2>\n{inner}\n' for name, inner in sections)
    page = Template((Path(__file__).parent / "page.html").read_text("utf-8"))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page.substitute(title=html.escape(title), lead=html.escape(lead), links=links, body=body), "utf-8")
    return out


# --- a dataset


def _dataset_sections(folder: Path, samples: int) -> tuple[str, str, list[tuple[str, str]]]:
    stats = dataset_stats(folder)
    dataset = mmdata.open(folder)
    sections = [("What was built", _totals(stats)), ("What was left out", _ledger(folder))]
    for name in dataset.sources:
        source = dataset[name]
        split = source.train if len(source.train) else source.validation
        shown = [split[i] for i in np.linspace(0, len(split) - 1, min(samples, len(split))).astype(int)]
        cards = "".join(_sample(sample, source) for sample in shown)
        sections.append((name, cards or "<p>no samples</p>"))
    tokens = sum(sum(row["tokens"].values()) for row in stats["sources"].values())
    soft = sum(row["soft_items"] for row in stats["sources"].values())
    lead = (
        f"{len(stats['sources'])} sources, {tokens:,} codes{f', {soft:,} soft items' if soft else ''}."
        " Left: the original, where kept; right: decoded from codes. Soft items have no codes: shown as they are kept."
    )
    return f"Dataset {folder.resolve().name}", lead, sections


def _totals(stats: Stats) -> str:
    kinds = KINDS[1:5]
    names = ("source", "train", "validation", *(f"{k} codes" for k in kinds), "soft items")
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = "".join(
        f"<tr><td>{html.escape(name)}<td>{row['train']:,}<td>{row['validation']:,}"
        + "".join(f"<td>{row['tokens'].get(kind, 0):,}" for kind in kinds)
        + f"<td>{row['soft_items']:,}"
        for name, row in stats["sources"].items()
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'


def _ledger(folder: Path) -> str:
    counts = ledger_counts(folder)
    if not counts:
        return "<p>nothing: every input is in the shards</p>"
    rows = "".join(
        f"<tr><td>{html.escape(source)}<td class=words>{html.escape(reason)}"
        f"<td>{count:,}<td class=words>{html.escape(example)}"
        for (source, reason), (count, example) in counts.items()
    )
    return f'<div class="scroll"><table><tr><th>source<th>reason<th>inputs<th>for example</tr>{rows}</table></div>'


def _sample(sample: mmdata.Sample, source: Any) -> str:
    facts = " · ".join(html.escape(word) for word in (sample.language, sample.licence, sample.id[:12]) if word)
    items = "".join(_item(item, source) for item in sample.items[:MAX_ITEMS])
    more = len(sample.items) - MAX_ITEMS
    tail = f"<p>and {more} more items</p>" if more > 0 else ""
    header = f"<header><b>{html.escape(sample.uri)}</b> {facts}</header>"
    return f'<article>{header}<div class="items">{items}{tail}</div></article>'


def _item(item: Item, source: Any) -> str:
    if item.is_soft:
        return f"<figure>{_soft(item, source)}<figcaption>{_caption(item)}</figcaption></figure>"
    decoded = media.decode_item(item, source.load_codec)
    if item.kind == "text":
        return _text(item, decoded, source)
    caption = f"<figcaption>{_caption(item)}</figcaption>"
    original = _original(item, source)
    if item.kind == "image":
        return f'<figure><figure class="pair">{original}{_image(decoded)}</figure>{caption}</figure>'
    if item.kind == "video":
        return f'<figure><div class="strip">{"".join(map(_image, decoded))}</div>{caption}</figure>'
    sound = media.data_address(media.wav(decoded, media.sample_rate_of(item.codec, source.load_codec)), "audio/wav")
    return f'<figure>{original}<audio controls preload="none" src="{sound}"></audio>{caption}</figure>'


def _soft(item: Item, source: Any) -> str:
    """What a soft item refers to: a picture, some frames, or a sound; nothing where it was not kept."""
    if source.media.form != "resized" or item.digest not in source.media:
        return ""
    kept = source.media.get(item.digest, item.kind)
    if item.kind == "image":
        return _image(kept.data)
    if item.kind == "video":
        shown = np.unique(np.linspace(0, len(kept.data) - 1, MAX_FRAMES).astype(int))
        return f'<div class="strip">{"".join(_image(kept.data[i]) for i in shown)}</div>'
    pcm = kept.data[: MAX_SOUND_BYTES // 2]
    sound = media.data_address(media.wav(pcm / np.float32(32767), kept.sample_rate_hz), "audio/wav")
    return f'<audio controls preload="none" src="{sound}"></audio>'


def _text(item: Item, text: str, source: Any) -> str:
    """The text with every token on a background of its own where it is short; plain where it is long."""
    label = f"[{item.start_s:.1f}-{item.end_s:.1f} s] " if item.start_s == item.start_s else ""
    if item.codes is not None and len(item.codes) <= 120 and item.text is None:
        pieces = media.text_pieces(item, source.load_codec)
        words = "".join(f"<span>{html.escape(piece)}</span>" for piece in pieces)
    else:
        words = html.escape(text[:MAX_TEXT]) + (" …" if len(text) > MAX_TEXT else "")
    return f"<p>{html.escape(label)}{words}</p>"


def _caption(item: Item) -> str:
    seconds = f"{item.start_s:.1f}-{item.end_s:.1f} s" if item.start_s == item.start_s else ""
    codes = "soft" if item.codes is None else f"{item.codes.size:,} codes"
    words = [item.uri, codes, size_words(item), seconds]
    return html.escape(" · ".join(word for word in words if word))


def _original(item: Item, source: Any) -> str:
    """The kept medium, where the recipe kept it as it was; a video only shows what came back."""
    if source.media.form != "original" or item.kind == "video" or item.digest not in source.media:
        return ""
    data = source.media.get(item.digest, item.kind).data
    if item.kind == "image":
        from pipelines.ingest.decode_image import decode_image

        return _image(decode_image(data))
    if len(data) > MAX_SOUND_BYTES:
        return ""
    return f'<audio controls preload="none" src="{media.data_address(data, "audio/mpeg")}"></audio>'


def _image(image: np.ndarray) -> str:
    return f'<img alt="" src="{media.data_address(media.png(media.at_most(image, 512)), "image/png")}">'


# --- a run


def _run_sections(folder: Path) -> tuple[str, str, list[tuple[str, str]]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines() if line.strip()]
    steps = [line for line in lines if "loss" in line]
    sections = [("Loss by kind", _curves(steps))]
    if (folder / "summary.json").exists():
        sections.append(("Validation", _validation(json.loads((folder / "summary.json").read_text("utf-8")))))
    sections.append(("Samples", _written(folder / "samples")))
    last = steps[-1]["step"] if steps else 0
    return f"Run {folder.resolve().name}", f"{last + 1:,} steps", sections


def _curves(steps: list[dict[str, Any]]) -> str:
    """Training loss by kind over steps, one line a kind, as an SVG."""
    kinds = [k for k in KINDS[1:] if any(k in step["loss"] for step in steps)]
    points = {k: [(s["step"], s["loss"][k]) for s in steps if s["loss"].get(k) is not None] for k in kinds}
    values = [v for line in points.values() for _, v in line]
    if not values:
        return "<p>no steps yet</p>"
    width, height, top, last = 900, 260, max(values), max(1, steps[-1]["step"])
    colors = {"text": "#3b82f6", "image": "#16a34a", "audio": "#d97706", "video": "#db2777", "control": "#6b7280"}
    lines = ""
    for i, kind in enumerate(kinds):
        path = " ".join(
            f"{40 + x / last * (width - 60):.1f},{10 + (1 - y / top) * (height - 40):.1f}" for x, y in points[kind]
        )
        lines += f'<polyline fill="none" stroke="{colors[kind]}" stroke-width="1.5" points="{path}"/>'
        lines += f'<text x="{60 + 90 * i}" y="{height - 4}" style="fill:{colors[kind]}">{kind}</text>'
    axis = "".join(f'<text x="4" y="{14 + (1 - f) * (height - 40):.0f}">{top * f:.1f}</text>' for f in (0, 0.5, 1))
    return f'<div class="scroll"><svg width="{width}" height="{height}" role="img">{axis}{lines}</svg></div>'


def _validation(summary: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(kind)}<td>{row['loss']:.3f}<td>{row['baseline']:.3f}"
        f"<td class=words>{html.escape(row['baseline_name'])}"
        for kind, row in summary["validation"].items()
        if row.get("baseline") is not None
    )
    return f"<table><tr><th>kind<th>loss (nats)<th>baseline<th>which</tr>{rows}</table>"


def _written(folder: Path) -> str:
    """The files `mmdata sample` wrote."""
    shown = []
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        name = f"<figcaption>{html.escape(path.name)}</figcaption>"
        if path.suffix == ".txt":
            shown.append(f"<p>{html.escape(path.read_text('utf-8'))}</p>")
        elif path.suffix == ".png":
            shown.append(
                f'<figure><img alt="" src="{media.data_address(path.read_bytes(), "image/png")}">{name}</figure>'
            )
        elif path.suffix == ".wav":
            sound = media.data_address(path.read_bytes(), "audio/wav")
            shown.append(f'<figure><audio controls src="{sound}"></audio>{name}</figure>')
    if not shown:
        return "<p>none yet: <code>mmdata sample RUN --kind image</code> writes one</p>"
    return f'<div class="items">{"".join(shown)}</div>'


def _anchor(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())
