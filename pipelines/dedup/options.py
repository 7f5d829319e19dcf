"""The tables [dedup] and [decontaminate] of a recipe."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.dedup.sounds import NEAR_SHARE
from pipelines.ingest.looks import NEAR_BITS


class DedupOptions(BaseModel):
    """Copies and near copies. Two documents are near duplicates when their texts are, and each of their media is one of
    the other's at the same place. Of such the one of the first source is kept, then with the longest text, the largest
    media, the smallest id."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    exact: Literal["keep", "drop"] = Field(
        default="keep",
        description="copies: the same bytes, or the same text but for case, white space and punctuation. Kept ones of"
        " the same bytes share a split",
    )
    text: Literal["off", "minhash"] = Field(
        default="off",
        description='"minhash": texts are near duplicates when their word 5-grams are about the same (112 hashes in 14'
        " bands of 8: found with 92 % where four fifths are shared, 5 % where half are)",
    )
    image: Literal["off", "phash"] = Field(
        default="off", description='"phash": pictures that look the same, by a perceptual hash of 64 bits'
    )
    image_bits: int = Field(
        default=NEAR_BITS, ge=0, le=12, description="bits that may differ, of pictures and, on average, of frames"
    )
    audio: Literal["off", "bands"] = Field(
        default="off",
        description='"bands": sounds in whose first second, and in one further on, the same bands rise and fall',
    )
    audio_share: float = Field(
        default=NEAR_SHARE, ge=0, le=0.35, description="share of the bits of the first second that may differ"
    )
    video: Literal["off", "frames"] = Field(
        default="off", description='"frames": videos of about one length whose frames at eight times look the same'
    )
    image_uses: int = Field(
        default=0,
        ge=0,
        description="a picture that more than so many of the kept documents of a source and those before it show is"
        " left out of the source (a logo, a button; 10 in OBELICS and MMC4); 0: any number. Copies are told as `image`"
        " says, else by their bytes",
    )
    near: Literal["drop", "group"] = Field(
        default="drop", description='near duplicates: "drop" all but one, or keep them and "group" them into one split'
    )
    scope: Literal["all", "source"] = Field(
        default="all", description="duplicates are looked for in a source and all before it, or inside each"
    )

    @model_validator(mode="after")
    def _goes_together(self) -> DedupOptions:
        if self.near_kinds and self.near == "drop" and self.exact == "keep":
            raise ValueError('near duplicates are dropped and exact ones kept; say exact = "drop" or near = "group"')
        return self

    @property
    def near_kinds(self) -> tuple[str, ...]:
        """The kinds whose near duplicates are looked for."""
        return tuple(kind for kind in ("text", "image", "audio", "video") if getattr(self, kind) != "off")

    @property
    def on(self) -> bool:
        return self.exact == "drop" or bool(self.near_kinds) or self.image_uses > 0

    def words(self) -> dict[str, Any]:
        """What decides the outcome."""
        return self.model_dump(mode="json") if self.on else {}


class DecontaminateOptions(BaseModel):
    """Documents that meet an evaluation set are left out: by 13-grams of words (8-grams of shorter texts), by look, by
    sound, videos by the looks of their frames."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    against: tuple[str, ...] = Field(
        default=(),
        description="folders and files of evaluation sets: JSONL, JSON, CSV, TSV, Parquet, text, pictures, sounds,"
        " videos; relative to the recipe, ${VAR} stands for a variable's value",
    )
