"""What a remote address says of itself: its host, and the kind of medium by its ending."""

from __future__ import annotations

import re
import urllib.parse

from pipelines.ingest.files import kind_of


def host_of(uri: str) -> str:
    """The host of a remote address in the ledger, "" of anything else.

    >>> host_of("https://Example.org:80/a.png"), host_of("a/b.html")
    ('example.org', '')
    """
    parsed = split_address(uri) if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|//", uri) else None
    return (parsed.hostname or "") if parsed is not None else ""


def kind_of_address(address: str) -> str:
    """image, audio or video by an address's ending or type; an image where it does not say."""
    if address.startswith("data:"):
        kind = address[5:].split("/")[0].lower()
        return kind if kind in ("image", "audio", "video") else "image"
    return kind_of(address.split("#")[0].split("?")[0]) or "image"


def split_address(address: str) -> urllib.parse.SplitResult | None:
    try:
        parsed = urllib.parse.urlsplit(address)
        parsed.hostname  # noqa: B018  (raises on a broken one)
    except ValueError:
        return None
    return parsed
