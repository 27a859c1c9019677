"""`collector demo` as a newcomer runs it: its exit code, its last line, and what it does when a process of it dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.launch.environment import clean
from tests.integration.test_cli_contract import as_told
from tests.support.path import until
from tests.support.rig import CHECKOUT, MARKETS

pytestmark = pytest.mark.exhaustive

KEYS = {
    "received", "stored", "duplicates", "replays", "quarantined", "lost", "archived", "objects", "verified", "exchanges",
}  # fmt: skip
FINISHED_S = 110


class Demo:
    """One `collector demo` as a process."""

    def __init__(self, root: Path, name: str, *options: str) -> None:
        self.directory = root / name
        self._out, self._err = root / f"{name}.out", root / f"{name}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "app", "demo", "--directory", str(self.directory), *options],
                cwd=CHECKOUT, env=clean(os.environ), stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self._err.read_text()

    @property
    def lines(self) -> list[str]:
        return self._out.read_text().splitlines()

    def child(self, *words: str) -> int | None:
        """The pid of the child whose command line has all these words."""
        for path in Path("/proc").glob("[0-9]*"):
            try:
                parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
                command = (path / "cmdline").read_text().split("\0")
            except OSError:
                continue
            if parent == str(self.popen.pid) and set(words) <= set(command):
                return int(path.name)
        return None

    def wait(self) -> int:
        return self.popen.wait(FINISHED_S)

    def close(self) -> None:
        """End it the way a person would, if it is still there."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGINT)
            self.popen.send_signal(signal.SIGINT)
            try:
                self.popen.wait(20)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()


@dataclass
class Wounded:
    """A demo two processes of which were killed while it collected; their pids before and after."""

    demo: Demo
    before: dict[str, int]
    after: dict[str, int]


QUEUES = {"worker": ("-Q", "default,flush,gaps"), "archive": ("-Q", "archive")}


@pytest.fixture(scope="module")
def wounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wounded]:
    """The whole rehearsal once, with kill -9 of what flushes and of what archives."""
    demo = Demo(tmp_path_factory.mktemp("demo"), "demo", "--duration", "8", "--at-least", "1")
    before: dict[str, int] = {}
    after: dict[str, int] = {}
    try:
        until(lambda: "connections are open" in demo.said, "it collects", 60)
        for name, words in QUEUES.items():
            before[name] = until(lambda: demo.child(*words), f"{name} is there")  # noqa: B023
            os.kill(before[name], signal.SIGKILL)
        for name, words in QUEUES.items():
            after[name] = until(lambda: demo.child(*words), f"{name} is there again")  # noqa: B023
        demo.wait()
        yield Wounded(demo, before, after)
    finally:
        demo.close()


def balanced(demo: Demo) -> dict[str, Any]:
    """The last line of a demo that went well."""
    figures: dict[str, Any] = json.loads(demo.lines[-1])
    assert figures.keys() == KEYS
    as_told("collector demo", figures)
    outcomes = (figures["stored"], figures["duplicates"], figures["quarantined"], figures["lost"])
    assert figures["received"] == sum(outcomes) > 0
    assert (figures["quarantined"], figures["lost"]) == (0, 0)
    assert figures["archived"] == figures["stored"]
    assert figures["verified"] == figures["objects"] > 0
    assert figures["exchanges"].keys() == MARKETS.keys()
    assert all(count > 0 for feeds in figures["exchanges"].values() for count in feeds.values())
    assert sum(count for feeds in figures["exchanges"].values() for count in feeds.values()) == figures["archived"]
    return figures


@pytest.mark.timeout(150)
def test_a_demo_ends_with_0_and_a_balanced_account_as_its_last_line(wounded: Wounded) -> None:
    demo = wounded.demo
    assert demo.popen.returncode == 0, demo.said[-3000:]
    balanced(demo)
    assert len(demo.lines) == 1
    assert "fault" not in demo.said
    assert not list((demo.directory / "segments").rglob("*.db"))
    for log in (demo.directory / "logs").iterdir():
        assert "Traceback" not in log.read_text(), log.name


def test_a_killed_process_was_started_again_and_the_demo_balanced_all_the_same(wounded: Wounded) -> None:
    for name in QUEUES:
        assert wounded.after[name] != wounded.before[name]
        assert f"{name} ended with -9; starting it again" in wounded.demo.said
    balanced(wounded.demo)


def test_a_demo_leaves_no_process_behind(wounded: Wounded) -> None:
    directory = os.fsencode(wounded.demo.directory)
    alive = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            text = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
        except OSError:
            continue
        if directory in text:
            alive.append(path.name)
    assert alive == []


def test_a_taken_port_is_one_line_and_nothing_is_started(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        demo = Demo(tmp_path, "demo", "--duration", "1", "--port", str(port))
        assert demo.wait() == 2
    (line,) = demo.said.splitlines()
    assert line.startswith(f"error: port {port} ")
    assert demo.lines == []


def test_a_directory_that_is_not_empty_is_one_line_and_nothing_in_it_changes(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "mine").write_text("keep")
    demo = Demo(tmp_path, "demo", "--duration", "1")
    assert demo.wait() == 2
    (line,) = demo.said.splitlines()
    assert line.startswith(f"error: {tmp_path / 'demo'} is not empty")
    assert [(path.name, path.read_text()) for path in (tmp_path / "demo").iterdir()] == [("mine", "keep")]
