"""Files of the version before: migrated where they may be written, read as they are where they are sealed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from app.errors import CollectorError
from app.store.ledger import Ledger
from app.store.segment import SealedSegment
from tests.support.batches import EPOCH, OPENED_US, batch, event
from tests.support.segments import opened, query, sealed, stored


def made_old(path: Path) -> None:
    """Turn a file of this version into what version 1 wrote: no kinds, no overlaps, no repairs, no checks."""
    with sqlite3.connect(path) as file:
        file.executescript(
            """
            DROP TABLE repairs; DROP TABLE checks;
            ALTER TABLE epochs DROP COLUMN kind; ALTER TABLE epochs DROP COLUMN overlaps;
            ALTER TABLE ranges DROP COLUMN first_id; ALTER TABLE ranges DROP COLUMN last_id;
            ALTER TABLE ranges DROP COLUMN first_us; ALTER TABLE ranges DROP COLUMN last_us;
            ALTER TABLE gaps ADD COLUMN repair TEXT NOT NULL DEFAULT 'open';
            UPDATE meta SET value = '1' WHERE key = 'schema_version';
            """
        )
    file.close()


@pytest.mark.row("D5")
def test_an_open_segment_of_version_1_is_filled_on(tmp_path: Path) -> None:
    segment = opened(tmp_path)
    stored(segment, batch(1, [event(1)]))
    made_old(segment.path)
    stored(opened(tmp_path), batch(2, [event(2)]))
    assert query(segment.path, "SELECT exchange_sequence_id FROM trades ORDER BY id") == [("1",), ("2",)]
    assert query(segment.path, "SELECT epoch, kind, overlaps FROM epochs") == [(EPOCH, "stream", "[]")]
    assert query(segment.path, "SELECT value FROM meta WHERE key = 'schema_version'") == [("2",)]
    assert query(segment.path, "SELECT count(*) FROM repairs") == [(0,)]
    assert query(segment.path, "SELECT first, last, first_id, last_id, first_us, last_us FROM ranges") == [
        (1, 2, None, "2", None, OPENED_US + 2)
    ]


def test_a_sealed_segment_of_version_1_is_read_as_it_is(tmp_path: Path) -> None:
    segment = opened(tmp_path)
    stored(segment, batch(1, [event(1)]))
    path = sealed(segment).path
    made_old(path)
    before = path.read_bytes()
    old = SealedSegment(path)
    assert old.meta()["schema_version"] == "1"
    assert [row["epoch"] for row in old.records("epochs")] == [EPOCH]
    assert (old.records("repairs"), list(old.chunks("checks", 10))) == ([], [])
    assert "repair" not in old.records("epochs")[0]
    assert path.read_bytes() == before


@pytest.mark.row("D5")
def test_a_ledger_of_version_1_keeps_its_name_and_its_segments(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "collector.db")
    entry = ledger.open_segment(OPENED_US, lambda number, opened_us: f"{number}.db")
    made_old(ledger.path)
    migrated = Ledger(ledger.path)
    assert migrated.data_directory == ledger.data_directory
    assert migrated.segments() == [entry]
    assert migrated.records("repairs") == []
    assert query(ledger.path, "SELECT value FROM meta WHERE key = 'schema_version'") == [("2",)]


@pytest.mark.parametrize("said", ["3", "0", "new", ""])
@pytest.mark.row("D5")
def test_a_version_that_is_not_known_is_refused_and_left_as_it_is(tmp_path: Path, said: str) -> None:
    ledger = Ledger(tmp_path / "collector.db")
    with sqlite3.connect(ledger.path) as file:
        file.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (said,))
    file.close()
    with pytest.raises(CollectorError, match="this version reads 1 to 2"):
        Ledger(ledger.path)
    assert query(ledger.path, "SELECT value FROM meta WHERE key = 'schema_version'") == [(said,)]
