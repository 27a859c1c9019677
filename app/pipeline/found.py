"""What was found out later, as batches: events that were asked for, verdicts, gaps. Pure but for the epoch that is given.

Everything about one exchange that depends on each other goes to one list, in order: `<exchange>-rest` for what was
fetched and what became of gaps, `<exchange>-findings` for verdicts on seams.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from app.exchanges.history.base import Past
from app.model import TRADE, Batch, Check, EpochEnd, Event, Gap, Range, Repair

BATCH_EVENTS = 500
#: Batches about an epoch have numbers from here on, which no batch of its own ever has.
ABOUT = 2**63


def findings(exchange: str) -> str:
    """The list for verdicts on seams."""
    return f"{exchange}-findings"


def rest(exchange: str) -> str:
    """The list for what was fetched, and for what became of gaps."""
    return f"{exchange}-rest"


def fetched(
    exchange: str, symbol: str, epoch: str, trades: Sequence[Past], now_us: int, checks: tuple[Check, ...] = ()
) -> Batch:
    """Trades as the one batch of an epoch that begins and ends with it."""
    events = tuple(
        Event(symbol, TRADE, number, trade.sequence_id, now_us, trade.exchange_us, trade.data)
        for number, trade in enumerate(trades, 1)
    )
    numbers = (Range(symbol, TRADE, 1, len(events)),)
    end = EpochEnd(now_us, "repair", numbers)
    return Batch(rest(exchange), exchange, epoch, 1, now_us, numbers, events, end=end, kind="rest", checks=checks)


def finding(
    exchange: str, epoch: str, now_us: int, *, repairs: tuple[Repair, ...] = (), checks: tuple[Check, ...] = ()
) -> Batch:
    """Verdicts that speak for no connection; `epoch` is their own."""
    return Batch(rest(exchange), exchange, epoch, 1, now_us, kind="finding", repairs=repairs, checks=checks)


def about(
    epoch: Mapping[str, Any],
    *,
    gaps: tuple[Gap, ...] = (),
    checks: tuple[Check, ...] = (),
    repairs: tuple[Repair, ...] = (),
) -> Batch:
    """What was found out about an epoch (`seams.epoch_of`), as a batch of it: told apart from any other by what it says."""
    said = msgspec.msgpack.encode((gaps, checks, repairs))
    number = ABOUT + int.from_bytes(hashlib.blake2b(said, digest_size=7).digest(), "big")
    return Batch(
        epoch["stream"], epoch["exchange"], epoch["epoch"], number, epoch["opened_us"], gaps=gaps, checks=checks,
        repairs=repairs, kind=epoch.get("kind", "stream"), overlaps=tuple(epoch["overlaps"]),
        after=epoch.get("after", ""),
    )  # fmt: skip


def consecutive(trades: Sequence[Past]) -> Iterator[list[Past]]:
    """`trades`, ascending, in runs of ids without a hole and of at most BATCH_EVENTS; where ids do not count, in as many."""
    run: list[Past] = []
    for trade in trades:
        if run and (len(run) == BATCH_EVENTS or (trade.first and trade.first != run[-1].last + 1)):
            yield run
            run = []
        run.append(trade)
    if run:
        yield run


def inside(trades: Sequence[Past], run: tuple[int, int]) -> list[Past]:
    """Those of `trades` wholly inside `run`, ascending, no id twice."""
    kept: list[Past] = []
    for trade in sorted(trades, key=lambda one: (one.first, -one.last)):
        if run[0] <= trade.first and trade.last <= run[1] and not (kept and trade.first <= kept[-1].last):
            kept.append(trade)
    return kept
