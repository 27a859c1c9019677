"""A real Prometheus (Debian's package `prometheus`) as a process of the test run, and its `promtool`.

    with prometheus.running(tmp_path / "prometheus", {"collector": "127.0.0.1:9090"}) as server:
        server.scraped("collector")                      # waits until a scrape has succeeded
        server.query('rate(collector_messages_received_total[10s])')

Where they are missing the test skips, or fails where COLLECTOR_TEST_REQUIRE names `prometheus`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.launch.redis_server import free_port

#: Labels of a series without its name, in order.
Labels = tuple[tuple[str, str], ...]
START_S = 20.0


def binary(name: str) -> str:
    """Path of `prometheus` or `promtool`; skips or fails where there is none."""
    found = shutil.which(name)
    if found is not None:
        return found
    why = f"{name} is not installed (Debian: apt-get install prometheus)"
    if "prometheus" in os.environ.get("COLLECTOR_TEST_REQUIRE", ""):
        pytest.fail(why)
    pytest.skip(why)


def promtool(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run `promtool ARGUMENTS` to its end; not checked."""
    return subprocess.run(
        [binary("promtool"), *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


class Prometheus:
    """One server with its configuration, storage and log in `directory`, on a port of its own."""

    def __init__(
        self,
        directory: Path,
        targets: Mapping[str, str],
        *,
        rules: Sequence[Path] = (),
        interval: str = "1s",
        text: str = "",
    ) -> None:
        """`targets`: job -> host:port, scraped every `interval` at /metrics; `rules`: rule files, judged as often.

        `text`: a whole configuration instead of these.
        """
        program = binary("prometheus")
        directory.mkdir(parents=True)
        config = directory / "prometheus.yml"
        lines = ["global:", f"  scrape_interval: {interval}", f"  evaluation_interval: {interval}"]
        lines += ["rule_files:", *(f"  - {path.absolute()}" for path in rules)] if rules else []
        lines += ["scrape_configs:"]
        for job, target in targets.items():
            lines += [f"  - job_name: {job}", "    static_configs:", f"      - targets: ['{target}']"]
        config.write_text(text or "\n".join(lines) + "\n")
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = directory / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program, f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def _get(self, path: str, **parameters: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=10, trust_env=False)
        if answer.status_code == 503:  # it is starting, and says so in plain words
            answer.raise_for_status()
        told = answer.json()
        if told["status"] != "success":
            raise ValueError(f"{path} {parameters}: {told['error']}")
        return told["data"]

    def query(self, expression: str) -> dict[Labels, float]:
        """The value of each series of an instant query; a number is one series without labels. Raises: ValueError."""
        data = self._get("query", query=expression)
        if data["resultType"] == "scalar":
            return {(): float(data["result"][1])}
        return {
            tuple(sorted((k, v) for k, v in one["metric"].items() if k != "__name__")): float(one["value"][1])
            for one in data["result"]
        }

    def alerts(self) -> list[dict[str, Any]]:
        """Alerts that are pending or firing, as the server tells them: labels, annotations, state."""
        found: list[dict[str, Any]] = self._get("alerts")["alerts"]
        return found

    def until(self, expression: str, what: str = "", seconds: float = 30) -> dict[Labels, float]:
        """Ask until the query returns something, and return it; fails after `seconds`."""
        until_s = time.monotonic() + seconds
        why: object = "no data"
        while time.monotonic() < until_s:
            if self._process.poll() is not None:
                raise AssertionError(f"Prometheus ended: {self.log.read_text()[-2000:]}")
            try:
                if found := self.query(expression):
                    return found
            except (httpx.HTTPError, KeyError) as error:  # it is starting
                why = error
            time.sleep(0.1)
        raise AssertionError(f"not within {seconds} s: {what or expression} ({why})")

    def scraped(self, job: str) -> None:
        """Wait until a scrape of `job` has succeeded."""
        self.until(f'up{{job="{job}"}} == 1', f"{job} is scraped", START_S)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def running(
    directory: Path, targets: Mapping[str, str], *, rules: Sequence[Path] = (), interval: str = "1s", text: str = ""
) -> Iterator[Prometheus]:
    """A server for the time of a `with`."""
    server = Prometheus(directory, targets, rules=rules, interval=interval, text=text)
    try:
        yield server
    finally:
        server.stop()
