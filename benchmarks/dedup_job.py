"""One run of dedup.py in a process of its own: JSON lines to the documents that would go. Ours, or datatrove's.

Ours are the units of a build, one after the other in this process: documents as the ingest stage leaves them and their
verdicts (not counted), then `sign` and `dedup`. datatrove's are its three steps up to the list of what to remove,
in `run` of each, without its executors.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

_UNIT = 4_000  # documents


def ours(texts: Path, work: Path) -> dict[str, Any]:
    from pipelines.build.documents import DocumentWriter
    from pipelines.build.stages import CurateArgs, curate
    from pipelines.build.units import Unit, run_unit
    from pipelines.build.worker import Call
    from pipelines.dedup.duplicates import DedupArgs, SignedUnit, dedup
    from pipelines.dedup.options import DedupOptions
    from pipelines.dedup.sign import SignArgs, sign
    from pipelines.ingest.document import Document, Part, document_id
    from pipelines.ingest.media import Limits

    lines = [json.loads(line)["text"] for line in texts.open(encoding="utf-8")]
    parts = []
    for number, begin in enumerate(range(0, len(lines), _UNIT)):
        folder = work / "ingest" / str(number)
        folder.mkdir(parents=True)
        with DocumentWriter(folder, texts.parent) as writer:
            for i in range(begin, min(begin + _UNIT, len(lines))):
                part = Part("text", text=lines[i], uri=str(i))
                writer.write(Document(document_id("texts", str(i)), "texts", (part,), uri=str(i)))
        curated = Unit(
            "curate", "texts", str(number), "", curate, work, CurateArgs(folder, texts.parent, Limits(), None)
        )
        run_unit(Call(curated))
        parts.append((folder, curated.folder))
    del lines
    clock = Clock()
    signed = []
    for number, (documents, verdicts) in enumerate(parts):
        args = SignArgs(documents, verdicts, verdicts, texts.parent, ("text",), Limits())
        unit = Unit("sign", "texts", str(number), "", sign, work, args)
        run_unit(Call(unit))
        signed.append(SignedUnit("texts", str(number), unit.folder, verdicts))
    clock.note("signatures")
    options = DedupOptions(exact="drop", text="minhash")
    marker = run_unit(Call(Unit("dedup", "all", "all", "", dedup, work, DedupArgs(tuple(signed), options))))
    clock.note("clusters")
    return clock.answer(marker["counts"]["duplicates"])


def datatrove(texts: Path, work: Path, white_space: bool) -> dict[str, Any]:
    import numpy as np
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.utils.word_tokenizers import WhitespaceTokenizer
    from loguru import logger

    logger.remove()
    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
    signature = MinhashDedupSignature(str(work / "signatures"), config)
    if white_space:
        signature.word_tokenizer = WhitespaceTokenizer()
    signature.word_tokenizer.word_tokenize("loads what it needs")
    clock = Clock()
    signature.run(JsonlReader(str(texts.parent)).run())
    clock.note("signatures")
    for bucket in range(14):
        MinhashDedupBuckets(str(work / "signatures"), str(work / "buckets"), config=config).run(None, bucket, 14)
    clock.note("buckets")
    MinhashDedupCluster(str(work / "buckets"), str(work / "remove"), config=config).run(None)
    clock.note("clusters")
    files = (work / "remove").rglob("*.remove")
    return clock.answer(sum(len(np.fromfile(path, np.uint32)) for path in files))


class Clock:
    """CPU seconds of this process, by stage."""

    def __init__(self) -> None:
        self.begun = self.last = time.process_time()
        self.stages: dict[str, float] = {}

    def note(self, stage: str) -> None:
        now = time.process_time()
        self.stages[stage], self.last = now - self.last, now

    def answer(self, dropped: int) -> dict[str, Any]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        return {"cpu_s": self.last - self.begun, "stages": self.stages, "dropped": dropped, "peak_mb": peak}


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    where = Path(job["texts"]), Path(job["work"])
    found = ours(*where) if job["system"] == "ours" else datatrove(*where, "white space" in job["system"])
    print(json.dumps(found))
