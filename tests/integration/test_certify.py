"""Recorded from the built-in exchanges, rebuilt from what was stored, compared with the exchange's own book."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import httpx
import pytest

from app.books.agreement import differences
from app.books.change import RestBook, Row
from app.books.judge import UNITED_US
from app.books.rebuild import Rebuild
from app.books.venues import VENUES
from app.clock import monotonic_s, wall_us
from app.codec import BatchCodec
from app.model import Market
from app.objects import parquet
from app.pipeline import periodic
from app.pipeline.certify import Certifier
from app.store.segment import SealedSegment
from app.wiring import Wiring
from tests.support import redis_process
from tests.support.batches import batch, event
from tests.support.books import START_US, okx, okx_snapshot
from tests.support.exchanges import ExchangeProcess
from tests.support.path import NEVER, Collecting, finish, flush_at, until
from tests.support.rig import MARKETS, Rig

BEST = ([("100", "1")], [("101", "1")])
DEADLINE_S = 30.0
ONE_EACH = {exchange: symbols[1:] for exchange, symbols in MARKETS.items()}


@pytest.fixture(scope="module")
def exchanges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExchangeProcess]:
    process = ExchangeProcess(tmp_path_factory.mktemp("exchanges") / "server", rate=25)
    yield process
    process.stop()


def checks(wiring: Wiring) -> list[dict[str, Any]]:
    """Checks on record in kept segments and in the ledger."""
    kept = [wiring.settings.storage.segments_path / e.path for e in wiring.ledger.segments() if e.state != "removed"]
    rows = [row for path in kept for row in SealedSegment(path, settled=False).records("checks")]
    return rows + wiring.ledger.records("checks")


def later(wiring: Wiring, stretches: int = 1) -> Certifier:
    """The wiring's certifier at a clock that is ahead, so that everything is settled."""
    certifier = wiring.certifier
    certifier._now_us = lambda: wall_us() + stretches * UNITED_US
    return certifier


def venues_book(exchanges: ExchangeProcess, market: Market) -> RestBook | None:
    venue = VENUES[market.exchange]
    if venue.rest_path is None:
        return None
    url = exchanges.venues[market.exchange]["rest_url"] + venue.rest_path(market.symbol)
    return venue.rest(httpx.get(url, trust_env=False, timeout=10).content)


class Recorded:
    """All five exchanges, recorded, certified on the way with questions over REST, and archived."""

    def __init__(self, exchanges: ExchangeProcess, rig: Rig) -> None:
        rig.write(ONE_EACH, exchanges.venues, quality={"rest_check_secs": 1})
        self.wiring = wiring = rig.wiring()
        with Collecting(wiring) as collecting:
            until(collecting.live, "every feed is live")
            periodic.flush(wiring, NEVER)
            self.first = periodic.certify(wiring, NEVER)
            collecting.more(200)
            exchanges.halt()
            collecting.finish()
        self.books = {market: venues_book(exchanges, market) for market in wiring.settings.all_markets()}
        periodic.flush(wiring, NEVER)
        later(wiring)
        asked = wiring.certifier._due_s
        until(lambda: min(asked.values()) <= monotonic_s() - 1, "every question is due again")
        self.second = periodic.certify(wiring, NEVER)
        wiring.certifier._rest_check_s = 0
        later(wiring, 2).run(deadline_s=DEADLINE_S)
        periodic.flush(wiring, NEVER)
        self.on_record = checks(wiring)
        finish(wiring)


@pytest.fixture(scope="module")
def recorded(
    exchanges: ExchangeProcess, redis_server: redis_process.RedisProcess, tmp_path_factory: pytest.TempPathFactory
) -> Recorded:
    return Recorded(exchanges, Rig(tmp_path_factory.mktemp("certify"), redis_server.url))


def test_the_book_rebuilt_from_the_archive_is_the_book_of_the_exchange(recorded: Recorded) -> None:
    store, compared = recorded.wiring.store, set()
    for key in store.keys(""):
        if not key.endswith(".parquet") or "/orderbook/" not in key:
            continue
        exchange, symbol, *_ = key.split("/")
        rebuild = Rebuild(exchange, symbol)
        with store.open(key) as file:
            for chunk in parquet.read(file):
                for row in chunk:
                    rebuild.apply(Row(*row))
        assert rebuild.book is not None and not rebuild.book.crossed()
        theirs = recorded.books[Market(exchange, symbol)]
        if theirs is not None:
            assert differences(rebuild.book, theirs) == []
            compared.add(exchange)
    assert compared == {"binance", "upbit", "okx", "bybit"}


def test_continuity_and_crossing_are_on_record_for_every_market(recorded: Recorded) -> None:
    found: dict[tuple[str, str], set[str]] = {}
    for row in recorded.on_record:
        if row["kind"] in ("continuity", "crossed"):
            found.setdefault((row["exchange"], row["kind"]), set()).add(row["verdict"])
    numbered = {"okx": {"proved"}, "bybit": {"proved"}}
    assert {key: said for key, said in found.items() if key[1] == "continuity"} == {
        (exchange, "continuity"): numbered.get(exchange, {"unknowable"}) for exchange in MARKETS
    }
    assert {exchange for exchange, kind in found if kind == "crossed"} == set(MARKETS)
    assert all("broken" not in said and "proved" in said for (_, kind), said in found.items() if kind == "crossed")
    markets = {(row["exchange"], row["symbol"]) for row in recorded.on_record}
    assert markets == {(market.exchange, market.symbol) for market in recorded.wiring.settings.all_markets()}


def test_the_proof_of_continuity_covers_every_row_of_the_feed(recorded: Recorded) -> None:
    for exchange in ("okx", "bybit"):
        for symbol in ONE_EACH[exchange]:
            spans = sorted(
                (row["start_us"], row["end_us"])
                for row in recorded.on_record
                if (row["exchange"], row["symbol"], row["kind"]) == (exchange, symbol, "continuity")
            )
            (held,) = [o for o in recorded.wiring.ledger.objects() if o[1:4] == (exchange, symbol, "orderbook")]
            with recorded.wiring.store.open(held.key) as file:
                times = [row[1] for chunk in parquet.read(file) for row in chunk]
            assert (spans[0][0], spans[-1][1]) == (min(times), max(times))
            assert all(start <= end for (_, end), (start, _) in pairwise(spans))


def test_answers_over_rest_agree_where_they_can_be_compared(recorded: Recorded) -> None:
    verdicts: dict[str, set[str]] = {}
    for row in recorded.on_record:
        if row["kind"] == "rest":
            verdicts.setdefault(row["exchange"], set()).add(row["verdict"])
    assert {exchange for exchange, said in verdicts.items() if "broken" in said} == set()
    # Asked at the halt, the last row has the answer's number. This Upbit's answer bears the time of the question, in
    # milliseconds: now and then a row has the same.
    proved = {exchange for exchange, said in verdicts.items() if "proved" in said}
    assert proved - {"upbit"} == {"binance", "okx", "bybit"}
    assert verdicts["coinbase"] == {"unknowable"}
    assert (recorded.first["broken"], recorded.second["broken"]) == (0, 0)


def test_a_certification_without_new_rows_says_nothing(recorded: Recorded) -> None:
    before = recorded.wiring.buffer.depths()
    report = recorded.wiring.certifier.run(deadline_s=DEADLINE_S)
    assert (report.rows, report.behind_s, recorded.wiring.buffer.depths()) == (0, None, before)


def push_books(wiring: Wiring, frames: list[str], first: int, epoch: str = "0a" * 16) -> None:
    """Store frames of OKX as the flush does."""
    events = [
        event(n, str(n), symbol="BTC-USDT", feed="orderbook", data=text, received_us=START_US + n)
        for n, text in enumerate(frames, first)
    ]
    made = batch(first, events, epoch=epoch, stream="okx-0-orderbook")
    wiring.buffer.push("okx-0-orderbook", wiring.certifier._codec.encode(made))
    periodic.flush(wiring, NEVER)


def said(wiring: Wiring) -> list[tuple[str, str, int, int]]:
    """kind, verdict, start and end of every check on record."""
    periodic.flush(wiring, NEVER)
    return sorted((r["kind"], r["verdict"], r["start_us"] - START_US, r["end_us"] - START_US) for r in checks(wiring))


@pytest.fixture
def wiring(rig: Rig) -> Wiring:
    rig.write({"okx": ["BTC-USDT"]})
    return rig.wiring()


def test_a_hole_in_stored_rows_is_said_with_its_place(wiring: Wiring) -> None:
    push_books(wiring, [okx_snapshot(1, *BEST), okx(1, 2), okx(5, 6)], 1)
    assert later(wiring).run(deadline_s=DEADLINE_S).broken == 1
    assert said(wiring) == [
        ("continuity", "broken", 2, 3), ("continuity", "proved", 1, 2),
        ("crossed", "proved", 1, 2), ("crossed", "unknowable", 2, 3),
    ]  # fmt: skip


def test_each_row_is_judged_once_over_runs_and_segments(wiring: Wiring) -> None:
    certifier = later(wiring)
    push_books(wiring, [okx_snapshot(1, *BEST), okx(1, 2)], 1)
    rows = [certifier.run(deadline_s=DEADLINE_S).rows]
    periodic.flush(wiring, NEVER, seal=True)
    push_books(wiring, [okx(2, 3), okx(3, 4)], 3)
    rows += [certifier.run(deadline_s=DEADLINE_S).rows, certifier.run(deadline_s=DEADLINE_S).rows]
    assert rows == [2, 2, 0]
    assert [one for one in said(wiring) if one[0] == "continuity"] == [
        ("continuity", "proved", 1, 2), ("continuity", "proved", 2, 4),
    ]  # fmt: skip


def test_a_new_process_reads_the_segment_before_again_and_repeats_nothing(wiring: Wiring, rig: Rig) -> None:
    push_books(wiring, [okx_snapshot(1, *BEST), okx(1, 2)], 1)
    later(wiring).run(deadline_s=DEADLINE_S)
    periodic.flush(wiring, NEVER, seal=True)
    push_books(wiring, [okx(2, 3), okx(3, 4)], 3)
    fresh = rig.wiring()
    assert later(fresh).run(deadline_s=DEADLINE_S).rows == 4
    assert [one for one in said(fresh) if one[0] == "crossed"] == [
        ("crossed", "proved", 1, 2),
        ("crossed", "proved", 2, 4),
    ]


def test_hours_that_were_stored_while_nobody_judged_are_judged_afterwards(wiring: Wiring, rig: Rig) -> None:
    hour_us = 3_600_000_000
    begin_us = START_US // hour_us * hour_us

    def stored(hour: int) -> None:
        opened_us = begin_us + hour * hour_us
        flush_at(wiring, opened_us)
        first = 10 * hour + 1
        frames = [okx(n - 1, n) if n > 1 else okx_snapshot(n, *BEST) for n in range(first, first + 10)]
        events = [
            event(n, str(n), symbol="BTC-USDT", feed="orderbook", data=text, received_us=opened_us + n - first)
            for n, text in enumerate(frames, first)
        ]
        made = batch(hour + 1, events, epoch="0a" * 16, stream="okx-0-orderbook")
        wiring.buffer.push("okx-0-orderbook", BatchCodec().encode(made))
        flush_at(wiring, opened_us)

    stored(0)
    later(wiring).run(deadline_s=DEADLINE_S)
    for hour in (1, 2, 3):
        stored(hour)
    fresh = rig.wiring()
    later(fresh).run(deadline_s=DEADLINE_S)
    flush_at(fresh, begin_us + 3 * hour_us)
    spans = sorted((r["start_us"], r["end_us"]) for r in checks(fresh) if r["kind"] == "continuity")
    assert {row["verdict"] for row in checks(fresh)} == {"proved"}
    assert (spans[0][0], spans[-1][1]) == (begin_us, begin_us + 3 * hour_us + 9)
    assert all(start <= end for (_, end), (start, _) in pairwise(spans))


def test_a_run_out_of_time_says_how_far_it_is_behind_and_the_next_one_goes_on(wiring: Wiring) -> None:
    push_books(wiring, [okx_snapshot(1, *BEST), okx(1, 2)], 1)
    certifier = later(wiring)
    assert certifier.run(deadline_s=DEADLINE_S, keep_going=lambda: False).rows == 0
    report = certifier.run(deadline_s=DEADLINE_S)
    assert (report.rows, report.behind_s) == (2, None)


def test_verdicts_that_the_list_does_not_take_are_said_the_next_time(wiring: Wiring) -> None:
    push_books(wiring, [okx_snapshot(1, *BEST), okx(1, 2)], 1)
    certifier = later(wiring)
    push: Callable[..., int | None] = certifier._push
    certifier._push = lambda stream, element: None
    certifier.run(deadline_s=DEADLINE_S)
    assert said(wiring) == []
    certifier._push = push
    certifier.run(deadline_s=DEADLINE_S)
    assert [one[:2] for one in said(wiring)] == [("continuity", "proved"), ("crossed", "proved")]


def test_a_segment_that_was_removed_before_it_was_judged_is_skipped_and_breaks_nothing(wiring: Wiring) -> None:
    certifier = later(wiring)
    push_books(wiring, [okx_snapshot(1, *BEST)], 1)
    certifier.run(deadline_s=DEADLINE_S)
    push_books(wiring, [okx(1, 2)], 2)
    periodic.flush(wiring, NEVER, seal=True)
    periodic.archive(wiring, NEVER, final=True)
    push_books(wiring, [okx(9, 10), okx(10, 11)], 3)
    assert certifier.run(deadline_s=DEADLINE_S).broken == 0
    assert ("continuity", "proved", 3, 4) in said(wiring)


def test_a_damaged_segment_is_skipped_and_what_was_judged_before_it_is_said(wiring: Wiring) -> None:
    certifier, pushed = wiring.certifier, []
    certifier._push = lambda stream, element: pushed.append(element) or len(pushed)
    certifier._now_us = lambda: START_US + 3
    push_books(wiring, [okx_snapshot(1, *BEST), okx(1, 2)], 1)
    assert certifier.run(deadline_s=DEADLINE_S).checks == 0
    periodic.flush(wiring, NEVER, seal=True)
    push_books(wiring, [okx(2, 3)], 3)
    periodic.flush(wiring, NEVER, seal=True)
    push_books(wiring, [okx(3, 4), okx(4, 5)], 4)
    damaged = wiring.ledger.segments("sealed")[-1].path
    (wiring.settings.storage.segments_path / damaged).write_bytes(b"no database" * 100)
    assert later(wiring).run(deadline_s=DEADLINE_S).rows == 2
    found = [check for element in pushed for check in BatchCodec().decode(element).checks]
    assert [(c.verdict, c.start_us - START_US, c.end_us - START_US) for c in found if c.kind == "continuity"] == [
        ("proved", 1, 2), ("proved", 4, 5),
    ]  # fmt: skip


def test_what_could_still_grow_is_put_on_record_when_nothing_comes_after_it(wiring: Wiring) -> None:
    push_books(wiring, [okx_snapshot(1, *BEST), okx(1, 2)], 1)
    wiring.certifier._now_us = lambda: START_US + 3
    assert periodic.certify(wiring, NEVER)["checks"] == 0
    assert periodic.certify(wiring, NEVER, final=True)["checks"] == 2
    assert [one[:2] for one in said(wiring)] == [("continuity", "proved"), ("crossed", "proved")]


def test_reading_the_open_segment_lets_it_be_sealed_and_archived(wiring: Wiring) -> None:
    """The certification reads beside flush and archive; whatever it reads, both come to their end."""
    stop = threading.Event()
    faults: list[Exception] = []

    def certify() -> None:
        while not stop.is_set():
            try:
                wiring.certifier.run(deadline_s=DEADLINE_S)
            except Exception as error:  # noqa: BLE001 - told to the test
                faults.append(error)
                return

    thread = threading.Thread(target=certify)
    thread.start()
    try:
        for turn in range(3):
            push_books(wiring, [okx(10 * turn + n, 10 * turn + n + 1) for n in range(10)], 10 * turn + 1)
            sealed = until(
                lambda: periodic.flush(wiring, NEVER, seal=True)["sealed"] or wiring.ledger.segments("sealed"), "sealed"
            )
            assert sealed
            assert periodic.archive(wiring, NEVER)["failed"] == {}
    finally:
        stop.set()
        thread.join()
    assert faults == []
