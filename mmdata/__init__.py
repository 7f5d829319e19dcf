"""Stored data and the way to a batch: the one public door. Every name is imported when it is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mmdata.batch import Batch as Batch
    from mmdata.dataset import Dataset as Dataset
    from mmdata.dataset import Source as Source
    from mmdata.dataset import open_dataset as open  # noqa: F401
    from mmdata.errors import RunError as RunError
    from mmdata.errors import UserError as UserError
    from mmdata.loader import Loader as Loader
    from mmdata.loader import data_shard as data_shard
    from mmdata.mixture import Mixture as Mixture
    from mmdata.sample import Sample as Sample
    from mmdata.schedule import Schedule as Schedule
    from mmdata.schedule import Stage as Stage
    from tokenizer.codecs import load_codec as load_codec
    from tokenizer.item import Item as Item
    from tokenizer.layout import load_layout as load_layout

_HOMES = {
    "open": ("mmdata.dataset", "open_dataset"),
    "Batch": ("mmdata.batch", "Batch"),
    "Dataset": ("mmdata.dataset", "Dataset"),
    "Item": ("tokenizer.item", "Item"),
    "Loader": ("mmdata.loader", "Loader"),
    "Mixture": ("mmdata.mixture", "Mixture"),
    "RunError": ("mmdata.errors", "RunError"),
    "Sample": ("mmdata.sample", "Sample"),
    "Schedule": ("mmdata.schedule", "Schedule"),
    "Source": ("mmdata.dataset", "Source"),
    "Stage": ("mmdata.schedule", "Stage"),
    "UserError": ("mmdata.errors", "UserError"),
    "data_shard": ("mmdata.loader", "data_shard"),
    "load_codec": ("tokenizer.codecs", "load_codec"),
    "load_layout": ("tokenizer.layout", "load_layout"),
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mmdata' has no attribute {name!r}; it has {__all__}")
    module, attribute = _HOMES[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
