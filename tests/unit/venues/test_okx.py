import json
from typing import Any

from app.venues.dialect import Close, Event, Frame, Join, Leave, say
from app.venues.market import ASK, BID, Change, Step, Trade
from app.venues.okx import Okx

BIDS = [(8_399_990, 120_000_000), (8_399_950, 30_000_000)]
ASKS = [(8_400_010, 50_000_000), (8_400_100, 7)]
BOUGHT = Trade(44, 3, 8_400_010, 20_000_000, True, 1_790_000_000_122_456, 905)
SOLD = Trade(45, 1, 8_399_990, 65_000, False, 1_790_000_000_122_456, 906)
STEP = Step([BOUGHT, SOLD], [Change(ASK, 8_400_010, 30_000_000, 50_000_000), Change(BID, 8_399_950, 0, 30_000_000)])


def venue() -> Any:
    return Okx(Okx.listing(), 7, 1_000)


def session(now_us: int) -> Any:
    return venue().session(1, {}, now_us)


def book(text: str) -> Frame:
    return Frame(text, (Event("BTC-USDT", "orderbook", None, text),))


def test_books_are_a_snapshot_then_updates_that_name_the_frame_before(quote: Any, apply: Any, now_us: int) -> None:
    okx = venue()
    market = quote(okx, "BTC-USDT", BIDS, ASKS)
    topic = okx.topic("books:BTC-USDT", now_us)
    topic.begin(now_us)
    assert topic.opening(now_us) == [
        book(
            '{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"snapshot","data":[{'
            '"asks":[["84000.1","0.5","0","2"],["84001","0.00000007","0","1"]],'
            '"bids":[["83999.9","1.2","0","2"],["83999.5","0.3","0","3"]],'
            '"ts":"1790000000123","checksum":0,"seqId":900,"prevSeqId":-1}]}'
        )
    ]
    assert topic.advance(apply(market, STEP), now_us) == [
        book(
            '{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"update","data":[{'
            '"asks":[["84000.1","0.3","0","3"]],"bids":[["83999.5","0","0","0"]],'
            '"ts":"1790000000123","checksum":0,"seqId":910,"prevSeqId":900}]}'
        )
    ]


def test_a_book_that_is_quiet_for_a_minute_is_repeated_empty_under_its_own_sequence(quote: Any, now_us: int) -> None:
    okx = venue()
    quote(okx, "BTC-USDT", BIDS, ASKS)
    topic = okx.topic("books:BTC-USDT", now_us)
    topic.begin(now_us)
    later = now_us + 60_000_000
    assert topic.quiet(later - 1) == []
    assert topic.quiet(later) == [
        book(
            '{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"update","data":[{"asks":[],"bids":[],'
            '"ts":"1790000060123","checksum":0,"seqId":900,"prevSeqId":900}]}'
        )
    ]
    assert topic.quiet(later + 1) == []


def test_books5_is_the_whole_top_when_it_changed(quote: Any, apply: Any, now_us: int) -> None:
    okx = venue()
    market = quote(okx, "BTC-USDT", BIDS, ASKS)
    topic = okx.topic("books5:BTC-USDT", now_us)
    assert topic.opening(now_us) == [
        book(
            '{"arg":{"channel":"books5","instId":"BTC-USDT"},"data":[{'
            '"asks":[["84000.1","0.5","0","2"],["84001","0.00000007","0","1"]],'
            '"bids":[["83999.9","1.2","0","2"],["83999.5","0.3","0","3"]],'
            '"instId":"BTC-USDT","ts":"1790000000123","seqId":900}]}'
        )
    ]
    assert topic.advance(Step([], []), now_us) == []
    (update,) = topic.advance(apply(market, STEP), now_us)
    assert json.loads(update.text)["data"][0]["asks"][0] == ["84000.1", "0.3", "0", "3"]


def test_a_frame_of_trades_has_a_row_for_each_and_the_ids_it_stands_for(quote: Any, apply: Any, now_us: int) -> None:
    okx = venue()
    market = quote(okx, "BTC-USDT", BIDS, ASKS)
    bought = (
        '{"instId":"BTC-USDT","tradeId":"44","px":"84000.1","sz":"0.2","side":"buy","ts":"1790000000122",'
        '"count":"3","source":"0","seqId":905}'
    )
    sold = (
        '{"instId":"BTC-USDT","tradeId":"45","px":"83999.9","sz":"0.00065","side":"sell","ts":"1790000000122",'
        '"count":"1","source":"0","seqId":906}'
    )
    text = '{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[' + bought + "," + sold + "]}"
    assert okx.topic("trades:BTC-USDT", now_us).advance(apply(market, STEP), now_us) == [
        Frame(text, (Event("BTC-USDT", "trade", "44", bought), Event("BTC-USDT", "trade", "45", sold)))
    ]


def test_every_argument_is_answered_by_itself(now_us: int) -> None:
    opened = session(now_us)
    known = opened.connection_id
    request = (
        '{"id":"15","op":"subscribe","args":[{"channel":"books","instId":"BTC-USDT"},'
        '{"channel":"books","instId":"FOO-BAR"},{"channel":"trades","instId":"BTC-USDT"}]}'
    )
    assert opened.received(request, now_us) == [
        say(f'{{"id":"15","event":"subscribe","arg":{{"channel":"books","instId":"BTC-USDT"}},"connId":"{known}"}}'),
        Join("books:BTC-USDT"),
        say(
            '{"id":"15","event":"error","msg":"Wrong URL or channel:books,instId:FOO-BAR doesn\'t exist. Please use '
            'the correct URL, channel and parameters referring to API document.","code":"60018",'
            f'"connId":"{known}"}}'
        ),
        say(f'{{"id":"15","event":"subscribe","arg":{{"channel":"trades","instId":"BTC-USDT"}},"connId":"{known}"}}'),
        Join("trades:BTC-USDT"),
    ]
    gone = '{"op":"unsubscribe","args":[{"channel":"books","instId":"BTC-USDT"}]}'
    assert opened.received(gone, now_us) == [
        say(f'{{"event":"unsubscribe","arg":{{"channel":"books","instId":"BTC-USDT"}},"connId":"{known}"}}'),
        Leave("books:BTC-USDT"),
    ]


def test_a_malformed_request_is_quoted_back(now_us: int) -> None:
    for text in ("{", "[1]", '{"op":"subscribe","argss":[]}', '{"op":[],"args":[]}'):
        (action,) = session(now_us).received(text, now_us)
        error = json.loads(action.frame.text)
        assert (error["event"], error["code"], error["msg"]) == ("error", "60012", f"Invalid request: {text}")


def test_the_text_ping_is_answered_and_keeps_the_connection(now_us: int) -> None:
    opened = session(now_us)
    assert opened.received("ping", now_us + 20_000_000) == [say("pong")]
    assert opened.due(now_us + 49_999_999, now_us + 49_999_999, now_us) == []
    assert opened.due(now_us + 50_000_000, now_us + 50_000_000, now_us) == [Close(4004, "No data received in 30s.")]
    assert opened.due(now_us + 50_000_000, 0, now_us + 50_000_000) == []


def test_instruments_are_listed_as_live_spot(now_us: int) -> None:
    first = json.loads(venue().rest("/api/v5/public/instruments", {"instType": "SPOT"}, now_us).body)["data"][0]
    assert (first["instId"], first["state"], first["tickSz"]) == ("BTC-USDT", "live", "0.01")
    refused = venue().rest("/api/v5/public/instruments", {}, now_us)
    assert (refused.status, json.loads(refused.body)["code"]) == (400, "51000")


def test_recorded_frames_are_read_with_exact_slices() -> None:
    trades = '{"arg":{"channel":"trades","instId":"X-SWAP"},"data":[{"tradeId":"5", "px":"1.10"},{"tradeId":"6"}]}'
    assert Okx.read(trades) == (
        "trades:X-SWAP",
        Frame(
            trades,
            (
                Event("X-SWAP", "trade", "5", '{"tradeId":"5", "px":"1.10"}'),
                Event("X-SWAP", "trade", "6", '{"tradeId":"6"}'),
            ),
        ),
    )
    assert Okx.read('{"event":"subscribe","arg":{"channel":"books","instId":"X"}}') is None
    assert Okx.read('{"arg":{"channel":"tickers","instId":"X"},"data":[{}]}') is None


def test_a_connection_may_ask_480_times_an_hour(now_us: int) -> None:
    session = Okx(Okx.listing(), 7, 1_000).session(1, {}, now_us)
    ask = '{"op":"subscribe","args":[{"channel":"trades","instId":"BTC-USDT"}]}'
    codes = [json.loads(session.received(ask, now_us + n)[0].frame.text).get("code") for n in range(481)]  # type: ignore[union-attr]
    assert codes == [None] * 480 + ["60014"]
    assert session.received("ping", now_us + 481) == [say("pong")], "a ping is no request"
    later = json.loads(session.received(ask, now_us + 3_600_000_000)[0].frame.text)  # type: ignore[union-attr]
    assert later["event"] == "subscribe"
