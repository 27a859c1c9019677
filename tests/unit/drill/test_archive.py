"""Striking a process at a place where it was seen: whatever becomes of the look, nobody is left standing still."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from app.drill.archive import _freeze_at
from app.drill.installation import Installation
from tests.support.path import until


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        yield running
        running.kill()


def stands_still(pid: int) -> bool:
    """A process that was told to stand still does so at its next turn."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def site_of(pid: int) -> Installation:
    lease = SimpleNamespace(holder=lambda: f"host:{pid}:0")
    wiring = SimpleNamespace(lease=lambda name, ttl_s: lease)
    processes = SimpleNamespace(pid=lambda name: pid)
    return cast(Installation, SimpleNamespace(wiring=wiring, processes=processes, check=lambda: None))


def test_a_process_seen_twice_at_the_place_is_left_standing_there(process: subprocess.Popen[bytes]) -> None:
    assert _freeze_at(site_of(process.pid), lambda site: 7) == 7
    until(lambda: stands_still(process.pid), "it stands still")


def test_a_process_goes_on_when_the_look_at_it_fails(process: subprocess.Popen[bytes]) -> None:
    looks = iter([7])

    def place(site: Installation) -> int:
        for number in looks:
            return number
        until(lambda: stands_still(process.pid), "it stands still")
        raise OSError("the look failed")

    with pytest.raises(OSError, match="the look failed"):
        _freeze_at(site_of(process.pid), place)
    until(lambda: not stands_still(process.pid), "it goes on")
