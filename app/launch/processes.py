"""The processes of one machine: started, watched, started again when one dies, stopped in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from app.errors import CollectorError

#: A process that dies so often within a minute is not started again.
MAX_RESTARTS = 3
RESTART_WINDOW_S = 60.0


def commands(*, port: int, flower_port: int, exporter_port: int, streams: int) -> dict[str, list[str]]:
    """The command of every process type, by its name in the Procfile."""
    python = sys.executable
    # A bound, not a number of threads that are made: there is room for streams that are added while it runs.
    threads = str(streams + 64)
    celery = [python, "-m", "celery", "-A", "app"]
    worker = [*celery, "worker", "--without-gossip", "--without-mingle", "--loglevel", "INFO"]
    return {
        "web": [python, "-m", "app", "web", "--host", "127.0.0.1", "--port", str(port)],
        "stream": [*worker, "-P", "threads", "-Q", "streams", "-c", threads, "-n", f"stream-{os.getpid()}@%h"],
        "worker": [*worker, "-P", "threads", "-Q", "default,flush,gaps", "-c", "3", "-n", f"worker-{os.getpid()}@%h"],
        "archive": [*worker, "-P", "threads", "-Q", "archive", "-c", "1", "-n", f"archive-{os.getpid()}@%h"],
        "beat": [*celery, "beat", "--pidfile="],
        "flower": [
            *celery, "flower", "--address=127.0.0.1", f"--port={flower_port}", "--read_only=True", "--url-prefix=flower",
            # One that was killed says no goodbye: its metrics go a minute after its last heartbeat.
            "--purge_offline_workers=60",
        ],
        "exporter": [python, "-m", "app", "exporter", "--addr", f"127.0.0.1:{exporter_port}"],
    }  # fmt: skip


class ProcessDied(CollectorError):
    """`name` ended with `code` more often than is reasonable."""

    def __init__(self, name: str, code: int, log: Path) -> None:
        super().__init__(name, code, log)
        self.name, self.code, self.log = name, code, log

    def __str__(self) -> str:
        return f"process {self.name} ended with {self.code}, again and again; see {self.log}"


class Processes:
    """Children of this process; what each says on stdout and stderr goes to a file of its own, by its name."""

    def __init__(
        self, environ: Mapping[str, str], directory: Path | None, logs: Path, say: Callable[[str], None]
    ) -> None:
        self.environ, self._directory, self._logs, self._say = dict(environ), directory, logs, say
        self._commands: dict[str, tuple[list[str], dict[str, str]]] = {}
        #: Held while processes are started and taken off: whoever stops one is not overtaken by `look`.
        self._lock = threading.RLock()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._deaths: dict[str, list[float]] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def start(self, name: str, command: list[str], environ: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own, so that Ctrl-C reaches us alone and we stop it in order.

        `environ`: what it has in its environment beside everybody's.
        """
        more = dict(environ or {})
        with self._lock, self.log(name).open("ab") as output:
            process = subprocess.Popen(
                command, cwd=self._directory, env={**self.environ, **more}, stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, start_new_session=True,
            )  # fmt: skip
            self._commands[name] = command, more
            self._running[name] = process
        return process

    def pid(self, name: str) -> int:
        """Of the process that has this name now. Raises: KeyError where none has."""
        return self._running[name].pid

    def start_again(self, name: str) -> None:
        """Start one that was stopped, as it was."""
        self.start(name, *self._commands[name])

    def look(self) -> None:
        """Start again what has died. Raises: ProcessDied for one that keeps dying."""
        now_s = time.monotonic()
        with self._lock:
            for name, process in list(self._running.items()):
                code = process.poll()
                if code is None:
                    continue
                deaths = [s for s in self._deaths.get(name, []) if now_s - s < RESTART_WINDOW_S] + [now_s]
                self._deaths[name] = deaths
                if len(deaths) > MAX_RESTARTS:
                    raise ProcessDied(name, code, self.log(name))
                self._say(f"{name} ended with {code}; starting it again (see {self.log(name)})")
                self.start(name, *self._commands[name])

    def stop(self, *names: str, timeout_s: float = 30.0) -> dict[str, int]:
        """SIGTERM to these (all where none is named), wait, SIGKILL what is left; returns the exit codes."""
        with self._lock:
            wanted = [name for name in names or tuple(self._running) if name in self._running]
            chosen = {name: self._running.pop(name) for name in wanted}
        for process in chosen.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        until_s = time.monotonic() + timeout_s
        codes = {}
        for name, process in chosen.items():
            try:
                codes[name] = process.wait(max(0.1, until_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._say(f"{name} did not end within {timeout_s:.0f} s and is killed")
                os.killpg(process.pid, signal.SIGKILL)
                codes[name] = process.wait()
        return codes
