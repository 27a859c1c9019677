"""The thread that waits for all sockets of a process."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar, copy_context

import pytest

from app.connection.actions import Close
from app.pipeline.reader import Reader

LONG_S = 20.0
TASK: ContextVar[str] = ContextVar("task")


class Line:
    """An open connection: what it reads of a socket is `heard`; "end" closes it, "fail" is a mistake."""

    def __init__(self, *, at_once: int = 100) -> None:
        self.peer, self._socket = socket.socketpair()
        self._socket.setblocking(False)
        self._at_once = at_once
        self._ahead = b""
        self.heard: list[str] = []
        self.ticks = 0
        self.told: Close | None = None
        self.behind = 0.0
        self.tasks: set[str] = set()

    @property
    def more(self) -> bool:
        return bool(self._ahead)

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> Close | None:
        self.tasks.add(TASK.get("none"))
        if not self._ahead:
            self._ahead = self._socket.recv(4096)
        part, self._ahead = self._ahead[: self._at_once], self._ahead[self._at_once :]
        self.heard.append(part.decode())
        if part == b"fail":
            raise ZeroDivisionError
        return Close("end", "") if part == b"end" else None

    def tick(self) -> Close | None:
        self.ticks += 1
        return self.told

    def behind_s(self) -> float:
        return self.behind


def until(what: Callable[[], object]) -> None:
    until_s = time.monotonic() + LONG_S
    while not what():
        assert time.monotonic() < until_s
        time.sleep(0.005)


def reading(reader: Reader, line: Line) -> Future[Close]:
    """`line` is read; how that ends."""
    ended: Future[Close] = Future()

    def run() -> None:
        try:
            ended.set_result(reader.read(line))
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            ended.set_exception(error)

    threading.Thread(target=copy_context().run, args=(run,), daemon=True).start()
    return ended


@pytest.fixture
def reader() -> Reader:
    return Reader(time.monotonic)


def test_each_connection_is_read_as_it_has_something_until_it_says_why_it_ends(reader: Reader) -> None:
    lines = [Line() for _ in range(5)]
    ends = [reading(reader, line) for line in lines]
    for n, line in enumerate(lines):
        line.peer.send(f"to {n}".encode())
    until(lambda: [line.heard for line in lines] == [[f"to {n}"] for n in range(5)])
    for line in lines:
        line.peer.send(b"end")
    assert [end.result(LONG_S) for end in ends] == [Close("end", "")] * 5


def test_what_one_connection_raises_is_raised_for_it_alone(reader: Reader) -> None:
    broken, well = Line(), Line()
    ends = reading(reader, broken), reading(reader, well)
    broken.peer.send(b"fail")
    with pytest.raises(ZeroDivisionError):
        ends[0].result(LONG_S)
    well.peer.send(b"on")
    until(lambda: well.heard == ["on"])
    well.peer.send(b"end")
    assert ends[1].result(LONG_S) == Close("end", "")


def test_a_silent_connection_is_asked_what_is_due_and_may_end_so(reader: Reader) -> None:
    line = Line()
    end = reading(reader, line)
    until(lambda: line.ticks >= 2)
    line.told = Close("stop", "")
    assert (end.result(LONG_S), line.heard) == (Close("stop", ""), [])


def test_what_was_read_and_not_looked_at_needs_no_word_from_the_socket(reader: Reader) -> None:
    line = Line(at_once=2)
    end = reading(reader, line)
    line.peer.send(b"abcdefg")
    until(lambda: line.heard == ["ab", "cd", "ef", "g"])
    line.told = Close("stop", "")
    end.result(LONG_S)


def test_a_connection_that_is_behind_is_left_alone_until_it_is_not_and_others_are_read(reader: Reader) -> None:
    slow, quick = Line(), Line()
    slow.behind = 600.0
    ends = reading(reader, slow), reading(reader, quick)
    slow.peer.send(b"one")
    until(lambda: slow.heard == ["one"])
    slow.peer.send(b"two")
    quick.peer.send(b"three")
    until(lambda: quick.heard == ["three"] and slow.ticks >= 2)
    assert slow.heard == ["one"]
    slow.behind = 0.0
    until(lambda: slow.heard == ["one", "two"])
    for line in (slow, quick):
        line.told = Close("stop", "")
    assert [end.result(LONG_S).reason for end in ends] == ["stop", "stop"]


def test_a_connection_that_stays_behind_is_read_now_and_then(reader: Reader) -> None:
    line = Line()
    line.behind = 0.02
    end = reading(reader, line)
    for word in ("one", "two", "three"):
        line.peer.send(word.encode())
        until(lambda word=word: line.heard[-1:] == [word])
    line.told = Close("stop", "")
    end.result(LONG_S)


def test_a_connection_that_is_behind_ends_when_it_is_told_to(reader: Reader) -> None:
    line = Line()
    line.behind = 600.0
    end = reading(reader, line)
    line.peer.send(b"one")
    until(lambda: line.heard == ["one"])
    line.told = Close("stop", "")
    assert end.result(LONG_S) == Close("stop", "")


def test_a_socket_that_is_gone_already_ends_its_own_connection_alone(reader: Reader) -> None:
    gone, well = Line(), Line()
    end = reading(reader, well)
    until(lambda: well.ticks)
    gone._socket.close()
    with pytest.raises(ValueError, match="file descriptor"):
        reading(reader, gone).result(LONG_S)
    well.told = Close("stop", "")
    assert end.result(LONG_S) == Close("stop", "")


def test_the_thread_ends_with_the_last_connection_and_begins_again_with_the_next(reader: Reader) -> None:
    for _ in range(3):
        line = Line()
        end = reading(reader, line)
        line.peer.send(b"end")
        assert end.result(LONG_S) == Close("end", "")
        until(lambda: reader._bell is None)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_reader_that_dies_leaves_nobody_waiting(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    died: list[threading.Thread] = []

    def die(*_: object) -> None:
        died.append(threading.current_thread())
        raise SystemExit

    monkeypatch.setattr("app.pipeline.reader._Round.go", die)
    with pytest.raises(SystemExit):
        reading(reader, Line()).result(LONG_S)
    died[0].join(LONG_S)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_reader_that_cannot_begin_says_so_and_the_next_one_reads(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> selectors.BaseSelector:
        died.append(threading.current_thread())
        raise OSError(24, "Too many open files")

    died: list[threading.Thread] = []
    with monkeypatch.context() as short:
        short.setattr("app.pipeline.reader.selectors.DefaultSelector", refused)
        with pytest.raises(OSError, match="Too many open files"):
            reading(reader, Line()).result(LONG_S)
    died[0].join(LONG_S)
    line = Line()
    end = reading(reader, line)
    line.peer.send(b"end")
    assert end.result(LONG_S) == Close("end", "")


def test_a_connection_is_read_in_the_context_of_its_task(reader: Reader) -> None:
    line = Line()
    TASK.set("this one")
    end = reading(reader, line)
    line.peer.send(b"end")
    end.result(LONG_S)
    assert line.tasks == {"this one"}
