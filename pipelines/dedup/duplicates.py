"""The dedup stage: signatures of all documents to clusters, and verdicts without the duplicates.

One unit over all sources (or one a source), since duplicates have no respect for sources: what it does is sorting and
joining numbers, little beside the decoding and hashing which workers did before it, and one process needs no order of
messages that could change the outcome. Signatures stay in memory maps; what is held is some tens of bytes a document
and, where sounds or videos are compared, 9 kB a sound and 68 bytes a video.

Each kind is clustered by itself: texts that share a band, pictures within some bits, and so on. Then a document is
written as the clusters of its parts, and documents that read the same are duplicates. Of those that stay, pictures
that many show can be left out (`image_uses`).

Sources come in the recipe's order, and nothing that is said of one depends on those after it: not what is in one
cluster (`clusters.py`), not which of a cluster is kept, not how many show a picture. So adding a source changes no
other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmdata.commit import sha256_of
from pipelines.build.ledger import write_dropped
from pipelines.build.stages import VERDICTS
from pipelines.build.units import Counts, Unit, read_lines, write_lines
from pipelines.build.worker import Call
from pipelines.dedup.clusters import Pairs, band_pairs, connected, connected_hashes, near_pairs
from pipelines.dedup.options import DedupOptions
from pipelines.dedup.sign import DOCUMENTS, KINDS, MEDIA, MIDDLES, MINHASH, POISONED, SOUNDS, URIS, VIDEOS
from pipelines.dedup.sounds import MIDDLE_SHARE, distances, middle_distances, sound_pairs
from pipelines.dedup.words import similarity
from pipelines.ingest.document import Dropped
from pipelines.ingest.looks import FRAMES, NEAR_SECONDS

# The fixed words of the ledger.
EXACT, SAME_TEXT, NEAR = "exact duplicate", "same text but for case and punctuation", "near duplicate of {}"
SHOWN, NO_PART = "picture of many documents", "no part left"

_TEXT, _IMAGE, _AUDIO, _VIDEO = range(4)
_SHARED_FRAME = 64  # further videos with an equal piece of a frame's hash that each is compared with


@dataclass(frozen=True)
class SignedUnit:
    """Where one unit's signatures and present verdicts lie."""

    source: str
    name: str
    signatures: Path
    verdicts: Path


@dataclass(frozen=True)
class DedupArgs:
    units: tuple[SignedUnit, ...]
    options: DedupOptions


def dedup(call: Call, unit: Unit, folder: Path) -> Counts:
    """Verdicts and ledger lines of the units that lose a document or a picture, or get another cluster, in
    <source>/<unit>/ of `folder`. Counts: `changed`: source -> unit -> sha256 of its verdicts; `dropped`: source ->
    reason -> number."""
    args: DedupArgs = unit.args
    call.at(unit.key)
    signed = Signed(args.units)
    media = _media_labels(signed, args.options, call)
    groups = _groups(signed, media, args.options, call)
    duplicates = _duplicates(signed, groups, args.options)
    regrouped = _regrouped(signed, groups) if args.options.near == "group" else {}
    shown = _shown_often(signed, media, duplicates, args.options.image_uses)
    uris = signed.uris(set(duplicates.values()))
    changed: dict[str, dict[str, str]] = {}
    counts: dict[str, dict[str, int]] = {}
    for i, part in enumerate(args.units):
        call.at(f"{part.source}/{part.name}")
        rows = range(signed.starts[i], signed.starts[i + 1])
        poisoned = {row: Dropped(**line) for row, line in read_lines(part.signatures / POISONED)}
        if not poisoned and not any(row in duplicates or row in regrouped or row in shown for row in rows):
            continue
        into = folder / part.source / part.name
        into.mkdir(parents=True)
        lost = {row - rows.start: _why(signed, row, duplicates[row], uris, part) for row in rows if row in duplicates}
        new = {row - rows.start: regrouped[row] for row in rows if row in regrouped}
        without = {row - rows.start: shown[row] for row in rows if row in shown}
        for reason, count in _write(part, into, poisoned, lost, new, without, args.options.image_uses).items():
            of_source = counts.setdefault(part.source, {})
            of_source[reason] = of_source.get(reason, 0) + count
        changed.setdefault(part.source, {})[part.name] = sha256_of(into / VERDICTS)
    return {"documents": signed.num, "duplicates": len(duplicates), "changed": changed, "dropped": counts}


class Signed:
    """The signatures of all units, one after the other: a document is a row."""

    def __init__(self, units: tuple[SignedUnit, ...]) -> None:
        self.units = units
        parts = [np.load(u.signatures / DOCUMENTS) for u in units]
        self.documents = np.concatenate(parts)
        self.starts = np.cumsum([0, *map(len, parts)]).tolist()
        self.num = len(self.documents)
        # Where each source's rows end.
        after = [u.source for u in units[1:]] + [""]
        self.ends = [end for unit, then, end in zip(units, after, self.starts[1:]) if unit.source != then]
        self.poisoned = [
            self.starts[i] + row for i, unit in enumerate(units) for row, _ in read_lines(unit.signatures / POISONED)
        ]
        self.minhash = [np.load(path, mmap_mode="r") for u in units if (path := u.signatures / MINHASH).exists()]
        self.sounds, sound_starts = self._joined(SOUNDS)
        self.middles, _ = self._joined(MIDDLES)
        self.videos, video_starts = self._joined(VIDEOS)
        media = [np.load(u.signatures / MEDIA) for u in units]
        for i, part in enumerate(media):
            part["document"] += self.starts[i]
            part["print"][part["kind"] == _AUDIO] += np.uint64(sound_starts[i])
            part["print"][part["kind"] == _VIDEO] += np.uint64(video_starts[i])
        self.media = np.concatenate(media)
        # In the order of documents, so a document's are a run.
        self.first_medium = np.searchsorted(self.media["document"], np.arange(self.num + 1))

    def source_of(self, rows: np.ndarray) -> np.ndarray:  # int64 [n]
        """The number of the source of each row."""
        return np.searchsorted(self.ends, rows, side="right")

    def media_of(self, row: int) -> np.ndarray:  # MEDIA_DTYPE [n]
        return self.media[self.first_medium[row] : self.first_medium[row + 1]]

    def signature(self, row: int) -> np.ndarray:  # uint32 [112]
        unit = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.minhash[unit][row - self.starts[unit]]

    def uris(self, rows: set[int]) -> dict[int, str]:
        """Of some rows the source and uri of their documents."""
        found: dict[int, str] = {}
        for i, unit in enumerate(self.units):
            wanted = {row - self.starts[i] for row in rows if self.starts[i] <= row < self.starts[i + 1]}
            if wanted:
                lines = enumerate(read_lines(unit.signatures / URIS))
                found |= {n + self.starts[i]: f"{unit.source}/{uri}" for n, uri in lines if n in wanted}
        return found

    def _joined(self, name: str) -> tuple[np.ndarray, list[int]]:
        parts = [np.load(u.signatures / name) for u in self.units]
        return np.concatenate(parts), np.cumsum([0, *map(len, parts)]).tolist()


def _groups(signed: Signed, media: np.ndarray, options: DedupOptions, call: Call) -> np.ndarray:  # int64 [num]
    """Of each document the smallest row of its cluster; `media`: the cluster of each medium."""
    texts = _text_labels(signed, options, call)
    keys = np.zeros((signed.num, 3), np.uint64)
    keys[:, 0] = texts
    keys[signed.poisoned, 2] = np.add(signed.poisoned, 1)  # their words are not known: each is alone
    for row in np.flatnonzero(np.diff(signed.first_medium)):
        begin, end = signed.first_medium[row], signed.first_medium[row + 1]
        words = signed.media["kind"][begin:end].tobytes() + media[begin:end].tobytes()
        keys[row, 1] = int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "little") | 1
    if options.exact == "keep" and not options.near_kinds:
        return np.arange(signed.num)
    return _same(keys)


def _text_labels(
    signed: Signed, options: DedupOptions, call: Call
) -> np.ndarray:  # int64 [num]; documents without words: the last
    words = np.asarray(signed.documents["text"].any(1))
    if options.text == "minhash":
        labels = connected(signed.num, band_pairs(signed.minhash, words), lambda: call.at("pairs"), signed.ends)
    else:
        labels = _same(signed.documents["text" if options.exact == "drop" else "bytes"])
    return np.where(words, labels, signed.num)


def _media_labels(signed: Signed, options: DedupOptions, call: Call) -> np.ndarray:  # int64 [media]
    """The cluster of each medium. Those without a fingerprint are told by their bytes, those not read are alone."""
    media = signed.media
    num = len(media)
    labels = np.where(media["read"], _same(media["digest"]), np.arange(num))
    for kind in (_IMAGE, _AUDIO, _VIDEO):
        rows = np.flatnonzero((media["kind"] == kind) & media["printed"])
        if KINDS[kind] in options.near_kinds and len(rows):
            call.at(KINDS[kind])
            ends = np.searchsorted(media["document"][rows], signed.ends).tolist()
            labels[rows] = num + rows[_near(signed, kind, media["print"][rows], ends, options, call)]
    return labels


def _near(
    signed: Signed, kind: int, prints: np.ndarray, ends: list[int], options: DedupOptions, call: Call
) -> np.ndarray:  # int64 [prints]
    """Of each print of a kind the smallest one that it is connected with; `ends`: of the sources."""

    def alive() -> None:
        call.at(f"pairs of {KINDS[kind]}")

    if kind == _IMAGE:
        return connected_hashes(prints, options.image_bits, alive, ends)
    if kind == _AUDIO:
        pairs = _near_sounds(signed.sounds[prints], signed.middles[prints], options.audio_share)
    else:
        pairs = _near_videos(signed.videos[prints], options.image_bits)
    return connected(len(prints), pairs, alive, ends)


def _near_sounds(sounds: np.ndarray, middles: np.ndarray, share: float) -> Iterator[Pairs]:
    """Pairs that begin alike and go on alike: what many recordings begin with does not make one of them."""
    for pairs in sound_pairs(sounds["bits"], sounds["frames"], sounds["seconds"], share):
        near = middle_distances(middles, pairs) <= MIDDLE_SHARE
        yield pairs[0][near], pairs[1][near]


def _near_videos(videos: np.ndarray, bits: int) -> Iterator[Pairs]:
    """Pairs whose frames differ by at most `bits` on average: then some frame does."""
    frames, seconds = videos["frames"], videos["seconds"]
    for i in range(FRAMES):
        rows = np.flatnonzero(frames[:, i])
        for one, other in near_pairs(frames[rows, i], bits, _SHARED_FRAME):
            pairs: Pairs = rows[one], rows[other]
            near = video_bits(frames, pairs) <= bits
            near &= np.abs(np.subtract(*(seconds[p] for p in pairs))) <= NEAR_SECONDS * np.maximum(
                *(seconds[p] for p in pairs)
            )
            yield pairs[0][near], pairs[1][near]


def video_bits(frames: np.ndarray, pairs: Pairs) -> np.ndarray:  # float64 [pairs]
    """Bits of 64 that differ between two videos' frames, on average."""
    return np.bitwise_count(frames[pairs[0]] ^ frames[pairs[1]]).mean(1)


def _same(values: np.ndarray) -> np.ndarray:  # [n, k] -> int64 [n]
    """The smallest row with the same values."""
    if not len(values):
        return np.zeros(0, np.int64)
    whole = np.ascontiguousarray(values).view(np.dtype((np.void, values.dtype.itemsize * values.shape[1]))).ravel()
    _, first, places = np.unique(whole, return_index=True, return_inverse=True)
    return first[places]


def _duplicates(signed: Signed, groups: np.ndarray, options: DedupOptions) -> dict[int, int]:
    """Row of each document that goes -> the row that is kept in its stead."""
    if options.exact == "keep" and options.near == "group":
        return {}
    return _kept_of(signed, groups if options.near == "drop" else _exact(signed, groups))


def _shown_often(
    signed: Signed, labels: np.ndarray, gone: dict[int, int], most: int
) -> dict[int, list[tuple[int, int]]]:
    """Row of a document that stays -> (place, documents that stay and show it) of each picture that more than `most`
    show, in its own source and those before it; `labels`: the cluster of each medium."""
    if not most:
        return {}
    media = signed.media
    stays = ~np.isin(media["document"], np.fromiter(gone, np.int64, len(gone)))
    rows = np.flatnonzero(stays & (media["kind"] == _IMAGE))
    ends = np.array(signed.ends)[signed.source_of(media["document"][rows])]
    begin = labels[rows] * (signed.num + 1)
    shown = np.unique(begin + media["document"][rows])  # a document counts once
    uses = np.searchsorted(shown, begin + ends) - np.searchsorted(shown, begin)
    found: dict[int, list[tuple[int, int]]] = {}
    for i in np.flatnonzero(uses > most):
        medium = media[rows[i]]
        found.setdefault(int(medium["document"]), []).append((int(medium["place"]), int(uses[i])))
    return found


def _exact(signed: Signed, groups: np.ndarray) -> np.ndarray:
    """Inside each group, those whose words and media are the same."""
    media = np.where(signed.media["read"], _same(signed.media["digest"]), np.arange(len(signed.media)))
    keys = np.zeros((signed.num, 3), np.uint64)
    keys[:, 0], keys[:, 1] = groups, _same(signed.documents["text"])
    for row in np.flatnonzero(np.diff(signed.first_medium)):
        begin, end = signed.first_medium[row], signed.first_medium[row + 1]
        keys[row, 2] = int.from_bytes(hashlib.blake2b(media[begin:end].tobytes(), digest_size=8).digest(), "little")
    return _same(keys)


def _kept_of(signed: Signed, groups: np.ndarray) -> dict[int, int]:
    """Of every row but the best of its group, that best: of the first source, the longest text, the largest media, the
    smallest id."""
    documents = signed.documents
    found: dict[int, int] = {}
    for rows in _members(groups):
        those, sources = documents[rows], signed.source_of(rows)
        ranked = sorted(
            range(len(rows)),
            key=lambda i: (
                sources[i],
                -int(those["chars"][i]),
                -int(those["size"][i]),
                bytes(those["id"][i]),
                i,
            ),
        )
        found |= {int(rows[i]): int(rows[ranked[0]]) for i in ranked[1:]}
    return found


def _members(groups: np.ndarray) -> list[np.ndarray]:
    """Rows of the groups of more than one."""
    several = np.flatnonzero(np.bincount(groups, minlength=1)[groups] > 1)
    order = several[np.argsort(groups[several], kind="stable")]
    return [part for part in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1) if len(part)]


def _regrouped(signed: Signed, groups: np.ndarray) -> dict[int, str]:
    """Row -> the cluster that it gets, where its group is of several: that of the best of them."""
    best = _kept_of(signed, groups)
    clusters = signed.documents["cluster"]
    words = {row: bytes(clusters[kept]).hex() for row, kept in best.items()}
    return {row: word for row, word in words.items() if word != bytes(clusters[row]).hex()}


def _why(signed: Signed, row: int, kept: int, uris: dict[int, str], part: SignedUnit) -> tuple[str, str]:
    """(reason, detail) of a document that goes: what it is near, and how near."""
    gone, stays = signed.documents[row], signed.documents[kept]
    name = f"{uris[kept]} (document {bytes(stays['id']).hex()})"
    if bytes(gone["cluster"]) == bytes(stays["cluster"]):
        return EXACT, f"kept {name}"
    how, reason = [], SAME_TEXT
    if bytes(gone["text"]) != bytes(stays["text"]):
        reason = NEAR.format("text")
        how.append(f"{similarity(signed.signature(row), signed.signature(kept)):.2f} of the 5-grams are shared")
    for one, other in zip(signed.media_of(row), signed.media_of(kept)):
        if bytes(one["digest"]) != bytes(other["digest"]):
            reason = NEAR.format(KINDS[one["kind"]])
            how.append(_difference(signed, one, other))
    return reason, f"kept {name}" + "".join(f"; {words}" for words in how)


def _difference(signed: Signed, one: np.void, other: np.void) -> str:
    if one["kind"] == _IMAGE:
        return f"{int(one['print'] ^ other['print']).bit_count()} of 64 bits differ"
    pair = np.array([one["print"]], np.int64), np.array([other["print"]], np.int64)
    if one["kind"] == _AUDIO:
        sounds = signed.sounds
        share = distances(sounds["bits"], sounds["frames"], sounds["seconds"], pair)[0]
        return f"{share:.2f} of the sound's bits differ"
    return f"{video_bits(signed.videos['frames'], pair)[0]:.1f} of 64 bits of a frame differ"


def _write(
    part: SignedUnit,
    into: Path,
    poisoned: dict[int, Dropped],
    lost: dict[int, tuple[str, str]],
    new: dict[int, str],
    without: dict[int, list[tuple[int, int]]],
    most: int,
) -> dict[str, int]:
    """The unit's verdicts without those poisoned and lost, by their row, with new clusters, and `without` pictures;
    counts by reason."""
    rows = list(read_lines(part.verdicts / VERDICTS))
    for row, cluster in new.items():
        rows[row][1] = cluster
    why: dict[int, list[tuple[str, str]]] = {row: [words] for row, words in lost.items()}
    for row, pictures in without.items():
        id, cluster, digests = rows[row]
        places = [place for place, _ in pictures]
        why[row] = [(SHOWN, f"part {place + 1}: {uses} documents show it, at most {most}") for place, uses in pictures]
        rows[row] = [id, cluster, [d for place, d in enumerate(digests) if place not in places], places]
        if len(places) == len(digests):
            why[row].append((NO_PART, f"{len(places)} left out"))
    gone = {*poisoned, *(row for row, words in why.items() if words[-1][0] != SHOWN)}
    write_lines(into / VERDICTS, [words for row, words in enumerate(rows) if row not in gone])
    uris = list(read_lines(part.signatures / URIS))
    lines = (Dropped(part.source, uris[row], "dedup", *words) for row in sorted(why) for words in why[row])
    return write_dropped(into, [*poisoned.values(), *lines])
