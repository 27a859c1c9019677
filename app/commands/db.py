"""`collector db`: look into the segments."""

from __future__ import annotations

import code
import sqlite3
import sys
from pathlib import Path
from urllib.parse import quote

import click

from app.commands.settings import wired
from app.store.ledger import OPEN, SEALED, SEALING

#: SQLite attaches at most ten databases.
MAX_ATTACHED = 10


@click.command()
@click.option("--sql", help="Run one statement, print the rows tab-separated, and leave.")
@click.option("--paths", is_flag=True, help="Only print the paths of the segments, one a line.")
def db(sql: str | None, paths: bool) -> None:
    """Open the newest segments, read-only, as one database.

    The views `orderbooks`, `trades`, `ranges`, `epochs`, `gaps`, `losses` and `quarantine` unite all attached segments
    (SQLite allows ten; the newest are taken), each with a column `segment`. The ledger is attached as `ledger`.

    \b
    collector db --sql "select exchange, symbol, count(*) from trades group by 1, 2"
    """
    wiring = wired()
    root = wiring.settings.storage.segments_path
    found = [(entry.number, root / entry.path) for entry in wiring.ledger.segments(OPEN, SEALING, SEALED)]
    if paths:
        for _, path in found:
            click.echo(path)
        return
    connection = attach(found[-MAX_ATTACHED + 1 :], wiring.ledger.path)
    if sql is not None:
        try:
            for row in connection.execute(sql):
                click.echo("\t".join("" if value is None else str(value) for value in row))
        except sqlite3.Error as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(2)
        return
    for number, path in found:
        click.echo(f"segment {number}: {path}", err=True)
    if len(found) >= MAX_ATTACHED:
        click.echo(f"only the newest {MAX_ATTACHED - 1} are attached", err=True)
    _shell(connection)


def attach(segments: list[tuple[int, Path]], ledger: Path) -> sqlite3.Connection:
    """A read-only connection with a view over each table of `segments`."""
    connection = sqlite3.connect(":memory:", uri=True)
    connection.execute(f"ATTACH 'file:{quote(str(ledger.absolute()))}?mode=ro' AS ledger")
    for number, path in segments:
        connection.execute(f"ATTACH 'file:{quote(str(path.absolute()))}?mode=ro' AS segment{number}")
    for table in ("orderbooks", "trades", "ranges", "epochs", "gaps", "losses", "quarantine"):
        parts = [f"SELECT {number} AS segment, * FROM segment{number}.{table}" for number, _ in segments]
        if parts:
            connection.execute(f"CREATE TEMP VIEW {table} AS {' UNION ALL '.join(parts)}")
    connection.execute("PRAGMA query_only = 1")
    return connection


class _SqlConsole(code.InteractiveConsole):
    """Reads statements until they are complete, runs them, prints the rows."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__()
        self._connection = connection

    def runsource(self, source: str, filename: str = "", symbol: str = "") -> bool:
        if source.strip() in (".quit", ".exit"):
            raise SystemExit
        if not source.strip():
            return False
        if not sqlite3.complete_statement(source):
            return True
        try:
            for row in self._connection.execute(source):
                click.echo("\t".join("" if value is None else str(value) for value in row))
        except sqlite3.Error as error:
            click.echo(f"error: {error}")
        return False


def _shell(connection: sqlite3.Connection) -> None:
    sys.ps1, sys.ps2 = "sqlite> ", "   ...> "
    banner = "SQL statements end with a semicolon; .quit leaves." if sys.stdin.isatty() else ""
    _SqlConsole(connection).interact(banner, exitmsg="")
