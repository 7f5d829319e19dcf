"""How well an audio codec gives sound back: log-mel L1 of the codes alone and of the sound made from them, and STOI."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmdata.errors import UserError
from pipelines.fit.exclude import SOUNDS
from pipelines.fit.recordings import read_recording
from tokenizer.audio import log_mel
from tokenizer.codecs import load_codec


def evaluate_audio(codec_name: str, folder: Path, max_seconds: float = 4.0) -> dict[str, dict[str, float]]:
    """Figures on the recordings of a folder, the first `max_seconds` of each: a row a folder in it, and "all"."""
    if not folder.is_dir():
        raise UserError(f"no folder {folder}; name one with recordings")
    codec: Any = load_codec(codec_name)
    sounds: dict[str, list[np.ndarray]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SOUNDS):
        parts = path.relative_to(folder).parts
        sound = read_recording(path, codec.sample_rate_hz)
        if sound is not None and len(sound):
            cut = sound[: int(max_seconds * codec.sample_rate_hz)]
            sounds.setdefault(parts[0] if len(parts) > 1 else ".", []).append(cut)
    if not sounds:
        raise UserError(f"no recording in {folder} that opens; the endings read are {', '.join(sorted(SOUNDS))}")
    rows = {name: evaluate_recordings(codec, group) for name, group in sounds.items()}
    return {**rows, "all": evaluate_recordings(codec, [sound for group in sounds.values() for sound in group])}


def evaluate_recordings(codec: Any, sounds: Sequence[np.ndarray]) -> dict[str, float]:
    """{"clips", "seconds", "kbit_a_second", "log_mel_l1": nats, of the decoded frames, "sound_log_mel_l1": of the sound
    made from them, "stoi": where pystoi is installed}. sounds: float32 [n] at the codec's rate."""
    distances, heard, stoi = [], [], []
    for sound in sounds:
        codes = codec.encode(sound)
        frames = log_mel(sound)
        back = codec.decode(codes)
        heard.append(float(np.abs(log_mel(back) - frames).mean()))
        # A codec without frames of its own is measured by its sound alone.
        own = codec.decode_frames(codes) if hasattr(codec, "decode_frames") else log_mel(back)
        distances.append(float(np.abs(own - frames).mean()))
        if (score := _stoi(sound, back, codec.sample_rate_hz)) is not None:
            stoi.append(score)
    figures = {
        "clips": len(sounds),
        "seconds": round(sum(len(s) for s in sounds) / codec.sample_rate_hz, 1),
        "kbit_a_second": round(codec.rate * float(np.log2(codec.codebooks).sum()) / 1000, 3),
        "log_mel_l1": round(float(np.mean(distances)), 4) if distances else float("nan"),
        "sound_log_mel_l1": round(float(np.mean(heard)), 4) if heard else float("nan"),
    }
    return {**figures, "stoi": round(float(np.mean(stoi)), 4)} if stoi else figures


def _stoi(clean: np.ndarray, heard: np.ndarray, sample_rate_hz: int) -> float | None:
    """Short-time objective intelligibility (Taal et al. 2011); None without pystoi, or for clips too short for it."""
    try:
        from pystoi import stoi
    except ImportError:
        return None
    if len(clean) < sample_rate_hz:
        return None
    return float(stoi(clean, heard[: len(clean)], sample_rate_hz))
