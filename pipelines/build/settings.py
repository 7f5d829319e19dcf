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
from pipelines.build.recipe import SOFT, ImageOptions, Recipe, VideoOptions
from pipelines.build.units import fingerprint_of
from pipelines.config import expand
from pipelines.ingest.media import Limits
from tokenizer.codecs import CodecFile, full_name, is_codec_file, load_codec


def codec_files(recipe: Recipe) -> tuple[CodecFile, ...]:
    """The text codec of the recipe where it is a file; UserError where it cannot be read."""
    name = recipe.codecs.text
    if not is_codec_file(name):
        return ()
    try:
        # Not resolved: files of a Hugging Face cache are links to names without suffix.
        file = CodecFile.of(Path(os.path.abspath(recipe.folder / expand(name, "codecs.text"))))
        file.load()  # what is no vocabulary is told before the work, not after
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"codecs.text: {error}") from None
    return (file,)


def codec_names(recipe: Recipe, load: LoadCodec, files: tuple[CodecFile, ...] = ()) -> dict[str, str]:
    """Kind -> name@revision of the recipe's codecs, without loading them."""
    names = {kind: getattr(recipe.codecs, kind) for kind in ("text", "image", "audio", "video")}
    names["video"] = names["video"] or names["image"]
    for file in files:
        names["text"] = file.codec
    if load is not load_codec:
        return names
    known = {file.codec for file in files} | {SOFT}
    for kind, name in names.items():
        try:
            names[kind] = name if name in known else full_name(name)
        except ValueError as error:
            raise UserError(f"codecs.{kind}: {error}") from None
    return names


# Keys of [limits] that hold for worker processes: they are no settings of a dataset, and decide only units in which
# something was left out for them.
_OF_WORKERS = {"stuck_seconds", "worker_bytes"}

# Keys that came after the first datasets: a recipe that leaves them at their defaults has the settings it always had.
# (Not `image.jpeg`, whose default changed the pixels.)
_LATER = {
    "image": ("multiple", "size", "min_pixels", "max_pixels"),
    "video": ("policy", "multiple", "size", "min_pixels", "max_pixels"),
}


def recipe_settings(recipe: Recipe, names: dict[str, str]) -> dict[str, Any]:
    """The keys of the recipe that decide every source's bytes."""
    words = recipe.model_dump(mode="json", include={"seed", "validation", "keep_media", "on_bad_part"})
    return {
        **words,
        **sizes_words(recipe.image, recipe.video),
        "audio": recipe.audio.model_dump(),
        "limits": recipe.limits.model_dump(exclude=_OF_WORKERS),
        "shards": recipe.shards.model_dump(include={"samples", "bytes"}),
        "codecs": dict(sorted(names.items())),
        **({"dedup": recipe.dedup.words()} if recipe.dedup.on else {}),
        **({"decontaminate": recipe.decontaminate.model_dump(mode="json")} if recipe.decontaminate.against else {}),
    }


def own_settings(settings: dict[str, Any], kinds: set[str]) -> dict[str, Any]:
    """Of `recipe_settings`, those that decide the bytes of a source which holds these kinds: a newer image codec, say,
    leaves the fingerprint of a source of texts as it was."""
    media = kinds - {"text"}
    # Frames are resized as images are.
    used = {"image": "image" in kinds or "video" in kinds, "video": "video" in kinds, "audio": "audio" in kinds}
    kept = {k: v for k, v in settings.items() if used.get(k, True) and (media or k != "keep_media")}
    return {**kept, "codecs": {kind: name for kind, name in settings["codecs"].items() if kind in kinds}}


def sizes_words(image: ImageOptions, video: VideoOptions) -> dict[str, Any]:
    """The tables [image] and [video], without later keys that are at their defaults."""
    return {
        name: {
            key: value
            for key, value in table.model_dump(mode="json").items()
            if key not in _LATER[name] or getattr(table, key) != type(table).model_fields[key].default
        }
        for name, table in (("image", image), ("video", video))
    }


def media_words(media: MediaSettings, kinds: set[str]) -> dict[str, Any]:
    """What decides the arrays of media of these kinds, for the fingerprint of a work unit."""
    tables, words = sizes_words(media.image, media.video), dict[str, Any]()
    if kinds & {"image", "video"}:  # frames are resized as images are
        words |= {"image": tables["image"], "multiple": media.resizing["image"].multiple}
    if "video" in kinds:
        words |= {"video": tables["video"], "video_multiple": media.resizing["video"].multiple}
    if "audio" in kinds:
        words["sample_rate_hz"] = media.sample_rate_hz
    return {**words, "limits": vars(media.limits)}


def limits_of(recipe: Recipe) -> Limits:
    return Limits(**recipe.limits.model_dump(exclude=_OF_WORKERS))


def worker_limits(recipe: Recipe) -> dict[str, float]:
    """The keys of [limits] that hold for worker processes."""
    return recipe.limits.model_dump(include=_OF_WORKERS)


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
