"""What nobody lives to tell is found out from what is stored: how a connection ended whose process died, and which numbers
Redis (or a damaged spool) lost. Pure; the answer is batches that go the ordinary way.

Why a hole below a stored number is a loss: a stream's batches reach its list in order, the spool is drained in order, and the
flush stores in order. What is neither stored nor waiting, although something later is stored, can no longer come from there.
If it does come (from a spool that was out of sight), what is stored counts, and the loss is void.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

from app.model import UNCLEAN_END, Batch, EpochEnd, Loss, Range
from app.quality.balance import holes, open_ended
from app.quality.records import ARCHIVED, REDIS, SEGMENT, SPOOL, Epoch, Key, Lost, Records, Run

BUFFER_LOST = "buffer_lost"
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
    #: Streams that are to be collected here: a successor will come.
    planned: Set[str] = frozenset()


@dataclass
class _Epochs:
    """The epochs of one stream, and what is waiting of which."""

    going: Going
    by_stream: dict[str, list[Epoch]] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)


def reckon(records: Records, going: Going, now_us: int) -> list[Batch]:
    """One batch for each epoch about which something was found out; empty where everything is declared already.

    A batch carries losses, and for an epoch whose process died also its end. What it says has natural keys: flushed
    twice, it changes nothing.
    """
    known = _Epochs(going)
    for epoch in records.epochs.values():
        if epoch.kind == "stream":
            known.by_stream.setdefault(epoch.stream, []).append(epoch)
    known.waiting = {run.epoch for run in records.runs if run.place in (SPOOL, REDIS)}
    by_epoch: dict[str, dict[Key, tuple[list[Run], list[Lost]]]] = {}
    for key, held in records.by_key().items():
        by_epoch.setdefault(key[0], {})[key] = held
    found = []
    for epoch in sorted(records.epochs.values(), key=lambda e: (e.opened_us, e.id)):
        feeds = by_epoch.get(epoch.id, {})
        losses = [loss for key, held in sorted(feeds.items()) for loss in _buffer_lost(epoch, known, key, *held)]
        end = None
        seen_us = max((us for held in feeds.values() for _, us in [_last(epoch, *held)]), default=epoch.opened_us)
        if epoch.kind == "stream" and _is_dead(epoch, known, now_us, seen_us):
            next_us = min((e.opened_us for e in _later(epoch, known)), default=now_us)
            unclean = [loss for key, held in sorted(feeds.items()) if (loss := _unclean(epoch, key, *held, next_us))]
            if unclean or epoch.reason is None:
                end = _end(epoch, feeds, seen_us)
                losses += unclean
        if losses or end:
            found.append(
                Batch(epoch.stream, epoch.exchange, epoch.id, FOUND_LATER + now_us, epoch.opened_us,
                      losses=tuple(losses), end=end, kind="finding")
            )  # fmt: skip
    return found


def _later(epoch: Epoch, known: _Epochs) -> list[Epoch]:
    return [e for e in known.by_stream[epoch.stream] if e.opened_us > epoch.opened_us]


def _is_dead(epoch: Epoch, known: _Epochs, now_us: int, seen_us: int) -> bool:
    """No end, nobody says it is going on, nothing of it is under way, and it is known until when nothing was received."""
    going = known.going
    if epoch.said_its_end or epoch.id in known.waiting or epoch.id in going.epochs:
        return False
    later = _later(epoch, known)
    if any(epoch.id in e.overlaps and now_us - e.opened_us < OVERLAP_US for e in later):
        return False
    if later:
        return True
    if epoch.stream in going.streams:
        return False
    return epoch.stream not in going.planned or now_us - seen_us > SUCCESSOR_US


def _decided(runs: list[Run]) -> list[Run]:
    return sorted((run for run in runs if run.place in (SEGMENT, ARCHIVED)), key=lambda run: run.first)


def _buffer_lost(epoch: Epoch, known: _Epochs, key: Key, runs: list[Run], losses: list[Lost]) -> list[Loss]:
    """Holes below the highest stored number; once nothing of the epoch is under way, below its last one."""
    decided = _decided(runs)
    up_to = max((run.last for run in decided), default=0)
    if epoch.said_its_end and epoch.id not in known.waiting:
        up_to = max(up_to, dict(epoch.last_numbers).get(key[1:], 0))
    found = []
    for first, last in holes(epoch, *key[1:], runs, losses, up_to=up_to):
        before = [run.last_us for run in decided if run.last < first and run.last_us is not None]
        after = [run.first_us for run in decided if run.first > last and run.first_us is not None]
        start_us = before[-1] if before else epoch.opened_us
        end_us = after[0] if after else epoch.ended_us or start_us
        found.append(Loss(*key[1:], first, last, last - first + 1, start_us, max(start_us, end_us), BUFFER_LOST))
    return found


def _unclean(epoch: Epoch, key: Key, runs: list[Run], losses: list[Lost], next_us: int) -> Loss | None:
    """The declaration that more may have been received after the last stored number; None where it stands already."""
    if any(open_ended(epoch, loss, runs) for loss in losses):
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
