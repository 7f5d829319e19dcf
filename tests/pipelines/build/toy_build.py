"""Toy codecs, media and recipes for the tests of the build; workers import this module too."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.build.recipe import Recipe, parse_recipe
from pipelines.build.worker import Call, most_held
from pipelines.ingest.document import Document, Dropped
from pipelines.ingest.media import Limits
from pipelines.ingest.source import Input, Source
from pipelines.ingest.sources import open_source
from tokenizer.codec import Codes, Shape
from tokenizer.codecs import load_codec

KILLER = (255, 0, 255)  # the colour of a picture that kills whoever encodes it
REFUSED = (0, 255, 255)  # and of one that the codec cannot encode
HUNGRY = (255, 255, 1)  # of one for which it takes all memory there is
STUCK = (1, 255, 255)  # and of one that it never comes back from
LARGE = (255, 254, 255)  # and of one for which it holds a gigabyte for a second


class ToyText:
    """UTF-8 bytes; loses nothing but lone surrogates, which it refuses."""

    name, revision, kind, fingerprint, codebooks, exact = "toy-text", 1, "text", "t", (256,), True

    def shape(self, size: int) -> Shape:
        return Shape(size, 1)

    def encode(self, medium: str) -> Codes:
        time.sleep(float(os.environ.get("TOY_SLEEP", "0")))
        values = np.frombuffer(medium.encode(), np.uint8).astype(np.int32).reshape(-1, 1)
        return Codes(values, Shape(len(values), 1))

    def encode_batch(self, media: list[str]) -> list[Codes]:
        return [self.encode(m) for m in media]

    def decode(self, codes: Codes) -> str:
        return codes.codes.astype(np.uint8).tobytes().decode(errors="replace")  # as `Text` does: a model's samples


class ToyImage:
    """The mean gray of each 16x16 square."""

    name, revision, kind, fingerprint, codebooks, exact = "toy-image", 1, "image", "i", (256,), False

    def shape(self, size: tuple[int, int]) -> Shape:
        return Shape(size[0] // 16 * (size[1] // 16), 1, 1, size[0] // 16, size[1] // 16)

    def encode(self, medium: np.ndarray) -> Codes:
        if tuple(medium[0, 0]) == KILLER:
            os.kill(os.getpid(), signal.SIGKILL)
        if tuple(medium[0, 0]) == REFUSED:
            raise ValueError("not this colour")
        if tuple(medium[0, 0]) == HUNGRY:
            eat()
        if tuple(medium[0, 0]) == STUCK:
            time.sleep(1000)
        if tuple(medium[0, 0]) == LARGE:
            held = np.ones(1 << 30, np.uint8)
            time.sleep(held[0])
        shape = self.shape(medium.shape[:2])
        means = medium.reshape(shape.h, 16, shape.w, 16, 3).mean((1, 3, 4))
        return Codes(means.astype(np.int32).reshape(-1, 1), shape)

    def encode_batch(self, media: list[np.ndarray]) -> list[Codes]:
        return [self.encode(m) for m in media]

    def decode(self, codes: Codes) -> np.ndarray:
        grid = codes.codes.reshape(codes.shape.h, codes.shape.w).astype(np.uint8)
        return np.repeat(np.repeat(np.repeat(grid[..., None], 3, 2), 16, 0), 16, 1)


class ToyAudio:
    """One code for 160 samples: how loud they are."""

    name, revision, kind, fingerprint, codebooks, exact = "toy-audio", 1, "audio", "a", (16,), False
    sample_rate_hz, rate = 16_000, 100.0

    def shape(self, size: int) -> Shape:
        return Shape(-(-size // 160), 1, -(-size // 160), rate=100.0)

    def encode(self, medium: np.ndarray) -> Codes:
        shape = self.shape(len(medium))
        padded = np.pad(np.abs(medium), (0, shape.T * 160 - len(medium))).reshape(-1, 160)
        return Codes(np.minimum(padded.mean(1) * 16, 15).astype(np.int32).reshape(-1, 1), shape)

    def encode_batch(self, media: list[np.ndarray]) -> list[Codes]:
        return [self.encode(m) for m in media]

    def decode(self, codes: Codes) -> np.ndarray:
        return np.repeat(codes.codes[:, 0].astype(np.float32) / 16, 160)


CODECS = {"toy-text@1": ToyText, "toy-image@1": ToyImage, "toy-audio@1": ToyAudio}


def load_toy(name: str) -> object:
    return CODECS[name]()


def load_mixed(name: str) -> object:
    """Toy codecs of media; the shipped ones of text."""
    return CODECS[name]() if name in CODECS else load_codec(name)


def paint(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (64, 64)) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def hum(path: Path, seconds: float = 0.5) -> None:
    import wave

    path.parent.mkdir(parents=True, exist_ok=True)
    sound = (np.sin(np.arange(int(16_000 * seconds)) / 9) * 9000).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(sound.tobytes())


class DeadlySource:
    """A source whose reader dies of every file named `deadly`, as one in C may."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def read(self, item: Input) -> Iterator[Document | Dropped]:
        if "deadly" in item.path:
            os.kill(os.getpid(), signal.SIGSEGV)
        return self._source.read(item)


def open_deadly(name: str, format: str, path: Path, options: dict[str, Any], limits: Limits) -> Any:
    return DeadlySource(open_source(name, format, path, options, limits))


def make_media(root: Path, texts: int = 30, pictures: int = 12) -> None:
    """Texts, captioned pictures, a broken picture and sounds with transcripts under `root`."""
    for i in range(texts):
        path = root / "text" / f"{i % 3}" / f"{i:03d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"This is text {i}. It has two sentences.\n" * (1 + i % 4), "utf-8")
    for i in range(pictures):
        paint(root / "pictures" / f"{i:02d}.png", (i * 9, 200 - i * 5, 40), (64 + i % 3 * 40, 64))
        (root / "pictures" / f"{i:02d}.txt").write_text(f"picture {i}", "utf-8")
    (root / "pictures" / "broken.png").write_bytes(b"\x89PNG no picture")
    (root / "pictures" / "broken.txt").write_text("a caption without a picture", "utf-8")
    for i in range(3):
        hum(root / "speech" / f"{i}.wav", 0.3 + i / 10)
        (root / "speech" / f"{i}.txt").write_text(f"hum {i}", "utf-8")


def toy_recipe(root: Path, **changes: object) -> Recipe:
    """A recipe over `make_media`, in many small units and shards."""
    table = {
        "validation": 0.2,
        "codecs": {"text": "toy-text@1", "image": "toy-image@1", "audio": "toy-audio@1"},
        "image": {"tokens": 16},
        "shards": {"samples": 10, "unit_inputs": 4},
        "source": [
            {"name": "text", "format": "text", "path": "text"},
            {"name": "pictures", "format": "captions", "path": "pictures"},
            {"name": "speech", "format": "speech", "path": "speech"},
        ],
    }
    return parse_recipe({**table, **changes}, root)  # type: ignore[dict-item]


def tree(out: Path) -> dict[str, bytes]:
    """Every file that a build leaves, but for its work folder and the reports, which hold times."""
    return {
        str(p.relative_to(out)): p.read_bytes()
        for p in sorted(out.rglob("*"))
        if p.is_file() and ".work" not in p.relative_to(out).parts and p.name not in ("report.json", "report.html")
    }


def eat(most: int = 4 << 30) -> None:
    """Memory that is used, not only asked for, at some 800 MB a second; 4 GiB show that nobody stopped it."""
    held = []
    for _ in range(most >> 23):
        held.append(np.ones(8 << 20, np.uint8))
        time.sleep(0.01)
    raise AssertionError(f"no limit stopped {len(held)} times 8 MiB")


# Unit functions for the executor's own tests.


def double(call: Call) -> int:
    return 2 * call.args


def die_once(call: Call) -> str:
    """Kills its worker the first time, as the out-of-memory killer would."""
    flag, value = call.args
    if not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return str(value)


def steps(call: Call) -> list[str]:
    """Takes the steps in order; "bad..." crashes the process, "hang..." never comes back, "eat..." has no end."""
    done = []
    for step in call.args:
        if step in call.skip:
            continue
        call.at(step)
        if step.startswith("bad"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if step.startswith("hang"):
            time.sleep(1000)
        if step.startswith("eat"):
            eat()
        if step.startswith("ask"):
            np.ones(1 << 55, np.uint8)
        done.append(step)
    return done


def killed_thrice(call: Call) -> list[str]:
    """Somebody else kills its worker three times, at its second step; that step does no harm."""
    file, *todo = call.args
    done = []
    for step in todo:
        if step in call.skip:
            continue
        call.at(step)
        if step == todo[1] and len(deaths := Path(file).read_text()) < 3:
            Path(file).write_text(deaths + "1")
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(step)
    return done


def slow_steps(call: Call) -> int:
    """Half a second each, of which the file says that they have begun; how many were not left out."""
    for step in range(call.args[1]):
        if str(step) not in call.skip:
            call.at(str(step))
            Path(call.args[0]).write_text(str(step))
            time.sleep(0.5)
    return call.args[1] - len(call.skip)


def supervise_slow_steps(folder: Path, stuck_s: float) -> None:
    import toy_build

    from pipelines.build.executor import LocalExecutor, Task

    with LocalExecutor(1, folder / "logs", stuck_s=stuck_s) as pool:
        task = Task("w", toy_build.slow_steps, (str(folder / "step"), 4), isolate=True)
        poison: list[str] = []
        found = pool.run([task], on_poison=lambda task, step, cause: poison.append(f"{step}: {cause}"))
        (folder / "found").write_text(f"{found['w']} {poison}")


def note_and_die(call: Call) -> None:
    """Says in a file that it runs; its one step kills it."""
    file, step = call.args
    with open(file, "a") as runs:
        runs.write("1")
    if step not in call.skip:
        call.at(step)
        os.kill(os.getpid(), signal.SIGSEGV)


def hold_the_gil(call: Call) -> None:
    """A minute in C, without letting another thread of this process run."""
    import ctypes

    Path(call.args).write_text(str(os.getpid()))
    ctypes.PyDLL(None).sleep(60)


def supervise_one_that_holds_the_gil(folder: Path) -> None:
    import toy_build

    from pipelines.build.executor import LocalExecutor, Task

    with LocalExecutor(1, folder / "logs") as pool:
        pool.run([Task("w", toy_build.hold_the_gil, str(folder / "pid"))])


def spike(call: Call) -> int:
    """Holds so many bytes for less time than passes between two looks at its memory."""
    return len(np.ones(call.args, np.uint8))


def most(call: Call) -> int:
    return most_held()


def die_always(call: Call) -> None:
    os._exit(3)


def kill_parent(call: Call) -> None:
    """What Ray does to the process of a task when a node is short of memory."""
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(1000)


def fail(call: Call) -> None:
    raise KeyError("our own bug")


def where(call: Call) -> tuple[int, list[int], list[str]]:
    """Process, cores, and heavy modules that came with the worker."""
    import sys

    cores = sorted(os.sched_getaffinity(0))
    return os.getpid(), cores, [m for m in ("jax", "numpy", "pydantic", "PIL", "av") if m in sys.modules]


if __name__ == "__main__":  # a build to be killed: python toy_build.py MEDIA OUT WORKERS
    import sys

    from mmdata.errors import RunError
    from pipelines.build.engine import build

    media, out, workers = sys.argv[1:4]
    import toy_build  # so that its functions are pickled by this name, not as __main__'s

    try:
        build(toy_recipe(Path(media)), Path(out), int(workers), progress=False, load=toy_build.load_toy)
    except RunError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
