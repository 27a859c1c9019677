"""Frames for the tests of exchanges: our own with the events they must become, and captured ones where at hand.

`tests/fixtures/frames/<exchange>/<channel>.jsonl` holds one frame a line, `<channel>.golden.jsonl` beside it the list
of events of each frame. Captured frames are read from the directory `COLLECTOR_FRAMES` (default: `shared/frames` beside
the repository) and are no part of it.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from app.exchanges.base import Decoded, Exchange, Subscription
from app.model import ORDERBOOK, TRADE

ROOT = Path(__file__).parents[3]
FIXTURES = ROOT / "tests" / "fixtures" / "frames"
CAPTURED = Path(os.environ.get("COLLECTOR_FRAMES", ROOT.parent / "shared" / "frames"))


def frames(exchange: str, channel: str) -> list[str]:
    """Our frames of one channel (`control`: those that hold no event), in order."""
    return (FIXTURES / exchange / f"{channel}.jsonl").read_text(encoding="utf-8").splitlines()


def golden(exchange: str, channel: str) -> list[list[Decoded]]:
    """The events that each of `frames` must become."""
    lines = (FIXTURES / exchange / f"{channel}.golden.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line, type=list[Decoded]) for line in lines]


def captured(exchange: str, name: str) -> list[str]:
    """Captured frames in arrival order; the test is skipped where they are not at hand."""
    path = CAPTURED / exchange / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"no captured frames at {path}")
    return path.read_text(encoding="utf-8").splitlines()


def channels(exchange: Exchange) -> list[str]:
    """The channels of `exchange` for which we have frames."""
    known = (*exchange.orderbook_channels, *exchange.trade_channels)
    return [channel for channel in known if (FIXTURES / exchange.name / f"{channel}.jsonl").exists()]


def subscription(exchange: Exchange, channel: str, symbols: tuple[str, ...] | None = None) -> Subscription:
    """Both feeds of `symbols` (default: those of the golden events), with `channel` in place of a default channel."""
    if symbols is None:
        symbols = tuple(dict.fromkeys(event.symbol for events in golden(exchange.name, channel) for event in events))
    return Subscription(
        symbols,
        (ORDERBOOK, TRADE),
        channel if channel in exchange.orderbook_channels else exchange.orderbook_channels[0],
        channel if channel in exchange.trade_channels else exchange.trade_channels[0],
    )


def events(messages: object) -> list[Decoded]:
    """The events among the messages of a frame."""
    assert isinstance(messages, list | tuple)
    return [message for message in messages if isinstance(message, Decoded)]
