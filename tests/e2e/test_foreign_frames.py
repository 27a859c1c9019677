"""Frames captured from the real exchanges, years and formats apart, through the real path: what was captured is archived.

Every stream connects twice, and the exchanges say the same again: identical frames are stored once and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from app.wiring import Wiring
from tests.support import redis_process
from tests.support.exchanges import ExchangeProcess
from tests.support.path import WITHOUT_BOOK_IDS, Collecting, archived, compare, figures, finish, records, until
from tests.support.rig import Rig

#: What is subscribed to: symbols and channels that the captured files hold.
MARKETS = {
    "binance": ["nknusdt", "lrcbtc", "blzeth", "runeeur", "btcusdt"],
    "coinbase": ["SKL-USD", "DASH-BTC", "NMR-EUR", "BAND-GBP", "NU-GBP", "BTC-USD", "ETH-USD"],
    "upbit": ["KRW-LAMB"],
    "okx": ["BTC-USDT", "NEAR-USDT", "BTC-USDT-SWAP"],
    "bybit": ["BTCUSDT"],
}
CHANNELS = {
    "binance": {"orderbook_channel": "depth@100ms"},
    "okx": {"orderbook_channel": "books"},
    "bybit": {"orderbook_channel": "orderbook.50"},
}
#: Events of each feed in the files.
CAPTURED = {
    "binance": {"orderbook": 187, "trade": 7},
    "coinbase": {"orderbook": 4219, "trade": 89},
    "upbit": {"orderbook": 69, "trade": 200},
    "okx": {"orderbook": 103, "trade": 46},
    "bybit": {"orderbook": 19, "trade": 10},
}

#: The same files by other channels.
OTHER_MARKETS = {"binance": ["ethusdt"], "okx": ["BTC-USDT-SWAP", "PERP-USDT"], "bybit": ["BTCUSDT"]}
OTHER_CHANNELS = {
    "binance": {"orderbook_channel": "depth20"},
    "okx": {"orderbook_channel": "books5"},
    "bybit": {"orderbook_channel": "orderbook.1"},
}
OTHER_CAPTURED = {
    "binance": {"orderbook": 1},
    "okx": {"orderbook": 2, "trade": 1},
    "bybit": {"orderbook": 14, "trade": 10},
}


class Recorded(NamedTuple):
    """An archive, and what the exchanges say they sent for it."""

    wiring: Wiring
    sent_file: Path

    def sent(self, exchange: str) -> list[dict[str, Any]]:
        entries = [msgspec.json.decode(line) for line in self.sent_file.read_bytes().splitlines()]
        return [entry for entry in entries if "data" in entry and entry["venue"] == exchange]


def record(
    rig: Rig,
    frames: Path,
    markets: dict[str, list[str]],
    channels: dict[str, dict[str, str]],
    captured: dict[str, dict[str, int]],
    times: int,
) -> Recorded:
    """Let every stream connect so many times; each connection gets everything that was captured of its channels."""
    server = ExchangeProcess(rig.directory / "exchanges", rate=0, options=("--frames", str(frames)))
    try:
        rig.write(markets, {name: {**server.venues[name], **channels.get(name, {})} for name in markets})
        wiring = rig.wiring()
        for time in range(1, times + 1):
            wanted = {name: {feed: time * n for feed, n in feeds.items()} for name, feeds in captured.items()}
            with Collecting(wiring):
                until(lambda: server.status()["sent"] == wanted, f"the exchanges sent {wanted}", 30)  # noqa: B023
                assert server.status()["queued"] == 0
        server.halt()
        finish(wiring)
    finally:
        server.stop()
    return Recorded(wiring, server.sent_file)


@pytest.fixture(scope="module")
def recorded(
    frames: Path, redis_server: redis_process.RedisProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Recorded]:
    """Everything captured, recorded twice."""
    rig = Rig(tmp_path_factory.mktemp("foreign"), redis_server.url)
    yield record(rig, frames, MARKETS, CHANNELS, CAPTURED, 2)


@pytest.mark.parametrize("exchange", MARKETS)
def test_captured_frames_are_archived_to_the_byte(exchange: str, recorded: Recorded) -> None:
    sent = recorded.sent(exchange)
    assert Counter(entry["feed"] for entry in sent) == {feed: 2 * n for feed, n in CAPTURED[exchange].items()}
    again = compare(recorded.wiring, sent, exchange)
    books_again = 0 if exchange in WITHOUT_BOOK_IDS else CAPTURED[exchange]["orderbook"]
    assert again == {
        (exchange, feed): n for feed, n in (("orderbook", books_again), ("trade", CAPTURED[exchange]["trade"])) if n
    }
    counted = Counter[tuple[str, str]]()
    for row in records(recorded.wiring, "ranges"):
        if row["exchange"] == exchange:
            counted[exchange, row["feed"]] += row["duplicates"]
            assert row["conflicts"] == 0
    assert +counted == again


def test_the_account_of_foreign_frames_has_no_faults(recorded: Recorded) -> None:
    assert (records(recorded.wiring, "quarantine"), records(recorded.wiring, "losses")) == ([], [])
    assert figures(recorded.wiring, recorded.sent_file).faults == []


def test_a_captured_trade_has_the_identity_and_the_time_its_venue_gave_it(recorded: Recorded) -> None:
    trades = dict(archived(recorded.wiring)["upbit", "KRW-LAMB", "trade"])
    for identity, data in trades.items():
        assert msgspec.json.decode(data)["sid"] == int(identity)
    books = archived(recorded.wiring)["binance", "nknusdt", "orderbook"]
    for identity, data in books:
        update = msgspec.json.decode(data)["data"]
        assert identity == f"depth@100ms-{update['U']}-{update['u']}"


def test_other_channels_of_the_same_recordings_are_archived_as_well(frames: Path, rig: Rig) -> None:
    other = record(rig, frames, OTHER_MARKETS, OTHER_CHANNELS, OTHER_CAPTURED, 1)
    for exchange in OTHER_MARKETS:
        assert compare(other.wiring, other.sent(exchange), exchange) == {}
    assert (records(other.wiring, "quarantine"), records(other.wiring, "losses")) == ([], [])
