"""Which addresses webhooks may have, and which networks they reach; nothing is sent here."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_server.events.webhooks.networks import (
    is_never,
    is_public,
    may_reach,
    may_reach_all,
    meanings,
)
from coldfusion_server.events.webhooks.urls import check_dispatches, check_url, origin_of, shown
from coldfusion_server.settings import EVERYWHERE, load_settings
from coldfusion_shared.errors import ConfigurationError, InvalidRequest
from coldfusion_shared.webhooks import JITTER, LONGEST_PAUSE, PAUSES, pause_after

FOURS = st.ip_addresses(v=4)
SIXES = st.one_of(
    st.ip_addresses(v=6),
    # Where addresses of IPv4 are written otherwise.
    st.builds(
        lambda start, four: IPv6Address(int(ip_address(start)) | int(four)),
        st.sampled_from(["::ffff:0:0", "64:ff9b::", "64:ff9b:1::", "::"]),
        st.one_of(FOURS, st.sampled_from([IPv4Address("127.0.0.1"), IPv4Address("10.1.2.3")])),
    ),
    st.builds(lambda four: IPv6Address((0x2002 << 112) | (int(four) << 80)), FOURS),
)
ADDRESSES = st.one_of(FOURS, SIXES)
INTERNAL = [ip_network(text) for text in (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
)]  # fmt: skip


@given(ADDRESSES)
def test_by_default_only_public_addresses_are_reached(address: IPv4Address | IPv6Address) -> None:
    if may_reach(address, ()):
        assert address.is_global and not address.is_multicast
        for one in meanings(address):
            assert is_public(one)
            assert not any(one in network for network in INTERNAL)


@given(FOURS)
def test_an_address_is_what_it_is_however_it_is_written(four: IPv4Address) -> None:
    mapped = IPv6Address(int(IPv6Address("::ffff:0:0")) | int(four))
    for allowed in ((), EVERYWHERE, (IPv4Network("10.0.0.0/8"),)):
        assert may_reach(mapped, allowed) == may_reach(four, allowed)


@given(ADDRESSES)
def test_what_nobody_may_reach_no_setting_allows(address: IPv4Address | IPv6Address) -> None:
    if is_never(address):
        assert not may_reach(address, EVERYWHERE)
    else:
        assert may_reach(address, EVERYWHERE)


@given(ADDRESSES)
def test_a_named_network_allows_itself_and_no_more(address: IPv4Address | IPv6Address) -> None:
    named = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    if may_reach(address, named) and not may_reach(address, ()):
        assert any(one in network for one in meanings(address) for network in named)


@pytest.mark.parametrize("text", [
    "127.0.0.1", "10.0.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "0.0.0.0",
    "100.100.100.200", "168.63.129.16", "255.255.255.255", "224.0.0.1", "::1", "::", "fe80::1",
    "fe80::1%eth0", "fd00:ec2::254", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
    "::ffff:169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::1", "::127.0.0.1", "fec0::1",
    "2001:db8::1", "2001:0:7f00:1:0:0:80ff:fffe",
    # What is given out to nobody; the first one is 127.0.0.1 where a router translates (SIIT).
    "::ffff:0:127.0.0.1", "::ffff:0:a00:1", "1::1", "100:0:0:1::1", "200::1", "4000::1", "8000::1",
    "192.0.0.8", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42",
])  # fmt: skip
def test_these_are_refused(text: str) -> None:
    assert not may_reach(ip_address(text), ())


@pytest.mark.parametrize("text", [
    "169.254.169.254", "fd00:ec2::254", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42",
])  # fmt: skip
def test_metadata_of_clouds_is_reached_by_no_setting(text: str) -> None:
    assert not may_reach(ip_address(text), EVERYWHERE)


@pytest.mark.parametrize("text", ["1.1.1.1", "140.82.112.3", "2606:4700::1111", "64:ff9b::101:101"])
def test_these_are_public(text: str) -> None:
    assert may_reach(ip_address(text), ())


def test_one_bad_address_spoils_a_name() -> None:
    good, bad = ip_address("1.1.1.1"), ip_address("10.0.0.1")
    assert may_reach_all([good], ())
    assert not may_reach_all([good, bad], ())
    assert not may_reach_all([], ())


# Addresses of webhooks.

GOOD = "https://ci.example.org/hooks/x?token=secret"


def test_of_an_address_what_may_be_a_secret_is_not_shown() -> None:
    url = check_url("https://ci.example.org:8443/hooks/x?token=secret", ())
    assert shown(url) == "https://ci.example.org:8443/hooks/x"
    assert origin_of(url) == "https://ci.example.org:8443"


def test_names_of_servers_may_be_long_and_end_with_a_dot() -> None:
    for host in ("a" * 63 + ".example.org", "ci_1.example.org.", "localhost-not", "a.b.c.d.e"):
        assert check_url(f"https://{host}/", ()).host == host


def test_an_address_is_shown_as_it_is_sent() -> None:
    # Not as it reads: that would be the terminal's commands, line ends and another question mark.
    url = check_url("https://ci.example.org/%1b[2J%0aok%3Fa=b/é?token=secret", ())
    assert shown(url) == "https://ci.example.org/%1b[2J%0aok%3Fa=b/%C3%A9"


@pytest.mark.parametrize(("url", "part"), [
    ("", "https://"),
    ("ci.example.org", "https://"),
    ("ftp://ci.example.org/", "https://"),
    ("file:///etc/passwd", "https://"),
    ("https://", "https://"),
    ("https:///x", "https://"),
    ("http://ci.example.org/", "not an https:// one"),
    ("https://user:t0psecret@ci.example.org/", "a name or a password"),
    ("https://t0psecret@ci.example.org/", "a name or a password"),
    ("https://ci.example.org/#t0psecret", "#"),
    ("https://ci.example.org:22/", "port 22"),
    ("https://ci.example.org:25/", "port 25"),
    ("https://ci.example.org:80/", "port 80"),
    ("https://ci.example.org:0/", "port 0"),
    ("https://ci.example.org:99999/", ""),
    ("https://127.0.0.1/", "private, local or reserved"),
    ("https://[::1]/", "private, local or reserved"),
    ("https://[::ffff:127.0.0.1]/", "private, local or reserved"),
    ("https://169.254.169.254/latest/meta-data/", "private, local or reserved"),
    ("https://0x7f.1/", "number"),
    ("https://0x7f000001/", "number"),
    ("https://2130706433/", "number"),
    ("https://0177.0.0.1/", "no URL"),
    ("https://127.1/", "number"),
    ("https://127.0.0.1./", ""),
    ("https://１２７.0.0.1/", ""),
    ("https://ci.example.org\r\nX: y/", ""),
    ("https://ci.example.org\\@127.0.0.1/", ""),
    ("https://ci exa.mple/", ""),
    ("https://xn--/", "no URL"),
    ("https://.example.org/", "that there cannot be"),
    ("https://ci..example.org/", "that there cannot be"),
    ("https://" + "a" * 64 + ".example.org/", "that there cannot be"),
    ("https://" + "a." * 127 + "example.org/", "that there cannot be"),
    ("https://[2606:4700::1111%25eth0]/", "network card"),
    ("https://[::ffff:0:7f00:1]/", "private, local or reserved"),
])  # fmt: skip
def test_these_addresses_are_refused_and_not_repeated(url: str, part: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_url(url, ())
    assert part in caught.value.message
    assert "t0psecret" not in caught.value.message + (caught.value.hint or "")


def test_private_ones_and_http_are_for_the_operator_to_allow() -> None:
    assert check_url("http://10.1.2.3:8080/x", EVERYWHERE).host == "10.1.2.3"
    assert check_url("http://10.1.2.3/x", (IPv4Network("10.0.0.0/8"),))
    with pytest.raises(InvalidRequest):
        check_url("http://192.168.1.1/x", (IPv4Network("10.0.0.0/8"),))
    with pytest.raises(InvalidRequest):
        check_url("http://169.254.169.254/x", EVERYWHERE)


@pytest.mark.parametrize(("text", "found"), [
    ("true", EVERYWHERE), ("false", ()), ("True", EVERYWHERE),
    ("10.0.0.0/8, 192.168.1.5", (ip_network("10.0.0.0/8"), ip_network("192.168.1.5"))),
    ("fd00::/8", (ip_network("fd00::/8"),)),
])  # fmt: skip
def test_the_setting(text: str, found: Sequence[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLDFUSION_WEBHOOK_PRIVATE", text)
    assert load_settings().webhook_private == found


@pytest.mark.parametrize("text", ["maybe", "10.0.0.1/8", "10.0.0.0/99", "true,10.0.0.0/8"])
def test_a_setting_that_makes_no_sense_is_told(text: str) -> None:
    with pytest.raises(ConfigurationError, match="webhook_private"):
        load_settings(webhook_private=text)


def test_dispatches_go_where_github_takes_them() -> None:
    for good in (
        "https://api.github.com/repos/lab/model/dispatches",
        "https://ghe.example.org/api/v3/repos/lab/model/dispatches",
    ):
        check_dispatches(check_url(good, ()))
    for bad in (
        "https://github.com/lab/model", "https://api.github.com/repos/lab/dispatches",
        "https://api.github.com/repos/lab/model/dispatches/x",
    ):  # fmt: skip
        with pytest.raises(InvalidRequest, match="repository_dispatch"):
            check_dispatches(check_url(bad, ()))


# When what failed is tried again.


@given(st.integers(1, 20), st.floats(0, 1, exclude_max=True), st.none() | st.floats(0, 1e12))
def test_pauses_grow_and_are_bounded(tries: int, chance: float, asked: float | None) -> None:
    pause = pause_after(tries, chance, asked)
    if tries > len(PAUSES):
        assert pause is None
        return
    assert pause is not None
    assert PAUSES[tries - 1] <= pause <= LONGEST_PAUSE * (1 + JITTER)
    if asked is not None:
        assert pause >= min(asked, LONGEST_PAUSE)
    assert list(PAUSES) == sorted(PAUSES)


def test_all_tries_together_take_about_a_day() -> None:
    for chance in (0.0, 1.0):
        whole = sum(pause_after(n, chance) or 0 for n in range(1, len(PAUSES) + 1))
        assert 22 * 3600 < whole < 30 * 3600
