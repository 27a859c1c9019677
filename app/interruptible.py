"""Calls of libraries that cannot be interrupted, made on a thread of their own: a stop need not wait for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from typing import TypeVar

from app.errors import Interrupted

T = TypeVar("T")
#: `interrupted` is asked so often.
LOOK_S = 0.1


def interruptible(
    call: Callable[[], T],
    interrupted: Callable[[], bool],
    what: str,
    discard: Callable[[T], object] = lambda result: None,
) -> T:
    """What `call` returns or raises.

    Raises: Interrupted, soon after `interrupted()` says so. `call` then goes on on its daemon thread (named `what`), to
    its own timeout or to the end of the process; what it still returns is given to `discard`.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            with suppress(InvalidStateError):  # nobody waits any more
                answer.set_exception(error)
            return
        try:
            answer.set_result(result)
        except InvalidStateError:
            discard(result)

    threading.Thread(target=run, name=what, daemon=True).start()
    while not wait([answer], LOOK_S).done:
        if interrupted() and answer.cancel():
            raise Interrupted(what)
    return answer.result()
