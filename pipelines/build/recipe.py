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
from pipelines.curate.settings import Curate, Curation, curation_of, laid_over
from pipelines.dedup.options import DecontaminateOptions, DedupOptions
from tokenizer.image import ResizePolicy

SOFT = "soft"  # in [codecs]: keep the medium itself, at its kept size, instead of codes


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Codecs(_Table):
    """Codec of each kind, by name (newest revision) or name@revision."""

    text: str = Field(
        default="text-spm16k",
        description="codec of texts: a name, or the path of a `tokenizer.json` (needs the extra `hf`) or of a"
        " SentencePiece `.model`, relative to the recipe",
    )
    image: str = Field(default="image-fsq16", description='codec of images, or "soft": keep the pixels, no codes')
    audio: str = Field(default="speech-melfsq", description='codec of sound, or "soft": keep the waveform, no codes')
    video: str = Field(
        default="", description='an image codec for the frames of videos, or "soft"; empty: as images are'
    )


class ImageOptions(_Table):
    """How images are resized before they are encoded, or kept without codes."""

    tokens: int = Field(default=256, ge=1, description='the most codes (soft: patches) of "bucket" and "crop"')
    policy: Literal["bucket", "crop", "stretch", "area"] = Field(
        default="bucket",
        description='"bucket": the nearest of a few aspect ratios; "crop": a square from the centre; "stretch": one'
        ' size, whatever the shape (SigLIP, Gemma 3); "area": any shape, the area within bounds (Qwen2-VL)',
    )
    jpeg: Literal["scaled", "whole"] = Field(
        default="scaled",
        description='how JPEG files are decoded: "scaled": at 1/2, 1/4 or 1/8 of their size where that is no smaller'
        ' than what they are resized to; "whole": all their pixels, which takes several times as long',
    )
    background: tuple[int, int, int] = Field(
        default=(255, 255, 255), description="what shows through transparent pixels"
    )
    multiple: int = Field(
        default=0,
        ge=0,
        description='both sides of an image kept without codes (image = "soft") are multiples of so many pixels: the'
        " patch of the layout; 0: 16. With a codec, the codec decides",
    )
    size: tuple[int, int] = Field(default=(0, 0), description='height and width in pixels, of policy = "stretch"')
    min_pixels: int = Field(default=3_136, ge=1, description='the smallest area, of policy = "area"')
    max_pixels: int = Field(default=1_003_520, ge=1, description='the largest area, of policy = "area"')


class VideoOptions(_Table):
    """Which frames of a video are kept, and at what size."""

    fps: float = Field(default=1.0, gt=0, description="frames kept a second")
    max_frames: int = Field(default=16, ge=1, description="the most frames kept of one video, spread over its length")
    tokens: int = Field(
        default=64,
        ge=1,
        description='the most codes (soft: patches) a frame becomes, where the policy is "bucket" or "crop"',
    )
    policy: Literal["", "bucket", "crop", "stretch", "area"] = Field(
        default="", description="how frames are resized, as images are; empty: by the policy of [image]"
    )
    multiple: int = Field(
        default=0, ge=0, description='of the sides of frames kept without codes (video = "soft"); 0: as of soft images'
    )
    size: tuple[int, int] = Field(default=(0, 0), description='of frames with "stretch"; zeros: as of images')
    min_pixels: int = Field(default=0, ge=0, description='of a frame with "area"; 0: as of an image')
    max_pixels: int = Field(default=0, ge=0, description='of a frame with "area"; 0: as of an image')


class AudioOptions(_Table):
    """Kept sound, where the codec does not say."""

    sample_rate_hz: int = Field(default=16_000, ge=1000, description='of sound kept without codes (audio = "soft")')


class LimitOptions(_Table):
    """The most that one medium may take; what passes a limit is left out with a ledger line."""

    max_pixels: int = Field(default=100_000_000, ge=1, description="of an image or a video frame, before resizing")
    max_seconds: float = Field(default=4 * 3600.0, gt=0, description="of sound or video")
    max_frames: int = Field(default=500_000, ge=1, description="frames decoded of a video")
    max_bytes: int = Field(
        default=4 << 30, ge=1, description="of a media file; a text, a record or a file in an archive: a sixteenth"
    )
    max_expansion: int = Field(
        default=200, ge=1, description="times its own size (at least 1 MB) that a packed file may unpack to"
    )
    stuck_seconds: float = Field(default=300.0, gt=0, description="a decoder that takes longer is killed")
    worker_bytes: int = Field(
        default=8 << 30,
        ge=1,
        description="memory of a worker process (Linux); a document that takes more, alone, is left out",
    )


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
    format: str = Field(description="how its files are read: one of the formats below")
    path: str = Field(
        description="folder, file or glob pattern (** for any folders), relative to the recipe, or behind a URL (s3://,"
        " gs://, ...), from where what it names is copied into the user's cache; inputs may refer to files beside a"
        " file or a pattern, but not behind a URL; ${VAR} stands for a variable's value"
    )
    curate: dict[str, Any] = Field(
        default={}, description="the keys of [curate] that are other for this source; `rules = []` takes all rules off"
    )

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
    dedup: DedupOptions = DedupOptions()
    decontaminate: DecontaminateOptions = DecontaminateOptions()
    curate: Curate = Curate()
    source: tuple[SourceEntry, ...] = Field(min_length=1, description="a [[source]] table for each input folder")


class Recipe(RecipeFile):
    """A recipe with the place its paths are relative to."""

    folder: Path = Field(exclude=True)

    def source_path(self, entry: SourceEntry) -> Path:
        """Where the source lies; UserError where a variable in it is not set."""
        return (self.folder / expand(entry.path, f"source {entry.name!r}")).resolve()

    def evaluation_paths(self) -> tuple[Path, ...]:
        """Where the evaluation sets lie; UserError where a variable in a path is not set."""
        return tuple((self.folder / expand(p, "decontaminate.against")).resolve() for p in self.decontaminate.against)

    def curation(self, entry: SourceEntry) -> Curation | None:
        """The rules of a source, None where it has none; UserError names a wrong key or a list that is not there."""
        return curation_of(self.curate, entry.curate, self.folder, f"source {entry.name!r}, curate")

    def resizing(self, kind: str, multiple: int) -> ResizePolicy:
        """How images, or the frames of videos, come to multiples of so many pixels; UserError where they cannot."""
        return _resizing(self, kind, multiple, "the recipe")


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
    soft = [kind for kind in ("image", "audio", "video") if getattr(file.codecs, kind) == SOFT]
    if file.codecs.text == SOFT:
        raise UserError(f"{where}: codecs.text cannot be {SOFT!r}; name a codec")
    if soft and file.keep_media != "resized":
        raise UserError(f'{where}: codecs.{soft[0]} = "soft" needs keep_media = "resized", or there is nothing to read')
    _check_sizes(file, where)
    laid_over(file.curate, {}, f"{where}: curate")
    for entry in file.source:
        laid_over(file.curate, entry.curate, f"{where}: source {entry.name!r}, curate")
    return Recipe(folder=folder, **{name: getattr(file, name) for name in RecipeFile.model_fields})


def is_soft(file: RecipeFile, kind: str) -> bool:
    """Whether media of a kind are kept without codes; videos are as images are, unless the recipe says."""
    return (getattr(file.codecs, kind) or file.codecs.image) == SOFT


def soft_multiple(file: RecipeFile, kind: str) -> int:
    """Pixels that the sides of soft images, or of the frames of soft videos, are a multiple of."""
    own = file.video.multiple if kind == "video" else 0
    return own or (file.image.multiple if is_soft(file, "image") else 0) or 16


# Keys of [image] and [video] that only some policies read: to write one of another policy is a mistake.
_POLICIES_OF = {
    "tokens": ("bucket", "crop"),
    "size": ("stretch",),
    "min_pixels": ("area",),
    "max_pixels": ("area",),
}


def _check_sizes(file: RecipeFile, where: str) -> None:
    """UserError for keys of [image] and [video] that do not go together."""
    for kind, table in (("image", file.image), ("video", file.video)):
        policy = table.policy or file.image.policy
        for key, policies in _POLICIES_OF.items():
            if getattr(table, key) != type(table).model_fields[key].default and policy not in policies:
                wanted = " or ".join(f'"{name}"' for name in policies)
                raise UserError(
                    f'{where}: {kind}.{key} goes with policy = {wanted}, the policy is "{policy}"; remove one of them'
                )
        _resizing(file, kind, soft_multiple(file, kind) if is_soft(file, kind) else 1, where)
        if table.multiple and not is_soft(file, kind):
            codec = getattr(file.codecs, kind) or file.codecs.image
            raise UserError(
                f'{where}: {kind}.multiple goes with codecs.{kind} = "soft"; {codec} has its own: remove it'
            )


def _resizing(file: RecipeFile, kind: str, multiple: int, where: str) -> ResizePolicy:
    image, table = file.image, file.video if kind == "video" else file.image
    size, low = table.size if any(table.size) else image.size, table.min_pixels or image.min_pixels
    policy, high = table.policy or image.policy, table.max_pixels or image.max_pixels
    most = size[0] * size[1] if policy == "stretch" else low if policy == "area" else 0
    if most > file.limits.max_pixels:
        raise UserError(
            f"{where}: {kind}s would be enlarged to {most:,} pixels, limits.max_pixels is {file.limits.max_pixels:,};"
            " change one of them"
        )
    try:
        return ResizePolicy(policy, table.tokens, multiple, size, low, high)
    except ValueError as error:
        raise UserError(f"{where}, [{kind}]: {error}") from None
