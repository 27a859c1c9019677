"""Every minute: rows of order books as they were stored -> books -> verdicts, which travel as findings.

Reads segments only, in order, each row once: the cursor and the books are kept in memory, and made again from the segments
where the verdicts on record end when they were lost. What is on record by then is not said again.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from app import telemetry_books
from app.books.change import RestBook, Row
from app.books.judge import BROKEN, UNITED_US, Judge
from app.books.venues import VENUES
from app.codec import BatchCodec
from app.model import ORDERBOOK, Batch, Check, EpochEnd, Market
from app.store.ledger import OPEN, SEALED, SEALING, Ledger, SegmentEntry
from app.store.segment import SealedSegment

#: Checks of one finding; a market rarely has more than a few at once.
CHECKS_PER_BATCH = 500


@dataclass
class CertifyReport:
    """What one run did. `behind_s`: age of the last row judged where its time was over before the rows were."""

    rows: int = 0
    checks: int = 0
    broken: int = 0
    asked: int = 0
    behind_s: float | None = None

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


class Certifier:
    """The books of one data directory. Keep it: a new one reads again what was read before it.

    `push(stream, element)` appends a batch to a list and returns None where that is full; `questions` are the markets of the
    plan as it is by then, and how the book of each is asked for every `rest_check_s` seconds, never where that is 0.
    """

    def __init__(
        self,
        ledger: Ledger,
        segments_root: Path,
        push: Callable[[str, bytes], int | None],
        *,
        wall_us: Callable[[], int],
        monotonic_s: Callable[[], float],
        rest_check_s: float = 0,
        questions: Callable[[], Mapping[Market, Callable[[], RestBook]]] = dict,
    ) -> None:
        self._ledger, self._root, self._push = ledger, segments_root, push
        self._now_us, self._now_s = wall_us, monotonic_s
        self._questions, self._rest_check_s = questions, rest_check_s
        #: When each market is to be asked about next; not in it: now.
        self._due_s: dict[Market, float] = {}
        self._codec = BatchCodec()
        #: Number of the segment that is being read, and the last row of it.
        self._at: tuple[int, int] | None = None
        self._judges: dict[Market, Judge] = {}
        self._known: dict[Market, dict[str, int]] = {}
        self._unsaid: dict[str, list[Check]] = {}

    def run(
        self, *, deadline_s: float, keep_going: Callable[[], bool] = lambda: True, final: bool = False
    ) -> CertifyReport:
        """Judge what was stored since the last run, ask what is due, and push what is settled; with `final`, everything.

        Ends early after `deadline_s` or when `keep_going` says no, and goes on there next time. Verdicts that could not be
        pushed are kept for the next run. A segment that cannot be read is skipped, and that is said. Raises: BufferUnavailable.
        """
        started_s = self._now_s()

        def more() -> bool:
            return self._now_s() - started_s < deadline_s and keep_going()

        report = CertifyReport()
        self._read(report, more)
        for market, ask in self._questions().items() if self._rest_check_s else ():
            if self._due_s.get(market, 0) <= self._now_s() and market in self._judges and more():
                self._question(market, ask, report)
        self._take(report, final=final)
        self._say()
        if report.rows or report.checks:
            telemetry_books.books_certified(report.rows, report.checks, self._now_s() - started_s)
        return report

    def _read(self, report: CertifyReport, more: Callable[[], bool]) -> None:
        while True:
            kept = self._ledger.segments(OPEN, SEALING, SEALED)
            entry = self._place(kept, report)
            if entry is None:
                return
            try:
                rows, after = self._segment(entry, report, more)
            except DBAPIError as error:
                if entry.state != SEALED:  # the flush is at it
                    return
                self._skip(entry.number, str(error.orig), report)
                rows, after = False, 0
            if rows and not more():
                report.behind_s = (self._now_us() - after) / 1e6
                telemetry_books.books_behind(entry.number, report.behind_s)
                return
            following = [other.number for other in kept if other.number > entry.number]
            if entry.state != SEALED or not following:
                return
            self._at = following[0], 0

    def _place(self, kept: list[SegmentEntry], report: CertifyReport) -> SegmentEntry | None:
        """The segment to read on in; at first the one before that in which the verdicts on record end."""
        if not kept:
            return None
        if self._at is None:
            judged_us = self._recorded(kept) - 2 * UNITED_US  # an interval that grows is not on record yet
            begun = sum(entry.opened_us <= judged_us for entry in kept)
            self._at = kept[max(0, begun - 2)].number, 0
        for entry in kept:
            if entry.number == self._at[0]:
                return entry
        later = [entry for entry in kept if entry.number > self._at[0]]
        if not later:
            return None
        self._skip(self._at[0], "archived and removed before its books were judged to the end", report)
        self._at = later[0].number, 0
        return later[0]

    def _skip(self, number: int, why: str, report: CertifyReport) -> None:
        """Nothing follows from what was read before it."""
        telemetry_books.books_skipped(number, why)
        self._take(report, final=True)
        self._judges.clear()

    def _recorded(self, kept: list[SegmentEntry]) -> int:
        """Where the verdicts on record end: kept for each market, returned for the last of all; 0 without any."""
        for entry in kept:
            if not (self._root / entry.path).exists():
                continue
            try:
                found = self._opened(entry).records("checks", feed=ORDERBOOK)
            except DBAPIError:  # told when its rows are read
                continue
            for row in found:
                ends = self._known.setdefault(Market(str(row["exchange"]), str(row["symbol"])), {})
                kind = str(row["kind"])
                ends[kind] = max(ends.get(kind, 0), int(str(row["end_us"])))
        return max((end_us for ends in self._known.values() for end_us in ends.values()), default=0)

    def _segment(self, entry: SegmentEntry, report: CertifyReport, more: Callable[[], bool]) -> tuple[bool, int]:
        """Judge its rows from the cursor on. Returns whether rows may be left, and the receive time of the last one."""
        assert self._at is not None
        segment = self._opened(entry)
        last_us = self._now_us()
        while more():
            rows = segment.book_rows(self._at[1])
            if not rows:
                return False, last_us
            self._missing(segment)
            for number, exchange, symbol, stored in rows:
                if exchange in VENUES:
                    self._judge(Market(exchange, symbol)).row(Row(*stored))
                self._at = entry.number, number
            last_us = rows[-1][3][1]
            report.rows += len(rows)
        return True, last_us

    def _missing(self, segment: SealedSegment) -> None:
        """Gaps and losses on record: where rows have no numbers, nothing else tells of a hole."""
        for name, before, after in (("gaps", "before_us", "after_us"), ("losses", "start_us", "start_us")):
            for row in segment.records(name, feed=ORDERBOOK):
                market = Market(str(row["exchange"]), str(row["symbol"]))
                if market.exchange in VENUES:
                    words = f"{name[:-1].removesuffix('e')}: {row['cause']}"
                    times = int(str(row[before])), int(str(row[after]))
                    self._judge(market).missing(str(row["epoch"]), *times, words)

    def _judge(self, market: Market) -> Judge:
        judge = self._judges.get(market)
        if judge is None:
            judge = self._judges[market] = Judge(market.exchange, market.symbol, self._known.get(market))
        return judge

    def _question(self, market: Market, ask: Callable[[], RestBook], report: CertifyReport) -> None:
        try:
            answer = ask()
        except ValueError as error:
            telemetry_books.book_unanswered(market.exchange, market.symbol, error)
            self._due_s[market] = self._now_s() + self._rest_check_s
            return
        report.asked += 1
        self._due_s[market] = self._now_s() + self._rest_check_s
        self._judges[market].answered(answer, self._now_us())

    def _take(self, report: CertifyReport, *, final: bool) -> None:
        for market, judge in self._judges.items():
            for check in judge.take(self._now_us(), final=final):
                self._unsaid.setdefault(market.exchange, []).append(check)
                report.checks += 1
                if check.verdict == BROKEN:
                    report.broken += 1
                    telemetry_books.book_broken(
                        market.exchange, market.symbol, check.kind, check.start_us, check.end_us, check.detail
                    )

    def _say(self) -> None:
        now_us = self._now_us()
        for exchange, checks in self._unsaid.items():
            while checks:
                said = tuple(checks[:CHECKS_PER_BATCH])
                stream = f"{exchange}-findings"
                end = EpochEnd(now_us, "said", ())
                finding = Batch(stream, exchange, uuid.uuid4().hex, 1, now_us, end=end, kind="finding", checks=said)
                if self._push(stream, self._codec.encode(finding)) is None:
                    break  # the list is full: said the next time
                del checks[: len(said)]

    def _opened(self, entry: SegmentEntry) -> SealedSegment:
        return SealedSegment(self._root / entry.path, settled=entry.state == SEALED)
