"""Which hosts an endpoint of the settings may lead to. Pure: names are resolved by whoever connects.

An endpoint is meant for the open internet, or for this very machine. Link-local addresses are where clouds hand out
credentials: never. Private ranges are the operator's own network, where a slip or a forged name would let Collector speak to
things that trust it: only hosts that `[security] private_hosts` lists, which may also go without TLS.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address

#: Metadata services outside the link-local ranges.
#: Sources: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html,
#: https://www.alibabacloud.com/help/en/ecs/user-guide/view-instance-metadata
_METADATA = {ip_address("fd00:ec2::254"), ip_address("100.100.100.200")}
#: Shared by carriers' customers (RFC 6598): neither private nor global to `ipaddress`.
_SHARED = ip_network("100.64.0.0/10")

LINK_LOCAL = "is a link-local address, where clouds hand out credentials; it is never connected to, name another host"


def address_of(host: str) -> Address | None:
    """The address a numeric host means, in all the spellings a resolver takes (2852039166 is 169.254.169.254)."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        try:
            return IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_here(host: str) -> bool:
    """Whether `host` is this machine by its own words, without asking a resolver."""
    address = address_of(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def is_listed(host: str, private_hosts: Collection[str]) -> bool:
    """Whether the operator named this host: by name, by address, or by a network (`10.0.0.0/8`) that it lies in."""
    address = address_of(host)
    return any(
        host.lower() == one.lower() or (address is not None and is_network(one) and address in ip_network(one))
        for one in private_hosts
    )


def is_network(text: str) -> bool:
    """Whether `text` is an address or a network."""
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def host_complaint(host: str, private_hosts: Collection[str] = ()) -> str | None:
    """What is wrong with connecting to `host`, as the end of a sentence; None for a name, whose address nobody knows yet."""
    address = address_of(host)
    if address is None or address.is_loopback:
        return None
    return _complaint(address, is_listed(host, private_hosts), host)


def peer_complaint(peer: str, host: str, private_hosts: Collection[str] = ()) -> str | None:
    """What is wrong with `peer`, the address that a connection to `host` came to, as a sentence; None: nothing."""
    address = address_of(peer)
    if address is None or (address.is_loopback and is_here(host)):
        return None
    listed = is_listed(host, private_hosts) or is_listed(peer, private_hosts)
    why = _complaint(address, listed, host)
    return None if why is None else f"{host} leads to {peer}, which {why}"


def _complaint(address: Address, listed: bool, host: str) -> str | None:
    if address.is_link_local or address in _METADATA:
        return LINK_LOCAL
    if (address.is_private or address in _SHARED) and not listed:
        return f"is a private address; if it is meant, add {host!r} to [security] private_hosts"
    return None
