"""Where a document meets an evaluation set: words that they share, a picture that looks alike, a sound that goes alike.

A text meets an item when one n-gram of it is one of the item's; what is told of it is the longest run of such words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipelines.dedup.evaluation import Index, Item
from pipelines.dedup.sign import SOUND_DTYPE, sound_row
from pipelines.dedup.sounds import NEAR_SHARE, AudioHash, distances
from pipelines.dedup.words import ngram_hashes, word_hashes, words_of
from pipelines.ingest.looks import NEAR_BITS

# The fixed words of the ledger.
REASON = "{} of evaluation data"

_SHOWN = 40  # words of a run that are shown


@dataclass(frozen=True)
class Match:
    """One item that was met. `what`: the words, or how near it is."""

    kind: str  # text | image | audio
    item: Item
    what: str

    @property
    def reason(self) -> str:
        return REASON.format(self.kind)

    @property
    def detail(self) -> str:
        return f"{self.item.benchmark}: {self.item.uri}: {self.what}"


def text_matches(text: str, index: Index) -> list[Match]:
    """The items that share an n-gram with a text, in their order, each with the longest run of shared words."""
    words = words_of(text)
    hashes = word_hashes(words)
    best: dict[int, tuple[int, int]] = {}  # item -> (words, begin)
    for n, grams in index.grams.items():
        for item, begin, end in _runs(ngram_hashes(hashes, n), grams):
            best[item] = max(best.get(item, (0, 0)), (end - begin + n - 1, begin))
    return [
        Match("text", index.items[item], f"{length} words: {_shown(words[begin : begin + length])!r}")
        for item, (length, begin) in sorted(best.items())
    ]


def _runs(hashes: np.ndarray, grams: tuple[np.ndarray, np.ndarray]) -> Iterator[tuple[int, int, int]]:
    """(item, begin, end) of each run of a text's n-grams that are an item's."""
    known, of_item = grams
    if not len(hashes) or not len(known):
        return
    places = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    items = np.where(known[places] == hashes, of_item[places], -1)
    begins = np.flatnonzero(np.diff(items, prepend=-2))
    for begin, end in zip(begins, [*begins[1:], len(items)]):
        if items[begin] >= 0:
            yield int(items[begin]), int(begin), int(end)


def _shown(words: list[str]) -> str:
    return " ".join(words[:_SHOWN]) + (" ..." if len(words) > _SHOWN else "")


def bytes_match(kind: str, sha256: str, index: Index) -> list[Match]:
    """The item whose file has these very bytes."""
    item = index.sha256.get(sha256)
    return [] if item is None else [Match(kind, index.items[item], "the same bytes")]


def look_match(bits: int | None, index: Index) -> list[Match]:
    """The picture nearest to a look, where it is near."""
    if bits is None or not len(index.looks):
        return []
    differing = np.bitwise_count(index.looks["hash"] ^ np.uint64(bits))
    nearest = int(differing.argmin())
    if differing[nearest] > NEAR_BITS:
        return []
    item = index.items[int(index.looks["item"][nearest])]
    return [Match("image", item, f"{differing[nearest]} of 64 bits differ")]


def sound_match(sound: AudioHash | None, index: Index) -> list[Match]:
    """The sound nearest to one (its bits at all shifts), where it is near."""
    if sound is None or not len(index.sounds):
        return []
    rows = np.concatenate([index.sounds, np.array([sound_row(sound)], SOUND_DTYPE)])
    pairs = np.arange(len(index.sounds)), np.full(len(index.sounds), len(index.sounds))
    shares = distances(rows["bits"], rows["frames"], rows["seconds"], pairs)
    nearest = int(shares.argmin())
    if shares[nearest] > NEAR_SHARE:
        return []
    return [Match("audio", index.items[int(index.of_sounds[nearest])], f"{shares[nearest]:.2f} of the bits differ")]
