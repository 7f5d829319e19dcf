"""The recipe: the TOML file of a build, checked when it is loaded (docs/files.md lists every key).

What decides a source's bytes goes into its settings (and so into its manifest and fingerprint); where it lies, how
many workers there are and what else the recipe holds do not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mmdata.errors import UserError
from mmdata.shards import check_name
from pipelines.config import check, expand, read_toml

SOFT = "soft"  # in [codecs]: keep the medium itself, at its kept size, instead of codes


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Codecs(_Table):
    """Codec of each kind, by name (newest revision) or name@revision."""

    text: str = Field(default="text-spm16k", description="codec of texts")
    image: str = Field(default="image-fsq16", description='codec of images, or "soft": keep the pixels, no codes')
    audio: str = Field(default="speech-melfsq", description='codec of sound, or "soft": keep the waveform, no codes')
    video: str = Field(default="", description="an image codec for the frames of videos; empty: the image codec")


class ImageOptions(_Table):
    """How images are resized before they are encoded."""

    tokens: int = Field(default=256, ge=1, description="the most codes an image becomes")
    policy: Literal["bucket", "crop"] = Field(
        default="bucket", description='"bucket": the nearest of a few aspect ratios; "crop": a square from the centre'
    )
    background: tuple[int, int, int] = Field(
        default=(255, 255, 255), description="what shows through transparent pixels"
    )


class VideoOptions(_Table):
    """Which frames of a video are kept."""

    fps: float = Field(default=1.0, gt=0, description="frames kept a second")
    max_frames: int = Field(default=16, ge=1, description="the most frames kept of one video, spread over its length")
    tokens: int = Field(default=64, ge=1, description="the most codes a frame becomes")


class AudioOptions(_Table):
    """Kept sound, where the codec does not say."""

    sample_rate_hz: int = Field(default=16_000, ge=1000, description='of sound kept without codes (audio = "soft")')


class LimitOptions(_Table):
    """The most that one medium may take; what passes a limit is left out with a ledger line."""

    max_pixels: int = Field(default=100_000_000, ge=1, description="of an image or a video frame, before resizing")
    max_seconds: float = Field(default=4 * 3600.0, gt=0, description="of sound or video")
    max_frames: int = Field(default=500_000, ge=1, description="frames decoded of a video")
    max_bytes: int = Field(default=4 << 30, ge=1, description="of a media file")
    stuck_seconds: float = Field(default=300.0, gt=0, description="a decoder that takes longer is killed")


class ShardOptions(_Table):
    """When a shard closes, and how the work is cut."""

    samples: int = Field(default=32_768, ge=1, description="a shard closes at so many samples")
    bytes: int = Field(default=256_000_000, ge=1, description="or at so many bytes")
    unit_inputs: int = Field(default=128, ge=1, description="inputs of a work unit (changes no output)")
    unit_bytes: int = Field(default=32_000_000, ge=1, description="bytes of input of a work unit (changes no output)")


class SourceEntry(BaseModel):
    """One [[source]] table: these keys, and the options of its format."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(description="becomes the folder OUT/<name>/")
    format: str = Field(description="how its files are read: html, captions, text, jsonl, speech, video")
    path: str = Field(description="folder or file, relative to the recipe; ${VAR} stands for a variable's value")

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class RecipeFile(_Table):
    """Every key of a recipe."""

    seed: int = Field(default=0, description="decides the order of samples inside each source")
    validation: float = Field(default=0.01, ge=0, le=0.5, description="share of the documents held out")
    keep_media: Literal["none", "resized", "original"] = Field(
        default="none", description='media kept beside the codes: "resized" raw arrays, or the "original" bytes'
    )
    on_bad_part: Literal["drop_part", "drop_document"] = Field(
        default="drop_part", description="what a part that cannot be decoded costs: itself or its document"
    )
    codecs: Codecs = Codecs()
    image: ImageOptions = ImageOptions()
    video: VideoOptions = VideoOptions()
    audio: AudioOptions = AudioOptions()
    limits: LimitOptions = LimitOptions()
    shards: ShardOptions = ShardOptions()
    source: tuple[SourceEntry, ...] = Field(min_length=1, description="a [[source]] table for each input folder")


class Recipe(RecipeFile):
    """A recipe with the place its paths are relative to."""

    folder: Path = Field(exclude=True)

    def source_path(self, entry: SourceEntry) -> Path:
        """Where the source lies; UserError where a variable in it is not set."""
        return (self.folder / expand(entry.path, f"source {entry.name!r}")).resolve()


def load_recipe(path: Path) -> Recipe:
    """The recipe in `path`; UserError in one line names the key, the nearest known one, and the choices."""
    file = check(RecipeFile, read_toml(path), str(path))
    return make_recipe(file, path.resolve().parent, str(path))


def parse_recipe(data: dict[str, Any], folder: Path) -> Recipe:
    """A recipe given as a dict, its paths relative to `folder`."""
    return make_recipe(check(RecipeFile, data, "the recipe"), folder, "the recipe")


def make_recipe(file: RecipeFile, folder: Path, where: str) -> Recipe:
    """The checks that need more than one key, and the folder."""
    names = [entry.name for entry in file.source]
    for name in names:
        check_name(name)
        if names.count(name) > 1:
            raise UserError(f"{where}: two sources are named {name!r}; give each its own name")
        if name in ("ledger", "media", "catalog"):
            raise UserError(f"{where}: a source cannot be named {name!r}, a folder of the dataset has that name")
    soft = [kind for kind in ("image", "audio") if getattr(file.codecs, kind) == SOFT]
    if file.codecs.text == SOFT or file.codecs.video == SOFT:
        raise UserError(f"{where}: codecs.text and codecs.video cannot be {SOFT!r}; name a codec")
    if soft and file.keep_media != "resized":
        raise UserError(f'{where}: codecs.{soft[0]} = "soft" needs keep_media = "resized", or there is nothing to read')
    return Recipe(folder=folder, **{name: getattr(file, name) for name in RecipeFile.model_fields})
