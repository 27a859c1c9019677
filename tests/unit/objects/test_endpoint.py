from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import SettingsError
from app.objects.endpoint import checked_endpoint, is_loopback, leads_astray


@pytest.mark.parametrize(
    "url",
    [
        "https://s3.eu-central-1.wasabisys.com",
        "https://minio.internal:9000",
        "https://3.5.140.2:9000",
        "https://[2600:1fa0::7]:9000/",
        "https://gateway.example/s3",
        "http://localhost:9000",
        "http://127.0.0.1:9000",
        "http://127.8.9.10",
        "http://[::1]:9000",
    ],
)
def test_https_anywhere_and_http_on_this_host_are_endpoints(url: str) -> None:
    assert checked_endpoint(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://minio:9000",
        "http://3.5.140.2:9000",
        "http://localhost.example:9000",
        "http://127.0.0.1.example:9000",
        "ftp://127.0.0.1",
        "file://localhost/etc",
        "//s3.example",
    ],
)
def test_what_travels_in_the_clear_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^\[aws\] endpoint_url .* is not encrypted: use https"):
        checked_endpoint(url)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.170.2",
        "2852039166",
        "0xA9FEA9FE",
        "0xa9.254.43518",
        "0251.0376.0251.0376",
        "[::ffff:169.254.169.254]",
        "[fe80::1]",
        "[fd00:ec2::254]",
    ],
)
def test_the_metadata_service_is_refused_however_it_is_spelt(scheme: str, host: str) -> None:
    with pytest.raises(SettingsError, match="link-local"):
        checked_endpoint(f"{scheme}://{host}/latest")


@pytest.mark.parametrize("url", ["", "https://", "minio:9000", "https://:9000", "https://host:port", "https://[::1"])
def test_what_is_no_url_is_refused_with_how_one_looks(url: str) -> None:
    with pytest.raises(SettingsError, match=r"write it as https://host\[:port\]"):
        checked_endpoint(url)


@pytest.mark.parametrize("url", ["https://host/?x=1", "https://host/#x"])
def test_a_query_or_fragment_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="has a query or fragment"):
        checked_endpoint(url)


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(SettingsError, match="holds a user or password: move them to AWS_ACCESS_KEY") as raised:
        checked_endpoint("https://me:hunter2@s3.example")
    assert "hunter2" not in str(raised.value)


@given(st.text())
def test_any_text_is_an_endpoint_or_a_fault_of_the_settings(text: str) -> None:
    try:
        checked_endpoint(text)
    except SettingsError:
        return
    assert text.lstrip().lower().startswith(("http://", "https://"))


def test_only_this_host_is_loopback() -> None:
    assert is_loopback("http://localhost:1")
    assert is_loopback("http://[::1]")
    assert not is_loopback("https://s3.example")
    assert not is_loopback("https://0.0.0.0")


@pytest.mark.parametrize(
    "host", ["10.0.0.7", "172.16.0.1", "192.168.1.1", "100.64.0.1", "0.0.0.0", "[fd00::7]", "167772167"]
)
def test_a_private_address_is_refused_unless_the_operator_named_it(host: str) -> None:
    url = f"https://{host}:9000"
    with pytest.raises(
        SettingsError, match=r"is a private address; if it is meant, add .* to \[security\] private_hosts"
    ):
        checked_endpoint(url)
    assert checked_endpoint(url, ["other", host.strip("[]")]) == url


def test_a_host_of_the_operators_own_network_may_go_without_tls() -> None:
    assert checked_endpoint("http://store:9000", ["store"]) == "http://store:9000"
    assert checked_endpoint("http://10.1.2.3:9000", ["10.0.0.0/8"]) == "http://10.1.2.3:9000"
    with pytest.raises(SettingsError, match="is not encrypted"):
        checked_endpoint("http://store.example:9000", ["store"])
    with pytest.raises(SettingsError, match="link-local"):
        checked_endpoint("http://169.254.169.254", ["169.254.169.254"])


def test_a_name_is_refused_by_what_it_resolves_to(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        "s3.example": ["3.5.140.2", "10.0.0.7"],
        "open.example": ["3.5.140.2"],
        "meta.example": ["169.254.169.254"],
    }

    def resolved(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        if host not in names:
            raise socket.gaierror(host)
        return [(0, 0, 0, "", (address, 0)) for address in names[host]]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    assert leads_astray("https://open.example/b") is None
    assert leads_astray("https://unknown.example/b") is None, "the connection says so better"
    assert "s3.example leads to 10.0.0.7, which is a private address" in str(leads_astray("https://s3.example/b"))
    assert leads_astray("https://s3.example/b", ["s3.example"]) is None
    assert "credentials" in str(leads_astray("https://meta.example", ["meta.example", "169.254.0.0/16"]))
