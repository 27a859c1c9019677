"""Connections are replaced while data flows, and the archive shows no trace of it but the names of the epochs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from app.wiring import Wiring
from tests.support.exchanges import ExchangeProcess
from tests.support.path import Collecting, compare, finish, records, until
from tests.support.rig import MARKETS, Rig

#: Five exchanges, two feeds: together 2,000 frames a second.
RATE = 200
ROTATIONS = 3


@pytest.fixture
def exchanges(tmp_path: Path) -> Iterator[ExchangeProcess]:
    process = ExchangeProcess(tmp_path / "server", rate=RATE)
    yield process
    process.stop()


def one_market_each() -> dict[str, list[str]]:
    return {name: symbols[:1] for name, symbols in MARKETS.items()}


def rotated(wiring: Wiring, reason: str) -> dict[str, int]:
    """How often a connection ended for `reason`, by stream, as the board has it."""
    states = wiring.board.states(list(wiring.streams))
    return {name: states.get(name, {}).get("closes", {}).get(reason, 0) for name in wiring.streams}


@pytest.mark.exhaustive
@pytest.mark.row("X1")
def test_rotations_under_two_thousand_events_a_second_leave_the_archive_equal_to_what_was_sent(
    exchanges: ExchangeProcess, rig: Rig
) -> None:
    rig.write(one_market_each(), exchanges.venues, websocket={"rotate_secs": 2})
    wiring = rig.wiring()
    with Collecting(wiring) as collecting:
        until(
            lambda: min(rotated(wiring, "planned_rotation").values()) >= ROTATIONS,
            f"each stream renewed its connection {ROTATIONS} times", 60,
        )  # fmt: skip
        exchanges.halt()
        collecting.finish()
    finish(wiring)

    compare(wiring, exchanges.sent())
    assert records(wiring, "gaps") == []
    assert records(wiring, "losses") == []
    epochs = {row["epoch"]: row for row in records(wiring, "epochs")}
    for stream in wiring.streams:
        chain = sorted((row for row in epochs.values() if row["stream"] == stream), key=lambda row: row["opened_us"])
        reasons = [row["reason"] for row in chain]
        # At the stop the last one was open, or the last two while one was about to take the other's place.
        assert set(reasons[:-2]) == {"planned_rotation"}, stream
        assert reasons[-2:] in (["planned_rotation"] * 2, ["planned_rotation", "stop"], ["stop"] * 2), stream
        for old, new in pairwise(chain):
            assert msgspec.json.decode(new["overlaps"]) == [old["epoch"]]
            assert new["opened_us"] < old["ended_us"], "the new one was open before the old one ended"
    duplicates = {row["exchange"] for row in records(wiring, "ranges") if row["duplicates"]}
    assert duplicates == set(MARKETS), "what came over both connections is counted"


@pytest.mark.row("X1")
def test_a_venue_that_says_it_will_close_is_left_without_a_hole(exchanges: ExchangeProcess, rig: Rig) -> None:
    rig.write({"okx": MARKETS["okx"][:1]}, exchanges.venues)
    wiring = rig.wiring()
    (stream,) = wiring.streams
    with Collecting(wiring) as collecting:
        until(collecting.live, "both feeds are live")
        exchanges.do("planned-cut,venue=okx,close_s=20")
        until(lambda: rotated(wiring, "venue_notice")[stream], "the connection was replaced", 30)
        collecting.more(50)
        exchanges.halt()
        collecting.finish()
    finish(wiring)
    compare(wiring, exchanges.sent())
    assert records(wiring, "gaps") == []
