"""What keeps a station (flush, archive) from its work, on the board: `collector status` and `/health` say it.

A station whose disk is full, read-only or broken does not fail: its run ends, the data stays where it is, the next run
tries again, and the first one that succeeds takes the notice off.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from app import telemetry_disk
from app.clock import wall_us
from app.errors import BufferUnavailable, CollectorError
from app.pipeline.room import FULL, LOW, Room
from app.store.engine import classify
from app.wiring import Wiring

Report = dict[str, Any]

#: Kinds of `classify`, in words.
WORDS = {
    "full": "the disk is full",
    "io": "the disk cannot be written or read",
    "damaged": "a database is damaged",
    "locked": "a database is locked",
}
#: A notice outlives so many of its station's runs that should have renewed it.
RUNS = 3


def watched(wiring: Wiring, station: str, every_s: float, run: Callable[[], Report]) -> Report:
    """`run()`, and on the board what its report names as failed, or as short of room.

    An error of disk or database is such a report, not an exception. Raises: whatever else `run` raises.
    """
    notice: dict[str, str] | None
    try:
        report = run()
        notice = _notice(report)
    except (OSError, SQLAlchemyError) as error:
        kind = classify(error)
        telemetry_disk.station_failed(station, kind, error)
        wiring.segments_in_doubt |= kind == "damaged"
        report = {"failed": {station: kind}}
        notice = {"level": "degraded", "detail": f"{WORDS.get(kind, kind)}: {_line(error)}"}
    except CollectorError as error:
        if isinstance(error, BufferUnavailable):
            raise
        _tell(wiring, station, every_s, {"level": "degraded", "detail": str(error)})
        raise
    if "skipped" not in report:
        _tell(wiring, station, every_s, notice)
        if notice is None or notice["level"] != "degraded":
            succeeded(wiring, station)
    return report


def succeeded(wiring: Wiring, station: str) -> None:
    """Put on the board that a run of a station ended without trouble."""
    with suppress(BufferUnavailable):
        wiring.board.succeeded(station, wall_us() // 1_000_000)


def room_of(wiring: Wiring) -> Room:
    """The room on the disk; said once a minute when it is getting low. Raises: OSError."""
    room = wiring.disk.room()
    if room.level:
        telemetry_disk.disk_filling(str(room), full=room.level == FULL)
    return room


def _notice(report: Report) -> dict[str, str] | None:
    failed, room = report.get("failed") or {}, report.get("room")
    if room is not None and room["level"] == FULL:
        waits = "nothing more is taken out of Redis until there is room"
        return {"level": "degraded", "detail": f"disk: {room['detail']}; {waits}"}
    if failed:
        subject, why = next(iter(failed.items()))
        others = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        return {"level": "degraded", "detail": f"{subject}: {WORDS.get(why, why)}{others}"}
    if room is not None and room["level"] == LOW:
        return {"level": "warning", "detail": f"disk: {room['detail']}"}
    return None


def _tell(wiring: Wiring, station: str, every_s: float, notice: dict[str, str] | None) -> None:
    with suppress(BufferUnavailable):  # then `status` says that
        if notice is None:
            wiring.board.all_well(station)
        else:
            known = wiring.board.troubles().get(station, {})
            wiring.board.trouble(station, {"since_us": wall_us(), **known, **notice}, max(60.0, RUNS * every_s))


def _line(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]
