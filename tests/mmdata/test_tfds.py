"""TFDS reads a source with neither TensorFlow nor this project."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.mmdata.toy_source import sample, write_toy

_READER = """
import json, sys
import numpy as np
import tensorflow_datasets as tfds
builder = tfds.builder_from_directory(sys.argv[1])
source = builder.as_data_source(split="train")
every = builder.as_data_source()
found = []
for e in source:
    item = e["item"]
    codes = np.frombuffer(e["codes"], "<" + item["dtype"][1].decode(), item["T"][1] * item["K"][1], item["offset"][1])
    starts = np.frombuffer(item["start_s"], "<f8")
    times = float(np.sum(item["times"]))
    found.append([e["id"].decode(), [int(k) for k in item["kind"]], codes.tolist(), len(starts), times])
strangers = [m for m in sys.modules if m.split(".")[0] in ("tensorflow", "mmdata", "tokenizer", "pipelines")]
print(json.dumps({"found": found, "splits": {k: len(v) for k, v in every.items()}, "strangers": strangers}))
"""


def _read(folder: Path, cwd: Path) -> dict:
    done = subprocess.run(
        [sys.executable, "-I", "-c", _READER, str(folder)], cwd=cwd, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_tfds_reads_a_source_alone_and_without_validation(tmp_path) -> None:
    samples = [sample(i) for i in range(5)]
    write_toy(tmp_path / "data", samples, share=0.0)
    read = _read(tmp_path / "data" / "toy", tmp_path)
    assert read["strangers"] == [] and read["splits"] == {"train": 5}
    for (name, kinds, codes, n, times), want in zip(read["found"], samples, strict=True):
        assert name == want.id and kinds == [1, 2, 3, 4, 1] and n == 5
        np.testing.assert_array_equal(codes, want.items[1].codes[:, 0])
        assert abs(times - want.items[3].times.sum()) < 1e-6
    info = json.loads((tmp_path / "data" / "toy" / "dataset_info.json").read_text())
    assert str(tmp_path) not in json.dumps(info)


def test_tfds_reads_both_splits(tmp_path) -> None:
    write_toy(tmp_path, [sample(i) for i in range(12)])
    read = _read(tmp_path / "toy", tmp_path)
    assert set(read["splits"]) == {"train", "validation"} and sum(read["splits"].values()) == 12
