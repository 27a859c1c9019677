"""What a batch says beside its events, written into the record tables of a segment. Each record has a natural key, so a
replay changes nothing."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection

from app.model import UNCLEAN_END, Batch


def write(connection: Connection, batch: Batch) -> None:
    """Epoch, gaps, losses, repairs and checks of `batch`, inside the caller's transaction."""
    connection.exec_driver_sql(
        "INSERT INTO epochs (epoch, stream, exchange, opened_us, kind, overlaps, after) VALUES (?, ?, ?, ?, ?, ?, ?)"
        # A finding about an epoch may come before anything else of it does.
        " ON CONFLICT (epoch) DO UPDATE SET kind = excluded.kind, overlaps = excluded.overlaps,"
        " after = excluded.after, opened_us = excluded.opened_us"
        " WHERE kind = 'finding' AND excluded.kind != 'finding'",
        (batch.epoch, batch.stream, batch.exchange, batch.opened_us, batch.kind, _json(batch.overlaps), batch.after),
    )
    if batch.end is not None:
        connection.exec_driver_sql(
            # What a connection said of its end itself stays, whatever is found out about it.
            "UPDATE epochs SET ended_us = ?, reason = ?, last_numbers = ?"
            f" WHERE epoch = ? AND (reason IS NULL OR reason = '{UNCLEAN_END}' OR ? != '{UNCLEAN_END}')",
            (batch.end.ended_us, batch.end.reason, _json([[r.symbol, r.feed, r.last] for r in batch.end.last_numbers]),
             batch.epoch, batch.end.reason),
        )  # fmt: skip
    for gap in batch.gaps:
        connection.exec_driver_sql(
            "INSERT INTO gaps (epoch, exchange, symbol, feed, number, from_id, to_id, size, before_us, after_us, cause)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (batch.epoch, batch.exchange, gap.symbol, gap.feed, gap.number, gap.from_id, gap.to_id, gap.size,
             gap.before_us, gap.after_us, gap.cause),
        )  # fmt: skip
    for loss in batch.losses:
        connection.exec_driver_sql(
            "INSERT INTO losses (epoch, exchange, symbol, feed, first, last, count, start_us, end_us, cause)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            # Of unknown extent until something later is stored: then it is known.
            " ON CONFLICT DO UPDATE SET last = excluded.last, count = excluded.count, start_us = excluded.start_us,"
            " end_us = excluded.end_us, cause = excluded.cause WHERE count IS NULL AND excluded.count IS NOT NULL",
            (batch.epoch, batch.exchange, loss.symbol, loss.feed, loss.first, loss.last, loss.count, loss.start_us,
             loss.end_us, loss.cause),
        )  # fmt: skip
    for repair in batch.repairs:
        connection.exec_driver_sql(
            "INSERT INTO repairs (epoch, exchange, symbol, feed, number, found_us, state, found, detail, by_epoch)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (repair.epoch, batch.exchange, repair.symbol, repair.feed, repair.number, repair.found_us, repair.state,
             repair.found, repair.detail, batch.epoch),
        )  # fmt: skip
    for check in batch.checks:
        connection.exec_driver_sql(
            "INSERT INTO checks (exchange, symbol, feed, kind, start_us, checked_us, end_us, verdict, detail)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (batch.exchange, check.symbol, check.feed, check.kind, check.start_us, check.checked_us, check.end_us,
             check.verdict, check.detail),
        )  # fmt: skip


def set_aside(
    connection: Connection,
    batch: Batch,
    symbol: str,
    feed: str,
    number: int,
    received_us: int,
    reason: str,
    frame: bytes,
) -> None:
    """Put bytes that cannot be stored as what they claim to be into the quarantine."""
    connection.exec_driver_sql(
        "INSERT INTO quarantine (epoch, exchange, symbol, feed, number, received_us, reason, frame)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (batch.epoch, batch.exchange, symbol, feed, number, received_us, reason, frame),
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
