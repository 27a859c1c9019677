"""The built-in exchanges as a process of their own, spoken to with the client library that collectors use."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websocket

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 10
SUBSCRIBE = {
    "binance": {"method": "SUBSCRIBE", "params": ["ethusdt@depth20@100ms", "ethusdt@trade"], "id": 1},
    "coinbase": {"type": "subscribe", "product_ids": ["ETH-USD"], "channels": ["level2_batch", "matches", "heartbeat"]},
    "upbit": [
        {"ticket": "t"},
        {"type": "orderbook", "codes": ["KRW-ETH"]},
        {"type": "trade", "codes": ["KRW-ETH"]},
        {"format": "SIMPLE"},
    ],
    "okx": {
        "id": "1",
        "op": "subscribe",
        "args": [{"channel": "books", "instId": "ETH-USDT"}, {"channel": "trades", "instId": "ETH-USDT"}],
    },
    "bybit": {"req_id": "1", "op": "subscribe", "args": ["orderbook.50.ETHUSDT", "publicTrade.ETHUSDT"]},
}


class Running:
    """A started server: its URLs, its sent file, and clients that know each venue's path."""

    def __init__(self, process: subprocess.Popen[str], told: dict[str, Any], sent: Path) -> None:
        self.process, self.told, self.sent = process, told, sent

    def connect(self, venue: str, **options: Any) -> websocket.WebSocket:
        url = self.told["venues"][venue]["ws_url"] + ("/stream" if venue == "binance" else "")
        options = {"suppress_origin": True} | options
        return websocket.create_connection(url, timeout=TIMEOUT_S, skip_utf8_validation=True, **options)

    def subscribed(self, venue: str) -> websocket.WebSocket:
        client = self.connect(venue)
        client.send(json.dumps(SUBSCRIBE[venue]))
        return client

    def control(self, method: str, word: str) -> dict[str, Any]:
        answered = httpx.request(method, f"{self.told['control']}/{word}", timeout=TIMEOUT_S)
        assert answered.status_code == 200
        status: dict[str, Any] = answered.json()
        return status

    def lines(self, venue: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.sent.read_text().splitlines()]
        return [line for line in lines if line["venue"] == venue]


@contextlib.contextmanager
def server(folder: Path, *options: str) -> Iterator[Running]:
    sent = folder / "sent.jsonl"
    command = [sys.executable, "-m", "app.venues.cli", "--json", "--sent", str(sent), *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield Running(process, json.loads(process.stdout.readline()), sent)
        finally:
            process.kill()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with server(tmp_path, "--rate", "50", "--seed", "3") as started:
        yield started


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with server(tmp_path_factory.mktemp("exchange"), "--rate", "20") as started:
        yield started


def events_of(venue: str, text: str) -> list[tuple[str, str | None]]:
    """(feed, trade id) of each event in a frame, read the plainest way; nothing for a control frame."""
    frame = json.loads(text)
    if venue == "binance" and "stream" in frame:
        trade = frame["stream"].endswith("@trade")
        return [("trade", str(frame["data"]["t"])) if trade else ("orderbook", None)]
    if venue == "coinbase" and frame["type"] in ("snapshot", "l2update"):
        return [("orderbook", None)]
    if venue == "coinbase" and frame["type"] in ("last_match", "match"):
        return [("trade", str(frame["trade_id"]))]
    if venue == "upbit":
        return [("trade", str(frame["sid"])) if frame["ty"] == "trade" else ("orderbook", None)]
    if venue == "okx" and "data" in frame:
        trade = frame["arg"]["channel"] == "trades"
        return [("trade", row["tradeId"]) if trade else ("orderbook", None) for row in frame["data"]]
    if venue == "bybit" and "topic" in frame:
        return [("trade", row["i"]) for row in frame["data"]] if "publicTrade" in text else [("orderbook", None)]
    return []


def read_events(venue: str, client: websocket.WebSocket, wanted: int) -> list[tuple[str, tuple[str, str | None]]]:
    """(frame, event) until there are `wanted` of them."""
    events: list[tuple[str, tuple[str, str | None]]] = []
    while len(events) < wanted:
        opcode, payload = client.recv_data()
        assert opcode == (websocket.ABNF.OPCODE_BINARY if venue == "upbit" else websocket.ABNF.OPCODE_TEXT)
        text = payload.decode()
        events += [(text, event) for event in events_of(venue, text)]
    return events


@pytest.mark.parametrize("venue", SUBSCRIBE)
def test_what_a_client_received_is_exactly_what_the_sent_file_tells(running: Running, venue: str) -> None:
    client = running.subscribed(venue)
    received = read_events(venue, client, 40)
    status = running.control("POST", "stop")
    sent = [line for line in running.lines(venue) if "feed" in line]
    assert status["sent"] == {
        venue: {feed: sum(line["feed"] == feed for line in sent) for feed in ("orderbook", "trade")}
    }
    received += read_events(venue, client, len(sent) - len(received))
    assert [event for _, event in received] == [(line["feed"], line["id"]) for line in sent]
    for (text, (feed, _)), line in zip(received, sent, strict=True):
        if venue in ("okx", "bybit", "binance") and feed == "trade":
            assert f":{line['data']}}}" in text or f"[{line['data']}" in text or f",{line['data']}" in text
            assert line["data"].startswith("{") and json.loads(line["data"])
        else:
            assert text == line["data"]
    assert {line["symbol"] for line in sent} == {
        {"binance": "ethusdt", "coinbase": "ETH-USD", "upbit": "KRW-ETH", "okx": "ETH-USDT", "bybit": "ETHUSDT"}[venue]
    }
    client.close()


def test_start_goes_on_where_stop_left_off(running: Running) -> None:
    client = running.subscribed("binance")
    read_events("binance", client, 5)
    assert running.control("POST", "stop")["stopped"] is True
    before = [line for line in running.lines("binance") if "feed" in line]
    assert running.control("POST", "start")["stopped"] is False
    read_events("binance", client, len(before) - 5 + 20)
    running.process.send_signal(signal.SIGUSR1)
    while not (status := running.control("GET", "status"))["stopped"]:
        pass
    running.control("POST", "stop")
    lines = [line for line in running.lines("binance") if "feed" in line]
    assert lines[: len(before)] == before and len(lines) >= len(before) + 15
    trades = [int(line["id"]) for line in lines if line["feed"] == "trade"]
    assert trades == [*range(trades[0], trades[0] + len(trades))]
    assert status["connections"] == 1
    client.close()


def test_sigterm_closes_connections_with_1001_and_finishes_the_sent_file(running: Running) -> None:
    client = running.subscribed("okx")
    count = len(read_events("okx", client, 10))
    running.process.send_signal(signal.SIGTERM)
    while True:
        opcode, payload = client.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            break
        count += len(events_of("okx", payload.decode()))
    assert payload == (1001).to_bytes(2, "big") + b"server shutting down"
    assert client.sock
    client.sock.close()
    assert running.process.wait(TIMEOUT_S) == 0
    opened, *events, closed = running.lines("okx")
    assert len(events) == count
    assert opened.keys() == {"venue", "connection", "opened"}
    assert (closed["code"], closed["acknowledged"]) == (1001, True)


def test_a_client_that_closes_leaves_the_last_events_unacknowledged(running: Running) -> None:
    client = running.subscribed("bybit")
    read_events("bybit", client, 5)
    client.close()
    while running.control("GET", "status")["connections"]:
        pass
    running.control("POST", "stop")
    closed = running.lines("bybit")[-1]
    assert (closed["code"], closed["acknowledged"]) == (1000, False)


def test_two_connections_see_the_same_market(shared: Running) -> None:
    first, second = (shared.subscribed("coinbase") for _ in range(2))
    ids = [
        {event[1] for _, event in read_events("coinbase", client, 60) if event[0] == "trade"}
        for client in (first, second)
    ]
    assert len(ids[0] & ids[1]) > 5
    for client in (first, second):
        client.close()


def test_an_unknown_symbol_is_met_as_the_venue_would(shared: Running) -> None:
    answers = {}
    for venue, request in (
        ("binance", {"method": "SUBSCRIBE", "params": ["nosuch@trade"], "id": 1}),
        ("coinbase", {"type": "subscribe", "product_ids": ["NO-SUCH"], "channels": ["matches"]}),
        ("okx", {"op": "subscribe", "args": [{"channel": "trades", "instId": "NO-SUCH"}]}),
        ("bybit", {"op": "subscribe", "args": ["publicTrade.NOSUCH"]}),
    ):
        client = shared.connect(venue)
        client.send(json.dumps(request))
        answers[venue] = json.loads(client.recv())
        client.close()
    assert answers["binance"] == {"result": None, "id": 1}
    assert answers["coinbase"]["reason"] == "NO-SUCH is not a valid product"
    assert (answers["okx"]["event"], answers["okx"]["code"]) == ("error", "60018")
    assert (answers["bybit"]["success"], answers["bybit"]["ret_msg"]) == (False, "Invalid symbol :[publicTrade.NOSUCH]")


def test_upbit_refuses_a_second_origin_header_within_ten_seconds(shared: Running) -> None:
    shared.connect("upbit", suppress_origin=False).close()
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        shared.connect("upbit", suppress_origin=False)
    assert refused.value.status_code == 429
    shared.connect("upbit").close()


def test_upbit_and_okx_answer_text_pings(shared: Running) -> None:
    for venue, ping, pong in (("upbit", "PING", '{"status":"UP"}'), ("okx", "ping", "pong")):
        client = shared.connect(venue)
        client.send(ping)
        assert client.recv() == pong
        client.close()


@pytest.mark.parametrize("venue", SUBSCRIBE)
def test_the_symbols_url_lists_the_test_symbols_too(shared: Running, venue: str) -> None:
    answered = httpx.get(shared.told["venues"][venue]["symbols_url"])
    assert answered.status_code == 200 and answered.headers["content-type"] == "application/json"
    assert "test0999" in answered.text.lower()


def test_a_wrong_path_or_method_is_refused(shared: Running) -> None:
    base = shared.told["control"].removesuffix("/control")
    asked = [
        ("GET", "/kraken"),
        ("GET", "/okx/api"),
        ("POST", "/okx/api/v5/public/instruments"),
        ("GET", "/control/no"),
    ]
    assert [httpx.request(method, base + path).status_code for method, path in asked] == [404] * 4
    assert httpx.get(base + "/control/stop").status_code == 405
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        websocket.create_connection(base.replace("http", "ws") + "/binance/nothing", timeout=TIMEOUT_S)
    assert refused.value.status_code == 404


def test_recorded_frames_are_replayed_byte_for_byte_in_file_order(tmp_path: Path) -> None:
    book = '{"topic":"orderbook.50.ABCUSDT","ts":1, "type":"delta","data":{"s":"ABCUSDT","b":[["1.10","0"]]}}'
    first, second = '{"i":"5", "p":"1.10"}', '{"i":"7","p":"1.1"}'
    trades = f'{{"topic":"publicTrade.ABCUSDT","ts":2,"type":"snapshot","data":[{first},{second}]}}'
    other = '{"topic":"publicTrade.XYZUSDT","ts":2,"type":"snapshot","data":[{"i":"9"}]}'
    folder = tmp_path / "frames" / "bybit"
    folder.mkdir(parents=True)
    (folder / "all.jsonl").write_text("\n".join([book, other, '{"op":"ping"}', trades, book]) + "\n")
    with server(tmp_path, "--frames", str(tmp_path / "frames"), "--rate", "0") as started:
        client = started.connect("bybit")
        client.send('{"op":"subscribe","args":["orderbook.50.ABCUSDT","publicTrade.ABCUSDT"]}')
        assert json.loads(client.recv())["success"] is True
        assert [client.recv() for _ in range(3)] == [book, trades, book]
        started.control("POST", "stop")
        assert [(line["id"], line["data"]) for line in started.lines("bybit") if "feed" in line] == [
            (None, book),
            ("5", first),
            ("7", second),
            (None, book),
        ]
        listed = httpx.get(started.told["venues"]["bybit"]["symbols_url"]).json()["result"]["list"]
        assert [row["symbol"] for row in listed] == ["ABCUSDT", "XYZUSDT"]
        client.close()


def test_the_same_seed_gives_a_new_process_the_same_market(tmp_path: Path) -> None:
    def course(name: str) -> list[Any]:
        folder = tmp_path / name
        folder.mkdir()
        with server(folder, "--rate", "100", "--seed", "11") as started:
            client = started.subscribed("okx")
            texts = [json.loads(text)["data"][0] for text, _ in read_events("okx", client, 30)]
            client.close()
            return [{key: value for key, value in data.items() if key != "ts"} for data in texts]

    assert course("a") == course("b")


def test_the_module_runs_without_any_setting_of_the_user() -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("COLLECTOR_", "AWS_"))}
    answered = subprocess.run(
        [sys.executable, "-m", "app.venues.cli", "--help"], cwd=ROOT, env=environment, capture_output=True, check=True
    )
    assert b"built-in exchanges" in answered.stdout
