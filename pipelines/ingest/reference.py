"""Media that a page or a record names: files of the folder, `data:` addresses, remote addresses. Nothing is fetched.

A remote address is found in a mirror where the recipe names one (`wget -x` writes such folders); what is not there is a
ledger line under its address, so that losses can be counted by host. A sha256 beside the reference is checked.
"""

from __future__ import annotations

import hashlib
import re
import urllib.parse
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from mmdata.commit import sha256_of
from pipelines.ingest.address import host_of, split_address
from pipelines.ingest.document import Dropped, Part
from pipelines.ingest.files import REMOTE, data_address
from pipelines.ingest.folder import OUTSIDE, Folder, uri_of
from pipelines.ingest.media import EMPTY, MISSING, Limits, MediaError

DIGEST = "another sha256"  # the ledger's reason: the medium is not the one that was meant
STATUS = "not a page that was found"  # the reason for answers of a crawl other than 200, whose status is the detail

_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//")


@dataclass(frozen=True)
class References:
    """How the references in a source's files are followed. `mirror`: a folder of the source, holding HOST/PATH."""

    source: str
    folder: Folder
    limits: Limits
    mirror: str = ""

    def part(self, base: str, address: str, kind: str, uri: str, sha256: str = "") -> Part | Dropped:
        """The medium that `address` in file `base` means; `uri` names the record for the ledger and inline bytes."""
        address = address.strip()
        try:
            if not address:
                raise MediaError(EMPTY, "a reference without an address")
            found = self._found(base, address, kind, uri)
            check_digest(found, sha256)
            return found
        except MediaError as error:
            remote = bool(_REMOTE.match(address)) and not address.startswith("data:")
            where = uri_of(address[:500]) if remote else uri
            return Dropped(self.source, where, "ingest", error.reason, error.detail or f"in {uri}")

    def file(self, base: str, address: str) -> str | None:
        """The file of the folder that a reference means, if it means one."""
        return next((place for place in self._places(base, address) if place in self.folder.names), None)

    def _places(self, base: str, address: str) -> list[str]:
        """Where, from the root, a reference's file may lie."""
        if not _REMOTE.match(address):
            return [place] if (place := self.folder.place(base, address)) else []
        parsed = split_address(address) if self.mirror else None
        if parsed is None:
            return []
        path = urllib.parse.unquote(parsed.path.lstrip("/"))
        names = [f"{path}?{parsed.query}"] if parsed.query else []  # as wget writes it
        return [f"{self.mirror.strip('/')}/{parsed.hostname}/{name}" for name in (*names, path)]

    def _found(self, base: str, address: str, kind: str, uri: str) -> Part:
        if address.startswith("data:"):
            return Part(kind, data=data_address(address, self.limits), uri=uri)
        file, remote = self.file(base, address), bool(_REMOTE.match(address))
        if file is not None:  # with what lists of hosts and addresses speak of
            return Part(kind, path=self.folder.path(file), uri=uri_of(file), address=uri_of(address) if remote else "")
        if not remote and _climbs(base, address):
            raise MediaError(OUTSIDE, f"{uri_of(address[:200])} is not in the folder")
        for place in self._places(base, address):
            reason, detail = self.folder.why_not(place)
            if reason != MISSING:
                raise MediaError(reason, f"{detail}, in {uri}")
        if not remote:
            raise MediaError(MISSING, f"{uri_of(address[:200])} is not in the folder")
        raise MediaError(MISSING, f"not in the mirror, in {uri}") if self.mirror else MediaError(REMOTE, f"in {uri}")


def lost_by_host(dropped: Iterable[Dropped]) -> dict[str, int]:
    """How many media and pages could not be had of each host. An answer that names another address is no loss."""
    lost = (
        host_of(line.uri) or host_of(line.uri.partition("#")[2])  # a crawl's: path#address
        for line in dropped
        if line.reason in (REMOTE, MISSING, DIGEST) or (line.reason == STATUS and line.detail[:8] != "status 3")
    )
    return dict(sorted(Counter(host for host in lost if host).items()))


def check_digest(part: Part, sha256: str) -> None:
    """Raises MediaError where the medium's bytes have another digest than the one beside the reference."""
    if not sha256:
        return
    try:
        found = sha256_of(part.path) if part.path is not None else hashlib.sha256(part.read()).hexdigest()
    except OSError as error:
        raise MediaError(MISSING, error.strerror or "cannot be opened") from None
    if found != sha256.strip().lower():
        raise MediaError(DIGEST, f"{found[:16]}..., the record says {sha256[:16]}...")


def _climbs(base: str, address: str) -> bool:
    """Whether a local reference leads above the root."""
    depth = base.count("/") if not address.startswith("/") else 0
    for step in urllib.parse.unquote(address.split("#")[0].split("?")[0]).split("/"):
        depth += -1 if step == ".." else 1 if step not in ("", ".") else 0
        if depth < 0:
            return True
    return False
