"""What a remote address says of itself: its host, and the kind of medium by its ending; and lists of addresses."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable, Iterator

from pipelines.ingest.files import kind_of

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:)?//([^/?#]*)(.*)", re.DOTALL)
_HOST = re.compile(r"[\w-]+(\.[\w-]+)*\.?")


class AddressList:
    """Hosts, which mean those below them too ("example.org" has "www.example.org"), and addresses, which mean all that
    begins so. Scheme and host are read in any case, `https://a.org` as `https://a.org/`; user names are not read.

    >>> listed = AddressList(["Bad.org", "https://b.net/private/"])
    >>> [listed.entry_for(a) for a in ("http://cdn.bad.org/1", "HTTPS://B.net/private/x", "https://b.net/", "bad.org")]
    ['bad.org', 'https://b.net/private/', '', '']
    """

    def __init__(self, entries: Iterable[str] = ()) -> None:
        self._hosts: set[str] = set()
        self._addresses: dict[str, list[tuple[str, str]]] = {}  # what comes before the path -> (address, as written)
        for entry in entries:
            if is_address(entry):
                for place, address in _whole(entry):
                    self._addresses.setdefault(place, []).append((address, entry))
            else:
                self._hosts.add(entry.lower().strip("."))
        addresses = len({entry for found in self._addresses.values() for _, entry in found})
        self._words = f"{len(self._hosts):,} hosts" + (f" and {addresses:,} addresses" if addresses else "")

    def __bool__(self) -> bool:
        return bool(self._hosts or self._addresses)

    def __str__(self) -> str:
        """How much it holds: "2 hosts", "1 hosts and 3 addresses"."""
        return self._words

    def entry_for(self, address: str) -> str:
        """The entry that means a remote address; "" where none does, and of what is no remote address."""
        labels = host_of(address).strip(".").split(".")
        for start in range(len(labels)):
            if (host := ".".join(labels[start:])) in self._hosts:
                return host
        for place, whole in _whole(address) if self._addresses else ():
            for begin, entry in self._addresses.get(place, ()):
                if whole.startswith(begin):
                    return entry
        return ""


def is_address(entry: str) -> bool:
    """Whether a line of a list is a remote address."""
    return _ADDRESS.match(entry) is not None


def is_host(entry: str) -> bool:
    """Whether a line of a list can be the name of a host."""
    return _HOST.fullmatch(entry) is not None


def list_entries(text: str) -> tuple[str, ...]:
    """The lines of a list: `#` begins a comment at a line's begin or after white space, elsewhere it may be of an
    address.

    >>> list_entries("# all of\\na.org  # gone\\n\\nhttps://b.net/#top")
    ('a.org', 'https://b.net/#top')
    """
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines())
    return tuple(dict.fromkeys(line for line in lines if line))


def host_of(uri: str) -> str:
    """The host of a remote address in the ledger, "" of anything else.

    >>> host_of("https://Example.org:80/a.png"), host_of("a/b.html")
    ('example.org', '')
    """
    parsed = split_address(uri) if is_address(uri) else None
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


def _whole(address: str) -> Iterator[tuple[str, str]]:
    """(scheme and host, address) in one spelling; of both schemes, where an address leaves that to its page."""
    if found := _ADDRESS.match(address):
        scheme, place, rest = found.groups()
        for its in (scheme.lower(),) if scheme else ("http:", "https:"):
            lead = f"{its}//{place.rpartition('@')[2].lower()}"
            yield lead, lead + (rest if rest.startswith("/") else f"/{rest}")
