"""The built-in exchanges as a process of the test run, and what they say they sent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import msgspec
import websocket

from app.launch.environment import clean
from tests.support.rig import CHECKOUT


class ExchangeProcess:
    """`collector exchange-server` on a free port, recording what it sends."""

    def __init__(self, directory: Path, *, rate: float = 10, seed: int = 1, options: tuple[str, ...] = ()) -> None:
        directory.mkdir(parents=True)
        self.sent_file = directory / "sent.jsonl"
        command = [
            sys.executable, "-m", "app", "exchange-server", "--port", "0", "--json", "--rate", str(rate),
            "--seed", str(seed), "--sent", str(self.sent_file), *options,
        ]  # fmt: skip
        self._errors = (directory / "log").open("w+b")
        self.process = subprocess.Popen(
            command, cwd=CHECKOUT, env=clean(os.environ), stdout=subprocess.PIPE, stderr=self._errors
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError((directory / "log").read_text())
        self._told = msgspec.json.decode(line)

    @property
    def venues(self) -> dict[str, dict[str, str]]:
        """Settings of each exchange: ws_url and rest_url."""
        return {
            name: {"ws_url": urls["ws_url"], "rest_url": urls["rest_url"]}
            for name, urls in self._told["venues"].items()
        }

    def halt(self) -> dict[str, Any]:
        """Stop the data, keep the connections; returns the status when the sent file is complete."""
        answer: dict[str, Any] = httpx.post(f"{self._told['control']}/stop", timeout=30, trust_env=False).json()
        return answer

    def resume(self) -> dict[str, Any]:
        """Go on after `halt`; what was subscribed to meanwhile begins now."""
        answer: dict[str, Any] = httpx.post(f"{self._told['control']}/start", timeout=30, trust_env=False).json()
        return answer

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = httpx.get(f"{self._told['control']}/status", timeout=30, trust_env=False).json()
        return answer

    def connect(self, venue: str, **options: Any) -> websocket.WebSocket:
        """A plain client of a venue."""
        url = self.venues[venue]["ws_url"] + ("/stream" if venue == "binance" else "")
        options = {"suppress_origin": True, "skip_utf8_validation": True, "timeout": 10} | options
        return websocket.create_connection(url, **options)

    def let(self, *faults: str | dict[str, Any]) -> list[dict[str, Any]]:
        """From now on these faults strike: `"lose,venue=okx"`, or an object. Returns the rules that stand."""
        return self._faulty("POST", "faults", faults)["rules"]  # type: ignore[no-any-return]

    def do(self, fault: str | dict[str, Any]) -> list[dict[str, Any]]:
        """This fault strikes at once. Returns where."""
        return self._faulty("POST", "do", (fault,))["done"]  # type: ignore[no-any-return]

    def faults(self) -> list[dict[str, Any]]:
        """The rules that stand and what each has done."""
        return self._faulty("GET", "faults", ())["rules"]  # type: ignore[no-any-return]

    def heal(self) -> None:
        """No fault strikes any more."""
        self._faulty("DELETE", "faults", ())

    def _faulty(self, method: str, word: str, faults: tuple[str | dict[str, Any], ...]) -> dict[str, Any]:
        answered: dict[str, Any] = {}
        for body in faults or (None,):
            content = body if isinstance(body, str | None) else msgspec.json.encode(body)
            response = httpx.request(
                method, f"{self._told['control']}/{word}", content=content, timeout=30, trust_env=False
            )
            if response.status_code != 200:
                raise ValueError(response.json()["error"])
            answered = response.json()
        return answered

    def lines(self) -> list[dict[str, Any]]:
        """Every line of the sent file so far; a line half written is left out."""
        whole, _, _ = self.sent_file.read_bytes().rpartition(b"\n")
        return [msgspec.json.decode(line) for line in whole.splitlines()]

    def sent(self) -> list[dict[str, Any]]:
        """The events it says it sent."""
        entries = [msgspec.json.decode(line) for line in self.sent_file.read_bytes().splitlines()]
        return [entry for entry in entries if "data" in entry]

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._errors.close()
