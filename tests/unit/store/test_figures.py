"""What a scrape is told of the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from app.store.figures import figures
from app.store.ledger import OPEN, SEALED, SEALING, WRITTEN, Ledger, ObjectEntry
from app.store.segment import relative_path
from tests.support.batches import OPENED_US

STORES = ("local", "s3:b")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "collector.db")


def a_sealed(ledger: Ledger, rows: int, sealed_us: int) -> int:
    entry = ledger.open_segment(OPENED_US, relative_path)
    ledger.move_segment(entry.number, OPEN, SEALING)
    ledger.move_segment(entry.number, SEALING, SEALED, sealed_us=sealed_us, rows=rows)
    return entry.number


def an_object(ledger: Ledger, segment: int, symbol: str, store: str, rows: int, *, verified: bool = True) -> None:
    entry = ObjectEntry(
        segment, "okx", symbol, "trade", store, f"{symbol}/{segment}", rows, 100, "ab" * 32, WRITTEN, None, None
    )
    ledger.write_object(entry)
    if verified:
        assert ledger.verify_object(entry, "read_back", f"{symbol}/{segment}.json")


def test_an_empty_ledger_names_every_state(ledger: Ledger) -> None:
    found = figures(ledger, STORES)
    assert found.segments == dict.fromkeys(("open", "sealing", "sealed", "removing", "removed"), 0)
    assert found.objects == {"written": 0, "verified": 0}
    assert found.store_bytes == {"local": 0, "s3:b": 0}
    assert (found.unarchived_rows, found.unarchived_since_us) == (0, None)


def test_rows_are_archived_when_every_store_has_proved_them(ledger: Ledger) -> None:
    whole, half, none = (a_sealed(ledger, rows, OPENED_US + rows) for rows in (30, 20, 10))
    for store in STORES:
        an_object(ledger, whole, "BTC-USDT", store, 25)
        an_object(ledger, whole, "ETH-USDT", store, 5)
    an_object(ledger, half, "BTC-USDT", "local", 20)
    an_object(ledger, half, "BTC-USDT", "s3:b", 20, verified=False)
    ledger.open_segment(OPENED_US, relative_path)
    found = figures(ledger, STORES)
    assert (found.unarchived_rows, found.unarchived_since_us) == (20 + 10, OPENED_US + 20)
    assert found.segments == {"open": 1, "sealing": 0, "sealed": 3, "removing": 0, "removed": 0}
    assert found.objects == {"written": 1, "verified": 5}
    assert found.store_bytes == {"local": 300, "s3:b": 200}
    assert figures(ledger, ("local",)).unarchived_rows == 10
    assert none not in (whole, half)


def test_a_ledger_that_is_gone_is_an_error_and_not_an_empty_one(ledger: Ledger) -> None:
    ledger.path.unlink()
    with pytest.raises(DBAPIError):
        figures(ledger, STORES)
    assert not ledger.path.exists()
