"""What is under way when a connection is left: read to its end, or declared to have an end that nobody knows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

from app.clock import monotonic_s
from app.pipeline import periodic
from app.wiring import Wiring
from tests.support.path import NEVER, Collecting, archived, bybit_trade, finish, records, until
from tests.support.rig import Rig
from tests.support.websockets_served import CLOSE, TEXT, Wire, frame, wired

#: More often than this no trade comes; far less than the silence after which nothing is thought to be under way.
PAUSE_S = 0.1


def trades() -> Iterator[bytes]:
    number = 0
    while True:
        number += 1
        yield frame(TEXT, bybit_trade("BTCUSDT", number).encode())


def left(rig: Rig, url: str) -> Wiring:
    """Record until a trade has come, then stop; what was read is flushed, reckoned up and archived."""
    rig.write(
        {"bybit": ["BTCUSDT"]}, {"bybit": {"ws_url": url, "rest_url": "http://127.0.0.1:1"}}, buffer={"lease_secs": 3}
    )
    wiring = rig.wiring()
    with Collecting(wiring) as collecting:
        until(lambda: collecting.frames() > 0, "a trade")
        collecting.finish()
    until(lambda: not wiring.board.states(list(wiring.streams)), "the board forgets the stream that has stopped")
    periodic.flush(wiring, NEVER)
    rig.write({"binance": ["btcusdt"]}, buffer={"lease_secs": 3})
    periodic.reckon(rig.wiring(), NEVER, look_again_s=0)
    finish(wiring)
    return wiring


def test_what_comes_after_our_goodbye_is_read_as_long_as_it_comes_until_the_venues_own(rig: Rig) -> None:
    sent = []

    def script(wire: Wire) -> None:
        wire.accept()
        wire.receive()
        some = trades()
        wire.send(next(some))
        while wire.receive()[0] != CLOSE:
            pass
        begun_s = monotonic_s()
        while monotonic_s() - begun_s < 1.5:
            time.sleep(PAUSE_S)
            sent.append(next(some))
            wire.send(sent[-1])
        wire.send(frame(CLOSE, b"\x03\xe8"))
        wire.until_closed()

    with wired(script) as url:
        wiring = left(rig, url)
    (epoch,) = records(wiring, "epochs")
    assert epoch["reason"] == "stop"
    assert records(wiring, "losses") == []
    (stored,) = archived(wiring).values()
    assert [int(identity) for identity, _ in stored] == list(range(1, len(sent) + 2)) and len(sent) > 5


def test_a_venue_that_talks_on_leaves_an_end_that_nobody_knows_and_a_loss_that_says_so(rig: Rig) -> None:
    def script(wire: Wire) -> None:
        wire.accept()
        wire.receive()
        with suppress(OSError):
            for trade in trades():
                wire.send(trade)
                time.sleep(PAUSE_S)

    with wired(script) as url:
        wiring = left(rig, url)
    (epoch,) = [row for row in records(wiring, "epochs") if row["kind"] == "stream"]
    assert epoch["reason"] == "unclean_end"
    ((feed, count, cause),) = {
        (row["feed"], row["count"], row["cause"]) for row in records(wiring, "losses") if row["feed"] == "trade"
    }
    assert (feed, count, cause) == ("trade", None, "unclean_end")
