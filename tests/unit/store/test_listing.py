"""Short lists and sums of a data directory: in order, bounded, and the same whether remembered or read anew."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from app.model import EpochEnd
from app.store.ledger import OPEN, REMOVED, SEALED, SEALING, WRITTEN, Ledger, ObjectEntry
from app.store.listing import HEAD_BYTES, Archived, Cursor, Listing
from app.store.segment import Segment, relative_path
from tests.support.batches import OPENED_US, batch, event, undecoded
from tests.support.segments import stored

HOUR_US = 3_600_000_000


class Directory:
    def __init__(self, root: Path) -> None:
        self.root = root / "segments"
        self.ledger = Ledger(root / "collector.db", self.root)
        self.listing = self.fresh()

    def fresh(self) -> Listing:
        return Listing(self.ledger, self.root)

    def segment(self, hour: int, *symbols: str, state: str = REMOVED) -> int:
        """A segment of an hour with one verified object for each symbol."""
        opened_us = OPENED_US + hour * HOUR_US
        entry = self.ledger.open_segment(opened_us, relative_path)
        self.ledger.move_segment(entry.number, OPEN, state, sealed_us=opened_us + HOUR_US)
        for n, symbol in enumerate(symbols, 1):
            self.archive(entry.number, symbol, rows=n, size=100 * n)
        return entry.number

    def archive(self, segment: int, symbol: str, rows: int, size: int, store: str = "local") -> None:
        made = ObjectEntry(
            segment, "okx", symbol, "trade", store, f"k/{segment}/{symbol}", rows, size, "0" * 64, WRITTEN, None, None
        )
        self.ledger.write_object(made)
        assert self.ledger.verify_object(made, "read_back", f"m/{segment}/{symbol}")


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path)


def test_sums_are_the_same_remembered_or_read_anew_while_segments_come_and_go(directory: Directory) -> None:
    assert directory.listing.sums() == {}
    directory.segment(0, "A", "B")
    late = directory.segment(1, "A", state=SEALED)
    directory.segment(2, "A")
    key = ("local", "okx", "A", "trade", "verified")
    assert directory.listing.sums()[key] == [3, 3, 300]
    assert directory.listing.sums() == directory.fresh().sums()
    directory.archive(late, "B", rows=7, size=7)
    directory.ledger.move_segment(late, SEALED, REMOVED)
    assert directory.listing.sums() == directory.fresh().sums()
    assert directory.listing.sums()["local", "okx", "B", "trade", "verified"] == [2, 9, 207]


def test_objects_of_a_time_are_those_whose_segment_was_open_then(directory: Directory) -> None:
    directory.segment(0, "A")
    number = directory.segment(1, "A")
    directory.segment(2, "A")
    start_us = OPENED_US + HOUR_US
    (one,) = directory.listing.archived("local", start_us, start_us + HOUR_US)
    assert one == Archived(
        number, "okx", "A", "trade", f"k/{number}/A", f"m/{number}/A", 1, 100, start_us, start_us + HOUR_US
    )
    assert directory.listing.archived("s3", 0, 2**60) == []


def test_pages_of_objects_follow_one_another_without_a_gap_or_a_repetition(directory: Directory) -> None:
    for hour in range(3):
        directory.segment(hour, "A", "B")
    seen: list[Cursor] = []
    while page := directory.listing.objects(4, seen[-1] if seen else None):
        seen += [Cursor(*(row[name] for name in Cursor._fields)) for row in page]
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == 6
    assert [row["segment"] for row in directory.listing.objects(9, symbol="B")] == [3, 2, 1]


def test_growth_is_what_was_sealed_since(directory: Directory) -> None:
    directory.segment(0, "A")
    directory.segment(1, "A", "B")
    assert directory.listing.grown("local", OPENED_US + HOUR_US + 1) == (300, OPENED_US + HOUR_US)
    assert directory.listing.grown("local", OPENED_US + 9 * HOUR_US) == (0, None)


def test_quarantine_and_ends_are_told_from_open_segments_newest_first(directory: Directory) -> None:
    entry = directory.ledger.open_segment(OPENED_US, relative_path)
    segment = Segment.create(directory.root / entry.path, entry.number, directory.ledger.data_directory, OPENED_US)
    frames = [undecoded(n, b"\xff" * (300 * n)) for n in (1, 2)]
    ends = [
        batch(1, [event(1), *frames], end=EpochEnd(OPENED_US + 5, "stream_ended", ())),
        batch(1, [], epoch="0b" * 16, end=EpochEnd(OPENED_US + 9, "dead_timeout", ())),
        batch(1, [], epoch="0c" * 16, kind="finding", end=EpochEnd(OPENED_US + 10, "finding", ())),
        batch(1, [], epoch="0d" * 16),
    ]
    stored(segment, *ends)
    by_feed, newest = directory.listing.quarantined(1)
    assert by_feed == [{"exchange": "binance", "symbol": "?", "feed": "?", "count": 2}]
    assert [(row["number"], row["size_bytes"], row["head"]) for row in newest] == [(2, 600, b"\xff" * HEAD_BYTES)]
    assert [row["reason"] for row in directory.listing.ended(9)] == ["dead_timeout", "stream_ended"]
    assert [row["reason"] for row in directory.listing.ended(1)] == ["dead_timeout"]
    directory.ledger.move_segment(entry.number, OPEN, SEALING)
    assert len(directory.listing.ended(9)) == 2


def test_the_quarantine_of_gone_segments_is_counted_again_only_when_another_has_gone(directory: Directory) -> None:
    frame = {
        "epoch": "0a" * 16, "exchange": "okx", "symbol": "?", "feed": "?", "received_us": 1,
        "reason": "not_json", "frame": b"x",
    }  # fmt: skip

    def gone(*numbers: int) -> None:
        number = directory.segment(0, state=SEALED)
        assert directory.ledger.begin_removal(number, 0, {"quarantine": [[{**frame, "number": n} for n in numbers]]})

    def counts(listing: Listing) -> list[int]:
        return [row["count"] for row in listing.quarantined(9)[0]]

    assert counts(directory.listing) == []
    gone(1, 2)
    assert counts(directory.listing) == counts(directory.fresh()) == [2]
    with closing(sqlite3.connect(directory.ledger.path)) as file, file:
        file.execute("DELETE FROM quarantine WHERE number = 1")
    assert (counts(directory.listing), counts(directory.fresh())) == ([2], [1]), (
        "nobody deletes, and nothing is read again"
    )
    gone(3, 4, 5)
    assert counts(directory.listing) == counts(directory.fresh()) == [4]


def test_conflicts_are_counted_and_the_newest_are_told(directory: Directory) -> None:
    for number in (1, 2, 3):
        directory.ledger.record_conflict("local", f"k/{number}", number, "other bytes")
    total, (one,) = directory.listing.conflicts(1)
    assert (total, one["key"], one["detail"]) == (3, "k/3", "other bytes")
