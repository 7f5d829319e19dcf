"""The table of a rule family in a recipe: frozen, and a key that nobody knows is an error."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Table(BaseModel):
    """Never built itself: each family has its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)
