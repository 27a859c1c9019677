"""Frames captured from the real exchanges, years and formats apart, through the real path: what was captured is archived."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.exchanges import ExchangeProcess
from tests.support.path import Collecting, compare, figures, finish, records, until
from tests.support.rig import Rig


class Case(NamedTuple):
    """What to subscribe to, and what the captured files hold of it: (events sent, of these sent before)."""

    exchange: str
    symbols: list[str]
    orderbook_channel: str
    books: tuple[int, int]
    trades: tuple[int, int]
    trade_channel: str = ""


CASES = {
    "binance": Case(
        "binance", ["nknusdt", "lrcbtc", "blzeth", "runeeur", "btcusdt"], "depth@100ms", (187, 0), (7, 0)
    ),
    "coinbase": Case(
        "coinbase", ["SKL-USD", "DASH-BTC", "NMR-EUR", "BAND-GBP", "NU-GBP", "BTC-USD", "ETH-USD"],
        "level2_batch", (4219, 0), (89, 0),
    ),
    "upbit": Case("upbit", ["KRW-LAMB"], "orderbook", (69, 0), (200, 0)),
    "okx": Case("okx", ["BTC-USDT", "NEAR-USDT", "BTC-USDT-SWAP"], "books", (103, 0), (46, 0)),
    "bybit": Case("bybit", ["BTCUSDT"], "orderbook.50", (19, 0), (9, 0)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_captured_frames_are_archived_to_the_byte(
    case: Case, frames: Path, rig: Rig, exchange_server: Callable[..., ExchangeProcess]
) -> None:
    server = exchange_server(rate=0, options=("--frames", str(frames)))
    channels = {"orderbook_channel": case.orderbook_channel}
    if case.trade_channel:
        channels["trade_channel"] = case.trade_channel
    rig.write({case.exchange: case.symbols}, {case.exchange: {**server.venues[case.exchange], **channels}})
    wiring = rig.wiring()
    wanted = {"orderbook": case.books[0], "trade": case.trades[0]}
    with Collecting(wiring):
        def sent() -> dict[str, int]:
            return server.status()["sent"].get(case.exchange, {})
        try:
            until(lambda: sent() == wanted, "all captured frames are sent", 8)
        except AssertionError:
            print("SENT", sent())
        server.halt()
    finish(wiring)
    print(records(wiring, "quarantine"))
    print(compare(wiring, server.sent()))
    print(figures(wiring, server.sent_file))
