"""SQLite engines: pragmas, explicit transactions, and what an SQLite error means."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import sleep
from typing import Any
from urllib.parse import quote

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from app.clock import monotonic_s

#: A writer waits so long for another before it gives up with "locked"; the data stays where it came from.
BUSY_TIMEOUT_MS = 5_000


def writable(path: Path, *, page_size: int | None = None) -> Engine:
    """An engine on a file that may be written: `synchronous=FULL`, every transaction `BEGIN IMMEDIATE` (but `looking`).

    FULL because Redis forgets a batch as soon as it is acknowledged; NORMAL does not sync the log at a commit. No
    connection is kept between transactions' blocks: a file with no connection can be sealed.
    """
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        if page_size:
            connection.execute(f"PRAGMA page_size={page_size}")
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA cache_size=-32768")
        connection.execute("PRAGMA temp_store=MEMORY")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN IMMEDIATE"))

    return engine


def looking(engine: Engine) -> Engine:
    """The same file for transactions that only read: with a log beside it they wait for no writer, and none for them."""
    return engine.execution_options(begin="BEGIN")


def begin_wal(engine: Engine) -> None:
    """Put a file into WAL mode, which it then keeps; nothing changes where it has it.

    Not done at every connect: a sealed segment has left it for good.
    """
    until_s = monotonic_s() + BUSY_TIMEOUT_MS / 1000
    with bare(engine) as cursor:
        while True:
            try:
                cursor.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:  # of two that begin at once SQLite lets neither wait
                if classify(error) != "locked" or monotonic_s() > until_s:
                    raise
                sleep(0.01)


@contextmanager
def bare(engine: Engine) -> Iterator[Any]:
    """A cursor outside any transaction. Raises: DBAPIError, as a connection of the engine does."""
    try:
        with closing(engine.raw_connection()) as raw:
            yield raw.cursor()
    except sqlite3.Error as error:
        raise DBAPIError(None, None, error) from error


def readonly(path: Path, *, immutable: bool = False) -> Engine:
    """An engine that cannot write. `immutable` is for sealed segments only: SQLite then takes no locks at all."""
    mode = "mode=ro&immutable=1" if immutable else "mode=ro"  # without mode=ro a file that is gone would be made anew
    url = f"file:{quote(str(path.absolute()))}?{mode}"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(url, uri=True, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None)
        connection.execute("PRAGMA query_only=1")
        return connection

    return create_engine("sqlite://", creator=connect, poolclass=NullPool)


def classify(error: Exception) -> str:
    """`locked, full, io, damaged, constraint` or `other`: what the caller may do about a failed statement."""
    original = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(original, "sqlite_errorcode", None)
    primary = code & 0xFF if isinstance(code, int) else None
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:  # the index of the log has no room
        return "full"
    kinds = {
        sqlite3.SQLITE_BUSY: "locked",
        sqlite3.SQLITE_LOCKED: "locked",
        sqlite3.SQLITE_FULL: "full",
        sqlite3.SQLITE_IOERR: "io",
        sqlite3.SQLITE_READONLY: "io",
        sqlite3.SQLITE_CANTOPEN: "io",
        sqlite3.SQLITE_CORRUPT: "damaged",
        sqlite3.SQLITE_NOTADB: "damaged",
        sqlite3.SQLITE_CONSTRAINT: "constraint",
        sqlite3.SQLITE_TOOBIG: "constraint",
        sqlite3.SQLITE_MISMATCH: "constraint",
    }
    if primary in kinds:
        return kinds[primary]
    if isinstance(original, (OverflowError, UnicodeError, sqlite3.InterfaceError, sqlite3.ProgrammingError)):
        return "constraint"
    if isinstance(original, OSError):
        return "full" if original.errno in (errno.ENOSPC, errno.EDQUOT) else "io"
    if "Could not decode to UTF-8" in str(original):  # no other page, but other bytes than were written
        return "damaged"
    return "other"
