"""Is a text good? A linear classifier over hashed word unigrams and bigrams, as DCLM's (Li et al. 2024, section 4.4).

The probability is the logistic of the mean weight of a text's n-grams. fastText with two classes is the same function:
its table of vectors times the difference of its two output rows is one number an n-gram. Unlike DCLM's, words are in
lower case, numbers are one word, marks are words of their own, and a line end is a space.

Weights are stored as float16 of at most 64, multiples of 2^-24: a sum of up to eight million of them is exact in
float64, so the probability is the same in whatever order, on whatever machine.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.errors import UserError
from pipelines.config import nearest
from pipelines.curate.words import SPACELESS
from tokenizer import checkpoints

BUCKETS = 1 << 18  # 512 KiB of weights
MOST_WEIGHT = 64.0  # see above

_WEIGHTS = Path(__file__).parent / "weights"
_FORM = 1  # of words and hashes; raise it when the same text gives other n-grams
_RUN = re.compile(r"([^\w\s])\1{2,}")  # "-----" says no more than "--"
_WORD = re.compile(rf"{SPACELESS}|(?:(?!{SPACELESS})[^\W\d_])+|\d+|[^\w\s]|_")
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)  # of splitmix64


@dataclass(frozen=True, eq=False)
class Classifier:
    """A fitted classifier: `classifier(text)` is the probability that the text is good."""

    name: str  # "quality-en@1"
    weights: np.ndarray  # float32 [buckets]
    bias: float
    languages: tuple[str, ...] = ()  # of the texts it was fitted on; empty: it is asked of every text

    def __call__(self, text: str) -> float:
        """0.5 of a text without words."""
        return self.probability(ngrams(text, len(self.weights)))

    def probability(self, places: np.ndarray) -> float:
        """places: int64 [n], as `ngrams` gives them. Six digits: `exp` may differ in its last one between machines."""
        if not len(places):
            return 0.5
        score = self.bias + float(self.weights[places].sum(dtype=np.float64)) / len(places)
        return round(logistic(score), 6)


def logistic(score: float) -> float:
    return 1 / (1 + math.exp(-score)) if score > -700 else 0.0


def words_of(text: str) -> list[str]:
    """
    >>> words_of("Don't PANIC: 42 ways... 猫だ")
    ['don', "'", 't', 'panic', ':', '0', 'ways', '.', '.', '猫', 'だ']
    """
    found = _WORD.findall(_RUN.sub(r"\1\1", text.lower()))
    return ["0" if word.isdecimal() else word for word in found]


def ngrams(text: str, buckets: int) -> np.ndarray:
    """The buckets of a text's words, then of its pairs of neighbours: int64 [2n - 1]."""
    words = words_of(text)
    ones = np.fromiter((zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in words), np.uint64, len(words))
    pairs = (ones[:-1] << np.uint64(32)) | ones[1:]  # a word alone has zeros above
    return (_mixed(np.concatenate([ones, pairs])) % np.uint64(buckets)).astype(np.int64)


def _mixed(values: np.ndarray) -> np.ndarray:
    """uint64 [n] spread over all 64 bits (the finalizer of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))


def save_classifier(path: Path, weights: np.ndarray, bias: float, words: Mapping[str, Any]) -> None:
    """Write the file. words: its name, revision and languages; weights beyond MOST_WEIGHT are cut to it."""
    tree = {"weights": np.clip(weights, -MOST_WEIGHT, MOST_WEIGHT), "bias": np.array([bias])}
    checkpoints.save(path, tree, {"classifier": {**words, "form": _FORM, "buckets": len(weights)}})


def load_classifier(path: Path) -> Classifier:
    """The classifier in a file; UserError where there is none, or it is damaged or something else."""
    try:
        said = checkpoints.read_metadata(path).get("classifier")
        if not isinstance(said, dict):
            raise ValueError(f"{path} is no classifier; `mmdata fit classifier` writes one")
        if said["form"] != _FORM:
            raise ValueError(f"{path} is a classifier of form {said['form']}, this program knows {_FORM}; fit it again")
        params, _ = checkpoints.load(path, {"weights": (int(said["buckets"]),), "bias": (1,)})
        name = f"{said['name']}@{said['revision']}"
        return Classifier(name, params["weights"], float(params["bias"][0]), tuple(said["languages"]))
    except (KeyError, TypeError, OSError) as error:
        raise UserError(f"{path} is no whole classifier: {error!r}; fit it again") from None
    except ValueError as error:
        raise UserError(str(error)) from None


def shipped() -> dict[str, Path]:
    """name@revision -> file, in the order of their revisions."""
    found = [(path, path.stem.rpartition("-")) for path in _WEIGHTS.glob("*-*.safetensors")]
    found.sort(key=lambda one: (one[1][0], int(one[1][2])))
    return {f"{name}@{revision}": path for path, (name, _, revision) in found}


def shipped_file(name: str) -> Path:
    """The file of a shipped classifier: `quality-en@1`, or `quality-en` for the newest."""
    known = shipped()
    matching = [path for full, path in known.items() if name in (full, full.partition("@")[0])]
    if not matching:
        raise UserError(
            f"no shipped classifier {name!r}; {nearest(name, list(known))}. A fitted one is named by its file's path,"
            " a function as module:function"
        )
    return matching[-1]
