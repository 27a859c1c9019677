"""Continuity: the rule of each venue as its frames show it, and what holds for any numbering."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.exchanges import EXCHANGES
from app.exchanges.base import Decoded, Subscription
from app.model import ORDERBOOK, TRADE
from app.sequence import Continuity, Hole, Verdict

OK, RESET, GAP = Verdict.OK, Verdict.RESET, Verdict.GAP
DUPLICATE, OUT_OF_ORDER, UNKNOWABLE = Verdict.DUPLICATE, Verdict.OUT_OF_ORDER, Verdict.UNKNOWABLE
SYMBOLS = {
    "binance": "btcusdt", "coinbase": "BTC-USD", "upbit": "KRW-BTC", "okx": "BTC-USDT", "bybit": "BTCUSDT",
}  # fmt: skip


def binance_trade(id: int) -> str:
    return json.dumps({"stream": "btcusdt@trade", "data": {"e": "trade", "s": "BTCUSDT", "t": id, "T": 1790000000000}})


def binance_diff(first: int, last: int) -> str:
    book = {"e": "depthUpdate", "E": 1790000000000, "s": "BTCUSDT", "U": first, "u": last, "b": [], "a": []}
    return json.dumps({"stream": "btcusdt@depth@100ms", "data": book})


def binance_partial(id: int) -> str:
    return json.dumps({"stream": "btcusdt@depth20@100ms", "data": {"lastUpdateId": id, "bids": [], "asks": []}})


def coinbase_trade(id: int, kind: str = "match") -> str:
    return json.dumps({"type": kind, "trade_id": id, "product_id": "BTC-USD", "time": "2026-03-01T00:00:00Z"})


def coinbase_book(kind: str) -> str:
    levels = {"changes": []} if kind == "l2update" else {"bids": [], "asks": []}
    return json.dumps({"type": kind, "product_id": "BTC-USD", **levels})


def upbit(channel: str, id: int) -> str:
    return json.dumps({"ty": channel, "cd": "KRW-BTC", "tms": id, "ttms": id, "sid": id, "st": "REALTIME"})


def okx_book(before: int, last: int) -> str:
    row = {"asks": [], "bids": [], "ts": "1790000000000", "seqId": last, "prevSeqId": before}
    action = "snapshot" if before == -1 else "update"
    return json.dumps({"arg": {"channel": "books", "instId": "BTC-USDT"}, "action": action, "data": [row]})


def okx_trade(last: int, count: int) -> str:
    row = {"instId": "BTC-USDT", "tradeId": str(last), "count": str(count), "ts": "1790000000000"}
    return json.dumps({"arg": {"channel": "trades", "instId": "BTC-USDT"}, "data": [row]})


def bybit_book(u: int, kind: str = "delta") -> str:
    book = {"s": "BTCUSDT", "b": [], "a": [], "u": u, "seq": u * 7}
    return json.dumps({"topic": "orderbook.50.BTCUSDT", "ts": 1790000000000, "type": kind, "data": book})


def bybit_trade(id: int) -> str:
    row = {"i": str(id), "T": 1790000000000, "s": "BTCUSDT"}
    return json.dumps({"topic": "publicTrade.BTCUSDT", "ts": 1790000000000, "type": "snapshot", "data": [row]})


def judged(exchange: str, frames: list[str], book_channel: str = "") -> list[tuple[Verdict, Hole | None]]:
    """The verdict on each frame; the n-th is received at microsecond n."""
    venue = EXCHANGES[exchange]
    book = book_channel or venue.orderbook_channels[0]
    wanted = Subscription((SYMBOLS[exchange],), (ORDERBOOK, TRADE), book, venue.trade_channels[0])
    decode = venue.decoder(wanted).decode
    continuity = Continuity()
    found = []
    for at, frame in enumerate(frames, 1):
        (event,) = decode(frame)
        assert isinstance(event, Decoded)
        found.append(continuity.check(event, at))
    return found


@pytest.mark.parametrize(
    ("exchange", "channel", "frames", "verdicts"),
    [
        pytest.param(
            "binance", "", [binance_trade(n) for n in (7, 8, 9, 12, 13)],
            [(RESET, None), (OK, None), (OK, None), (GAP, Hole(10, 11, 2, 3)), (OK, None)],
            id="binance trade: t counts one by one",
        ),
        pytest.param(
            "binance", "depth@100ms", [binance_diff(10, 12), binance_diff(13, 13), binance_diff(14, 20), binance_diff(23, 25)],
            [(RESET, None), (OK, None), (OK, None), (GAP, Hole(21, 22, 2, 3))],
            id="binance diff: U is the u before and one",
        ),
        pytest.param(
            "binance", "depth20@100ms", [binance_partial(n) for n in (5, 90, 3)], [(UNKNOWABLE, None)] * 3,
            id="binance partial depth: ids jump",
        ),
        pytest.param(
            "coinbase", "", [coinbase_trade(4, "last_match"), coinbase_trade(5), coinbase_trade(9)],
            [(RESET, None), (OK, None), (GAP, Hole(6, 8, 3, 2))],
            id="coinbase match: trade_id counts one by one, from last_match on",
        ),
        pytest.param(
            "coinbase", "", [coinbase_book("snapshot"), coinbase_book("l2update"), coinbase_book("l2update")],
            [(UNKNOWABLE, None)] * 3,
            id="coinbase level2: nothing to go by",
        ),
        pytest.param(
            "upbit", "", [upbit("orderbook", 9), upbit("trade", 9), upbit("trade", 4), upbit("orderbook", 4)],
            [(UNKNOWABLE, None)] * 4,
            id="upbit: ids neither ordered nor consecutive",
        ),
        pytest.param(
            "okx", "", [okx_book(-1, 500), okx_book(500, 517), okx_book(517, 900), okx_book(950, 960), okx_book(960, 970)],
            [(RESET, None), (OK, None), (OK, None), (GAP, Hole(900, 950, None, 3)), (OK, None)],
            id="okx books: prevSeqId is the seqId before, whatever the distance",
        ),
        pytest.param(
            "okx", "", [okx_book(-1, 500), okx_book(500, 500), okx_book(500, 500), okx_book(500, 501)],
            [(RESET, None), (OK, None), (OK, None), (OK, None)],
            id="okx books: keep-alives of quiet minutes",
        ),
        pytest.param(
            "okx", "", [okx_book(-1, 500), okx_book(500, 510), okx_book(510, 3), okx_book(3, 9), okx_book(11, 12)],
            [(RESET, None), (OK, None), (OK, None), (OK, None), (GAP, Hole(9, 11, None, 4))],
            id="okx books: maintenance sets the ids back, the chain unbroken",
        ),
        pytest.param(
            "okx", "", [okx_book(-1, 500), okx_book(500, 510), okx_book(500, 510), okx_book(510, 520)],
            [(RESET, None), (OK, None), (DUPLICATE, None), (OK, None)],
            id="okx books: an update that comes twice",
        ),
        pytest.param(
            "okx", "", [okx_trade(100, 1), okx_trade(103, 3), okx_trade(104, 1), okx_trade(110, 2)],
            [(RESET, None), (OK, None), (OK, None), (GAP, Hole(105, 108, 4, 3))],
            id="okx trades: tradeId is the last of count",
        ),
        pytest.param(
            "bybit", "", [bybit_book(7, "snapshot"), bybit_book(8), bybit_book(9), bybit_book(12)],
            [(RESET, None), (OK, None), (OK, None), (GAP, Hole(10, 11, 2, 3))],
            id="bybit book: u counts one by one",
        ),
        pytest.param(
            "bybit", "", [bybit_book(7, "snapshot"), bybit_book(8), bybit_book(1), bybit_book(2), bybit_book(90, "snapshot")],
            [(RESET, None), (OK, None), (RESET, None), (OK, None), (RESET, None)],
            id="bybit book: u of 1 and a later snapshot start anew",
        ),
        pytest.param(
            "bybit", "", [bybit_trade(n) for n in (524, 528, 533)], [(UNKNOWABLE, None)] * 3,
            id="bybit trade: ids skip",
        ),
    ],
)  # fmt: skip
def test_each_venue_is_judged_by_its_own_rule(
    exchange: str, channel: str, frames: list[str], verdicts: list[tuple[Verdict, Hole | None]]
) -> None:
    assert judged(exchange, frames, channel) == verdicts


def dense(first: int, last: int, *, anew: bool = False, symbol: str = "A", feed: str = TRADE) -> Decoded:
    """The event that stands for ids first..last."""
    return Decoded(symbol, feed, f"{first}-{last}", None, "", None if anew else first - 1, last, True)


@st.composite
def contiguous(draw: st.DrawFn, *, min_size: int = 2) -> list[Decoded]:
    """Events whose id ranges follow one another."""
    last = draw(st.integers(0, 10**12))
    stream = []
    for size in draw(st.lists(st.integers(1, 9), min_size=min_size, max_size=25)):
        stream.append(dense(last + 1, last + size, feed=TRADE))
        last += size
    return stream


def verdicts(events: list[Decoded]) -> list[tuple[Verdict, Hole | None]]:
    continuity = Continuity()
    return [continuity.check(event, at) for at, event in enumerate(events)]


@given(contiguous())
@settings(deadline=None)
def test_a_contiguous_stream_has_no_gap(stream: list[Decoded]) -> None:
    assert verdicts(stream) == [(RESET, None)] + [(OK, None)] * (len(stream) - 1)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30))
@settings(deadline=None)
def test_a_chain_has_no_gap_whatever_its_ids_do(ids: list[int]) -> None:
    chain = [Decoded("A", ORDERBOOK, "", None, "", None, ids[0])]
    chain += [Decoded("A", ORDERBOOK, "", None, "", before, last) for before, last in pairwise(ids)]
    assert verdicts(chain) == [(RESET, None)] + [(OK, None)] * (len(chain) - 1)


@given(contiguous(min_size=3), st.data())
@settings(deadline=None)
def test_a_block_taken_out_is_one_gap_with_exactly_its_ids(stream: list[Decoded], data: st.DataObject) -> None:
    start = data.draw(st.integers(1, len(stream) - 2))
    end = data.draw(st.integers(start + 1, len(stream) - 1))
    missing = stream[start:end]
    found = verdicts(stream[:start] + stream[end:])
    first, last = (missing[0].follows or 0) + 1, missing[-1].last
    assert last is not None
    hole = Hole(first, last, last - first + 1, start - 1)
    assert found[start] == (GAP, hole)
    assert [verdict for verdict, _ in found].count(GAP) == 1


@given(contiguous(), st.data())
@settings(deadline=None)
def test_what_comes_again_is_never_a_gap_and_hides_none(stream: list[Decoded], data: st.DataObject) -> None:
    arriving, again = [], []
    for at, event in enumerate(stream):
        arriving.append(event)
        for earlier in data.draw(st.lists(st.integers(0, at), max_size=3)):
            again.append(len(arriving))
            arriving.append(stream[earlier])
    found = [verdict for verdict, _ in verdicts(arriving)]
    assert {found[at] for at in again} <= {DUPLICATE, OUT_OF_ORDER}
    assert [found[at] for at in range(len(arriving)) if at not in again] == [RESET] + [OK] * (len(stream) - 1)


def test_an_event_that_overlaps_what_is_known_and_reaches_further_is_no_gap() -> None:
    found = verdicts([dense(1, 10), dense(8, 15), dense(16, 16)])
    assert found == [(RESET, None), (OK, None), (OK, None)]


def test_a_new_connection_begins_books_anew_and_takes_up_the_trades_of_the_one_before() -> None:
    before, continuity = Continuity(), Continuity()
    before.check(dense(1, 5, feed=ORDERBOOK), 1)
    before.check(dense(1, 5, feed=TRADE), 2)
    assert continuity.join(before) == []
    assert continuity.check(dense(90, 95, feed=ORDERBOOK), 3) == (RESET, None)
    assert continuity.check(dense(9, 9, feed=TRADE), 4) == (GAP, Hole(6, 8, 3, 2))


@pytest.mark.parametrize(
    ("old_last", "new_first", "hole"),
    [(10, 5, None), (10, 10, None), (10, 11, None), (10, 14, Hole(11, 13, 3, 1))],
)
def test_of_two_open_connections_only_what_neither_has_brought_is_a_hole(
    old_last: int, new_first: int, hole: Hole | None
) -> None:
    old, new = Continuity(), Continuity()
    assert new.check(dense(new_first, new_first, symbol="A", feed=TRADE), 7) == (RESET, None)
    assert new.check(dense(new_first + 1, 30, symbol="A", feed=TRADE), 8) == (OK, None)
    old.check(dense(1, old_last, symbol="A", feed=TRADE), 1)
    assert new.join(old) == ([("A", TRADE, hole, 7)] if hole else [])
    assert new.check(dense(31, 31, symbol="A", feed=TRADE), 9) == (OK, None)


def test_feeds_and_symbols_are_judged_apart() -> None:
    continuity = Continuity()
    for symbol, feed in [("A", ORDERBOOK), ("A", TRADE), ("B", ORDERBOOK), ("B", TRADE)]:
        assert continuity.check(dense(50, 50, symbol=symbol, feed=feed), 1) == (RESET, None)
    assert continuity.check(dense(53, 53, symbol="B", feed=TRADE), 2) == (GAP, Hole(51, 52, 2, 1))
    assert continuity.check(dense(51, 51, symbol="A", feed=TRADE), 3) == (OK, None)


@given(st.lists(st.integers(0, 12), max_size=60))
@settings(deadline=None)
def test_memory_is_bounded_and_what_is_forgotten_is_counted(symbols: list[int]) -> None:
    continuity = Continuity(max_entries=5)
    held: list[int] = []
    evicted = 0
    for symbol in symbols:
        verdict, _ = continuity.check(dense(1, 1, symbol=str(symbol)), 1)
        assert verdict is (DUPLICATE if symbol in held else RESET)
        if symbol not in held:
            held.append(symbol)
        if len(held) > 5:
            held.pop(0)
            evicted += 1
        assert continuity.evicted == evicted


def test_events_that_were_no_progress_are_counted_by_feed_and_verdict() -> None:
    continuity = Continuity()

    def trade(id: int, symbol: str = "BTC-USDT") -> Decoded:
        return Decoded(symbol, TRADE, str(id), None, "{}", follows=id - 1, last=id, dense=True)

    verdicts = [continuity.check(trade(id), 1)[0] for id in (5, 6, 6, 4, 7, 7)]
    continuity.check(trade(9, "ETH-USDT"), 1)
    assert verdicts == [RESET, OK, DUPLICATE, OUT_OF_ORDER, OK, DUPLICATE]
    assert continuity.irregular == {
        ("BTC-USDT", TRADE, DUPLICATE): 2, ("BTC-USDT", TRADE, OUT_OF_ORDER): 1,
    }  # fmt: skip
