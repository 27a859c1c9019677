"""Where an S3 endpoint may be: by its own words, and by what its name resolves to.

Objects and credentials must not travel in the clear, and no setting may turn Collector into a reader of a cloud host's
metadata service, which hands out credentials.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from app.addresses import host_complaint, is_here, is_listed, peer_complaint
from app.errors import SettingsError


def checked_endpoint(url: str, private_hosts: Collection[str] = ()) -> str:
    """`url` itself: https, or http to this very host; `private_hosts` may be private, and go by http too.

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
    if (why := host_complaint(host, private_hosts)) is not None:
        raise SettingsError(f"[aws] endpoint_url {url!r} {why}")
    in_the_clear = parts.scheme == "http" and (is_here(host) or is_listed(host, private_hosts))
    if parts.scheme != "https" and not in_the_clear:
        raise _fault(
            f"{url!r} is not encrypted", "use https; http is allowed to localhost and [security] private_hosts only"
        )
    return url


def is_loopback(url: str) -> bool:
    """Whether `url` stays on this host by its own words, without asking a resolver."""
    return is_here(urlsplit(url).hostname or "")


def leads_astray(url: str, private_hosts: Collection[str] = ()) -> str | None:
    """Why nothing may be sent to `url`, by what its host resolves to now; None where it may, or where it does not resolve.

    boto3 resolves it once more when it connects; over TLS the peer has to prove the name, whatever it resolves to then.
    """
    host = urlsplit(url).hostname or ""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return None
    return next(filter(None, (peer_complaint(peer, host, private_hosts) for peer in sorted(found))), None)


def stay(params: dict[str, Any], **_: object) -> None:
    """For boto3 (`before-call`): this request goes to no other region.

    It would ask head_bucket where that is, which a store that redirects answers likewise, and so on without end (1.42).
    """
    params["context"].setdefault("s3_redirect", {})["redirected"] = True


def _fault(fault: str, remedy: str) -> SettingsError:
    return SettingsError(f"[aws] endpoint_url {fault}: {remedy}")
