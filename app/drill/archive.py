"""Faults of the archive: its process killed at a place where it was seen to be, its store away or taken."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from app.clock import monotonic_s
from app.drill.installation import NEVER, PATIENCE_S, Broken, Installation
from app.drill.processes import archived
from app.drill.verdict import Seen
from app.objects import layout
from app.objects.local import INCOMING
from app.pipeline import periodic
from app.store.ledger import OPEN, REMOVED, REMOVING, SEALED, VERIFIED, WRITTEN

#: Where an archive process can be: returns the number of the segment it is at, None while it is elsewhere.
Place = Callable[[Installation], int | None]


def writing(site: Installation) -> int | None:
    """Parquet is being written: it has no name yet."""
    return next((int(path.relative_to(_work(site)).parts[0]) for path in _work(site).rglob(".*.tmp")), None)


def written(site: Installation) -> int | None:
    """Parquet is written, and nothing of it is in the store."""
    if _incoming(site):
        return None
    for path in _work(site).rglob("*.parquet"):
        number, exchange, symbol, name = path.relative_to(_work(site)).parts
        opened = {entry.number: entry.opened_us for entry in site.wiring.ledger.segments(SEALED)}
        if int(number) in opened:
            key = layout.object_key(exchange, symbol, name.removesuffix(".parquet"), opened[int(number)], None, 0)
            if not (_objects(site) / key).exists():
                return int(number)
    return None


def uploading(site: Installation) -> int | None:
    """A part of the object is in the store, under no key."""
    path = next(_work(site).rglob("*.parquet"), None)
    return int(path.relative_to(_work(site)).parts[0]) if path is not None and _incoming(site) else None


def uploaded(site: Installation) -> int | None:
    """The object stands under its key, and is not proved."""
    for entry in site.wiring.ledger.objects():
        if entry.state == WRITTEN and (_objects(site) / entry.key).exists():
            return entry.segment
    return None


def removing(site: Installation) -> int | None:
    """Everything is proved and on record, and the segment's file is still there, or what is left of it."""
    return next((entry.number for entry in site.wiring.ledger.segments(REMOVING) if entry.rows), None)


def _work(site: Installation) -> Path:
    return site.wiring.settings.archive.dir


def _objects(site: Installation) -> Path:
    return site.wiring.settings.storage.local_path


def _incoming(site: Installation) -> bool:
    return any(path.stat().st_size for path in (_objects(site) / INCOMING).glob("*.tmp") if path.exists())


def killed_at(place: Place) -> Callable[[Installation], Seen]:
    """K4 to K8: frozen, looked at, and killed where it is there."""

    def strike(site: Installation) -> Seen:
        number = _freeze_at(site, place)
        os.kill(site.processes.pid("archive"), signal.SIGKILL)
        done = _removed if place is removing else archived
        again_s = site.wait(lambda: done(site, number), f"segment {number} is archived", 2 * PATIENCE_S)
        keys = [entry.key for entry in site.wiring.ledger.objects(number) if entry.state == VERIFIED]
        if second := [key for key in keys if "-" in key.rpartition("/")[2]]:
            raise Broken(f"another key than the first: {second[0]}")
        return Seen(again_s, f"segment {number}: {len(keys)} objects, each under its first key")

    return strike


def _removed(site: Installation, number: int) -> bool:
    return any(entry.number == number for entry in site.wiring.ledger.segments(REMOVED))


def _freeze_at(site: Installation, place: Place) -> int:
    """Returns the segment that the archive process, which stands still now, is at. Raises: Broken."""

    def there() -> int | None:
        try:
            number = place(site)
        except FileNotFoundError:  # it went on while we looked
            return None
        # What another one left when it was killed looks the same.
        holder = site.wiring.lease("lock:archive", 1.0).holder() if number is not None else None
        return number if holder and holder.split(":")[1] == str(site.processes.pid("archive")) else None

    began_s = monotonic_s()
    while monotonic_s() - began_s < 2 * PATIENCE_S:
        if there() is None:
            site.check()
            NEVER.wait(0.0005)
            continue
        pid, number = site.processes.pid("archive"), None
        os.kill(pid, signal.SIGSTOP)
        try:
            number = there()
        finally:
            if number is None:  # also where the look failed: nobody else would let it go on
                os.kill(pid, signal.SIGCONT)
        if number is not None:
            return number
    raise Broken(f"not struck: the archive was never seen where {(place.__doc__ or '').rstrip('.')}")


def longer_than_its_interval(site: Installation) -> Seen:
    """C2: a cycle that stands still; another one meanwhile."""
    number = _freeze_at(site, uploading)
    pid = site.processes.pid("archive")
    try:
        told = periodic.archive(site.wiring, NEVER)
    finally:
        os.kill(pid, signal.SIGCONT)
    if not told.get("skipped"):
        raise Broken(f"a second cycle ran beside the first: {told}")
    again_s = site.wait(lambda: archived(site, number), f"segment {number} is archived")
    return Seen(again_s, "the second cycle skipped, the first one went on")


def store_away(site: Installation) -> Seen:
    """S9: a file stands in the place of the store's directory until two segments wait."""
    objects = _objects(site)
    aside = objects.with_name("objects.away")
    with site.archive_in_use:
        before = {entry.number for entry in site.wiring.ledger.segments(SEALED) if not archived(site, entry.number)}
        objects.rename(aside)
        objects.write_text("no directory\n")
        try:
            site.wait(lambda: len(_waiting(site) - before) >= 2, "two segments wait")
        finally:
            objects.unlink()
            aside.rename(objects)
    waiting = _waiting(site)
    # A cycle is due after a seal, or a minute after the last one.
    again_s = site.wait(lambda: all(archived(site, number) for number in waiting), "they are archived")
    return Seen(again_s, f"{len(waiting)} segments waited")


def _waiting(site: Installation) -> set[int]:
    return {entry.number for entry in site.wiring.ledger.segments(SEALED) if not archived(site, entry.number)}


def key_taken(site: Installation) -> Seen:
    """S10."""
    (entry,) = site.wiring.ledger.segments(OPEN)
    key = layout.object_key("binance", "btcusdt", "trade", entry.opened_us, None, 0)
    path, foreign = _objects(site) / key, b"somebody else's"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(foreign)
    try:
        again_s = site.wait(lambda: archived(site, entry.number), f"segment {entry.number} is archived")
        if path.read_bytes() != foreign:
            raise Broken(f"{key} was overwritten")
    finally:
        path.unlink(missing_ok=True)
    mine = [o.key for o in site.wiring.ledger.objects(entry.number) if o[1:4] == ("binance", "btcusdt", "trade")]
    return Seen(again_s, f"the object stands under {mine[0].rpartition('/')[2]}")
