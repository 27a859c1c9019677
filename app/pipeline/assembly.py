"""One stream put together: the runner that watches, the sender, the outbox between them, and what all workers share."""

from __future__ import annotations

import threading
from collections.abc import Callable

from app.buffer.lease import Lease
from app.buffer.spool import Spool
from app.clock import monotonic_s, wall_us
from app.exchanges import exchange_of
from app.pipeline.connection import Venue
from app.pipeline.outbox import Outbox
from app.pipeline.plan import Stream
from app.pipeline.sender import Sender
from app.pipeline.snapshot import ask
from app.pipeline.stream import StreamRunner
from app.pipeline.symbols import unlisted
from app.wiring import Wiring


def assembled(
    wiring: Wiring, stream: Stream, lease: Lease, spool: Spool, stop: threading.Event, crowded: Callable[[], None]
) -> StreamRunner:
    """The runner of one stream, as `Wiring.runner` has it."""
    buffer = wiring.settings.buffer
    outbox = Outbox(
        stream.name,
        stream.exchange,
        max_bytes=buffer.stream_max_bytes,
        share_bytes=lambda: _share_bytes(wiring, wiring.streams.get(stream.name, stream)),
        allowance=wiring.allowance,
        max_events=buffer.batch_max_events,
        bell=wiring.carrier.bell,
    )
    exchange = exchange_of(stream.exchange, stream.source)
    venue = wiring.settings.exchanges[stream.exchange]
    signer = None
    if exchange.takes_key and venue.api_key is not None and venue.api_secret is not None:
        signer = exchange.signer(venue.api_key, venue.api_secret)
    made: list[StreamRunner] = []
    said = 0

    def publish(now_s: float) -> bool:
        """Put the state on the board; True when another worker is to have the stream."""
        nonlocal said
        state, refused = made[0].state(now_s), outbox.refused
        asked = wiring.board.publish(stream.name, state, buffer.lease_secs, dropped=refused > said)
        said = refused
        return asked == lease.token

    sender = Sender(
        stream.name, outbox, wiring.buffer, spool, lease,
        interval_s=buffer.batch_interval_ms / 1000,
        silence=wiring.carrier.silence,
        monotonic_s=monotonic_s,
        crowd_events=wiring.settings.collector.max_batch_size,
        crowded=lambda: wiring.carrier.nudge(crowded),
        publish=publish,
    )  # fmt: skip
    made.append(
        StreamRunner(
            stream,
            exchange,
            wiring.settings,
            outbox=outbox,
            sender=sender,
            stop=stop,
            reader=wiring.reader,
            carrier=wiring.carrier,
            monotonic_s=monotonic_s,
            wall_us=wall_us,
            unlisted=lambda stream: unlisted(stream, wiring.budget),
            planned=lambda: wiring.streams.get(stream.name),
            venue=Venue(
                lambda: wiring.admit(stream.exchange, exchange.limits.connects),
                lambda seconds: wiring.stay_away(stream.exchange, seconds),
                lambda stream, symbol: ask(stream, symbol, wiring.budget),
            ),
            signer=signer,
        )
    )
    return made[0]


def _share_bytes(wiring: Wiring, stream: Stream) -> int:
    """What a market of the stream may always hold: all of them together fit into the bounds, whoever runs them."""
    buffer = wiring.settings.buffer
    together = min(buffer.stream_max_bytes, buffer.process_max_bytes // max(1, len(wiring.streams)))
    return together // max(1, len(stream.subscription.symbols))
