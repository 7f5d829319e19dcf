"""What a library alone takes for files of a build: `python benchmarks/build_job.py JSON`, one line of JSON back.

A job of `build.py`: {"what", "codec", "folder", "most", "core"} to {"items", "seconds", "cpu_seconds"}, by the clock
and of the CPU, of at most `most` items, pinned to a core. The libraries are called as their own documentation shows,
with nothing of ours between; the network is the compiled forward pass of our codec on arrays that lie ready.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from jobs import answer

os.environ.setdefault("JAX_PLATFORMS", "cpu")

SIDE = 256
RATE_HZ = 16_000


def sentencepiece(codec: str, folder: Path, most: int) -> tuple[list[Any], Callable[[Any], object]]:
    import sentencepiece

    from tokenizer.codecs import load_codec

    library = sentencepiece.SentencePieceProcessor(model_proto=load_codec(codec).model)  # type: ignore[attr-defined]
    lines = (line for path in sorted((folder / "texts").iterdir()) for line in path.read_text("utf-8").splitlines())
    texts = [json.loads(line)["text"] for line in lines][:most]
    return texts, library.encode


def pillow(codec: str, folder: Path, most: int) -> tuple[list[Any], Callable[[Any], object]]:
    import numpy as np
    from PIL import Image

    def read(path: Path) -> object:
        with Image.open(path) as image:
            image.draft("RGB", (SIDE, SIDE))
            rgb = image.convert("RGB")
        return np.asarray(rgb.resize((SIDE, SIDE), Image.Resampling.LANCZOS))

    return sorted((folder / "pictures").iterdir())[:most], read


def pyav(codec: str, folder: Path, most: int) -> tuple[list[Any], Callable[[Any], object]]:
    import av
    import numpy as np

    def read(path: Path) -> object:
        resampler = av.AudioResampler("flt", "mono", RATE_HZ)
        with av.open(str(path)) as container:
            frames = [made for frame in container.decode(audio=0) for made in resampler.resample(frame)]
        return np.concatenate([frame.to_ndarray() for frame in [*frames, *resampler.resample(None)]], 1)

    return sorted((folder / "sounds").iterdir())[:most], read


def network(codec: str, folder: Path, most: int) -> tuple[list[Any], Callable[[Any], object]]:
    """The calls that the codec makes of its compiled encoder, batches as a build has them: an item is a call."""
    from codec_job import decoded, encode_settings, network_calls, replay

    from tokenizer.codecs import load_codec

    coder: Any = load_codec(codec)
    settings = encode_settings(coder, codec, "scaled")
    files = sorted((folder / ("pictures" if coder.kind == "image" else "sounds")).iterdir())[:most]
    media = [decoded(coder, path, settings) for path in files]
    calls = network_calls(coder, lambda: coder.encode_batch(media))
    return [calls] * len(files), lambda part: replay(part)


JOBS = {"sentencepiece": sentencepiece, "Pillow": pillow, "PyAV": pyav}


def run(job: dict[str, Any]) -> dict[str, Any]:
    os.sched_setaffinity(0, {job["core"]})
    items, act = JOBS.get(job["what"], network)(job["codec"], Path(job["folder"]), job["most"])
    one_go = items[:1] if job["what"] not in JOBS else items  # all calls of the network are one item
    clock, cpu = zip(*(timed(act, one_go) for _ in range(2)))  # the first also warms up
    return {"items": len(items), "seconds": min(clock), "cpu_seconds": min(cpu)}


def timed(act: Callable[[Any], object], items: Iterable[Any]) -> tuple[float, float]:
    """(seconds by the clock, CPU seconds of the process) of all items."""
    clock, cpu = time.perf_counter(), time.process_time()
    for item in items:
        act(item)
    return time.perf_counter() - clock, time.process_time() - cpu


if __name__ == "__main__":
    answer(run)
