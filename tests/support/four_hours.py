"""Four hours of three markets, put in at clocks of the test's choosing: what pages about the archive have to show."""

from __future__ import annotations

from typing import Any, BinaryIO, cast

from app.clock import monotonic_s, wall_us
from app.codec import BatchCodec
from app.model import Gap, Loss, Quarantined
from app.pipeline import periodic
from app.pipeline.hourly import Grid, Hourly
from app.pipeline.hours import HOUR_US, hour_of
from tests.support.batches import batch, event
from tests.support.path import NEVER, flush_at
from tests.support.rig import Rig

BTC, ETH, BOOK = ("binance", "btcusdt", "trade"), ("binance", "ethusdt", "trade"), ("binance", "btcusdt", "orderbook")
KRW = ("upbit", "KRW-BTC", "trade")


class CountingStore:
    """The local store; every key that is opened is on record."""

    def __init__(self, store: Any) -> None:
        self._store, self.opened = store, cast(list[str], [])
        self.name = store.name

    def open(self, key: str) -> BinaryIO:
        self.opened.append(key)
        return cast(BinaryIO, self._store.open(key))


class World:
    """Four hours of three markets, put in at clocks of the test's choosing: the last of them is the one that goes on."""

    def __init__(self, rig: Rig) -> None:
        rig.write({"binance": ["btcusdt", "ethusdt"], "upbit": ["KRW-BTC"]})
        self.rig, self.wiring = rig, rig.wiring()
        self.now_us = wall_us()
        self.hours = [hour_of(self.now_us) + n * HOUR_US for n in (-3, -2, -1, 0)]
        self.store = CountingStore(self.wiring.store)
        self.hourly = self.fresh()
        self._findings = 0

    def fresh(self, at_once: int = 1) -> Hourly:
        return Hourly(
            self.wiring.ledger, self.wiring.settings.storage.segments_path, cast(Any, self.store), wall_us=wall_us,
            monotonic_s=monotonic_s, at_once=at_once,
        )  # fmt: skip

    def put(self, made: Any, at_us: int) -> None:
        self.wiring.buffer.push(made.stream, BatchCodec().encode(made))
        assert flush_at(self.wiring, at_us).failed == {}

    def finding(self, *, epoch: str, events: Any = (), **records: Any) -> Any:
        self._findings += 1
        return batch(self._findings, events, epoch=epoch, stream="binance-findings", kind="finding", **records)

    def trades(self, hour: int, *ids: int, symbol: str = "btcusdt", first: int = 1) -> list[Any]:
        """Events that bear numbers from `first`, each a second after the one before."""
        return [
            event(n, str(identity), symbol=symbol, received_us=self.at(hour, n))
            for n, identity in enumerate(ids, first)
        ]

    def at(self, hour: int, seconds: int) -> int:
        return self.hours[hour] + seconds * 1_000_000

    def archive(self, *, final: bool = False) -> None:
        assert periodic.archive(self.wiring, NEVER, final=final)["failed"] == {}

    def grid(self, hourly: Hourly | None = None, *, deadline_s: float = 60) -> Grid:
        return (hourly or self.hourly).grid(self.hours[0], self.now_us + 1, deadline_s=deadline_s)

    def said(self, feed: tuple[str, str, str], hour: int) -> tuple[str, float | None, int] | None:
        cell = self.grid().cells.get(feed, {}).get(self.hours[hour])
        return cell and (cell.state, cell.value, cell.rows)

    def record(self) -> None:
        """Hour 0: trades with a gap, trades in order, a book, trades without ids that count. Hour 1: a counted loss and a
        frame in quarantine. Hour 2: nothing. Hour 3 goes on. All but the last is archived."""
        gap = Gap("btcusdt", "trade", 3, "3", "5", 3, self.at(0, 2), self.at(0, 3), "missing_ids")
        rows = [event(n, f"d-{n}", feed="orderbook", received_us=self.at(0, n)) for n in (1, 2)]
        units = [*self.trades(0, 1, 2, 6, 7), *self.trades(0, 1, 2, 3, symbol="ethusdt"), *rows]
        self.put(batch(1, units, gaps=[gap]), self.at(0, 5))
        korean = [event(n, f"170-{n}", symbol="KRW-BTC", received_us=self.at(0, n)) for n in (1, 2)]
        self.put(batch(1, korean, epoch="0b" * 16, stream="upbit-0-trade"), self.at(0, 6))
        lost = Loss("ethusdt", "trade", 6, 7, 2, self.at(1, 2), self.at(1, 3), "queue_full")
        kept = [*self.trades(1, 4, 5, symbol="ethusdt", first=4), *self.trades(1, 8, 9, symbol="ethusdt", first=8)]
        bad = Quarantined("?", "?", 1, self.at(1, 4), "not_json", b"\xff<b>\x1b[0m" + b"x" * 300)
        self.put(batch(2, [*kept, bad], losses=[lost]), self.at(1, 9))
        self.put(batch(3, self.trades(3, 8, 9, first=5)), self.at(3, 1))
        self.archive()
