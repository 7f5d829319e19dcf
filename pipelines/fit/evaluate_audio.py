"""How well audio codecs give sound back: log-mel L1 of codes and of sound, STOI, extended STOI and PESQ, by group.

A group is a folder in the folder that is measured on, or the column `group` of a list of clips (`benchmarks/eval.tsv`):
a tsv of `group, package, path, start`, whose files lie in ROOT/package/path. STOI and PESQ are measures of speech and
are left out for groups called music or sounds.
"""

from __future__ import annotations

import contextlib
import csv
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.errors import UserError
from pipelines.fit.exclude import SOUNDS
from pipelines.fit.heard import Coder, Heard, coder
from pipelines.fit.recordings import read_recording
from tokenizer.audio import SAMPLE_RATE_HZ, log_mel

Clips = dict[str, list[np.ndarray]]  # group -> sounds float32 [n] at 16 kHz
_NOT_SPEECH = frozenset({"music", "sounds"})
_TITLES = {
    "kbit_a_second": "kbit/s",
    "log_mel_l1": "L1 of frames",
    "sound_log_mel_l1": "L1 of sound",
    "stoi": "STOI",
    "estoi": "ESTOI",
    "pesq_wb": "PESQ-wb",
}
_TABLE_WIDTH = 120


def evaluate_audio(
    codecs: Sequence[str],
    folder: Path | None = None,
    clips: Path | None = None,
    max_seconds: float = 4.0,
    picture: Path | None = None,
) -> list[dict[str, Any]]:
    """A row of figures for each codec and group: on a folder of recordings, or on the clips of a list whose files lie
    in `folder`. `picture`: a PNG of spectrograms, an original of each group beside what each codec gives back."""
    sounds = read_clips(clips, folder, max_seconds) if clips else read_folder(folder, max_seconds)
    rows = []
    columns: dict[str, list[np.ndarray]] = {"original": [group[0] for group in sounds.values()]}
    for name in codecs:
        code = coder(name)
        for group, originals in sounds.items():
            rows.append({"codec": name, "group": group, **measure(code, originals, is_speech(group))})
        if picture:
            columns[name] = [code(group[0]).sound for group in sounds.values()]
    if picture:
        from pipelines.fit.spectrograms import draw

        draw(picture, list(sounds), columns)
    return rows


def read_folder(folder: Path | None, max_seconds: float) -> Clips:
    """The first seconds of every recording in a folder, grouped by the folder just below it."""
    if folder is None or not folder.is_dir():
        raise UserError(f"no folder {folder}; name one with recordings, or a list of clips with --clips")
    sounds: Clips = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SOUNDS):
        parts = path.relative_to(folder).parts
        sound = read_recording(path, SAMPLE_RATE_HZ)
        if sound is not None and len(sound):
            sounds.setdefault(parts[0] if len(parts) > 1 else ".", []).append(_cut(sound, 0.0, max_seconds))
    if not sounds:
        raise UserError(f"no recording in {folder} that opens; the endings read are {', '.join(sorted(SOUNDS))}")
    return sounds


def read_clips(clips: Path, root: Path | None, max_seconds: float) -> Clips:
    """The clips of a list; `root` holds each package unpacked under its name. Their sha256 is checked."""
    from pipelines.fit.exclude import digest

    if not clips.is_file():
        raise UserError(f"no list of clips {clips}; name a tsv such as benchmarks/eval.tsv")
    if root is None:
        raise UserError(f"{clips} lists files of packages: name the folder that holds them unpacked")
    sounds: Clips = {}
    with clips.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for row in rows:
        path = root / row["package"] / row["path"]
        if not path.is_file():
            raise UserError(f"{clips} lists {path}, which is not there; unpack {row['package']} below {root}")
        if digest(path) != row["sha256"]:
            raise UserError(f"{path} has other bytes than {clips} lists; it is of version {row.get('version', '?')}")
        sound = read_recording(path, SAMPLE_RATE_HZ)
        if sound is None:
            raise UserError(f"{path} does not open as a recording")
        sounds.setdefault(row["group"], []).append(_cut(sound, float(row["start"] or 0), max_seconds))
    return sounds


def measure(code: Coder, sounds: Sequence[np.ndarray], speech: bool = True) -> dict[str, float]:
    """Means over the sounds, float32 [n] at 16 kHz: `log_mel_l1` (nats) of the frames that the codes stand for, or of
    the sound where there are none, `sound_log_mel_l1` of the sound, and where it is speech `stoi`, `estoi`, `pesq_wb`
    as far as pystoi and pesq are installed (the extras `eval` and `pesq`) and know the clip."""
    rows = [_figures(sound, code(sound), speech) for sound in sounds]
    seconds = sum(map(len, sounds)) / SAMPLE_RATE_HZ
    bits = sum(row.pop("bits") for row in rows)
    figures: dict[str, float] = {"clips": len(sounds), "seconds": round(seconds, 1)}
    if np.isfinite(bits):
        figures["kbit_a_second"] = round(bits / seconds / 1000, 3)
    for name in dict.fromkeys(name for row in rows for name in row):
        figures[name] = round(float(np.mean([row[name] for row in rows if name in row])), 4)
    return figures


def is_speech(group: str) -> bool:
    """Whether measures of speech say something of a group."""
    return group not in _NOT_SPEECH


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table on the terminal, one row a codec and group."""
    from rich.console import Console
    from rich.table import Table

    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*(_TITLES.get(name, name) for name in names))
    for row in rows:
        table.add_row(*(_word(row.get(name)) for name in names))
    console = Console()
    Console(width=max(console.width, _TABLE_WIDTH)).print(table)  # a file would be cut at 80


def _word(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _cut(sound: np.ndarray, start: float, seconds: float) -> np.ndarray:
    first = int(start * SAMPLE_RATE_HZ)
    return sound[first : first + int(seconds * SAMPLE_RATE_HZ)]


def _figures(sound: np.ndarray, heard: Heard, speech: bool) -> dict[str, float]:
    frames, again = log_mel(sound), log_mel(heard.sound)
    own = again if heard.frames is None else heard.frames
    figures = {
        "bits": heard.bits,
        "log_mel_l1": float(np.abs(own - frames).mean()),
        "sound_log_mel_l1": float(np.abs(again - frames).mean()),
    }
    return {**figures, **(_speech_figures(sound, heard.sound) if speech else {})}


def _speech_figures(clean: np.ndarray, heard: np.ndarray) -> dict[str, float]:
    """Short-time objective intelligibility (Taal et al. 2011), its extension (Jensen and Taal 2016), and wide-band PESQ
    (ITU-T P.862.2); none for clips of less than a second, which are too short for them."""
    figures: dict[str, float] = {}
    if len(clean) < SAMPLE_RATE_HZ:
        return figures
    try:
        from pystoi import stoi
    except ImportError:
        return figures
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of clips with too little speech: counted as 1e-5 by pystoi
        figures["stoi"] = float(stoi(clean, heard, SAMPLE_RATE_HZ))
        figures["estoi"] = float(stoi(clean, heard, SAMPLE_RATE_HZ, extended=True))
    try:
        from pesq import NoUtterancesError, pesq
    except ImportError:
        return figures
    with contextlib.suppress(NoUtterancesError):  # silence has no speech to rate
        figures["pesq_wb"] = float(pesq(SAMPLE_RATE_HZ, clean, heard, "wb"))
    return figures
