"""Training of a speech codec from a config file: recordings in, weights and card out (`mmdata fit audio`).

Two trainings follow one another, each resumable: the codes and their log-mel frames (`[[frames]]`), then the head that
makes sound of them (`[sound]`), see `pipelines.fit.speech`. Recordings stay in memory as int16 at 16 kHz.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mmdata.errors import UserError
from pipelines.config import NAME, check, expand, read_toml
from pipelines.fit.card import Card, Data, write_card
from pipelines.fit.crops import Recordings, to_int16
from pipelines.fit.evaluate_audio import is_speech, measure, read_clips
from pipelines.fit.exclude import SOUNDS, Exclusions, digest
from pipelines.fit.heard import coder
from pipelines.fit.kept_media import is_dataset, unpack_media
from pipelines.fit.recordings import read_recording
from pipelines.fit.speech import Material, StageConfig, train_frames, train_sound
from pipelines.fit.training import digest_of
from tokenizer.audio import HOP, SAMPLE_RATE_HZ
from tokenizer.codecs import load_codec
from tokenizer.nets import sound_head, speech_fsq
from tokenizer.speech import SpeechFsq, save

_LEAST = 3 * SAMPLE_RATE_HZ  # samples of a recording that validation uses
_VALIDATION = 6  # recordings of each set that say which weights are the best


class AudioDataConfig(BaseModel):
    """One set of recordings."""

    model_config = ConfigDict(extra="forbid")
    name: str
    path: str  # a folder, or a dataset with kept media; relative to the config file; ${VARIABLE} is expanded
    include: list[str] = ["**/*"]
    leave_out: list[str] = []  # of what `include` finds
    origin: str = ""
    licence: str
    weight: float = Field(1.0, gt=0)
    held_out: float = Field(0.0, ge=0, lt=1)  # share of the files, the last by name, that is for validation
    max_seconds: float = Field(60.0, gt=0)  # a longer recording is cut there


class ClipsConfig(BaseModel):
    """Clips that the card's figures are taken on, and nothing else."""

    model_config = ConfigDict(extra="forbid")
    list: str  # a tsv as benchmarks/eval.tsv, relative to the config file
    root: str  # the folder that holds the packages unpacked


class NetworkConfig(BaseModel):
    """Of the codes and their frames (`tokenizer.nets.speech_fsq`): the blocks by their dilations. With
    `correction_blocks` the encoder decodes its own codes and corrects them."""

    model_config = ConfigDict(extra="forbid")
    width: int = Field(default=speech_fsq.Config.width, ge=8, description="channels of encoder and decoder")
    encoder_blocks: list[int] = list(speech_fsq.Config.encoder_blocks)  # a dilation for each residual block
    decoder_blocks: list[int] = list(speech_fsq.Config.decoder_blocks)  # the same of the decoder
    correction_width: int = Field(
        default=speech_fsq.Config.correction_width, ge=8, description="channels of the network that corrects"
    )
    correction_blocks: list[int] = []  # its dilations; none: no correction


class AudioConfig(BaseModel):
    """The file given to `mmdata fit audio --config`."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(pattern=NAME)
    revision: int = Field(1, ge=1)
    licence: str
    summary: str = ""
    seed: int = Field(0, ge=0)
    notes: list[str] = []
    books: int = Field(1, ge=1)  # codebooks: codes a frame
    start: str = ""  # a codec whose weights are begun with, "speech-melfsq@2": of as many books or fewer
    clips: ClipsConfig | None = None
    network: NetworkConfig = NetworkConfig()
    frames: list[StageConfig] = Field(min_length=1)  # one goes on where the one before ended, at its own rate
    sound: StageConfig
    data: list[AudioDataConfig] = Field(min_length=1)


def fit_audio(config_path: Path, out: Path | None = None, exclude: Sequence[Path] = ()) -> dict[str, Any]:
    """Train the codec of the config file; write OUT/NAME-REVISION.safetensors with its card. Returns its figures.

    Left out of training: what matches `exclude` by bytes or by sound. OUT/training keeps the state, so that the same
    command goes on after a stop. OUT is runs/fit-NAME-REVISION where it is not given.
    """
    config = check(AudioConfig, read_toml(config_path), str(config_path))
    out = out or Path("runs") / f"fit-{config.name}-{config.revision}"
    before = _before(config.start)
    sets, held, reports = _read_sets(config, config_path, Exclusions.of(exclude, kinds=("audio",)), out / "media")
    validation = [sound for sounds in held.values() for sound in _spread(sounds, _VALIDATION)]
    identity = {
        **config.model_dump(include={"seed", "books", "start", "network"}),
        "sets": [[data.name, data.weight, data.held_out, data.max_seconds] for data in config.data],
        "training files": digest_of([file for data in reports for file in data.files]),
        "held-out files": digest_of([("", hashlib.sha256(sound.tobytes()).hexdigest()) for sound in validation]),
    }
    material = Material(sets, validation, config.seed, identity)
    network, head = _network(config), sound_head.HeadConfig()
    codes = train_frames(config.name, config.frames, network, material, out / "training", before)
    start = before.params["head"] if before else None
    sound = train_sound(
        config.name, config.sound, network, head, codes[-1].params, material, out / "training/sound", start
    )

    weights = out / f"{config.name}-{config.revision}.safetensors"
    save(weights, {**codes[-1].params, "head": sound.params}, f"{config.name}@{config.revision}", network, head)
    codec = SpeechFsq.load(config.name, config.revision, out)
    figures = {name: measure(coder(codec), sounds[:24]) for name, sounds in held.items() if sounds}
    if config.clips:
        clips = read_clips(
            config_path.parent / config.clips.list, _expanded(config.clips.root, config_path.parent, "clips"), 4.0
        )
        figures |= {f"clips: {name}": measure(coder(codec), sounds, is_speech(name)) for name, sounds in clips.items()}
    settings = {
        "seed": config.seed,
        "books": config.books,
        "start": config.start,
        "frames": [stage.model_dump() for stage in config.frames],
        "sound": config.sound.model_dump(),
        "network": asdict(network),
        "head": asdict(head),
        "weights_of_sets": {data.name: data.weight for data in config.data},
        "seconds": {"frames": round(sum(result.seconds for result in codes)), "sound": round(sound.seconds)},
    }
    write_card(weights, _card(config, config_path, exclude, reports, settings, figures))
    return figures


def _network(config: AudioConfig) -> speech_fsq.Config:
    network = config.network
    return speech_fsq.Config(
        books=config.books,
        width=network.width,
        encoder_blocks=tuple(network.encoder_blocks),
        decoder_blocks=tuple(network.decoder_blocks),
        correction_width=network.correction_width,
        correction_blocks=tuple(network.correction_blocks),
    )


def _before(start: str) -> SpeechFsq | None:
    if not start:
        return None
    codec = load_codec(start)
    if not isinstance(codec, SpeechFsq):
        raise UserError(f"start: training cannot begin with {start}, which is a {type(codec).__name__}")
    return codec


def _read_sets(
    config: AudioConfig, config_path: Path, exclusions: Exclusions, unpacked: Path
) -> tuple[list[Recordings], dict[str, list[np.ndarray]], list[Data]]:
    """(what to train on, what is held out of each set as float32 sounds, what the card says of each set). `unpacked`:
    where kept media of datasets go."""
    sets: list[Recordings] = []
    held: dict[str, list[np.ndarray]] = {}
    reports: list[Data] = []
    for data in config.data:
        root, paths = _files(data, config_path.parent, unpacked / data.name)
        kept_last = len(paths) - round(data.held_out * len(paths))
        kept, dropped = exclusions.split(paths[:kept_last])
        sounds = [(path, _sound(path, data.max_seconds)) for path in kept]
        sounds = [(path, sound) for path, sound in sounds if len(sound) >= HOP]
        if not sounds:
            raise UserError(
                f"{config_path}: data {data.name!r} has no recording left to train on in {root}: of {len(paths)} files"
                f" that match include, {len(dropped)} are excluded and the others are held out, empty or do not open"
            )
        sets.append(Recordings.of(data.weight, [to_int16(sound) for _, sound in sounds]))
        listed = [(path.relative_to(root).as_posix(), digest(path)) for path, _ in sounds]
        left_out = {path.relative_to(root).as_posix(): reason for path, reason in dropped.items()}
        reports.append(Data(data.name, data.licence, data.origin, listed, left_out))
        if data.held_out:
            last, _ = exclusions.split(paths[kept_last:])
            held[data.name] = [sound for path in last if len(sound := _sound(path, 4.0)) >= _LEAST]
    return sets, held, reports


def _files(data: AudioDataConfig, base: Path, unpacked: Path) -> tuple[Path, list[Path]]:
    root = _expanded(data.path, base, f"data {data.name!r}")
    if not root.is_dir():
        raise UserError(f"data {data.name!r}: there is no folder {root}")
    if is_dataset(root):
        root = unpack_media(root, "audio", unpacked)
    found = {path for pattern in data.include for path in root.glob(pattern)}
    found -= {path for pattern in data.leave_out for path in root.glob(pattern)}
    return root, sorted(p for p in found if p.suffix.lower() in SOUNDS and p.is_file() and not p.is_symlink())


def _expanded(path: str, base: Path, where: str) -> Path:
    return base / expand(path, where)


def _sound(path: Path, max_seconds: float) -> np.ndarray:  # float32 [n], empty for what does not open
    sound = read_recording(path, SAMPLE_RATE_HZ)
    return np.zeros(0, np.float32) if sound is None else sound[: int(max_seconds * SAMPLE_RATE_HZ)]


def _spread(sounds: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """`count` of them, evenly spaced."""
    return list(sounds[:: max(1, len(sounds) // count)][:count])


def _card(
    config: AudioConfig,
    config_path: Path,
    exclude: Sequence[Path],
    reports: list[Data],
    settings: dict[str, Any],
    figures: dict[str, dict[str, float]],
) -> Card:
    # Absolute paths are somebody's machine: the card keeps the name only
    named = [path.name if path.is_absolute() else path.as_posix() for path in (config_path, *exclude)]
    excluded = "".join(f" --exclude {name}" for name in named[1:])
    return Card(
        name=f"{config.name}@{config.revision}",
        summary=config.summary,
        command=f"mmdata fit audio --config {named[0]}{excluded}",
        licence=config.licence,
        data=reports,
        settings=settings,
        figures=figures,
        notes=config.notes,
    )
