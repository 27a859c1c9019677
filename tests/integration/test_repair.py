"""Holes in what venues sent, found, fetched again and put on record: real Redis, the real flush, the real archive."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import msgspec
import pytest
from click.testing import CliRunner

from app.codec import BatchCodec
from app.commands import gaps as gaps_command
from app.commands import repair as repair_command
from app.commands.gaps import listing
from app.exchanges import EXCHANGES
from app.exchanges.base import Pace
from app.model import TRADE, Batch, EpochEnd, Event, Gap, Range
from app.pipeline import periodic
from app.wiring import Wiring
from tests.support.exchanges import ExchangeProcess
from tests.support.past import NOW_US, BinanceServed, Desk, OkxServed, Served, at_ms, desk
from tests.support.path import NEVER, Collecting, archived, finish, until
from tests.support.rig import Rig

MARKETS = {"binance": ["btcusdt"], "coinbase": ["ETH-USD"], "okx": ["BTC-USDT"]}
Servers = Callable[..., ExchangeProcess]
A, B = "0a" * 16, "0b" * 16


def flush(wiring: Wiring) -> dict[str, Any]:
    report = periodic.flush(wiring, NEVER, deadline_s=None)
    assert report["failed"] == {}
    return report


def repair(wiring: Wiring, deadline_s: float = 20) -> dict[str, Any]:
    """A run of repairs and the flush of what it found."""
    report = periodic.repair(wiring, NEVER, deadline_s=deadline_s, patient=False)
    flush(wiring)
    return report


def repaired(wiring: Wiring) -> list[dict[str, Any]]:
    """What was settled in as many runs as it takes until one does nothing."""
    settled = []
    for _ in range(20):
        report = repair(wiring)
        assert report["failed"] == {}
        settled += report["closed"]
        if not (report["fetched"] or report["closed"] or report["judged"] or report["waiting"]):
            return settled
    raise AssertionError("it does not come to an end")


def trade_gaps(wiring: Wiring) -> list[dict[str, Any]]:
    return [gap for gap in listing(wiring) if gap["feed"] == "trade"]


def covered(rows: list[tuple[str, str]], exchange: str) -> list[int]:
    """Every id that the rows of an archive stand for, ascending, as often as it is stood for."""
    spans = [EXCHANGES[exchange].dense_span(identity, text) for identity, text in rows]
    return sorted(number for span in spans if span for number in range(span[0], span[1] + 1))


def run(rig: Rig, server: ExchangeProcess, frames: int = 60) -> None:
    """One life of every stream: until so many frames have come; the data is stopped before."""
    with Collecting(rig.wiring()) as collecting:
        until(collecting.live, "every feed live")
        collecting.more(frames)
        server.halt()
        collecting.finish()


def assert_whole(wiring: Wiring, server: ExchangeProcess) -> None:
    """The archive has every trade that was sent, byte for byte, and each id between the first and last exactly once."""
    finish(wiring)
    sent: dict[str, dict[str, set[str]]] = {}
    for line in server.sent():
        if line["feed"] == "trade":
            sent.setdefault(line["venue"], {}).setdefault(line["id"], set()).add(line["data"])
    rows = {key[0]: found for key, found in archived(wiring).items() if key[2] == "trade"}
    assert rows.keys() == sent.keys()
    for exchange, found in rows.items():
        held = dict(found)
        assert len(held) == len(found)
        assert [i for i, texts in sent[exchange].items() if held.get(i) not in texts] == []
        if ids := covered(found, exchange):
            assert ids == list(range(ids[0], ids[-1] + 1)), exchange


@pytest.mark.row("X9")
@pytest.mark.timeout(90)
def test_trades_that_a_venue_did_not_send_are_fetched_and_the_archive_has_no_hole(
    rig: Rig, exchange_server: Servers
) -> None:
    server = exchange_server(rate=25)
    rig.write(markets=MARKETS, venues=server.venues)
    server.let(*(f"lose,venue={venue},feed=trade,skip=12,count=3" for venue in MARKETS))
    run(rig, server, 250)
    wiring = rig.wiring()

    missing = trade_gaps(wiring)
    assert {(gap["market"].split("/")[0], gap["state"], gap["cause"]) for gap in missing} == {
        (venue, "open", "missing_ids") for venue in MARKETS
    }, "as they wait in Redis"
    flush(wiring)
    assert trade_gaps(wiring) == missing, "as the segment has them"

    first = repair(wiring)
    assert (first["closed"], first["failed"]) == ([], {})
    lost = {
        venue: {line["id"] for line in server.lines() if line.get("withheld") and line["venue"] == venue}
        for venue in MARKETS
    }
    assert first["fetched"] >= sum(map(len, lost.values())) > 0
    second = repair(wiring)
    assert {(told["market"].split("/")[0], told["state"]) for told in second["closed"]} == {
        (venue, "repaired") for venue in MARKETS
    }
    assert second["requests"] == 0

    told = trade_gaps(wiring)
    assert [gap | {"state": "open", "found": 0} for gap in told] == missing
    assert all((gap["state"], gap["found"]) == ("repaired", gap["size"]) for gap in told)
    assert_whole(wiring, server)
    assert trade_gaps(wiring) == told, "as the ledger has them"
    rest = {row["epoch"] for row in wiring.ledger.records("epochs") if row["kind"] == "rest"}
    assert {row["by_epoch"] for row in wiring.ledger.records("repairs") if row["feed"] == "trade"} <= rest
    third = repair(wiring)
    assert (third["fetched"], third["requests"], third["closed"]) == (0, 0, [])


@pytest.mark.row("X1")
@pytest.mark.timeout(90)
def test_what_a_restart_missed_is_seen_from_what_is_stored_alone_and_fetched(
    rig: Rig, exchange_server: Servers
) -> None:
    markets = {**MARKETS, "upbit": ["KRW-BTC"], "bybit": ["BTCUSDT"]}
    server = exchange_server(rate=10)
    rig.write(markets=markets, venues=server.venues)
    with Collecting(rig.wiring()) as collecting:
        until(collecting.live, "every feed live")
        collecting.finish()
    time.sleep(1.5)  # nobody listens, and the markets trade on
    run(rig, server)
    wiring = rig.wiring()
    flush(wiring)
    assert trade_gaps(wiring) == []

    tape = _tape(server)
    last = {
        row["exchange"]: row["last_id"]
        for row in wiring.stored.records("ranges", feed=TRADE)
        if _first_life(wiring, row)
    }
    told = {"upbit": True, "bybit": last["bybit"] in tape["bybit"]}  # a slow machine takes longer than 60 trades

    report = periodic.repair(wiring, NEVER, deadline_s=20, patient=False)
    assert (report["judged"], report["failed"]) == (2 * len(markets), {})
    waiting = {(gap["market"].split("/")[0], gap["feed"]): gap for gap in listing(wiring)}
    assert {key: gap["state"] for key, gap in waiting.items() if key[1] == "orderbook"} == {
        (venue, "orderbook"): "unknowable" for venue in markets
    }
    assert {venue for venue, feed in waiting if feed == "trade"} == set(MARKETS) | {
        v for v, known in told.items() if not known
    }
    assert {waiting[venue, "trade"]["cause"] for venue in MARKETS} == {"restart"}
    flush(wiring)

    settled = {told["market"].split("/")[0]: told["state"] for told in [*report["closed"], *repaired(wiring)]}
    ends = {venue: "repaired" if known else "unknowable" for venue, known in told.items()}
    assert settled == {**dict.fromkeys(MARKETS, "repaired"), **ends}
    checks = {(c["exchange"], c["kind"]): c["verdict"] for c in wiring.stored.records("checks", feed="trade")}
    assert checks == {
        **{(venue, "seam"): "broken" for venue in MARKETS},
        **{(venue, "seam"): "unknowable" for venue in told},
        **{(venue, "refetch"): "proved" if known else "unknowable" for venue, known in told.items()},
    }
    assert_whole(wiring, server)
    held = {key[0]: {identity for identity, _ in rows} for key, rows in archived(wiring).items() if key[2] == TRADE}
    for venue in told:
        known = [identity for identity in tape[venue] if identity in held[venue]]
        places = tape[venue].index(known[0]), tape[venue].index(known[-1])
        assert known == tape[venue][places[0] : places[1] + 1], "as the venue tells them, without a hole"


@pytest.mark.timeout(90)
def test_where_connections_overlapped_each_seam_is_proved_and_nothing_is_asked(
    rig: Rig, exchange_server: Servers
) -> None:
    markets = {**MARKETS, "upbit": ["KRW-BTC"], "bybit": ["BTCUSDT"]}
    server = exchange_server(rate=10)
    rig.write(markets=markets, venues=server.venues, websocket={"rotate_secs": 2})
    wiring = rig.wiring()

    def rotated() -> bool:
        states = wiring.board.states(list(wiring.streams)).values()
        return len(states) == len(markets) and all(state["closes"].get("planned_rotation") for state in states)

    with Collecting(wiring) as collecting:
        until(rotated, "each stream renewed its connection", 30)
        server.halt()
        collecting.finish()
    flush(wiring)
    report = repair(wiring)
    assert (report["requests"], report["failed"]) == (0, {})
    checks = wiring.stored.records("checks")
    assert {(check["exchange"], check["feed"]) for check in checks} == {
        (exchange, feed) for exchange in markets for feed in ("orderbook", "trade")
    }
    assert {check["verdict"] for check in checks} == {"proved"}
    assert listing(wiring) == []


def _first_life(wiring: Wiring, row: dict[str, Any]) -> bool:
    """Whether a range is of the first epoch of its exchange."""
    opened = {e["opened_us"]: e["epoch"] for e in wiring.stored.records("epochs", exchange=row["exchange"])}
    return row["epoch"] == opened[min(opened)]


def _tape(server: ExchangeProcess) -> dict[str, list[str]]:
    """The ids that the venues whose ids do not count tell of their market over REST, the oldest first."""
    urls = {name: venue["rest_url"] for name, venue in server.venues.items()}
    ticks = httpx.get(f"{urls['upbit']}/v1/trades/ticks?market=KRW-BTC&count=500", trust_env=False).json()
    recent = httpx.get(f"{urls['bybit']}/v5/market/recent-trade?category=spot&symbol=BTCUSDT", trust_env=False).json()
    return {
        "upbit": [str(row["sequential_id"]) for row in ticks][::-1],
        "bybit": [row["execId"] for row in recent["result"]["list"]][::-1],
    }


# a venue of the test's own


def lives(wiring: Wiring, exchange: str, before: list[Event], after: list[Event], *, gap: Gap | None = None) -> None:
    """Two connections' trades, stored; `gap` is what the second one's own numbers showed."""
    stream = f"{exchange}-0-trade"
    for epoch, events in ((A, before), (B, after)):
        numbers = (Range(events[0].symbol, TRADE, 1, len(events)),)
        end = EpochEnd(events[-1].received_us, "stop", numbers)
        gaps = (gap,) if gap and epoch == B else ()
        opened_us = events[0].received_us - 1
        push(wiring, stream, Batch(stream, exchange, epoch, 1, opened_us, numbers, tuple(events), gaps=gaps, end=end))
    flush(wiring)


def push(wiring: Wiring, stream: str, batch: Batch) -> None:
    assert wiring.buffer.push(stream, BatchCodec().encode(batch)) is not None


def trades(symbol: str, ids: range, text: str = '{{"t":{0}}}', start: int = 1) -> list[Event]:
    return [
        Event(symbol, TRADE, n, str(i), at_ms(i) * 1000, at_ms(i) * 1000, text.format(i))
        for n, i in enumerate(ids, start)
    ]


@pytest.fixture
def venue(rig: Rig) -> Iterator[Callable[[Served, str, str], Desk]]:
    """`venue(served, "binance", "btcusdt")`: a REST of the test's own, in the settings of the rig."""
    with ExitStack() as opened:

        def at(served: Served, exchange: str, symbol: str) -> Desk:
            made = opened.enter_context(desk(served))
            rig.write(
                markets={exchange: [symbol]}, venues={exchange: {"ws_url": "ws://127.0.0.1:1", "rest_url": made.url}}
            )
            return made

        yield at


Venue = Callable[[Served, str, str], Desk]


def binance(rig: Rig, venue: Venue, ids: list[int], page: int = 1000) -> tuple[Wiring, Desk]:
    """Trades 1..10 and 41..50 stored of one that has `ids`."""
    made = venue(BinanceServed(ids, page, 0), "binance", "btcusdt")
    wiring = rig.wiring()
    lives(wiring, "binance", trades("btcusdt", range(1, 11)), trades("btcusdt", range(41, 51)))
    return wiring, made


def held(wiring: Wiring, exchange: str = "binance") -> list[int]:
    """Ids that the archive stands for, when everything has come there."""
    finish(wiring)
    return covered(
        [row for (name, _, _), rows in archived(wiring).items() if name == exchange for row in rows], exchange
    )


def test_of_a_gap_that_the_venue_can_fill_in_part_the_rest_is_named(rig: Rig, venue: Venue) -> None:
    wiring, made = binance(rig, venue, [i for i in range(60) if i not in (15, 20, 21)])
    settled = repaired(wiring)
    words = "15, 20..21 remain: the venue does not have them"
    assert settled == [
        {"market": "binance/btcusdt", "from_id": "11", "to_id": "40", "state": "partly", "found": 27, "detail": words}
    ]
    (gap,) = trade_gaps(wiring)
    assert (gap["state"], gap["size"], gap["found"], gap["detail"], gap["cause"]) == (
        "partly",
        30,
        27,
        words,
        "restart",
    )
    asked = len(made.asked)
    assert repair(wiring)["requests"] == 0 and len(made.asked) == asked, "and it is not asked for again"
    assert held(wiring) == [i for i in range(1, 51) if i not in (15, 20, 21)]


def test_a_gap_of_a_market_that_is_gone_is_unrepairable_in_the_venues_words(rig: Rig, venue: Venue) -> None:
    wiring, made = binance(rig, venue, [])
    made.instead = [(400, {"Content-Type": "application/json"}, b'{"code":-1121,"msg":"Invalid symbol."}')]
    assert [(told["state"], told["detail"]) for told in repaired(wiring)] == [
        ("unrepairable", "11..40 remain: HTTP 400: Invalid symbol. (code -1121)")
    ]
    assert [gap["state"] for gap in trade_gaps(wiring)] == ["unrepairable"]


def test_what_the_venue_lacks_at_first_may_come_yet(rig: Rig, venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.wiring.wall_us", lambda: at_ms(60) * 1000)
    wiring, made = binance(rig, venue, list(range(25)))
    report = [repair(wiring) for _ in range(3)][-1]
    assert [(told["state"], told["found"]) for told in report["closed"]] == []
    (gap,) = trade_gaps(wiring)
    assert (gap["state"], gap["found"], gap["detail"][:14]) == ("partly", 14, "25..40 remain:")
    made.served.ids = list(range(60))
    assert [told["state"] for told in repaired(wiring)] == ["repaired"]
    assert held(wiring) == list(range(1, 51))


def test_two_workers_that_repair_at_once_store_each_trade_once(rig: Rig, venue: Venue) -> None:
    wiring, _ = binance(rig, venue, list(range(60)), page=7)
    both = [rig.wiring(), rig.wiring()]
    barrier = threading.Barrier(2)

    def run_at_once(one: Wiring) -> None:
        barrier.wait()
        one.repairs.run(deadline_s=20)  # without the lock that saves the work

    threads = [threading.Thread(target=run_at_once, args=(one,)) for one in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    flush(wiring)
    settled = repaired(wiring)
    assert {told["state"] for told in settled} == {"repaired"}
    assert held(wiring) == list(range(1, 51))
    assert [(gap["state"], gap["found"]) for gap in trade_gaps(wiring)] == [("repaired", 30)]


def test_one_of_two_runs_is_a_no_op(rig: Rig) -> None:
    wiring = rig.wiring()
    lease = wiring.lease("lock:repair", 10)
    assert lease.acquire()
    assert periodic.repair(wiring, NEVER) == {"skipped": "another run is going on"}


def test_the_budget_of_a_venue_is_shared_by_all_who_repair(rig: Rig, venue: Venue) -> None:
    wiring, made = binance(rig, venue, list(range(60)), page=1)
    for one, requests in ((wiring, 3), (rig.wiring(), 0)):
        paced(one, 0.001, 3)
        report = one.repairs.run(deadline_s=20, patient=False)
        flush(wiring)
        assert report.requests == requests
        assert "the shared budget of requests is used up" in report.failed["binance"]
    assert len(made.asked) == 3


@pytest.mark.row("X11")
def test_a_venue_that_says_too_many_is_left_alone_by_everybody_for_as_long_as_it_says(rig: Rig, venue: Venue) -> None:
    wiring, made = binance(rig, venue, list(range(60)))
    made.instead = [(429, {"Retry-After": "60"}, b'{"code":-1003,"msg":"Too many requests"}')]
    assert repair(wiring, 5)["failed"] == {"binance": "HTTP 429: nobody asks for 60 s"}
    failed = repair(rig.wiring(), 5)["failed"]
    assert "the shared budget of requests is used up for" in failed["binance"]
    assert len(made.asked) == 1


def test_a_run_that_has_the_time_waits_until_the_venue_may_be_asked_again(rig: Rig, venue: Venue) -> None:
    wiring, _ = binance(rig, venue, list(range(60)))
    wiring.budget.block("binance", 1.0)
    asked_s = time.monotonic()
    assert repair(wiring)["fetched"] == 30
    assert time.monotonic() - asked_s >= 0.9
    assert [told["state"] for told in repaired(wiring)] == ["repaired"]


class Silent(BinanceServed):
    """It takes a question, and answers when the test is over."""

    def __init__(self) -> None:
        super().__init__([], 1000, 0)
        self.taken, self.over = threading.Event(), threading.Event()

    def reply(self, path: str, query: dict[str, str]) -> tuple[int, bytes]:
        self.taken.set()
        self.over.wait(30)
        return super().reply(path, query)


def test_a_stop_gives_up_a_question_that_is_not_answered_and_the_next_run_asks_again(rig: Rig, venue: Venue) -> None:
    silent = Silent()
    made = venue(silent, "binance", "btcusdt")
    wiring = rig.wiring()
    lives(wiring, "binance", trades("btcusdt", range(1, 11)), trades("btcusdt", range(41, 51)))
    stop = threading.Event()
    reports: list[dict[str, object]] = []
    run = threading.Thread(target=lambda: reports.append(periodic.repair(wiring, stop, deadline_s=20, patient=False)))
    run.start()
    assert silent.taken.wait(20)
    stop.set()
    run.join(20)
    silent.over.set()
    assert [(report["failed"], report["requests"], report["closed"]) for report in reports] == [({}, 0, [])]
    flush(wiring)
    assert [gap["state"] for gap in trade_gaps(wiring)] == ["open"]
    made.served.ids = list(range(60))
    assert [told["state"] for told in repaired(wiring)] == ["repaired"]


def test_after_a_failure_a_venue_is_left_alone_for_a_growing_pause(
    rig: Rig, venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.wiring.wall_us", lambda: at_ms(60) * 1000)
    wiring, made = binance(rig, venue, list(range(60)))
    made.instead = [(451, {}, b"<html>")] * 3
    answer = wiring.repairs.run(deadline_s=5)
    flush(wiring)
    assert wiring.repairs.run(deadline_s=5).failed == {}
    assert "it does not serve this place; set [exchanges.<name>] rest_url or proxy" in answer.failed["binance"]
    assert len(made.asked) == 2, "single trades, then aggregates; the later runs wait"
    wiring.repairs.run(deadline_s=5, patient=False)
    assert len(made.asked) > 2


def test_a_long_gap_is_fetched_over_many_runs_and_each_goes_on_where_it_was(rig: Rig, venue: Venue) -> None:
    made = venue(BinanceServed(list(range(3000)), 100, 0), "binance", "btcusdt")
    rig.write(
        markets={"binance": ["btcusdt"]}, venues={"binance": {"ws_url": "ws://127.0.0.1:1", "rest_url": made.url}}
    )
    wiring = rig.wiring()
    lives(wiring, "binance", trades("btcusdt", range(1, 11)), trades("btcusdt", range(2501, 2511)))
    paced(wiring, 1e6, 1_000_000)
    assert [told["found"] for told in repaired(wiring)] == [2490]
    assert len(made.asked) == 25
    assert held(wiring) == list(range(1, 2511))


def paced(wiring: Wiring, per_s: float, burst: int) -> None:
    """Another budget for every venue."""
    for at in wiring.repairs._venues.values():
        at.rest._pace = Pace(per_s, burst)


def test_where_more_is_missing_than_a_run_looks_at_each_gap_has_its_turn(
    rig: Rig, venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.pipeline.repair.GAPS_A_RUN", 1)
    monkeypatch.setattr("app.wiring.wall_us", lambda: at_ms(60) * 1000)
    made = venue(BinanceServed([], 1000, 0), "binance", "btcusdt")
    made.instead = [(400, {}, b'{"code":-1121,"msg":"Invalid symbol."}')] * 3
    wiring = rig.wiring()
    for epoch, ids in enumerate((range(1, 11), range(21, 31), range(41, 51), range(56, 60))):
        numbers = (Range("btcusdt", TRADE, 1, len(ids)),)
        events = tuple(trades("btcusdt", ids))
        end = EpochEnd(events[-1].received_us, "stop", numbers)
        opened_us = events[0].received_us - 1
        push(wiring, "b-0", Batch("b-0", "binance", f"{epoch:032x}", 1, opened_us, numbers, events, end=end))
    flush(wiring)
    settled = []
    for _ in range(9):
        settled += wiring.repairs.run(deadline_s=20).closed
        flush(wiring)
    assert [told["from_id"] for told in settled] == ["11", "31", "51"]
    assert {gap["state"] for gap in trade_gaps(wiring)} == {"unrepairable"}


def test_where_single_trades_of_binance_are_not_served_aggregates_stand_for_them(rig: Rig, venue: Venue) -> None:
    made = venue(BinanceServed(list(range(60)), 1000, 0, single=False), "binance", "btcusdt")
    wiring = rig.wiring()
    lives(wiring, "binance", trades("btcusdt", range(1, 12)), trades("btcusdt", range(41, 51)))
    assert [(told["state"], told["found"], told["detail"]) for told in repaired(wiring)] == [
        ("partly", 28, "40 remain: the venue does not have them")
    ], "40 and 41 are one aggregate, and 41 is stored"
    assert held(wiring) == [i for i in range(1, 51) if i != 40]
    assert any("aggTrades" in path for path in made.asked)


OKX_ROW = '{{"instId":"BTC-USDT","tradeId":"{0}","px":"1","sz":"1","ts":"1","count":"{1}"}}'


def okx_rows(*spans: tuple[int, int], start: int = 1) -> list[Event]:
    return [
        Event("BTC-USDT", TRADE, n, str(b), at_ms(b) * 1000, at_ms(b) * 1000, OKX_ROW.format(b, b - a + 1))
        for n, (a, b) in enumerate(spans, start)
    ]


def test_no_single_trade_of_okx_stands_beside_a_row_that_stands_for_it(rig: Rig, venue: Venue) -> None:
    venue(OkxServed(list(range(60)), 100, 0), "okx", "BTC-USDT")
    wiring = rig.wiring()
    lives(wiring, "okx", okx_rows((1, 4), (5, 10)), okx_rows((31, 33), (34, 40)))
    late = okx_rows((13, 15), (20, 24), start=3)
    numbers = (Range("BTC-USDT", TRADE, 3, 4),)
    push(wiring, "okx-0-trade", Batch("okx-0-trade", "okx", A, 2, 1, numbers, tuple(late)))
    flush(wiring)
    assert [(told["state"], told["from_id"]) for told in repaired(wiring)] == [("repaired", "25")]
    assert held(wiring, "okx") == [*range(1, 11), *range(13, 16), *range(20, 41)]


def test_a_gap_that_a_late_spool_fills_asks_nobody(rig: Rig, venue: Venue) -> None:
    made = venue(OkxServed(list(range(60)), 100, 0), "okx", "BTC-USDT")
    wiring = rig.wiring()
    lives(wiring, "okx", okx_rows((1, 10)), okx_rows((31, 40)))
    wiring.repairs.run(deadline_s=0)
    flush(wiring)
    assert [gap["state"] for gap in trade_gaps(wiring)] == ["open"]
    late = okx_rows((11, 24), (25, 30), start=2)
    push(wiring, "okx-0-trade", Batch("okx-0-trade", "okx", A, 2, 1, (Range("BTC-USDT", TRADE, 2, 3),), tuple(late)))
    flush(wiring)
    assert [told["state"] for told in repaired(wiring)] == ["repaired"]
    assert made.asked == []


@pytest.mark.row("X8")
def test_a_trade_that_comes_late_closes_the_gap_that_it_left_and_nobody_is_asked(rig: Rig, venue: Venue) -> None:
    made = venue(BinanceServed(list(range(60)), 1000, 0), "binance", "btcusdt")
    wiring = rig.wiring()
    gap = Gap("btcusdt", TRADE, 3, "13", "13", 1, at_ms(12) * 1000, at_ms(14) * 1000, "missing_ids")
    late = [event for i in (11, 12, 14, 13) for event in trades("btcusdt", range(i, i + 1))]
    late = [msgspec.structs.replace(event, number=number) for number, event in enumerate(late, 1)]
    lives(wiring, "binance", trades("btcusdt", range(1, 11)), late, gap=gap)
    assert [(told["from_id"], told["state"], told["found"]) for told in repaired(wiring)] == [("13", "repaired", 1)]
    assert made.asked == []


def test_what_comes_after_its_gap_was_given_up_is_put_on_record_once(rig: Rig, venue: Venue) -> None:
    wiring, made = binance(rig, venue, [])
    made.instead = [(400, {}, b'{"code":-1121,"msg":"Invalid symbol."}')]
    assert [told["state"] for told in repaired(wiring)] == ["unrepairable"]
    asked = len(made.asked)
    for part, state, remain in ((range(11, 31), "partly", "31..40"), (range(31, 41), "repaired", "")):
        numbers = (Range("btcusdt", TRADE, part[0], part[-1]),)
        batch = Batch(
            "binance-0-trade", "binance", A, part[0], 1, numbers, tuple(trades("btcusdt", part, start=part[0]))
        )
        push(wiring, "binance-0-trade", batch)
        flush(wiring)
        words = f"{remain} remain: HTTP 400: Invalid symbol. (code -1121)" if remain else ""
        settled = [(told["state"], told["found"], told["detail"]) for told in repaired(wiring)]
        assert settled == [(state, part[-1] - 10, words)]
    assert len(made.asked) == asked
    assert [(gap["state"], gap["found"]) for gap in trade_gaps(wiring)] == [("repaired", 30)]
    assert held(wiring) == list(range(1, 51))


def test_what_comes_hours_after_it_was_fetched_and_archived_is_a_duplicate(rig: Rig, venue: Venue) -> None:
    wiring, _ = binance(rig, venue, list(range(60)))
    assert [told["state"] for told in repaired(wiring)] == ["repaired"]
    finish(wiring)
    late = trades("btcusdt", range(11, 41), start=11)
    numbers = (Range("btcusdt", TRADE, 11, 40),)
    push(wiring, "binance-0-trade", Batch("binance-0-trade", "binance", A, 2, 1, numbers, tuple(late)))
    assert flush(wiring)["duplicates"] == 30
    assert held(wiring) == list(range(1, 51))


def test_a_hole_in_a_book_is_put_on_record_as_one_that_stays(rig: Rig) -> None:
    wiring = rig.wiring()
    event = Event("BTC-USDT", "orderbook", 1, "books-update-1-2", NOW_US, None, "{}")
    gap = Gap("BTC-USDT", "orderbook", 1, "1", "7", None, NOW_US - 5, NOW_US, "sequence")
    numbers = (Range("BTC-USDT", "orderbook", 1, 1),)
    push(wiring, "okx-0", Batch("okx-0", "okx", A, 1, 1, numbers, (event,), gaps=(gap,)))
    flush(wiring)
    repair(wiring)
    (told,) = listing(wiring)
    assert (told["state"], told["detail"]) == (
        "unrepairable",
        "no venue tells past books: the next snapshot begins anew",
    )
    repair(wiring)
    assert len(wiring.stored.records("repairs")) == 1


# by hand


def test_gaps_and_repair_by_hand(rig: Rig, venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    wiring, made = binance(rig, venue, list(range(60)))
    for command in (gaps_command, repair_command):
        monkeypatch.setattr(command, "wired", lambda: wiring)

    def collector(command: Any, *arguments: str) -> tuple[int, str]:
        answer = CliRunner().invoke(command, list(arguments))
        return answer.exit_code, answer.output

    assert collector(gaps_command.gaps) == (0, "no gaps\n")
    wiring.repairs.run(deadline_s=0)  # seams are judged, nothing is asked
    line = "binance/btcusdt  trades  11    40  30    2026-09-21 13:13:30.000  13:14:01.000  restart  open"
    code, told = collector(gaps_command.gaps)
    assert (code, told.splitlines()[1:]) == (0, [line, "1 open"])
    code, told = collector(
        gaps_command.gaps, "--json", "--market", "binance/BTCUSDT", "--state", "open", "--feed", "trades"
    )
    answer = json.loads(told)
    assert answer == {
        "gaps": [
            {
                "market": "binance/btcusdt", "feed": "trade", "from_id": "11", "to_id": "40", "size": 30,
                "before_us": at_ms(10) * 1000, "after_us": at_ms(41) * 1000, "cause": "restart", "state": "open",
                "found": 0, "detail": "", "epoch": B, "number": 1,
            }
        ],
        "totals": {"open": 1, "partly": 0, "repaired": 0, "unrepairable": 0, "unknowable": 0},
    }  # fmt: skip
    for narrowed in (
        ("--state", "repaired"),
        ("--market", "okx/BTC-USDT"),
        ("--feed", "orderbook"),
        ("--since", "90s"),
        ("--until", "2026-09-21T13:13:30"),
    ):
        assert collector(gaps_command.gaps, *narrowed) == (0, "no gaps\n"), narrowed
    assert collector(gaps_command.gaps, "--since", "2026-09-21T13:14:01", "--until", "2026-09-21T13:13:31")[
        1
    ] == "\n".join([*collector(gaps_command.gaps)[1].splitlines(), ""])
    assert collector(gaps_command.gaps, "--market", "nowhere/x")[0] == 2
    assert collector(gaps_command.gaps, "--since", "yesterday")[0] == 2

    flush(wiring)
    assert collector(repair_command.repair, "--dry-run") == (
        0,
        "binance/btcusdt: 11..40 (30 trades)\n1 to be fetched\n",
    )
    assert json.loads(collector(repair_command.repair, "--dry-run", "--json")[1]) == {
        "missing": [{"market": "binance/btcusdt", "missing": "11..40", "size": 30}]
    }
    assert made.asked == []
    assert collector(repair_command.repair) == (0, "0 seams judged, 30 trades fetched in 1 requests\n")
    code, told = collector(repair_command.repair)
    assert (code, told.splitlines()[-1]) == (0, "left until the next flush: binance")
    flush(wiring)
    _, told = collector(repair_command.repair, "--json", "--market", "binance/btcusdt")
    report = json.loads(told.splitlines()[-1])  # log lines, which go to standard error elsewhere, before
    assert (report["closed"][0]["state"], report["failed"]) == ("repaired", {})
