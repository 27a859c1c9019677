"""The overview of what the board, the lists, the tally and the ledger say, where they say it."""

from __future__ import annotations

from typing import Any

import pytest

from app.codec import BatchCodec
from app.model import Gap
from app.pipeline import periodic
from app.web.overview import Overview, Rate
from app.wiring import Wiring
from tests.support.batches import batch, event
from tests.support.path import NEVER
from tests.support.rig import Rig

OKX, BYBIT = "okx-0-orderbook.trade", "bybit-0-orderbook.trade"


def state(stream: str, **changes: Any) -> dict[str, Any]:
    return {
        "stream": stream, "exchange": stream.split("-")[0], "connection": "open", "since_us": 1, "why": "", "last_error": "",
        "refused": 0, "events": 100, "queued": 0, "last_data_us": None, "feeds": [], "ends": [],
    } | changes  # fmt: skip


@pytest.fixture
def wiring(rig: Rig) -> Wiring:
    rig.write({"okx": ["BTC-USDT"], "bybit": ["BTCUSDT"]})
    return rig.wiring()


def feed(told: dict[str, Any], exchange: str, name: str) -> dict[str, Any]:
    found: dict[str, Any]
    (found,) = (f for m in told["markets"] if m["exchange"] == exchange for f in m["feeds"] if f["feed"] == name)
    return found


def test_a_feed_has_its_own_rhythm_and_is_slower_while_it_is_silent(wiring: Wiring) -> None:
    seen = {"symbol": "BTC-USDT", "state": "live", "since_us": 5, "why": ""}
    feeds = [
        {**seen, "feed": "orderbook", "age_s": 0.1, "interval_s": 0.5},
        {**seen, "feed": "trade", "age_s": 4.0, "interval_s": 0.5},
    ]
    wiring.board.publish(OKX, state(OKX, feeds=feeds), 30)
    told = Overview(wiring).document()
    assert [feed(told, "okx", name)["rate_per_s"] for name in ("orderbook", "trade")] == [2.0, 0.25]
    assert (feed(told, "okx", "trade")["interval_s"], feed(told, "okx", "trade")["since_us"]) == (0.5, 5)
    silent = feed(told, "bybit", "trade")
    assert (silent["state"], silent["connection"], silent["rate_per_s"]) == ("down", "down", None)
    assert silent["why"] == "no stream worker has it"


def test_the_last_ends_are_told_newest_first_in_the_venues_words(wiring: Wiring) -> None:
    wiring.board.publish(OKX, state(OKX, ends=[[10, "close_frame", "bye"], [30, "venue_notice", "64008"]]), 30)
    wiring.board.publish(BYBIT, state(BYBIT, ends=[[20, "stream_ended", ""]]), 30)
    told = Overview(wiring).document()["disconnects"]
    assert [(end["ended_us"], end["exchange"], end["reason"], end["words"]) for end in told] == [
        (30, "okx", "venue_notice", "64008"), (20, "bybit", "stream_ended", ""), (10, "okx", "close_frame", "bye"),
    ]  # fmt: skip


def test_sums_are_over_all_feeds_and_unknown_before_anybody_counted(wiring: Wiring) -> None:
    assert set(Overview(wiring).document()["sums"].values()) == {None}
    for symbol, count in (("BTC-USDT", 7.0), ("ETH-USDT", 5.0)):
        wiring.tally.add(symbol, 1, {("collector_messages_received_total", (("symbol", symbol),)): count})
    told = Overview(wiring).document()["sums"]
    assert (told["received"], told["stored"], told["lost"]) == (12, 0, 0)


def test_what_only_the_data_directory_knows_is_unknown_elsewhere(wiring: Wiring) -> None:
    told = Overview(wiring).document()
    assert told["ledger"] is None and feed(told, "okx", "trade")["gaps_open"] is None
    assert [arrow["backlog"] for arrow in told["arrows"]][3:] == [None, None]
    assert not wiring.settings.database.path.exists(), "and a look makes none"


def test_what_waits_is_told_where_it_waits_and_gaps_by_their_feed(wiring: Wiring) -> None:
    _ = wiring.ledger
    now_us = Overview(wiring).document()["now_us"]
    gap = Gap("BTC-USDT", "trade", 1, "5", "9", 5, now_us - 10, now_us, "jump")
    element = BatchCodec().encode(
        batch(1, [event(1, symbol="BTC-USDT", received_us=now_us - 3_000_000)], stream=OKX, gaps=[gap])
    )
    wiring.buffer.push(OKX, element)
    waits = Overview(wiring).document()["arrows"][2]
    assert (waits["backlog"], waits["backlog_unit"]) == (1, "events in lists")
    assert 3 <= waits["age_s"] < 60
    assert periodic.flush(wiring, NEVER, deadline_s=None, seal=True)["failed"] == {}
    told = Overview(wiring).document()
    assert (told["arrows"][2]["backlog"], told["arrows"][2]["age_s"]) == (0, None)
    assert (told["arrows"][3]["backlog"], told["arrows"][3]["backlog_unit"]) == (1, "sealed segments")
    assert [feed(told, e, f)["gaps_open"] for e, f in (("okx", "trade"), ("okx", "orderbook"), ("bybit", "trade"))] == [
        1,
        0,
        0,
    ]


def rates(overview: Overview, monkeypatch: pytest.MonkeyPatch, at_s: float) -> list[tuple[float | None, int]]:
    """What each arrow up to the segment says at `at_s`: its rate, and its backlog."""
    monkeypatch.setattr("app.web.overview.monotonic_s", lambda: at_s)
    return [(arrow["rate_per_s"], arrow["backlog"]) for arrow in overview.document()["arrows"][:3]]


def test_nothing_flows_into_redis_while_it_all_goes_to_the_spool_or_is_refused(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    overview = Overview(wiring)
    counted = {("collector_messages_stored_total", ()): 60.0, ("collector_messages_duplicate_total", ()): 30.0}
    wiring.tally.add("flush", 1, counted)
    wiring.board.publish(OKX, state(OKX, events=100, queued=10), 30)
    wiring.board.publish(BYBIT, state(BYBIT, events=100), 30)
    assert [rate for rate, _ in rates(overview, monkeypatch, 100)] == [None, None, None]
    wiring.tally.add("flush", 2, {("collector_messages_quarantined_total", ()): 20.0})
    wiring.board.publish(OKX, state(OKX, events=300, queued=50, spool_events=100, refused=60), 30)
    wiring.board.publish(BYBIT, state(BYBIT, events=200), 30)
    # Of okx, 200 came: 40 more wait in memory, 100 in the spool, 60 were refused. Of bybit, all 100 went on.
    assert rates(overview, monkeypatch, 110) == [(30, 0), (10, 150), (2, 0)]
    wiring.board.publish(OKX, state(OKX, events=300, refused=60), 30)
    assert rates(overview, monkeypatch, 120)[1] == (12.5, 0), "what waited has gone on"


def test_a_stream_that_redis_forgot_brings_no_history_when_it_is_back(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    overview = Overview(wiring)
    for at_s, okx, bybit in (
        (100, 10**6, 0),
        (110, 10**6 + 50, None),
        (120, 10**6 + 100, 10**9),
        (130, 10**6 + 150, 10**9 + 70),
    ):
        wiring.board.publish(OKX, state(OKX, events=okx), 30)
        wiring.redis.delete(f"{wiring.settings.redis.prefix}:state:{BYBIT}")
        if bybit is not None:
            wiring.board.publish(BYBIT, state(BYBIT, events=bybit), 30)
        told = rates(overview, monkeypatch, at_s)
        assert told[0][0] == {100: None, 110: 5, 120: 5, 130: 12}[at_s]


def test_a_rate_is_not_the_mean_since_somebody_looked_long_ago() -> None:
    rate = Rate(30)
    assert [rate(0, 0), rate(1, 10)] == [None, 10]
    assert rate(3600, 10**6) is None
    assert [rate(3601, 10**6 + 7), rate(3602, 10**6 + 14)] == [7, 7]
