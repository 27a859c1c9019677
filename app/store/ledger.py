"""The ledger: how far each segment and object has got, and the records of segments that are gone.

Short `BEGIN IMMEDIATE` transactions, and readers that wait for none of them. A state changes by compare-and-set, so two
runs of anything come to one result.
What has rows could be rebuilt from segments and manifests; ranges of pure duplicates, losses and quarantine live here alone.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, func, insert, or_, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from app.errors import CollectorError
from app.model import UNCLEAN_END
from app.store.engine import bare, begin_wal, looking, writable
from app.store.known import KnownRanges
from app.store.migrate import prepare
from app.store.schema import LEDGER_INDEXES, LEDGER_RECORDS, conflicts, ledger, objects, segments

OPEN, SEALING, SEALED, REMOVING, REMOVED = "open", "sealing", "sealed", "removing", "removed"
WRITTEN, VERIFIED = "written", "verified"


class SegmentEntry(NamedTuple):
    number: int
    path: str
    opened_us: int
    sealed_us: int | None
    state: str
    rows: int | None


class ObjectEntry(NamedTuple):
    segment: int
    exchange: str
    symbol: str
    data_type: str
    store: str
    key: str
    rows: int
    size_bytes: int
    sha256: str
    state: str
    proved_by: str | None
    manifest_key: str | None


class Ledger:
    """The ledger of one data directory. Made on first use, unless there are segments without it: that is a lost one."""

    def __init__(self, path: Path, segments: Path | None = None) -> None:
        if segments is not None and not path.exists() and any(segments.glob("*/*.db")):
            raise CollectorError(f"{path} is gone, and {segments} holds segments of it: collector repair-ledger")
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._engine = writable(path)
        self._looking = looking(self._engine)
        begin_wal(self._engine)
        with self._engine.begin() as connection:
            meta = prepare(connection, ledger, path, {"data_directory": uuid.uuid4().hex})
            for index in LEDGER_INDEXES:
                connection.exec_driver_sql(index)
        #: UUID of this data directory, made with it.
        self.data_directory = meta["data_directory"]
        #: `totals` of the segments below a number, all of which are gone for good: that number, segments, objects, rows.
        self._settled = 0, 0, 0, 0

    # segments

    def segments(self, *states: str) -> list[SegmentEntry]:
        """Segments in these states (all states where none is given), oldest first."""
        query = select(segments).order_by(segments.c.number)
        if states:
            query = query.where(segments.c.state.in_(states))
        with self._looking.connect() as connection:
            return [SegmentEntry(*row) for row in connection.execute(query)]

    def open_segment(self, opened_us: int, path_of: Callable[[int, int], str]) -> SegmentEntry:
        """The open segment; a new number and entry where there is none. The number is never used again."""
        with self._engine.begin() as connection:
            row = connection.execute(select(segments).where(segments.c.state == OPEN)).first()
            if row is None:
                values = {"path": "", "opened_us": opened_us, "state": OPEN}
                number = connection.execute(insert(segments).values(values)).inserted_primary_key[0]  # type: ignore[index]
                connection.execute(
                    update(segments).where(segments.c.number == number).values(path=path_of(number, opened_us))
                )
                row = connection.execute(select(segments).where(segments.c.number == number)).one()
            return SegmentEntry(*row)

    def move_segment(self, number: int, before: str, after: str, **values: Any) -> bool:
        """Compare-and-set of a segment's state; False when it was not in `before`."""
        where = and_(segments.c.number == number, segments.c.state == before)
        with self._engine.begin() as connection:
            return connection.execute(update(segments).where(where).values(state=after, **values)).rowcount == 1

    def totals(self) -> tuple[dict[str, int], int, int]:
        """Segments by state (each state named), verified objects, rows in these; counted by SQLite.

        What several stores hold counts once. Segments that are gone, below the first that is not, are counted once and for all.
        """
        number = segments.c.number
        with self._looking.connect() as connection:
            below, gone, settled, settled_rows = self._settled
            first = select(func.min(number)).where(number >= below, segments.c.state != REMOVED)
            end = select(func.coalesce(first.scalar_subquery(), func.max(number) + 1, 0))
            kept = max(below, int(connection.execute(end).scalar_one()))
            gone += int(connection.execute(select(func.count()).where(number >= below, number < kept)).scalar_one())
            verified, rows = _verified(connection, below, kept)
            settled, settled_rows = settled + verified, settled_rows + rows
            self._settled = kept, gone, settled, settled_rows
            counted = select(segments.c.state, func.count()).where(number >= kept).group_by(segments.c.state)
            by_state = dict.fromkeys((OPEN, SEALING, SEALED, REMOVING, REMOVED), 0)
            by_state |= {state: count for state, count in connection.execute(counted)}
            by_state[REMOVED] += gone
            verified, rows = _verified(connection, kept, None)
        return by_state, settled + verified, settled_rows + rows

    # objects

    def objects(self, segment: int | None = None) -> list[ObjectEntry]:
        """Objects of one segment, or all, in order of segment and market."""
        query = select(objects).order_by(
            objects.c.segment, objects.c.exchange, objects.c.symbol, objects.c.data_type, objects.c.store
        )
        if segment is not None:
            query = query.where(objects.c.segment == segment)
        with self._looking.connect() as connection:
            return [ObjectEntry(*row) for row in connection.execute(query)]

    def write_object(self, entry: ObjectEntry) -> None:
        """Put `written` on record before the upload; replaces an earlier `written`, never a `verified`."""
        values = entry._asdict()
        statement = upsert(objects).values(values)
        statement = statement.on_conflict_do_update(
            index_elements=list(objects.primary_key), set_=values, where=objects.c.state == WRITTEN
        )
        with self._engine.begin() as connection:
            connection.execute(statement)

    def verify_object(self, entry: ObjectEntry, proved_by: str, manifest_key: str) -> bool:
        """`written -> verified`, only for exactly these bytes under exactly this key."""
        identity = ("segment", "exchange", "symbol", "data_type", "store", "key", "sha256")
        where = and_(objects.c.state == WRITTEN, *(objects.c[name] == getattr(entry, name) for name in identity))
        values = {"state": VERIFIED, "proved_by": proved_by, "manifest_key": manifest_key}
        with self._engine.begin() as connection:
            return connection.execute(update(objects).where(where).values(values)).rowcount == 1

    def record_conflict(self, store: str, key: str, segment: int, detail: str) -> None:
        """Other bytes were found under `key`."""
        values = {"store": store, "key": key, "segment": segment, "detail": detail}
        with self._engine.begin() as connection:
            connection.execute(upsert(conflicts).values(values).on_conflict_do_nothing())

    def conflicts(self, store: str) -> dict[str, int]:
        """Keys of `store` under which other bytes were found, each with the segment whose object went elsewhere."""
        with self._looking.connect() as connection:
            query = select(conflicts.c.key, conflicts.c.segment).where(conflicts.c.store == store)
            return {key: number for key, number in connection.execute(query)}

    def backup(self) -> None:
        """A copy of all of it at `backup_path`, in place of the one before. Raises: DBAPIError, OSError."""
        target = backup_path(self.path)
        fresh = target.with_name(f"{target.name}.tmp")
        fresh.unlink(missing_ok=True)
        try:
            with bare(self._engine) as cursor:
                cursor.execute("VACUUM INTO ?", (str(fresh),))
            with fresh.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(fresh, target)
        finally:
            fresh.unlink(missing_ok=True)

    # records of removed segments

    def begin_removal(self, number: int, rows: int, records: Mapping[str, Iterable[list[dict[str, object]]]]) -> bool:
        """`sealed -> removing`, and in the same transaction everything of the segment that must outlive its file."""
        where = and_(segments.c.number == number, segments.c.state == SEALED)
        with self._engine.begin() as connection:
            if connection.execute(update(segments).where(where).values(state=REMOVING, rows=rows)).rowcount != 1:
                return False
            for name, found in ((name, chunk) for name, chunks in records.items() for chunk in chunks):
                if name == "epochs":
                    _fold_epochs(connection, found)
                elif name == "replays":
                    _fold_replays(connection, found)
                elif name == "losses":
                    _fold_losses(connection, found)
                else:
                    connection.execute(upsert(LEDGER_RECORDS[name]).on_conflict_do_nothing(), found)
            return True

    def records(self, name: str, **where: str) -> list[dict[str, object]]:
        """Records of removed segments, of one of the record tables."""
        with self._looking.connect() as connection:
            query = select(LEDGER_RECORDS[name]).filter_by(**where)
            return [dict(row._mapping) for row in connection.execute(query)]

    def begun(self, exchange: str, symbols: Collection[str], since_us: int, *kinds: str) -> list[int]:
        """When connections, or questions over REST, began from `since_us` on that brought events of these markets, in
        removed segments. `kinds` of epochs."""
        epochs, ranges = LEDGER_RECORDS["epochs"], LEDGER_RECORDS["ranges"]
        query = (
            select(epochs.c.opened_us)
            .distinct()
            .join(ranges, ranges.c.epoch == epochs.c.epoch)
            .where(
                epochs.c.kind.in_(kinds),
                epochs.c.exchange == exchange,
                epochs.c.opened_us >= since_us,
                ranges.c.symbol.in_(sorted(symbols)),
            )
        )
        with self._looking.connect() as connection:
            return [int(opened_us) for (opened_us,) in connection.execute(query)]

    def load_known(self, known: KnownRanges, epochs: list[str]) -> None:
        """Add what removed segments held of `epochs` to `known`."""
        with self._looking.connect() as connection:
            known.load(connection, epochs, ledger=True)

    def bound_quarantine(self, max_bytes: int) -> int:
        """Empty the oldest quarantined frames until at most `max_bytes` are held; the rows stay. Returns bytes let go."""
        table = LEDGER_RECORDS["quarantine"]
        with self._engine.begin() as connection:
            length = func.length(table.c.frame).label("length")
            held = connection.execute(select(func.coalesce(func.sum(length), 0))).scalar_one()
            if held <= max_bytes:
                return 0
            let_go = 0
            # The frames themselves are never read: there may be gigabytes of them.
            key = list(table.primary_key)
            for row in connection.execute(select(*key, length).where(length > 0).order_by(table.c.received_us)).all():
                if held - let_go <= max_bytes:
                    break
                let_go += row.length
                where = and_(*(column == getattr(row, column.name) for column in key))
                reason = table.c.reason + " (frame let go)"
                connection.execute(update(table).where(where).values(frame=b"", reason=reason))
            return let_go


def backup_path(path: Path) -> Path:
    """Where the copy of the ledger at `path` lies."""
    return path.with_name(f"{path.name}.backup")


def _verified(connection: Connection, start: int, end: int | None) -> tuple[int, int]:
    """Verified objects of the segments from `start` to before `end`, and their rows."""
    one = (objects.c.segment, objects.c.exchange, objects.c.symbol, objects.c.data_type)
    distinct = select(func.max(objects.c.rows).label("rows")).where(objects.c.state == VERIFIED).group_by(*one)
    distinct = distinct.where(objects.c.segment >= start)
    held = (distinct if end is None else distinct.where(objects.c.segment < end)).subquery()
    found, rows = connection.execute(select(func.count(), func.coalesce(func.sum(held.c.rows), 0))).one()
    return int(found), int(rows)


def _fold_epochs(connection: Connection, found: Iterable[dict[str, object]]) -> None:
    """An epoch may span segments: its end stands in the last of them."""
    for values in found:
        table = LEDGER_RECORDS["epochs"]
        statement = upsert(table).values(values)
        ended = {name: values[name] for name in ("ended_us", "reason", "last_numbers")}
        if values["ended_us"] is not None:
            # What was found out about an end never takes the place of what the connection said itself.
            said = statement.excluded.reason != UNCLEAN_END
            replaceable = or_(said, table.c.reason.is_(None), table.c.reason == UNCLEAN_END)
            statement = statement.on_conflict_do_update(index_elements=["epoch"], set_=ended, where=replaceable)
        else:
            statement = statement.on_conflict_do_nothing()
        connection.execute(statement)


def _fold_losses(connection: Connection, found: Iterable[dict[str, object]]) -> None:
    """A loss of unknown extent gives way to one that is known."""
    table = LEDGER_RECORDS["losses"]
    for values in found:
        statement = upsert(table).values(values)
        set_ = {name: statement.excluded[name] for name in ("last", "count", "start_us", "end_us", "cause")}
        known = and_(table.c.count.is_(None), statement.excluded["count"].is_not(None))
        connection.execute(
            statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=set_, where=known)
        )


def _fold_replays(connection: Connection, found: Iterable[dict[str, object]]) -> None:
    table = LEDGER_RECORDS["replays"]
    for values in found:
        statement = upsert(table).values(values)
        times = table.c.times + statement.excluded.times
        connection.execute(
            statement.on_conflict_do_update(index_elements=list(table.primary_key), set_={"times": times})
        )
