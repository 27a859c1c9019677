"""Coinbase's second source over a real socket and Redis: signed requests, a hole of the connection, markets as ever."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from app.codec import BatchCodec
from app.logs import configure
from app.model import ORDERBOOK, TRADE
from tests.support.path import Collecting, until
from tests.support.rig import Rig
from tests.support.websockets_served import served

STREAM = "coinbase-0-orderbook.trade"
NAME = "organizations/0f/apiKeys/1e"
KEY = Ed25519PrivateKey.generate()
SECRET = base64.b64encode(KEY.private_bytes_raw()).decode()
FIRST_S = 1_790_000_000
CHANNELS = [("subscribe", "heartbeats"), ("subscribe", "market_trades"), ("subscribe", "level2")]
ANEW = [("unsubscribe", "level2"), ("subscribe", "level2")]


def book(number: int, kind: str = "update") -> str:
    row = {"type": kind, "product_id": "BTC-USD", "updates": []}
    return json.dumps({"channel": "l2_data", "sequence_num": number, "events": [row]})


def trades(number: int, *ids: int) -> str:
    rows = [{"product_id": "BTC-USD", "trade_id": str(id), "time": "2026-09-21T14:13:20Z"} for id in ids]
    return json.dumps(
        {"channel": "market_trades", "sequence_num": number, "events": [{"type": "update", "trades": rows}]}
    )


class Venue:
    """Hears what it is asked; sends a hole after the first request for a book, and a snapshot after the next."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []

    def __call__(self, connection: ServerConnection) -> None:
        scripts = {
            3: [book(0, "snapshot"), trades(1, 12, 11), book(3), trades(4, 13)],
            5: [book(5, "snapshot"), book(6)],
        }
        try:
            while True:
                self.heard.append(json.loads(connection.recv()))
                for frame in scripts.get(len(self.heard), []):
                    connection.send(frame)
        except ConnectionClosed:
            return

    def asked(self) -> list[tuple[str, str]]:
        return [(message["type"], message["channel"]) for message in self.heard]


def claims(jwt: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a token, its signature verified."""
    head, body, signature = (base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in jwt.split("."))
    KEY.public_key().verify(signature, jwt.rpartition(".")[0].encode())
    return json.loads(head), json.loads(body)


def collected(rig: Rig, venue: Venue, **key: str) -> list[Any]:
    """The batches of a stream that heard all of the venue's script."""
    with served(venue) as url:
        settings = {"source": "advanced", "ws_url": url, "rest_url": "http://127.0.0.1:9", **key}
        rig.write({"coinbase": ["BTC-USD"]}, {"coinbase": settings})
        wiring = rig.wiring()
        with Collecting(wiring, STREAM) as collecting:
            until(lambda: len(venue.heard) >= 5 and collecting.frames() >= 6, "the script is played", 30)
            assert collecting.finish() == {STREAM: "stop"}
    return [BatchCodec().decode(element) for element in wiring.buffer.head(STREAM, 1000, 1 << 30)]


def test_a_hole_of_the_connection_is_recorded_and_the_book_begins_anew_while_trades_go_on(rig: Rig) -> None:
    venue = Venue()
    batches = collected(rig, venue)
    assert venue.asked() == [*CHANNELS, *ANEW]
    assert [message for message in venue.heard if "jwt" in message] == []
    (epoch,) = {batch.epoch for batch in batches}
    assert {batch.exchange for batch in batches} == {"coinbase"}
    found = [(e.symbol, e.feed, e.sequence_id) for batch in batches for e in batch.events]
    assert [event for event in found if event[1] == TRADE] == [("BTC-USD", TRADE, str(id)) for id in (11, 12, 13)]
    assert [event for event in found if event[1] == ORDERBOOK] == [
        ("BTC-USD", ORDERBOOK, f"{epoch}-{number}") for number in (1, 2, 3, 4)
    ]
    assert [(g.symbol, g.feed, g.number, g.from_id, g.to_id, g.cause) for b in batches for g in b.gaps] == [
        ("BTC-USD", ORDERBOOK, 2, "2", "2", "connection_sequence")
    ]
    assert [frame for batch in batches for frame in batch.quarantined] == []


def test_every_request_carries_a_token_made_when_it_was_sent_and_the_key_is_in_no_log(
    rig: Rig, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    began_s = time.monotonic()
    monkeypatch.setattr(
        "app.pipeline.assembly.wall_us", lambda: int((FIRST_S + 10_000 * (time.monotonic() - began_s)) * 1_000_000)
    )
    # A command that another test ran in this process may have left the log elsewhere. Without settings nothing is masked.
    log = configure("INFO")
    venue = Venue()
    collected(rig, venue, api_key=NAME, api_secret=SECRET)
    assert venue.asked() == [*CHANNELS, *ANEW]
    tokens = [claims(message["jwt"]) for message in venue.heard]
    assert {(head["kid"], head["alg"], body["sub"], body["iss"]) for head, body in tokens} == {
        (NAME, "EdDSA", NAME, "cdp")
    }
    assert len({head["nonce"] for head, _ in tokens}) == len(tokens)
    # The first three were planned at the same moment and waited for their turn, by this clock longer than a token lives.
    begins = [body["nbf"] for _, body in tokens]
    assert begins[0] >= FIRST_S and begins[2] > begins[0] + 120
    assert [body["exp"] for _, body in tokens] == [begin + 120 for begin in begins]
    log.flush()
    written = capfd.readouterr()
    jwts = [message["jwt"] for message in venue.heard]
    logged = written.out + written.err + caplog.text
    assert STREAM in logged
    assert [secret for secret in (SECRET, NAME, *jwts) if secret in logged] == []
