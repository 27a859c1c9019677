"""The rehearsal: the whole collector against the built-in exchanges, on this machine, with nothing else needed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec

from app.config import load
from app.errors import BufferUnavailable, CollectorError, SettingsError
from app.launch import redis_server
from app.launch.environment import clean
from app.launch.processes import Processes, commands
from app.launch.proof import Account, account
from app.pipeline import periodic
from app.pipeline.supervise import drain_spools
from app.wiring import Wiring

SEGMENT_SECS = 15
#: From the end of collecting until everything is archived and verified.
FINISH_S = 60.0
CHECKOUT = Path(__file__).resolve().parents[2]

SETTINGS = """\
# Written by `collector demo`. Look around with:  CONFIG_PATH={path} collector verify
[collector]
feeds = ["orderbook", "trades"]
batch_interval_secs = 2
metrics_port = {web_port}

[database]
path = "{data}/collector.db"

[storage]
mode = "local"
local_path = "{data}/objects"
segment_secs = {segment_secs}

[redis]
url = "{redis_url}"
"""
MARKETS = {
    "binance": ["btcusdt", "ethusdt"],
    "coinbase": ["BTC-USD", "ETH-USD"],
    "upbit": ["KRW-BTC", "KRW-ETH"],
    "okx": ["BTC-USDT", "ETH-USDT"],
    "bybit": ["BTCUSDT", "ETHUSDT"],
}


class Demo:
    """One rehearsal, from ports and directory to the account at the end. `say` prints progress for people."""

    def __init__(self, directory: Path | None, port: int | None, rate: float, say: Callable[[str], None]) -> None:
        self.directory = (directory or Path("data") / f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}").absolute()
        if self.directory.exists() and any(self.directory.iterdir()):
            raise SettingsError(f"{self.directory} is not empty; a rehearsal needs a directory of its own")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"directory {self.directory} cannot be made: {error.strerror}") from error
        self.say = say
        self._rate = rate
        environment = clean(os.environ)
        ports = [redis_server.free_port(port), *(redis_server.free_port() for _ in range(3))]
        self.web_port, self.flower_port, self.exporter_port, redis_port = ports
        binary = redis_server.find(os.environ)
        say(f"Redis: {binary} on port {redis_port}")
        logs = self.directory / "logs"
        logs.mkdir(exist_ok=True)
        self.redis = redis_server.RedisServer(binary, self.directory / "redis", redis_port, logs / "redis.log")
        self.sent = self.directory / "sent.jsonl"
        environment["CONFIG_PATH"] = str(self.directory / "settings.toml")
        self.processes = Processes(environment, CHECKOUT, logs, say)
        self.control = ""

    def start(self) -> None:
        """Exchanges first, then every process type. Raises: CollectorError when one does not come up."""
        server = self._exchange_server()
        path = self.directory / "settings.toml"
        text = SETTINGS.format(
            path=path, data=self.directory, web_port=self.web_port, redis_url=self.redis.url, segment_secs=SEGMENT_SECS
        )
        for name, urls in server["venues"].items():
            text += f'\n[exchanges.{name}]\nws_url = "{urls["ws_url"]}"\nrest_url = "{urls["rest_url"]}"\n'
        for name, symbols in MARKETS.items():
            text += f'\n[[markets]]\nexchange = "{name}"\nsymbols = {msgspec.json.encode(symbols).decode()}\n'
        path.write_text(text)
        self.wiring = Wiring(load(path, {}).settings)
        _ = self.wiring.ledger
        todo = commands(
            port=self.web_port,
            flower_port=self.flower_port,
            exporter_port=self.exporter_port,
            streams=len(self.wiring.streams),
        )
        for name, command in todo.items():
            self.processes.start(name, command)
        self.say(f"settings and data: {self.directory}")
        self.say(f"health, metrics:   http://127.0.0.1:{self.web_port}/health  /metrics")
        self.say(f"Flower:            http://127.0.0.1:{self.flower_port}/flower/")
        self.say(f"worker exporter:   http://127.0.0.1:{self.exporter_port}/metrics")

    def _exchange_server(self) -> dict[str, Any]:
        command = [
            sys.executable, "-m", "app", "exchange-server", "--port", "0", "--json", "--rate", str(self._rate),
            "--sent", str(self.sent),
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
        self.control = told["control"]
        return told

    def wait(self, seconds: float | None, stop: threading.Event) -> None:
        """Collect for `seconds` of received data (for ever where None), or until `stop`. Raises: ProcessDied."""
        until_s: float | None = None
        said_s = time.monotonic()
        while not stop.wait(0.5):
            self.processes.look()
            if self.exchanges.poll() is not None:
                raise CollectorError(f"the built-in exchanges ended; see {self.processes.log('exchanges')}")
            states = self._states()
            up = sum(state["connection"] == "open" for state in states.values())
            now_s = time.monotonic()
            if until_s is None and seconds is not None and states and up == len(self.wiring.streams):
                self.say(f"all {up} connections are open; collecting for {seconds:g} s")
                until_s = now_s + seconds
            if now_s - said_s >= 5:
                said_s = now_s
                events = sum(state["events"] for state in states.values())
                objects = len(self.wiring.ledger.objects())
                left = f", {until_s - now_s:.0f} s left" if until_s else ""
                self.say(f"{up}/{len(self.wiring.streams)} connections, {events} events, {objects} objects{left}")
            if until_s is not None and now_s >= until_s:
                return

    def _states(self) -> dict[str, dict[str, Any]]:
        try:
            return self.wiring.board.states(list(self.wiring.streams))
        except BufferUnavailable:
            return {}

    def finish(self, abort: threading.Event) -> Account:
        """Stop the exchanges' data, read what is under way, then station by station to the end. Raises: CollectorError."""
        until_s = time.monotonic() + FINISH_S

        def in_time(what: str) -> None:
            if abort.is_set():
                raise CollectorError(f"aborted while {what}; everything is still in {self.directory}")
            if time.monotonic() > until_s:
                raise CollectorError(
                    f"not done within {FINISH_S:.0f} s, stopped while {what}; see {self.directory}/logs"
                )

        self.say("stopping the exchanges' data")
        status = httpx.post(f"{self.control}/stop", timeout=30, trust_env=False).json()
        self.say(f"the exchanges sent {sum(n for feeds in status['sent'].values() for n in feeds.values())} events")
        self.say("stopping the streams, which read what is still under way")
        self.processes.stop("beat", timeout_s=10)
        self.processes.stop("stream")
        in_time("stopping the streams")
        self.processes.stop("worker", "archive")
        self._end_exchanges()
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
        self.say("archived; reading every object again")
        result = account(self.wiring, self.sent)
        self.processes.stop(timeout_s=10)
        self.redis.stop()
        return result

    def _end_exchanges(self) -> None:
        if self.exchanges.poll() is None:
            self.exchanges.terminate()
            try:
                self.exchanges.wait(10)
            except subprocess.TimeoutExpired:
                self.exchanges.kill()
                self.exchanges.wait()

    def close(self) -> None:
        """End whatever is left."""
        self.processes.stop(timeout_s=10)
        if hasattr(self, "exchanges"):
            self._end_exchanges()
        self.redis.stop()
