"""What explains that an event that was sent is not held: declared losses, gaps, quarantined frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from app.model import UNDECODED, Batch, Gap, Quarantined
from app.pipeline.survey import Survey
from app.quality.balance import Difference, open_ended
from app.store.ledger import OPEN, SEALED, SEALING
from app.store.reading import gaps_and_quarantined
from app.wiring import Wiring

#: From, to, how many events (None: nobody knows), and what it is, so that the same one read twice is one.
_Reason = tuple[int, int, int | None, str]


def kept_segments(wiring: Wiring) -> set[int]:
    """Numbers of the segments whose files nobody is removing. Raises: SQLAlchemy's errors for an unusable ledger."""
    return {entry.number for entry in wiring.ledger.segments(OPEN, SEALING, SEALED)}


class Reasons:
    """Declared losses, gaps and quarantined frames: what explains that an event is not there, and how many of them."""

    def __init__(self, wiring: Wiring, read: Survey) -> None:
        self._found: dict[str, set[_Reason]] = {}
        self._explained: dict[str, int] = {}
        for (epoch, *_), (runs, losses) in read.records.by_key().items():
            for x in losses:
                if x.size is not None or open_ended(read.records.epochs.get(epoch), x, runs, losses):
                    name = f"{x.exchange}/{x.symbol} {x.feed}"
                    self._found.setdefault(name, set()).add((x.start_us, x.end_us, x.size, f"{epoch} loss {x.first}"))
        for one in read.segments:
            try:
                self._add_file(one.path, one.settled)
            except DBAPIError:
                if one.entry.number in kept_segments(wiring):
                    raise
                # removed meanwhile: the ledger, which is read last, has it all
        self._add_file(wiring.ledger.path, False)

    def _add_file(self, path: Path, settled: bool) -> None:
        for exchange, symbol, feed, start_us, end_us, size, name in gaps_and_quarantined([(path, settled)]):
            self._found.setdefault(f"{exchange}/{symbol} {feed}", set()).add((start_us, end_us, size, name))

    def add(self, batch: Batch) -> None:
        """Gaps and quarantined frames that are under way, and in no file yet; losses were read before."""
        found: list[Gap | Quarantined] = [*batch.gaps, *batch.quarantined]
        for x in found:
            name = f"{batch.epoch} {x.symbol} {x.feed} {x.number}"
            if isinstance(x, Gap):
                reason: _Reason = x.before_us, x.after_us, x.size, f"{name} gap"
            else:
                reason = x.received_us, x.received_us, None, f"{name} quarantined"
            self._found.setdefault(f"{batch.exchange}/{x.symbol} {x.feed}", set()).add(reason)

    def _of(self, name: str) -> set[_Reason]:
        exchange = name.partition("/")[0]
        return self._found.get(name, set()) | self._found.get(f"{exchange}/{UNDECODED} {UNDECODED}", set())

    def explain(self, name: str, since_us: int, until_us: int, count: int) -> bool:
        """Whether something declared lies between the two times; `count` events are put on its account."""
        since_us, until_us = min(since_us, until_us), max(since_us, until_us)
        if any(start <= until_us and end >= since_us for start, end, *_ in self._of(name)):
            self._explained[name] = self._explained.get(name, 0) + count
            return True
        return False

    def exceeded(self) -> Iterator[Difference]:
        """Markets and feeds of which more is missing than is declared, where the extent is known."""
        for name, count in sorted(self._explained.items()):
            sizes = [size for _, _, size, _ in self._of(name)]
            if None not in sizes and count > sum(size or 0 for size in sizes):
                why = (
                    f"{count} sent events are nowhere, but losses and gaps speak of {sum(size or 0 for size in sizes)}"
                )
                yield Difference("losses and gaps", name, why)
