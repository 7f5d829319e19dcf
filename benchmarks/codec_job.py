"""One codec on one core: `python benchmarks/codec_job.py JSON`, one line of JSON back (see codecs.py)."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from jobs import answer

os.environ.setdefault("JAX_PLATFORMS", "cpu")

Call = tuple[Any, tuple[Any, ...]]  # a compiled function and its arguments


def run(job: dict[str, Any]) -> dict[str, Any]:
    """{"units": of a round, "measured": {what: {"cpu": units a CPU second, "wall": units a second}}}"""
    os.sched_setaffinity(0, {job["core"]})  # before JAX counts the cores
    from tokenizer.codecs import load_codec

    codec: Any = load_codec(job["codec"])
    files = sorted(Path(job["files"]).iterdir())
    settings = encode_settings(codec, job["codec"], job["jpeg"])
    media = [decoded(codec, path, settings) for path in files]
    codes = codec.encode_batch(media)
    paths: dict[str, Callable[[], object]] = {
        "encode": partial(encode_stage, files, settings, Path(job["work"])),
        "decode": partial(decode_all, codec, codes),
    }
    for what, act in (("encode", lambda: codec.encode_batch(media)), ("decode", paths["decode"])):
        calls = network_calls(codec, act)
        if calls:
            paths[f"{what} network"] = partial(replay, calls)
    units = len(files) if codec.kind == "image" else sum(len(m) for m in media) / codec.sample_rate_hz
    return {"units": units, "measured": timed(paths, units, job["rounds"])}


def timed(paths: dict[str, Callable[[], object]], units: float, rounds: int) -> dict[str, dict[str, float]]:
    """Rates of each path: medians of rounds in which all take turns, after one that warms up."""
    taken: dict[str, list[tuple[float, float]]] = {what: [] for what in paths}
    for number in range(rounds + 1):
        for what, act in paths.items():
            cpu, wall = time.process_time(), time.perf_counter()
            act()
            if number:
                taken[what].append((time.process_time() - cpu, time.perf_counter() - wall))
    return {
        what: {
            "cpu": units / statistics.median(cpu for cpu, _ in pairs),
            "wall": units / statistics.median(wall for _, wall in pairs),
        }
        for what, pairs in taken.items()
    }


def encode_settings(codec: Any, name: str, jpeg: str) -> Any:
    """Those of a recipe that names this codec, whose pictures are resized to 256x256 pixels."""
    from pipelines.build import encode
    from pipelines.build.media import MediaSettings
    from pipelines.build.recipe import parse_recipe
    from pipelines.build.settings import limits_of
    from tokenizer.codecs import load_codec

    multiple = getattr(getattr(codec, "policy", None), "multiple", 0) or 16
    table = {
        "codecs": {codec.kind: name},
        "image": {"tokens": (256 // multiple) ** 2, "jpeg": jpeg},
        "source": [{"name": "files", "format": "captions", "path": "."}],
    }
    recipe = parse_recipe(table, Path())
    resizing = {kind: recipe.resizing(kind, multiple) for kind in ("image", "video")}
    rate = getattr(codec, "sample_rate_hz", 16_000)
    media = MediaSettings(recipe.image, recipe.video, rate, resizing, limits_of(recipe))
    return encode.EncodeSettings(((codec.kind, name),), media, "none", "drop_part", load_codec)


def decoded(codec: Any, path: Path, settings: Any) -> Any:
    """The array that a build would hand to the codec."""
    from pipelines.build.media import decode
    from pipelines.ingest.document import Part

    return decode(Part(codec.kind, path=path), settings.media).media[0]


def encode_stage(files: list[Path], settings: Any, work: Path) -> None:
    """The encode stage of a build on one unit, a document a file."""
    from pipelines.build.documents import DocumentWriter
    from pipelines.build.encode import EncodeArgs, encode
    from pipelines.build.stages import VERDICTS
    from pipelines.build.units import Unit, write_lines
    from pipelines.build.worker import Call
    from pipelines.ingest.document import Document, Part, document_id

    kind, root = settings.codecs[0][0], files[0].parent
    ids = [document_id("files", path.name) for path in files]
    if not (work / VERDICTS).exists():
        with DocumentWriter(work, root) as writer:
            for id, path in zip(ids, files, strict=True):
                writer.write(Document(id, "files", (Part(kind, path=path, uri=path.name),), path.name))
        write_lines(work / VERDICTS, [[id, id, [""]] for id in ids])
    args = EncodeArgs(work, work, work, root, settings)
    counts = encode(Call(args), Unit("encode", "files", "0", "", encode, work, args), work)
    if counts["samples"] != len(files):
        raise SystemExit(f"{counts['samples']} of {len(files)} files were encoded")


def decode_all(codec: Any, codes: list[Any]) -> None:
    if hasattr(codec, "decode_batch"):
        codec.decode_batch(codes)
    else:
        for each in codes:
            codec.decode(each)


def network_calls(codec: Any, act: Callable[[], object]) -> list[Call]:
    """What `act` calls of the codec's compiled functions, its arguments ready for them; [] of a codec without any."""
    import jax

    module: ModuleType = sys.modules[type(codec).__module__]
    compiled = getattr(module, "_functions", None)
    if compiled is None or not hasattr(codec, "params"):
        return []
    calls: list[Call] = []

    def noted(function: Any, *args: Any) -> Any:
        calls.append((function, args))
        return function(*args)

    module._functions = lambda *of: tuple(partial(noted, function) for function in compiled(*of))  # type: ignore[attr-defined]
    try:
        act()
    finally:
        module._functions = compiled  # type: ignore[attr-defined]
    ready = jax.device_put(codec.params)
    return [
        (function, tuple(ready if arg is codec.params else jax.device_put(arg) for arg in args))
        for function, args in calls
    ]


def replay(calls: list[Call]) -> None:
    """The calls, each waited for."""
    import jax

    for function, args in calls:
        jax.block_until_ready(function(*args))


if __name__ == "__main__":
    answer(run)
