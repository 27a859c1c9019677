"""Faults of processes: killed, frozen, stopped, told nonsense; and a database that somebody else has locked."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from app.buffer.events import Depth
from app.clock import monotonic_s, wall_us
from app.drill.installation import ONLOOKERS, Broken, Installation
from app.drill.verdict import Seen
from app.store.ledger import OPEN, REMOVED, REMOVING, SEALED, SEALING, VERIFIED
from app.store.reading import read_segment

#: Longer than SQLite waits for a lock.
LOCKED_S = 8.0
#: More than two segments of a drill.
WITHOUT_BEAT_S = 22.0
#: Events that wait in Redis before something happens to them there.
ENOUGH = 40
#: To meet a process at a certain place.
TRIES = 5


def stream_killed(site: Installation) -> Seen:
    """K1."""
    before, mine = site.epochs(), site.held_by("stream")
    site.kill("stream")
    taken_s = site.live_again(mine, before, wall_us(), "its streams are live on new connections")
    site.settle()
    return Seen(taken_s, f"{len(mine)} streams taken over")


def stream_stopped(site: Installation) -> Seen:
    """K9."""
    before, mine = site.epochs(), site.held_by("stream")
    began_s = monotonic_s()
    (code,) = site.processes.stop("stream").values()
    ended_s, ended_us = monotonic_s() - began_s, wall_us()
    if code != 0:
        raise Broken(f"it ended with {code}; 0 is promised")
    moved_s = site.live_again(mine, before, ended_us, "its streams are live elsewhere")
    site.processes.start_again("stream")
    site.settle()
    return Seen(ended_s, f"ended with 0; its {len(mine)} streams live elsewhere {moved_s:.1f} s later")


@contextmanager
def something_waits(site: Installation) -> Iterator[int]:
    """No flush runs until events of every stream wait in Redis; yields how many, and then flushes may run again."""
    standing = site.wiring.lease("lock:flush", 60.0)

    def enough(depths: list[Depth]) -> bool:
        return {d.stream for d in depths} >= set(site.names()) and sum(d.events for d in depths) > ENOUGH

    site.wait(standing.acquire, "the flush stands still")
    try:
        site.wait(lambda: enough(site.wiring.buffer.depths()), "events wait in Redis")
        yield _waiting(site)
    finally:
        standing.release()


def _waiting(site: Installation) -> int:
    return sum(depth.events for depth in site.wiring.buffer.depths())


@contextmanager
def flush_before_commit(site: Installation) -> Iterator[None]:
    """A flush has read a list and waits for the database, which is locked until the end of the `with`.

    It is met between two of its claims: one list has become shorter, so it is past everything but reading and storing.
    Raises: Broken where it could not be met.
    """
    for _ in range(TRIES):
        with something_waits(site):
            before = {depth.stream: depth.batches for depth in site.wiring.buffer.depths()}

        def shorter(before: dict[str, int] = before) -> bool:
            return any(
                depth.batches < before[depth.stream] for depth in site.wiring.buffer.depths() if depth.stream in before
            )

        site.wait(shorter, "a flush stores one list after the other", every_s=0.002)
        with site.segment_locked():
            run = site.wiring.lease("lock:flush", 1.0)
            token = run.holder()
            site.abort.wait(0.5)
            if token is not None and token == run.holder() and token.split(":")[1] == str(site.processes.pid("worker")):
                yield
                return
    raise Broken("not struck: no flush was met between two claims")


def flush_killed_before_commit(site: Installation) -> Seen:
    """K2."""
    with flush_before_commit(site):
        site.kill("worker")
        killed_us = wall_us()
    again_s = site.wait(lambda: site.stored_since(killed_us), "what came afterwards is stored")
    return Seen(again_s, "its lock ran out, another flush stored everything")


def flush_killed_before_acknowledgement(site: Installation) -> Seen:
    """K3: Redis takes no writes while the commit gets through, so the acknowledgement waits."""
    with flush_before_commit(site):
        before = _numbers(site)
        site.wiring.redis.client_pause(4000, all=False)
    try:
        site.wait(lambda: _numbers(site) > before, "it is committed", 3, every_s=0.02)
        site.kill("worker")
        killed_us = wall_us()
        waiting = sum(depth.batches for depth in site.wiring.buffer.depths())
    finally:
        site.wiring.redis.client_unpause()
    if not waiting:
        raise Broken("not struck: everything was acknowledged already")
    again_s = site.wait(lambda: site.stored_since(killed_us), "what came afterwards is stored")
    return Seen(again_s, f"{waiting} batches were stored and not acknowledged")


def _numbers(site: Installation) -> int:
    """How many numbers the newest segments have ranges of."""
    entries = site.wiring.ledger.segments(OPEN, SEALING, SEALED)[-2:]
    root = site.wiring.settings.storage.segments_path
    paths = [(root / entry.path, entry.state == SEALED) for entry in entries]
    told = [read_segment(path, settled=settled, count=False) for path, settled in paths if path.exists()]
    return sum(r["last"] - r["first"] + 1 for one in told for r in one.ranges)


def database_locked(site: Installation) -> Seen:
    """D1."""
    with flush_before_commit(site):
        site.abort.wait(LOCKED_S)
        freed_us = wall_us()
    again_s = site.wait(lambda: site.stored_since(freed_us), "what came afterwards is stored")
    return Seen(again_s, f"locked for {LOCKED_S:g} s")


def slept_past_its_lease(site: Installation) -> Seen:
    """C3, C4: the sleeper's host still takes its connections' data; another host records the same markets meanwhile."""
    before, mine = site.epochs(), site.held_by("stream")
    with site.frozen("stream"):
        taken_s = site.live_again(mine, before, wall_us(), "another process has its streams")
        site.abort.wait(1.0)  # both have connections now
    site.wait(lambda: not mine & site.held_by("stream") or site.settled(), "it lets go")
    site.settle()
    return Seen(taken_s, f"{len(mine)} streams were elsewhere when it woke up")


def without_beat(site: Installation) -> Seen:
    """C5."""
    site.processes.stop("beat", timeout_s=10)
    site.abort.wait(WITHOUT_BEAT_S)
    waiting = _waiting(site)
    back_us = wall_us()
    site.processes.start_again("beat")
    again_s = site.wait(lambda: site.stored_since(back_us), "what came afterwards is stored")
    return Seen(again_s, f"{waiting} events waited in Redis after {WITHOUT_BEAT_S:g} s")


def two_beats(site: Installation) -> Seen:
    """C1: for two segments."""
    schedule = site.directory / "beat-2-schedule"
    number = max(entry.number for entry in site.wiring.ledger.segments())
    site.processes.start("beat-2", [*site.commands()["beat"], "-s", str(schedule)])
    try:
        site.wait(lambda: archived(site, number + 1), "two segments are archived")
    finally:
        site.processes.stop("beat-2", timeout_s=10)
    objects = [entry[:5] for entry in site.wiring.ledger.objects()]
    if len(objects) != len(set(objects)):
        raise Broken("a market has two objects of one segment")
    return Seen(None, f"{len(objects)} objects, each once")


def archived(site: Installation, number: int) -> bool:
    """Whether everything of segment `number` is proved to be in the store."""
    for entry in site.wiring.ledger.segments():
        if entry.number == number:
            objects = site.wiring.ledger.objects(number)
            rows = sum(done.rows for done in objects if done.state == VERIFIED)
            return entry.state in (REMOVING, REMOVED) or (
                entry.state == SEALED and bool(objects) and rows == entry.rows
            )
    return False


def onlookers_killed(site: Installation) -> Seen:
    """O1."""
    before, killed_us = site.epochs(), wall_us()
    for name in ONLOOKERS:
        site.kill(name)
    site.wait(lambda: site.stored_since(killed_us), "recording goes on")
    if (after := site.epochs()) != before:
        raise Broken(f"connections changed: {sorted(name for name in before if after.get(name) != before[name])}")
    return Seen(None, "every connection stayed")


def poisoned(site: Installation) -> Seen:
    """C6."""
    pid, prefix = site.processes.pid("worker"), site.wiring.settings.redis.prefix
    queue = f"{prefix}:celery:default"
    for task, kind, body in (
        ("streams.supervise", "application/x-python-serialize", b"\x80\x04."),
        ("streams.supervise", "application/json", b"[[[["),
        ("streams.supervise", "application/json", b'"a text"'),
        ("streams.supervise", "application/json", b"[1, 2, 3]"),
        ("streams.supervise", "application/json", b'[[], {"nobody": 1}, {}]'),
        ("os.system", "application/json", b'[["true"], {}, {}]'),
    ):
        site.wiring.redis.lpush(queue, _message(task, kind, body))
    poisoned_us = wall_us()
    site.wait(lambda: site.wiring.redis.llen(queue) == 0, "the messages are taken")
    site.wait(lambda: site.stored_since(poisoned_us), "what came afterwards is stored")
    if site.processes.pid("worker") != pid:
        raise Broken("the worker ended")
    return Seen(None, "6 messages refused")


def _message(task: str, kind: str, body: bytes) -> str:
    """A message as Celery's Redis transport keeps it."""
    headers = {"task": task, "id": uuid.uuid4().hex, "lang": "py", "argsrepr": "", "kwargsrepr": "", "root_id": None}
    properties = {
        "correlation_id": uuid.uuid4().hex, "delivery_mode": 2, "delivery_tag": uuid.uuid4().hex, "priority": 0,
        "delivery_info": {"exchange": "", "routing_key": "default"}, "body_encoding": "base64",
    }  # fmt: skip
    return json.dumps(
        {"body": base64.b64encode(body).decode(), "content-type": kind, "content-encoding": "utf-8", "headers": headers,
         "properties": properties}
    )  # fmt: skip
