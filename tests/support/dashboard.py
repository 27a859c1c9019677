"""A recording installation with its web process, small enough for one module of tests: streams in threads of the test run."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from app.launch.redis_server import free_port
from app.wiring import Wiring
from tests.support.exchanges import ExchangeProcess
from tests.support.path import Collecting, until
from tests.support.redis_process import RedisProcess
from tests.support.rig import CHECKOUT, Rig


class WebProcess:
    """`collector web` of a rig, on a port it keeps when it is started again."""

    def __init__(self, rig: Rig, host: str = "127.0.0.1", **environ: str) -> None:
        self._rig, self._host, self._environ = rig, host, environ
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "app", "web", "--host", self._host, "--port", str(self.port)]
        with (self._rig.directory / f"web-{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=CHECKOUT, env={**self._rig.environ, **self._environ}, stdout=log, stderr=log
            )
        until(self._answers, "the web process answers", 60)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.base}/ready", trust_env=False, timeout=5).status_code in (200, 503)
        except httpx.TransportError:
            return False

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(f"{self.base}{path}", headers=headers, trust_env=False, timeout=30)

    def json(self, path: str) -> dict[str, Any]:
        """The document at `path`, which is there."""
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def stop(self) -> tuple[int, float]:
        """SIGTERM: exit code, and seconds it took."""
        began_s = time.monotonic()
        self.process.terminate()
        try:
            return self.process.wait(20), time.monotonic() - began_s
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()


class Dashboard:
    """Redis, built-in exchanges, streams of some venues, and `web`. `markets` are planned, `collected` venues recorded."""

    def __init__(self, directory: Path, markets: Mapping[str, list[str]], *collected: str, rate: float = 10) -> None:
        self._ends = ExitStack()
        with ExitStack() as ends:
            self._make(directory, markets, collected, rate, ends)
            self._ends = ends.pop_all()

    def _make(
        self,
        directory: Path,
        markets: Mapping[str, list[str]],
        collected: tuple[str, ...],
        rate: float,
        ends: ExitStack,
    ) -> None:
        self.redis = RedisProcess(directory / "redis", free_port())
        ends.callback(self.redis.stop)
        self.exchanges = ExchangeProcess(directory / "exchanges", rate=rate)
        ends.callback(self.exchanges.stop)
        self.rig = Rig(directory, self.redis.url)
        self.rig.write(markets, self.exchanges.venues, redis={"timeout_secs": 0.5})
        self.wiring: Wiring = self.rig.wiring()
        _ = self.wiring.ledger
        names = [name for name, stream in self.wiring.streams.items() if stream.exchange in collected]
        self.collecting = Collecting(self.wiring, *names)
        ends.callback(self.collecting.finish)
        ends.callback(self.redis.thaw)
        self.web = WebProcess(self.rig)
        ends.callback(self.web.stop)
        until(self.collecting.live, "every stream is live", 60)

    def close(self) -> None:
        """End everything, in an order in which nobody waits for anybody."""
        self._ends.close()
