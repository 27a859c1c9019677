"""One function per observable fact. Nothing else in the project writes a log line.

Event names are constant, `noun.past_verb`; facts go in fields. A fact that may repeat many times a second is logged at most
once in ten seconds per subject, with the number of times it happened meanwhile.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from contextlib import suppress
from typing import Any

from app import metrics
from app.clock import monotonic_s
from app.event_log import EventLog

QUIET_S = 10.0
#: Reasons of the end of a connection from which nothing came.
SILENCES = ("dead_timeout", "data_timeout", "ping_failed")

#: Subjects that `_seldom` remembers; beyond that it forgets them all, and each may be told once more.
MAX_SUBJECTS = 10_000

log = EventLog()
_last: dict[tuple[str, str], tuple[float, int]] = {}


def _seldom(event: str, subject: str, /, *, quiet_s: float = QUIET_S, level: str = "warning", **facts: Any) -> None:
    now_s = monotonic_s()
    logged_s, suppressed = _last.get((event, subject), (now_s - quiet_s, 0))
    if now_s - logged_s < quiet_s:
        _last[event, subject] = logged_s, suppressed + 1
        return
    if len(_last) > MAX_SUBJECTS:
        _last.clear()
    _last[event, subject] = now_s, 0
    getattr(log, level)(event, **facts, **({"repeated": suppressed} if suppressed else {}))


# stream


def stream_started(stream: str, symbols: int) -> None:
    log.info("stream.started", stream=stream, symbols=symbols)


def stream_stopped(stream: str, reason: str, undelivered_bytes: int) -> None:
    log.info("stream.stopped", stream=stream, reason=reason, spooled_bytes=undelivered_bytes)


def exchange_of(stream: str) -> str:
    """The exchange that a stream's name begins with."""
    return stream.partition("-")[0]


def connection_opened(
    stream: str, epoch: str, overlaps: tuple[str, ...], symbols: tuple[str, ...], *, again: bool
) -> None:
    for symbol in symbols if again else ():
        metrics.RECONNECTS.labels(exchange_of(stream), symbol).inc()
    log.info("connection.opened", stream=stream, epoch=epoch, **({"in_place_of": overlaps[0]} if overlaps else {}))


def connection_failed(stream: str, detail: str, retry_s: float) -> None:
    _seldom("connection.failed", stream, stream=stream, detail=detail, retry_s=round(retry_s, 2))


def connection_closed(
    stream: str,
    epoch: str,
    reason: str,
    detail: str,
    frames: int,
    silences: dict[str, float | None],
    symbols: tuple[str, ...],
) -> None:
    exchange = exchange_of(stream)
    metrics.CLOSES.labels(exchange, reason).inc()
    if reason == "circuit_breaker":
        metrics.CIRCUIT_BREAKS.labels(exchange).inc()
    for symbol in symbols if reason in SILENCES else ():
        metrics.TIMEOUTS.labels(exchange, symbol).inc()
    since = {f"since_{what}_s": "never" if age is None else age for what, age in silences.items()}
    log.info("connection.closed", stream=stream, epoch=epoch, reason=reason, detail=detail, frames=frames, **since)


def rotation_begun(stream: str, reason: str, detail: str) -> None:
    log.info(
        "rotation.begun",
        stream=stream,
        reason=reason,
        detail=detail,
        then="both are read until the new one has its data",
    )


def book_unasked(stream: str, symbol: str, words: str) -> None:
    _seldom("snapshot.failed", stream, stream=stream, symbol=symbol, words=words, then="it is asked for again")


def subscription_rejected(stream: str, symbol: str, feed: str, words: str) -> None:
    _seldom("subscription.rejected", f"{stream} {symbol} {feed}", stream=stream, symbol=symbol, feed=feed, words=words)


def frame_rejected(stream: str, reason: str, size_bytes: int) -> None:
    _seldom("frame.rejected", stream, stream=stream, reason=reason, size_bytes=size_bytes)


def gap_detected(stream: str, symbol: str, feed: str, from_id: str, to_id: str, size: int | None) -> None:
    metrics.GAPS.labels(exchange_of(stream), symbol, feed).inc()
    if size is not None:
        metrics.GAP_SIZE.labels(exchange_of(stream), symbol, feed).observe(size)
    _seldom(
        "gap.detected", f"{stream} {symbol} {feed}", stream=stream, symbol=symbol, feed=feed, from_id=from_id, to_id=to_id,
        size=size,
    )  # fmt: skip


def gap_settled(market: str, from_id: str | None, to_id: str | None, state: str, found: int, detail: str) -> None:
    metrics.REPAIRS.labels(market.partition("/")[0], state).inc()
    log.info("gap.settled", market=market, from_id=from_id, to_id=to_id, state=state, found=found, detail=detail)


def repair_failed(venue: str, error: Exception) -> None:
    _seldom("repair.failed", venue, venue=venue, error=str(error), then="it is asked again after a growing pause")


def event_refused(stream: str, symbol: str, feed: str) -> None:
    metrics.DROPPED.inc()
    _seldom("event.refused", f"{stream} {symbol} {feed}", stream=stream, symbol=symbol, feed=feed, why="queue full")


def push_failed(stream: str, error: Exception) -> None:
    _seldom("push.failed", stream, stream=stream, error=str(error), then="batches go to the spool")


def buffer_full(stream: str) -> None:
    _seldom("buffer.full", stream, stream=stream, remedy="is the flush running? see [buffer] list_max_bytes")


def spool_refused(stream: str, error: Exception) -> None:
    _seldom("spool.refused", stream, stream=stream, error=str(error) or type(error).__name__)


def sender_failed(stream: str, error: Exception) -> None:
    _seldom("sender.failed", stream, stream=stream, error=f"{type(error).__name__}: {error}", then="it tries again")


def batches_abandoned(stream: str, queued: int) -> None:
    log.error(
        "batches.abandoned",
        stream=stream,
        queued=queued,
        why="neither Redis nor the spool took them before the deadline",
    )


def spool_damaged(path: str, at_byte: int, size_bytes: int) -> None:
    log.error("spool.damaged", path=path, at_byte=at_byte, size_bytes=size_bytes, then="kept beside as .damaged")


def spool_drained(stream: str) -> None:
    log.info("spool.drained", stream=stream)


def lease_lost(stream: str, holder: str | None) -> None:
    _seldom("lease.lost", stream, stream=stream, holder=holder)


def stream_dispatched(stream: str, worker: str) -> None:
    log.info("stream.dispatched", stream=stream, worker=worker or "any")


def handover_asked(stream: str, holder: str) -> None:
    log.info("handover.asked", stream=stream, holder=holder, why="another worker has fewer streams")


def streams_waiting(streams: list[str]) -> None:
    remedy = "start another stream process, or give this one more threads (-c)"
    _seldom("streams.waiting", "", streams=streams, why="no stream worker has a free thread", remedy=remedy)


def presence_failed(worker: str, error: Exception) -> None:
    _seldom("presence.failed", worker, worker=worker, error=str(error), then="its streams go on; it tries again")


# flush


def flush_committed(
    segment: int, batches: int, stored: int, duplicates: int, replays: int, quarantined: int, seconds: float
) -> None:
    log.info(
        "flush.committed", segment=segment, batches=batches, stored=stored, duplicates=duplicates, replays=replays,
        quarantined=quarantined, seconds=round(seconds, 3),
    )  # fmt: skip


def flush_failed(stream: str, kind: str, error: Exception) -> None:
    known = kind in metrics.VALUES["db_insert_errors_total"]["error_type"]
    metrics.DB_ERRORS.labels(kind if known else "other").inc()
    _seldom(
        "flush.failed", f"{stream} {kind}", level="error", stream=stream, kind=kind, error=str(error),
        then="the claim stays in Redis",
    )  # fmt: skip


def flush_skipped(why: str) -> None:
    log.info("flush.skipped", why=why)


def element_rejected(stream: str, error: Exception, size_bytes: int) -> None:
    _seldom(
        "element.rejected",
        stream,
        level="error",
        stream=stream,
        error=str(error),
        size_bytes=size_bytes,
        then="quarantined",
    )


def row_rejected(symbol: str, feed: str, number: int, error: str) -> None:
    metrics.DB_ERRORS.labels("constraint").inc()
    _seldom(
        "row.rejected",
        f"{symbol} {feed}",
        level="error",
        symbol=symbol,
        feed=feed,
        number=number,
        error=error,
        then="quarantined",
    )


def hole_found(stream: str, epoch: str, symbol: str, feed: str, first: int, last: int) -> None:
    log.error(
        "hole.found", stream=stream, epoch=epoch, symbol=symbol, feed=feed, first=first, last=last,
        why="these numbers were pushed and never came out of Redis or the spool", then="declared lost (buffer_lost)",
    )  # fmt: skip


def epoch_abandoned(stream: str, epoch: str, last_us: int, feeds: int) -> None:
    log.warning(
        "epoch.abandoned", stream=stream, epoch=epoch, last_us=last_us, feeds=feeds,
        why="no end, and nobody has it any more", then="ended on record; what it still held is declared lost (unclean_end)",
    )  # fmt: skip


def reckoning_postponed(what: str, why: str) -> None:
    _seldom("reckoning.postponed", what, what=what, why=why, then="nothing is declared lost meanwhile")


def segment_opened(segment: int, path: str) -> None:
    log.info("segment.opened", segment=segment, path=path)


def segment_sealed(segment: int, rows: int, seconds: float) -> None:
    metrics.DB_WRITE_SECONDS.labels("seal").observe(seconds)
    log.info("segment.sealed", segment=segment, rows=rows)


# processes


def worker_pinned(cpus: list[int], error: Exception | None) -> None:
    if error is None:
        log.info("worker.pinned", cpus=cpus)
    else:
        log.warning("worker.not_pinned", cpus=cpus, error=str(error), then="it runs wherever the system puts it")


def worker_ready(name: str, *, beat: bool) -> None:
    if beat:
        log.info("worker.ready", worker=name)
    else:
        log.info(
            "worker.ready", worker=name, needs="a beat process beside it: celery -A app beat (or start it with -B)"
        )


def stop_overdue(after_s: float) -> None:
    """Names the threads that keep this process from ending, each with where in our code it is, else where it is at all.

    Written past `logging`, which may be what hangs.
    """
    frames = sys._current_frames()
    hung = {}
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if frame is None or thread is threading.current_thread():
            continue
        ours = next(
            (f for f, _ in traceback.walk_stack(frame) if f.f_globals.get("__name__", "").startswith("app.")), frame
        )
        hung[thread.name] = f"{ours.f_code.co_filename}:{ours.f_lineno} {ours.f_code.co_name}"
    line = {"event": "stop.overdue", "level": "error", "after_s": after_s, "threads": hung, "then": "exit code 1"}
    with suppress(OSError):  # a log on a full disk: the process ends all the same
        os.write(2, json.dumps(line).encode() + b"\n")


def settings_changed(
    file: str, started: tuple[str, ...], ended: tuple[str, ...], reconnected: tuple[str, ...], needs_restart: list[str]
) -> None:
    log.info(
        "settings.changed",
        file=file,
        started=started,
        ended=ended,
        reconnected=reconnected,
        needs_restart=needs_restart,
    )


def settings_refused(file: str, faults: tuple[str, ...]) -> None:
    log.error("settings.refused", file=file, faults=list(faults), then="the plan stays as it is")
