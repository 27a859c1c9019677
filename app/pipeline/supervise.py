"""Which worker should run which stream; and the life of one stream task: lease, spool, runner, release."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from app import telemetry
from app.buffer import spool as spools
from app.clock import wall_us
from app.errors import BufferUnavailable
from app.pipeline.plan import PLAN_CHANGED, Stream
from app.pipeline.replan import LOOK_S
from app.pipeline.share import ANYONE, assign, standing
from app.wiring import Wiring

#: A stream that has not seen within so long that it is asked for is asked again.
HANDOVER_S = 5.0
SPOOL_IN_USE = "its spool is in use by another process of this host"
#: Reasons to try another worker.
FAILURES = (SPOOL_IN_USE, "sender_died")


def in_threads() -> bool:
    """False where a task runs on the main thread: a prefork child, which never hears that its worker stops."""
    return threading.current_thread() is not threading.main_thread()


def dispatch(wiring: Wiring, ttl_s: float, send: Callable[[str, str], object]) -> list[str]:
    """Send every planned stream that nobody has and that is not on its way; ask for those that another worker should have.

    `send`: stream, and the node name of the worker, ANYONE where none is on the board. Returns the streams sent.
    Raises: BufferUnavailable.
    """
    wiring.replan()
    board = wiring.board
    names = sorted(wiring.streams)
    told, sent, holders = board.workers(), board.dispatched(names), board.holders(names)
    # By then every lease of a worker before it has run out or been taken.
    workers = standing(told, holders, sent, wiring.settings.buffer.lease_secs * 2 / 3)
    anyones = {name for name, worker in sent.items() if worker == ANYONE}
    assignments, handovers = assign(names, holders.keys() | anyones, workers)
    # What was sent to a worker that has left the board is sent again.
    fresh = [n for n, worker in assignments.items() if board.dispatch(n, ttl_s, worker, instead_of=sent.get(n))]
    for name in fresh:
        send(name, assignments[name])
        telemetry.stream_dispatched(name, assignments[name])
    _ask(wiring, handovers, holders)
    waiting = set(names).difference(holders, sent, assignments, *(worker.streams for worker in workers.values()))
    if waiting:
        telemetry.streams_waiting(sorted(waiting))
    board.beat(wall_us() // 1_000_000)
    return fresh


def _ask(wiring: Wiring, handovers: list[str], holders: dict[str, str]) -> None:
    """Ask for these streams, unless some that were asked for are still on their way out."""
    asked = wiring.board.handovers(list(wiring.streams)) if handovers else {}
    if any(holders.get(name) == token for name, token in asked.items()):
        return
    for name in handovers:
        if name in holders and wiring.board.ask_handover(name, holders[name], HANDOVER_S):
            telemetry.handover_asked(name, holders[name])


def collect(wiring: Wiring, name: str, stop: threading.Event, crowded: Callable[[], None] = lambda: None) -> str:
    """Run one stream until `stop`, until its lease is lost, or until no market of it is planned; returns why it ended.

    Nothing happens (and the answer says so) when the stream is no longer planned or somebody else has it.
    """
    with suppress(BufferUnavailable):
        drain_left_spools(wiring, stop)
    stream = _planned(wiring, name, stop)
    if stream is None:
        return "not planned"
    lease = wiring.lease(f"stream:{name}", wiring.settings.buffer.lease_secs)
    if stop.is_set() or not lease.acquire():
        return "leased elsewhere"
    spool = wiring.spool(name)
    patience = 60  # somebody may be draining it at this moment
    while not (locked := _locked(spool)) and patience and not stop.wait(0.05):
        patience -= 1
    if not locked:
        lease.release()
        return SPOOL_IN_USE
    reason = "error"
    try:
        reason = wiring.runner(stream, lease, spool, stop, crowded).run()
    finally:
        telemetry.stream_stopped(name, reason, spools.size_bytes(spool.directory.parent) if spool else 0)
        spool.close()
        try:
            if reason in ("handed_over", "stop", PLAN_CHANGED):
                wiring.board.arrived(name)  # while nobody else can be on the way
            lease.release()
        except BufferUnavailable:
            pass  # it runs out by itself
    return reason


def _locked(spool: spools.Spool) -> bool:
    """Whether the spool is ours. A disk that gives no place for one keeps no stream from recording into Redis."""
    try:
        return spool.lock()
    except OSError as error:
        telemetry.spool_refused(spool.directory.name, error)
        return True


def follow_settings(wiring: Wiring, stop: threading.Event, changed: Callable[[], object] = lambda: None) -> None:
    """Until `stop`: streams that run look at the plan, never at a file; this thread does that for them.

    `changed` is called when the plan has become another one.
    """
    while not stop.wait(LOOK_S):
        if wiring.replan():
            changed()


def _planned(wiring: Wiring, name: str, stop: threading.Event) -> Stream | None:
    """The stream in the newest plan. Who sent it may have seen the settings change before this process does."""
    patience = int(3 * LOOK_S / 0.1) if wiring.file else 0
    wiring.replan()
    while name not in wiring.streams and patience and not stop.wait(0.1):
        patience -= 1
        wiring.replan()
    return wiring.streams.get(name)


def drain_left_spools(wiring: Wiring, stop: threading.Event) -> None:
    """Deliver, until `stop`, the spools of streams that run elsewhere or no longer: nobody here would open them again.

    Those of streams that are about to start here are left to them. Raises: BufferUnavailable.
    """
    names = spools.streams(wiring.settings.spool.dir)
    leased = wiring.board.leased(names)
    drain_spools(wiring, [name for name in names if name in leased or name not in wiring.streams], stop)


def drain_spools(wiring: Wiring, names: Sequence[str] | None = None, stop: threading.Event | None = None) -> bool:
    """Deliver, until `stop`, what streams (all, or those of `names`) left in the spools of this host and nobody is using.

    True when none is left. What Redis does not take stays where it is.
    """

    def deliver(stream: str, element: bytes) -> bool:
        return not (stop is not None and stop.is_set()) and wiring.buffer.push(stream, element) is not None

    empty = True
    for name in spools.streams(wiring.settings.spool.dir) if names is None else names:
        spool = wiring.spool(name)
        if not spool.lock():
            empty = False
            continue
        try:
            empty = spool.drain(partial(deliver, name)) and empty
        except BufferUnavailable as error:
            telemetry.push_failed(name, error)
            return False
        finally:
            spool.close()
    return empty
