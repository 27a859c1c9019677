"""Who logs never waits for the log: not for a pipe that nobody reads, nor for a disk that is full."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import telemetry, telemetry_disk
from app.logs import Unhurried
from tests.support.rig import CHECKOUT
from tests.support.small_disk import small_disk

LINES, WAITING = 5_000, 100


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    made = logging.Logger("test")
    yield made
    for handler in made.handlers:
        handler.close()


def _told(lines: list[str]) -> tuple[int, int]:
    """Lines that were written, and how many are said to be missing."""
    dropped = [json.loads(line)["lines"] for line in lines if '"log.dropped"' in line]
    return len(lines) - len(dropped), sum(dropped)


@pytest.mark.row("O2")
def test_a_flood_into_a_pipe_that_nobody_reads_keeps_nobody_waiting_and_what_is_missing_is_counted(
    logger: logging.Logger,
) -> None:
    source, sink = os.pipe()
    read = bytearray()

    def reads() -> None:
        while piece := os.read(source, 65536):
            read.extend(piece)

    reader = threading.Thread(target=reads)
    with os.fdopen(sink, "w") as stream:
        logger.addHandler(handler := Unhurried(stream, WAITING))
        for number in range(LINES):
            logger.warning("line %d of a flood %s", number, "x" * 100)  # 600 KB into a pipe of 64 KiB
        reader.start()
        handler.flush()
        logger.warning("afterwards")
        handler.flush()
    reader.join()
    os.close(source)
    lines = read.decode().splitlines()
    written, dropped = _told(lines)
    assert lines[-1] == "afterwards"
    assert dropped > LINES / 2
    assert written + dropped == LINES + 1


@pytest.mark.row("O2")
def test_a_log_on_a_full_disk_says_how_many_lines_it_did_not_take_when_there_is_room(
    logger: logging.Logger, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "log", 1024 * 1024) as disk, (disk.path / "log").open("w") as stream:
        logger.addHandler(handler := Unhurried(stream))
        logger.warning("before")
        handler.flush()
        disk.fill()
        for _ in range(100):
            logger.warning("x" * 5000)
            handler.flush()
        disk.empty()
        logger.warning("after")
        handler.flush()
        lines = (disk.path / "log").read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert json.loads(lines[-2])["lines"] >= 99


def test_a_child_of_a_process_that_logs_writes_its_own_lines_and_an_ending_process_its_last() -> None:
    code = (
        "import logging, os; from app.logs import configure; configure('INFO'); log = logging.getLogger('a');"
        "log.info('parent'); pid = os.fork();"
        "log.info('child' if pid == 0 else 'again');"
        "pid and os.waitpid(pid, 0); [log.info('line %d', n) for n in range(500)]"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    told = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert sorted(told) == sorted(["parent", "child", "again", *[f"line {n}" for n in range(500)] * 2])


@pytest.mark.row("O2")
def test_what_may_happen_with_every_frame_is_logged_once_in_ten_seconds_with_the_number_of_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[dict[str, object]] = []
    now_s = [0.0]

    class Log:
        def warning(self, event: str, **facts: object) -> None:
            lines.append({"event": event, **facts})

        error = warning

    monkeypatch.setattr(telemetry, "log", Log())
    monkeypatch.setattr(telemetry, "monotonic_s", lambda: now_s[0])
    monkeypatch.setattr(telemetry, "_last", {})
    for _ in range(1000):
        telemetry.gap_detected("s", "btcusdt", "trade", "1", "2", 1)
        telemetry.frame_rejected("s", "not_json", 10)
        telemetry.event_refused("s", "btcusdt", "trade")
        telemetry.element_rejected("s", ValueError("?"), 10)
        telemetry.row_rejected("btcusdt", "trade", 1, "?")
        telemetry.flush_failed("s", "full", OSError("full"))
        telemetry_disk.disk_filling("91 %", full=True)
    assert [line["event"] for line in lines] == [
        "gap.detected", "frame.rejected", "event.refused", "element.rejected", "row.rejected", "flush.failed",
        "disk.filling",
    ]  # fmt: skip
    now_s[0] = telemetry.QUIET_S
    telemetry.gap_detected("s", "btcusdt", "trade", "3", "4", 1)
    assert lines[-1]["repeated"] == 999
