"""Events and batches for tests, as a stream would make them: every unit numbered, every range true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.model import TRADE, UNDECODED, Batch, EpochEnd, Event, Gap, Loss, Quarantined, runs

EPOCH = "0a" * 16
OPENED_US = 1_772_323_200_000_000
STREAM = "binance-0-orderbook.trade"


def event(
    number: int,
    identity: str | None = None,
    *,
    symbol: str = "btcusdt",
    feed: str = TRADE,
    data: str | None = None,
    received_us: int | None = None,
    exchange_us: int | None = None,
) -> Event:
    """Event `number`; what is not given follows from the number."""
    identity = identity if identity is not None else str(number)
    received_us = OPENED_US + number if received_us is None else received_us
    data = data if data is not None else f'{{"t":{identity}}}'
    return Event(symbol, feed, number, identity, received_us, exchange_us, data)


def undecoded(number: int, frame: bytes = b"\xff\x00", reason: str = "not_json") -> Quarantined:
    """A frame that could not be decoded."""
    return Quarantined(UNDECODED, UNDECODED, number, OPENED_US + number, reason, frame)


def batch(
    number: int,
    units: Sequence[Event | Quarantined],
    *,
    epoch: str = EPOCH,
    stream: str = STREAM,
    losses: Sequence[Loss] = (),
    gaps: Sequence[Gap] = (),
    end: EpochEnd | None = None,
    **more: Any,
) -> Batch:
    """Batch `number` of an epoch, with the ranges of its units."""
    return Batch(
        stream,
        stream.split("-")[0],
        epoch,
        number,
        OPENED_US,
        tuple(runs((unit.symbol, unit.feed, unit.number) for unit in units)),
        tuple(unit for unit in units if isinstance(unit, Event)),
        tuple(unit for unit in units if isinstance(unit, Quarantined)),
        tuple(losses),
        tuple(gaps),
        end,
        **more,
    )
