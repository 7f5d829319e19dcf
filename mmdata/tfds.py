"""What makes a source's folder a TFDS dataset: dataset_info.json and features.json. The one home of TFDS.

`tfds.builder_from_directory("DIR/<source>").as_data_source(split="train")` then reads it with neither TensorFlow nor
this package. A split without samples must have no files and is not listed, for TFDS 4.9.10 refuses to open one ("Paths
sequence can not be of 0 length"); only `train` is always listed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_INTS = "kind T K t h w offset role group group_role num_times num_unit_times num_text num_sentence_ends sentence_ends"
_DESCRIPTION = (
    "Interleaved items of text, images, audio and video as codec-local codes; one record a document. "
    "See docs/format.md of mmdata; manifest.json names the codecs."
)


def write_tfds_metadata(
    folder: Path, name: str, lengths: Mapping[str, Sequence[int]], sizes: Mapping[str, int]
) -> None:
    """Write the two files. `lengths`: split -> samples of each shard; `sizes`: split -> bytes. The same input gives
    the same bytes."""
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        data_dir=str(folder), dataset_name=name, filetype_suffix="array_record", template=_TEMPLATE
    )
    splits = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=list(shard_lengths),
            num_bytes=sizes[split],
            filename_template=template.replace(split=split),
        )
        for split, shard_lengths in lengths.items()
        if shard_lengths
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder),
        features=_features(tfds.features),
        split_infos=splits,
        filename_template=template,
        version="1.0.0",
        check_data=False,
        description=_DESCRIPTION,
    )


def shard_lengths(folder: Path) -> dict[str, list[int]]:
    """Split -> samples of each shard, as dataset_info.json lists them."""
    info = json.loads((folder / "dataset_info.json").read_bytes())
    return {split["name"]: [int(n) for n in split["shardLengths"]] for split in info["splits"]}


def _features(f: Any) -> Any:
    """The features of a record (docs/format.md, "Example"), in the words of TFDS."""
    import numpy as np

    ints, floats = f.Sequence(f.Scalar(np.int64)), f.Sequence(f.Scalar(np.float32))
    data, texts = f.Scalar(np.object_), f.Sequence(f.Text())
    item = {
        **{column: ints for column in _INTS.split()},
        **{column: texts for column in ("codec", "dtype", "digest", "uri", "stream", "text")},
        **{column: floats for column in ("times", "unit_times")},
        **{column: data for column in ("start_s", "end_s")},
    }
    sample = ("id", "cluster", "source", "uri", "language", "licence", "created", "metadata")
    return f.FeaturesDict({"codes": data, **{column: f.Text() for column in sample}, "item": item})
