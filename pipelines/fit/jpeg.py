"""Learning the byte pairs of the jpeg-bytes codec from pictures (`mmdata fit jpeg`): a vocabulary file and its card.

Each picture is resized to at most `tokens` squares of 16x16 pixels and written as its canonical JPEG; what is learnt
from is those bytes, each picture once. Nothing is drawn by chance: the same pictures and libjpeg give the same file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mmdata.commit import write_bytes
from mmdata.errors import UserError
from pipelines.config import NAME, check, read_toml
from pipelines.fit.card import Card, Data, command_of, write_card
from pipelines.fit.evaluate_images import evaluate_image, photo_folders, read_picture
from pipelines.fit.exclude import Exclusions, digest
from pipelines.fit.pictures import is_held_out, picture_files
from tokenizer.byte_pairs import BytePairs, learn
from tokenizer.image import ResizePolicy, resize
from tokenizer.jpeg import QUALITY, JpegBytes, canonical, header_parts

_SETS = {
    "photographs": "astronaut, chelsea, coffee, rocket, motorcycle, china, flower (256x256 centre crops)",
    "training": "training pictures",
    "held_out": "held-out pictures of the training sets",
}


class JpegDataConfig(BaseModel):
    """One set of training pictures."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(pattern=NAME)
    path: str  # a folder, or a dataset with kept media; relative to the config file; ${VARIABLE} is expanded
    include: list[str] = Field(["**/*"], min_length=1)
    origin: str = ""
    licence: str
    min_bytes: int = Field(20_000, ge=0)


class JpegConfig(BaseModel):
    """The file given to `mmdata fit jpeg --config`."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(pattern=NAME)
    revision: int = Field(1, ge=1)
    licence: str
    summary: str = ""
    notes: list[str] = []
    size: int = Field(default=320, ge=260, description="codes: 256 bytes, 2 parts of the header, pairs, 1 that fills")
    tokens: int = Field(default=256, ge=1, description="16x16-pixel squares that a picture is resized to, at the most")
    data: list[JpegDataConfig] = Field(min_length=1)


def fit_jpeg(config_path: Path, out: Path | None = None, exclude: Sequence[Path] = ()) -> dict[str, Any]:
    """Learn the vocabulary of the config file; write OUT/NAME-REVISION.bpe with its card. Returns its figures.

    Left out: what matches `exclude`, and the pictures that codecs are measured on. OUT is runs/fit-NAME-REVISION where
    it is not given.
    """
    config = check(JpegConfig, read_toml(config_path), str(config_path))
    out = out or Path("runs") / f"fit-{config.name}-{config.revision}"
    kept, held_out, reports = _load(config, config_path, exclude, out / "media")
    # One code is for filling
    vocabulary = learn(kept, config.size - 1, header_parts())
    weights = out / f"{config.name}-{config.revision}.bpe"
    out.mkdir(parents=True, exist_ok=True)
    write_bytes(weights, vocabulary.lines().encode("ascii"))
    photos = evaluate_image(JpegBytes.load(config.name, config.revision, out))
    figures = {
        "photographs": {key: photos[key] for key in ("psnr_db", "ssim", "bits_per_pixel", "images")},
        "training": _counts(vocabulary, kept),
        "held_out": _counts(vocabulary, held_out),
    }
    write_card(weights, _card(config, config_path, exclude, reports, figures))
    return figures


def _load(
    config: JpegConfig, config_path: Path, exclude: Sequence[Path], unpacked: Path
) -> tuple[list[bytes], list[bytes], list[Data]]:
    """(JPEGs to learn from, JPEGs held out, what the card says of them). `unpacked`: where datasets' media go."""
    if len({data.name for data in config.data}) < len(config.data):
        raise UserError(f"{config_path}: two sets of data have one name; give each its own")
    folders = [
        picture_files(data.name, data.path, data.include, config_path.parent, unpacked / data.name)
        for data in config.data
    ]
    exclusions = Exclusions.of([*exclude, *photo_folders()], kinds=("image",))
    policy = replace(ResizePolicy(), tokens=config.tokens)
    kept: dict[str, bytes] = {}
    held_out: dict[str, bytes] = {}
    reports = []
    for data, (root, paths) in zip(config.data, folders, strict=True):
        good, dropped = exclusions.split(path for path in paths if path.stat().st_size >= data.min_bytes)
        dropped |= {path: "smaller than min_bytes" for path in paths if path.stat().st_size < data.min_bytes}
        listed = []
        for path in good:
            picture = read_picture(path)
            sha256 = digest(path)
            if picture is None:
                dropped[path] = "does not open"
                continue
            if sha256 in kept or sha256 in held_out:
                dropped[path] = "same bytes as a file before it"
                continue
            jpeg = canonical(resize(picture, policy))
            if is_held_out(sha256):
                held_out[sha256] = jpeg
                dropped[path] = "held out"
            else:
                kept[sha256] = jpeg
                listed.append((path.relative_to(root).as_posix(), sha256))
        if not listed:
            raise UserError(
                f"{config_path}: data {data.name!r} has no picture left to learn from in {root}{_why_none(dropped)}"
            )
        left_out = {path.relative_to(root).as_posix(): reason for path, reason in dropped.items()}
        reports.append(Data(data.name, data.licence, data.origin, listed, left_out))
    return list(kept.values()), list(held_out.values()), reports


def _why_none(dropped: Mapping[Path, str]) -> str:
    """The commonest reason, as the end of a sentence."""
    if not dropped:
        return ": no picture's path matches include"
    reason, count = Counter(dropped.values()).most_common(1)[0]
    return f": of {len(dropped)} files {count}: {reason}"


def _counts(vocabulary: BytePairs, jpegs: Sequence[bytes]) -> dict[str, float]:
    """Of canonical JPEGs: how many, bytes and codes of one in the mean, and bytes a code."""
    num_bytes = np.array([len(jpeg) for jpeg in jpegs])
    num_codes = np.array([len(vocabulary.encode(jpeg)) for jpeg in jpegs])
    if not len(jpegs):
        return {"pictures": 0}
    return {
        "pictures": len(jpegs),
        "bytes": round(float(num_bytes.mean()), 1),
        "codes": round(float(num_codes.mean()), 1),
        "bytes_a_code": round(float(num_bytes.sum() / num_codes.sum()), 4),
    }


def _card(
    config: JpegConfig, config_path: Path, exclude: Sequence[Path], reports: list[Data], figures: dict[str, Any]
) -> Card:
    from PIL import __version__ as pillow
    from PIL import features

    return Card(
        name=f"{config.name}@{config.revision}",
        summary=config.summary,
        command=command_of("jpeg", config_path, exclude),
        licence=config.licence,
        data=reports,
        settings={
            "size": config.size, "tokens": config.tokens, "quality": QUALITY, "subsampling": "4:2:0",
            "pillow": pillow, "libjpeg_turbo": str(features.version("libjpeg_turbo")),
        },
        figures={_SETS[key]: values for key, values in figures.items()},
        notes=config.notes,
    )  # fmt: skip
