"""Manifests: what makes a folder a source or a dataset (docs/format.md, "Manifest"). Written last, checked first.

A source's manifest holds only what decides its bytes; the sha256 of its canonical JSON is the source's fingerprint, so
moving the folder keeps it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdata.codec_files import CODECS, KeptCodec
from mmdata.commit import TEMPORARY, write_bytes
from mmdata.errors import RunError, UserError
from mmdata.media import MediaInfo
from mmdata.remote import Store
from mmdata.shards import SPLITS, ShardInfo, check_name, shard_name
from mmdata.tfds import write_tfds_metadata
from tokenizer.codec import CodecSpec

FORMAT_VERSION = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """The manifest of a source."""

    name: str
    codecs: tuple[CodecSpec, ...]  # in the order in which item tables number them
    settings: dict[str, Any]  # those that decide this source's bytes
    shards: tuple[ShardInfo, ...]  # splits in the order of SPLITS, shards in order
    media: MediaInfo
    format_version: int = FORMAT_VERSION
    codec_files: tuple[KeptCodec, ...] = ()  # of text codecs that are files

    def of_split(self, split: str) -> tuple[ShardInfo, ...]:
        """The shards of a split, in order."""
        return tuple(s for s in self.shards if s.split == split)

    def counts(self, split: str) -> dict[str, Any]:
        """Samples of a split, and items and codes by kind: {"samples": 3, "text": {"items": 4, "codes": 70}, ...}."""
        total: dict[str, Any] = {"samples": 0}
        for shard in self.of_split(split):
            total["samples"] += shard.samples
            for kind, counts in shard.counts.items():
                sums = total.setdefault(kind, {})
                for what, n in counts.items():
                    sums[what] = sums.get(what, 0) + n
        return total

    def to_json(self) -> dict[str, Any]:
        files = {"codec_files": [f.to_json() for f in self.codec_files]} if self.codec_files else {}
        return {
            **files,
            "format_version": self.format_version,
            "kind": "source",
            "name": self.name,
            "codecs": [c.to_json() for c in self.codecs],
            "settings": self.settings,
            "splits": {split: self.counts(split) for split in SPLITS},
            "shards": [s.to_json() for s in self.shards],
            "media": self.media.to_json(),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Manifest:
        return cls(
            name=value["name"],
            codecs=tuple(CodecSpec.from_json(c) for c in value["codecs"]),
            settings=value["settings"],
            shards=tuple(ShardInfo.from_json(s) for s in value["shards"]),
            media=MediaInfo.from_json(value["media"]),
            format_version=value["format_version"],
            codec_files=tuple(KeptCodec(**f) for f in value.get("codec_files", ())),
        )


def fingerprint_of(manifest: dict[str, Any]) -> str:
    """Hex sha256 of the canonical JSON of a manifest: sorted keys, no spaces, UTF-8."""
    return hashlib.sha256(canonical_json(manifest)).hexdigest()


def canonical_json(value: Any) -> bytes:
    """One byte string for one value: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def split_of(cluster: str, validation_share: float) -> str:
    """ "validation" for this share of the clusters, by their id alone: near copies stay together.

    >>> split_of("9f" * 16, 0.0), split_of("9f" * 16, 1.0)
    ('train', 'validation')
    """
    if not 0 <= validation_share <= 1:
        raise UserError(f"validation is a share between 0 and 1, got {validation_share}")
    number = int.from_bytes(hashlib.blake2b(b"split\0" + cluster.encode(), digest_size=6).digest(), "big")
    return "validation" if number < validation_share * 2**48 else "train"


def begin_source(folder: Path) -> None:
    """Make the folder of a source to be written, or written again: from now on no reader takes it for finished."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)


def finish_source(
    folder: Path,
    name: str,
    shards: Iterable[ShardInfo],
    codecs: Sequence[CodecSpec],
    settings: dict[str, Any],
    media: MediaInfo | None = None,
    codec_files: Sequence[KeptCodec] = (),
) -> str:
    """Turn the shards in `folder` into a source: check that they are complete, remove what an earlier build left,
    write TFDS's metadata, then the manifest. Returns the fingerprint. `settings` are plain JSON values."""
    check_name(name)
    manifest = Manifest(
        name=name,
        codecs=tuple(sorted(codecs, key=lambda c: c.name)),
        settings=json.loads(canonical_json(settings)),
        shards=_kept_shards(shards),
        media=media or MediaInfo(),
        codec_files=tuple(sorted(codec_files, key=lambda f: f.codec)),
    )
    _check_complete(folder, manifest)
    begin_source(folder)
    _remove_strangers(folder, manifest)
    lengths = {split: [s.samples for s in manifest.of_split(split)] for split in SPLITS}
    sizes = {split: sum(s.bytes for s in manifest.of_split(split)) for split in SPLITS}
    write_tfds_metadata(folder, name, lengths, sizes)
    value = manifest.to_json()
    write_bytes(folder / MANIFEST, _pretty(value))
    return fingerprint_of(value)


def write_dataset_manifest(folder: Path, sources: Sequence[str], extra: dict[str, Any] | None = None) -> None:
    """Write DIR/manifest.json over finished sources, in the recipe's order. `extra` may hold the recipe's digest."""
    listed = [{"name": name, "fingerprint": fingerprint_of(read_json(folder / name))} for name in sources]
    value = {**(extra or {}), "format_version": FORMAT_VERSION, "kind": "dataset", "sources": listed}
    write_bytes(folder / MANIFEST, _pretty(value))


def read_json(folder: Path) -> dict[str, Any]:
    """A folder's manifest as it is written; UserError where there is none, or where it is too new to read."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise UserError(f"no dataset {folder}: there is no such folder")
    if not path.is_file():
        raise UserError(
            f"not a finished dataset: no {MANIFEST} in {folder}; run `mmdata build` with the same recipe again to "
            "finish it"
        )
    return parse_manifest(path.read_bytes(), str(folder))


def read_json_from(store: Store) -> dict[str, Any]:
    """The manifest behind a URL as it is written; UserError as `read_json`."""
    try:
        data = store.read(MANIFEST)
    except FileNotFoundError:
        raise UserError(
            f"not a finished dataset: no {MANIFEST} at {store.url}; check the address (bucket and folder), or copy the"
            " dataset there, its manifest last"
        ) from None
    return parse_manifest(data, store.url)


def parse_manifest(data: bytes, where: str) -> dict[str, Any]:
    """The manifest of the folder or URL `where` from its bytes; UserError where it is none, or too new."""
    try:
        value = json.loads(data)
        version, kind = value["format_version"], value["kind"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{where}/{MANIFEST} is not a manifest of mmdata: is {where} a dataset?") from None
    if version > FORMAT_VERSION:
        raise UserError(
            f"{where} has format version {version}, this mmdata reads up to {FORMAT_VERSION}: install a newer mmdata"
        )
    if kind not in ("source", "dataset"):
        raise UserError(f"{where}/{MANIFEST} is the manifest of a {kind!r}, not of a source or a dataset")
    return value


def _kept_shards(shards: Iterable[ShardInfo]) -> tuple[ShardInfo, ...]:
    """In stored order. A validation split without samples has no shards, as TFDS cannot open one of empty files."""
    ordered = sorted(shards, key=lambda s: (SPLITS.index(s.split), s.index))
    filled = {s.split for s in ordered if s.samples} | {"train"}
    return tuple(s for s in ordered if s.split in filled)


def _check_complete(folder: Path, manifest: Manifest) -> None:
    known = {c.name for c in manifest.codecs}
    for split in SPLITS:
        shards = manifest.of_split(split)
        for index, shard in enumerate(shards):
            expected = shard_name(manifest.name, split, index, len(shards))
            if shard.file != expected:
                raise ValueError(f"{split} shard {index} of {manifest.name} is {shard.file}, expected {expected}")
            if unknown := sorted(set(shard.codecs) - known):
                raise ValueError(f"{shard.file} has items of codec {unknown[0]!r}, which is not among {sorted(known)}")
            for file in (shard.file, shard.catalog):
                if not (folder / file).is_file():
                    raise RunError(f"{folder / file} is missing: write shard {index} of {split} again")
    for kept in manifest.codec_files:
        if kept.codec not in known:
            raise ValueError(f"{kept.file} is the file of codec {kept.codec!r}, which is not among {sorted(known)}")
        if not (folder / kept.file).is_file():
            raise RunError(f"{folder / kept.file} is missing: write it again")
    if not manifest.of_split("train"):
        raise ValueError(f"source {manifest.name} needs a train shard, even one without samples")


def _remove_strangers(folder: Path, manifest: Manifest) -> None:
    """Shards and catalogs of an earlier build with other numbers, and temporary files of killed processes."""
    ours = {s.file for s in manifest.shards} | {s.catalog for s in manifest.shards}
    ours |= {f"media/{file}" for s in manifest.media.shards for file in (s.file, s.index_file)}
    ours |= {kept.file for kept in manifest.codec_files}
    for pattern in ("*.array_record-*", "catalog/*.parquet", "media/*", f"{CODECS}/*", f"**/*{TEMPORARY}"):
        for path in folder.glob(pattern):
            if path.relative_to(folder).as_posix() not in ours:
                path.unlink()


def _pretty(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n"
