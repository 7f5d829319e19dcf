"""Sampling that always parses: the layout's own grammar says which ids may come at each place.

A template of what is wanted (a text, a picture of h x w codes, a sound of n codes) is rendered by the layout. Where the
template has a code, the model chooses among that codebook's ids; everything else (delimiters, sizes) is as rendered.
"""

from __future__ import annotations

import wave
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmdata.commit import commit, temporary, writing
from mmdata.dataset import open_source
from mmdata.errors import RunError, UserError
from pipelines.config import check, read_toml
from pipelines.train.checkpoint import restore_params
from pipelines.train.folder import CHECKPOINTS, read_layout
from pipelines.train.model import ModelConfig, decode_step, init_cache
from pipelines.train.run import ModelSettings, RunSettings, load_run, sized
from tokenizer.codec import Codec, CodecSpec, Codes, Shape, spec_of
from tokenizer.codecs import CODECS, load_codec
from tokenizer.item import TEXT, Item

LoadCodec = Callable[[str], Codec]

SUFFIXES = {"text": ".txt", "image": ".png", "audio": ".wav"}


@dataclass(frozen=True, eq=False)
class Template:
    """What to write: ids that are given, and ranges to choose from where they are not."""

    ids: np.ndarray  # int32 [n]
    positions: np.ndarray  # int32 [n] or [P, n], as the layout counts them
    free: list[str | None]  # [n] the range of a place the model fills; None where the id is given
    end: int | None = None  # an id that may come instead of any free one but the first and ends the text; None: never


def sample(
    run_dir: Path | str,
    prompt: str = "",
    kind: str = "text",
    out: Path | str | None = None,
    *,
    seed: int = 0,
    temperature: float = 1.0,
    grid: tuple[int, int] = (16, 16),
    seconds: float = 3.0,
    max_tokens: int = 200,
) -> Path:
    """Write what the model makes of `prompt`: a text of at most `max_tokens` more, a picture of `grid` codes, or a
    sound of so many seconds. Returns the file: `out`, or samples/<kind>-<seed>.* in the run's folder.

    temperature 0 takes the likeliest id each time.
    """
    folder = Path(run_dir)
    if kind not in SUFFIXES:
        raise UserError(f"no kind {kind!r} to sample; the kinds are {', '.join(SUFFIXES)}")
    load = _load_of(folder)
    settings, layout = load_model_settings(folder), read_layout(folder, load)
    path = Path(out) if out is not None else folder / "samples" / f"{kind}-{seed}{SUFFIXES[kind]}"
    if path.suffix != SUFFIXES[kind]:
        raise UserError(f"{path} does not end in {SUFFIXES[kind]}: that is what a sample of kind {kind} is written as")
    _codec(_spec(layout, kind), load)  # a codec that cannot decode it is told before the work, not after
    if layout.needs_blocks:
        raise UserError(
            "the run's layout lets codes see those after them; sampling goes one id at a time: train without"
        )
    config = sized(settings, layout)
    if config.streams > 1:
        raise UserError(
            f"the run's layout writes {config.streams} ids a place; sampling goes one id at a time: train a layout that"
            " writes one codebook after the other"
        )
    template = make_template(layout, kind, prompt, grid=grid, seconds=seconds, max_tokens=max_tokens, load=load)
    _, params = restore_params(folder / CHECKPOINTS)
    ids = fill(params, config, layout, template, seed=seed, temperature=temperature)
    items, problems = layout.parse(ids)
    if problems or not items:
        what = f"{problems[0].what} at {problems[0].position}" if problems else "it holds nothing"
        raise RunError(f"the sample does not parse ({what}): the layout's render and parse disagree")
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, items[-1], _decode(items[-1], layout, load))
    return path


def load_model_settings(folder: Path) -> ModelSettings:
    """The [model] table of a run's folder; its data need not be there."""
    if not (folder / "run.toml").exists():
        raise UserError(f"{folder} is no run's folder: it holds no run.toml; name the --out of `mmdata train`")
    return check(RunSettings, read_toml(folder / "run.toml"), str(folder / "run.toml")).model


def make_template(
    layout: Any,
    kind: str,
    prompt: str = "",
    *,
    grid: tuple[int, int] = (16, 16),
    seconds: float = 3.0,
    max_tokens: int = 200,
    load: LoadCodec | None = None,
) -> Template:
    """The template of a document: the prompt, then what is wanted. `load` finds the text codec, if not a shipped one.

    Of an image of 1 x 2 codes after "hi":  <bos> <text> hi <image> SIZE(1) SIZE(2) ? ? </image> <eos>
    """
    items = [_text_item(layout, prompt, load)] if prompt or kind == "text" else []
    if kind != "text":
        items.append(_empty_item(layout, kind, grid, seconds))
        row = layout.render(items)
        start, stop = row.spans[-1]["start"], row.spans[-1]["stop"]
        free = [_codebook(layout, id) if start <= i < stop else None for i, id in enumerate(row.tokens.tolist())]
        return Template(row.tokens, row.positions, free)
    row = layout.render(items)
    tokens = row.tokens
    last = int(np.flatnonzero(row.kinds == TEXT)[-1])
    head, tail = tokens[: last + 1 if prompt else last], tokens[last + 1 :]
    free = [None] * len(head) + ["text"] * max_tokens + [None] * len(tail)
    filled = np.full(max_tokens, tokens[last], np.int32)
    positions = row.positions[..., :1] + np.arange(len(free), dtype=np.int32)  # of text every axis counts ids
    return Template(np.concatenate([head, filled, tail]), positions, free, end=int(tail[0]) if len(tail) else None)


def fill(
    params: Any, config: ModelConfig, layout: Any, template: Template, *, seed: int = 0, temperature: float = 1.0
) -> np.ndarray:
    """int32 ids of the template with its free places chosen by the model, one at a time."""
    params = jax.tree.map(jnp.asarray, params)
    length = -(-len(template.ids) // 128) * 128  # few lengths, few compilations
    cache = init_cache(config, 1, length)
    step = jax.jit(partial(_choose, config=config), donate_argnums=1)
    allowed = {name: jnp.asarray(layout.vocabulary.mask(name)) for name in set(template.free) if name}
    ending = allowed
    if template.end is not None:
        ending = {name: mask.at[template.end].set(True) for name, mask in allowed.items()}
    nothing = jnp.ones(config.vocabulary, bool)
    key, warmth = jax.random.key(seed), jnp.float32(temperature)
    out: list[int] = []
    chosen: Any = None
    for place, id in enumerate(template.ids.tolist()):
        free = template.free[place]
        out.append(int(chosen) if free and place else id)
        if free and out[-1] == template.end:
            first_of_tail = next(i for i in range(place, len(template.free)) if template.free[i] is None)
            return np.array([*out, *template.ids[first_of_tail + 1 :]], np.int32)
        following = template.free[place + 1] if place + 1 < len(template.free) else None
        chosen, cache = step(
            params,
            cache,
            jnp.array([out[-1]], jnp.int32),
            jnp.int32(place),
            jnp.asarray(template.positions[None, ..., place, None]),
            nothing if following is None else (ending if free else allowed)[following],
            jax.random.fold_in(key, place),
            warmth,
        )
    return np.array(out, np.int32)


def _choose(
    params: Any,
    cache: Any,
    tokens: jax.Array,
    place: jax.Array,
    positions: jax.Array,
    allowed: jax.Array,
    key: jax.Array,
    temperature: jax.Array,
    *,
    config: ModelConfig,
) -> tuple[jax.Array, Any]:
    values, cache = decode_step(params, cache, tokens, place, positions, config)
    values = jnp.where(allowed, values[0], -jnp.inf)
    drawn = jax.random.categorical(key, values / jnp.maximum(temperature, 1e-6))
    return jnp.where(temperature > 0, drawn, jnp.argmax(values)), cache


def _text_item(layout: Any, prompt: str, load: LoadCodec | None) -> Item:
    codec = _spec(layout, "text")
    if not prompt:
        return Item("text", codec.name, np.zeros((1, 1), np.int32))
    return Item("text", codec.name, _codec(codec, load).encode(prompt).codes)


def _empty_item(layout: Any, kind: str, grid: tuple[int, int], seconds: float) -> Item:
    codec = _spec(layout, kind)
    K = len(codec.codebooks)
    if kind == "image":
        h, w = grid
        if h < 1 or w < 1:
            raise UserError(f"a picture of {h} x {w} codes: give a grid of at least 1 x 1")
        return Item("image", codec.name, np.zeros((h * w, K), np.int32), (1, h, w))
    T = round(seconds * codec.rate)
    if T < 1:
        raise UserError(f"{seconds} s of sound are less than one code ({codec.rate} a second): give more seconds")
    return Item("audio", codec.name, np.zeros((T, K), np.int32), (T, 0, 0))


def _spec(layout: Any, kind: str) -> CodecSpec:
    """The newest codec of a kind that the run's data has."""
    found = [codec for codec in layout.codecs if codec.kind == kind]
    if not found and kind in layout.soft_shapes:
        raise UserError(f"the run's layout takes {kind} as soft positions: the model reads them and writes none")
    if not found:
        raise UserError(f"the run's data has no {kind}: it knows {', '.join(c.name for c in layout.codecs)}")
    return max(found, key=lambda codec: int(codec.name.partition("@")[2] or 0))


def _load_of(folder: Path) -> LoadCodec:
    """`load_codec`, which also knows the text codecs that the run's sources keep as files."""

    def load(name: str) -> Codec:
        if name in CODECS:
            return load_codec(name)  # without a look at the data, which may be gone
        sources = [open_source(path) for path in load_run(folder).sources.values()]
        kept = {file.codec: source for source in sources for file in source.manifest.codec_files}
        return kept[name].load_codec(name) if name in kept else load_codec(name)

    return load


def _codec(spec: CodecSpec, load: LoadCodec | None) -> Codec:
    codec = (load or load_codec)(spec.name)
    if spec_of(codec).fingerprint != spec.fingerprint:
        raise UserError(
            f"the codec {spec.name} is not the one the run's data was made with: use the mmdata that made it"
        )
    return codec


def _codebook(layout: Any, id: int) -> str | None:
    """The range of an id if it is a code of a codec that is not text."""
    name = layout.vocabulary.describe(id)[0]
    return name if "@" in name else None


def _decode(item: Item, layout: Any, load: LoadCodec) -> tuple[Any, Codec]:
    spec = next(codec for codec in layout.codecs if codec.name == item.codec)
    assert item.codes is not None
    T, K = item.codes.shape
    codec = _codec(spec, load)
    try:
        return codec.decode(Codes(item.codes, Shape(T, K, *item.grid, rate=spec.rate))), codec
    except ValueError as error:  # codes that spell nothing, such as bytes that are no file
        raise RunError(f"what the model wrote cannot be decoded: {error}; train on, or try another --seed") from None


def _write(path: Path, item: Item, decoded: tuple[Any, Codec]) -> None:
    medium, codec = decoded
    with writing(path):
        written = temporary(path)
        if item.kind == "text":
            written.write_text(medium, "utf-8")
        elif item.kind == "image":
            from PIL import Image

            Image.fromarray(medium).save(written, format="PNG")
        else:
            with wave.open(str(written), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(codec.sample_rate_hz)  # type: ignore[attr-defined]
                file.writeframes((np.clip(medium, -1, 1) * 32767).astype("<i2").tobytes())
    commit(written, path)
