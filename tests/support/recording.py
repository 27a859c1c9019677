"""A recording of the built-in exchanges while one of them lets it down, and the account of it afterwards."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from app.pipeline import periodic
from app.wiring import Wiring
from tests.support.accounted import Account, accounted
from tests.support.exchanges import ExchangeProcess
from tests.support.path import NEVER, Collecting, until
from tests.support.rig import MARKETS, Rig

#: Timeouts that a test can wait for; everything else is as the user has it.
QUICK = {"initial_retry_delay_secs": 0.2, "connect_timeout_secs": 1}


class Recording:
    """One venue or more, recorded from now on; `account` ends it and lays what was sent beside what is stored."""

    def __init__(self, exchange: ExchangeProcess, rig: Rig, *names: str, **websocket: float) -> None:
        self.exchange, self.rig, self.names = exchange, rig, names
        self._before = len(exchange.lines())
        rig.write({name: MARKETS[name] for name in names}, exchange.venues, websocket=QUICK | websocket)
        self.wiring: Wiring = rig.wiring()
        self.collecting = Collecting(self.wiring)

    def close(self) -> None:
        """End what a failed test left running, so that the next one has the exchanges to itself."""
        self.collecting.stop.set()
        self.collecting.join()

    def stream(self, name: str) -> Any:
        """The runner of a venue."""
        return next(runner for key, runner in self.collecting.runners.items() if key.startswith(name))

    def live(self) -> None:
        until(self.collecting.live, "every feed is live")

    def again(self, name: str, connection: int = 2) -> None:
        """Wait until the venue's `connection`-th connection has brought data in every feed."""
        until(lambda: self.stream(name).progress.opened_count >= connection, f"connection {connection} of {name}")
        until(
            lambda: self.stream(name).state(0.0)["connection"] == "open" and self.collecting.live(),
            "every feed is live",
        )
        self.collecting.more(20)

    def lines(self) -> list[dict[str, Any]]:
        return self.exchange.lines()[self._before :]

    def struck(self, fault: str) -> list[dict[str, Any]]:
        """The lines of a fault, when there are any."""
        return until(lambda: [x for x in self.lines() if x.get("fault") == fault], f"{fault} has struck")

    def withheld(self, venue: str) -> dict[str, list[int]]:
        """Ids of trades that the venue withheld, by symbol."""
        found: dict[str, list[int]] = {}
        for line in self.lines():
            if line.get("withheld") and (line["venue"], line["feed"]) == (venue, "trade"):
                found.setdefault(line["symbol"], []).append(int(line["id"]))
        return found

    def flush(self) -> None:
        assert periodic.flush(self.wiring, NEVER, deadline_s=None)["failed"] == {}

    def account(self) -> Account:
        self.exchange.halt()
        assert set(self.collecting.finish().values()) == {"stop"}
        self.flush()
        return accounted(self.rig, self.lines())


def gaps(account: Account, feed: str) -> dict[str, list[tuple[int, int]]]:
    """symbol -> (first, last) missing id of each gap row."""
    found: dict[str, list[tuple[int, int]]] = {}
    for _, symbol, of, _, from_id, to_id, _, _ in account.held.gaps:
        if of == feed:
            found.setdefault(symbol, []).append((int(from_id), int(to_id)))
    return {symbol: sorted(pairs) for symbol, pairs in found.items()}


def missed_trades(recording: Recording, venue: str) -> dict[str, list[tuple[int, int]]]:
    """symbol -> (first, last) of the ids that no connection was sent, where the venue's trades count one by one."""
    ids: dict[str, list[int]] = {}
    for line in recording.lines():
        if line.get("venue") == venue and line.get("feed") == "trade" and "data" in line:
            ids.setdefault(line["symbol"], []).append(int(line["id"]))
    missed: dict[str, list[tuple[int, int]]] = {}
    for symbol, seen in ids.items():
        for before, after in pairwise(sorted(set(seen))):
            if after > before + 1:
                missed.setdefault(symbol, []).append((before + 1, after - 1))
    return missed


def between(recording: Recording, venue: str) -> float:
    """Seconds from the first end of a connection to the opening of the next one."""
    lines = [line for line in recording.lines() if line.get("venue") == venue]
    closed_us = next(line["closed"] for line in lines if "closed" in line)
    return float(next(line["opened"] for line in lines if line.get("opened", 0) > closed_us) - closed_us) / 1e6
