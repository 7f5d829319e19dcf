"""Weights on disk: the same bytes for the same weights, and errors that name the tensor."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tokenizer import checkpoints

TREE = {"encoder": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, "bias": np.ones(4, np.float32)}


def test_a_tree_comes_back_with_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    checkpoints.save(path, TREE, {"name": "x@1", "network": {"widths": [1, 2]}})
    params, metadata = checkpoints.load(path, TREE)
    np.testing.assert_array_equal(params["encoder"]["kernel"], TREE["encoder"]["kernel"])  # type: ignore[index]
    assert params["bias"].dtype == np.float32
    assert metadata == {"name": "x@1", "network": {"widths": [1, 2]}} == checkpoints.read_metadata(path)


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        checkpoints.save(tmp_path / name, TREE, {"z": 1, "a": 2})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize(
    ("expect", "words"),
    [
        ({"encoder": {"kernel": (3, 2)}, "bias": (4,)}, "encoder.kernel.*\\[2, 3\\].*\\[3, 2\\]"),
        ({"encoder": {"kernel": (2, 3)}, "bias": (4,), "scale": (1,)}, "'scale'.*missing"),
        ({"encoder": {"kernel": (2, 3)}}, "'bias' is not in the network"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(tmp_path: Path, expect: dict, words: str) -> None:
    path = tmp_path / "weights.safetensors"
    checkpoints.save(path, TREE, {})
    with pytest.raises(ValueError, match=words):
        checkpoints.load(path, expect)


def test_weights_that_float16_cannot_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'big'"):
        checkpoints.save(tmp_path / "w", {"big": np.array([1e6])}, {})
    with pytest.raises(ValueError, match="'nan'"):
        checkpoints.save(tmp_path / "w", {"nan": np.array([np.nan])}, {})
    assert not list(tmp_path.iterdir())


def test_what_is_no_weights_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"not safetensors at all")
    with pytest.raises(ValueError, match="not a safetensors file"):
        checkpoints.load(tmp_path / "w")
    with pytest.raises(ValueError, match="no weights at"):
        checkpoints.load(tmp_path / "absent")


@dataclass(frozen=True)
class Shape:
    widths: tuple[int, ...] = (1,)
    blocks: tuple[int, ...] = (2,)

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.blocks):
            raise ValueError("one number for each")


def test_a_networks_settings_come_back_or_name_what_is_of_another_version(tmp_path: Path) -> None:
    path = tmp_path / "w"
    checkpoints.save(path, TREE, {"network": {"widths": [3]}})
    assert checkpoints.read_config(path, Shape, ["widths", "blocks"]) == Shape(widths=(3,))
    checkpoints.save(path, TREE, {"network": {"heads": [3]}})
    with pytest.raises(ValueError, match=r"w is of another network .*'heads', expected blocks, widths"):
        checkpoints.read_config(path, Shape, ["widths", "blocks"])
    for wrong in ([1, 2], 3):
        checkpoints.save(path, TREE, {"network": {"widths": wrong}})
        with pytest.raises(ValueError, match="w is of another network or version"):
            checkpoints.read_config(path, Shape, ["widths", "blocks"])
    path.write_bytes(b"none")
    with pytest.raises(ValueError, match="not a safetensors file"):
        checkpoints.read_config(path, Shape, ["widths", "blocks"])


def test_the_fingerprint_changes_with_weights_preprocessing_and_code(tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "a", TREE, {})
    checkpoints.save(tmp_path / "b", {**TREE, "bias": np.zeros(4)}, {})
    prints = {
        checkpoints.fingerprint(tmp_path / "a", {"rate": 1}, 1, 1),
        checkpoints.fingerprint(tmp_path / "b", {"rate": 1}, 1, 1),
        checkpoints.fingerprint(tmp_path / "a", {"rate": 2}, 1, 1),
        checkpoints.fingerprint(tmp_path / "a", {"rate": 1}, 2, 1),
        checkpoints.fingerprint(tmp_path / "a", {"rate": 1}, 1, 2),
    }
    assert len(prints) == 5
