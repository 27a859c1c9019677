"""Which numbers are stored already, collected from real files."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from app.model import TRADE, Range
from app.store.known import KnownRanges
from app.store.ledger import SEALED, SEALING, Ledger
from tests.support.batches import EPOCH, OPENED_US, batch, event
from tests.support.segments import opened, sealed, stored

OTHER = "0b" * 16


def asked(first: int, last: int, symbol: str = "btcusdt", feed: str = TRADE) -> Range:
    return Range(symbol, feed, first, last)


def test_an_epoch_is_loaded_once() -> None:
    known = KnownRanges()
    assert known.missing({"b", "a"}) == ["a", "b"]
    assert known.missing({"b", "c"}) == ["c"]
    assert known.missing({"a", "c"}) == []


def test_what_was_added_is_covered_for_its_own_epoch_symbol_and_feed() -> None:
    known = KnownRanges()
    known.add(EPOCH, asked(1, 5))
    assert known.covers(EPOCH, asked(1, 5))
    assert known.covers(EPOCH, asked(2, 4))
    assert not known.covers(EPOCH, asked(5, 6))
    assert not known.covers(OTHER, asked(1, 5))
    assert not known.covers(EPOCH, asked(1, 5, symbol="ethusdt"))
    assert not known.covers(EPOCH, asked(1, 5, feed="orderbook"))


def test_ranges_that_touch_are_one() -> None:
    known = KnownRanges()
    known.add(EPOCH, asked(1, 5))
    known.add(EPOCH, asked(6, 9))
    known.add(EPOCH, asked(11, 12))
    assert known.covers(EPOCH, asked(3, 8))
    assert not known.covers(EPOCH, asked(8, 11))


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 6)), min_size=1, max_size=20),
    st.integers(1, 60),
    st.integers(0, 8),
)
def test_what_is_covered_was_stored_to_the_last_number(steps: list[tuple[bool, int]], first: int, length: int) -> None:
    known, held, next_number = KnownRanges(), set(), 1
    for present, size in steps:
        if present:
            known.add(EPOCH, asked(next_number, next_number + size - 1))
            held.update(range(next_number, next_number + size))
        next_number += size
    assert known.covers(EPOCH, asked(first, first + length)) == (set(range(first, first + length + 1)) <= held)


def test_kept_segments_and_the_ledger_say_what_they_hold(tmp_path: Path) -> None:
    before = opened(tmp_path, 1)
    stored(before, batch(1, [event(1), event(2)]), batch(1, [event(7)], epoch=OTHER))
    kept = sealed(before)
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.open_segment(OPENED_US, lambda number, opened_us: f"{number}.db")
    ledger.move_segment(1, "open", SEALING)
    ledger.move_segment(1, SEALING, SEALED)
    removed = {
        "epoch": EPOCH, "exchange": "binance", "symbol": "btcusdt", "feed": TRADE, "first": 3, "last": 9,
        "stored": 7, "duplicates": 0, "conflicts": 0, "quarantined": 0,
    }  # fmt: skip
    assert ledger.begin_removal(1, 7, {"ranges": [[removed]]})
    known = KnownRanges()
    kept.load_known(known, [EPOCH])
    ledger.load_known(known, [EPOCH])
    assert known.covers(EPOCH, asked(1, 2))
    assert known.covers(EPOCH, asked(4, 9))
    assert not known.covers(OTHER, asked(7, 7)), "only the epochs asked for are loaded"


def test_more_epochs_than_one_query_takes_are_all_loaded(tmp_path: Path) -> None:
    epochs = [f"{n:032x}" for n in range(1203)]
    before = opened(tmp_path)
    stored(before, *(batch(1, [event(1, str(n))], epoch=epoch) for n, epoch in enumerate(epochs)))
    known = KnownRanges()
    sealed(before).load_known(known, epochs)
    assert [epoch for epoch in epochs if not known.covers(epoch, asked(1, 1))] == []
