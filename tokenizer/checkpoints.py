"""Weights on disk: nested dicts of arrays as safetensors, float16 stored and float32 computed.

Names are the path through the tree joined by dots ("decoder.block0.conv"). Loading checks every name and shape
against what the network expects and names the tensor that differs. Metadata is one JSON object under one key, so that
the same weights and metadata always give the same bytes (the format keeps several keys in no fixed order).
Key maps of other projects' checkpoints do not live here: they belong to the codec that reads them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

Config = TypeVar("Config")
Tree = dict[str, Any]  # nested dicts; the leaves are arrays, or shapes in what `load` expects

_METADATA_KEY = "mmdata"


def save(path: Path, params: Mapping[str, Any], metadata: Mapping[str, Any], dtype: type = np.float16) -> None:
    """Write a tree of arrays; the file appears whole or not at all."""
    from safetensors.numpy import save as to_bytes

    tensors: dict[str, np.ndarray] = {}
    for name, value in flatten(params).items():
        array = np.asarray(value, np.float32)
        limit = float(np.finfo(dtype).max)
        if not np.isfinite(array).all() or np.abs(array).max(initial=0.0) > limit:
            raise ValueError(
                f"tensor {name!r} holds values that {np.dtype(dtype)} cannot store; train again or clip it"
            )
        tensors[name] = np.ascontiguousarray(array.astype(dtype))
    note = json.dumps(dict(metadata), sort_keys=True, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(to_bytes(tensors, metadata={_METADATA_KEY: note}))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load(path: Path, expect: Mapping[str, Any] | None = None) -> tuple[Tree, dict[str, Any]]:
    """(params float32, metadata) of a file that `save` wrote.

    `expect` is a tree of shapes (tuples) or of arrays; ValueError names the tensor that is missing, extra or misshapen.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ValueError(f"no weights at {path}")
    try:
        with safe_open(str(path), framework="numpy") as file:
            tensors = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
            metadata = json.loads((file.metadata() or {}).get(_METADATA_KEY, "{}"))
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if expect is not None:
        _check(path, tensors, expect)
    return unflatten(tensors), metadata


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a file, without its tensors; ValueError where there is none, or it is no safetensors file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ValueError(f"no weights at {path}")
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata: dict[str, Any] = json.loads((file.metadata() or {}).get(_METADATA_KEY, "{}"))
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    return metadata


def read_config(path: Path, form: Callable[..., Config], known: Iterable[str]) -> Config:
    """The network's settings in a file's metadata, as `form`: lists become tuples, what is missing has its default.

    ValueError names the file, the setting that `form` does not know and those it does: another version wrote it.
    """
    settings = read_metadata(path).get("network", {})
    names = sorted(known)
    for name in settings:
        if name not in names:
            raise ValueError(
                f"{path.name} is of another network or version: it has the setting {name!r}, expected"
                f" {', '.join(names)}"
            )
    try:
        return form(**{name: tuple(value) for name, value in settings.items()})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path.name} is of another network or version: {error}") from None


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": x}} -> {"a.b": x}, sorted by name."""
    flat: dict[str, Any] = {}
    for key in sorted(tree):
        value = tree[key]
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> Tree:
    """{"a.b": x} -> {"a": {"b": x}}"""
    tree: Tree = {}
    for name, value in flat.items():
        *path, leaf = name.split(".")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[leaf] = value
    return tree


def fingerprint(weights: Path, preprocessing: Mapping[str, Any], revision: int, code: int) -> str:
    """sha256 over the weights file, the preprocessing parameters, the revision, and the version of the code run."""
    settings = {"preprocessing": dict(preprocessing), "revision": revision, "code": code}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(weights.read_bytes())
    return digest.hexdigest()


def _check(path: Path, tensors: Mapping[str, np.ndarray], expect: Mapping[str, Any]) -> None:
    shapes = {name: tuple(getattr(value, "shape", value)) for name, value in flatten(expect).items()}
    for name, shape in shapes.items():
        if name not in tensors:
            raise ValueError(f"{path.name}: tensor {name!r} of shape {list(shape)} is missing")
        if tensors[name].shape != shape:
            raise ValueError(
                f"{path.name}: tensor {name!r} has shape {list(tensors[name].shape)}, the network needs {list(shape)}"
            )
    extra = sorted(set(tensors) - set(shapes))
    if extra:
        raise ValueError(f"{path.name}: tensor {extra[0]!r} is not in the network (and {len(extra) - 1} more)")
