"""Personal data: e-mail addresses and public IP addresses are masked in text; private ones stay.

The masks are of names and ranges kept for documentation (RFC 2606, 5737, 3849), which are no one's, and are
themselves never masked, so that masking twice changes nothing. Patterns are of ASCII and take time in proportion to
the text. A version with four numbers looks like an address: `1.2.3.4` is masked, `v1.2.3.4` is not.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter

from pydantic import Field

from pipelines.curate.table import Table

EMAIL, IPV4, IPV6 = "email@example.com", "192.0.2.1", "2001:db8::1"

# The look-behinds let a match begin only where a run of such characters does: no run is read twice.
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@((?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24})(?![A-Za-z0-9-])"
)
_IPV4 = re.compile(r"(?<![A-Za-z0-9_.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![A-Za-z0-9_]|\.[0-9])")
_IPV6 = re.compile(r"(?<![A-Za-z0-9_:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![A-Za-z0-9_:]|\.[0-9])")
_RESERVED = re.compile(r"(?:^|\.)(?:example\.(?:com|org|net)|example|test|invalid|localhost)$")
_GLOBAL_V6 = ipaddress.ip_network("2000::/3")


class Personal(Table):
    """Personal data masked in text parts; no document is dropped for it."""

    email: bool = Field(default=True, description=f"e-mail addresses become `{EMAIL}`")
    ip: bool = Field(default=True, description=f"public IP addresses become `{IPV4}` or `{IPV6}`")


def mask(text: str, rules: Personal) -> tuple[str, Counter[str]]:
    """The text with its personal data masked, and how many of which kind there were.

    >>> mask("ann@mail.org at 8.8.8.8 or 10.0.0.1", Personal())[0]
    'email@example.com at 192.0.2.1 or 10.0.0.1'
    """
    found: Counter[str] = Counter()

    def email(match: re.Match[str]) -> str:
        if _RESERVED.search(match[1].lower()):
            return match[0]
        found["personal: e-mail addresses masked"] += 1
        return EMAIL

    def ip(match: re.Match[str]) -> str:
        if not _is_public(match[0]):
            return match[0]
        found["personal: IP addresses masked"] += 1
        return IPV6 if ":" in match[0] else IPV4

    if rules.email and "@" in text:
        text = _EMAIL.sub(email, text)
    if rules.ip:
        text = _IPV6.sub(ip, _IPV4.sub(ip, text))
    return text, found


def _is_public(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return found.is_global and not found.is_multicast and (found.version == 4 or found in _GLOBAL_V6)
