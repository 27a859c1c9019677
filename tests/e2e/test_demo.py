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
from tests.support.path import until
from tests.support.rig import CHECKOUT, MARKETS

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
class Both:
    """A demo left in peace, and one that was not: pids before and after the kill by process."""

    peaceful: Demo
    wounded: Demo
    before: dict[str, int]
    after: dict[str, int]


QUEUES = {"worker": ("-Q", "default,flush"), "archive": ("-Q", "archive")}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Two demos side by side, which is also to say: one does not disturb another."""
    root = tmp_path_factory.mktemp("demo")
    peaceful = Demo(root, "peaceful", "--duration", "8", "--at-least", "1")
    wounded = Demo(root, "wounded", "--duration", "10", "--at-least", "1")
    before: dict[str, int] = {}
    after: dict[str, int] = {}
    try:
        until(lambda: "connections are open" in wounded.said, "it collects", 60)
        for name, words in QUEUES.items():
            before[name] = until(lambda: wounded.child(*words), f"{name} is there")  # noqa: B023
            os.kill(before[name], signal.SIGKILL)
        for name, words in QUEUES.items():
            after[name] = until(lambda: wounded.child(*words), f"{name} is there again")  # noqa: B023
        peaceful.wait()
        wounded.wait()
        yield Both(peaceful, wounded, before, after)
    finally:
        peaceful.close()
        wounded.close()


def balanced(demo: Demo) -> dict[str, Any]:
    """The last line of a demo that went well."""
    figures: dict[str, Any] = json.loads(demo.lines[-1])
    assert figures.keys() == KEYS
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
def test_a_demo_ends_with_0_and_a_balanced_account_as_its_last_line(both: Both) -> None:
    assert both.peaceful.popen.returncode == 0, both.peaceful.said[-3000:]
    balanced(both.peaceful)
    assert len(both.peaceful.lines) == 1
    assert "fault" not in both.peaceful.said
    assert not list((both.peaceful.directory / "segments").rglob("*.db"))
    for log in (both.peaceful.directory / "logs").iterdir():
        assert "Traceback" not in log.read_text(), log.name


@pytest.mark.timeout(150)
def test_a_killed_process_is_started_again_and_the_demo_still_balances(both: Both) -> None:
    assert both.wounded.popen.returncode == 0, both.wounded.said[-3000:]
    balanced(both.wounded)
    for name in QUEUES:
        assert both.after[name] != both.before[name]
        assert f"{name} ended with -9; starting it again" in both.wounded.said


def test_a_demo_leaves_no_process_behind(both: Both) -> None:
    directories = (both.peaceful.directory, both.wounded.directory)
    alive = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            text = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
        except OSError:
            continue
        if any(os.fsencode(directory) in text for directory in directories):
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
