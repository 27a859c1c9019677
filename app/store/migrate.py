"""Brings a file of an older schema up to this version, where it may be written: the ledger and the open segment.

A sealed segment is never written again: it is read as it is, and what its version did not have reads as empty.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, MetaData

from app.errors import CollectorError
from app.store.schema import SCHEMA_VERSION

#: By the version they lead to: the statements beside the making of new tables.
_STEPS: dict[int, tuple[str, ...]] = {
    2: (
        "ALTER TABLE epochs ADD COLUMN kind TEXT NOT NULL DEFAULT 'stream'",
        "ALTER TABLE epochs ADD COLUMN overlaps TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE gaps DROP COLUMN repair",
        "ALTER TABLE ranges ADD COLUMN first_id TEXT",
        "ALTER TABLE ranges ADD COLUMN last_id TEXT",
        "ALTER TABLE ranges ADD COLUMN first_us BIGINT",
        "ALTER TABLE ranges ADD COLUMN last_us BIGINT",
    ),
    3: (
        "ALTER TABLE epochs ADD COLUMN after TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX IF NOT EXISTS gaps_by_time ON gaps (after_us)",
        "CREATE INDEX IF NOT EXISTS losses_by_time ON losses (end_us)",
        "CREATE INDEX IF NOT EXISTS repairs_by_time ON repairs (found_us)",
    ),
}


def prepare(connection: Connection, tables: MetaData, path: Path, meta: dict[str, str]) -> dict[str, str]:
    """Make the tables, or migrate them, inside the caller's transaction; returns what `meta` in the file says then.

    `meta` is written where it is not there yet. Raises: CollectorError when the file is of a newer version.
    """
    tables.create_all(connection)
    connection.exec_driver_sql(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO NOTHING",
        list({"schema_version": str(SCHEMA_VERSION), **meta}.items()),
    )
    held = {key: value for key, value in connection.exec_driver_sql("SELECT key, value FROM meta")}
    version = readable(path, held)
    for step in range(version + 1, SCHEMA_VERSION + 1):
        for statement in _STEPS[step]:
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql("UPDATE meta SET value = ? WHERE key = 'schema_version'", (str(step),))
    return held | {"schema_version": str(SCHEMA_VERSION)}


def readable(path: Path, meta: dict[str, str]) -> int:
    """The schema version of a file. Raises: CollectorError when this version cannot read it."""
    said = meta.get("schema_version", "")
    if not said.isdecimal() or not 1 <= int(said) <= SCHEMA_VERSION:
        raise CollectorError(
            f"{path}: schema {said or 'unknown'}; this version reads 1 to {SCHEMA_VERSION}:"
            " run the version that wrote it, or a newer one"
        )
    return int(said)
