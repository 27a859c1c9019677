"""Where an S3 endpoint may be. Pure.

Objects and credentials must not travel in the clear, and no setting may turn Collector into a reader of a cloud host's
metadata service, which hands out credentials.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from app.errors import SettingsError

#: Metadata services outside the link-local ranges.
#: Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
_METADATA = {ip_address("fd00:ec2::254")}


def checked_endpoint(url: str) -> str:
    """`url` itself: https, or http to this very host.

    Raises: SettingsError, one sentence that names the key and the remedy and never repeats a password.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise _fault("is not a URL", "write it as https://host[:port]") from error
    if not host:
        raise _fault("has no host", "write it as https://host[:port]")
    if parts.username is not None or parts.password is not None:
        raise _fault("holds a user or password", "move them to AWS_ACCESS_KEY and AWS_SECRET_KEY")
    if parts.query or parts.fragment:
        raise _fault(f"{url!r} has a query or fragment", "write it as https://host[:port]")
    address = _address(host)
    if address is not None and (address.is_link_local or address in _METADATA):
        raise _fault(f"{url!r} is link-local, where hosts serve their credentials", "name the store's own host")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(url)):
        raise _fault(f"{url!r} is not encrypted", "use https; http is allowed to localhost only")
    return url


def is_loopback(url: str) -> bool:
    """Whether `url` stays on this host by its own words, without asking a resolver."""
    host = urlsplit(url).hostname or ""
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """The address that `host` spells, also as a resolver would take it without looking: 2852039166, 0xa9.254.43518."""
    try:
        address = ip_address(host)
    except ValueError:
        try:
            return IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _fault(fault: str, remedy: str) -> SettingsError:
    return SettingsError(f"[aws] endpoint_url {fault}: {remedy}")
