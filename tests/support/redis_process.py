"""A real Redis (or Valkey) as a process of the test run, on a private port; can be frozen, stopped and started again."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from app.errors import SettingsError
from app.launch import redis_server

#: Of the session's server; chosen at import, so that settings can name it before it runs.
PORT = redis_server.free_port()


class RedisProcess:
    """One server with its files in `directory`."""

    def __init__(self, directory: Path, port: int) -> None:
        self._binary = _binary()
        self._directory, self.port = directory, port
        self.url = f"redis://127.0.0.1:{port}/0"
        self.start()

    def start(self) -> None:
        """Start it (again), with whatever its directory holds."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._server = redis_server.RedisServer(self._binary, self._directory, self.port, self._directory / "log")

    def client(self) -> redis.Redis:
        """A back door."""
        return redis.Redis.from_url(self.url)

    def freeze(self) -> None:
        """SIGSTOP: connections stay, nothing answers."""
        os.kill(self._server.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self._server.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: what is not on its disk is gone."""
        self._server.process.kill()
        self._server.process.wait()

    def forget(self) -> None:
        """Kill it and take its disk away: what a Redis without persistence keeps over a restart."""
        self.kill()
        shutil.rmtree(self._directory)

    def stop(self) -> None:
        """End it; frozen ones are thawed first."""
        if self._server.process.poll() is None:
            self.thaw()
        self._server.stop()


def _binary() -> str:
    try:
        return redis_server.find(os.environ)
    except SettingsError as error:
        if "redis" in os.environ.get("COLLECTOR_TEST_REQUIRE", ""):
            pytest.fail(str(error))
        pytest.skip(str(error))


@contextmanager
def running(directory: Path, port: int | None = None) -> Iterator[RedisProcess]:
    """A server for the time of a `with`."""
    server = RedisProcess(directory, port or redis_server.free_port())
    try:
        yield server
    finally:
        server.stop()
