"""Each fault of the built-in exchanges, as a client meets it and as the sent file accounts for it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import websocket

from tests.support.exchanges import ExchangeProcess

CLOSE = websocket.ABNF.OPCODE_CLOSE
SUBSCRIBE: dict[str, Any] = {
    "binance": {"method": "SUBSCRIBE", "params": ["ethusdt@depth@100ms", "ethusdt@trade"], "id": 1},
    "coinbase": {"type": "subscribe", "product_ids": ["ETH-USD"], "channels": ["level2_batch", "matches", "heartbeat"]},
    "upbit": [{"ticket": "t"}, {"type": "orderbook", "codes": ["KRW-ETH"]}, {"type": "trade", "codes": ["KRW-ETH"]}],
    "okx": {"op": "subscribe", "args": [{"channel": c, "instId": "ETH-USDT"} for c in ("books", "trades")]},
    "bybit": {"req_id": "1", "op": "subscribe", "args": ["orderbook.50.ETHUSDT", "publicTrade.ETHUSDT"]},
}


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExchangeProcess]:
    started = ExchangeProcess(tmp_path_factory.mktemp("faults") / "exchange", rate=100, seed=5)
    yield started
    started.stop()


@pytest.fixture
def exchange(process: ExchangeProcess) -> Iterator[ExchangeProcess]:
    """The exchanges of this module without any fault, before and after."""
    process.heal()
    process.resume()
    yield process
    process.heal()


@pytest.fixture
def client(exchange: ExchangeProcess) -> Iterator[Callable[..., websocket.WebSocket]]:
    """`client("okx")` connects and subscribes; every socket is closed after the test."""
    opened: list[websocket.WebSocket] = []

    def connect(venue: str, subscribe: Any = "", **options: Any) -> websocket.WebSocket:
        made = exchange.connect(venue, **options)
        opened.append(made)
        if subscribe is not None:
            made.send(json.dumps(subscribe or SUBSCRIBE[venue]))
        return made

    yield connect
    for one in opened:
        if one.sock:
            one.sock.close()


def until(condition: Callable[[], Any], seconds: float = 10) -> Any:
    """The first true value of `condition`."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
    return value


def faults_of(exchange: ExchangeProcess, name: str, count: int = 1) -> list[dict[str, Any]]:
    """The lines of a fault under the rules that stand, when there are `count` of them."""
    known = {rule["rule"] for rule in exchange.faults()}

    def found() -> list[dict[str, Any]]:
        return [line for line in exchange.lines() if line.get("fault") == name and line["rule"] in known]

    return until(lambda: found() if len(found()) >= count else [])  # type: ignore[no-any-return]


def done_at(exchange: ExchangeProcess, done: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The line of a fault that was done at once, on one connection."""
    (where,) = done
    return until(  # type: ignore[no-any-return]
        lambda: next(
            (x for x in exchange.lines() if x.get("fault") == name and x["connection"] == where["connection"]), None
        )
    )


def frames(client: websocket.WebSocket, count: int, wanted: Callable[[Any], bool]) -> list[Any]:
    """The next `count` JSON frames that are wanted."""
    found: list[Any] = []
    while len(found) < count:
        value = json.loads(client.recv())
        if wanted(value):
            found.append(value)
    return found


def is_trade(frame: Any) -> bool:
    return str(frame.get("stream", "")).endswith("@trade")


def is_diff(frame: Any) -> bool:
    return "@depth" in str(frame.get("stream", ""))


def ended(client: websocket.WebSocket) -> tuple[int, str] | type[BaseException]:
    """How the connection ends: its close code and reason, or what the socket raised."""
    try:
        while True:
            opcode, payload = client.recv_data()
            if opcode == CLOSE:
                client.shutdown()
                return int.from_bytes(payload[:2], "big"), payload[2:].decode()
    except (OSError, websocket.WebSocketException) as error:
        return type(error)


def closed_line(exchange: ExchangeProcess, connection: int) -> dict[str, Any]:
    return until(  # type: ignore[no-any-return]
        lambda: next((x for x in exchange.lines() if "closed" in x and x["connection"] == connection), None)
    )


def test_a_lost_trade_is_a_hole_whose_id_the_sent_file_names(exchange: ExchangeProcess, client: Any) -> None:
    exchange.let("lose,venue=binance,symbol=ethusdt,feed=trade,skip=3,count=2")
    ids = [frame["data"]["t"] for frame in frames(client("binance"), 10, is_trade)]
    lost = sorted({*range(ids[0], ids[-1] + 1)} - {*ids})
    assert ids[:3] == [*range(ids[0], ids[0] + 3)] and lost == [ids[2] + 1, ids[2] + 2]
    exchange.halt()
    told = faults_of(exchange, "lose", 2)
    assert [(x["venue"], x["symbol"], x["feed"]) for x in told] == [("binance", "ethusdt", "trade")] * 2
    lines = [x for x in exchange.lines() if x.get("connection") == told[0]["connection"]]
    withheld = [x for x in lines if x.get("withheld")]
    assert [int(x["id"]) for x in withheld] == lost and [json.loads(x["text"])["t"] for x in withheld] == lost
    sent = [int(x["id"]) for x in lines if "data" in x and x["feed"] == "trade"]
    assert sorted(sent + lost) == [*range(ids[0], sent[-1] + 1)]


def test_a_lost_book_frame_breaks_the_chain_of_updates(exchange: ExchangeProcess, client: Any) -> None:
    exchange.let({"fault": "lose", "venue": "binance", "feed": "orderbook", "skip": 2})
    books = [frame["data"] for frame in frames(client("binance"), 5, is_diff)]
    steps = [b["U"] == a["u"] + 1 for a, b in itertools.pairwise(books)]
    assert steps == [True, False, True, True]
    (told,) = faults_of(exchange, "lose")
    (withheld,) = [x for x in exchange.lines() if x.get("withheld") and x["connection"] == told["connection"]]
    missing = json.loads(withheld["text"])["data"]
    assert (missing["U"], missing["u"]) == (books[1]["u"] + 1, books[2]["U"] - 1)


def test_trades_that_were_withheld_can_be_fetched_over_rest(exchange: ExchangeProcess, client: Any) -> None:
    exchange.let("lose,venue=binance,feed=trade,skip=5,count=4")
    frames(client("binance"), 12, is_trade)
    (first, *_) = faults_of(exchange, "lose", 4)
    exchange.halt()
    withheld = [x for x in exchange.lines() if x.get("withheld") and x["connection"] == first["connection"]]
    url = exchange.venues["binance"]["rest_url"] + "/api/v3/historicalTrades"
    asked = {"symbol": "ETHUSDT", "fromId": withheld[0]["id"], "limit": "4"}
    told = httpx.get(url, params=asked, trust_env=False).json()
    lost = [json.loads(x["text"]) for x in withheld]
    assert [(x["id"], x["price"], x["qty"], x["time"], x["isBuyerMaker"]) for x in told] == [
        (x["t"], x["p"], x["q"], x["T"], x["m"]) for x in lost
    ]


def test_a_duplicated_frame_comes_twice_and_is_written_twice(exchange: ExchangeProcess, client: Any) -> None:
    exchange.let("duplicate,venue=binance,feed=trade,skip=1,times=3")
    ids = [frame["data"]["t"] for frame in frames(client("binance"), 6, is_trade)]
    assert ids == [ids[0], *[ids[0] + 1] * 3, ids[0] + 2, ids[0] + 3]
    (told,) = faults_of(exchange, "duplicate")
    exchange.halt()
    lines = [x for x in exchange.lines() if x.get("connection") == told["connection"] and x.get("feed") == "trade"]
    assert [int(x["id"]) for x in lines if "data" in x][:6] == ids


def test_a_reordered_frame_comes_after_the_next_ones_and_none_is_lost(exchange: ExchangeProcess, client: Any) -> None:
    exchange.let("reorder,venue=binance,feed=trade,skip=1,by=2")
    ids = [frame["data"]["t"] - 1 for frame in frames(client("binance"), 6, is_trade)]
    assert [i - ids[0] for i in ids] == [0, 2, 3, 1, 4, 5]
    assert faults_of(exchange, "reorder")[0]["by"] == 2


def test_a_frame_held_back_is_sent_when_the_data_stops(exchange: ExchangeProcess, client: Any) -> None:
    exchange.let("reorder,venue=binance,feed=trade,skip=1,by=1000")
    reader = client("binance")
    first = frames(reader, 2, is_trade)[0]["data"]["t"]
    exchange.halt()
    lines = [x for x in exchange.lines() if "data" in x and x["venue"] == "binance" and x["feed"] == "trade"]
    assert int(lines[-1]["id"]) == first + 1


def test_one_feed_is_silent_while_the_other_and_the_acks_go_on(exchange: ExchangeProcess, client: Any) -> None:
    exchange.let("silence,venue=coinbase,feed=trade")
    reader = client("coinbase")
    kinds = [frame["type"] for frame in frames(reader, 60, lambda frame: True)]
    assert kinds[0] == "subscriptions" and set(kinds) <= {"subscriptions", "snapshot", "l2update", "heartbeat"}
    assert "heartbeat" in {frame["type"] for frame in frames(reader, 1, lambda frame: frame["type"] == "heartbeat")}
    assert len(faults_of(exchange, "silence")) == 1
    exchange.heal()
    match = frames(reader, 1, lambda frame: frame["type"] == "match")[0]
    exchange.halt()
    withheld = [x for x in exchange.lines() if x.get("withheld") and x["venue"] == "coinbase"]
    assert match["trade_id"] == int(withheld[-1]["id"]) + 1


def test_a_half_open_connection_says_nothing_more_and_sends_no_fin(exchange: ExchangeProcess, client: Any) -> None:
    exchange.let("half-open,venue=okx,skip=5")
    reader = client("okx")
    reader.settimeout(0.7)
    seen = 0
    with pytest.raises(websocket.WebSocketTimeoutException):
        while True:
            seen += "data" in json.loads(reader.recv())
    reader.send("ping")
    reader.ping("now")
    with pytest.raises(websocket.WebSocketTimeoutException):
        reader.recv_data_frame(control_frame=True)
    (told,) = faults_of(exchange, "half-open")
    assert frames(client("okx"), 3, lambda frame: "data" in frame), "other connections live"
    lines = [x for x in exchange.lines() if x["connection"] == told["connection"]]
    assert "fault" in lines[-1], "nothing is recorded as sent afterwards"
    frames_sent = [x["data"] for x in lines if "data" in x and x["feed"] == "orderbook"]
    assert 0 < len(frames_sent) <= seen
    exchange.halt()
    reader.sock.close()
    line = closed_line(exchange, told["connection"])
    assert (line["code"], line["acknowledged"]) == (1006, False)


@pytest.mark.parametrize(
    ("how", "error"), [("rst", ConnectionResetError), ("fin", websocket.WebSocketConnectionClosedException)]
)
def test_a_cut_ends_the_connection_without_a_close_frame(
    exchange: ExchangeProcess, client: Any, how: str, error: type[BaseException]
) -> None:
    readers = [client("bybit"), client("bybit")]
    for reader in readers:
        frames(reader, 2, lambda frame: "topic" in frame)
    done = exchange.do(f"cut,venue=bybit,how={how},count=1")
    assert ended(readers[0]) is error
    line = done_at(exchange, done, "cut")
    assert closed_line(exchange, line["connection"])["code"] == 1006
    assert frames(readers[1], 2, lambda frame: "topic" in frame)


@pytest.mark.parametrize("code", [1000, 1001, 1012])
def test_a_clean_close_has_the_code_and_the_words_asked_for(exchange: ExchangeProcess, client: Any, code: int) -> None:
    exchange.let({"fault": "close", "venue": "upbit", "code": code, "reason": "see you, soon"})
    assert ended(client("upbit")) == (code, "see you, soon")
    (told,) = faults_of(exchange, "close")
    line = closed_line(exchange, told["connection"])
    assert (line["code"], line["acknowledged"]) == (code, True)


def test_binance_announces_a_planned_cut_and_keeps_its_word(exchange: ExchangeProcess, client: Any) -> None:
    reader = client("binance")
    frames(reader, 1, is_trade)
    exchange.do("planned-cut,venue=binance,close_s=0.2")
    (down,) = frames(reader, 1, lambda frame: frame.get("stream") == "!serverShutdown")
    assert down["data"]["e"] == "serverShutdown" and down["data"]["E"] > 1_700_000_000_000
    assert ended(reader) == (1001, "planned restart")


def test_okx_announces_a_planned_cut_with_notice_64008(exchange: ExchangeProcess, client: Any) -> None:
    reader = client("okx")
    frames(reader, 1, lambda frame: "data" in frame)
    exchange.do("planned-cut,venue=okx,close_s=0.2")
    (notice,) = frames(reader, 1, lambda frame: frame.get("event") == "notice")
    assert notice["code"] == "64008" and notice["connId"]
    assert ended(reader) == (1001, "planned restart")


def test_a_connection_is_closed_when_it_is_too_old(exchange: ExchangeProcess, client: Any) -> None:
    exchange.let("max-age,venue=binance,age_s=0.3")
    assert ended(client("binance")) == (1001, "too old")
    assert faults_of(exchange, "max-age")[0]["code"] == 1001


@pytest.mark.parametrize(
    "kind", ["bytes", "text", "utf8", "truncated", "nesting", "hugeint", "nan", "renamed", "empty"]
)
def test_garbage_comes_before_the_frame_and_the_sent_file_shows_it(
    exchange: ExchangeProcess, client: Any, kind: str
) -> None:
    exchange.let(f"garbage,venue=bybit,feed=trade,kind={kind}")
    reader = client("bybit")
    received: list[tuple[int, bytes]] = []
    (told,) = faults_of(exchange, "garbage")
    while not any(hashlib.sha256(payload).hexdigest() == told["sha256"] for _, payload in received):
        received.append(reader.recv_data())
    opcode, payload = received[-1]
    assert (told["kind"], told["opcode"], told["bytes"]) == (kind, opcode, len(payload))
    if len(payload) <= 4096:
        assert base64.b64decode(told["base64"]) == payload
    assert frames(reader, 1, lambda frame: "publicTrade" in str(frame.get("topic")))


def raw_frames(wire: socket.socket, data: bytes, pieces: list[int] | None = None) -> Iterator[tuple[int, bytes]]:
    """(first byte, payload) of each frame of a socket, whatever its reserved bits say; `pieces` gets what came at once."""

    had = bytearray(data)

    def take(size: int) -> bytes:
        while len(had) < size:
            more = wire.recv(65536)
            assert more
            had.extend(more)
            if pieces is not None:
                pieces.append(len(more))
        taken = bytes(had[:size])
        del had[:size]
        return taken

    while True:
        first, length = take(2)
        size = int.from_bytes(take({126: 2, 127: 8}[length]), "big") if length > 125 else length
        yield first, take(size)


def knock(exchange: ExchangeProcess, venue: str, extra: str = "") -> socket.socket:
    """A socket that has asked for a WebSocket."""
    url = urlsplit(exchange.venues[venue]["ws_url"] + ("/stream" if venue == "binance" else ""))
    wire = socket.create_connection((url.hostname, url.port), timeout=10)
    wire.sendall(
        f"GET {url.path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n".encode()
    )
    return wire


def handshake(exchange: ExchangeProcess, venue: str, extra: str = "") -> tuple[socket.socket, str, bytes]:
    """A socket after its opening handshake, the answer's head, and what came after it."""
    wire, data = knock(exchange, venue, extra), b""
    while b"\r\n\r\n" not in data:
        more = wire.recv(4096)
        assert more
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return wire, head.decode(), rest


def masked(text: str) -> bytes:
    """A client's text frame of less than 64 KiB, under a mask of zeros."""
    payload = text.encode()
    return bytes([0x81, 0x80 | 126]) + len(payload).to_bytes(2, "big") + bytes(4) + payload


def test_an_oversized_frame_arrives_whole_and_no_pong_falls_into_it(exchange: ExchangeProcess) -> None:
    exchange.let("oversized,venue=upbit,bytes=30000000")
    wire, _, rest = handshake(exchange, "upbit")
    with contextlib.closing(wire):
        wire.sendall(masked(json.dumps(SUBSCRIBE["upbit"])))
        begin = rest
        while (head := begin.find((30_000_000).to_bytes(8, "big"))) < 0:
            begin += wire.recv(65536)
        # Most of it does not fit between the two yet: it is being sent, and now a PING is answered.
        wire.sendall(b"\x89\x83\0\0\0\0now")
        heads = []
        for first, payload in raw_frames(wire, begin[head - 2 :]):
            heads.append(first)
            if len(heads) == 1:
                assert json.loads(payload) == {"padding": "0" * (30_000_000 - 14)}
            elif first == 0x8A:
                assert payload == b"now"
                break
            else:
                assert json.loads(payload)["type"] in ("orderbook", "trade")
        assert heads[0] == 0x81
    assert faults_of(exchange, "oversized")[0]["bytes"] == 30_000_000


@pytest.mark.parametrize("offer", ["", "Sec-WebSocket-Extensions: permessage-deflate\r\n"])
def test_a_bomb_inflates_a_thousandfold_whether_compression_was_agreed_or_not(
    exchange: ExchangeProcess, offer: str
) -> None:
    exchange.let("bomb,venue=okx,feed=orderbook,bytes=30000000")
    wire, head, rest = handshake(exchange, "okx", offer)
    with contextlib.closing(wire):
        assert ("permessage-deflate" in head) is bool(offer)
        wire.sendall(masked(json.dumps(SUBSCRIBE["okx"])))
        found = []
        for first, payload in raw_frames(wire, rest):
            text = payload
            if first & 0x40:
                text = zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")
            found.append((len(payload), len(text)))
            if found[-1][1] == 30_000_000:
                assert text.startswith(b'{"padding":"000') and text.endswith(b'0"}')
                assert first & 0x40
            elif text.startswith(b'{"arg"'):
                assert bool(first & 0x40) is bool(offer), "other frames are compressed only where that was agreed"
                if max(size for _, size in found) == 30_000_000:
                    break
    assert max(found, key=lambda sizes: sizes[1])[0] < 40_000
    assert faults_of(exchange, "bomb")[0]["negotiated"] is bool(offer)


def test_compression_is_taken_up_where_it_is_offered_and_a_rule_says_so(exchange: ExchangeProcess) -> None:
    offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
    heads = []
    for fault in (None, "compress,venue=bybit"):
        if fault:
            exchange.let(fault)
        wire, head, _ = handshake(exchange, "bybit", offer)
        wire.close()
        heads.append("permessage-deflate" in head)
    assert heads == [False, True]


def test_a_slow_frame_comes_byte_by_byte_and_whole(exchange: ExchangeProcess) -> None:
    exchange.let("slow,venue=okx,feed=trade,byte_s=0.001")
    wire, _, rest = handshake(exchange, "okx")
    with contextlib.closing(wire):
        wire.sendall(masked(json.dumps(SUBSCRIBE["okx"])))
        wire.sendall(masked("ping"))
        pieces: list[int] = []
        texts = []
        for _, payload in raw_frames(wire, rest, pieces):
            texts.append(payload.decode())
            if "pong" in texts and sum('"channel":"trades"' in text and '"data"' in text for text in texts) >= 2:
                break
    trade = next(text for text in texts if '"channel":"trades"' in text and '"data"' in text)
    assert pieces.count(1) > len(trade) // 2
    assert "pong" in texts and all(json.loads(text) for text in texts if text != "pong")
    (told,) = faults_of(exchange, "slow")
    assert told["feed"] == "trade"


def test_a_slow_handshake_comes_byte_by_byte_or_never(exchange: ExchangeProcess) -> None:
    exchange.let("slow-handshake,venue=upbit,byte_s=0.002")
    wire, head, _ = handshake(exchange, "upbit")
    assert head.startswith("HTTP/1.1 101 ")
    (told,) = faults_of(exchange, "slow-handshake")
    until(lambda: [x for x in exchange.lines() if "opened" in x and x["connection"] == told["connection"]])
    wire.close()
    exchange.heal()
    exchange.let("slow-handshake,venue=upbit,byte_s=0")
    with contextlib.closing(knock(exchange, "upbit")) as waiting:
        (told,) = faults_of(exchange, "slow-handshake")
        waiting.settimeout(0.3)
        with pytest.raises(TimeoutError):
            waiting.recv(1)
    assert not [x for x in exchange.lines() if "opened" in x and x["connection"] == told["connection"]]
    wire, head, _ = handshake(exchange, "upbit")
    wire.close()
    assert head.startswith("HTTP/1.1 101 "), "once, and then all is well"


def test_a_slow_handshake_that_the_client_gives_up_opens_nothing(exchange: ExchangeProcess) -> None:
    exchange.let("slow-handshake,venue=upbit,byte_s=0.05")
    wire = knock(exchange, "upbit")
    assert wire.recv(1) == b"H"
    wire.close()
    (told,) = faults_of(exchange, "slow-handshake")
    assert exchange.halt()["stopped"]
    assert not [x for x in exchange.lines() if "opened" in x and x["connection"] == told["connection"]]


@pytest.mark.parametrize("status", [429, 451, 403, 418])
def test_handshake_and_rest_are_refused_with_the_status_asked_for(exchange: ExchangeProcess, status: int) -> None:
    exchange.let({"fault": "http", "venue": "binance", "status": status, "retry_after_s": 7, "count": 2})
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        exchange.connect("binance")
    assert refused.value.status_code == status
    assert refused.value.resp_headers["retry-after"] == "7"
    rest = httpx.get(exchange.venues["binance"]["rest_url"] + "/api/v3/exchangeInfo?symbol=ETHUSDT", trust_env=False)
    assert (rest.status_code, rest.headers["retry-after"]) == (status, "7")
    if status == 403:
        assert rest.headers["content-type"] == "text/html" and "403 Forbidden" in rest.text
    else:
        assert rest.json()["code"] in (-1003, 0)
    assert [(x["on"], x["status"]) for x in faults_of(exchange, "http", 2)] == [("handshake", status), ("rest", status)]
    exchange.connect("binance").close()


def test_rest_alone_may_be_refused_or_late(exchange: ExchangeProcess) -> None:
    exchange.let("http,venue=okx,on=rest,status=429,count=1; late-rest,venue=okx,s=0.3,count=1,skip=0")
    exchange.connect("okx").close()
    url = exchange.venues["okx"]["rest_url"] + "/api/v5/public/instruments?instType=SPOT"
    first, second = (httpx.get(url, trust_env=False) for _ in range(2))
    assert (first.status_code, first.json()["code"]) == (429, "50011")
    assert (second.status_code, second.json()["code"]) == (200, "0")
    assert second.elapsed.total_seconds() >= 0.3
    assert faults_of(exchange, "late-rest")[0]["connection"] is None


@pytest.mark.parametrize(
    ("venue", "symbol", "words"),
    [
        ("coinbase", "ETH-USD", "ETH-USD is not a valid product"),
        ("okx", "ETH-USDT", "channel:books,instId:ETH-USDT doesn't exist"),
        ("bybit", "ETHUSDT", "Invalid symbol :[orderbook.50.ETHUSDT]"),
    ],
)
def test_a_symbol_that_was_fine_is_refused_in_the_venues_words(
    exchange: ExchangeProcess, client: Any, venue: str, symbol: str, words: str
) -> None:
    before = client(venue)
    frames(before, 3, lambda frame: True)
    exchange.let(f"refuse-symbol,venue={venue},symbol={symbol}")
    assert words in client(venue).recv()
    assert faults_of(exchange, "refuse-symbol")[0]["symbol"] == symbol
    assert frames(before, 3, lambda frame: True), "who is subscribed stays so"


def test_a_symbol_refused_by_binance_is_met_with_success_and_silence(exchange: ExchangeProcess, client: Any) -> None:
    exchange.let("refuse-symbol,venue=binance,symbol=ethusdt,listing=drop")
    reader = client("binance", {"method": "SUBSCRIBE", "params": ["ethusdt@trade", "btcusdt@trade"], "id": 4})
    assert json.loads(reader.recv()) == {"result": None, "id": 4}
    assert {frame["stream"] for frame in frames(reader, 10, is_trade)} == {"btcusdt@trade"}
    rest = exchange.venues["binance"]["rest_url"]
    listed = httpx.get(f"{rest}/api/v3/exchangeInfo", trust_env=False).json()["symbols"]
    assert {"ETHUSDT", "BTCUSDT"} & {one["symbol"] for one in listed} == {"BTCUSDT"}


def test_an_acknowledgement_comes_late_and_the_data_before_it(exchange: ExchangeProcess, client: Any) -> None:
    exchange.let("late-ack,venue=bybit,s=0.3")
    reader = client("bybit")
    reader.send('{"op":"ping","req_id":"p"}')
    order: list[str] = []
    while "subscribe" not in order:
        frame = json.loads(reader.recv())
        order.append(frame.get("ret_msg") or "data")
    assert order[0] == "data" and "pong" in order
    assert faults_of(exchange, "late-ack")[0]["s"] == 0.3


def test_timestamps_are_shifted_by_the_skew(exchange: ExchangeProcess, client: Any) -> None:
    exchange.let("skew,venue=binance,symbol=ethusdt,ms=-3600000")
    streams = {"method": "SUBSCRIBE", "params": ["ethusdt@trade", "btcusdt@trade"], "id": 1}
    reader = client("binance", streams)
    shifted = {}
    while len(shifted) < 2:
        (frame,) = frames(reader, 1, is_trade)
        shifted[frame["data"]["s"]] = round(frame["data"]["T"] / 1000 - time.time(), -2)
    assert shifted == {"ETHUSDT": -3600, "BTCUSDT": 0}
    told = faults_of(exchange, "skew")
    assert [(x["symbol"], x["ms"], x["connection"]) for x in told] == [("ethusdt", -3_600_000, None)]


def test_a_burst_multiplies_the_frames_of_its_market_for_its_time(exchange: ExchangeProcess, client: Any) -> None:
    topics = [f"orderbook.50.{symbol}" for symbol in ("SOLUSDT", "XRPUSDT")]
    reader = client("bybit", {"op": "subscribe", "args": topics})
    exchange.let("burst,venue=bybit,symbol=SOLUSDT,factor=8,for_s=0.6")
    faults_of(exchange, "burst")
    counts = dict.fromkeys(topics, 0)
    for frame in frames(reader, 200, lambda frame: "topic" in frame):
        counts[frame["topic"]] += 1
    assert counts[topics[0]] > 2 * counts[topics[1]]
    assert exchange.faults()[0]["factor"] == 8


def test_bybit_starts_over_with_a_snapshot_of_u_1(exchange: ExchangeProcess, client: Any) -> None:
    reader = client("bybit")
    frames(reader, 3, lambda frame: "orderbook" in str(frame.get("topic")))
    assert {"venue": "bybit", "symbol": "ETHUSDT"} in exchange.do("reset,venue=bybit,symbol=ETHUSDT")
    books = frames(
        reader, 1, lambda frame: frame.get("data", {}) and "orderbook" in frame["topic"] and frame["data"]["u"] == 1
    )
    books += frames(reader, 3, lambda frame: "orderbook" in str(frame.get("topic")))
    assert [(frame["type"], frame["data"]["u"]) for frame in books] == [
        ("snapshot", 1), ("delta", 2), ("delta", 3), ("delta", 4),
    ]  # fmt: skip


def test_okx_starts_over_with_a_lower_seq_id_and_an_unbroken_chain(exchange: ExchangeProcess, client: Any) -> None:
    exchange.let("reset,venue=okx,symbol=ETH-USDT,skip=5")
    wanted = {"channel": "books", "instId": "ETH-USDT"}
    books = [frame["data"][0] for frame in frames(client("okx"), 20, lambda f: f.get("arg") == wanted and "data" in f)]
    assert [b["prevSeqId"] for b in books[1:]] == [b["seqId"] for b in books[:-1]]
    assert sum(b["seqId"] < b["prevSeqId"] for b in books) == 1
    (told,) = faults_of(exchange, "reset")
    assert (told["topic"], told["feed"], told["connection"]) == ("books:ETH-USDT", "orderbook", None)


@pytest.mark.parametrize(
    ("venue", "scale", "closed"),
    [
        ("okx", 0.01, (4004, "No data received in 30s.")),
        ("upbit", 0.003, (1000, "idle for 120 seconds")),
        ("bybit", 0.0005, (1000, "no ping in 10 minutes")),
    ],
)
def test_a_client_that_keeps_silent_is_cut_in_scaled_time(
    exchange: ExchangeProcess, client: Any, venue: str, scale: float, closed: tuple[int, str]
) -> None:
    exchange.let({"fault": "heartbeat", "venue": venue, "scale": scale, "strict": True})
    assert ended(client(venue)) == closed
    assert faults_of(exchange, "heartbeat")[0]["scale"] == scale
    exchange.heal()
    assert frames(client(venue), 3, lambda frame: True)


def test_binance_cuts_a_client_that_does_not_pong_and_keeps_one_that_does(exchange: ExchangeProcess) -> None:
    exchange.let("heartbeat,venue=binance,scale=0.01")
    wire, _, rest = handshake(exchange, "binance")
    with contextlib.closing(wire):
        heads = []
        for first, payload in raw_frames(wire, rest):
            heads.append((first, payload))
            if first == 0x88:
                break
        assert [first for first, _ in heads] == [0x89, 0x88]
        assert heads[1][1] == (1008).to_bytes(2, "big") + b"Pong timeout"
    polite, _, rest = handshake(exchange, "binance")
    with contextlib.closing(polite):
        for beats, (first, payload) in enumerate(raw_frames(polite, rest)):
            assert first == 0x89
            polite.sendall(bytes([0x8A, 0x80 | len(payload)]) + bytes(4) + payload)
            if beats == 4:
                break


def test_rules_are_listed_with_what_they_did_and_removed_one_by_one_or_all(
    exchange: ExchangeProcess, client: Any
) -> None:
    first, second = (rule["rule"] for rule in exchange.let("lose,venue=okx,count=2; burst,for_s=0.001,factor=2")[-2:])
    frames(client("okx"), 5, lambda frame: "data" in frame)
    listed = until(lambda: (rules := exchange.faults()) and not any(r["awake"] for r in rules) and rules)
    assert [(r["rule"], r["fault"], r["awake"]) for r in listed] == [(first, "lose", False), (second, "burst", False)]
    assert listed[0] | {"rule": 0} == {
        "rule": 0, "fault": "lose", "venue": "okx", "count": 2, "struck": 2, "awake": False,
    }  # fmt: skip
    control = exchange.venues["okx"]["rest_url"].removesuffix("/okx") + "/control/faults"
    left = httpx.delete(control, params={"rule": first}, trust_env=False).json()["rules"]
    assert [rule["rule"] for rule in left] == [second]
    assert httpx.delete(control, params={"rule": first}, trust_env=False).status_code == 400
    assert httpx.delete(control, trust_env=False).json()["rules"] == []


def test_a_fault_that_cannot_be_is_explained(exchange: ExchangeProcess) -> None:
    for asked, words in (
        ("los,venue=okx", "did you mean 'lose'"),
        ('{"fault": "cut", "how": "softly"}', "cut: how is 'softly', not rst or fin"),
        ("", "send a fault"),
    ):
        with pytest.raises(ValueError, match=words):
            exchange.let(asked)
    with pytest.raises(ValueError, match="burst cannot be done at once"):
        exchange.do("burst,factor=3")
    assert exchange.faults() == []


def test_the_same_seed_loses_the_same_trades_and_faults_may_come_from_a_file(tmp_path: Path) -> None:
    spec = tmp_path / "faults.txt"
    spec.write_text("# holes\nlose,venue=okx,feed=trade,probability=0.3   # a third\n")

    def lost(name: str) -> list[str]:
        process = ExchangeProcess(tmp_path / name, rate=200, seed=9, options=("--faults", str(spec)))
        try:
            reader = process.connect("okx")
            reader.send(json.dumps(SUBSCRIBE["okx"]))
            frames(reader, 80, lambda frame: "data" in frame)
            process.halt()
            reader.close()
            return [line["id"] for line in process.lines() if line.get("withheld")]
        finally:
            process.stop()

    first, second = lost("a"), lost("b")
    count = min(len(first), len(second))
    assert count > 5 and first[:count] == second[:count]


def test_the_heartbeat_rules_run_in_scaled_time_from_the_start(tmp_path: Path) -> None:
    process = ExchangeProcess(tmp_path / "hurried", options=("--heartbeat-scale", "0.01"))
    try:
        assert ended(process.connect("okx")) == (4004, "No data received in 30s.")
        assert not [line for line in process.lines() if "fault" in line], "a rule that is kept is no fault"
    finally:
        process.stop()


def test_a_server_with_silent_slow_and_stuck_clients_ends_when_it_is_told(tmp_path: Path) -> None:
    process = ExchangeProcess(tmp_path / "ending", rate=200, seed=1)
    try:
        process.let("half-open,connection=1", "slow,connection=2,byte_s=100", "duplicate,connection=3,times=25")
        readers = [process.connect("coinbase") for _ in range(3)]
        for reader in readers:
            reader.send('{"type":"subscribe","product_ids":["BTC-USD"],"channels":["level2_batch"]}')
        # The third has a snapshot of a megabyte 25 times over waiting for it, and does not read.
        struck = {"half-open", "slow", "duplicate"}
        until(lambda: {x["fault"] for x in process.lines() if "fault" in x} == struck)
        assert process.status()["queued"] == 2
        process.process.terminate()
        assert process.process.wait(10) == 0
        for reader in readers:
            reader.sock.close()
    finally:
        process.stop()
