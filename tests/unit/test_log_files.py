"""One file a process type, process and UTC day; what is old and ours is deleted, nothing else ever."""

from __future__ import annotations

import json
import logging
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app import logs, telemetry_logs
from app.log_files import DailyFile, process_type
from app.logs import Unhurried
from tests.support.small_disk import small_disk

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Clock:
    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> int:
        return int(self.now.timestamp() * 1e6)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is not what is tested here."""
    monkeypatch.setattr(logs, "LAST_WORDS_S", 60)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What is said of log files."""
    facts: list[tuple[Any, ...]] = []
    for name in ("log_file_deleted", "log_file_kept", "log_file_refused"):
        monkeypatch.setattr(telemetry_logs, name, lambda *words, name=name: facts.append((name, *words)))
    return facts


def write(file: DailyFile, line: str) -> None:
    os.write(file.fileno(), line.encode() + b"\n")


def content(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(directory.iterdir())}


def name(day: str, process: str = "stream", more: str = "") -> str:
    return f"collector-{process}-{os.getpid()}{more}-{day}.log"


def aged(path: Path, age: timedelta, text: str = "x") -> Path:
    path.write_text(text)
    then_s = (NOON - age).timestamp()
    os.utime(path, (then_s, then_s))
    return path


def test_lines_go_to_the_file_of_the_utc_day_on_which_they_are_written(tmp_path: Path) -> None:
    clock = Clock(datetime(2026, 11, 21, 23, 59, 59, tzinfo=UTC))
    file = DailyFile(tmp_path / "logs", "stream", 1, clock)
    write(file, "before")
    clock.now += timedelta(seconds=1)
    write(file, "after")
    write(file, "more")
    assert content(tmp_path / "logs") == {name("2026-11-21"): "before\n", name("2026-11-22"): "after\nmore\n"}


def test_two_writers_of_one_type_and_process_id_have_a_file_each(tmp_path: Path) -> None:
    first, second = (DailyFile(tmp_path, "stream", 1, Clock()) for _ in range(2))
    write(first, "a")
    write(second, "b")
    write(first, "a")
    assert content(tmp_path) == {name("2026-11-21"): "a\na\n", name("2026-11-21", more="-2"): "b\n"}


def test_a_process_goes_on_in_its_file_of_the_day_after_a_restart(tmp_path: Path) -> None:
    first = DailyFile(tmp_path, "web", 1, Clock())
    write(first, "a")
    first.close()
    write(DailyFile(tmp_path, "web", 1, Clock()), "b")
    assert content(tmp_path) == {name("2026-11-21", "web"): "a\nb\n"}


def test_a_child_has_a_file_of_its_own(tmp_path: Path) -> None:
    file = DailyFile(tmp_path, "worker", 1, Clock())
    write(file, "parent")
    pid = os.fork()
    if pid == 0:
        write(file, "child")
        os._exit(0)
    os.waitpid(pid, 0)
    write(file, "parent")
    assert content(tmp_path) == {
        name("2026-11-21", "worker"): "parent\nparent\n", f"collector-worker-{pid}-2026-11-21.log": "child\n",
    }  # fmt: skip


def test_a_descriptor_that_is_anothers_by_now_is_neither_written_nor_closed(tmp_path: Path) -> None:
    """As in the process that Celery forks for beat, after it has closed everything that was open."""
    file = DailyFile(tmp_path, "worker", 1, Clock())
    write(file, "before")
    os.close(file.fileno())
    with (tmp_path / "data").open("wb", buffering=0) as other:
        write(file, "after")
        other.write(b"mine")
    assert content(tmp_path) == {name("2026-11-21", "worker"): "before\nafter\n", "data": "mine"}


def test_a_file_that_somebody_deletes_is_made_again_with_the_next_line(tmp_path: Path) -> None:
    file = DailyFile(tmp_path, "web", 1, Clock())
    write(file, "a")
    (tmp_path / name("2026-11-21", "web")).unlink()
    write(file, "b")
    assert content(tmp_path) == {name("2026-11-21", "web"): "b\n"}


def test_only_old_files_of_our_own_pattern_that_nobody_writes_are_deleted_and_each_is_told(
    tmp_path: Path, told: list[tuple[Any, ...]]
) -> None:
    day = timedelta(days=1)
    old = aged(tmp_path / "collector-beat-17-2026-11-19.log", 1.5 * day, "12345")
    aged(tmp_path / "collector-stream_a-17-2-2026-11-19.log", 2 * day)
    stay = [
        aged(tmp_path / "collector-beat-18-2026-11-20.log", 0.99 * day),
        *(aged(tmp_path / other, 400 * day) for other in (
            "collector.db", "worker.log", "redis.log", "collector-beat-17-2026-11-19.log.gz", "collector-beat-2026-11-19.log",
            "my-collector-beat-17-2026-11-19.log", "collector-beat-17-2026-11-19.log\n",
        )),
    ]  # fmt: skip
    (tmp_path / "collector-web-1-2020-01-01.log").mkdir()
    other = DailyFile(tmp_path, "archive", 1, Clock(NOON - 3 * day))
    write(other, "still written")  # its process lives, and has had nothing to say since
    aged(tmp_path / name("2026-11-18", "archive"), 3 * day)

    write(DailyFile(tmp_path, "web", 1, Clock()), "new")
    assert {path.name for path in tmp_path.iterdir()} == {
        *(path.name for path in stay), "collector-web-1-2020-01-01.log", name("2026-11-18", "archive"),
        name("2026-11-21", "web"),
    }  # fmt: skip
    deleted = {words[1]: words[2:] for words in told if words[0] == "log_file_deleted"}
    assert deleted.keys() == {old.name, "collector-stream_a-17-2-2026-11-19.log"}
    assert deleted[old.name] == (5, 1.5 * 86_400)


def test_files_are_deleted_again_at_every_midnight(tmp_path: Path, told: list[tuple[Any, ...]]) -> None:
    clock = Clock()
    file = DailyFile(tmp_path, "web", 1, clock)
    write(file, "a")
    for _ in range(3):
        clock.now += timedelta(days=1)
        write(file, "a")
        # The clock of the file system is another one.
        os.utime(file.fileno(), (clock.now.timestamp(), clock.now.timestamp()))
    assert [path.name for path in sorted(tmp_path.iterdir())] == [name("2026-11-23", "web"), name("2026-11-24", "web")]
    assert [words[1] for words in told] == [name("2026-11-21", "web"), name("2026-11-22", "web")]


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / name("2026-11-21", "web")).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        write(DailyFile(tmp_path, "web", 1, Clock()), "a")
    assert (tmp_path / "elsewhere").read_text() == "mine"


@pytest.mark.parametrize(
    ("node", "process"),
    [
        ("stream-4711@host", "stream"), ("stream-1@a", "stream"), ("archive@host", "archive"), ("celery@host", "worker"),
        ("", "worker"), ("beat", "beat"), ("../../etc@x", "______etc"), ("W" * 50, "w" * 32),
    ],
)  # fmt: skip
def test_the_type_of_a_process_is_the_first_part_of_its_node_name(node: str, process: str) -> None:
    assert process_type(node) == process


@pytest.mark.row("O2")
def test_a_full_disk_and_one_that_cannot_be_written_cost_lines_that_are_counted_and_nobody_waits(
    tmp_path: Path, told: list[tuple[Any, ...]]
) -> None:
    logger, errors = logging.Logger("test"), list[Exception]()
    with small_disk(tmp_path / "disk", 1024 * 1024) as disk:
        logs = disk.path / "logs"
        logger.addHandler(handler := Unhurried(DailyFile(logs, "web", 1, Clock()), refused=errors.append))
        logger.warning("before")
        handler.flush()
        disk.fill()
        for _ in range(100):
            logger.warning("x" * 5000)
        handler.flush()
        assert handler.dropped >= 99
        disk.empty()
        logger.warning("after")
        handler.flush()
        lines = (logs / name("2026-11-21", "web")).read_text().splitlines()
        handler.close()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert json.loads(lines[-2])["lines"] == handler.dropped
    assert {type(error) for error in errors} == {OSError}

    (tmp_path / "file").write_text("in the way")
    logger.addHandler(blocked := Unhurried(DailyFile(tmp_path / "file", "web", 1, Clock()), refused=errors.append))
    logger.warning("lost")
    blocked.flush()
    assert (blocked.dropped, type(errors[-1])) == (1, FileExistsError)


def test_a_disk_that_hangs_stops_only_the_thread_that_writes_and_an_end_only_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hangs, logger = threading.Event(), logging.Logger("test")

    class Hanging(DailyFile):
        def fileno(self) -> int:
            hangs.wait()
            return os.open(os.devnull, os.O_WRONLY)

    logger.addHandler(handler := Unhurried(Hanging(Path("nowhere"), "web", 1, Clock()), max_lines=10))
    for number in range(100):
        logger.warning("line %d", number)
    assert handler.dropped >= 89
    monkeypatch.setattr(logs, "LAST_WORDS_S", 0.1)
    handler.flush()
    monkeypatch.setattr(logs, "LAST_WORDS_S", 600)
    handler.flush()  # an ending process waits once, however often `logging` asks
    hangs.set()
    handler._lines.join()
