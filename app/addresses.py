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
#: https://www.alibabacloud.com/help/en/ecs/user-guide/view-instance-metadata,
#: https://learn.microsoft.com/en-us/azure/virtual-network/what-is-ip-address-168-63-129-16, and Oracle's Compute Classic.
_METADATA = {ip_address(one) for one in ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")}
#: An operator's own though `ipaddress` does not call them private: shared by a carrier's customers (RFC 6598), and behind
#: a NAT64 of one's own (RFC 8215; from Python 3.13 on it does).
_OWN = ip_network("100.64.0.0/10"), ip_network("64:ff9b:1::/48")
#: A gateway takes the last four bytes for an IPv4 address (RFC 6052).
_NAT64 = ip_network("64:ff9b::/96")

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
    address = _beyond(address)
    if address.is_link_local or address in _METADATA:
        return LINK_LOCAL
    if (address.is_private or any(address in network for network in _OWN)) and not listed:
        return f"is a private address; if it is meant, add {host!r} to [security] private_hosts"
    return None


def _beyond(address: Address) -> Address:
    """Where packets to `address` come out: the IPv4 address that NAT64 or 6to4 (RFC 3056) has in it, else itself.

    Loopback in it is the gateway's and not this machine's, therefore `address_of` does not look so far.
    """
    if not isinstance(address, IPv6Address):
        return address
    if address in _NAT64:
        return IPv4Address(address.packed[-4:])
    return address.sixtofour or address
