"""The Redis client and the names of the keys; every Redis error becomes BufferUnavailable in one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files

import redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from app.errors import BufferFull, BufferSilent, BufferUnavailable

#: A connection for each thread that asks at the same time: 200 streams take their leases at once, redis-py's own bound is 100.
MOST_CONNECTIONS = 10_000


def connect(url: str, timeout_s: float) -> redis.Redis:
    """A client whose calls raise after `timeout_s` instead of waiting; nothing is sent before the first call."""
    return redis.Redis.from_url(
        url,
        max_connections=MOST_CONNECTIONS,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        socket_keepalive=True,
        health_check_interval=10,
        retry=Retry(NoBackoff(), 0),
        client_name="collector",
    )


def verified(url: str) -> str:
    """`url` for Celery, which verifies no certificate of a rediss:// address that does not ask for it (seen with kombu 5.7).

    >>> verified("rediss://h/0"), verified("rediss://h/0?ssl_ca_certs=/ca.pem")
    ('rediss://h/0?ssl_cert_reqs=required', 'rediss://h/0?ssl_ca_certs=/ca.pem&ssl_cert_reqs=required')
    >>> verified("redis://h/0"), verified("rediss://h/0?ssl_cert_reqs=required")
    ('redis://h/0', 'rediss://h/0?ssl_cert_reqs=required')
    """
    if not url.startswith("rediss:") or "ssl_cert_reqs=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"


def script(client: redis.Redis, name: str) -> Script:
    """The script app/buffer/<name>.lua."""
    return client.register_script(files("app.buffer").joinpath(f"{name}.lua").read_text("utf-8"))


@contextmanager
def answering() -> Iterator[None]:
    """Turns what redis-py raises into BufferUnavailable: BufferSilent where no answer came, BufferFull where Redis is full."""
    try:
        yield
    except redis.OutOfMemoryError as error:
        raise BufferFull(f"Redis: OOM, it is at its maxmemory: {error}") from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise BufferSilent(f"Redis: {type(error).__name__}: {error}") from error
    except redis.RedisError as error:
        raise BufferUnavailable(f"Redis: {type(error).__name__}: {error}") from error
