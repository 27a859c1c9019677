"""Sealed segments of known content, and whether the archive is exactly them: for tests that disturb it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.objects import layout, manifest, parquet
from app.objects.local import INCOMING, LocalStore
from app.objects.store import Store
from app.pipeline.verify import verify
from app.store.ledger import REMOVED, REMOVING, SEALED, VERIFIED, Ledger, ObjectEntry
from app.store.schema import conflicts
from app.wiring import Wiring
from tests.chaos.content import T0_US, TABLES, Content, Held, held
from tests.support.rig import Rig

#: segment, exchange, symbol, data type
Part = tuple[int, str, str, str]


@dataclass(frozen=True)
class Sealed:
    """A data directory with sealed segments, and what is in them."""

    directory: Path
    #: exchange_sequence_id, timestamp_collector, timestamp_exchange, data, epoch; in the order of storing
    rows: dict[Part, list[tuple[Any, ...]]]
    ranges: dict[Part, set[tuple[Any, ...]]]
    files: dict[int, bytes]
    facts: Held

    def copied_to(self, rig: Rig) -> Rig:
        shutil.copytree(self.directory / "data", rig.directory / "data")
        return rig


def sealed_hours(rig: Rig, *hours: Callable[[Content], None]) -> Sealed:
    """Each of `hours` pushed and sealed as a segment of its own."""
    content = Content()
    pushed = 0
    for hour in hours:
        hour(content)
        content.push(rig.wiring().buffer, content.elements[pushed:])
        pushed = len(content.elements)
        flush = rig.wiring().flush()
        flush.turn_over(flush.run(), now=True)
    rows: dict[Part, list[tuple[Any, ...]]] = {}
    ranges: dict[Part, set[tuple[Any, ...]]] = {}
    files: dict[int, bytes] = {}
    for entry in rig.wiring().ledger.segments(SEALED):
        path = rig.settings.storage.segments_path / entry.path
        files[entry.number] = path.read_bytes()
        connection = sqlite3.connect(f"file:{path}?immutable=1", uri=True)
        for data_type, table in TABLES.items():
            columns = "exchange_sequence_id, timestamp_collector, timestamp_exchange, data, epoch"
            for exchange, symbol, *row in connection.execute(
                f"SELECT exchange, symbol, {columns} FROM {table} ORDER BY id"
            ):
                rows.setdefault((entry.number, exchange, symbol, data_type), []).append(tuple(row))
        for exchange, symbol, feed, *row in connection.execute(
            "SELECT exchange, symbol, feed, epoch, first, last, stored, duplicates, conflicts, quarantined FROM ranges"
        ):
            ranges.setdefault((entry.number, exchange, symbol, feed), set()).add(tuple(row))
        connection.close()
    assert held(rig).facts() == content.expected
    return Sealed(rig.directory, rows, ranges, files, held(rig))


def an_hour(exchange: str, epoch: int, *symbols: str, feeds: str = "tb") -> Callable[[Content], None]:
    """An hour of a few events of these symbols: trades (t), books (b)."""

    def push(content: Content) -> None:
        c = content.connection(f"{exchange}-0-orderbook.trade", epoch, T0_US)
        for batch in range(3):
            units = [c.trade(s, 10 * epoch + batch) for s in symbols if "t" in feeds]
            units += [c.book(s, f"{epoch}-{batch}") for s in symbols if "b" in feeds]
            c.push(*units, *([c.gap(units[0], "7")] if batch == 2 else []), end="stop" if batch == 2 else "")

    return push


def assert_archived(
    wiring: Wiring, sealed: Sealed, *, removed: bool = True, beside: Sequence[str] = (), faults: Sequence[str] = ()
) -> list[ObjectEntry]:
    """One object with exactly its rows for each part, a true manifest beside each, nothing in between.

    Nothing else either, but `beside`: keys of damaged or foreign bytes; `verify` finds fault with `faults`, and no more.
    """
    ledger = wiring.ledger
    objects = ledger.objects()
    for store in wiring.stores:
        _assert_stored(store, ledger, sealed, beside, faults)
    assert {entry.state for entry in ledger.segments()} == {REMOVED if removed else SEALED}
    work, segments = wiring.settings.archive.dir, wiring.settings.storage.segments_path
    assert list(work.iterdir()) == []
    if removed:
        assert [path for path in segments.rglob("*") if path.is_file()] == []
    for store in wiring.stores:
        if isinstance(store, LocalStore):
            assert list((store.root / INCOMING).iterdir()) == []
    return objects


def _assert_stored(store: Store, ledger: Ledger, sealed: Sealed, beside: Sequence[str], faults: Sequence[str]) -> None:
    objects = [entry for entry in ledger.objects() if entry.store == store.name]
    assert sorted(entry[:4] for entry in objects) == sorted(sealed.rows)
    keys = [key for entry in objects for key in (entry.key, layout.manifest_key(entry.key))]
    assert sorted(store.keys()) == sorted([*keys, *beside])
    for entry in objects:
        part = entry[:4]
        assert (entry.state, entry.manifest_key) == (VERIFIED, layout.manifest_key(entry.key))
        assert rows_of(store, entry.key) == sealed.rows[part]
        with store.open(layout.manifest_key(entry.key)) as file:
            told = manifest.decode(file.read())
        assert (told.segment, told.exchange, told.symbol, told.data_type) == part
        assert (told.key, told.rows, told.sha256) == (entry.key, len(sealed.rows[part]), entry.sha256)
        assert {
            (r.epoch, r.first, r.last, r.stored, r.duplicates, r.conflicts, r.quarantined) for r in told.ranges
        } == sealed.ranges[part]
    found = verify(store, ledger).faults
    assert sorted(fault.key for fault in found) == sorted(faults), found


def rows_of(store: Store, key: str) -> list[tuple[Any, ...]]:
    """The rows of an object, in their order."""
    with store.open(key) as file:
        return [row for chunk in parquet.read(file) for row in chunk]


def assert_nothing_removed_unproved(wiring: Wiring, sealed: Sealed) -> None:
    """A segment's file is untouched, or every part of it stands in the store, its rows exact."""
    for entry in wiring.ledger.segments():
        path = wiring.settings.storage.segments_path / entry.path
        if path.exists() and path.read_bytes() == sealed.files[entry.number]:
            continue
        assert entry.state in (REMOVING, REMOVED)
        for part in (part for part in sealed.rows if part[0] == entry.number):
            proved = [o for o in wiring.ledger.objects(entry.number) if o[:4] == part and o.state == VERIFIED]
            assert [o.store for o in proved] == sorted(store.name for store in wiring.stores)
            for store in wiring.stores:
                (key,) = [o.key for o in proved if o.store == store.name]
                assert rows_of(store, key) == sealed.rows[part]


def conflicts_of(ledger: Ledger) -> list[tuple[str, int]]:
    """(key, segment) of every conflict on record."""
    connection = sqlite3.connect(ledger.path)
    try:
        return connection.execute(f"SELECT key, segment FROM {conflicts.name} ORDER BY key").fetchall()
    finally:
        connection.close()
