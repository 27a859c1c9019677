"""The customer's smoke test: ten messages of both feeds of each real exchange, through the production path.

Off unless asked for by `-m live` (`make live`, `make live EXCHANGE=okx`): it talks to the exchanges.
"""

from __future__ import annotations

import threading
import time

import pytest

from app.exchanges import EXCHANGES
from app.model import ORDERBOOK, TRADE
from app.pipeline import periodic
from app.pipeline.supervise import collect
from app.store.segment import SealedSegment
from tests.support.rig import MARKETS, Rig

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(180),
]

MESSAGES = 10
DEADLINE_S = 120


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_ten_messages_of_both_feeds_arrive_in_a_segment(rig: Rig, exchange: str) -> None:
    rig.write(markets={exchange: MARKETS[exchange]})
    wiring = rig.wiring()
    stop = threading.Event()
    threads = [threading.Thread(target=collect, args=(wiring, name, stop)) for name in wiring.streams]
    for thread in threads:
        thread.start()
    until_s = time.monotonic() + DEADLINE_S
    feeds: set[str] = set()
    events = 0
    while time.monotonic() < until_s and not (events >= MESSAGES and feeds == {ORDERBOOK, TRADE}):
        time.sleep(0.5)
        states = wiring.board.states(list(wiring.streams)).values()
        events = sum(state["events"] for state in states)
        feeds = {feed["feed"] for state in states for feed in state["feeds"] if feed["state"] == "live"}
    last = {
        name: (state["why"], state["last_error"]) for name, state in wiring.board.states(list(wiring.streams)).items()
    }
    stop.set()
    for thread in threads:
        thread.join(20)
    periodic.flush(wiring, threading.Event(), seal=True)
    held = [
        holding
        for entry in wiring.ledger.segments()
        for holding in SealedSegment(rig.settings.storage.segments_path / entry.path).holdings()
    ]
    assert {holding.data_type for holding in held} == {ORDERBOOK, TRADE}, last
    assert sum(holding.rows for holding in held) >= MESSAGES
    assert wiring.ledger.records("quarantine") == []
