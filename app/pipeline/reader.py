"""The thread of a process that waits for the sockets of all its open connections, and reads whichever has something.

A thread for each connection cost more than what it read (docs/decisions/0010). Nothing here may wait for anything but the
sockets: a connection that has to wait (handshake, goodbye) does so on its own thread, before and after.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Protocol

from app.connection.actions import Close

#: Timers of a connection, and its stop flag, are looked at so often.
TICK_S = 0.25
#: While a connection is left alone, whether its sender has caught up is looked at so often.
LOOK_S = 0.005


class Readable(Protocol):
    """An open connection. What it raises, or the first `Close` it returns, is its end."""

    @property
    def more(self) -> bool:
        """Whether it has read what it did not look at yet."""

    def fileno(self) -> int:
        """Of its socket."""

    def read(self) -> Close | None:
        """Take what is there, without waiting."""

    def tick(self) -> Close | None:
        """Do what is due."""

    def behind_s(self) -> float:
        """For how long at most it is to be left alone, because what it has read is not taken away; 0.0: it is."""


class _Place:
    """A connection that is read."""

    __slots__ = ("answer", "context", "fileno", "link", "until_s")

    def __init__(self, link: Readable, context: Context) -> None:
        self.link, self.context, self.fileno = link, context, link.fileno()
        self.answer: Future[Close] = Future()
        #: It is left alone until then.
        self.until_s = 0.0


class Reader:
    """Reads connections. Its thread begins with the first and ends with the last."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._now_s = monotonic_s
        self._lock = threading.Lock()
        self._new: deque[_Place] = deque()
        self._bell: socket.socket | None = None

    def read(self, link: Readable) -> Close:
        """Have `link` read until it is over; why it is. Waits for that. What the link raised is raised here.

        The link is called on the reader's thread, in this caller's context: lines in the log name the caller's task.
        """
        place = _Place(link, copy_context())
        with self._lock:
            if self._bell is None:
                bell, heard = socket.socketpair()
                for end in (bell, heard):
                    end.setblocking(False)
                threading.Thread(target=self._run, args=(heard,), name="reader", daemon=True).start()
                self._bell = bell
            else:
                with suppress(BlockingIOError):  # it was rung often enough
                    self._bell.send(b"\0")
            self._new.append(place)
        return place.answer.result()

    def _run(self, heard: socket.socket) -> None:
        places: dict[_Place, None] = {}
        try:
            with heard, selectors.DefaultSelector() as selector:
                selector.register(heard, selectors.EVENT_READ)
                round_ = _Round(selector, places, self._now_s)
                while self._arrived(round_):
                    round_.go(heard)
        except BaseException as error:  # a reader that dies, or cannot begin, must not leave anybody waiting
            with self._lock:
                self._end()
                left = [*places, *self._new]
                self._new.clear()
            for place in left:
                place.answer.set_exception(error)
            raise

    def _arrived(self, round_: _Round) -> bool:
        """Take in who came; False when there is nobody left, and this thread is to end."""
        with self._lock:
            while self._new:
                round_.add(self._new.popleft())
            if not round_.places:
                self._end()
            return bool(round_.places)

    def _end(self) -> None:
        if self._bell is not None:
            self._bell.close()
            self._bell = None


class _Round:
    """Everybody is asked once whether there is something to do."""

    def __init__(
        self, selector: selectors.BaseSelector, places: dict[_Place, None], monotonic_s: Callable[[], float]
    ) -> None:
        self._selector, self.places, self._now_s = selector, places, monotonic_s
        #: Have read what they have not looked at. Are left alone.
        self._more: dict[_Place, None] = {}
        self._alone: dict[_Place, None] = {}
        self._tick_s = 0.0

    def add(self, place: _Place) -> None:
        try:
            self._listen(place)
        except (OSError, ValueError, KeyError) as error:  # its socket is gone
            place.answer.set_exception(error)
        else:
            self.places[place] = None

    def go(self, heard: socket.socket) -> None:
        """Wait until something is to be done, and do it."""
        wait_s = 0.0 if self._more else max(0.0, self._tick_s - self._now_s())
        ready = self._selector.select(min(wait_s, LOOK_S) if self._alone else wait_s)
        due, self._more = self._more, {}
        for key, _ in ready:
            if key.data is None:
                with suppress(BlockingIOError):
                    heard.recv(4096)
            else:
                due[key.data] = None
        for place in due:
            self._do(place, place.link.read)
            self._after(place)
        now_s = self._now_s()
        for place in [place for place in self._alone if now_s >= place.until_s or not place.link.behind_s()]:
            del self._alone[place]
            self._listen(place)
        if now_s >= self._tick_s:
            self._tick_s = now_s + TICK_S
            for place in list(self.places):
                self._do(place, place.link.tick)

    def _do(self, place: _Place, act: Callable[[], Close | None]) -> None:
        try:
            close = place.context.run(act)
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self._drop(place)
            place.answer.set_exception(error)
            return
        if close is not None:
            self._drop(place)
            place.answer.set_result(close)

    def _after(self, place: _Place) -> None:
        """What has just been read may have to wait for its sender, or go on."""
        if place not in self.places:
            return
        if behind_s := place.link.behind_s():
            place.until_s = self._now_s() + behind_s
            self._alone[place] = None
            self._selector.unregister(place.fileno)
        elif place.link.more:
            self._more[place] = None

    def _listen(self, place: _Place) -> None:
        self._selector.register(place.fileno, selectors.EVENT_READ, place)
        if place.link.more:
            self._more[place] = None

    def _drop(self, place: _Place) -> None:
        del self.places[place]
        self._more.pop(place, None)
        if place in self._alone:
            del self._alone[place]
        else:
            self._selector.unregister(place.fileno)
