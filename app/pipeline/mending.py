"""Damaged segments are found, salvaged and put on record; recording goes on in what takes their place.

The flush looks when its process starts and whenever SQLite calls a file malformed, the archive when it cannot read one. The
open segment is only ever mended by the run that holds the flush's lock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from app import telemetry_disk
from app.clock import wall_us
from app.errors import BufferUnavailable, CollectorError
from app.objects import manifest, parquet
from app.objects.store import Store
from app.store.ledger import OPEN, SEALED, SEALING, VERIFIED, ObjectEntry, SegmentEntry
from app.store.salvage import Salvaged, damage_of, finish, salvage
from app.store.segment import SealedSegment
from app.wiring import LOCK_SECS, Wiring

#: So long `collector status` says that a segment was damaged.
TOLD_S = 86_400.0
#: What SQLite says of a damaged file, whatever else the sentence says.
_WORDS = ("malformed", "not a database", "Could not decode to UTF-8")


def named_damaged(failed: dict[str, str]) -> set[int]:
    """Segments that a report of the archive names (`segment 7 ...`), with what SQLite says of damaged files."""
    named = ((re.match(r"segment (\d+)", subject), why) for subject, why in failed.items())
    return {int(found[1]) for found, why in named if found and any(word in why for word in _WORDS)}


def mend(wiring: Wiring, states: Collection[str], suspected: Collection[int] = ()) -> dict[int, Salvaged]:
    """Salvage what is damaged of the segments in `states`: of the sealed ones only the newest and those `suspected`.

    Returns what became of each. One that cannot be salvaged now (a store that is away, a full disk) stays as it is.
    Raises: SQLAlchemy's errors for an unusable ledger, BufferUnavailable.
    """
    lease = wiring.lease("lock:salvage", 10 * LOCK_SECS)
    if not lease.acquire():
        return {}
    mended = {}
    try:
        entries = wiring.ledger.segments(*states)
        newest = max((entry.number for entry in entries if entry.state == SEALED), default=0)
        for entry in entries:
            if entry.state == SEALED and entry.number != newest and entry.number not in suspected:
                continue
            try:
                if (salvaged := _mend(wiring, entry, entry.number in suspected)) is not None:
                    mended[entry.number] = salvaged
            except (SQLAlchemyError, OSError, CollectorError, ValueError) as error:
                telemetry_disk.salvage_failed(entry.number, error)
    finally:
        lease.release()
    return mended


def _mend(wiring: Wiring, entry: SegmentEntry, suspected: bool) -> Salvaged | None:
    path = wiring.settings.storage.segments_path / entry.path
    finish(path, wall_us())  # a salvage that was stopped just before its end
    if not path.exists() or not path.stat().st_size:
        return None  # not made yet; and one that is gone may come back with its file system
    fault = damage_of(path)
    if (not fault and not suspected) or entry not in wiring.ledger.segments(entry.state):
        return None  # nothing is wrong, or it is being removed at this moment
    telemetry_disk.segment_damaged(entry.number, str(path), fault or "texts that are none")
    now_us = wall_us()
    stores = {store.name: store for store in wiring.stores}
    objects = [o for o in wiring.ledger.objects(entry.number) if o.state == VERIFIED and o.store in stores]
    stored = {o[1:4]: _stored(stores[o.store], o) for o in objects}
    salvaged = salvage(
        path, entry.number, wiring.ledger.data_directory, entry.opened_us,
        None if entry.state == OPEN else entry.sealed_us or now_us,
        now_us=now_us, stored=stored, elsewhere=lambda epochs: _elsewhere(wiring, entry, epochs),
    )  # fmt: skip
    if entry.state == SEALED:
        wiring.ledger.move_segment(entry.number, SEALED, SEALED, rows=salvaged.rows)
    kept = f"{path}.corrupt-{now_us // 1_000_000}"
    telemetry_disk.segment_salvaged(entry.number, kept, salvaged.rows, salvaged.lost, salvaged.losses)
    said = f"segment {entry.number} was damaged: {salvaged.rows} rows kept, {salvaged.lost} lost, see {kept}"
    try:
        wiring.board.trouble("segments", {"level": "degraded", "since_us": now_us, "detail": said}, TOLD_S)
    except BufferUnavailable:
        pass  # it is on record all the same
    return salvaged


def _stored(
    store: Store, entry: ObjectEntry
) -> tuple[list[dict[str, Any]], Callable[[], Iterable[Iterable[tuple[Any, ...]]]]]:
    """The ranges of a proved object, as rows of the table, and its rows."""
    assert entry.manifest_key is not None
    with store.open(entry.manifest_key) as file:
        told = manifest.decode(file.read())
    market = {"exchange": entry.exchange, "symbol": entry.symbol, "feed": entry.data_type}
    ranges = [{**{name: getattr(r, name) for name in r.__struct_fields__}, **market} for r in told.ranges]

    def rows() -> Iterator[list[tuple[Any, ...]]]:
        with store.open(entry.key) as file:
            for chunk in parquet.read(file):
                yield [tuple(row) for row in chunk]

    return ranges, rows


def _elsewhere(wiring: Wiring, damaged: SegmentEntry, epochs: set[str]) -> list[dict[str, Any]]:
    """Ranges and known losses that other segments and the ledger hold of `epochs`, and of those that went on meanwhile."""
    ends_us = damaged.sealed_us or wall_us()
    told: list[tuple[bool, dict[str, list[dict[str, Any]]]]] = [
        (False, {name: wiring.ledger.records(name) for name in ("epochs", "ranges", "losses")})
    ]
    for entry in wiring.ledger.segments(OPEN, SEALING, SEALED):
        if entry.number == damaged.number:
            continue
        segment = SealedSegment(wiring.settings.storage.segments_path / entry.path, settled=entry.state == SEALED)
        try:
            found = {name: segment.records(name) for name in ("epochs", "ranges", "losses")}
        except (SQLAlchemyError, OSError) as error:
            telemetry_disk.segment_unreadable(entry.number, error)
            continue
        told.append((entry.number > damaged.number, found))
    for _, records in told:
        for epoch in records["epochs"]:
            if epoch["opened_us"] < ends_us and (epoch["ended_us"] or ends_us) > damaged.opened_us:
                epochs = epochs | {str(epoch["epoch"])}
    return [
        {**row, "later": later}
        for later, records in told
        for row in [*records["ranges"], *(loss for loss in records["losses"] if loss["count"] is not None)]
        if row["epoch"] in epochs
    ]
