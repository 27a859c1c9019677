"""A ledger written anew from rows, and what can still be read of one that is damaged."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from app.store.engine import bare, begin_wal, writable
from app.store.migrate import prepare
from app.store.salvage import BESIDE, finish, fsync, read_records
from app.store.schema import ledger

Row = dict[str, Any]


def rows_of(path: Path) -> dict[str, list[Row]]:
    """Every row of a ledger that can be read, by table; none of a file that is gone or no database."""
    tables: dict[str, list[Row]] = {table.name: [] for table in ledger.sorted_tables}
    if not path.exists():
        return tables
    with closing(sqlite3.connect(f"file:{path.absolute()}?mode=ro", uri=True)) as source:
        for table in ledger.sorted_tables:
            keys = [column.name for column in table.primary_key]
            tables[table.name], _ = read_records(source, table.name, keys)
    return tables


def replace(path: Path, data_directory: str, tables: dict[str, Iterable[Row]], now_us: int) -> None:
    """Put a ledger with these rows in the place of `path`, which is kept as `<name>.corrupt-<time>` where there was one.

    Raises: DBAPIError, OSError; what is there is untouched then.
    """
    new = path.with_name(f"{path.name}.salvaging")
    new.parent.mkdir(parents=True, exist_ok=True)
    for leftover in (new, *(new.with_name(new.name + end) for end in BESIDE)):
        leftover.unlink(missing_ok=True)
    engine = writable(new)
    begin_wal(engine)
    with engine.begin() as connection:
        prepare(connection, ledger, new, {"data_directory": data_directory})
        for table in ledger.sorted_tables:
            names = {column.name for column in table.c}
            rows = [{k: v for k, v in row.items() if k in names} for row in tables.get(table.name, ())]
            if table.name == "meta":
                continue
            for row in rows:
                connection.execute(insert(table), row)
    with bare(engine) as cursor:
        cursor.execute("PRAGMA journal_mode=DELETE")
    fsync(new)
    os.replace(new, path.with_name(f"{path.name}.salvaged"))
    finish(path, now_us)
