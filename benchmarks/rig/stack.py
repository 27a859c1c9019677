"""What is measured, put together as a user has it: Redis, stream workers, the worker that flushes, beat; and the venue.

Everything on 127.0.0.1, in a directory of its own, ended by pid. Nothing of the application is changed: settings say
where the venue is, SSL_CERT_FILE whom to believe.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.config import load
from app.launch import redis_server
from app.launch.environment import clean
from app.launch.processes import Processes, commands
from app.pipeline import periodic
from app.store.ledger import OPEN, SEALED, SEALING
from app.wiring import Wiring

HERE = Path(__file__).resolve().parent
TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
NEVER = threading.Event()

# Told to end, a benchmark ends what it started.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


class Load:
    """The venue (venue.py) and what it says of itself. It keeps off the processor `keep_off`, as a venue far away does."""

    def __init__(self, directory: Path, keep_off: int = -1) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "venue.py"), str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if others := os.sched_getaffinity(0) - {keep_off}:
            os.sched_setaffinity(self.process.pid, others)
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        self.url, self.certificate = told["url"], told["certificate"]
        self.last: dict[str, Any] = {"sent": 0, "owed": 0, "connections": 0, "cpu": 0.0}
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.last = json.loads(line)

    def rate(self, frames_per_s: float) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{frames_per_s}\n")
        self.process.stdin.flush()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)


class Stack:
    """`connections` of `markets` markets each, recorded by `stream_processes` workers."""

    def __init__(
        self,
        directory: Path,
        *,
        connections: int,
        markets: int = 1,
        stream_processes: int = 1,
        only: tuple[str, ...] = ("stream", "worker", "beat"),
        feeds: tuple[str, ...] = ("orderbook", "trades"),
        settings: Mapping[str, Mapping[str, object]] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.load = Load(directory, int(str((settings or {}).get("websocket", {}).get("cpu_pin", -1))))
        self.redis = redis_server.RedisServer(
            redis_server.find(os.environ), directory / "redis", redis_server.free_port(), directory / "redis.log"
        )
        tables: dict[str, dict[str, object]] = {
            "collector": {"feeds": list(feeds)},
            "database": {"path": f"{directory}/data/collector.db"},
            "redis": {"url": self.redis.url},
            "exchanges.binance": {"ws_url": self.load.url, "rest_url": self.load.url.replace("wss", "https")},
        }
        for name, values in (settings or {}).items():
            tables.setdefault(name, {}).update(values)
        lines = []
        for name, values in tables.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        for at in range(connections):
            symbols = [f"c{at}m{n}usdt" for n in range(markets)]
            lines += ["[[markets]]", 'exchange = "binance"', f"symbols = {json.dumps(symbols)}"]
            lines += [f'base_url = "{self.load.url}/c{at}"']
        path = directory / "settings.toml"
        path.write_text("\n".join([*lines, ""]))
        self.wiring = Wiring(load(path, {}).settings)
        _ = self.wiring.ledger
        environment = {
            **clean(os.environ), "CONFIG_PATH": str(path), "SSL_CERT_FILE": self.load.certificate, **(environ or {}),
        }  # fmt: skip
        self.processes = Processes(environment, None, directory / "logs", lambda text: print(text, file=sys.stderr))
        ports = [redis_server.free_port() for _ in range(3)]
        every = commands(port=ports[0], flower_port=ports[1], exporter_port=ports[2], streams=connections)
        self.web_port = ports[0]
        for name in only:
            self.processes.start(name, every[name])
        for extra in range(1, stream_processes):
            command = [word.replace("stream-", f"stream{extra}-") for word in every["stream"]]
            spool = {"COLLECTOR_SPOOL__DIR": str(directory / f"spool{extra}")}
            self.processes.start(f"stream{extra}", command, spool)
        self._connections = connections

    def wait_open(self, within_s: float = 120) -> float:
        """Seconds until every connection is there. The venue's budget of connection attempts is not what is measured."""
        began_s = time.monotonic()
        while self.load.last["connections"] < self._connections:
            self.wiring.redis.delete(f"{self.wiring.settings.redis.prefix}:budget:binance:connect")
            if time.monotonic() - began_s > within_s:
                raise SystemExit(
                    f"only {self.load.last['connections']} of {self._connections} came; see {self.directory}/logs"
                )
            time.sleep(0.2)
        return time.monotonic() - began_s

    # what is seen

    def refused(self) -> int:
        """Events that a full memory queue refused so far."""
        return sum(state["refused"] for state in self._states())

    def received(self) -> int:
        """Events received so far, as the streams say it about once a second."""
        return sum(state["events"] for state in self._states())

    def queued(self) -> int:
        """Events in memory queues."""
        return sum(state["queued"] for state in self._states())

    def _states(self) -> list[dict[str, Any]]:
        return list(self.wiring.board.states(list(self.wiring.streams)).values())

    def in_redis(self) -> int:
        """Events in lists."""
        return sum(depth.events for depth in self.wiring.buffer.depths())

    def redis_bytes(self) -> int:
        """Bytes in lists."""
        return sum(depth.bytes for depth in self.wiring.buffer.depths())

    def stored(self) -> int:
        """Rows in segments."""
        import sqlite3

        rows = 0
        for entry in self.wiring.ledger.segments(OPEN, SEALING, SEALED):
            path = self.wiring.settings.storage.segments_path / entry.path
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
                made = connection.execute("SELECT name FROM sqlite_schema WHERE name IN ('orderbooks', 'trades')")
                for (table,) in made.fetchall():  # none where the file has just been made
                    rows += connection.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()[0]
            connection.close()
        return rows

    def pids(self) -> dict[str, int]:
        """Process name -> pid, Redis and venue too."""
        names = [name for name in ("stream", "stream1", "worker", "archive", "beat", "web", "flower", "exporter")]
        found = {}
        for name in names:
            try:
                found[name] = self.processes.pid(name)
            except KeyError:
                pass
        return {**found, "redis": self.redis.process.pid, "venue": self.load.process.pid}

    def flush(self) -> None:
        """Whatever waits in Redis, into the segment."""
        periodic.flush(self.wiring, NEVER, deadline_s=None)

    def close(self) -> None:
        self.load.rate(0)
        self.processes.stop(timeout_s=20)
        self.load.close()
        self.redis.stop()


class Cpu:
    """Processor time of processes, since it was made or asked last."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._before = self._now()

    def _now(self) -> tuple[float, dict[str, float]]:
        return time.monotonic(), {name: cpu_s(pid) for name, pid in self._pids.items()}

    def cores(self) -> dict[str, float]:
        """Process -> cores it used since."""
        (before_s, before), (now_s, now) = self._before, self._now()
        self._before = now_s, now
        return {name: round((now[name] - before[name]) / (now_s - before_s), 3) for name in now}


def cpu_s(pid: int) -> float:
    """Seconds of processor that a process and its threads have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mib(pid: int) -> float:
    """Resident memory, MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES / 2**20
