"""Flush, archive and repair as beat runs them: one at a time, by a renewed lock; a second run is a no-op that says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app import telemetry
from app.buffer.lease import Holding
from app.errors import BufferFull, BufferUnavailable, Interrupted
from app.pipeline import reckoning
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
    lease = wiring.lease(f"lock:{name}", LOCK_SECS)
    try:
        if not lease.acquire():
            yield None
            return
    except BufferFull:  # a full Redis takes no lock; it is emptied all the same, for the lock only saves work
        yield lambda: True
        return
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
            pass  # it runs out by itself


def flush(
    wiring: Wiring, stop: threading.Event, *, deadline_s: float | None = FLUSH_DEADLINE_S, seal: bool = False
) -> dict[str, object]:
    """One flush run; `seal` then seals the open segment whatever its age.

    Raises: OwnedElsewhere, BufferUnavailable, SQLAlchemy's errors for an unusable ledger.
    """
    wiring.claim_ownership("flush", wiring.owner, OWNER_SECS)
    with _alone(wiring, "flush") as ours:
        if ours is None:
            telemetry.flush_skipped("another run is going on")
            return {"skipped": "another run is going on"}
        if stop.is_set():
            return {"skipped": "this worker is stopping"}
        run = wiring.flush()
        report = run.run(deadline_s=deadline_s, keep_going=lambda: ours() and not stop.is_set())
        if seal and not report.failed:
            run.turn_over(report, now=True)
        return report.as_dict()


def archive(wiring: Wiring, stop: threading.Event, *, final: bool = False) -> dict[str, object]:
    """One archive cycle. Raises: OwnedElsewhere, StoreError when no store can be used at all, BufferUnavailable."""
    server = wiring.settings.aws.home_server_name or "(no server name)"
    every_s, deadline_s = wiring.settings.collector.archive_interval_secs, wiring.settings.archive.deadline_secs
    for store in wiring.stores:
        what = f"store:{store.name}:{server}".replace(" ", "_")
        wiring.claim_ownership(what, wiring.owner, 2 * every_s + len(wiring.stores) * deadline_s)
    with _alone(wiring, "archive") as ours:
        if ours is None:
            telemetry.archive_skipped("another cycle is going on")
            return {"skipped": "another cycle is going on"}
        if stop.is_set():
            return {"skipped": "this worker is stopping"}
        try:
            return wiring.archive().run(final=final, keep_going=lambda: ours() and not stop.is_set()).as_dict()
        except Interrupted as error:
            telemetry.archive_skipped(str(error))
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
        return run(deadline_s=deadline_s, keep_going=lambda: ours() and not stop.is_set(), final=final).as_dict()


def reckon(wiring: Wiring, stop: threading.Event, *, look_again_s: float = reckoning.LOOK_AGAIN_S) -> dict[str, object]:
    """One reckoning. Raises: OwnedElsewhere, BufferUnavailable, SQLAlchemy's errors for an unusable ledger."""
    wiring.claim_ownership("flush", wiring.owner, OWNER_SECS)
    with _alone(wiring, "reckon") as ours:
        if ours is None:
            return {"skipped": "another run is going on"}
        return reckoning.declare(wiring, reckoning.findings(wiring, stop, look_again_s=look_again_s))


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
        return report.as_dict()


def housekeeping(wiring: Wiring) -> dict[str, object]:
    """Keep the quarantine within `[storage] quarantine_max_bytes`; says how many bytes were let go."""
    return {"quarantine_let_go_bytes": wiring.ledger.bound_quarantine(wiring.settings.storage.quarantine_max_bytes)}
