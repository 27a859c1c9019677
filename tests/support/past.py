"""Venues of the test's own that tell past trades as documented: as functions, and over HTTP.

`Served` has the trades of some ids, one a second; how a page is cut and ordered is its own affair.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from app.exchanges.history.base import Ask

NOW_US = 1_790_000_000_000_000
START_MS = NOW_US // 1000 - 3_600_000


def at_ms(number: int) -> int:
    """A trade of each second."""
    return START_MS + 1000 * number


def rfc3339(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat().replace("+00:00", "Z")


class Served:
    """A venue that has the trades `ids` and answers as documented, with at most `page` rows in an order of its own."""

    def __init__(self, ids: list[int], page: int, seed: int, single: bool = True) -> None:
        self.ids, self.page, self.random, self.single = sorted(ids), page, random.Random(seed), single
        self.asked = 0

    def answer(self, ask: Ask) -> tuple[int, bytes]:
        self.asked += 1
        assert self.asked < 500, "the walk does not end"
        url = urlsplit(ask.path)
        return self.reply(url.path, dict(parse_qsl(url.query)))

    def reply(self, path: str, query: dict[str, str]) -> tuple[int, bytes]:
        raise NotImplementedError

    def rows(self, ids: list[int], make: Callable[[int], dict[str, Any]]) -> list[dict[str, Any]]:
        found = [make(number) for number in ids]
        self.random.shuffle(found)
        return found


class BinanceServed(Served):
    def reply(self, path: str, query: dict[str, str]) -> tuple[int, bytes]:
        assert query["symbol"] == "BTCUSDT"
        page = min(self.page, int(query["limit"]))
        if path == "/api/v3/historicalTrades":
            if not self.single:
                return 404, b"<html>"
            ids = [i for i in self.ids if i >= int(query["fromId"])][:page]
            return 200, json.dumps(self.rows(ids, lambda i: {"id": i, "price": "1.0", "time": at_ms(i)})).encode()
        assert path == "/api/v3/aggTrades"
        # Aggregates of two: (0, 1), (2, 3), ...
        pairs = sorted({i // 2 for i in self.ids})
        if "fromId" in query:
            pairs = [a for a in pairs if a >= int(query["fromId"])]
        elif "startTime" in query:
            pairs = [a for a in pairs if at_ms(2 * a + 1) >= int(query["startTime"])]
        rows = self.rows(
            pairs[:page], lambda a: {"a": a, "p": "1.0", "f": 2 * a, "l": 2 * a + 1, "T": at_ms(2 * a + 1)}
        )
        return 200, json.dumps(rows).encode()


class CoinbaseServed(Served):
    def reply(self, path: str, query: dict[str, str]) -> tuple[int, bytes]:
        assert path == "/products/BTC-USD/trades"
        ids = [i for i in self.ids if i < int(query["after"])][-min(self.page, int(query["limit"])) :]
        return 200, json.dumps(
            self.rows(ids, lambda i: {"trade_id": i, "size": "1", "time": rfc3339(at_ms(i))})
        ).encode()


class AdvancedServed(Served):
    def reply(self, path: str, query: dict[str, str]) -> tuple[int, bytes]:
        assert path == "/api/v3/brokerage/market/products/BTC-USD/ticker"
        wanted = [i for i in self.ids if int(query["start"]) * 1000 <= at_ms(i) <= int(query["end"]) * 1000]
        ids = wanted[-max(3, self.page) :]  # a page that holds no more than a second's trades leads nowhere
        rows = self.rows(ids, lambda i: {"trade_id": str(i), "product_id": "BTC-USD", "time": rfc3339(at_ms(i))})
        return 200, json.dumps({"trades": rows, "best_bid": "1", "best_ask": "2"}).encode()


class OkxServed(Served):
    def reply(self, path: str, query: dict[str, str]) -> tuple[int, bytes]:
        assert (path, query["instId"], query["type"]) == ("/api/v5/market/history-trades", "BTC-USDT", "1")
        ids = [i for i in self.ids if i < int(query["after"])][-min(self.page, int(query["limit"])) :]
        rows = self.rows(ids, lambda i: {"instId": "BTC-USDT", "px": "1", "tradeId": str(i), "ts": str(at_ms(i))})
        return 200, json.dumps({"code": "0", "msg": "", "data": rows}).encode()


SERVED: dict[tuple[str, str | None], type[Served]] = {
    ("binance", None): BinanceServed,
    ("coinbase", None): CoinbaseServed,
    ("coinbase", "advanced"): AdvancedServed,
    ("okx", None): OkxServed,
}


class Desk:
    """A `Served` over HTTP: what was asked, and what is answered instead."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.asked: list[str] = []
        #: Answers of (status, headers, body) that go before those of `served`, one a request.
        self.instead: list[tuple[int, dict[str, str], bytes]] = []
        self.url = ""


@contextmanager
def desk(served: Served) -> Iterator[Desk]:
    """The venue on a port of its own, for the time of a `with`."""
    made = Desk(served)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            url = urlsplit(self.path)
            if made.instead:
                status, headers, body = made.instead.pop(0)
            else:
                (status, body), headers = made.served.reply(url.path, dict(parse_qsl(url.query))), {}
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
