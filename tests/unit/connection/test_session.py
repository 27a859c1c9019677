"""The state machine of one connection, fed by hand: frames and seconds in, actions and records out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.connection.actions import Close, Fetch, Output, Rotate, Send
from app.connection.feed import FeedState
from app.connection.freshness import Rhythm
from app.connection.session import Session
from app.exchanges import EXCHANGES
from app.exchanges.base import Exchange, Subscription
from app.model import ORDERBOOK, TRADE, UNDECODED, EpochEnd, Event, Gap, Quarantined, Range
from app.sequence import Continuity

OKX, BYBIT, UPBIT, COINBASE, BINANCE = (EXCHANGES[name] for name in ("okx", "bybit", "upbit", "coinbase", "binance"))
EPOCH = "0f" * 16
#: How often the driver ticks.
TICK_S = 0.25


class Link:
    """A session with a clock of its own."""

    def __init__(
        self,
        exchange: Exchange = OKX,
        symbols: Sequence[str] = ("BTC-USDT", "ETH-USDT"),
        *,
        feeds: tuple[str, ...] = (ORDERBOOK, TRADE),
        dead_timeout_s: float = 30,
        data_timeout_s: float = 10,
        continuity: Continuity | None = None,
        epoch: str = EPOCH,
        rhythms: dict[tuple[str, str], Rhythm] | None = None,
        rotate_after_s: float | None = None,
    ) -> None:
        self.subscription = subscription = Subscription(
            tuple(symbols), feeds, exchange.orderbook_channels[0], exchange.trade_channels[0]
        )
        self.now_s = 5000.0
        self.continuity = continuity or Continuity()
        self.session = Session(
            exchange, subscription, self.continuity, epoch=epoch, rhythms=rhythms, rotate_after_s=rotate_after_s,
            dead_timeout_s=dead_timeout_s, data_timeout_s=dict.fromkeys(symbols, data_timeout_s),
        )  # fmt: skip
        self.sent_first = self.session.opened(self.now_s, self.now_us)

    @property
    def now_us(self) -> int:
        return 1_790_000_000_000_000 + round(self.now_s * 1_000_000)

    def receive(self, frame: str | bytes) -> list[Output]:
        payload = frame.encode() if isinstance(frame, str) else frame
        return self.session.received(payload, self.now_us, self.now_s)

    def pass_s(self, seconds: float, *, frame: str | None = None, every_s: float = 1.0) -> list[tuple[float, Output]]:
        """Let time pass, ticking as the driver does, with `frame` received meanwhile; returns what came out, and when."""
        outputs: list[tuple[float, Output]] = []
        until_s, next_s = self.now_s + seconds, self.now_s + every_s
        while self.now_s < until_s:
            self.now_s += TICK_S
            while frame is not None and next_s <= self.now_s:
                outputs += [(next_s, output) for output in self.receive(frame)]
                next_s += every_s
            outputs += [(self.now_s, output) for output in self.session.tick(self.now_s, self.now_us)]
        return outputs

    def states(self) -> dict[tuple[str, str], FeedState]:
        return {key: status.state for key, status in self.session.feeds.items()}


def book(before: int, last: int, symbol: str = "BTC-USDT") -> str:
    row = {"asks": [], "bids": [], "ts": "1790000000000", "seqId": last, "prevSeqId": before}
    action = "snapshot" if before == -1 else "update"
    return json.dumps({"arg": {"channel": "books", "instId": symbol}, "action": action, "data": [row]})


def trades(*ids: int, symbol: str = "BTC-USDT") -> str:
    rows = [{"instId": symbol, "tradeId": str(id), "ts": "1790000000000", "count": "1"} for id in ids]
    return json.dumps({"arg": {"channel": "trades", "instId": symbol}, "data": rows}, separators=(",", ":"))


def upbit(channel: str, id: int, symbol: str = "KRW-BTC") -> str:
    return json.dumps({"ty": channel, "cd": symbol, "tms": id, "ttms": id, "sid": id, "st": "REALTIME"})


def sends(outputs: Sequence[Output | tuple[float, Output]]) -> list[str | None]:
    plain = [output[1] if isinstance(output, tuple) else output for output in outputs]
    return [output.frame for output in plain if isinstance(output, Send)]


def closes(outputs: Sequence[tuple[float, Output]]) -> list[str]:
    return [output.reason for _, output in outputs if isinstance(output, Close)]


def of(outputs: Sequence[Output], kind: type) -> list[Output]:
    return [output for output in outputs if isinstance(output, kind)]


# subscribing


@pytest.mark.parametrize("exchange", EXCHANGES.values(), ids=lambda exchange: exchange.name)
def test_everything_is_asked_for_once_in_order_no_faster_than_the_venue_allows(exchange: Exchange) -> None:
    symbols = {
        "binance": [f"coin{n}usdt" for n in range(120)],
        "coinbase": [f"C{n}-USD" for n in range(6)],
        "upbit": [f"KRW-C{n}" for n in range(6)],
        "okx": [f"C{n}-USDT" for n in range(6)],
        "bybit": [f"COIN{n}USDT" for n in range(6)],
    }[exchange.name]
    link = Link(exchange, symbols)
    opened_s = link.now_s
    sent = [(opened_s, frame) for frame in sends(link.sent_first)]
    assert len(sent) == 1, "the first request goes out with the handshake"
    beat = exchange.heartbeat.frame if exchange.heartbeat else ""
    sent += [(at, o.frame) for at, o in link.pass_s(9) if isinstance(o, Send) and o.frame != beat]
    wanted = Subscription(
        tuple(symbols), (ORDERBOOK, TRADE), exchange.orderbook_channels[0], exchange.trade_channels[0]
    )
    assert [frame for _, frame in sent] == [request.frame for request in exchange.subscribe(wanted, EPOCH)]
    assert all(later - earlier >= 1 / exchange.limits.messages_per_s for (earlier, _), (later, _) in pairwise(sent))


def test_every_feed_is_subscribing_until_its_first_data_and_live_from_then_on() -> None:
    link = Link()
    assert set(link.states().values()) == {FeedState.SUBSCRIBING}
    link.receive(book(-1, 5))
    assert {key for key, state in link.states().items() if state is FeedState.LIVE} == {("BTC-USDT", ORDERBOOK)}


def test_an_acknowledgement_is_no_data() -> None:
    link = Link()
    assert link.receive('{"event":"subscribe","arg":{"channel":"books","instId":"BTC-USDT"},"connId":"a"}') == []
    assert set(link.states().values()) == {FeedState.SUBSCRIBING}


# numbers


def test_units_are_numbered_from_one_for_each_symbol_and_feed() -> None:
    link = Link()
    outputs = []
    for frame in [
        book(-1, 5), trades(7, 8), book(5, 6), trades(3, symbol="ETH-USDT"), "garbage", trades(9), b"\xff", book(6, 7),
    ]:  # fmt: skip
        outputs += link.receive(frame)
    numbered = [(o.symbol, o.feed, o.number) for o in outputs if isinstance(o, Event | Quarantined)]
    assert numbered == [
        ("BTC-USDT", ORDERBOOK, 1),
        ("BTC-USDT", TRADE, 1),
        ("BTC-USDT", TRADE, 2),
        ("BTC-USDT", ORDERBOOK, 2),
        ("ETH-USDT", TRADE, 1),
        (UNDECODED, UNDECODED, 1),
        ("BTC-USDT", TRADE, 3),
        (UNDECODED, UNDECODED, 2),
        ("BTC-USDT", ORDERBOOK, 3),
    ]


@given(st.lists(st.sampled_from(["book BTC", "book ETH", "trade BTC", "trade ETH", "garbage", "not utf-8", "pong"])))
@settings(deadline=None)
def test_numbers_run_without_a_hole_and_the_end_names_the_last_of_each(kinds: list[str]) -> None:
    link = Link()
    counted: dict[tuple[str, str], int] = {}
    for at, kind in enumerate(kinds, 1):
        symbol = f"{kind[-3:]}-USDT"
        frame = {
            "book": book(at, at + 1, symbol), "trad": trades(at, symbol=symbol), "garb": "{", "not ": b"\x80", "pong": "pong",
        }[kind[:4]]  # fmt: skip
        units = [output for output in link.receive(frame) if isinstance(output, Event | Quarantined)]
        assert len(units) == (0 if kind == "pong" else 1)
        for unit in units:
            counted[unit.symbol, unit.feed] = counted.get((unit.symbol, unit.feed), 0) + 1
            assert unit.number == counted[unit.symbol, unit.feed]
    end = link.session.end(99, "stop")
    assert (end.ended_us, end.reason) == (99, "stop")
    assert {(r.symbol, r.feed): (r.first, r.last) for r in end.last_numbers} == {
        key: (1, last) for key, last in counted.items()
    }


def test_a_trade_frame_becomes_one_event_for_each_trade_with_its_own_text() -> None:
    link = Link()
    link.now_s += 1.5
    (one, two) = link.receive(trades(41, 42))
    row = '{"instId":"BTC-USDT","tradeId":"%s","ts":"1790000000000","count":"1"}'
    assert one == Event("BTC-USDT", TRADE, 1, "41", link.now_us, 1_790_000_000_000_000, row % 41)
    assert two == Event("BTC-USDT", TRADE, 2, "42", link.now_us, 1_790_000_000_000_000, row % 42)


def test_where_the_venue_gives_no_identity_the_epoch_and_the_number_are_one() -> None:
    link = Link(COINBASE, ["BTC-USD"])
    frame = '{"type":"l2update","product_id":"BTC-USD","changes":[],"time":"2026-03-01T00:00:00Z"}'
    events = [*link.receive(frame), *link.receive(frame)]
    assert [event.sequence_id for event in events if isinstance(event, Event)] == [f"{EPOCH}-1", f"{EPOCH}-2"]


# undecodable frames


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"\x00\x9f\x92\x96", "not_utf8: invalid start byte at byte 1"),
        (b"{", "not_json"),
        (b"", "not_json"),
        (b'{"arg":{"channel":"books","instId":"XRP-USDT"},"data":[{}]}', "unexpected_symbol: books XRP-USDT"),
        (trades(1).replace("tradeId", "trade").encode(), "unexpected_shape: a trade without its id"),
    ],
)
def test_a_frame_that_cannot_be_decoded_is_kept_byte_for_byte(frame: bytes, reason: str) -> None:
    link = Link()
    (unit,) = link.receive(frame)
    assert isinstance(unit, Quarantined)
    assert unit == Quarantined(UNDECODED, UNDECODED, 1, link.now_us, unit.reason, frame)
    assert unit.reason.startswith(reason)


def test_a_frame_that_is_half_good_is_quarantined_whole() -> None:
    link = Link()
    half = trades(7, 8).replace('"tradeId":"8",', "")
    assert [type(output) for output in link.receive(half)] == [Quarantined]
    (event,) = link.receive(trades(7))
    assert isinstance(event, Event) and event.number == 1


def feed_frames(link: Link, good: int, bad: int) -> list[str]:
    found: list[str] = []
    for n in range(good):
        found += closes([(0, o) for o in link.receive(trades(n + 1))])
    for _ in range(bad):
        found += closes([(0, o) for o in link.receive("?")])
    return found


@pytest.mark.parametrize(
    ("good", "bad", "closed"),
    [(0, 99, []), (0, 100, ["circuit_breaker"]), (50, 50, []), (50, 51, ["circuit_breaker"]), (99, 3, [])],
)
def test_a_connection_of_which_more_than_half_cannot_be_read_is_closed(good: int, bad: int, closed: list[str]) -> None:
    assert feed_frames(Link(), good, bad) == closed


def test_frames_of_a_minute_ago_do_not_count_against_the_connection() -> None:
    link = Link()
    feed_frames(link, 0, 99)
    link.now_s += 61
    assert feed_frames(link, 0, 99) == []
    assert feed_frames(link, 0, 1) == ["circuit_breaker"]


def test_every_frame_before_the_breaker_closes_is_in_quarantine() -> None:
    link = Link()
    outputs = [output for n in range(100) for output in link.receive(f"garbage {n}")]
    assert [o.frame for o in outputs if isinstance(o, Quarantined)] == [f"garbage {n}".encode() for n in range(100)]
    assert outputs[-1] == Close("circuit_breaker", "100 of 100 frames undecodable")


def test_of_an_oversized_frame_the_head_is_kept_and_the_connection_ends() -> None:
    link = Link()
    link.receive("garbage")
    outputs = link.session.oversized(5_000_000_000, b"{head", 77)
    reason = "oversized: 5000000000 bytes, the first 5 are kept"
    assert outputs == [
        Quarantined(UNDECODED, UNDECODED, 2, 77, reason, b"{head"),
        Close("oversized_frame", "5000000000 bytes"),
    ]


# refusals and notices


def test_a_refused_symbol_is_rejected_in_the_venues_words_and_the_others_go_on() -> None:
    link = Link()
    words = "Wrong URL or channel:books,instId:ETH-USDT doesn't exist. Please use the correct URL."
    assert link.receive(json.dumps({"event": "error", "msg": words, "code": "60018", "connId": "9"})) == []
    assert link.states() == {
        ("BTC-USDT", ORDERBOOK): FeedState.SUBSCRIBING,
        ("BTC-USDT", TRADE): FeedState.SUBSCRIBING,
        ("ETH-USDT", ORDERBOOK): FeedState.REJECTED,
        ("ETH-USDT", TRADE): FeedState.SUBSCRIBING,
    }
    assert link.session.feeds["ETH-USDT", ORDERBOOK].why == f"60018: {words}"
    (event,) = link.receive(trades(7))
    assert isinstance(event, Event) and event.sequence_id == "7"


def test_a_refusal_that_names_only_its_request_means_the_feeds_of_that_request() -> None:
    link = Link(BYBIT, ["BTCUSDT", "NOSUCHSYM"])
    link.pass_s(1)
    refusal = {"success": False, "ret_msg": "no", "req_id": f"{EPOCH}-1", "op": "subscribe"}
    link.receive(json.dumps(refusal))
    refused = {key for key, state in link.states().items() if state is FeedState.REJECTED}
    assert refused == {("NOSUCHSYM", ORDERBOOK), ("NOSUCHSYM", TRADE)}


def test_a_refusal_that_names_nothing_is_remembered_and_rejects_nothing() -> None:
    link = Link()
    link.receive('{"event":"error","msg":"Requests too frequent","code":"60014","connId":"5f"}')
    assert link.session.last_error == "60014: Requests too frequent"
    assert FeedState.REJECTED not in link.states().values()


def test_of_what_a_venue_says_a_sentence_is_kept_however_long_it_goes_on() -> None:
    link = Link(BYBIT, ["BTCUSDT"])
    words = "[orderbook.50.BTCUSDT] " + "x" * 100_000
    link.receive(json.dumps({"success": False, "ret_msg": words, "op": "subscribe"}))
    link.receive(json.dumps({"success": False, "ret_msg": words[23:], "op": "subscribe"}))
    assert link.session.feeds["BTCUSDT", ORDERBOOK].why == words[:500]
    assert link.session.last_error == "x" * 500
    told = Link()
    told.receive(json.dumps({"event": "notice", "code": "64008", "msg": words}))
    assert [r for _, r in rotations(told.pass_s(2))] == [Rotate("venue_notice", f"64008: {words}"[:500])]


def test_a_late_refusal_does_not_reject_a_feed_that_has_data() -> None:
    link = Link(BYBIT, ["BTCUSDT"])
    link.receive(
        '{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1790000000000,"data":[{"i":"1","s":"BTCUSDT"}]}'
    )
    link.receive('{"success":false,"ret_msg":"Invalid symbol :[publicTrade.BTCUSDT]","op":"subscribe"}')
    assert link.states()["BTCUSDT", TRADE] is FeedState.LIVE


def test_a_symbol_the_venue_does_not_list_is_rejected_in_all_its_feeds_and_left_in_peace() -> None:
    link = Link(UPBIT, ["KRW-BTC", "KRW-NOPE"])
    link.session.reject("KRW-NOPE", "not in the venue's list", link.now_us)
    outputs = link.pass_s(60, frame=upbit("trade", 5))
    assert {key: state for key, state in link.states().items() if key[0] == "KRW-NOPE"} == {
        ("KRW-NOPE", ORDERBOOK): FeedState.REJECTED,
        ("KRW-NOPE", TRADE): FeedState.REJECTED,
    }
    assert closes(outputs) == []


def rotations(outputs: Sequence[tuple[float, Output]]) -> list[tuple[float, Rotate]]:
    return [(at_s, output) for at_s, output in outputs if isinstance(output, Rotate)]


def test_the_venues_notice_of_a_restart_asks_for_another_connection_in_its_words_until_there_is_one() -> None:
    link = Link()
    notice = '{"event":"notice","code":"64008","msg":"The connection will soon be closed.","connId":"a"}'
    assert link.receive(notice) == []
    found = rotations(link.pass_s(70, frame=trades(7)))
    assert [rotate for _, rotate in found] == [Rotate("venue_notice", "64008: The connection will soon be closed.")] * 3
    assert found[0][0] <= 5001.0
    assert [later - sooner for (sooner, _), (later, _) in pairwise(found)] == [30.0, 30.0]


def test_a_connection_of_age_asks_for_another_one_and_goes_on() -> None:
    link = Link(rotate_after_s=60)
    outputs = link.pass_s(59, frame=trades(7))
    assert (rotations(outputs), closes(outputs)) == ([], [])
    found = link.pass_s(3, frame=trades(8))
    assert [rotate.reason for _, rotate in rotations(found)] == ["planned_rotation"]
    assert of([output for _, output in found], Event) != []


def test_trades_that_neither_of_two_overlapping_connections_brought_are_a_gap_of_the_new_one() -> None:
    old, new = Link(), Link(epoch="0e" * 16)
    old.receive(trades(1, 2, 3))
    new.receive(trades(6, 7))
    assert new.session.joined(old.continuity) == [
        Gap("BTC-USDT", TRADE, 1, "4", "5", 2, old.now_us, new.now_us, "missing_ids")
    ]


def test_a_connection_that_says_nothing_is_asked_whether_it_lives_and_ended_without_an_answer() -> None:
    link = Link(COINBASE, ["BTC-USD"], dead_timeout_s=1e9, data_timeout_s=1e9)
    silent = Link(BINANCE, ["btcusdt"], dead_timeout_s=1e9, data_timeout_s=1e9)
    assert (sends(silent.pass_s(15)), sends(silent.pass_s(1.5))) == ([], [None])
    assert closes(silent.pass_s(10)) == []
    assert closes(silent.pass_s(3))[:1] == ["ping_failed"]
    for _ in range(6):
        outputs = link.pass_s(16)
        link.session.life.pong(link.now_s)
        assert closes(outputs) == [], "each question was answered"


def test_silences_are_told_apart_and_never_is_not_nought() -> None:
    link = Link()
    link.pass_s(4)
    assert link.session.life.silences(link.now_s) == {"data": None, "frame": None, "pong": None}
    link.receive("pong")
    link.pass_s(3)
    link.receive(book(-1, 5))
    link.pass_s(2)
    assert link.session.life.silences(link.now_s) == {"data": 2.0, "frame": 2.0, "pong": 5.0}


def test_a_venue_that_refuses_and_hangs_up_has_refused() -> None:
    link = Link()
    assert link.session.ended_by_venue("close_frame", "1000 bye") == Close("close_frame", "1000 bye")
    link.receive('{"event":"error","code":"60014","msg":"Requests too frequent","connId":"a"}')
    refused = Close("subscribe_rejected", "60014: Requests too frequent (1000 bye)")
    assert link.session.ended_by_venue("close_frame", "1000 bye") == refused
    link.receive(book(-1, 5))
    assert link.session.ended_by_venue("close_frame", "1000 bye") == Close("close_frame", "1000 bye")


# heartbeat


@pytest.mark.parametrize("exchange", [OKX, BYBIT, UPBIT, COINBASE], ids=lambda exchange: exchange.name)
def test_the_heartbeat_is_sent_on_time_although_data_never_ceases(exchange: Exchange) -> None:
    symbol = {"okx": "BTC-USDT", "bybit": "BTCUSDT", "upbit": "KRW-BTC", "coinbase": "BTC-USD"}[exchange.name]
    beat = exchange.heartbeat
    assert beat is not None
    link = Link(exchange, [symbol], feeds=(TRADE,))
    opened_s = link.now_s
    frames = {
        "okx": trades(5),
        "bybit": '{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1790000000000,"data":[{"i":"1","s":"BTCUSDT"}]}',
        "upbit": upbit("trade", 5),
        "coinbase": '{"type":"match","trade_id":10,"product_id":"BTC-USD","time":"2026-03-01T00:00:00Z"}',
    }
    outputs = link.pass_s(5 * beat.every_s, frame=frames[exchange.name], every_s=1 / 64)
    times = [at for at, output in outputs if output == Send(beat.frame)]
    assert times == [opened_s + n * beat.every_s for n in range(1, 6)]
    assert len(of([o for _, o in outputs], Event)) == 5 * beat.every_s * 64


def test_a_venue_that_pings_by_itself_gets_no_heartbeat() -> None:
    link = Link(BINANCE, ["btcusdt"], dead_timeout_s=1e9, data_timeout_s=1e9)
    for _ in range(30):
        assert sends(link.pass_s(10)) == []
        link.session.life.pong(link.now_s)


# silence


def test_a_feed_is_judged_by_its_own_rhythm() -> None:
    link = Link(data_timeout_s=10, symbols=["BTC-USDT"])
    last = 5
    link.receive(book(-1, last))
    for second in range(60):  # a book a second, a trade in ten
        link.now_s += 1
        link.receive(book(last, last := last + 1))
        if second % 10 == 9:
            link.receive(trades(second))
        link.session.tick(link.now_s, link.now_us)
    link.pass_s(4, frame="pong")
    assert link.states() == {("BTC-USDT", ORDERBOOK): FeedState.LIVE, ("BTC-USDT", TRADE): FeedState.LIVE}
    link.pass_s(14, frame="pong")  # more than five of the book's seconds
    assert link.states() == {("BTC-USDT", ORDERBOOK): FeedState.QUIET, ("BTC-USDT", TRADE): FeedState.LIVE}
    link.pass_s(3, frame="pong")  # more than twenty of the book's seconds
    assert link.states() == {("BTC-USDT", ORDERBOOK): FeedState.STALE, ("BTC-USDT", TRADE): FeedState.LIVE}
    link.pass_s(170, frame="pong")
    assert link.states()["BTC-USDT", TRADE] is FeedState.QUIET
    link.pass_s(12, frame="pong")  # more than twenty of the trades' ten seconds
    assert link.states()["BTC-USDT", TRADE] is FeedState.STALE


def test_a_stale_feed_is_asked_for_once_and_touches_no_other_and_live_data_makes_it_live_again() -> None:
    link = Link(data_timeout_s=10, symbols=["BTC-USDT", "ETH-USDT"], feeds=(TRADE,))
    link.pass_s(1)
    link.receive(trades(1, symbol="ETH-USDT"))
    outputs = link.pass_s(120, frame=trades(7), every_s=0.5)
    asked = [frame for frame in sends(outputs) if frame != "ping"]
    wanted = Subscription(("BTC-USDT", "ETH-USDT"), (TRADE,), "books", "trades")
    assert asked == [request.frame for request in OKX.resubscribe(wanted, "ETH-USDT", TRADE, EPOCH)]
    assert link.states() == {("BTC-USDT", TRADE): FeedState.LIVE, ("ETH-USDT", TRADE): FeedState.STALE}
    assert link.session.feeds["ETH-USDT", TRADE].why == "no data for 11 s"
    assert closes(outputs) == []
    link.receive(trades(2, symbol="ETH-USDT"))
    assert link.states()["ETH-USDT", TRADE] is FeedState.LIVE
    again = [frame for frame in sends(link.pass_s(300, frame=trades(8), every_s=0.5)) if frame != "ping"]
    assert again == asked, "a second silence is a new one"


def test_a_feed_with_a_rhythm_that_falls_silent_costs_one_new_connection_and_no_second() -> None:
    link = Link(data_timeout_s=10, symbols=["BTC-USDT"])
    link.receive(book(-1, 5))
    link.pass_s(1)
    link.receive(book(5, 6))
    outputs = link.pass_s(60, frame=trades(7), every_s=0.5)
    assert closes(outputs) == [], "its other feed lives"
    assert [rotate.reason for _, rotate in rotations(outputs)][:1] == ["data_timeout"]
    second = Link(data_timeout_s=10, symbols=["BTC-USDT"], rhythms=link.session.rhythms)
    outputs = second.pass_s(300, frame=trades(8), every_s=0.5)
    assert (closes(outputs), rotations(outputs)) == ([], [])
    assert second.states() == {("BTC-USDT", ORDERBOOK): FeedState.STALE, ("BTC-USDT", TRADE): FeedState.LIVE}


def test_a_slow_market_keeps_its_rhythm_over_a_reconnect() -> None:
    link = Link(data_timeout_s=10, symbols=["BTC-USDT"], feeds=(TRADE,))
    for id in range(5):
        link.receive(trades(id))
        link.pass_s(9, frame="pong")
    second = Link(data_timeout_s=10, symbols=["BTC-USDT"], feeds=(TRADE,), rhythms=link.session.rhythms)
    second.now_s = link.now_s
    second.session.opened(second.now_s, second.now_us)
    second.pass_s(100, frame="pong")
    assert second.states() == {("BTC-USDT", TRADE): FeedState.SUBSCRIBING}


def test_a_stale_symbol_that_the_venue_no_longer_lists_is_halted_and_asked_for_again_slowly() -> None:
    link = Link(data_timeout_s=10, symbols=["BTC-USDT", "ETH-USDT"], feeds=(TRADE,))
    outputs = link.pass_s(15, frame=trades(7), every_s=0.5)
    assert [output for _, output in outputs if isinstance(output, Fetch)] == [Fetch("symbols")]
    link.session.unlisted({"ETH-USDT": "not listed"}, link.now_us)
    assert link.states() == {("BTC-USDT", TRADE): FeedState.LIVE, ("ETH-USDT", TRADE): FeedState.HALTED}
    halted_s = link.now_s
    outputs = link.pass_s(1000, frame=trades(8), every_s=5)
    asked = [round(at_s - halted_s) for at_s, output in outputs if isinstance(output, Send) and output.frame != "ping"]
    wanted = [300, 300, 900, 900]  # an unsubscribing and a subscribing, after five minutes and ten more
    assert [min(wanted, key=lambda s: abs(s - at_s)) for at_s in asked] == wanted
    assert max(abs(a - b) for a, b in zip(asked, wanted, strict=True)) <= 2
    link.receive(trades(9, symbol="ETH-USDT"))
    assert link.states()["ETH-USDT", TRADE] is FeedState.LIVE


def test_a_refused_feed_is_asked_for_again_after_five_minutes_and_keeps_its_words() -> None:
    link = Link(symbols=["BTC-USDT", "ETH-USDT"], feeds=(TRADE,))
    link.session.reject("ETH-USDT", "no such market", link.now_us)
    refused_s = link.now_s
    outputs = link.pass_s(310, frame=trades(7), every_s=5)
    asked = [at_s - refused_s for at_s, output in outputs if isinstance(output, Send) and output.frame != "ping"]
    assert [at_s for at_s in asked if at_s < 295 and at_s > 2] == []
    assert len([at_s for at_s in asked if at_s >= 295]) == 2
    assert link.session.feeds["ETH-USDT", TRADE].why == "no such market"


def test_where_the_venue_takes_only_the_whole_request_it_is_said_once_for_all_stale_feeds() -> None:
    link = Link(UPBIT, ["KRW-BTC", "KRW-ETH", "KRW-XRP"], data_timeout_s=10)
    first = sends(link.sent_first)
    outputs = link.pass_s(19, frame=upbit("trade", 5), every_s=0.5)
    assert [frame for frame in sends(outputs) if frame is not None] == first


@pytest.mark.parametrize(
    "sign",
    ["pong", '{"event":"subscribe","arg":{"channel":"books","instId":"BTC-USDT"},"connId":"a"}'],
    ids=["heartbeat", "acknowledgement"],
)
def test_signs_of_life_are_no_data_and_do_not_keep_a_connection_that_brings_none(sign: str) -> None:
    link = Link(data_timeout_s=10, dead_timeout_s=5)
    opened_s = link.now_s
    outputs = link.pass_s(20.5, frame=sign)
    assert set(link.states().values()) == {FeedState.STALE}
    assert closes(outputs) == []
    outputs = link.pass_s(0.5, frame=sign)
    assert closes(outputs) == ["data_timeout"]
    assert link.now_s - opened_s == 21


def test_one_feed_with_data_keeps_a_connection_whose_other_feeds_are_silent() -> None:
    link = Link(data_timeout_s=10)
    assert closes(link.pass_s(300, frame=trades(5))) == []


def test_a_connection_without_any_frame_is_dead_before_its_feeds_are_judged() -> None:
    link = Link(dead_timeout_s=20, data_timeout_s=3600)
    assert closes(link.pass_s(20)) == []
    assert closes(link.pass_s(1)) == ["dead_timeout"]


def test_a_connection_on_which_all_was_refused_is_kept_while_the_venue_speaks() -> None:
    link = Link(symbols=["BTC-USDT"])
    link.session.reject("BTC-USDT", "no", link.now_us)
    assert closes(link.pass_s(300, frame="pong")) == []


# gaps


def test_a_gap_is_a_record_before_its_event_and_asks_once_for_a_snapshot_of_that_book() -> None:
    link = Link(data_timeout_s=3600, dead_timeout_s=3600)
    link.pass_s(2)
    link.receive(book(-1, 5))
    before_us = link.now_us
    link.now_s += 1
    gap, event = link.receive(book(8, 9))
    assert gap == Gap("BTC-USDT", ORDERBOOK, 2, "5", "8", None, before_us, link.now_us, "sequence")
    assert isinstance(event, Event)
    assert (event.number, event.sequence_id) == (2, "books-update-8-9")
    link.receive(book(20, 21))
    asked = [frame for frame in sends(link.pass_s(5)) if frame != "ping"]
    link.receive(book(30, 31))
    assert [frame for frame in sends(link.pass_s(5)) if frame != "ping"] == [], "it is under way"
    wanted = Subscription(("BTC-USDT", "ETH-USDT"), (ORDERBOOK, TRADE), "books", "trades")
    assert asked == [request.frame for request in OKX.resubscribe(wanted, "BTC-USDT", ORDERBOOK, EPOCH)]
    link.receive(book(-1, 50))
    link.receive(book(60, 61))
    assert [frame for frame in sends(link.pass_s(5)) if frame != "ping"] == asked, "after the snapshot, a new gap"


def test_a_hole_in_trades_is_a_gap_with_its_ids_and_asks_for_nothing() -> None:
    link = Link()
    link.pass_s(2)
    link.receive(trades(5))
    gap, event = link.receive(trades(9))
    assert gap == Gap("BTC-USDT", TRADE, 2, "6", "8", 3, link.now_us, link.now_us, "missing_ids")
    assert isinstance(event, Event) and event.number == 2
    assert [frame for frame in sends(link.pass_s(5)) if frame != "ping"] == []


def test_a_hole_in_trades_over_a_reconnect_is_seen_and_a_new_book_is_none() -> None:
    continuity = Continuity()
    first = Link(continuity=continuity)
    first.receive(book(-1, 5))
    first.receive(trades(5))
    second = Link(continuity=continuity, epoch="1f" * 16)
    assert [type(output) for output in second.receive(book(-1, 90))] == [Event]
    gap, event = second.receive(trades(8))
    assert isinstance(gap, Gap) and (gap.number, gap.from_id, gap.to_id, gap.size) == (1, "6", "7", 2)
    assert isinstance(event, Event) and event.number == 1


def test_a_duplicate_is_handed_on_and_is_no_gap() -> None:
    link = Link()
    outputs = [*link.receive(trades(5)), *link.receive(trades(5)), *link.receive(trades(4))]
    assert [(o.sequence_id, o.number) for o in outputs if isinstance(o, Event)] == [("5", 1), ("5", 2), ("4", 3)]
    assert of(outputs, Gap) == []


def test_a_connection_without_data_ends_with_no_numbers() -> None:
    assert Link().session.end(5, "stop") == EpochEnd(5, "stop", ())


def test_the_end_names_the_last_number_of_every_feed_and_of_undecoded_frames() -> None:
    link = Link()
    for frame in [book(-1, 5), trades(1, 2, 3), "garbage"]:
        link.receive(frame)
    assert link.session.end(5, "stop").last_numbers == (
        Range("BTC-USDT", ORDERBOOK, 1, 1),
        Range("BTC-USDT", TRADE, 1, 3),
        Range(UNDECODED, UNDECODED, 1, 1),
    )


@pytest.mark.exhaustive
def test_no_more_requests_an_hour_are_sent_than_the_venue_allows() -> None:
    link = Link(symbols=[f"T{n:03}-USDT" for n in range(600)], dead_timeout_s=1e9, data_timeout_s=1e9)
    frames = [request.frame for request in OKX.subscribe(link.subscription, EPOCH)]
    assert len(frames) > 480 == OKX.limits.requests_per_hour
    asked = [f for f in [*sends(link.sent_first), *sends(link.pass_s(600))] if f != "ping"]
    assert asked == frames[:480]
    asked += [f for f in sends(link.pass_s(3200)) if f != "ping"]
    assert asked == frames


def test_pings_of_the_venue_keep_a_quiet_connection_but_prove_nothing_about_a_feed() -> None:
    link = Link(BINANCE, ["btcusdt"], feeds=(TRADE,), dead_timeout_s=30, data_timeout_s=7200)
    outputs: list[tuple[float, Output]] = []
    for _ in range(20):
        outputs += link.pass_s(20)
        link.session.life.pong(link.now_s)
    assert closes(outputs) == []
    assert link.states() == {("btcusdt", TRADE): FeedState.SUBSCRIBING}
    assert closes(link.pass_s(29)) == ["ping_failed"]


def diff_depth(first: int, last: int) -> str:
    data = {"e": "depthUpdate", "E": 1_790_000_000_000, "s": "BTCUSDT", "U": first, "u": last, "b": [], "a": []}
    return json.dumps({"stream": "btcusdt@depth@100ms", "data": data})


def test_a_book_that_is_asked_for_is_an_event_like_the_others_and_its_hole_unsubscribes_nothing() -> None:
    subscription = Subscription(("btcusdt",), (ORDERBOOK,), "depth@100ms", "trade")
    session = Session(
        BINANCE, subscription, Continuity(), epoch=EPOCH, dead_timeout_s=30, data_timeout_s={"btcusdt": 10}
    )
    session.opened(100.0, 100)
    session.received(diff_depth(101, 110).encode(), 101, 100.1)
    assert session.tick(100.25, 102) == [Fetch("book", "btcusdt")]
    body = b'{"lastUpdateId":104,"bids":[["1.0","2"]],"asks":[]}'
    assert session.asked_book(BINANCE.asked_book("btcusdt", body), 0.0, 103, 100.5) == [
        Event("btcusdt", ORDERBOOK, 2, "rest-104", 103, None, body.decode())
    ]
    gap, change = session.received(diff_depth(121, 130).encode(), 104, 102.0)
    assert isinstance(gap, Gap) and isinstance(change, Event)
    assert (gap.number, gap.from_id, gap.to_id, change.number) == (3, "111", "120", 3)
    assert session.tick(102.25, 105) == [Fetch("book", "btcusdt")]
    assert session.asked_book(None, 0.0, 106, 102.5) == []
    assert session.end(107, "stop").last_numbers == (Range("btcusdt", ORDERBOOK, 1, 3),)
