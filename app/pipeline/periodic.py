"""Flush, archive and repair as beat runs them: one at a time, by a renewed lock; a second run is a no-op that says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from app import telemetry, telemetry_archive, telemetry_disk
from app.buffer.lease import Holding
from app.clock import wall_us
from app.errors import BufferFull, BufferUnavailable, CollectorError, Interrupted
from app.pipeline import reckoning
from app.pipeline.mending import TOLD_S, mend, named_damaged
from app.pipeline.rebuild import RebuildReport, rebuild
from app.pipeline.room import FULL
from app.pipeline.trouble import room_of, succeeded, watched
from app.store.ledger import OPEN, SEALED, SEALING
from app.store.salvage import damage_of
from app.wiring import LOCK_SECS, OWNER_SECS, Wiring

#: A flush run ends after this even if more waits than it can take in that time, so that a turn-over is never missed.
FLUSH_DEADLINE_S = 20.0
#: A run that judges books ends after this and goes on the next minute: the archive waits in the same queue.
CERTIFY_DEADLINE_S = 20.0
#: A run of repairs asks no more after this: the next one is due.
REPAIR_DEADLINE_S = 8.0


@contextmanager
def _alone(wiring: Wiring, name: str) -> Iterator[Callable[[], bool] | None]:
    """Holds the lock of `name`, renewed from a thread; yields a question "still ours?", or None when it is taken."""
    if (left := wiring.unreleased.get(name)) is not None:
        left.release()  # a Redis that was away may have kept it
        wiring.unreleased.pop(name, None)
    lease = wiring.lease(f"lock:{name}", LOCK_SECS)
    try:
        if not lease.acquire():
            yield None
            return
    except BufferFull:  # a full Redis takes no lock; it is emptied all the same, for the lock only saves work
        yield lambda: True
        return
    except BufferUnavailable:
        wiring.unreleased[name] = lease  # it may have been taken all the same
        raise
    done, lost = threading.Event(), threading.Event()

    def renew() -> None:
        while not done.wait(LOCK_SECS / 3):
            try:
                if lease.renew() is not Holding.OURS:
                    lost.set()
                    return
            except BufferUnavailable:
                continue  # nobody else can take it either

    thread = threading.Thread(target=renew, name=f"lock {name}", daemon=True)
    thread.start()
    try:
        yield lambda: not lost.is_set()
    finally:
        done.set()
        thread.join()
        try:
            lease.release()
        except BufferUnavailable:
            wiring.unreleased[name] = lease  # it runs out by itself, but this process need not wait for that


def flush(
    wiring: Wiring, stop: threading.Event, *, deadline_s: float | None = FLUSH_DEADLINE_S, seal: bool = False
) -> dict[str, object]:
    """One flush run; `seal` then seals the open segment whatever its age.

    Nothing is claimed while the disk is full (`room` of the report). What a disk or database refuses is `failed` there,
    and on the board. Raises: OwnedElsewhere, BufferUnavailable.
    """
    every_s = wiring.settings.collector.batch_interval_secs
    return watched(wiring, "flush", every_s, lambda: _flush(wiring, stop, deadline_s=deadline_s, seal=seal))


def _flush(wiring: Wiring, stop: threading.Event, *, deadline_s: float | None, seal: bool) -> dict[str, object]:
    if wiring.segments_in_doubt:
        _mend_ledger(wiring)
    wiring.claim_ownership("flush", wiring.owner, OWNER_SECS)
    with _alone(wiring, "flush") as ours:
        if ours is None:
            telemetry.flush_skipped("another run is going on")
            return {"skipped": "another run is going on"}
        if stop.is_set():
            return {"skipped": "this worker is stopping"}
        if wiring.segments_in_doubt:
            mend(wiring, (OPEN, SEALING, SEALED))
            wiring.segments_in_doubt = False
        run = wiring.flush()
        room = room_of(wiring)

        def keep_going() -> bool:
            nonlocal room
            room = room_of(wiring)
            return room.level != FULL and ours() and not stop.is_set()

        report = run.run(deadline_s=deadline_s, keep_going=keep_going)
        wiring.segments_in_doubt = "damaged" in report.failed.values()
        if seal and not report.failed:
            run.turn_over(report, now=True)
        return report.as_dict() | ({"room": {"level": room.level, "detail": str(room)}} if room.level else {})


def archive(wiring: Wiring, stop: threading.Event, *, final: bool = False) -> dict[str, object]:
    """One archive cycle. Raises: OwnedElsewhere, StoreError when no store can be used at all, BufferUnavailable."""
    every_s = wiring.settings.collector.archive_interval_secs
    return watched(wiring, "archive", every_s, lambda: _archive(wiring, stop, final=final))


def _archive(wiring: Wiring, stop: threading.Event, *, final: bool) -> dict[str, object]:
    server = wiring.settings.aws.home_server_name or "(no server name)"
    every_s, deadline_s = wiring.settings.collector.archive_interval_secs, wiring.settings.archive.deadline_secs
    for store in wiring.stores:
        what = f"store:{store.name}:{server}".replace(" ", "_")
        wiring.claim_ownership(what, wiring.owner, 2 * every_s + len(wiring.stores) * deadline_s)
    with _alone(wiring, "archive") as ours:
        if ours is None:
            telemetry_archive.archive_skipped("another cycle is going on")
            return {"skipped": "another cycle is going on"}
        if stop.is_set():
            return {"skipped": "this worker is stopping"}
        try:
            cycle = partial(wiring.archive().run, final=final, keep_going=lambda: ours() and not stop.is_set())
            report = cycle()
            if report.removed_segments:
                wiring.ledger.backup()  # their records are there alone
            if (damaged := named_damaged(report.failed)) and mend(wiring, (SEALED,), damaged):
                report = cycle()
            return report.as_dict()
        except Interrupted as error:
            telemetry_archive.archive_skipped(str(error))
            return {"skipped": str(error)}


def certify(
    wiring: Wiring, stop: threading.Event, *, deadline_s: float = CERTIFY_DEADLINE_S, final: bool = False
) -> dict[str, object]:
    """One run of the certification of books; `final` puts verdicts that could still grow on record too.

    Raises: BufferUnavailable, SQLAlchemy's errors for an unusable ledger.
    """
    with _alone(wiring, "books") as ours:
        if ours is None:
            return {"skipped": "another run is going on"}
        wiring.replan()
        run = wiring.certifier.run
        report = run(deadline_s=deadline_s, keep_going=lambda: ours() and not stop.is_set(), final=final).as_dict()
        succeeded(wiring, "certify")
        return report


def reckon(wiring: Wiring, stop: threading.Event, *, look_again_s: float = reckoning.LOOK_AGAIN_S) -> dict[str, object]:
    """One reckoning. Raises: OwnedElsewhere, BufferUnavailable, SQLAlchemy's errors for an unusable ledger."""
    wiring.claim_ownership("flush", wiring.owner, OWNER_SECS)
    with _alone(wiring, "reckon") as ours:
        if ours is None:
            return {"skipped": "another run is going on"}
        report = reckoning.declare(wiring, reckoning.findings(wiring, stop, look_again_s=look_again_s))
        succeeded(wiring, "reckon")
        return report


def repair(
    wiring: Wiring,
    stop: threading.Event,
    *,
    deadline_s: float = REPAIR_DEADLINE_S,
    market: str | None = None,
    patient: bool = True,
) -> dict[str, object]:
    """One run of repairs (app/pipeline/repair.py). Raises: BufferUnavailable."""
    with _alone(wiring, "repair") as ours:
        if ours is None:
            return {"skipped": "another run is going on"}
        report = wiring.repairs.run(
            deadline_s=deadline_s,
            market=market,
            patient=patient,
            keep_going=lambda: ours() and not stop.is_set(),
        )
        if not report.failed:
            succeeded(wiring, "repair")
        return report.as_dict()


def repair_ledger(wiring: Wiring, *, dry_run: bool) -> RebuildReport:
    """Rebuild the ledger while neither flush nor archive runs. Raises: CollectorError where one might; as `rebuild`."""
    if workers := wiring.board.workers():
        raise CollectorError(f"processes run ({', '.join(workers)}): stop them first")
    return _rebuild(wiring, dry_run=dry_run)


def _rebuild(wiring: Wiring, *, dry_run: bool) -> RebuildReport:
    with _alone(wiring, "flush") as flush, _alone(wiring, "archive") as archive:
        if flush is None or archive is None:
            raise CollectorError("a flush or archive is going on, or was killed less than 30 s ago: stop the processes")
        settings = wiring.settings
        return rebuild(settings.database.path, settings.storage.segments_path, wiring.stores, dry_run=dry_run)


def _mend_ledger(wiring: Wiring) -> None:
    """A ledger that is damaged, or gone from beside its segments, is rebuilt before anything is written.

    Raises: CollectorError where that cannot be done (now): nothing is claimed then.
    """
    path, segments = wiring.settings.database.path, wiring.settings.storage.segments_path
    fault = damage_of(path) if path.exists() else "gone" if any(segments.glob("*/*.db")) else ""
    if fault:
        telemetry_disk.ledger_damaged(str(path), fault)
        report = _rebuild(wiring, dry_run=False)
        said = f"the ledger was damaged ({fault}) and rebuilt: {'; '.join(report.findings) or 'it adds up'}"
        wiring.board.trouble("segments", {"level": "degraded", "since_us": wall_us(), "detail": said}, TOLD_S)


def housekeeping(wiring: Wiring) -> dict[str, object]:
    """Keep the quarantine within `[storage] quarantine_max_bytes`; says how many bytes were let go."""
    if let_go := wiring.ledger.bound_quarantine(wiring.settings.storage.quarantine_max_bytes):
        telemetry_disk.frames_let_go(let_go)
    return {"quarantine_let_go_bytes": let_go}
