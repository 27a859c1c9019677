"""Which streams should run and do not; and the life of one stream task: lease, spool, runner, release."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from app import telemetry
from app.buffer import spool as spools
from app.clock import wall_us
from app.errors import BufferUnavailable
from app.pipeline.plan import PLAN_CHANGED, Stream
from app.pipeline.replan import LOOK_S
from app.wiring import Wiring


def in_threads() -> bool:
    """False where a task runs on the main thread: a prefork child, which never hears that its worker stops."""
    return threading.current_thread() is not threading.main_thread()


def dispatch(wiring: Wiring, ttl_s: float, send: Callable[[str], object]) -> list[str]:
    """Send every planned stream that has no lease and is not on its way.

    Returns the streams sent. Raises: BufferUnavailable.
    """
    wiring.replan()
    board = wiring.board
    names = sorted(wiring.streams)
    leased = board.leased(names)
    sent = [name for name in names if name not in leased and board.dispatch(name, ttl_s)]
    for name in sent:
        send(name)
        telemetry.stream_dispatched(name)
    board.beat(wall_us() // 1_000_000)
    return sent


def collect(wiring: Wiring, name: str, stop: threading.Event, crowded: Callable[[], None] = lambda: None) -> str:
    """Run one stream until `stop`, until its lease is lost, or until no market of it is planned; returns why it ended.

    Nothing happens (and the answer says so) when the stream is no longer planned or somebody else has it.
    """
    while (reason := _collect(wiring, name, stop, crowded)) == PLAN_CHANGED:
        pass
    return reason


def _collect(wiring: Wiring, name: str, stop: threading.Event, crowded: Callable[[], None]) -> str:
    """One run of the stream, as the plan has it when the run begins."""
    with suppress(BufferUnavailable):
        drain_left_spools(wiring)
    stream = _planned(wiring, name, stop)
    if stream is None:
        return "not planned"
    lease = wiring.lease(f"stream:{name}", wiring.settings.buffer.lease_secs)
    if stop.is_set() or not lease.acquire():
        return "leased elsewhere"
    spool = wiring.spool(name)
    patience = 60  # somebody may be draining it at this moment
    while not (locked := spool.lock()) and patience and not stop.wait(0.05):
        patience -= 1
    if not locked:
        lease.release()
        return "its spool is in use by another process of this host"
    reason = "error"
    try:
        reason = wiring.runner(stream, lease, spool, stop, crowded).run()
    finally:
        telemetry.stream_stopped(name, reason, spools.size_bytes(spool.directory.parent) if spool else 0)
        spool.close()
        try:
            lease.release()
        except BufferUnavailable:
            pass  # it runs out by itself
    return reason


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


def drain_left_spools(wiring: Wiring) -> None:
    """Deliver the spools of streams that run elsewhere now, or no longer: nobody on this host would open them again.

    Those of streams that are about to start here are left to them. Raises: BufferUnavailable.
    """
    names = spools.streams(wiring.settings.spool.dir)
    leased = wiring.board.leased(names)
    drain_spools(wiring, [name for name in names if name in leased or name not in wiring.streams])


def drain_spools(wiring: Wiring, names: Sequence[str] | None = None) -> bool:
    """Deliver what streams (all, or those of `names`) left in the spools of this host and nobody is using.

    True when none is left. What Redis does not take stays where it is.
    """
    empty = True
    for name in spools.streams(wiring.settings.spool.dir) if names is None else names:
        spool = wiring.spool(name)
        if not spool.lock():
            empty = False
            continue
        try:
            empty = spool.drain(lambda element, stream=name: wiring.buffer.push(stream, element) is not None) and empty  # type: ignore[misc]
        except BufferUnavailable as error:
            telemetry.push_failed(name, error)
            return False
        finally:
            spool.close()
    return empty
