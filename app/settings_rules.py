"""What single values must be: bounds, names, addresses. Pure: a value in, a complaint or None out.

A complaint is the end of a sentence whose beginning names key, value and origin; it ends with the remedy.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import SplitResult, urlsplit, urlunsplit

from app.addresses import host_complaint, is_here, is_listed, is_network

#: Least and greatest value, both allowed, in the unit of the key.
BOUNDS: dict[str, tuple[float, float]] = {
    "collector.batch_interval_secs": (0.1, 3600),
    "collector.archive_interval_secs": (60, 86_400),
    "collector.max_batch_size": (1, 1_000_000),
    "collector.metrics_port": (1, 65_535),
    "collector.log_retention_days": (1, 3650),
    "archive.deadline_secs": (1, 86_400),
    "websocket.message_timeout_secs": (0.1, 86_400),
    "websocket.initial_retry_delay_secs": (0.01, 3600),
    "websocket.max_retry_delay_secs": (0.01, 86_400),
    "websocket.connect_timeout_secs": (0.1, 300),
    "websocket.rotate_secs": (0, 7 * 86400),
    "websocket.max_frame_bytes": (1024, 2**30),
    "websocket.cpu_pin": (-1, 4095),
    "redis.timeout_secs": (0.05, 60),
    "buffer.batch_interval_ms": (1, 10_000),
    "buffer.batch_max_events": (1, 100_000),
    "buffer.stream_max_bytes": (1024, 2**40),
    "buffer.process_max_bytes": (1024, 2**40),
    "buffer.list_max_bytes": (1024, 2**40),
    "buffer.lease_secs": (1, 3600),
    "spool.max_bytes": (1024, 2**50),
    "storage.segment_secs": (5, 86_400),
    "storage.max_local_bytes": (0, 2**60),
    "storage.quarantine_max_bytes": (1024, 2**50),
    "storage.price_per_gb_month": (0, 1000),
    "quality.rest_check_secs": (0, 86_400),
    "exchanges.connections": (1, 1000),
    "markets.data_timeout_secs": (0.1, 86_400),
}

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

CHOICES: dict[str, tuple[str, ...]] = {
    "collector.log_stderr_level": LEVELS,
    "storage.mode": ("local", "s3", "both"),
}

#: Texts that become part of a path, an object key or a Redis key.
NAMES = frozenset({"aws.region", "aws.bucket", "aws.home_server_name", "redis.prefix"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")

#: Scheme that is always right, and the one that is allowed on this machine and on hosts of the operator's own network only.
ADDRESSES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "aws.endpoint_url": (("https",), ("http",)),
    "redis.url": (("redis", "rediss"), ()),
    "exchanges.ws_url": (("wss",), ("ws",)),
    "exchanges.rest_url": (("https",), ("http",)),
    "exchanges.proxy": (("http", "https", "socks4", "socks4a", "socks5", "socks5h"), ()),
    "markets.base_url": (("wss",), ("ws",)),
}

#: Where a user and a password may stand in the address.
_WITH_PASSWORD = frozenset({"redis.url", "exchanges.proxy"})
#: What switches the verification of certificates off, in the query of a rediss:// address.
_UNVERIFIED = re.compile(r"(?i)(?:^|&)ssl_(?:cert_reqs=(?!required(?:&|$))|check_hostname=(?:0|f|n))")

#: Shown as stars, whole.
SECRETS = frozenset({"aws.access_key", "aws.secret_key", "exchanges.api_key", "exchanges.api_secret", "web.token"})
STARS = "********"

#: Secrets that we choose ourselves: nobody is to guess one.
LEAST_LENGTH = {"web.token": 16}


def complaint(rule: str, value: object, private_hosts: Collection[str] = ()) -> str | None:
    """What is wrong with `value` under the rules of `rule`, such as `redis.prefix` or `exchanges.ws_url`.

    `private_hosts`: hosts of the operator's own network, as `[security] private_hosts` lists them.
    """
    if rule in BOUNDS and isinstance(value, int | float):
        least, greatest = BOUNDS[rule]
        if not least <= value <= greatest:
            return f"is out of bounds; give a value from {least:,} to {greatest:,}"
    elif isinstance(value, str):
        if len(value) < LEAST_LENGTH.get(rule, 0):
            return f"is too short; give at least {LEAST_LENGTH[rule]} characters, as `openssl rand -hex 16` makes them"
        if rule in CHOICES and value not in CHOICES[rule]:
            return f"is not one of {', '.join(CHOICES[rule])}; choose one of them"
        if rule in NAMES and not is_name(value):
            return "is no plain name; use letters, digits, '.', '_', '-', at most 64, no '..', a letter or digit first"
        if rule in ADDRESSES:
            return _address_complaint(rule, value, private_hosts)
        if rule == "collector.log_level":
            try:
                log_levels(value)
            except ValueError as error:
                return str(error)
    elif rule == "security.private_hosts" and isinstance(value, tuple):
        wrong = [one for one in value if not is_network(one) and not _HOST.fullmatch(one)]
        if wrong:
            return f"names {wrong[0]!r}, which is no host; write names, addresses or networks such as 10.0.0.0/8"
    return None


def log_levels(text: str) -> dict[str, str]:
    """Logger -> level; `""` is all others. Raises: ValueError with the end of a sentence.

    >>> log_levels("info,celery=warning,collector.connection=debug")
    {'': 'INFO', 'celery': 'WARNING', 'collector.connection': 'DEBUG'}
    """
    levels: dict[str, str] = {}
    for part in text.split(","):
        name, given, word = part.strip().rpartition("=")
        level = {"WARN": "WARNING"}.get(word.strip().upper(), word.strip().upper())
        name = name.strip()
        if level not in LEVELS:
            raise ValueError(
                f"has no level {word.strip()!r}; levels are {', '.join(LEVELS)}, as in info,celery=warning"
            )
        if given and not re.fullmatch(r"[A-Za-z_][\w.-]*", name):
            raise ValueError(f"has no logger {name!r}; write such as info,celery=warning,collector.connection=debug")
        if name in levels:
            raise ValueError(f"says the level of {name or 'all loggers'} twice; remove one of them")
        levels[name] = level
    return levels


def is_name(text: str) -> bool:
    """Whether `text` may stand in a path, an object key, a Redis key or a label."""
    return _NAME.fullmatch(text) is not None and ".." not in text


def shown(rule: str, value: object) -> str:
    """`value` for a person: secrets as stars, passwords inside addresses as stars, None as `none`."""
    if value is None:
        return "none"
    if rule in SECRETS:
        return STARS
    if isinstance(value, str):
        return _without_password(value) if rule in ADDRESSES else value
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    return str(value)


def _address_complaint(rule: str, url: str, private_hosts: Collection[str]) -> str | None:
    schemes, loopback_schemes = ADDRESSES[rule]
    wanted = " or ".join(f"{scheme}://" for scheme in schemes)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not host or port == 0 or re.search(r"[\s\x00-\x1f]", url):
        return f"is not an address; write {wanted}host[:port], special characters of a password as %XX"
    if "redis" in schemes and not re.fullmatch(r"/?|/\d+", parts.path):
        return "names no database; end it with its number, such as /0"
    # A Redis is at home in a private network.
    why = host_complaint(host, (host,) if rule == "redis.url" else private_hosts)
    if why is not None:
        return why
    if rule not in _WITH_PASSWORD and "@" in parts.netloc:
        return "holds a user or password, which would be sent along; leave them out"
    if rule == "redis.url" and _UNVERIFIED.search(parts.query):
        return "switches the verification of certificates off; leave that out, and name your authority by ssl_ca_certs"
    if parts.scheme in schemes:
        return None
    if parts.scheme in loopback_schemes and (is_here(host) or is_listed(host, private_hosts)):
        return None
    only = f" ({loopback_schemes[0]}:// for this machine and [security] private_hosts only)" if loopback_schemes else ""
    return f"has the wrong scheme; use {wanted}{only}"


def _without_password(url: str) -> str:
    try:
        parts: SplitResult = urlsplit(url)
    except ValueError:
        return STARS if "@" in url else url
    user, at, place = parts.netloc.rpartition("@")
    if (at and not parts.scheme) or "@" in parts.path + parts.query + parts.fragment:
        return STARS  # a password with a raw '/', '?' or '#': it cannot be told where it ends
    name, colon, _ = user.partition(":")
    query = re.sub(r"(?i)((?:password|passwd|secret|token|key)=)[^&]*", rf"\1{STARS}", parts.query)
    netloc = f"{name}{colon}{STARS if colon else ''}@{place}" if at else place
    return urlunsplit(parts._replace(netloc=netloc, query=query))
