"""The built-in exchanges as a process of the test run, and what they say they sent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import msgspec

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
