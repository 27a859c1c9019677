"""What nobody lives to tell is found out from what is stored: that a connection's process died, or that its last word was lost
on the way, and from when until when nobody knows what it received. Pure; the answer is batches that go the ordinary way.

Numbers that are missing below stored ones need no finding: the flush sees them as it stores (`app/store/holes.py`), also
below the last numbers that are found out here.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from app.model import BUFFER_LOST, UNCLEAN_END, UNDECODED, Batch, EpochEnd, Loss, Range
from app.quality.balance import open_ended
from app.quality.records import REDIS, SPOOL, Epoch, Feed, Key, Lost, Records, Run

#: Numbers of batches that are made later for an epoch lie above those of its connection.
FOUND_LATER = 2**62
#: How long the next connection of a stream is waited for: it says until when nothing was received.
SUCCESSOR_US = 600 * 1_000_000
#: A planned change of connections takes far less; so long the one that is being left counts as going on.
OVERLAP_US = 600 * 1_000_000


@dataclass
class Going:
    """What is known of connections that are going on."""

    #: Epochs that streams name on the board.
    epochs: Set[str] = frozenset()
    #: Streams that somebody has: their next epoch, if this is not the last, will be stored.
    streams: Set[str] = frozenset()
    #: Streams that are to be collected here, with their feeds: a successor will come.
    planned: Mapping[str, Set[Feed]] = field(default_factory=dict)


def reckon(records: Records, going: Going, now_us: int) -> list[Batch]:
    """One batch for each epoch that has no end and can have none any more; empty where everything is declared already.

    It carries the epoch's end and, for each feed, a loss of unknown extent. What it says has natural keys: flushed twice, it
    changes nothing.
    """
    by_stream: dict[str, list[Epoch]] = {}
    for epoch in records.epochs.values():
        if epoch.kind == "stream":
            by_stream.setdefault(epoch.stream, []).append(epoch)
    waiting = {run.epoch for run in records.runs if run.place in (SPOOL, REDIS)}
    by_epoch: dict[str, dict[Key, tuple[list[Run], list[Lost]]]] = {}
    for key, held in records.by_key().items():
        by_epoch.setdefault(key[0], {})[key] = held
    found = []
    for epoch in sorted((e for epochs in by_stream.values() for e in epochs), key=lambda e: (e.opened_us, e.id)):
        if epoch.said_its_end or epoch.id in waiting or epoch.id in going.epochs:
            continue
        feeds = by_epoch.get(epoch.id, {})
        seen_us = max((us for held in feeds.values() for _, us in [_last(epoch, *held)]), default=epoch.opened_us)
        over_us = [us for e in by_stream[epoch.stream] if (us := _over_us(epoch, e)) and us <= now_us]
        if not over_us and not _is_alone(epoch, going, now_us - seen_us):
            continue
        if epoch.reason is None:  # what was received of a feed may all have been in the hands of the dead
            feeds = {(epoch.id, *feed): ([], []) for feed in going.planned.get(epoch.stream, ())} | feeds
        next_us = min(over_us, default=now_us)
        losses = [loss for key, held in sorted(feeds.items()) if (loss := _unclean(epoch, key, *held, next_us))]
        if losses or epoch.reason is None:
            found.append(
                Batch(epoch.stream, epoch.exchange, epoch.id, FOUND_LATER + now_us, epoch.opened_us,
                      losses=tuple(losses), end=_end(epoch, feeds, seen_us), kind="finding")
            )  # fmt: skip
    named = {e.after for epochs in by_stream.values() for e in epochs if e.after}
    for name in sorted(named - records.epochs.keys() - going.epochs):
        found.append(_forgotten(name, by_stream, by_epoch, going, now_us))
    return found


def _forgotten(
    name: str,
    by_stream: Mapping[str, list[Epoch]],
    by_epoch: Mapping[str, Mapping[Key, tuple[list[Run], list[Lost]]]],
    going: Going,
    now_us: int,
) -> Batch:
    """The record of a connection that left nothing but its name in the one after it: every batch of it was lost.

    It lasted at most from the end of what is known before it until the next one was opened.
    """
    next_ = min((e for es in by_stream.values() for e in es if e.after == name), key=lambda e: (e.opened_us, e.id))
    before = [e for e in by_stream[next_.stream] if e.opened_us < next_.opened_us]
    start_us = next_.opened_us
    if before:
        last = max(before, key=lambda e: (e.opened_us, e.id))
        seen_us = max((_last(last, *held)[1] for held in by_epoch.get(last.id, {}).values()), default=last.opened_us)
        start_us = min(start_us, seen_us if last.ended_us is None else last.ended_us)
    feeds = going.planned.get(next_.stream) or {key[1:] for key in by_epoch.get(next_.id, {})}
    losses = tuple(
        Loss(symbol, feed, 1, 1, None, start_us, next_.opened_us, BUFFER_LOST)
        for symbol, feed in sorted(feeds)
        if feed != UNDECODED
    )
    end = EpochEnd(next_.opened_us, UNCLEAN_END, ())
    return Batch(
        next_.stream, next_.exchange, name, FOUND_LATER + now_us, start_us, losses=losses, end=end, kind="finding"
    )


def _over_us(epoch: Epoch, other: Epoch) -> int | None:
    """Since when `other` says that `epoch` is over: since it was opened, but for the time it may need to take its place."""
    if other.opened_us <= epoch.opened_us:
        return None
    return other.opened_us + (OVERLAP_US if epoch.id in other.overlaps else 0)


def _is_alone(epoch: Epoch, going: Going, silent_us: int) -> bool:
    """Nobody has the stream of this last epoch, and nobody will, or it was waited for long enough."""
    if epoch.stream in going.streams:
        return False
    return epoch.stream not in going.planned or silent_us > SUCCESSOR_US


def _unclean(epoch: Epoch, key: Key, runs: list[Run], losses: list[Lost], next_us: int) -> Loss | None:
    """The declaration that more may have been received after the last stored number; None where it stands already."""
    if any(open_ended(epoch, loss, runs, losses) for loss in losses):
        return None
    last, last_us = _last(epoch, runs, losses)
    return Loss(*key[1:], last + 1, last + 1, None, last_us, max(last_us, next_us), UNCLEAN_END)


def _end(epoch: Epoch, feeds: dict[Key, tuple[list[Run], list[Lost]]], seen_us: int) -> EpochEnd:
    lasts = [(*key[1:], _last(epoch, *held)[0]) for key, held in sorted(feeds.items())]
    return EpochEnd(seen_us, UNCLEAN_END, tuple(Range(symbol, feed, 1, last) for symbol, feed, last in lasts if last))


def _last(epoch: Epoch, runs: list[Run], losses: list[Lost]) -> tuple[int, int]:
    """The highest number on record, and the latest time of anything that is."""
    known = [loss for loss in losses if loss.size is not None]
    last = max((*(run.last for run in runs), *(loss.last for loss in known)), default=0)
    times = (*(run.last_us for run in runs if run.last_us is not None), *(loss.end_us for loss in known))
    return last, max(times, default=epoch.opened_us)
