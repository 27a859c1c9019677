"""The line that says every minute that a process lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from app import liveness, telemetry_logs
from app.liveness import Pulse
from tests.support.rig import CHECKOUT

RECEIVED, STORED = "collector_messages_received_total", "collector_messages_stored_total"


def test_a_line_has_sums_and_rates_of_what_the_process_counts_and_nothing_else() -> None:
    pulse = Pulse(100.0)
    assert pulse.facts(160.0, []) == {"uptime_s": 60}
    counted = [(RECEIVED, 100.0), (RECEIVED, 500.0), ("collector_other_total", 7.0), (STORED, 0.0)]
    assert pulse.facts(220.0, counted) == {"uptime_s": 120, "received": 600, "received_per_s": 10.0}
    assert pulse.facts(280.0, [(RECEIVED, 630.0), (STORED, 60.0)]) == {
        "uptime_s": 180, "received": 630, "received_per_s": 0.5, "stored": 60, "stored_per_s": 1.0,
    }  # fmt: skip


def test_a_line_says_what_the_process_is_and_holds_and_what_its_parts_know(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(telemetry_logs, "process_alive", lambda process, **facts: told.append((process, facts)))
    monkeypatch.setattr(liveness, "sources", [lambda: {"streams": 3}, lambda: {"log_lines_dropped": 0}])
    liveness.tell("stream", Pulse(liveness.monotonic_s()))
    ((process, facts),) = told
    assert process == "stream"
    assert facts.items() >= {"streams": 3, "log_lines_dropped": 0, "uptime_s": 0}.items()
    assert facts["threads"] >= 1
    assert 10 < facts["rss_mib"] < 10_000


def test_lines_come_by_themselves_and_from_a_forked_child_too() -> None:
    """In a process of its own: what is begun there never ends."""
    code = (
        "import os, time; from app import liveness, telemetry_logs; liveness.EVERY_S = 0.05;"
        "telemetry_logs.process_alive = lambda process, **facts: os.write(1, f'{process} {os.getpid()}\\n'.encode());"
        "liveness.begin('worker'); os.fork(); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        told = set[tuple[str, ...]]()
        try:
            while len(told) < 2:
                told.add(tuple(process.stdout.readline().split()))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert {word for word, _ in told} == {"worker"}
    assert ("worker", str(process.pid)) in told
