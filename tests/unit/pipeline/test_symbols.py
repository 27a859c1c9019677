"""What a venue says when it is asked for its symbols, over a real socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app.buffer.budget import Budget
from app.buffer.client import connect
from app.config import Settings
from app.errors import BufferUnavailable, VenueNotAsked
from app.exchanges import EXCHANGES
from app.exchanges.base import Pace
from app.model import Market
from app.pipeline.plan import planned
from app.pipeline.symbols import findings, listed, near, unlisted
from tests.support.redis_process import RedisProcess
from tests.support.rig import Rig

OKX = json.dumps({"code": "0", "data": [{"instId": s, "state": "live"} for s in ("BTC-USDT", "BTC-USDC", "ETH-USDT")]})


class Asked:
    """A venue's REST side: `answer` is what it says next; `paths` what it was asked."""

    def __init__(self) -> None:
        self.answer: tuple[int, str, dict[str, str]] = (200, OKX, {})
        self.paths: list[str] = []
        asked = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.paths.append(self.path)
                status, body, headers = asked.answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join(5)


@pytest.fixture
def venue() -> Iterator[Asked]:
    venue = Asked()
    yield venue
    venue.stop()


@pytest.fixture
def settings(tmp_path: Path, venue: Asked) -> Settings:
    """okx is that venue, and Redis is out of reach."""
    rig = Rig(tmp_path, "redis://127.0.0.1:1/0")
    return rig.write({"okx": ["BTC-USDT", "BTC-USTD"]}, {"okx": {"rest_url": venue.url + "/"}})


def unmetered(settings: Settings) -> Budget:
    return Budget(connect(settings.redis.url, 0.2), settings.redis.prefix)


def test_the_symbols_of_a_venue_are_those_it_lists_as_open(venue: Asked) -> None:
    assert listed("okx", None, venue.url, None) == {"BTC-USDT", "BTC-USDC", "ETH-USDT"}
    assert venue.paths == [EXCHANGES["okx"].symbols_path]


def test_a_symbol_that_is_not_listed_is_a_fault_with_those_that_may_be_meant(settings: Settings, venue: Asked) -> None:
    assert list(findings(settings, settings.all_markets(), unmetered(settings))) == [
        (
            "fault",
            f"okx/BTC-USTD is not in the venue's list of open symbols ({EXCHANGES['okx'].symbols_path});"
            " did you mean BTC-USDT or BTC-USDC or ETH-USDT?",
        )
    ]
    assert len(venue.paths) == 1


@pytest.mark.parametrize(
    ("answer", "kind", "why", "remedy"),
    [
        ((451, "", {}), "fault", "HTTP 451", "set [exchanges.okx] ws_url, rest_url or proxy"),
        ((403, "", {}), "fault", "HTTP 403", "set [exchanges.okx] ws_url, rest_url or proxy"),
        ((429, "", {"Retry-After": "77"}), "warning", "HTTP 429", "ask again in 77 s (Retry-After)"),
        ((418, "", {}), "warning", "HTTP 418", "ask again in 60 s"),
        ((503, "", {}), "warning", "HTTP 503", "later"),
        ((404, "", {}), "fault", "HTTP 404", "is [exchanges.okx] rest_url = http://127.0.0.1"),
        ((302, "", {"Location": "/elsewhere"}), "fault", "HTTP 302", "is [exchanges.okx] rest_url = http://127.0.0.1"),
        ((200, "<html>", {}), "fault", "something else", "is [exchanges.okx] rest_url = http://127.0.0.1"),
    ],
)
def test_a_venue_that_gives_no_list_is_named_once_with_its_word_and_the_remedy(
    settings: Settings, venue: Asked, answer: tuple[int, str, dict[str, str]], kind: str, why: str, remedy: str
) -> None:
    venue.answer = answer
    ((told, sentence),) = findings(settings, settings.all_markets(), unmetered(settings))
    assert told == kind
    assert sentence.startswith("okx could not be asked for its symbols: ")
    assert why in sentence and remedy in sentence, sentence


def test_a_venue_out_of_reach_and_a_proxy_that_cannot_be_used_are_faults(settings: Settings) -> None:
    def told(**changes: str) -> str:
        exchanges = {**settings.exchanges, "okx": replace(settings.exchanges["okx"], **changes)}
        other = replace(settings, exchanges=exchanges)
        ((kind, sentence),) = findings(other, other.all_markets(), unmetered(settings))
        # Nor does it keep a stream from trying: it knows of no symbol that is not listed.
        (stream,) = planned(other).values()
        assert (kind, unlisted(stream, unmetered(settings))) == ("fault", {})
        return sentence

    assert "[exchanges.okx] rest_url or proxy" in told(rest_url="http://127.0.0.1:1")
    socks4 = told(proxy="socks4://user:pa55@127.0.0.1:1")
    assert "[exchanges.okx] rest_url or proxy" in socks4
    assert "pa55" not in socks4


def test_a_stream_is_told_which_of_its_symbols_are_not_listed(
    settings: Settings, venue: Asked, redis_server: RedisProcess
) -> None:
    (stream,) = planned(settings).values()
    budget = Budget(redis_server.client(), f"{settings.redis.prefix}-{venue.url}")
    assert list(unlisted(stream, budget)) == ["BTC-USTD"]


def test_a_venue_that_wants_to_be_left_alone_is_asked_by_nobody_until_then(
    settings: Settings, venue: Asked, redis_server: RedisProcess
) -> None:
    budget = Budget(redis_server.client(), settings.redis.prefix)
    venue.answer = (429, "", {"Retry-After": "77"})
    with pytest.raises(VenueNotAsked, match="Retry-After"):
        listed("okx", None, venue.url, None, budget)
    venue.answer = (200, OKX, {})
    with pytest.raises(VenueNotAsked, match=r"budget of requests is used up; ask again in 7\d s") as refused:
        listed("okx", None, venue.url, None, budget)
    assert not refused.value.lasting
    assert len(venue.paths) == 1
    assert budget.take("okx", "connect", Pace(1, 1)) > 60


def test_without_redis_a_worker_asks_nobody(settings: Settings, venue: Asked) -> None:
    with pytest.raises(BufferUnavailable):
        listed("okx", None, venue.url, None, unmetered(settings))
    assert venue.paths == []


def test_what_may_be_meant_is_offered_nearest_first_and_nothing_far_off() -> None:
    assert near("btcusdx", ["ethusdt", "btcusdt", "btcusdc"]) == "did you mean btcusdt or btcusdc?"
    assert near("zzz", ["btcusdt"]) == "correct or remove it"


def test_each_exchange_of_the_markets_is_asked_once(settings: Settings, venue: Asked) -> None:
    exchanges = {name: replace(found, rest_url=venue.url) for name, found in settings.exchanges.items()}
    wanted = [Market("okx", "BTC-USDT"), Market("bybit", "BTCUSDT"), Market("okx", "ETH-USDT"), Market("bybit", "A")]
    told = list(findings(replace(settings, exchanges=exchanges), wanted, unmetered(settings)))
    assert [(kind, sentence.partition(" ")[0]) for kind, sentence in told] == [("fault", "bybit")]
    assert sorted(venue.paths) == sorted(EXCHANGES[name].symbols_path for name in ("okx", "bybit"))
