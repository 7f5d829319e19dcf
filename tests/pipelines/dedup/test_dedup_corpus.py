"""On real media: what is found at once is what comparing all with all finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.dedup.clusters import connected_hashes
from pipelines.dedup.sign import SOUND_DTYPE, sound_row
from pipelines.dedup.sounds import NEAR_SHARE, SHIFTS, distances, sound_pairs
from pipelines.fit.exclude import audio_hash
from pipelines.ingest.files import AUDIO
from pipelines.ingest.looks import look_of
from pipelines.ingest.media import Limits


def test_no_near_pair_of_sounds_is_missed(corpus: Path) -> None:
    files = [path for path in sorted(corpus.rglob("*")) if path.suffix.lower() in AUDIO]
    hashed = [(path, found) for path in files if (found := audio_hash(path, SHIFTS)) is not None]
    rows = np.array([sound_row(found) for _, found in hashed], SOUND_DTYPE)
    columns = rows["bits"], rows["frames"], rows["seconds"]
    ends = np.triu_indices(len(rows), 1)
    near = distances(*columns, ends) <= NEAR_SHARE
    all_with_all = set(zip(ends[0][near].tolist(), ends[1][near].tolist()))
    found = {pair for a, b in sound_pairs(*columns, NEAR_SHARE) for pair in zip(a.tolist(), b.tolist())}
    assert found == all_with_all
    names = {(hashed[a][0].name, hashed[b][0].name) for a, b in found}
    assert ("Rear_Right.wav", "audio-channel-rear-right.oga") in names  # the same voice from two packages


def test_versions_of_a_picture_are_one_and_others_are_not(corpus: Path) -> None:
    files = sorted(path for path in (corpus / "made-images").iterdir() if path.name.startswith(("china", "astronaut")))
    looks = [look_of(path, Limits()).bits for path in files]
    labels = connected_hashes(np.array([look or 0 for look in looks], np.uint64), 5)
    of = {path.name: int(label) for path, label in zip(files, labels)}
    china = ("china.avif", "china.webp", "china_cmyk.jpg", "china_exif_orient3.jpg", "china_exif_orient6.jpg")
    assert len({of[name] for name in china}) == 1
    assert of["astronaut.bmp"] == of["astronaut_lzw.tif"] != of["china.webp"]
