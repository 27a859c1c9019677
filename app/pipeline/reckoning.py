"""Finds out what nobody lives to tell, and puts it on record: epochs whose process died, or whose last word was lost.

Looks twice, some seconds apart, and only the second look goes to the trouble of reading what waits in Redis and spools.
"""

from __future__ import annotations

import threading

from app import telemetry
from app.clock import wall_us
from app.codec import BatchCodec
from app.model import Batch
from app.pipeline.survey import Survey, survey
from app.quality.reckon import Going, reckon
from app.wiring import Wiring

#: Longer than a stream needs to say again that it has its lease, and that it is there, after Redis forgot.
LOOK_AGAIN_S = 5.0


def findings(wiring: Wiring, stop: threading.Event, *, look_again_s: float = LOOK_AGAIN_S) -> list[Batch]:
    """What is to be declared: seen twice. Empty at once where the first look sees nothing.

    Nothing is declared while a segment cannot be read: what it holds would look lost. Raises: BufferUnavailable;
    SQLAlchemy's errors for an unusable ledger.
    """
    first = survey(wiring, under_way=False, everything=False)
    suspected = {batch.epoch for batch in _found(wiring, first)}
    if not suspected or stop.wait(look_again_s):
        return []
    second = survey(wiring, epochs=suspected, everything=False)
    return [batch for batch in _found(wiring, second) if batch.epoch in suspected]


def declare(wiring: Wiring, batches: list[Batch]) -> dict[str, object]:
    """Send `batches` the way of everything else: Redis list, flush, segment, manifest. Says how many went.

    One that Redis does not take is found out again. Raises: BufferUnavailable.
    """
    codec = BatchCodec()
    declared = losses = 0
    for batch in batches:
        assert batch.end is not None
        if wiring.buffer.push(f"{batch.exchange}-findings", codec.encode(batch)) is None:
            telemetry.buffer_full(f"{batch.exchange}-findings")
            continue
        declared += 1
        losses += len(batch.losses)
        telemetry.epoch_abandoned(batch.stream, batch.epoch, batch.end.ended_us, len(batch.losses))
    return {"unclean_ends": declared, "losses": losses}


def _found(wiring: Wiring, read: Survey) -> list[Batch]:
    if read.unreadable:
        for difference in read.unreadable:
            telemetry.reckoning_postponed(difference.what, difference.why)
        return []
    return reckon(read.records, going(wiring, read), wall_us())


def going(wiring: Wiring, read: Survey) -> Going:
    """What the board says of the streams that `read` knows. Raises: BufferUnavailable."""
    names = sorted({epoch.stream for epoch in read.records.epochs.values()} | set(wiring.streams))
    states = wiring.board.states(names)
    planned = {
        name: {(symbol, feed) for symbol in stream.subscription.symbols for feed in stream.subscription.feeds}
        for name, stream in wiring.streams.items()
    }
    return Going({str(state["epoch"]) for state in states.values()}, wiring.board.leased(names) | set(states), planned)
