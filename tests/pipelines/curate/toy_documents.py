"""Rules and documents for the tests of curation."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from pipelines.curate.settings import Curate, Curation, curation_of
from pipelines.ingest.document import Document, Part


def rules(*families: str, folder: Path = Path(), **tables: Any) -> Curation:
    found = curation_of(Curate.model_validate({"rules": families, **tables}), {}, folder, "curate")
    assert found is not None
    return found


def document(*parts: Part | str, language: str = "", **words: Any) -> Document:
    made = tuple(Part("text", text=part, uri="d#t") if isinstance(part, str) else part for part in parts)
    return Document("00", "web", made, uri=words.pop("uri", "d"), language=language, **words)


def image(width: int, height: int, uri: str = "cat.png") -> Part:
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, "PNG")
    return Part("image", data=file.getvalue(), uri=uri)
