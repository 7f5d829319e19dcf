"""Measures of a text codec: bytes a token (fertility) and whether every text comes back exactly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmdata.errors import UserError
from pipelines.ingest.files import read_text
from pipelines.ingest.media import Limits, MediaError
from tokenizer.codec import Codec
from tokenizer.codecs import load_codec


def evaluate_text(codec_name: str, folder: Path) -> dict[str, dict[str, float]]:
    """Figures of a codec on the text files of a folder, a row for each folder in it (a language, say), and "all"."""
    if not folder.is_dir():
        raise UserError(f"no folder {folder}; name one with text files")
    codec = load_codec(codec_name)
    texts: dict[str, list[str]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        parts = path.relative_to(folder).parts
        try:
            texts.setdefault(parts[0] if len(parts) > 1 else ".", []).append(read_text(path, Limits()))
        except MediaError:
            continue  # a picture among the texts
    if not texts:
        raise UserError(f"no text file in {folder}")
    rows = {name: evaluate_texts(codec, group) for name, group in texts.items()}
    return {**rows, "all": evaluate_texts(codec, [text for group in texts.values() for text in group])}


def evaluate_texts(codec: Codec, texts: Sequence[str]) -> dict[str, float]:
    """{"texts", "bytes", "tokens", "bytes_a_token", "exact": share of the texts that come back as they were}."""
    num_bytes = num_tokens = exact = 0
    for text in texts:
        codes = codec.encode(text)
        num_bytes += len(text.encode())
        num_tokens += len(codes.codes)
        exact += codec.decode(codes) == text
    return {
        "texts": len(texts),
        "bytes": num_bytes,
        "tokens": num_tokens,
        "bytes_a_token": round(num_bytes / max(1, num_tokens), 3),
        "exact": exact / max(1, len(texts)),
    }
