"""Settings -> objects. The one place where the parts are put together, so that tasks, commands and tests agree."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app import metrics, telemetry, telemetry_archive
from app.buffer.board import Board
from app.buffer.budget import Budget
from app.buffer.client import connect
from app.buffer.events import EventBuffer
from app.buffer.lease import Holding, Lease
from app.buffer.spool import Bound, Spool
from app.buffer.tally import Reporter, Tally
from app.clock import monotonic_s, sleep, wall_us
from app.config import ExchangeSettings, Settings
from app.errors import BufferFull, BufferUnavailable, CollectorError, LedgerElsewhere, OwnedElsewhere
from app.exchanges.base import Pace
from app.model import ORDERBOOK, Market
from app.pipeline.carrier import Carrier
from app.pipeline.outbox import Allowance
from app.pipeline.plan import Stream, chosen
from app.pipeline.reader import Reader
from app.pipeline.replan import Replan
from app.pipeline.room import Disk

if TYPE_CHECKING:
    from app.books.change import RestBook
    from app.objects.manifest import Manifest
    from app.objects.store import Store
    from app.pipeline.archive import Archive
    from app.pipeline.certify import Certifier
    from app.pipeline.flush import Flush
    from app.pipeline.repair import Repairs
    from app.pipeline.stream import StreamRunner
    from app.store.ledger import Ledger
    from app.store.stored import Stored

#: A run of flush or archive renews its lock at a third of this; after a crash the next run waits at most so long.
LOCK_SECS = 30.0
#: Which data directory flushes a Redis is remembered so long after its last run.
OWNER_SECS = 120.0


def whoami() -> str:
    """This process, for people who look at a lease."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Wiring:
    """Everything one process needs, each part made on first use: reading settings never touches the network.

    `file`: the settings file of `settings`; `replan` follows it. Once `interrupted` says so (the process has been
    stopping for a while), flush and archive wait for no store.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        file: Path | None = None,
        step: Callable[[str], None] = lambda name: None,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.file = file
        self._replan = Replan(settings, file, monotonic_s)
        self._step, self._interrupted = step, interrupted
        #: In doubt: the files that are written have to be looked at, when a process starts and when SQLite says so.
        self.segments_in_doubt, self.disk = True, Disk.of(settings, monotonic_s)
        #: One for all streams of the process; made here, because streams begin at the same moment on many threads.
        self.allowance, self.reader = Allowance(settings.buffer.process_max_bytes), Reader(monotonic_s)
        self.carrier = Carrier(
            lambda some: self.buffer.push_all(some), settings.buffer.batch_interval_ms / 1000, monotonic_s
        )
        self._spools = Bound(settings.spool.dir, settings.spool.max_bytes, monotonic_s)
        self.unreleased: dict[str, Lease] = {}  # locks of runs that ended while Redis was away, by name
        self._repairs: tuple[Mapping[str, ExchangeSettings], Repairs] | None = None

    @property
    def settings(self) -> Settings:
        """As the process was started with; markets and exchanges as the file said when `replan` last looked."""
        return self._replan.settings

    @property
    def streams(self) -> dict[str, Stream]:
        """The plan: every stream by name."""
        return self._replan.streams

    def replan(self) -> bool:
        """Let markets and exchanges follow the settings file; True when the plan is another one now.

        It reads files: never on a thread that reads a socket.
        """
        return self._replan.look()

    @cached_property
    def redis(self) -> Any:
        return connect(self.settings.redis.url, self.settings.redis.timeout_secs)

    @cached_property
    def buffer(self) -> EventBuffer:
        return EventBuffer(self.redis, self.settings.redis.prefix, self.settings.buffer.list_max_bytes)

    @cached_property
    def budget(self) -> Budget:
        return Budget(self.redis, self.settings.redis.prefix)

    def admit(self, venue: str, pace: Pace) -> float:
        """Seconds to wait for the venue's budget; 0.0 where Redis cannot say: the stream's own backoff paces it then."""
        with suppress(BufferUnavailable):
            return self.budget.take(venue, "connect", pace)
        return 0.0

    def stay_away(self, venue: str, seconds: float) -> None:
        with suppress(BufferUnavailable):
            self.budget.block(venue, seconds)

    @cached_property
    def board(self) -> Board:
        return Board(self.redis, self.settings.redis.prefix)

    @cached_property
    def tally(self) -> Tally:
        return Tally(self.redis, self.settings.redis.prefix)

    @cached_property
    def reporter(self) -> Reporter:
        """Brings what this process counts to the tally. One for a process, or what it counted is added twice."""
        return Reporter(self.tally, f"{whoami()}:{os.urandom(4).hex()}", metrics.counted)

    def report_counts(self) -> None:
        """Bring what this process has counted by now; without Redis the next call makes up for it. From one thread."""
        with suppress(BufferUnavailable):
            self.reporter.report()

    def _judged(self, described: Manifest) -> None:
        with suppress(BufferUnavailable):  # a view: the manifest itself says it for ever
            self.board.judged(described.exchange, described.symbol, described.data_type, described.completeness)

    @cached_property
    def ledger(self) -> Ledger:
        from app.store.ledger import Ledger

        return Ledger(self.settings.database.path, self.settings.storage.segments_path)

    @property
    def ledger_here(self) -> Ledger:
        """`ledger`, for a process that only reads and never makes one: an empty one would say that nothing is missing.

        Raises: LedgerElsewhere where neither it nor a segment of it is there; CollectorError where only segments are.
        """
        database, segments = self.settings.database.path, self.settings.storage.segments_path
        if not database.exists() and not any(segments.glob("*/*.db")):
            raise LedgerElsewhere(database)
        return self.ledger

    @cached_property
    def stored(self) -> Stored:
        from app.store.stored import Stored

        return Stored(self.ledger, self.settings.storage.segments_path)

    @property
    def repairs(self) -> Repairs:
        """One for all runs while the exchanges are set as they are: it remembers what it need not ask again."""
        exchanges = self.settings.exchanges
        if self._repairs is None or self._repairs[0] != exchanges:
            self._repairs = exchanges, self._new_repairs()
        return self._repairs[1]

    def _new_repairs(self) -> Repairs:
        from app.exchanges.history import HISTORIES
        from app.pipeline.asking import Venue
        from app.pipeline.repair import Repairs
        from app.pipeline.rest import Rest

        venues = {}
        for name, exchange in chosen(self.settings).items():
            told = self.settings.exchanges[name]
            pace, allowed = exchange.limits.rest, self.settings.security.private_hosts
            rest = Rest(name, told.rest_url, told.proxy, pace, self.budget, monotonic_s, allowed)
            venues[name] = Venue(exchange, HISTORIES.get((name, told.source)), rest)
        return Repairs(
            self.stored, self.buffer, venues, wall_us=wall_us, monotonic_s=monotonic_s, wait=sleep, step=self._step
        )

    @cached_property
    def stores(self) -> tuple[Store, ...]:
        """Where objects go: a segment is removed when each of these has proved that it has all of it."""
        settings, aws = self.settings, self.settings.aws
        stores: list[Store] = []
        if settings.storage.mode in ("local", "both"):
            from app.objects.local import LocalStore

            stores.append(LocalStore(settings.storage.local_path))
        if settings.storage.mode in ("s3", "both"):
            from app.objects.bucket import BucketStore

            if aws.bucket is None:
                raise CollectorError(f"[storage] mode is {settings.storage.mode}, but [aws] bucket names none")
            bucket = BucketStore(
                aws.bucket, aws.region, aws.endpoint_url, access_key=aws.access_key, secret_key=aws.secret_key,
                monotonic_s=monotonic_s, private_hosts=settings.security.private_hosts,
                retried=telemetry_archive.request_repeated,
            )  # fmt: skip
            stores.append(bucket)
        return tuple(stores)

    @property
    def store(self) -> Store:
        """The nearest of the stores, for whoever reads objects and needs them only once."""
        return self.stores[0]

    def _interruptible(self, store: Store) -> Store:
        from app.objects.interruptible import InterruptibleStore

        return InterruptibleStore(store, self._interrupted)

    def lease(self, name: str, ttl_s: float, token: str | None = None) -> Lease:
        return Lease(self.redis, self.settings.redis.prefix, name, token or f"{whoami()}:{os.urandom(4).hex()}", ttl_s)

    def spool(self, stream: str) -> Spool:
        return Spool(self._spools, stream, telemetry.spool_damaged)

    def claim_ownership(self, what: str, owner: str, ttl_s: float) -> None:
        """One `owner` of `what` per Redis, remembered for `ttl_s` after its last run.

        Raises: OwnedElsewhere, BufferUnavailable. A full Redis takes no claim: it is emptied all the same.
        """
        lease = self.lease(f"owner:{what}", ttl_s, token=owner)
        try:
            for _ in range(2):  # it may run out between the two questions
                if lease.acquire() or lease.renew() is Holding.OURS:
                    return
                if (holder := lease.holder()) is not None:
                    raise OwnedElsewhere(what, holder)
        except BufferFull:
            return

    @property
    def host(self) -> str:
        """This machine, as leases name it."""
        return whoami().split(":")[0]

    @property
    def owner(self) -> str:
        """This data directory, as it says who it is to others."""
        return f"data directory {self.ledger.data_directory} on {socket.gethostname()} ({self.ledger.path.absolute()})"

    def flush(self) -> Flush:
        from app.pipeline.flush import Flush
        from app.pipeline.late import LateTwins

        return Flush(
            self.buffer,
            self.ledger,
            self.settings.storage.segments_path,
            segment_secs=self.settings.storage.segment_secs,
            wall_us=wall_us,
            monotonic_s=monotonic_s,
            late=LateTwins(self.ledger, self.settings.storage.segments_path, lambda: self._interruptible(self.store)),
            step=self._step,
        )

    @cached_property
    def certifier(self) -> Certifier:
        """One for the process: it remembers the books and how far it has read."""
        from app.pipeline.book_answers import ask
        from app.pipeline.certify import Certifier

        def questions() -> dict[Market, Callable[[], RestBook]]:
            return {
                Market(stream.exchange, symbol): partial(ask, stream, symbol, self.budget)
                for stream in self.streams.values()
                if ORDERBOOK in stream.subscription.feeds
                for symbol in stream.subscription.symbols
            }

        return Certifier(
            self.ledger,
            self.settings.storage.segments_path,
            self.buffer.push,
            wall_us=wall_us,
            monotonic_s=monotonic_s,
            rest_check_s=self.settings.quality.rest_check_secs,
            questions=questions,
        )

    def archive(self) -> Archive:
        from app.pipeline.archive import Archive

        return Archive(
            self.ledger,
            self.settings.storage.segments_path,
            self.settings.archive.dir,
            tuple(self._interruptible(store) for store in self.stores),
            server=self.settings.aws.home_server_name,
            cycle_deadline_s=self.settings.archive.deadline_secs,
            monotonic_s=monotonic_s,
            step=self._step,
            told=self._judged,
        )

    def runner(
        self, stream: Stream, lease: Lease, spool: Spool, stop: threading.Event, crowded: Callable[[], None]
    ) -> StreamRunner:
        """The parts of one stream. `spool` must be locked, `lease` held; `crowded` is called when its list grows long."""
        from app.pipeline.assembly import assembled

        return assembled(self, stream, lease, spool, stop, crowded)
