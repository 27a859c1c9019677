"""Who logs never waits for the log: not for a pipe that nobody reads, nor for a disk that is full."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app import logs, telemetry, telemetry_disk
from app.config import Settings, load
from app.errors import SettingsError
from app.logs import MOST_OF_A_KIND, WINDOW_S, Limited, Unhurried
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


SECRET = "canary-redis-password"


def read(tmp_path: Path, **environ: str) -> Settings:
    """Settings with a password, whose log files are below `tmp_path`."""
    file = tmp_path / "settings.toml"
    file.write_text(
        f'[collector]\nlog_dir = "{tmp_path}/logs"\n[redis]\nurl = "redis://:{SECRET}@127.0.0.1:1/0"\n'
        '[[markets]]\nexchange = "okx"\nsymbols = ["BTC-USDT"]\n'
    )
    return load(file, environ).settings


class Log:
    """The log of a `web` process, stderr being a file."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._directory, self._monkeypatch = directory, monkeypatch
        self._stderr = (directory / "stderr").open("w")

    def configure(self, settings: Settings) -> Limited:
        self._monkeypatch.setattr(sys, "stderr", self._stderr)
        return logs.configure(settings=settings, process="web")

    def read(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Lines of stderr, and of the file."""
        logging.getLogger().handlers[0].flush()
        files = sorted((self._directory / "logs").glob("collector-web-*.log"))
        file = "".join(path.read_text() for path in files)
        errors = (self._directory / "stderr").read_text()
        return [json.loads(line) for line in errors.splitlines()], [json.loads(line) for line in file.splitlines()]

    def close(self) -> None:
        logging.getLogger().handlers[0].flush()
        self._stderr.close()


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """All loggers and hooks are put back afterwards."""
    root = logging.getLogger()
    before = {
        name: logging.getLogger(name).level for name in (*logs.NOISY, "celery", "collector.flush", "collector", "")
    }
    handlers, hooks = root.handlers[:], (sys.excepthook, threading.excepthook)
    monkeypatch.setattr(telemetry, "_last", {})
    monkeypatch.setattr(logs, "LAST_WORDS_S", 60)  # a busy machine is not what is tested here
    one = Log(tmp_path, monkeypatch)
    yield one
    one.close()
    root.handlers[:] = handlers
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(False)
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def test_stderr_and_the_file_of_the_process_have_the_same_lines_and_no_secret_even_in_what_nobody_caught(
    tmp_path: Path, log: Log
) -> None:
    log.configure(read(tmp_path))

    def fails() -> None:
        raise ValueError(f"no answer from redis://:{SECRET}@127.0.0.1:1/0")

    telemetry.push_failed("okx-0", RuntimeError(SECRET))
    logging.getLogger("kombu").error("%s refused", SECRET)
    thread = threading.Thread(target=fails, name="sender")
    thread.start()
    thread.join()
    try:
        fails()
    except ValueError:
        logging.getLogger("celery").exception("task failed")
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    errors, file = log.read()
    assert errors == file
    assert [(line["event"], line["logger"], line["level"]) for line in file] == [
        ("process.started", "collector.process", "info"), ("push.failed", "collector.push", "warning"),
        ("******** refused", "kombu", "error"), ("process.failed", "collector.process", "critical"),
        ("task failed", "celery", "error"), ("process.failed", "collector.process", "critical"),
    ]  # fmt: skip
    assert [line["where"] for line in file if line["event"] == "process.failed"] == ["sender", "main thread"]
    assert file[4]["exception"].endswith("ValueError: no answer from redis://:********@127.0.0.1:1/0")
    assert SECRET not in str(file)


def test_lines_of_a_task_name_it_and_its_id_and_those_after_it_do_not(tmp_path: Path, log: Log) -> None:
    log.configure(read(tmp_path))
    logs.bind(task="flush.run", task_id="17")
    logging.getLogger("celery").warning("in the task")
    logs.unbind()
    logging.getLogger("celery").warning("after it")
    inside, after = log.read()[1][1:]
    assert (inside["task"], inside["task_id"]) == ("flush.run", "17")
    assert after.keys() & {"task", "task_id"} == set()


def test_levels_hold_for_single_loggers_and_the_environment_wins(tmp_path: Path, log: Log) -> None:
    log.configure(read(tmp_path, COLLECTOR_LOG_LEVEL="warn,celery=debug,collector.flush=error,collector=info"))
    logging.getLogger("kombu").info("left out")
    logging.getLogger("celery.beat").debug("celery speaks")
    telemetry.flush_skipped("left out")
    telemetry.flush_failed("s", "full", OSError("full"))
    telemetry.spool_drained("s")
    _, file = log.read()
    assert [line["event"] for line in file] == ["process.started", "celery speaks", "flush.failed", "spool.drained"]
    assert file[0]["levels"] == "warn,celery=debug,collector.flush=error,collector=info"


def test_stderr_has_only_errors_where_it_is_told_so_and_no_file_is_written_where_none_is_wanted(
    tmp_path: Path, log: Log
) -> None:
    log.configure(read(tmp_path, COLLECTOR_COLLECTOR__LOG_STDERR_LEVEL="ERROR"))
    telemetry.spool_drained("s")
    telemetry.batches_abandoned("s", 1)
    errors, file = log.read()
    assert [line["event"] for line in errors] == ["batches.abandoned"]
    assert [line["event"] for line in file] == ["process.started", "spool.drained", "batches.abandoned"]
    log.configure(read(tmp_path, COLLECTOR_COLLECTOR__LOG_DIR="none"))
    telemetry.spool_drained("s")
    errors, same = log.read()
    assert (errors[-1]["event"], same) == ("spool.drained", file)
    assert errors[-2]["log_files"] == "none"


def test_a_directory_that_cannot_be_written_is_told_on_stderr_and_its_lines_are_counted(
    tmp_path: Path, log: Log
) -> None:
    (tmp_path / "logs").write_text("in the way")
    limited = log.configure(read(tmp_path))
    telemetry.spool_drained("s")
    log.read()
    errors = log.read()[0]
    told = {line["event"]: line for line in errors}  # the writer of files says so when it comes to it
    assert sorted(told) == ["log_file.refused", "process.started", "spool.drained"] and len(errors) == 3
    assert told["log_file.refused"]["directory"] == f"{tmp_path}/logs"
    assert limited.dropped == 3


@pytest.mark.parametrize(
    ("levels", "why"),
    [
        ("LOUD", "has no level 'LOUD'"), ("info,celery=", "has no level ''"), ("info,cel ery=info", "has no logger 'cel ery'"),
        ("=info", "has no logger ''"), ("info,debug", "says the level of all loggers twice"), ("", ""),
        ("celery=info,celery=info", "says the level of celery twice"), ("info,", "has no level ''"),
    ],
)  # fmt: skip
def test_levels_that_are_none_are_a_fault_that_says_what_to_write(tmp_path: Path, levels: str, why: str) -> None:
    if not levels:  # an empty variable is as good as none
        assert read(tmp_path, COLLECTOR_LOG_LEVEL="").collector.log_level == "INFO"
        return
    with pytest.raises(SettingsError) as error:
        read(tmp_path, COLLECTOR_LOG_LEVEL=levels)
    (fault,) = error.value.faults
    assert fault.startswith(f'collector.log_level = "{levels}" (environment COLLECTOR_LOG_LEVEL) {why}')


@pytest.mark.row("O2")
def test_a_library_that_repeats_itself_is_cut_short_and_how_often_is_told(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.configure(read(tmp_path))
    (limited,) = logging.getLogger().handlers
    assert isinstance(limited, Limited)
    now_s = [limited._since_s]
    monkeypatch.setattr(limited, "_now_s", lambda: now_s[0])
    kombu = logging.getLogger("kombu")
    for number in range(1000):
        kombu.warning("connection %d refused", number)
        kombu.info("not a warning")
    kombu.warning("another line")
    now_s[0] += WINDOW_S
    telemetry.spool_drained("s")
    file = [line["event"] for line in log.read()[1]]
    assert [event for event in file if event.startswith("connection")] == [
        f"connection {number} refused" for number in range(MOST_OF_A_KIND)
    ]
    assert file.count("not a warning") == 1000
    assert file[-3:] == ["another line", "log.limited", "spool.drained"]
    told = log.read()[1][-2]
    assert told["lines"] == 1000 - MOST_OF_A_KIND
    assert told["what"].startswith("kombu (test_logs.py:")


def test_on_a_terminal_a_line_is_readable_without_secrets_and_the_file_has_json_all_the_same(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    log.close()
    terminal, end = pty.openpty()
    with os.fdopen(terminal, "rb", buffering=0) as screen, os.fdopen(end, "w") as log._stderr:
        log.configure(read(tmp_path))
        telemetry.push_failed("okx-0", RuntimeError(f"no {SECRET}"))
        logging.getLogger("celery").error("task failed", exc_info=ValueError(SECRET))
        logging.getLogger().handlers[0].flush()
        text = b""
        while b"ValueError: ********\r\n" not in text:
            text += screen.read(65536)
        started, failed, task, *trace = text.decode().splitlines()
    assert re.fullmatch(r"\S+Z \[info +\] process.started +\[collector.process\] levels=INFO .*process=web.*", started)
    assert re.match(r"\S+Z \[warning +\] push.failed +\[collector.push\] error='no \*{8}' stream=okx-0 then=", failed)
    assert re.match(r"\S+Z \[error +\] task failed +\[celery\]", task)
    assert trace == ["ValueError: ********"]
    (file,) = (tmp_path / "logs").iterdir()
    assert [json.loads(line)["event"] for line in file.read_text().splitlines()] == [
        "process.started", "push.failed", "task failed",
    ]  # fmt: skip
