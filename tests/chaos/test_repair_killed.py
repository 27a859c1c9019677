"""A repair is killed at every boundary of its own: what is fetched stands once, and every gap comes to its verdict."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from app.codec import BatchCodec
from app.model import TRADE, Batch, EpochEnd, Event, Range
from app.wiring import Wiring
from tests.support.crash import Nursery, Outcome, places
from tests.support.past import BinanceServed, at_ms, desk
from tests.support.path import NEVER, archived, finish
from tests.support.redis_process import RedisProcess
from tests.support.rig import Rig

#: The venue does not have this one.
LACKING = 700
IDS = [i for i in range(1, 721) if i != LACKING]
CONNECTIONS = (range(1, 11), range(611, 621), range(691, 697), range(711, 721))


def _lives(wiring: Wiring) -> None:
    """Four connections with holes between them, the first one longer than a batch of fetched trades."""
    from app.pipeline import periodic

    for n, ids in enumerate(CONNECTIONS):
        numbers = (Range("btcusdt", TRADE, 1, len(ids)),)
        events = tuple(
            Event("btcusdt", TRADE, number, str(i), at_ms(i) * 1000, at_ms(i) * 1000, f'{{"t":{i}}}')
            for number, i in enumerate(ids, 1)
        )
        end = EpochEnd(events[-1].received_us, "stop", numbers)
        opened_us = events[0].received_us - 1
        batch = Batch("binance-0-trade", "binance", f"{n:032x}", 1, opened_us, numbers, events, end=end)
        assert wiring.buffer.push("binance-0-trade", BatchCodec().encode(batch)) is not None
    assert periodic.flush(wiring, NEVER, deadline_s=None)["failed"] == {}


@pytest.mark.exhaustive
@pytest.mark.timeout(120)
def test_killed_at_any_boundary_a_repair_comes_to_the_same_end(
    nursery: Nursery, tmp_path: Path, redis_server: RedisProcess
) -> None:
    with desk(BinanceServed([i for i in range(800) if i != LACKING], 1000, 0)) as venue:
        venues = {"binance": {"ws_url": "ws://127.0.0.1:1", "rest_url": venue.url}}

        def rig_at(name: str) -> Rig:
            (tmp_path / name).mkdir()
            rig = Rig(tmp_path / name, redis_server.url)
            rig.write(markets={"binance": ["btcusdt"]}, venues=venues)
            return rig

        before = rig_at("before")
        _lives(before.wiring())

        def attempt(number: int) -> Rig:
            rig = rig_at(str(number))
            shutil.copytree(before.directory / "data", rig.directory / "data")
            return rig

        def repaired(rig: Rig, kill_at: int | None = None) -> Outcome:
            return nursery.run("repair", rig.path, prefix="repair.", kill_at=kill_at)

        whole = repaired(attempt(0))
        assert sorted((told["from_id"], told["state"], told["found"]) for told in whole.result) == [
            ("11", "repaired", 600), ("621", "repaired", 70), ("697", "partly", 13),
        ]  # fmt: skip
        passed = [name for name in whole.passed if name.startswith("repair.")]
        assert set(passed) == {"repair.before_push", "repair.after_push", "repair.before_verdict"}
        for number in places(passed):
            rig = attempt(number)
            outcome = repaired(rig, number)
            assert outcome.was_killed == (number <= len(passed))
            if outcome.was_killed:
                repaired(rig)
            _assert_whole(rig.wiring(), f"killed at {number}: {outcome.passed[-3:]}")
        finish(rig.wiring())
        (rows,) = archived(rig.wiring()).values()
        assert sorted(int(identity) for identity, _ in rows) == IDS


def _assert_whole(wiring: Wiring, killed: str) -> None:
    assert sorted(map(int, wiring.stored.counted_trades("binance", "btcusdt", [(1, 800)]))) == IDS, killed
    newest = {r["from_id"]: r for r in _states(wiring)}
    assert {at: (r["state"], r["found"]) for at, r in newest.items()} == {
        "11": ("repaired", 600), "621": ("repaired", 70), "697": ("partly", 13),
    }, killed  # fmt: skip
    seams = wiring.stored.records("checks", kind="seam")
    assert len({check["end_us"] for check in seams}) == 3, killed
    assert wiring.buffer.depths() == [], killed


def _states(wiring: Wiring) -> list[dict[str, object]]:
    from app.pipeline.gaps import states

    return states(wiring.stored.records("gaps"), wiring.stored.records("repairs"))
