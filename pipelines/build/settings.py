"""What decides a build's bytes, in plain values: the recipe's settings, the codecs' names, the platform."""

from __future__ import annotations

import contextlib
import os
from importlib import metadata
from pathlib import Path
from typing import Any

from mmdata.errors import UserError
from pipelines.build.encode import LoadCodec
from pipelines.build.media import MediaSettings
from pipelines.build.recipe import SOFT, Recipe
from pipelines.build.units import fingerprint_of
from pipelines.ingest.media import Limits
from tokenizer.codecs import full_name, load_codec


def codec_names(recipe: Recipe, load: LoadCodec) -> dict[str, str]:
    """Kind -> name@revision of the recipe's codecs, without loading them."""
    names = {kind: getattr(recipe.codecs, kind) for kind in ("text", "image", "audio", "video")}
    names["video"] = names["video"] or names["image"]
    if load is not load_codec:
        return names
    for kind, name in names.items():
        try:
            names[kind] = name if name == SOFT else full_name(name)
        except ValueError as error:
            raise UserError(f"codecs.{kind}: {error}") from None
    return names


def recipe_settings(recipe: Recipe, names: dict[str, str]) -> dict[str, Any]:
    """The keys of the recipe that decide every source's bytes."""
    words = recipe.model_dump(
        mode="json", include={"seed", "validation", "keep_media", "on_bad_part", "image", "video"}
    )
    return {
        **words,
        "audio": recipe.audio.model_dump(),
        "limits": recipe.limits.model_dump(exclude={"stuck_seconds"}),
        "shards": recipe.shards.model_dump(include={"samples", "bytes"}),
        "codecs": dict(sorted(names.items())),
    }


def own_settings(settings: dict[str, Any], kinds: set[str]) -> dict[str, Any]:
    """Of `recipe_settings`, those that decide the bytes of a source which holds these kinds: a newer image codec, say,
    leaves the fingerprint of a source of texts as it was."""
    media = kinds - {"text"}
    # Frames are resized as images are.
    used = {"image": "image" in kinds or "video" in kinds, "video": "video" in kinds, "audio": "audio" in kinds}
    kept = {k: v for k, v in settings.items() if used.get(k, True) and (media or k != "keep_media")}
    return {**kept, "codecs": {kind: name for kind, name in settings["codecs"].items() if kind in kinds}}


def media_words(media: MediaSettings) -> dict[str, Any]:
    return {**vars(media), "image": media.image.model_dump(), "video": media.video.model_dump(),
            "limits": vars(media.limits)}  # fmt: skip


def limits_of(recipe: Recipe) -> Limits:
    return Limits(**recipe.limits.model_dump(exclude={"stuck_seconds"}))


def platform_words() -> dict[str, str]:
    """What decoded media and XLA's floats depend on: near ties in a codec flip with it, so units of two platforms are
    never mixed."""
    flags = ""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        flags = next((line.partition(":")[2] for line in file if line.startswith(("flags", "Features"))), "")
    return {
        # Pixels and samples come from these, codes from XLA.
        **{name: metadata.version(name) for name in ("jaxlib", "numpy", "pillow", "av", "soxr")},
        "backend": os.environ.get("JAX_PLATFORMS") or "cpu",
        "cpu": fingerprint_of(sorted(flags.split())),
    }


def worker_environment(work: Path) -> dict[str, str]:
    """Of the workers: JAX on the CPU unless the user says otherwise, and each shape compiled once for all of them."""
    return {
        "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS") or "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(work / "jax-cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


def num_workers(workers: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers < 0:
        raise UserError(f"--workers {workers}: give 1 or more, or 0 for one a core ({cores} here)")
    return workers or cores
