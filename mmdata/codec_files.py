"""Text codecs that are files (other people's vocabularies), kept in a source so that it can be read without them.

`DIR/<source>/codecs/<name>@<revision>.json` (a tokenizer.json) or `.model` (SentencePiece); the source's manifest lists
them, and only a source that has some has the key.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmdata.commit import sha256_of, write_bytes
from mmdata.errors import RunError
from tokenizer.codecs import CodecFile

CODECS = "codecs"


@dataclass(frozen=True)
class KeptCodec:
    """One kept file, as the manifest lists it."""

    codec: str  # name@revision
    file: str  # relative to the source's folder
    bytes: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def found(self, folder: Path) -> CodecFile:
        """The codec's file in the source's folder."""
        return self.at(folder / self.file)

    def at(self, path: Path) -> CodecFile:
        """The codec's file, wherever it lies."""
        return CodecFile(self.codec, path, self.sha256)

    def problem(self, folder: Path) -> str:
        """What is wrong with the file, in words; "" where nothing is."""
        path = folder / self.file
        if not path.is_file():
            return "the file is missing"
        if path.stat().st_size != self.bytes or sha256_of(path) != self.sha256:
            return "the bytes are not those the manifest names"
        return ""


def keep_codec(folder: Path, file: CodecFile) -> KeptCodec:
    """Copy a codec's file into the source's folder; RunError where it has changed meanwhile."""
    place = f"{CODECS}/{file.codec}{file.path.suffix}"
    (folder / CODECS).mkdir(parents=True, exist_ok=True)
    data = file.path.read_bytes()
    kept = KeptCodec(file.codec, place, len(data), file.sha256)
    write_bytes(folder / place, data)
    if problem := kept.problem(folder):
        raise RunError(f"{file.path} is no longer the codec {file.codec} ({problem}); put it back")
    return kept
