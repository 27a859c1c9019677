"""The rehearsal that everybody can run: the whole collector against the built-in exchanges, and the account of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.errors import BufferUnavailable, CollectorError
from app.launch.proof import Account, account
from app.launch.rehearsal import Rehearsal

#: From the end of collecting until everything is archived and verified.
FINISH_S = 60.0


class Demo(Rehearsal):
    """One rehearsal, from ports and directory to the account at the end."""

    def __init__(self, directory: Path | None, port: int | None, rate: float, say: Callable[[str], None]) -> None:
        super().__init__(directory or Path("data") / f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}", port, rate, say)

    def wait(self, seconds: float | None, stop: threading.Event) -> None:
        """Collect for `seconds` of received data (for ever where None), or until `stop`. Raises: ProcessDied."""
        until_s: float | None = None
        said_s = time.monotonic()
        while not stop.wait(0.5):
            self.look()
            states = self._states()
            up = sum(state["connection"] == "open" for state in states.values())
            now_s = time.monotonic()
            if until_s is None and seconds is not None and states and up == len(self.wiring.streams):
                self.say(f"all {up} connections are open; collecting for {seconds:g} s")
                until_s = now_s + seconds
            if now_s - said_s >= 5:
                said_s = now_s
                events = sum(state["events"] for state in states.values())
                objects = len(self.wiring.ledger.objects())
                left = f", {until_s - now_s:.0f} s left" if until_s else ""
                self.say(f"{up}/{len(self.wiring.streams)} connections, {events} events, {objects} objects{left}")
            if until_s is not None and now_s >= until_s:
                return

    def _states(self) -> dict[str, dict[str, Any]]:
        try:
            return self.wiring.board.states(list(self.wiring.streams))
        except BufferUnavailable:
            return {}

    def finish(self, abort: threading.Event) -> Account:
        """Stop the exchanges' data, read what is under way, then station by station to the end. Raises: CollectorError."""
        until_s = time.monotonic() + FINISH_S

        def in_time(what: str) -> None:
            if abort.is_set():
                raise CollectorError(f"aborted while {what}; everything is still in {self.directory}")
            if time.monotonic() > until_s:
                raise CollectorError(
                    f"not done within {FINISH_S:.0f} s, stopped while {what}; see {self.directory}/logs"
                )

        self.say("stopping the exchanges' data")
        status = self.control("stop")
        self.say(f"the exchanges sent {sum(n for feeds in status['sent'].values() for n in feeds.values())} events")
        self.say("stopping the streams, which read what is still under way")
        self.processes.stop("beat", timeout_s=10)
        self.processes.stop("stream")
        in_time("stopping the streams")
        self.processes.stop("worker", "archive")
        self.end_exchanges()
        self.drain(in_time)
        self.say("archived; reading every object again")
        result = account(self.wiring, self.sent)
        self.processes.stop(timeout_s=10)
        self.redis.stop()
        return result
