"""The whole collector on one machine with the user's settings."""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from app.clock import monotonic_s
from app.config import NO_FILES, Loaded
from app.errors import BufferUnavailable, SettingsError
from app.launch import redis_server
from app.launch.processes import Processes, commands
from app.pipeline import periodic
from app.pipeline.supervise import drain_spools
from app.wiring import LOCK_SECS, Wiring

#: For the last flush, and for the lock of one that was killed to run out.
LAST_FLUSH_S = LOCK_SECS + 10


class Machine:
    """Redis where the user names none, and every process type."""

    def __init__(self, loaded: Loaded, environ: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._settings, self._say = loaded.settings, say
        data = loaded.settings.database.path.parent.absolute()
        log_dir = loaded.settings.collector.log_dir
        self._logs = data / "logs" if log_dir == NO_FILES else log_dir.absolute()
        for directory in (data, self._logs):
            directory.mkdir(parents=True, exist_ok=True)
        self._environ = dict(environ)
        if log_dir != NO_FILES:  # what goes to stderr is kept beside the files, and never deleted
            self._environ.setdefault("COLLECTOR_COLLECTOR__LOG_STDERR_LEVEL", "ERROR")
        self._redis: redis_server.RedisServer | None = None
        self._alone = _alone(data)
        if loaded.origins.get("redis.url", "default") == "default":
            binary = redis_server.find(environ)
            port = _redis_port(say)
            self._redis = redis_server.RedisServer(binary, data / "redis", port, self._logs / "redis.log")
            self._environ["COLLECTOR_REDIS__URL"] = self._redis.url
            say(f"Redis: {binary} at {self._redis.url}, files in {data / 'redis'}")
            self._settings = replace(self._settings, redis=replace(self._settings.redis, url=self._redis.url))
        self._processes: Processes | None = None
        self._wiring = Wiring(self._settings)

    def start(self, port: int, flower_port: int, exporter_port: int) -> None:
        """Start everything. Raises: SettingsError when a port is taken; CollectorError when settings cannot be used."""
        for wanted in (port, flower_port, exporter_port):
            redis_server.free_port(wanted)
        _ = self._wiring.ledger
        self._processes = Processes(self._environ, None, self._logs, self._say)
        todo = commands(
            port=port, flower_port=flower_port, exporter_port=exporter_port, streams=len(self._wiring.streams)
        )
        for name, command in todo.items():
            self._processes.start(name, command)
        self._say(
            f"{len(self._wiring.streams)} connections for {len(self._settings.all_markets())} markets; logs in {self._logs}"
        )
        self._say(f"dashboard:         http://127.0.0.1:{port}/  (/health /ready /metrics)")
        self._say(f"Flower:            http://127.0.0.1:{flower_port}/flower/")
        self._say("Ctrl-C drains and stops")

    def watch(self, stop: threading.Event) -> None:
        """Until `stop`: start again what dies. Raises: ProcessDied."""
        assert self._processes is not None
        while not stop.wait(1.0):
            self._processes.look()

    def stop(self) -> None:
        """What moves data, then one flush of what it left, then the rest; Redis last."""
        try:
            self._drain()
        finally:
            if self._processes is not None:
                self._processes.stop(timeout_s=10)
            if self._redis is not None:
                self._redis.stop()
            self._alone.close()
        self._say("stopped")

    def _drain(self) -> None:
        """No order is needed: whatever the others leave in spools and lists, the last flush here takes."""
        if self._processes is None:
            return
        self._say("draining")
        self._processes.stop("beat", "stream", "worker", "archive")
        until_s = monotonic_s() + LAST_FLUSH_S
        try:
            while True:
                empty = drain_spools(self._wiring)
                report = periodic.flush(self._wiring, threading.Event(), deadline_s=LAST_FLUSH_S)
                if (
                    not report.get("skipped") or monotonic_s() > until_s
                ):  # a worker that was killed keeps the lock a while
                    break
                time.sleep(0.5)
            self._wiring.report_counts()
        except BufferUnavailable as error:
            self._say(
                f"no last flush: {error}; what the streams left waits in Redis and in the spool for the next start"
            )
            return
        self._say(f"the last flush stored {report.get('stored', 0)} events")
        left = sum(depth.events for depth in self._wiring.buffer.depths())
        if left or not empty:
            self._say(f"{left} events wait in Redis{'' if empty else ', and some in the spool'} for the next start")


def _redis_port(say: Callable[[str], None]) -> int:
    """The port of the default [redis] url, so that other commands find it without being told; else a free one."""
    try:
        return redis_server.free_port(6379)
    except SettingsError:
        port = redis_server.free_port()
        say(f"port 6379 is taken; for other commands: export COLLECTOR_REDIS__URL=redis://127.0.0.1:{port}/0")
        return port


def _alone(data: Path) -> BinaryIO:
    """Holds the data directory for this machine's one `collector run`. Raises: SettingsError."""
    handle = (data / "run.lock").open("ab")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        raise SettingsError(f"another collector run is at work in {data}; stop it, or set [database] path") from None
    return handle
