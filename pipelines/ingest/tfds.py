"""TFDS datasets on disk, in ArrayRecord shards, read by `as_data_source` without TensorFlow: a record is a document.

`features.json` says which columns are images, whose encoded bytes are taken, and names the classes of ClassLabel
columns. Texts are the columns the recipe names. A dataset with Audio or Video features, or with images
inside a sequence, is a ledger line: TFDS reads those only with TensorFlow, or only decoded. So are TFRecord shards.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np

from pipelines.ingest.document import Document, Dropped
from pipelines.ingest.folder import Folder, settings_of, uri_of
from pipelines.ingest.media import CANNOT_DECODE, Limits, MediaError, refused
from pipelines.ingest.rows import RowOptions, Rows, leftovers_of
from pipelines.ingest.source import Input

_SHARD = re.compile(r"(?P<name>[^/]+)-(?P<split>[^-/]+)\.array_record-(?P<index>\d{5})-of-\d{5}$")
_BESIDE = ("dataset_info.json", "features.json")


class TfdsOptions(RowOptions):
    """The keys of a `format = "tfds"` source: which column is what, beyond what features.json says."""


@dataclass(frozen=True)
class TfdsSource:
    """See the module docstring."""

    name: str
    folder: Folder
    limits: Limits
    Options: ClassVar = TfdsOptions
    follows: ClassVar = True

    @property
    def root(self) -> Path:
        return self.folder.root

    def settings(self) -> dict[str, Any]:
        return settings_of("tfds", self.folder)

    def inputs(self) -> list[Input]:
        listed = []
        for path in self.folder.files:
            beside = tuple((PurePosixPath(path).parent / name).as_posix() for name in _BESIDE)
            if _SHARD.search(path) and self.folder.names.issuperset(beside):
                listed.append(Input(path, (path, *beside), self.folder.size(path)))
        return listed

    def read(self, input: Input) -> Iterator[Document | Dropped]:
        path = input.path
        try:
            columns, records = self._open(path)
            rows = Rows(self.name, self.folder, self.limits, columns, path)
            yield from rows.documents(_safely(records), input.step)
        except MediaError as error:
            yield Dropped(self.name, uri_of(path), "ingest", error.reason, error.detail)

    def leftovers(self, shown: Collection[str] | None = None) -> list[Dropped]:
        own = {file for input in self.inputs() for file in input.files}
        # what TFDS writes beside the shards, and no record is in
        own |= {p for p in self.folder.files if re.search(r"(^|/)(label|[\w.]*)\.labels\.txt$|(^|/)metadata\.json$", p)}
        return leftovers_of(self, sorted(own), shown)

    def _open(self, path: str) -> tuple[RowOptions, _Records]:
        """The columns as the features name them, and the records of a shard. Raises MediaError."""
        import tensorflow_datasets as tfds

        options = self.folder.options
        assert isinstance(options, TfdsOptions)
        shard = _SHARD.search(path)
        assert shard is not None
        try:
            builder = tfds.builder_from_directory(str(self.folder.path(path).parent))
            lengths = builder.info.splits[shard["split"]].shard_lengths
            begin = sum(lengths[: int(shard["index"])])
            end = begin + lengths[int(shard["index"])]
            features = dict(builder.info.features.items())
            images = [column for column, feature in features.items() if isinstance(feature, tfds.features.Image)]
            _require_plain(features, tfds)
            source = builder.as_data_source(
                split=f"{shard['split']}[{begin}:{end}]",
                decoders={column: tfds.decode.SkipDecoding() for column in images},
            )
        except MediaError:
            raise
        except Exception as error:  # AssertionError, KeyError, ValueError, RuntimeError ... of files that do not fit
            raise refused(error) from None
        classes = {
            column: list(feature.names)
            for column, feature in features.items()
            if isinstance(feature, tfds.features.ClassLabel) and feature.num_classes and feature.names
        }
        columns = options.model_copy(update={"image": tuple(dict.fromkeys((*options.image, *images)))})
        return columns, _Records(source, classes)


@dataclass(frozen=True)
class _Records:
    """The records of a shard as rows of plain values."""

    source: Any
    classes: dict[str, list[str]]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {column: self._value(column, value) for column, value in self.source[number].items()}

    def _value(self, column: str, value: Any) -> Any:
        names = self.classes.get(column)
        if names is not None and 0 <= int(value) < len(names):
            return names[int(value)]
        return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _safely(records: _Records) -> Iterator[tuple[str, Any]]:
    """(number, record or why there is none) of a shard."""
    for number in range(len(records)):
        try:
            row: Any = records[number]
        except Exception as error:  # what ArrayRecord, the proto parser and the features raise on broken records
            row = refused(error)
        yield str(number), row


def _require_plain(features: dict[str, Any], tfds: Any) -> None:
    """Raises MediaError for features that would be decoded here, outside the limits."""
    plain = (tfds.features.Scalar, tfds.features.Text, tfds.features.ClassLabel)
    for column, feature in features.items():
        inner = getattr(feature, "feature", None)
        if isinstance(feature, tfds.features.Video) or (inner is not None and not isinstance(inner, plain)):
            raise MediaError(CANNOT_DECODE, f"the feature {column!r} is a {type(feature).__name__}, which is not read")
