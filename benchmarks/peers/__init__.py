"""The systems of the loader's benchmark, ours and the limit among them: one file each, imported when asked for."""

from __future__ import annotations

from importlib import import_module

from peers.system import System

FILES = ("ours", "limit", "grain_array_record", "mosaicml_streaming", "web_dataset", "lit_data", "hf_datasets")


def systems() -> dict[str, System]:
    """Name -> system, ours first. These files import what they measure inside functions only."""
    return {system.name: system for file in FILES for system in import_module(f"peers.{file}").SYSTEMS}
