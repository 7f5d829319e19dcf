"""CPU time by step: a codec's is not that of the threads which decode beside it, and waiting costs nothing."""

import threading
import time
from pathlib import Path

import pytest

from pipelines.build.engine import build
from pipelines.build.spent import Spent
from tests.pipelines.build.toy_build import load_toy, make_media, toy_recipe


def burn(seconds: float) -> None:
    """Use so much CPU time in this thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(1000))


@pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="threads have no CPU clocks here")
def test_what_decodes_beside_a_codec_is_not_the_codecs() -> None:
    spent = Spent()
    spent.begin()

    def decode() -> None:
        spent.join()
        ready.set()
        with spent.in_thread("decode image"):
            burn(0.3)
        decoded.set()
        over.wait()  # the threads of a unit live as long as there is something to decode

    ready, decoded, over = threading.Event(), threading.Event(), threading.Event()
    thread = threading.Thread(target=decode)
    thread.start()
    ready.wait()
    with spent.in_process("encode image"):
        inner = threading.Thread(target=burn, args=(0.1,))  # as the network's own threads
        inner.start()
        burn(0.1)
        time.sleep(0.1)
        inner.join()
        decoded.wait()
    over.set()
    thread.join()
    found = spent.seconds()
    assert 0.29 < found["decode image"] < 0.4
    assert 0.19 < found["encode image"] < 0.29  # 0.5 with the thread beside it, 0.3 with what was slept
    spent.begin()
    assert spent.seconds() == {}


def test_encode_says_where_its_time_went(tmp_path: Path) -> None:
    make_media(tmp_path, texts=3, pictures=3)
    report = build(toy_recipe(tmp_path), tmp_path / "out", 1, progress=False, load=load_toy)
    steps = {row.source: set(row.cpu_seconds) for row in report.stages if row.stage == "encode"}
    assert steps == {
        "text": {"encode text"},
        "pictures": {"encode text", "decode image", "encode image"},
        "speech": {"encode text", "decode audio", "encode audio"},
    }
    assert all(sum(row.cpu_seconds.values()) <= row.seconds for row in report.stages)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "decode audio" in page and "Of encode" in page
