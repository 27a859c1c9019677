"""Binance diff depth against exchanges that really listen: the books that were asked for make the archive a book."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

from app.books.agreement import differences
from app.books.binance import VENUE
from app.books.change import RestBook, Row
from app.books.rebuild import Applied, Rebuild, Verdict
from app.codec import BatchCodec
from app.exchanges.base import ASKED, Pace
from app.objects import parquet
from app.pipeline.audit import audit
from app.pipeline.survey import waiting
from app.wiring import Wiring
from tests.support.exchanges import ExchangeProcess
from tests.support.path import Collecting, finish, records, until
from tests.support.rig import Rig

SYMBOLS = ["btcusdt", "ethusdt"]
Servers = Callable[..., ExchangeProcess]


def diff(rig: Rig, server: ExchangeProcess) -> Wiring:
    venue = {**server.venues["binance"], "orderbook_channel": "depth@100ms"}
    rig.write({"binance": SYMBOLS}, {"binance": venue})
    return rig.wiring()


def begun(wiring: Wiring, count: int) -> None:
    """Wait until `count` books that were asked for are on their way."""
    codec = BatchCodec()

    def found() -> int:
        events = (event for _, _, element in waiting(wiring) for event in codec.decode(element).events)
        return sum(event.sequence_id.startswith(ASKED) for event in events)

    until(lambda: found() >= count, f"{count} books that were asked for")


def rows(wiring: Wiring, symbol: str) -> list[Row]:
    """The archived rows of one book."""
    found = []
    for key in sorted(wiring.store.keys(f"binance/{symbol}/orderbook/")):
        if key.endswith(".parquet"):
            with wiring.store.open(key) as file:
                found += [Row(*row) for chunk in parquet.read(file) for row in chunk]
    return found


def asked(server: ExchangeProcess, symbol: str) -> tuple[str, RestBook]:
    """The venue's own book by now."""
    url = f"{server.venues['binance']['rest_url']}/api/v3/depth"
    body = httpx.get(url, params={"symbol": symbol.upper(), "limit": 1000}, trust_env=False).content
    return body.decode(), VENUE.rest(body)


@pytest.mark.row("X9")
def test_a_book_is_rebuilt_from_the_archive_alone_over_a_hole(rig: Rig, exchange_server: Servers) -> None:
    server = exchange_server(rate=50)
    wiring = diff(rig, server)
    with Collecting(wiring) as collecting:
        until(collecting.live, "every feed is live")
        begun(wiring, 2)
        server.let("lose,venue=binance,symbol=btcusdt,feed=orderbook,count=1")
        begun(wiring, 3)
        collecting.more(20)
        server.halt()
        venues = {symbol: asked(server, symbol) for symbol in SYMBOLS}
        collecting.finish()
    connections = {line["connection"] for line in server.lines() if "opened" in line}
    assert len(connections) == 1
    finish(wiring)

    for symbol in SYMBOLS:
        rebuild, found = Rebuild("binance", symbol), list[tuple[Row, Applied]]()
        for row in rows(wiring, symbol):
            found.append((row, rebuild.apply(row)))
        assert rebuild.book is not None
        assert rebuild.number == venues[symbol][1].number
        assert differences(rebuild.book, venues[symbol][1]) == []
        snapshots = [(row, one) for row, one in found if row.exchange_sequence_id.startswith(ASKED)]
        assert [one.verdict for _, one in snapshots] == [Verdict.SNAPSHOT] * (2 if symbol == "btcusdt" else 1)
        for row, _ in snapshots:
            assert row.exchange_sequence_id == f"rest-{json.loads(row.data)['lastUpdateId']}"
            assert row.timestamp_exchange is None
    (gap,) = [row for row in records(wiring, "gaps") if row["feed"] == "orderbook"]
    assert (gap["symbol"], gap["cause"]) == ("btcusdt", "sequence")
    report = audit(wiring, deep=True, sent=[server.sent_file])
    assert report.differences == []


def test_a_venue_that_says_stay_away_is_left_alone_by_all_and_asked_for_the_book_afterwards(
    rig: Rig, exchange_server: Servers
) -> None:
    server = exchange_server(rate=50)
    wiring = diff(rig, server)
    with Collecting(wiring) as collecting:
        until(collecting.live, "every feed is live")
        begun(wiring, 2)
        server.let("http,venue=binance,status=429,retry_after_s=2,on=rest")
        server.let("lose,venue=binance,symbol=btcusdt,feed=orderbook,count=1")
        until(lambda: wiring.budget.take("binance", "connect", Pace(1000.0, 1000)) > 0, "every worker stays away")
        server.heal()
        begun(wiring, 3)
        collecting.finish()
    assert [fault["status"] for fault in server.lines() if fault.get("fault") == "http"] == [429]
