"""The installation that is struck: a rehearsal with two stream workers, as if on two hosts, and hands for faults."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from app.clock import monotonic_s
from app.drill.catalogue import LEASE_S
from app.drill.verdict import Figures, figures
from app.errors import BufferUnavailable, CollectorError
from app.launch.rehearsal import MARKETS, Rehearsal, Tables
from app.pipeline import periodic
from app.pipeline.audit import Audit, audit
from app.pipeline.supervise import drain_spools
from app.quality.balance import Difference
from app.store.ledger import OPEN, SegmentEntry
from app.store.reading import newest_received_us
from app.wiring import Wiring

#: No venue lists it: what becomes of such a symbol is seen all the time.
UNKNOWN = "NOPE-USDT"
#: The second stream worker has a spool of its own, as on another host.
SECOND = "stream-b"
STREAM_WORKERS = ("stream", SECOND)
ONLOOKERS = ("web", "flower", "exporter")
#: For everything that is not promised within a time: then it is broken all the same.
PATIENCE_S = 90.0
NEVER = threading.Event()


class Broken(Exception):
    """A promise that was not kept, in a sentence."""


@dataclass(frozen=True)
class Account:
    """Everything sent so far against everything held, declared or waiting."""

    total: Figures
    venues: dict[str, Figures]
    audit: Audit

    def of(self, scope: str) -> Figures:
        return self.venues.get(scope, self.total)


class Installation(Rehearsal):
    """Two stream workers, a short lease and short segments; everything else is as a user has it by default."""

    tables: ClassVar[Tables] = {
        "collector": {"batch_interval_secs": 1, "archive_interval_secs": 60},
        "storage": {"segment_secs": 10},
        "buffer": {"lease_secs": LEASE_S},
    }
    markets: ClassVar[Mapping[str, list[str]]] = {**MARKETS, "okx": [*MARKETS["okx"], UNKNOWN]}
    groups: ClassVar[Tables] = {"coinbase": {"data_timeout_secs": 10}}
    abort: threading.Event = NEVER
    #: Whether the processes run that only look on.
    onlookers = False
    _watcher: threading.Thread | None = None
    #: Why it cannot go on; empty while it can.
    ended: str = ""

    def start(self) -> None:
        """Everything, the second stream worker too, until each stream is live. Raises: CollectorError, Broken."""
        super().start()
        #: What the audit is shown.
        self.sent_files = [self.sent]
        command = [word.replace("stream-", f"{SECOND}-") for word in self.commands()["stream"]]
        self._second_spool = self.directory / "spool-b"
        self.processes.start(SECOND, command, {"COLLECTOR_SPOOL__DIR": str(self._second_spool)})
        #: Whoever looks at the archive and whoever takes it away take turns.
        self.archive_in_use = threading.Lock()
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="watcher", daemon=True)
        self._watcher.start()
        self.settle()

    def commands(self) -> dict[str, list[str]]:
        """As of any rehearsal; ONLOOKERS only where they are wanted."""
        return {
            name: command for name, command in super().commands().items() if self.onlookers or name not in ONLOOKERS
        }

    def _watch(self) -> None:
        """As a supervisor would: what dies is started again."""
        while not self._over.wait(0.2):
            try:
                self.look()
            except CollectorError as error:
                self.ended = str(error)
                return

    # what is seen

    def wait(
        self, condition: Callable[[], object], what: str, within_s: float = PATIENCE_S, *, every_s: float = 0.1
    ) -> float:
        """Seconds until `condition` holds; while Redis does not answer it does not. Raises: Broken, CollectorError."""
        began_s = monotonic_s()
        while not self._holds(condition):
            self.check()
            if monotonic_s() - began_s > within_s:
                raise Broken(f"not within {within_s:g} s: {what}")
            self.abort.wait(every_s)
        return monotonic_s() - began_s

    def check(self) -> None:
        """Raises: CollectorError where it is interrupted, or something has ended for good."""
        if self.abort.is_set() or self.ended:
            raise CollectorError(self.ended or "interrupted")

    def _holds(self, condition: Callable[[], object]) -> bool:
        try:
            return bool(condition())
        except BufferUnavailable:
            return False

    def names(self, exchange: str | None = None) -> list[str]:
        """Streams, of one venue or all."""
        return [name for name, stream in self.wiring.streams.items() if exchange in (None, stream.exchange)]

    def states(self) -> dict[str, dict[str, Any]]:
        return self.wiring.board.states(self.names())

    def epochs(self, names: Collection[str] | None = None) -> dict[str, str]:
        """stream -> the connection it is on."""
        return {name: state["epoch"] for name, state in self.states().items() if names is None or name in names}

    def live(self, names: Collection[str], before: dict[str, str] | None = None) -> bool:
        """Whether every feed of these streams is live, on other connections than those `before`."""
        states = self.states()
        for name in names:
            state = states.get(name)
            if state is None or state["connection"] != "open" or state["epoch"] == (before or {}).get(name):
                return False
            feeds = [feed for feed in state["feeds"] if feed["symbol"] != UNKNOWN]
            if not feeds or any(feed["state"] != "live" for feed in feeds):
                return False
        return True

    def live_again(self, names: Collection[str], before: dict[str, str], since_us: int, what: str) -> float:
        """Seconds from `since_us` until every feed of these streams was live, on other connections than those `before`.

        Raises: as `wait`.
        """
        self.wait(lambda: self.live(names, before), what)
        states = self.states()
        lives = [f["since_us"] for name in names for f in states[name]["feeds"] if f["symbol"] != UNKNOWN]
        return max(0.0, (max(lives, default=since_us) - since_us) / 1e6)

    def held_by(self, process: str) -> set[str]:
        """Streams whose lease the process has."""
        pid = str(self.processes.pid(process))
        return {name for name, token in self.wiring.board.holders(self.names()).items() if token.split(":")[1] == pid}

    def settled(self) -> bool:
        """Whether every stream is live and both workers have their share."""
        workers = [set(told["streams"]) for told in self.wiring.board.workers().values()]
        if len(workers) != len(STREAM_WORKERS) or sum(map(len, workers)) != len(self.names()):
            return False
        return abs(len(workers[0]) - len(workers[1])) <= 1 and self.live(self.names())

    def settle(self) -> None:
        """Wait until `settled`."""
        self.wait(self.settled, "every stream is live and the workers share them", PATIENCE_S)

    def newest_us(self) -> dict[str, int]:
        """exchange -> when the newest stored event was received."""
        return newest_received_us(self.wiring.ledger, self.wiring.settings.storage.segments_path)

    def stored_since(self, us: int) -> bool:
        """Whether of every venue something is stored that was received after `us`."""
        newest = self.newest_us()
        return all(newest.get(exchange, 0) > us for exchange in self.markets)

    def spooling(self) -> set[str]:
        """Streams with something in a spool."""
        roots = (self.wiring.settings.spool.dir, self._second_spool)
        return {path.parent.name for root in roots for path in root.glob("*/*.spool")}

    def open_segment(self) -> Path:
        found: list[SegmentEntry] = []

        def opened() -> bool:
            found[:] = self.wiring.ledger.segments(OPEN)
            return bool(found)

        self.wait(opened, "a segment is open")  # between two of them there is none
        return self.wiring.settings.storage.segments_path / found[-1].path

    # what is done

    def kill(self, process: str) -> None:
        os.kill(self.processes.pid(process), signal.SIGKILL)

    @contextmanager
    def frozen(self, process: str) -> Iterator[int]:
        """The process stands still (SIGSTOP); yields its pid."""
        pid = self.processes.pid(process)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield pid
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextmanager
    def segment_locked(self) -> Iterator[None]:
        """The open segment is locked by somebody else: no commit gets through."""
        connection = sqlite3.connect(self.open_segment(), timeout=10, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield
        finally:
            connection.close()

    # the account

    def _quiet(self) -> bool:
        queued = any(state["queued"] for state in self.states().values())
        return not queued and not self.spooling() and not self.wiring.buffer.depths()

    def _arrived(self) -> None:
        """Wait until nothing is under way any more: what a sender has in its hand is seen at the second look."""
        self.wait(self._quiet, "spools and lists are empty")
        self.abort.wait(0.3)
        self.wait(self._quiet, "spools and lists are empty")

    def account(self) -> Account:
        """Halt the exchanges, let everything arrive, compare, go on. Raises: Broken, CollectorError."""
        with self.archive_in_use:
            status = self.control("stop")
            try:
                self._arrived()
                found = audit(self.wiring, sent=self.sent_files)
                if any("not declared yet" in difference.why for difference in found.differences):
                    periodic.reckon(self.wiring, self.abort)
                    self._arrived()
                    found = audit(self.wiring, sent=self.sent_files)
            finally:
                self.control("start")
        return self._told(status, found)

    def _told(self, status: dict[str, Any], found: Audit) -> Account:
        sent = {venue: sum(feeds.values()) for venue, feeds in status["sent"].items()}
        assert found.sent is not None
        total = figures(found.balances, sum(sent.values()), found.sent)
        venues = {
            venue: figures([b for b in found.balances if b.exchange == venue], sent.get(venue, 0))
            for venue in self.markets
        }
        return Account(total, venues, found)

    def finish(self) -> Account:
        """Halt the exchanges, stop what moves data, archive everything, read it all again. Raises: as `account`."""
        status = self.control("stop")
        self._arrived()
        self._over.set()
        self.processes.stop("beat", timeout_s=10)
        self.processes.stop(*STREAM_WORKERS)
        self.processes.stop("worker", "archive")
        self.end_exchanges()
        began_s = monotonic_s()

        def in_time(what: str) -> None:
            if self.abort.is_set() or monotonic_s() - began_s > 4 * PATIENCE_S:
                raise CollectorError(f"stopped while {what}; see {self.directory}/logs")

        drain_spools(self._elsewhere())
        self.wait(lambda: not self.states(), "the board forgets who has stopped")
        periodic.flush(self.wiring, NEVER, deadline_s=None)
        periodic.reckon(self.wiring, NEVER, look_again_s=0)
        self.drain(in_time)
        return self._told(status, audit(self.wiring, deep=True, sent=self.sent_files))

    def _elsewhere(self) -> Wiring:
        """The wiring of the second stream worker."""
        settings = self.wiring.settings
        return Wiring(replace(settings, spool=replace(settings.spool, dir=self._second_spool)))

    def close(self) -> None:
        """End whatever is left, also what stands still."""
        if self._watcher is not None:
            self._over.set()
            self._watcher.join(10)
        super().close()


def new(differences: Iterable[Difference], before: Iterable[Difference]) -> list[Difference]:
    """Those that an earlier account did not name."""
    known = {(difference.what, difference.where) for difference in before}
    return [difference for difference in differences if (difference.what, difference.where) not in known]
