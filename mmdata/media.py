"""Kept media: the `media/` shards of a source, keyed by digest (docs/format.md, "Media").

"resized" keeps arrays (uint8 [H, W, 3], uint8 [t, H, W, 3] for a video, int16 [n] mono PCM), from which the loader cuts
what soft items need without any decoder; "original" keeps the bytes. Decoding originals is not done here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmdata.catalog import read_media_index, write_media_index
from mmdata.commit import sha256_of
from mmdata.errors import UserError
from mmdata.example import decode_example, encode_example
from mmdata.shards import RecordFiles, write_records
from tokenizer.item import KINDS

if TYPE_CHECKING:
    from mmdata.folder import Folder

FORMS = ("none", "resized", "original")
_SHAPES = {"image": ("uint8", 3), "video": ("uint8", 4), "audio": ("int16", 1)}
_NO_TIMES = np.zeros(0, np.float32)


@dataclass(frozen=True, eq=False)
class Media:
    """One kept medium. The sound of a video has the video's digest and kind "audio"."""

    digest: str  # sha256, hex, of the original bytes: the digest of the items
    kind: str  # image | audio | video (text needs none: it is always recoverable)
    data: np.ndarray | bytes  # an array is "resized", bytes are "original"
    sample_rate_hz: int = 0  # of resized audio
    times: np.ndarray = field(default_factory=lambda: _NO_TIMES)  # float32 [t] seconds, of resized video frames

    def __post_init__(self) -> None:
        if self.kind not in _SHAPES:
            raise ValueError(f"media has kind {self.kind!r}; the kinds are {list(_SHAPES)}")
        if isinstance(self.data, np.ndarray):
            dtype, dimensions = _SHAPES[self.kind]
            if str(self.data.dtype) != dtype or self.data.ndim != dimensions:
                raise ValueError(
                    f"resized {self.kind} is {dtype} with {dimensions} dimensions, "
                    f"got {self.data.dtype} {list(self.data.shape)}"
                )

    @property
    def form(self) -> str:
        return "resized" if isinstance(self.data, np.ndarray) else "original"


@dataclass(frozen=True)
class MediaShard:
    """One finished shard of media, as a done-marker and the manifest keep it."""

    file: str  # relative to media/
    index_file: str  # relative to media/: Parquet of (digest, kind, index)
    media: int
    bytes: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class MediaInfo:
    """What the manifest says of kept media."""

    form: str = "none"
    shards: tuple[MediaShard, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"form": self.form, "shards": [s.to_json() for s in self.shards]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> MediaInfo:
        return cls(value["form"], tuple(MediaShard(**s) for s in value["shards"]))


def media_shard_of(digest: str, num_shards: int) -> int:
    """The media shard a digest belongs to, whatever worker met it."""
    return int(digest[:8], 16) % num_shards


def write_media_shard(folder: Path, index: int, num_shards: int, media: Iterable[Media]) -> MediaShard:
    """Write one shard under `folder`/media. Media must come in the order of (digest, kind); one that comes again is
    written once. `media_shard_of` says which belong here."""
    (folder / "media").mkdir(parents=True, exist_ok=True)
    path = folder / "media" / f"media.array_record-{index:05d}-of-{num_shards:05d}"
    keys: list[tuple[str, str]] = []
    write_records(path, _records(media, keys))
    index_path = path.with_name(f"media-{index:05d}-of-{num_shards:05d}.parquet")
    write_media_index(index_path, keys)
    return MediaShard(path.name, index_path.name, len(keys), path.stat().st_size, sha256_of(path))


def write_media(folder: Path, media: Iterable[Media], form: str, num_shards: int = 1) -> MediaInfo:
    """Write all media of a source in any order, from memory: for small sources. A build writes shard by shard."""
    if form not in FORMS:
        raise UserError(f"keep_media is one of {list(FORMS)}, got {form!r}")
    ordered = sorted(media, key=lambda m: (m.digest, m.kind))
    if wrong := [m for m in ordered if m.form != form]:
        raise ValueError(f"media {wrong[0].digest} is {wrong[0].form}, the source keeps {form}")
    if form == "none":
        return MediaInfo()
    shards = [
        write_media_shard(folder, i, num_shards, (m for m in ordered if media_shard_of(m.digest, num_shards) == i))
        for i in range(num_shards)
    ]
    return MediaInfo(form, tuple(shards))


class MediaStore:
    """Kept media of a source: `media[digest]`, or `media[digest, "audio"]` where a digest has several."""

    def __init__(self, folder: Folder, info: MediaInfo) -> None:
        self.form = info.form
        self._folder = folder
        self._info = info
        self._files = RecordFiles([f"media/{s.file}" for s in info.shards], max_open=4, folder=folder)
        self._places: dict[str, dict[str, tuple[int, int]]] | None = None  # digest -> kind -> (file, place)

    def __len__(self) -> int:
        return sum(s.media for s in self._info.shards)

    def __contains__(self, digest: object) -> bool:
        return digest in self._index()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """(digest, kind) of all media, in stored order."""
        return ((digest, kind) for digest, kinds in self._index().items() for kind in kinds)

    def __getitem__(self, key: str | tuple[str, str]) -> np.ndarray | bytes:
        """The array or the bytes."""
        return self.get(*((key,) if isinstance(key, str) else key)).data

    def get(self, digest: str, kind: str = "") -> Media:
        """The medium with its rate and times; KeyError where it was not kept."""
        kinds = self._index().get(digest, {})
        if not kinds or (kind and kind not in kinds):
            kept = f"this source keeps {self.form!r} media" + (f", of this digest {sorted(kinds)}" if kinds else "")
            raise KeyError(f"no {kind or 'medium'} with digest {digest!r}: {kept}")
        if not kind and len(kinds) > 1:
            raise ValueError(f"digest {digest} has {sorted(kinds)}: ask for media[digest, kind]")
        file, place = kinds[kind or next(iter(kinds))]
        return decode_media(self._files.read(file, [place])[0])

    def _index(self) -> dict[str, dict[str, tuple[int, int]]]:
        if self._places is None:
            places: dict[str, dict[str, tuple[int, int]]] = {}
            names = [f"media/{shard.index_file}" for shard in self._info.shards]
            self._folder.fetch(names)
            for file, name in enumerate(names):
                for place, (digest, kind) in enumerate(read_media_index(self._folder.path(name))):
                    places.setdefault(digest, {})[kind] = (file, place)
            self._places = places
        return self._places


def _records(media: Iterable[Media], keys: list[tuple[str, str]]) -> Iterator[bytes]:
    last = b""
    for medium in media:
        key, record = (medium.digest, medium.kind), _encode(medium)
        if keys and key == keys[-1]:
            if record != last:
                raise ValueError(f"two different media of kind {key[1]!r} have the digest {key[0]}")
            continue
        if keys and key < keys[-1]:
            raise ValueError(f"media come in the order of their digests: {key[0]} came after {keys[-1][0]}")
        keys.append(key)
        last = record
        yield record


def _encode(medium: Media) -> bytes:
    array = medium.data if isinstance(medium.data, np.ndarray) else np.frombuffer(medium.data, np.uint8)
    return encode_example(
        {
            "data": [array.astype(array.dtype.newbyteorder("<")).tobytes()],
            "digest": [bytes.fromhex(medium.digest)],
            "kind": np.array([KINDS.index(medium.kind)]),
            "form": [medium.form.encode()],
            "shape": np.array(array.shape if medium.form == "resized" else (), np.int64),
            "sample_rate_hz": np.array([medium.sample_rate_hz]),
            "times": np.asarray(medium.times, np.float32),
        }
    )


def decode_media(record: bytes) -> Media:
    """The medium of a record of a media shard."""
    f: Any = decode_example(record)
    kind, data = KINDS[f["kind"][0]], f["data"][0]
    if f["form"][0] == b"resized":
        data = np.frombuffer(data, np.dtype(_SHAPES[kind][0]).newbyteorder("<")).reshape(f["shape"]).copy()
    return Media(f["digest"][0].hex(), kind, data, int(f["sample_rate_hz"][0]), f["times"])
