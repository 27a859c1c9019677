"""Real S3 servers as processes of the test run: moto and rclone, each on a port of its own, stopped by their pid.

A missing binary skips the test, or fails it where the environment says `COLLECTOR_TEST_REQUIRE=s3`.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO, Any

import pytest

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 10
ACCESS_KEY, SECRET_KEY = "contract-access", "contract-secret-0123456789"

_ADDRESS = re.compile(r"http://127\.0\.0\.1:[0-9]+")


@dataclass(frozen=True)
class Server:
    """A running S3 server."""

    url: str
    pid: int

    def client(self) -> Any:
        """The back door: a boto3 client that goes round the store under test."""
        from boto3.session import Session  # type: ignore[import-untyped]

        session = Session(ACCESS_KEY, SECRET_KEY, region_name="us-east-1")
        return session.client("s3", endpoint_url=self.url)


@contextmanager
def moto() -> Iterator[Server]:
    """`moto_server`: answers 412, takes a wrong checksum, returns none."""
    with _running([_binary("moto_server"), "-H", "127.0.0.1", "-p", "0"]) as server:
        yield server


@contextmanager
def rclone(directory: Path) -> Iterator[Server]:
    """`rclone serve s3` over `directory`, a bucket being a directory in it: ignores conditions, echoes checksums."""
    command = [_binary("rclone"), "serve", "s3", "--addr", "127.0.0.1:0", "--config", os.devnull]
    command += ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", str(directory)]
    with _running(command) as server:
        yield server


def _binary(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        give_up = pytest.fail if "s3" in os.environ.get("COLLECTOR_TEST_REQUIRE", "").split(",") else pytest.skip
        give_up(f"{name} is not installed")
    return found


@contextmanager
def _running(command: list[str]) -> Iterator[Server]:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert process.stdout is not None
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        # It reads on for as long as the server lives: a full pipe would stop it.
        Thread(target=_pass_on, args=(process.stdout, lines), daemon=True).start()
        yield Server(_address(lines, command[0]), process.pid)
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _pass_on(output: IO[bytes], lines: queue.SimpleQueue[str | None]) -> None:
    with output:
        for line in output:
            lines.put(line.decode(errors="replace"))
    lines.put(None)


def _address(lines: queue.SimpleQueue[str | None], name: str) -> str:
    """The address the server says that it listens on."""
    said = []
    while (line := lines.get(timeout=START_TIMEOUT_S)) is not None:
        said.append(line)
        if match := _ADDRESS.search(line):
            return match[0]
    raise RuntimeError(f"{name} ended before it listened: {''.join(said)}")
