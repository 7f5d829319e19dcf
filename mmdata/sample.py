"""A sample: one document's items and metadata, one record of a shard (DESIGN section 4)."""

from __future__ import annotations

from dataclasses import dataclass, field

from tokenizer.item import Item


@dataclass(frozen=True, eq=False)
class Sample:
    """What `ds["web"].train[i]` gives. `metadata` holds the document's own words: uri, language, licence, title..."""

    id: str  # document id: hex of 16 bytes
    cluster: str  # cluster id: hex of 16 bytes
    source: str
    items: tuple[Item, ...]
    uri: str = ""
    language: str = ""  # BCP 47, "" where unknown
    licence: str = ""  # SPDX where known
    created: str = ""  # ISO 8601, "" where unknown
    metadata: dict[str, str] = field(default_factory=dict)
