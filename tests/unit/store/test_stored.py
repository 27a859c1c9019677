"""Records and trades wherever they are: in the open segment, in sealed ones, in the ledger; each once, whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.model import TRADE, Batch, Check, EpochEnd, Gap, Range
from app.store.known import KnownRanges
from app.store.ledger import SEALING, Ledger
from app.store.schema import SEGMENT_RECORDS
from app.store.segment import SealedSegment, Segment, relative_path
from app.store.stored import Stored
from tests.support.batches import OPENED_US, batch, event

A, B = "0a" * 16, "0b" * 16


class House:
    """A ledger, and segments that follow one another."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "segments"
        self.ledger = Ledger(directory / "collector.db")
        self.stored = Stored(self.ledger, self.root)

    def store(self, *batches: Batch) -> None:
        entry = self.ledger.open_segment(OPENED_US, relative_path)
        segment = Segment.create(self.root / entry.path, entry.number, self.ledger.data_directory, OPENED_US)
        segment.store(batches, KnownRanges(), None)

    def seal(self) -> None:
        (entry,) = self.ledger.segments("open")
        segment = Segment(self.root / entry.path)
        segment.seal(OPENED_US + 1)
        assert segment.settle()
        self.ledger.move_segment(entry.number, "open", SEALING)
        self.ledger.move_segment(entry.number, SEALING, "sealed")

    def remove(self) -> None:
        """The oldest sealed segment, as the archive does it, its file last."""
        entry = self.ledger.segments("sealed")[0]
        sealed = SealedSegment(self.root / entry.path)
        self.ledger.begin_removal(entry.number, 0, {name: sealed.chunks(name, 10) for name in SEGMENT_RECORDS})
        (self.root / entry.path).unlink()


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def wherever(house: House, look: Any) -> list[Any]:
    """What `look` sees with everything in the open segment, in a sealed one, and in the ledger."""
    seen = [look()]
    house.seal()
    seen.append(look())
    house.remove()
    seen.append(look())
    return seen


def test_a_record_is_the_same_wherever_it_is(house: House) -> None:
    gap = Gap("btcusdt", TRADE, 2, "2", "4", 3, OPENED_US, OPENED_US + 5, "missing_ids")
    house.store(batch(1, [event(1), event(2, "5")], gaps=[gap], epoch=A))
    wanted = {"epoch": A, "exchange": "binance", **msgspec.structs.asdict(gap)}
    for found in wherever(house, lambda: house.stored.records("gaps")):
        assert found == [wanted]
    assert house.stored.records("gaps", feed="orderbook") == []
    assert house.stored.records("gaps", since=("after_us", OPENED_US + 5)) == [wanted]
    assert house.stored.records("gaps", since=("after_us", OPENED_US + 6)) == []


def test_an_epoch_over_several_segments_is_one_with_its_end_and_of_its_own_kind(house: House) -> None:
    house.store(batch(1, [event(1)], epoch=A))
    house.seal()
    end = EpochEnd(OPENED_US + 9, "stop", (Range("btcusdt", TRADE, 1, 2),))
    house.store(msgspec.structs.replace(batch(9, [], epoch=A), kind="finding"), batch(2, [event(2)], epoch=A, end=end))
    (found,) = house.stored.records("epochs")
    assert (found["ended_us"], found["reason"], found["kind"]) == (OPENED_US + 9, "stop", "stream")
    house.remove()
    assert house.stored.records("epochs") == [found]


def test_ranges_of_an_epoch_come_in_order_from_every_file(house: House) -> None:
    house.store(batch(1, [event(1), event(2)], epoch=A), batch(1, [event(1)], epoch=B))
    house.seal()
    house.store(batch(2, [event(3)], epoch=A))
    house.remove()
    assert [(r["first"], r["last"], r["first_id"], r["last_id"]) for r in house.stored.ranges([A])] == [
        (1, 2, "1", "2"), (3, 3, "3", "3"),
    ]  # fmt: skip
    assert house.stored.present() == {(A, "btcusdt", TRADE)}
    assert house.stored.present(since_us=OPENED_US) == {(A, "btcusdt", TRADE), (B, "btcusdt", TRADE)}
    assert house.stored.present(since_us=OPENED_US + 1) == {(A, "btcusdt", TRADE)}


def test_a_segment_that_is_gone_before_it_is_read_is_read_in_the_ledger(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = Check("btcusdt", TRADE, "seam", 1, 2, "proved", 3)
    house.store(msgspec.structs.replace(batch(1, [event(1)], epoch=A), checks=(check,)))
    house.seal()
    listed = house.ledger.segments("sealed")
    house.remove()
    real = house.ledger.segments
    answers = iter([listed])
    monkeypatch.setattr(house.ledger, "segments", lambda *states: next(answers, None) or real(*states))
    assert [row["detail"] for row in house.stored.records("checks", kind="seam")] == [""]


def test_trades_are_found_by_their_identity(house: House) -> None:
    house.store(batch(1, [event(1, "9"), event(2, "10"), event(3, "100"), event(4, "10-12")], epoch=A))
    house.seal()
    house.store(batch(2, [event(5, "11")], epoch=A))
    assert house.stored.trades("binance", "btcusdt", ["10", "11", "7"]) == {"10": '{"t":10}', "11": '{"t":11}'}
    assert house.stored.trades("binance", "ethusdt", ["10"]) == {}
    assert sorted(house.stored.counted_trades("binance", "btcusdt", [(9, 11)])) == ["10", "11", "9"]
    assert sorted(house.stored.counted_trades("binance", "btcusdt", [(12, 99), (101, 999)])) == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.sets(st.integers(1, 2000), max_size=40), first=st.integers(1, 2000), width=st.integers(0, 1500))
def test_numbers_are_found_whatever_their_digits(
    ids: set[int], first: int, width: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    house = House(tmp_path_factory.mktemp("digits"))
    house.store(batch(1, [event(n, str(i)) for n, i in enumerate(sorted(ids), 1)], epoch=A))
    found = house.stored.counted_trades("binance", "btcusdt", [(first, first + width)])
    assert {int(identity) for identity in found} == {i for i in ids if first <= i <= first + width}
