"""rediss://: our own client and Celery's speak TLS, and only to whom a certificate proves to be meant."""

from __future__ import annotations

import os
import runpy
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from app.buffer.client import answering, connect
from app.errors import BufferUnavailable
from tests.support.authority import Authority
from tests.support.redis_process import RedisProcess
from tests.support.rig import CHECKOUT, Rig


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def encrypted(redis_server: RedisProcess, authority: Authority) -> Iterator[Callable[..., str]]:
    """`encrypted(ip=..., days=...)` is the address (without a query) of the session's Redis behind such a certificate."""
    listeners: list[socket.socket] = []

    def serve(ip: str = "127.0.0.1", days: int = 30) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        context = authority.context(ip, days=days)
        threading.Thread(target=accept, args=(listener, context), daemon=True).start()
        return f"rediss://127.0.0.1:{listener.getsockname()[1]}/0"

    def accept(listener: socket.socket, context: ssl.SSLContext) -> None:
        with suppress(OSError):
            while True:
                peer, _ = listener.accept()
                threading.Thread(target=relay, args=(peer, context), daemon=True).start()

    def relay(plain: socket.socket, context: ssl.SSLContext) -> None:
        with (
            suppress(OSError),
            plain,
            socket.create_connection(("127.0.0.1", redis_server.port)) as server,
            context.wrap_socket(plain, server_side=True) as peer,
        ):
            threading.Thread(target=pump, args=(server, peer), daemon=True).start()
            pump(peer, server)

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65_536):
                target.sendall(piece)

    yield serve
    for listener in listeners:
        listener.close()


def by_us(url: str) -> None:
    with answering():
        assert connect(url, 5).ping()


def by_celery(url: str, directory: Path) -> None:
    rig = Rig(directory, url)
    with patch.dict(os.environ, {"CONFIG_PATH": str(rig.path), "COLLECTOR_REDIS__URL": url}):
        config = runpy.run_path(str(CHECKOUT / "celeryconfig.py"))
    app = Celery(set_as_current=False)
    app.config_from_object({key: config[key] for key in config if key.startswith("broker_")})
    with app.connection_for_read() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=5)
        assert connection.default_channel.client.ping()


def test_a_certificate_that_proves_the_name_is_believed_by_both(
    encrypted: Callable[..., str], authority: Authority, tmp_path: Path
) -> None:
    url = f"{encrypted()}?ssl_ca_certs={authority.root}"
    by_us(url)
    by_celery(url, tmp_path)


@pytest.mark.parametrize("why", ["an unknown authority", "another name", "it has ended"])
def test_a_certificate_that_proves_nothing_is_refused_by_both(
    encrypted: Callable[..., str], authority: Authority, tmp_path: Path, why: str
) -> None:
    url = encrypted(ip="127.0.0.9" if why == "another name" else "127.0.0.1", days=-1 if why == "it has ended" else 30)
    query = "" if why == "an unknown authority" else f"?ssl_ca_certs={authority.root}"
    with pytest.raises(BufferUnavailable, match=r"CERTIFICATE_VERIFY_FAILED|certificate"):
        by_us(url + query)
    with pytest.raises(OperationalError, match=r"CERTIFICATE_VERIFY_FAILED|certificate"):
        by_celery(url + query, tmp_path)
