"""E-mail and public IP addresses are masked, private ones stay, and masking is idempotent and linear."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.curate.personal import EMAIL, IPV4, IPV6, Personal, mask

RULES = Personal()


@pytest.mark.parametrize("address", ["ann.b+c@mail.co.uk", "a@b.org", "x_y%z@sub.domain.example.io"])
def test_addresses_of_mail(address: str) -> None:
    text, found = mask(f"Write to <{address}>, or请联系{address}谢谢.", RULES)
    assert text == f"Write to <{EMAIL}>, or请联系{EMAIL}谢谢." and found == {"personal: e-mail addresses masked": 2}


@pytest.mark.parametrize("words", ["a@b", "@name", "ann@example.com", "me@mail.test", "x@y.z.", "a @ b.org"])
def test_what_is_nobodys_address_stays(words: str) -> None:
    assert mask(words, RULES) == (words, {})


@pytest.mark.parametrize(
    ("address", "mask_of"),
    [("8.8.8.8", IPV4), ("93.184.216.34", IPV4), ("2606:4700:4700::1111", IPV6), ("2a00:1450:4001:800::200e", IPV6)],
)
def test_public_addresses_of_machines(address: str, mask_of: str) -> None:
    assert mask(f"at {address}, port 80. {address}.", RULES) == (
        f"at {mask_of}, port 80. {mask_of}.",
        {"personal: IP addresses masked": 2},
    )


@pytest.mark.parametrize(
    "words",
    [
        "10.0.0.1", "192.168.1.1", "127.0.0.1", "172.16.0.9", "169.254.3.4", "224.0.0.1",  # private, local, many
        "256.1.1.1", "1.2.3", "1.2.3.4.5", "v8.8.8.8", "12:30:45", "std::string", "dead::beef", "fe80::1", "::1",
        "fd00::8", "2001:db8::5", "a::b::c",
    ],
)  # fmt: skip
def test_private_addresses_and_what_only_looks_like_one_stay(words: str) -> None:
    assert mask(words, RULES) == (words, {})


def test_each_kind_can_be_turned_off() -> None:
    text = "ann@mail.org 8.8.8.8"
    assert mask(text, Personal(email=False))[0] == f"ann@mail.org {IPV4}"
    assert mask(text, Personal(ip=False))[0] == f"{EMAIL} 8.8.8.8"


PIECES = st.sampled_from(["ann@mail.org", "8.8.8.8", "2606:4700::1", "10.0.0.1", ".", ":", "@", " ", "a", "1", "的"])


@given(st.lists(PIECES, max_size=12).map("".join))
def test_masking_twice_is_masking_once(text: str) -> None:
    masked, _ = mask(text, RULES)
    assert mask(masked, RULES) == (masked, {})


@pytest.mark.parametrize("run", ["a", "a.", "a@", "1.", "1:", "@a.", "1", ":"])
def test_long_runs_of_such_characters_do_not_hang(run: str) -> None:
    mask(run * 200_000, RULES)  # a pattern that backtracked would take hours
