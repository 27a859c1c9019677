"""An installation of its own: Redis, the built-in exchanges and every process, in one directory, on this machine alone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import httpx
import msgspec

from app.config import load
from app.errors import CollectorError, SettingsError
from app.launch import redis_server
from app.launch.environment import clean
from app.launch.processes import Processes, commands
from app.pipeline import periodic
from app.pipeline.supervise import drain_spools
from app.wiring import Wiring

CHECKOUT = Path(__file__).resolve().parents[2]
MARKETS = {
    "binance": ["btcusdt", "ethusdt"],
    "coinbase": ["BTC-USD", "ETH-USD"],
    "upbit": ["KRW-BTC", "KRW-ETH"],
    "okx": ["BTC-USDT", "ETH-USDT"],
    "bybit": ["BTCUSDT", "ETHUSDT"],
}
#: Processes that only look at workers; where processors are few the others get four times their time.
MONITORS, MONITORS_NICE = ("flower", "exporter"), 6
#: Section -> key -> value of settings.toml.
Tables = Mapping[str, Mapping[str, object]]


class Rehearsal:
    """From ports and directory to everything archived. `say` prints progress for people."""

    #: Beside the settings below: what this kind of rehearsal wants otherwise.
    tables: ClassVar[Tables] = {}
    markets: ClassVar[Mapping[str, list[str]]] = MARKETS
    #: Exchange -> what its group of markets says beside that.
    groups: ClassVar[Tables] = {}

    def __init__(
        self, directory: Path, port: int | None, rate: float, say: Callable[[str], None], *, seed: int | None = None
    ) -> None:
        self.directory = directory.absolute()
        if self.directory.exists() and any(self.directory.iterdir()):
            raise SettingsError(f"{self.directory} is not empty; a rehearsal needs a directory of its own")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"directory {self.directory} cannot be made: {error.strerror}") from error
        self.say = say
        self._rate, self._seed = rate, seed
        environment = clean(os.environ)
        ports = [redis_server.free_port(port), *(redis_server.free_port() for _ in range(3))]
        self.web_port, self.flower_port, self.exporter_port, self._redis_port = ports
        self._redis_binary = redis_server.find(os.environ)
        say(f"Redis: {self._redis_binary} on port {self._redis_port}")
        self.logs = self.directory / "logs"
        self.logs.mkdir(exist_ok=True)
        self.start_redis()
        self.sent = self.directory / "sent.jsonl"
        environment["CONFIG_PATH"] = str(self.directory / "settings.toml")
        self.processes = Processes(environment, CHECKOUT, self.logs, say)
        self._control = ""

    def start_redis(self) -> None:
        """Start it (again) on its port, with whatever its directory holds."""
        self.redis = redis_server.RedisServer(
            self._redis_binary, self.directory / "redis", self._redis_port, self.logs / "redis.log"
        )

    def start(self) -> None:
        """Exchanges first, then every process type. Raises: CollectorError when one does not come up."""
        path = self.directory / "settings.toml"
        path.write_text(self._settings(self._exchange_server()["venues"]))
        self.wiring = Wiring(load(path, {}).settings)
        _ = self.wiring.ledger
        for name, command in self.commands().items():
            process = self.processes.start(name, command)
            if name in MONITORS:  # all start at once, and those that record come first
                os.setpriority(os.PRIO_PROCESS, process.pid, MONITORS_NICE)
        self.say(f"settings and data: {self.directory}")
        self.say(f"dashboard:         http://127.0.0.1:{self.web_port}/  (/health /ready /metrics)")
        self.say(f"Flower:            http://127.0.0.1:{self.flower_port}/flower/")
        self.say(f"worker exporter:   http://127.0.0.1:{self.exporter_port}/metrics")

    def commands(self) -> dict[str, list[str]]:
        """The command of every process type, by its name in the Procfile."""
        return commands(
            port=self.web_port,
            flower_port=self.flower_port,
            exporter_port=self.exporter_port,
            streams=len(self.wiring.streams),
        )

    def _settings(self, venues: Mapping[str, Mapping[str, str]]) -> str:
        tables: dict[str, dict[str, object]] = {
            "collector": {
                "feeds": ["orderbook", "trades"], "batch_interval_secs": 2, "metrics_port": self.web_port,
                "log_dir": str(self.logs), "log_stderr_level": "ERROR",
            },
            "database": {"path": f"{self.directory}/collector.db"},
            "storage": {"mode": "local", "local_path": f"{self.directory}/objects", "segment_secs": 15},
            "redis": {"url": self.redis.url},
        }  # fmt: skip
        for name, values in self.tables.items():
            tables.setdefault(name, {}).update(values)
        for name, urls in venues.items():
            tables[f"exchanges.{name}"] = {"ws_url": urls["ws_url"], "rest_url": urls["rest_url"]}
        lines = [
            f"# Written for a rehearsal. Look around with:  CONFIG_PATH={self.directory}/settings.toml collector verify"
        ]
        for name, values in tables.items():
            lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
        for name, symbols in self.markets.items():
            lines += ["", "[[markets]]", f'exchange = "{name}"', f"symbols = {_toml(symbols)}"]
            lines += [f"{key} = {_toml(value)}" for key, value in self.groups.get(name, {}).items()]
        return "\n".join([*lines, ""])

    # the exchanges

    def _exchange_server(self) -> dict[str, Any]:
        command = [
            sys.executable, "-m", "app", "exchange-server", "--port", "0", "--json", "--rate", str(self._rate),
            "--sent", str(self.sent), *(["--seed", str(self._seed)] if self._seed is not None else []),
        ]  # fmt: skip
        log = self.processes.log("exchanges")
        with log.open("ab") as errors:
            self.exchanges = subprocess.Popen(
                command, cwd=CHECKOUT, env=self.processes.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=errors, start_new_session=True,
            )  # fmt: skip
        assert self.exchanges.stdout is not None
        line = self.exchanges.stdout.readline()
        if not line:
            raise CollectorError(f"the built-in exchanges did not start; see {log}")
        told: dict[str, Any] = msgspec.json.decode(line)
        self._control = told["control"]
        return told

    def look(self) -> None:
        """Start again what has died. Raises: ProcessDied; CollectorError where the exchanges have ended."""
        self.processes.look()
        if self.exchanges.poll() is not None:
            raise CollectorError(f"the built-in exchanges ended; see {self.processes.log('exchanges')}")

    def control(self, word: str, body: str = "", *, method: str = "POST") -> dict[str, Any]:
        """The exchanges' answer at /control/<word> (docs/rehearse.md). Raises: CollectorError where they refuse."""
        response = httpx.request(method, f"{self._control}/{word}", content=body, timeout=60, trust_env=False)
        answered: dict[str, Any] = response.json()
        if response.status_code != 200:
            raise CollectorError(f"the built-in exchanges refused {word} {body}: {answered.get('error')}")
        return answered

    def end_exchanges(self) -> None:
        if self.exchanges.poll() is None:
            self.exchanges.terminate()
            try:
                self.exchanges.wait(10)
            except subprocess.TimeoutExpired:
                self.exchanges.kill()
                self.exchanges.wait()

    # the end

    def drain(self, in_time: Callable[[str], None]) -> None:
        """Everything that was received into the archive, station by station; `in_time` raises when it takes too long.

        The processes that move data have been stopped before. Raises: CollectorError.
        """
        while not drain_spools(self.wiring):
            in_time("draining the spools")
            time.sleep(0.2)
        never = threading.Event()
        periodic.flush(self.wiring, never, deadline_s=None)  # so that every book row is there to be judged
        periodic.certify(self.wiring, never, final=True)
        while True:
            in_time("flushing")
            report = periodic.flush(self.wiring, never, deadline_s=None, seal=True)
            if not report.get("skipped") and not report.get("failed") and not self.wiring.buffer.depths():
                break
            time.sleep(0.2)
        self.say("lists and spools are empty, the last segment is sealed")
        while True:
            in_time("archiving")
            archived = periodic.archive(self.wiring, never, final=True)
            if not archived.get("skipped") and not archived.get("failed") and not archived.get("timed_out"):
                break
            time.sleep(0.2)
        self.wiring.report_counts()

    def close(self) -> None:
        """End whatever is left."""
        self.processes.stop(timeout_s=10)
        if hasattr(self, "exchanges"):
            self.end_exchanges()
        self.redis.stop()


def _toml(value: object) -> str:
    """Text, numbers, truth and lists of them; JSON's spelling is TOML's."""
    return msgspec.json.encode(value).decode()
