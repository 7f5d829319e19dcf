"""The formats by name, in one plain dict, and `open_source`, which builds a source out of a [[source]] table."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from mmdata.errors import UserError
from pipelines.ingest.folder import open_folder
from pipelines.ingest.media import Limits
from pipelines.ingest.source import Source

# Format -> "module:class". Modules are loaded when first used: each is the home of its own heavy import.
SOURCES: dict[str, str] = {
    "captions": "pipelines.ingest.captions:CaptionSource",
    "hf": "pipelines.ingest.arrow:ArrowSource",
    "chat": "pipelines.ingest.chat:ChatSource",
    "epub": "pipelines.ingest.epub:EpubSource",
    "html": "pipelines.ingest.html:HtmlSource",
    "interleaved": "pipelines.ingest.interleaved:InterleavedSource",
    "jsonl": "pipelines.ingest.jsonl:JsonlSource",
    "parquet": "pipelines.ingest.parquet:ParquetSource",
    "pdf": "pipelines.ingest.pdf:PdfSource",
    "speech": "pipelines.ingest.speech:SpeechSource",
    "text": "pipelines.ingest.text:TextSource",
    "tfds": "pipelines.ingest.tfds:TfdsSource",
    "video": "pipelines.ingest.video:VideoSource",
    "warc": "pipelines.ingest.warc:WarcSource",
    "webdataset": "pipelines.ingest.webdataset:TarSource",
}


def open_source(
    name: str, format: str, path: Path, options: Mapping[str, Any] | None = None, limits: Limits | None = None
) -> Source:
    """The source `name` of a recipe: `options` are the other keys of its table. Raises UserError with the fix."""
    kind = source_class(format, name)
    model: type[BaseModel] = kind.Options
    folder = open_folder(name, path, parse_options(name, format, model, options or {}))  # type: ignore[arg-type]
    return kind(name, folder, limits or Limits())


def require_inputs(source: Source) -> None:
    """Refuses a source that would give nothing: an empty folder, or one of other files."""
    if source.inputs():
        return
    folder = source.folder  # type: ignore[attr-defined]
    found = folder.endings()
    what = f"holds nothing that it reads ({found})" if found else "is empty"
    raise UserError(
        f"source {source.name!r}: the folder {source.root} {what}."
        " Correct its path, its format or its include and exclude in the recipe."
    )


def source_class(format: str, name: str = "") -> Any:
    """The class of a format; its `Options` is the pydantic model of its keys."""
    if format not in SOURCES:
        near = difflib.get_close_matches(format, SOURCES, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(f"source {name!r}: there is no format {format!r}.{hint} The formats are {sorted(SOURCES)}.")
    module, attribute = SOURCES[format].split(":")
    return getattr(importlib.import_module(module), attribute)


def parse_options(name: str, format: str, model: type[BaseModel], options: Mapping[str, Any]) -> BaseModel:
    """The options as the format's model. Raises UserError naming the nearest key, or what is wrong with a value."""
    known = sorted(model.model_fields)
    for key in options:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Its keys are {known}."
            raise UserError(f"source {name!r}: the format {format!r} has no key {key!r}. {hint}")
    try:
        return model(**options)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"source {name!r}: {key} = {first['input']!r}: {first['msg']}.") from None
