"""What can still be read of a damaged segment, in a new file that takes its place; what cannot is declared lost.

SQLite says that a file is damaged when it meets a page that cannot be one (it keeps no checksum of its pages: bytes
flipped inside a text are not seen). The damaged file is kept beside, as `<name>.corrupt-<time>`, and never deleted.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

from app.model import Batch, Loss
from app.store.engine import classify, readonly
from app.store.reckoned import Row, Seen, settle
from app.store.records import write
from app.store.schema import ROWS, SEGMENT_RECORDS
from app.store.segment import PAGE_SIZE, Segment

COLUMNS = ("exchange", "symbol", "exchange_sequence_id", "timestamp_collector", "timestamp_exchange", "data", "epoch")
#: Rows are asked for so many at a time, fewer where some of them cannot be read.
CHUNK_IDS = 1_000
#: Parts of an SQLite database beside its file.
BESIDE = ("-wal", "-shm", "-journal")

Market = tuple[str, str, str]


@dataclass
class Salvaged:
    """What came of it."""

    rows: int = 0
    losses: list[tuple[str, Loss]] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Units that are declared lost, as far as it is known how many."""
        return sum(loss.count or 0 for _, loss in self.losses)


def damage_of(path: Path) -> str:
    """What SQLite finds wrong with a database file, "" where that is nothing. It is read whole.

    Raises: DBAPIError where it cannot be read for another reason (locks, the disk).
    """
    try:
        with readonly(path).connect() as connection:
            found = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA quick_check(3)")]
    except DBAPIError as error:
        if classify(error) != "damaged":
            raise
        return str(error.orig)
    return "" if found == ["ok"] else "; ".join(found)


def salvage(
    path: Path,
    number: int,
    data_directory: str,
    opened_us: int,
    sealed_us: int | None,
    *,
    now_us: int,
    stored: dict[Market, tuple[list[Row], Callable[[], Iterable[Iterable[tuple[Any, ...]]]]]],
    elsewhere: Callable[[set[str]], list[Row]],
) -> Salvaged:
    """Replace the damaged segment at `path`. Every step may be repeated after a crash (see `finish`).

    `stored`: markets whose object is proved: their ranges, and their rows as of an object. `elsewhere`: the ranges that
    other files hold of these epochs, and of all that went on meanwhile; `later` in those of later files.
    Raises: DBAPIError, OSError; the damaged file is untouched then.
    """
    new = path.with_name(f"{path.name}.salvaging")
    for leftover in (new, *(new.with_name(new.name + end) for end in BESIDE)):
        leftover.unlink(missing_ok=True)
    segment = Segment.create(new, number, data_directory, opened_us)
    source, grafted = _readable(path, new)
    try:
        with closing(source), segment.engine.begin() as connection:
            seen: dict[tuple[str, str, str, str], Seen] = {}
            salvaged = Salvaged()
            for feed, table in ROWS.items():
                hole = False
                sql = f"INSERT INTO {table.name} ({', '.join(COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
                for row in _rows(source, table.name):
                    if row is None:
                        hole = True
                        for one in seen.values():
                            one.interrupted = True
                        continue
                    if (row[0], row[1], feed) in stored:
                        continue
                    if connection.exec_driver_sql(sql, row).rowcount:
                        seen.setdefault((row[0], row[1], feed, row[6]), Seen(interrupted=hole)).add(row[3])
                        salvaged.rows += 1
                for (exchange, symbol, kind), (_, chunks) in stored.items():
                    for chunk in chunks() if kind == feed else ():
                        for identity, collector_us, exchange_us, data, epoch in chunk:
                            row = (exchange, symbol, identity, collector_us, exchange_us, data, epoch)
                            salvaged.rows += connection.exec_driver_sql(sql, row).rowcount
            records = {name: read_records(source, name, _keys(name)) for name in SEGMENT_RECORDS}
            held, whole = records["ranges"]
            held = [r for r in held if (r["exchange"], r["symbol"], r["feed"]) not in stored]
            epochs = {str(r["epoch"]): r for r in records["epochs"][0]}
            known = [] if whole else elsewhere({key[3] for key in seen} | epochs.keys())
            lost = [r for r in records["losses"][0] if r["count"] is not None]
            ranges, losses = settle(seen, held, lost, known, whole, opened_us, sealed_us or now_us)
            ranges += [row for told, _ in stored.values() for row in told]
            for name, (rows, _) in records.items():
                _insert(connection, name, ranges if name == "ranges" else rows)
            for (exchange, epoch), found in losses.items():
                told = epochs.get(epoch, {"stream": exchange, "opened_us": opened_us})
                write(
                    connection,
                    Batch(told["stream"], exchange, epoch, 0, told["opened_us"], losses=tuple(found), kind="finding"),
                )
                salvaged.losses += [(exchange, loss) for loss in found]
    finally:
        if grafted is not None:
            grafted.unlink()
    if sealed_us is not None:
        segment.seal(sealed_us)
    if not segment.settle():
        raise OSError(f"{new} is being read by somebody")
    fsync(new)
    os.replace(new, path.with_name(f"{path.name}.salvaged"))
    finish(path, now_us)
    return salvaged


def finish(path: Path, now_us: int) -> bool:
    """Put a salvaged segment in the place of the damaged one, if there is one; the same call again changes nothing."""
    ready = path.with_name(f"{path.name}.salvaged")
    if not ready.exists():
        return False
    kept = path.with_name(f"{path.name}.corrupt-{now_us // 1_000_000}")
    if path.exists() and not kept.exists():
        os.link(path, kept)
    for end in BESIDE:  # the log of the damaged file must not be taken for that of the new one
        beside = path.with_name(path.name + end)
        with suppress(FileNotFoundError):
            os.replace(beside, kept.with_name(kept.name + end))
    os.replace(ready, path)
    fsync(path.parent)
    return True


def _readable(path: Path, new: Path) -> tuple[sqlite3.Connection, Path | None]:
    """A connection to what is left. Where the first page is gone, that of a new segment stands in for it: the same
    tables begin at the same pages."""
    source = sqlite3.connect(f"file:{path.absolute()}?mode=ro", uri=True)
    try:
        names = {name for (name,) in source.execute("SELECT name FROM sqlite_master")}
    except sqlite3.Error:
        names = set()
    if "meta" in names or path.stat().st_size < 2 * PAGE_SIZE:
        return source, None
    source.close()
    grafted = path.with_name(f"{path.name}.grafted")
    shutil.copyfile(path, grafted)
    with new.open("rb") as pattern, grafted.open("r+b") as file:
        page = bytearray(pattern.read(PAGE_SIZE))
        page[28:32] = (path.stat().st_size // PAGE_SIZE).to_bytes(4, "big")
        page[18:20] = b"\1\1"  # no log
        page[32:40] = bytes(8)  # no free pages
        page[92:96] = page[24:28]  # the size that it says is valid
        file.write(page)
    return sqlite3.connect(f"file:{grafted.absolute()}?immutable=1", uri=True), grafted


def _rows(source: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...] | None]:
    """The rows that can be read, in the order they were stored; None wherever some cannot."""
    sql = f"SELECT {', '.join(COLUMNS)} FROM {table} WHERE id BETWEEN ? AND ? ORDER BY id"
    highest = 0
    for query in ("SELECT seq FROM sqlite_sequence WHERE name = ?1", f"SELECT max(id) FROM {table} WHERE ?1 = ?1"):
        with suppress(sqlite3.Error, TypeError):
            highest = max(highest, source.execute(query, (table,)).fetchone()[0])
    for start in range(1, highest + 1, CHUNK_IDS):
        pending = [(start, min(start + CHUNK_IDS - 1, highest))]
        while pending:
            first, last = pending.pop()
            try:
                found = source.execute(sql, (first, last)).fetchall()
            except sqlite3.Error:
                if first == last:
                    yield None
                else:
                    middle = (first + last) // 2
                    pending += [(middle + 1, last), (first, middle)]
                continue
            for row in found:
                yield row if _plausible(row) else None


def _plausible(row: tuple[Any, ...]) -> bool:
    """Whether a row has the types of one; a page of other bytes may look like a page."""
    kinds = (str, str, str, int, int | None, str, str)
    return all(isinstance(value, kind) for value, kind in zip(row, kinds, strict=True))


def _keys(name: str) -> list[str]:
    return [column.name for column in SEGMENT_RECORDS[name].primary_key]


def read_records(source: sqlite3.Connection, name: str, keys: list[str]) -> tuple[list[Row], bool]:
    """Rows of a table without large rows, from both of its ends, and whether these are all."""
    found: dict[tuple[Any, ...], Row] = {}
    for order in ("ASC", "DESC"):
        try:
            cursor = source.execute(f"SELECT * FROM {name} ORDER BY {', '.join(f'{key} {order}' for key in keys)}")
            names = [column[0] for column in cursor.description]
            for values in cursor:
                row = dict(zip(names, values, strict=True))
                found[tuple(row[key] for key in keys)] = row
            return list(found.values()), True
        except sqlite3.Error:
            continue
    return list(found.values()), False


def _insert(connection: Any, name: str, rows: list[Row]) -> None:
    columns = {column.name for column in SEGMENT_RECORDS[name].c}
    for row in rows:
        values = {key: value for key, value in row.items() if key in columns}
        connection.exec_driver_sql(
            f"INSERT INTO {name} ({', '.join(values)}) VALUES ({', '.join('?' * len(values))}) ON CONFLICT DO NOTHING",
            tuple(values.values()),
        )


def fsync(path: Path) -> None:
    """Make a file, or the names in a directory, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
