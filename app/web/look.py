"""A question that may hang, asked on a thread of its own: a scrape waits for it only so long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")

#: An answer that is kept at all is kept so many times as long as it took: asking takes 2 % of a processor at most.
KEEP_TIMES = 50


class Look(Generic[T]):
    """One question at a time. Its answer is good for `keep_s`, longer where it took long; while it is asked again, the
    old one for `stale_s`."""

    def __init__(
        self,
        name: str,
        ask: Callable[[], T],
        faults: tuple[type[Exception], ...],
        *,
        monotonic_s: Callable[[], float],
        keep_s: float = 0.0,
        stale_s: float = 0.0,
    ) -> None:
        self._name, self._ask, self._faults = name, ask, faults
        self._now_s, self._keep_s, self._stale_s = monotonic_s, keep_s, stale_s
        self._lock = threading.Lock()
        self._asked: Future[T] | None = None
        #: The last answer, when it was asked for, and how long it is good from then on.
        self._answer: tuple[T, float, float] | None = None

    def begin(self) -> Future[T]:
        """Ask, where the last answer is too old and nobody is asking."""
        with self._lock:
            fresh = self._answer is not None and self._now_s() - self._answer[1] < self._answer[2]
            if self._asked is None or (self._asked.done() and not fresh):
                self._asked = Future()
                threading.Thread(target=self._run, args=(self._asked,), name=self._name, daemon=True).start()
            return self._asked

    def _run(self, asked: Future[T]) -> None:
        begun_s = self._now_s()
        try:
            answer = self._ask()
            took_s = self._now_s() - begun_s
            self._answer = answer, begun_s, max(self._keep_s, KEEP_TIMES * took_s) if self._keep_s else 0.0
            asked.set_result(answer)
        except BaseException as error:  # noqa: BLE001 - told to whoever waits
            asked.set_exception(error)

    def answer(self, wait_s: float) -> T | None:
        """The answer, waited for `wait_s` at most; None where there is none in time, or it is one of `faults`."""
        asked = self.begin()
        try:
            return asked.result(max(0.0, wait_s))
        except TimeoutError:
            old = self._answer
            return old[0] if old is not None and self._now_s() - old[1] < self._stale_s else None
        except self._faults:
            return None
