"""Seams are found from what is stored, and the connection before is looked for as far back as there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.exchanges.binance import Binance
from app.model import EpochEnd, Range
from app.pipeline.judging import REACH_US, Judging
from app.store.stored import Stored
from tests.support.batches import OPENED_US, batch, event
from tests.unit.store.test_stored import A, B, House

LATER_US = 3 * REACH_US


def ended(number: int, us: int) -> EpochEnd:
    return EpochEnd(us, "stop", (Range("btcusdt", "trade", 1, number),))


@pytest.mark.parametrize("apart_us", [1_000_000, LATER_US])
def test_a_seam_is_judged_however_long_the_connection_before_is_gone(tmp_path: Path, apart_us: int) -> None:
    house = House(tmp_path)
    house.store(batch(1, [event(1, "7")], epoch=A, end=ended(1, OPENED_US + 1)))
    house.seal()
    house.remove()
    now_us = OPENED_US + apart_us
    second = batch(1, [event(1, "9", received_us=now_us)], epoch=B, end=ended(1, now_us))
    house.store(msgspec.structs.replace(second, opened_us=now_us - 1))
    judging = Judging(house.stored, {"binance": Binance()}, lambda: now_us + 60_000_000)
    (verdict,) = judging.verdicts()
    assert verdict.judged.gap is not None
    assert (verdict.judged.gap.from_id, verdict.judged.gap.to_id) == ("8", "8")


def test_a_market_that_is_new_reads_nothing_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(tmp_path)
    house.store(batch(1, [event(1, "7", symbol="ethusdt")], epoch=A))
    house.store(batch(1, [event(1, "9", received_us=OPENED_US + 50)], epoch=B))
    asked = []
    ranges = Stored.ranges

    def noted(self: Stored, *args: Any) -> Any:
        found = ranges(self, *args)
        asked.append(found)
        return found

    judging = Judging(house.stored, {"binance": Binance()}, lambda: OPENED_US + 60_000_000)
    judging._seen.add((A, "ethusdt", "trade"))
    monkeypatch.setattr(Stored, "ranges", noted)
    assert judging.verdicts() == []
    assert {row["symbol"] for rows in asked for row in rows} == {"btcusdt"}
