"""docs/files.md: every key of every file a user writes, out of the pydantic models that check them.

`make docs` (python -m pipelines.look.reference docs) writes it anew, and docs/layouts.md with it (layout_reference.py);
a test says whether they are up to date.
A key's meaning is its Field's description, or else the comment on its line, or else what its name means everywhere.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipelines.config import NAME
from pipelines.look.layout_reference import layouts_page

_INTRODUCTION = """# The files you write

Every key of recipes, run files and fit configs; those of layouts are in `layouts.md`. `make docs` writes this page from
the models that check the files: what is here is what is understood. All are TOML. An unknown key is an error that names
the nearest known one. Paths are relative to the file they stand in, unless the key says otherwise; in paths, `${VAR}`
stands for an environment variable's value.
"""

# Keys that mean the same in every file that has them.
_MEANINGS = {
    "name": "what it is called in reports and cards; of a codec, the file is NAME-REVISION",
    "revision": "of the codec; a dataset names the revision it was built with",
    "licence": "goes on the card",
    "summary": "goes on the card: what it is, and what it cannot do",
    "notes": "go on the card",
    "origin": "goes on the card: package and version, or address",
    "seed": "decides everything drawn by chance",
    "include": "globs of the files to take",
    "weight": "share of this set in what is learnt from, against the others' weights",
    "min_bytes": "smaller files are left out",
    "short_sides": "pixels on the short side of the sizes that each picture is learnt at; none is enlarged",
    "widths": "channels at each resolution: 1/4 of the picture, 1/8 and so on; a code is at the last one",
    "encoder_blocks": "residual blocks at each resolution, from picture to code",
    "decoder_blocks": "and from code to picture",
    "steps": "steps of training, the learning rate on a cosine",
    "optimizer": "of the kernels between layers; the rest is learnt by Adam",
    "more_steps": "further steps, on a second cosine from half the rate",
    "batch_size": "crops, or windows of sound, in a step",
    "crop": "pixels on a side of a crop",
    "learning_rate": "at the end of the warm-up; a cosine down from there",
    "warmup_steps": "steps from 0 to learning_rate",
    "average": "of the weights over steps: how much of the average stays at each step",
    "evaluate_every": "steps between measurements on what is held out",
    "save_every": "steps between saved states, which the same command goes on from",
    "layers": "blocks of attention and MLP",
    "width": "of the residual stream",
    "head_dim": "width of a head",
    "mlp": "width inside the gated MLP",
    "weight_decay": "of matrices; norms and biases have none",
    "beta1": "of AdamW: memory of the gradient",
    "beta2": "of AdamW: memory of its square",
    "fsdp": "parts that each weight is cut into, batches too",
    "tensor": "parts that heads, MLP and vocabulary are cut into",
    "from_step": "the stage's first step; 0 for the first stage",
}

_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "anything"}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "multiple_of": "a multiple of"}


def files_page() -> str:
    """The whole page, Markdown."""
    from pipelines.build.recipe import RecipeFile
    from pipelines.fit.audio import AudioConfig
    from pipelines.fit.classifier import ClassifierConfig
    from pipelines.fit.images import ImageConfig
    from pipelines.fit.jpeg import JpegConfig
    from pipelines.fit.text import TextConfig
    from pipelines.ingest.source import CommonOptions
    from pipelines.ingest.sources import SOURCES, source_class
    from pipelines.train.run import RunSettings

    blocks = [_INTRODUCTION]
    blocks += ["## Recipe", "`mmdata build RECIPE --out DIR`; examples: `examples/demo.toml`, `examples/corpus.toml`."]
    blocks += _tables(RecipeFile)
    blocks += ["### Of every source", "In its `[[source]]` table, whatever its format:", _table(CommonOptions)]
    for name in sorted(SOURCES):
        options = source_class(name).Options
        own = [key for key in options.model_fields if key not in CommonOptions.model_fields]
        about = _summary(inspect.getmodule(options))
        blocks += [f'### `format = "{name}"`', about, _table(options, own)]
    blocks += ["## Run file", "`mmdata train RUN --out DIR`; example: `examples/demo-run.toml`."]
    blocks += _tables(RunSettings)
    configs: dict[str, type[BaseModel]] = {
        "image": ImageConfig, "jpeg": JpegConfig, "audio": AudioConfig, "text": TextConfig,
        "classifier": ClassifierConfig,
    }  # fmt: skip
    for kind, model in configs.items():
        blocks += [
            f"## Fit config: {kind}",
            f"`mmdata fit {kind} --config CONFIG --out DIR`; examples: `examples/fit/`.",
        ]
        blocks += _tables(model)
    return "\n\n".join(block.strip() for block in blocks if block) + "\n"


def write_pages(folder: Path) -> None:
    """Both pages."""
    (folder / "files.md").write_text(files_page(), "utf-8")
    (folder / "layouts.md").write_text(layouts_page(), "utf-8")


def _tables(model: type[BaseModel], heading: str = "") -> list[str]:
    """The model's own keys, then each table inside it under its heading."""
    inner = {key: _model_in(field.annotation) for key, field in model.model_fields.items()}
    blocks = [_table(model, [key for key, table in inner.items() if table is None])]
    for key, table in inner.items():
        if table is not None:
            repeated = get_origin(model.model_fields[key].annotation) in (list, tuple)
            name = f"{heading}{key}"
            blocks += [f"### `[[{name}]]`" if repeated else f"### `[{name}]`"]
            blocks += [_first_line(table), *_tables(table, f"{name}.")]
    return blocks


def _table(model: type[BaseModel], keys: list[str] | None = None) -> str:
    """Markdown rows of some keys of a model (all of them without `keys`)."""
    comments = dict(_comments(model))
    rows = []
    for key in model.model_fields if keys is None else keys:
        field = model.model_fields[key]
        meaning = field.description or comments.get(key) or _MEANINGS.get(key, "")
        rows.append(f"| `{key}` | {_type(field)} | {_default(field)} | {_cell(meaning)} |")
    if not rows:
        return "No keys of its own." if keys is not None else ""
    return "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows])


def _type(field: FieldInfo) -> str:
    bounds = [
        f"{words} {getattr(rule, bound):g}"
        for rule in field.metadata
        for bound, words in _BOUNDS.items()
        if getattr(rule, bound, None) is not None
    ]
    patterns = [rule.pattern for rule in field.metadata if getattr(rule, "pattern", None)]
    choices = [_choices(pattern) for pattern in patterns]
    return ", ".join([*(choices or [_words(field.annotation)]), *bounds])


def _choices(pattern: str) -> str:
    """A pattern in words: of `^(one|other)$` the choices."""
    if pattern == NAME:
        return "text: letters, digits, `.`, `_`, `-`"
    return " or ".join(f'`"{word}"`' for word in re.findall(r"\w+", pattern))


def _words(kind: Any) -> str:
    """A type in words; choices are written out."""
    if kind in _WORDS:
        return _WORDS[kind]
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(f"`{json.dumps(choice)}`" for choice in inside)
    if origin in (Union, UnionType):
        return " or ".join(_words(part) for part in inside if part is not NoneType)
    if origin is dict:
        return f"table of name = {_words(inside[1])}"
    if origin is list or Ellipsis in inside:
        return f"list of {_words(inside[0])}"
    if origin is tuple:
        return f"list of {len(inside)}: {_words(inside[0])}"
    return str(getattr(kind, "__name__", kind))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return f"`{json.dumps(value, ensure_ascii=False)}`" if value is not None else "none"


def _comments(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """(key, the comment on its line) in the source of a model and of the models it extends."""
    for kind in reversed(model.__mro__):
        if issubclass(kind, BaseModel) and kind is not BaseModel:
            yield from re.findall(r"^    (\w+): [^#\n]*  # (.+)$", inspect.getsource(kind), re.MULTILINE)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(inner) for inner in get_args(annotation))
    return next((model for model in found if model is not None), None)


def _first_line(model: type[BaseModel]) -> str:
    """What a model's own docstring says, without the table's name before the colon."""
    words = (model.__dict__.get("__doc__") or "").strip().split("\n\n")[0]
    words = re.sub(r"^\[+\w+\]+: ", "", " ".join(words.split()))
    return words[:1].upper() + words[1:]


def _summary(module: Any) -> str:
    """The first paragraph of a format's module: what it reads."""
    return " ".join((module.__doc__ or "").split("\n\n")[0].split())


def _cell(words: str) -> str:
    return " ".join(words.split()).replace("|", "\\|")


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
