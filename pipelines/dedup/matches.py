"""Where a document meets an evaluation set: words that they share, a picture or video that looks alike, a sound that
goes alike.

A text meets an item when one n-gram of it is one of the item's; what is told of it is the longest run of such words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.dedup.evaluation import Index, Item
from pipelines.dedup.sign import SOUND_DTYPE, VIDEO_DTYPE, sound_row, video_row
from pipelines.dedup.sounds import NEAR_SHARE, AudioHash, distances
from pipelines.dedup.words import ngram_hashes, word_hashes, words_of
from pipelines.ingest.looks import NEAR_BITS, NEAR_SECONDS, VideoLook

# The fixed words of the ledger.
REASON = "{} of evaluation data"

_SHOWN = 40  # words of a run that are shown
_ALSO = "; also "  # between the benchmarks that a document meets; words that are shown hold no punctuation


@dataclass(frozen=True)
class Match:
    """One item that was met. `what`: the words, or how near it is."""

    kind: str  # text | image | audio | video
    item: Item
    what: str

    @property
    def reason(self) -> str:
        return REASON.format(self.kind)

    @property
    def detail(self) -> str:
        return f"{self.item.benchmark}: {self.item.uri}: {self.what}"


def told(matches: Sequence[Match]) -> str:
    """The detail of a ledger line: of each benchmark that is met its first match, and how many more there are."""
    return _ALSO.join(
        rows[0].detail + (f"; and {len(rows) - 1} more" if len(rows) > 1 else "")
        for rows in _by_benchmark(matches).values()
    )


def benchmarks_told(detail: str) -> list[str]:
    """The benchmarks that a detail of `told` names."""
    return [words.partition(": ")[0] for words in detail.split(_ALSO)]


def _by_benchmark(matches: Iterable[Match]) -> dict[str, list[Match]]:
    found: dict[str, list[Match]] = {}
    for match in matches:
        found.setdefault(match.item.benchmark, []).append(match)
    return found


def text_matches(text: str, index: Index) -> list[Match]:
    """The items that share an n-gram with a text, in their order, each with the longest run of shared words. The texts
    of a document are joined before: subtitles and pages break sentences into parts."""
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


def video_match(look: VideoLook, index: Index) -> list[Match]:
    """The video nearest to one of about its length, where their frames at eight times are near on average."""
    if not look.frames.any() or not len(index.videos):
        return []
    one, others = np.array([video_row(look)], VIDEO_DTYPE)[0], index.videos
    differing = np.bitwise_count(others["frames"] ^ one["frames"])  # [n, FRAMES]
    apart = np.abs(others["seconds"] - one["seconds"]) > NEAR_SECONDS * np.maximum(others["seconds"], one["seconds"])
    # Flat frames are alike in all videos: one that is not must be near too.
    seen = (others["frames"] != 0) & (one["frames"] != 0) & (differing <= NEAR_BITS)
    bits = np.where(apart | ~seen.any(1), 64.0, differing.mean(1))
    nearest = int(bits.argmin())
    if bits[nearest] > NEAR_BITS:
        return []
    item = index.items[int(index.of_videos[nearest])]
    return [Match("video", item, f"{bits[nearest]:.1f} of 64 bits of a frame differ")]
