"""Bounds, names and addresses, and what of them a person is shown."""

from __future__ import annotations

from dataclasses import fields
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.addresses import peer_complaint
from app.config import SECTIONS, ExchangeSettings, MarketGroup
from app.settings_rules import BOUNDS, complaint, is_name, shown

ADDRESSES = [
    (
        "exchanges.ws_url",
        ["wss://a.b/c", "ws://127.0.0.1:1", "ws://[::1]:1", "ws://localhost"],
        [
            "ws://a.b",
            "https://a.b",
            "wss://",
            "wss://a b",
            "wss://a:0",
            "wss://a:99999",
            "a.b",
            "ws://127.0.0.1.evil.com",
        ],
    ),
    (
        "markets.base_url",
        ["wss://a"],
        [
            "wss://169.254.169.254",
            "wss://2852039166",
            "wss://0xa9fea9fe",
            "wss://[fe80::1]",
            "ws://[::ffff:169.254.1.1]",
        ],
    ),
    (
        "exchanges.rest_url",
        ["https://a.b", "http://127.1:80"],
        ["http://a.b", "https://[fd00:ec2::254]", "file:///etc"],
    ),
    ("exchanges.proxy", ["http://p:3128", "socks5h://u:p@p:1080"], ["ftp://p", "socks5h://169.254.1.1:1080"]),
    ("aws.endpoint_url", ["https://s3.example", "http://localhost:9000"], ["http://minio:9000"]),
    (
        "redis.url",
        ["redis://h", "rediss://u:p@h:1/3", "redis://[::1]/"],
        ["redis://h/name", "http://h", "redis://:p#w@h/0"],
    ),
]


@pytest.mark.parametrize(("rule", "good", "bad"), ADDRESSES)
def test_addresses_that_lead_elsewhere_are_refused(rule: str, good: list[str], bad: list[str]) -> None:
    assert [value for value in good if complaint(rule, value) is not None] == []
    assert [value for value in bad if complaint(rule, value) is None] == []


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("exchanges.ws_url", "wss://10.0.0.7/ws"),
        ("exchanges.rest_url", "https://192.168.1.1"),
        ("exchanges.proxy", "socks5h://100.64.0.1:1080"),
        ("markets.base_url", "wss://[fd00::1]"),
        ("aws.endpoint_url", "https://167772167"),
    ],
)
def test_a_private_address_is_refused_unless_it_is_named(rule: str, value: str) -> None:
    why = complaint(rule, value)
    assert why is not None and why.startswith("is a private address; if it is meant, add ")
    named = ("10.0.0.0/8", "192.168.1.1", "100.64.0.1", "fd00::/8")
    assert complaint(rule, value, named) is None
    assert complaint(rule, value, ("example",)) == why


def test_a_named_host_may_go_without_tls_and_credentials_services_never() -> None:
    assert complaint("aws.endpoint_url", "http://store:9000", ("Store",)) is None
    assert complaint("exchanges.ws_url", "ws://replay:8443", ("replay",)) is None
    assert complaint("exchanges.ws_url", "http://replay:8443", ("replay",)) is not None
    named = ("169.254.169.254", "0.0.0.0/0", "::/0")
    for host in (
        "169.254.169.254", "[fd00:ec2::254]", "100.100.100.200", "168.63.129.16", "192.0.0.192", "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]", "[64:ff9b::168.63.129.16]", "[2002:a9fe:a9fe::1]", "[2002:6464:64c8::]",
    ):  # fmt: skip
        assert "link-local" in str(complaint("aws.endpoint_url", f"https://{host}", named))
        assert "link-local" in str(complaint("redis.url", f"redis://{host}"))


def test_what_a_gateway_turns_into_a_private_address_is_private_and_its_loopback_is_not_this_machine() -> None:
    for host in ("64:ff9b::10.0.0.7", "2002:a00:7::1", "64:ff9b::127.0.0.1", "2002:7f00:1::1", "64:ff9b:1::1.2.3.4"):
        why = str(complaint("aws.endpoint_url", f"https://[{host}]"))
        assert why.startswith("is a private address; if it is meant, add "), host
        assert complaint("aws.endpoint_url", f"https://[{host}]", (host,)) is None
        assert complaint("aws.endpoint_url", f"http://[{host}]") is not None
        assert peer_complaint(host, "venue.example") is not None
    for host in ("64:ff9b::3.5.140.2", "2002:305:8c02::1"):
        assert complaint("aws.endpoint_url", f"https://[{host}]") is None
        assert peer_complaint(host, "venue.example") is None


def test_a_redis_is_at_home_in_a_private_network_and_keeps_its_certificates_verified() -> None:
    assert complaint("redis.url", "redis://10.0.0.7:6379/0") is None
    assert complaint("redis.url", "rediss://h:1/0?ssl_cert_reqs=required&ssl_ca_certs=/ca.pem") is None
    for query in (
        "ssl_cert_reqs=none",
        "a=b&ssl_cert_reqs=CERT_NONE",
        "ssl_check_hostname=false",
        "ssl_cert_reqs=optional",
    ):
        assert "switches the verification" in str(complaint("redis.url", f"rediss://h/0?{query}")), query


@pytest.mark.parametrize("rule", ["exchanges.ws_url", "exchanges.rest_url", "aws.endpoint_url", "markets.base_url"])
def test_a_password_in_an_endpoint_is_refused(rule: str) -> None:
    scheme = "wss" if rule in ("exchanges.ws_url", "markets.base_url") else "https"
    assert str(complaint(rule, f"{scheme}://me:pa55@venue.example")).startswith("holds a user or password")


def test_what_is_no_host_is_no_private_host() -> None:
    assert complaint("security.private_hosts", ("store", "10.0.0.0/8", "fd00::1", "a.b-c.internal")) is None
    for wrong in ("10.0.0.7/8", "http://store", "*", "", "a b"):
        assert f"names {wrong!r}, which is no host" in str(complaint("security.private_hosts", ("ok", wrong)))


def test_names_that_could_leave_their_directory_are_refused() -> None:
    good = ["collector", "a.b-c_d", "5", "x" * 64]
    bad = ["", ".a", "a..b", "a/b", "a\\b", "a b", "a%2e", "é", "x" * 65, "a\n", "a\0"]
    assert ([name for name in bad if is_name(name)], [name for name in good if not is_name(name)]) == ([], [])


@given(st.text(max_size=20), st.text("abc", max_size=5))
def test_a_password_in_an_address_is_never_shown(rest: str, user: str) -> None:
    assert "CANARY" not in shown("redis.url", f"redis://{user}:CANARY{rest}@host:6379/0")


@pytest.mark.parametrize(
    ("rule", "value", "expected"),
    [
        ("redis.url", "redis://u:p@h:1/0?ssl_cert_reqs=required&ssl_password=x",
         "redis://u:********@h:1/0?ssl_cert_reqs=required&ssl_password=********"),
        ("redis.url", "redis://h:6379/0", "redis://h:6379/0"),
        ("aws.access_key", "AKIA", "********"),
        ("aws.access_key", None, "none"),
        ("web.token", "sixteen-characters", "********"),
        ("collector.feeds", ("orderbook", "trades"), "orderbook, trades"),
    ],
)  # fmt: skip
def test_values_are_shown_without_their_secrets(rule: str, value: object, expected: str) -> None:
    assert shown(rule, value) == expected


def test_a_secret_of_our_own_is_long_enough_not_to_be_guessed() -> None:
    assert complaint("web.token", "0123456789abcdef") is None
    assert "at least 16" in (complaint("web.token", "0123456789abcde") or "")


def test_every_number_has_bounds_and_its_default_lies_within() -> None:
    classes = {**SECTIONS, "exchanges": ExchangeSettings, "markets": MarketGroup}
    numbers = {
        f"{name}.{key}"
        for name, cls in classes.items()
        for key, hint in get_type_hints(cls).items()
        if hint in (int, float, int | None, float | None)
    }
    assert set(BOUNDS) == numbers
    defaults = {f"{name}.{f.name}": f.default for name, cls in SECTIONS.items() for f in fields(cls)}
    assert {key: complaint(key, default) for key, default in defaults.items() if complaint(key, default)} == {}


@given(st.sampled_from(sorted(BOUNDS)), st.floats(allow_nan=False))
def test_bounds_hold_for_every_number(rule: str, number: float) -> None:
    least, greatest = BOUNDS[rule]
    assert (complaint(rule, number) is None) == (least <= number <= greatest)
