"""Conservation: every number that was ever given is in exactly one class, or it is a hole. Pure.

The classes of received events, per market and feed: in the spool, in Redis, in segments, archived, duplicate, quarantined,
lost. What is seen at two places of the path counts where it has got furthest; what was declared lost and came back after
all counts as what it is now.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from app.quality.numbers import Span, common, size, united, without
from app.quality.records import ARCHIVED, REDIS, SEGMENT, SPOOL, Epoch, Lost, Records, Run


@dataclass
class Balance:
    """The numbers of one (exchange, symbol, feed), over all its epochs."""

    exchange: str
    symbol: str
    feed: str
    #: Numbers given: the last one that each connection said, or the highest on record of one that could not say it.
    received: int = 0
    spool: int = 0
    redis: int = 0
    segments: int = 0
    archived: int = 0
    duplicates: int = 0
    quarantined: int = 0
    lost: int = 0
    #: Declared losses of unknown extent: what a connection held when its process died.
    unknown_losses: int = 0
    #: Numbers that came again because a batch did; no part of what was received.
    replays: int = 0
    holes: int = 0
    epochs_open: int = 0

    @property
    def accounted(self) -> int:
        return self.spool + self.redis + self.segments + self.archived + self.duplicates + self.quarantined + self.lost


@dataclass(frozen=True)
class Difference:
    """One thing that does not agree: what it is about, where, and why that is wrong."""

    what: str
    where: str
    why: str


@dataclass
class Conservation:
    """Balances by (exchange, symbol, feed) in order, and what does not agree."""

    balances: list[Balance] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    #: Epochs without an end.
    open: list[Epoch] = field(default_factory=list)


def conserve(records: Records) -> Conservation:
    """The balance of everything in `records`."""
    found: dict[tuple[str, str, str], Balance] = {}
    result = Conservation(open=[e for e in records.epochs.values() if e.kind == "stream" and e.reason is None])
    open_epochs = {epoch.id for epoch in result.open}

    def of(exchange: str, symbol: str, feed: str) -> Balance:
        return found.setdefault((exchange, symbol, feed), Balance(exchange, symbol, feed))

    for (epoch_id, symbol, feed), (runs, losses) in sorted(records.by_key().items()):
        epoch = records.epochs.get(epoch_id)
        exchange = epoch.exchange if epoch else (runs or losses)[0].exchange
        balance = of(exchange, symbol, feed)
        balance.epochs_open += epoch_id in open_epochs
        where = f"{exchange}/{symbol} {feed}, epoch {epoch_id}"
        decided = [run for run in runs if run.place in (SEGMENT, ARCHIVED)]
        result.differences += _contradictions(where, decided, losses)
        parts = placed(runs, losses)
        for span in holes(epoch, symbol, feed, runs, losses):
            balance.holes += size([span])
            why = "received, and neither stored, waiting, a duplicate, quarantined nor declared lost"
            result.differences.append(Difference(f"numbers {span[0]}..{span[1]}", where, why))
        balance.received += top(epoch, symbol, feed, runs, losses)
        balance.spool += size(parts[SPOOL])
        balance.redis += size(parts[REDIS])
        balance.lost += size(parts["lost"])
        balance.segments += sum(run.stored for run in decided if run.place == SEGMENT)
        balance.archived += sum(run.stored for run in decided if run.place == ARCHIVED)
        balance.duplicates += sum(run.duplicates for run in decided)
        balance.quarantined += sum(run.quarantined for run in decided)
        balance.unknown_losses += sum(open_ended(epoch, loss, runs, losses) for loss in losses)
    for key, count in records.replays.items():
        of(*key).replays += count
    result.balances = [found[key] for key in sorted(found)]
    return result


def placed(runs: Iterable[Run], losses: Iterable[Lost]) -> dict[str, list[Span]]:
    """The numbers of one (epoch, symbol, feed) by class, each number in one: `stored` (in a segment or object, whatever
    became of it), `redis`, `spool`, `lost`."""
    parts: dict[str, list[Span]] = {"stored": [], REDIS: [], SPOOL: [], "lost": []}
    for run in runs:
        parts["stored" if run.place in (SEGMENT, ARCHIVED) else run.place].append((run.first, run.last))
    parts["lost"] = [(loss.first, loss.last) for loss in losses if loss.size is not None]
    taken: list[Span] = []
    for name, spans in parts.items():
        parts[name] = without(spans, taken)
        taken = united(taken + spans)
    return parts


def top(epoch: Epoch | None, symbol: str, feed: str, runs: Iterable[Run], losses: Iterable[Lost]) -> int:
    """The highest number given, as far as anybody knows."""
    said = [n for key, n in epoch.last_numbers if key == (symbol, feed)] if epoch and epoch.said_its_end else []
    return max((*said, *(run.last for run in runs), *(x.last for x in losses if x.size is not None)), default=0)


def holes(
    epoch: Epoch | None, symbol: str, feed: str, runs: list[Run], losses: list[Lost], *, up_to: int | None = None
) -> list[Span]:
    """Numbers from 1 to the top (or `up_to`) that nothing explains."""
    last = top(epoch, symbol, feed, runs, losses) if up_to is None else up_to
    spans = [(run.first, run.last) for run in runs] + [(x.first, x.last) for x in losses if x.size is not None]
    return without([(1, last)] if last else [], spans)


def open_ended(epoch: Epoch | None, loss: Lost, runs: Iterable[Run], losses: Iterable[Lost]) -> bool:
    """Whether a loss of unknown extent still stands: not once its epoch said its end, or something is known of its first
    number."""
    known = [(run.first, run.last) for run in runs] + [(x.first, x.last) for x in losses if x.size is not None]
    found = any(first <= loss.first <= last for first, last in known)
    return loss.size is None and not found and not (epoch and epoch.said_its_end)


def _contradictions(where: str, decided: list[Run], losses: list[Lost]) -> list[Difference]:
    found = []
    for first, last in common((run.first, run.last) for run in decided):
        found.append(Difference(f"numbers {first}..{last}", where, "they stand in two ranges: stored twice"))
    for run in decided:
        outcomes = run.stored + run.duplicates + run.quarantined
        if outcomes != run.last - run.first + 1:
            why = f"{run.last - run.first + 1} numbers, but {outcomes} outcomes (stored, duplicate, quarantined)"
            found.append(Difference(f"range {run.first}..{run.last}", where, why))
    for loss in losses:
        if loss.size is not None and loss.size != loss.last - loss.first + 1:
            why = f"it names {loss.last - loss.first + 1} numbers and counts {loss.size}"
            found.append(Difference(f"loss {loss.first}..{loss.last}", where, why))
    return found
