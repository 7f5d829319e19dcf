"""What config files say of the training loop: the same keys for every codec that is a network."""

from __future__ import annotations

from dataclasses import fields
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipelines.fit.training import TrainSettings


class TrainConfig(BaseModel):
    """How one training goes."""

    model_config = ConfigDict(extra="forbid")
    steps: int = Field(ge=1)
    more_steps: int = Field(0, ge=0)
    batch_size: int = Field(6, ge=1)
    crop: int = Field(128, ge=8)
    learning_rate: float = Field(1.5e-3, gt=0)
    optimizer: Literal["adam", "muon"] = "adam"
    warmup_steps: int = Field(50, ge=0)
    average: float = Field(0.995, ge=0, lt=1)
    evaluate_every: int = Field(250, ge=1)
    save_every: int = Field(250, ge=1)

    def settings(self) -> TrainSettings:
        """As the training loop takes them."""
        return TrainSettings(**{f.name: getattr(self, f.name) for f in fields(TrainSettings) if hasattr(self, f.name)})
