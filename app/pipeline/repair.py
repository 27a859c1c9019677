"""Judges seams and fetches what is missing: everything found goes through the lists, like all data.

State is what is stored, nothing else: which ids of a gap are missing is asked of the segments and the ledger, and a
verdict on a gap is written only by a run that could fetch nothing more. So a run may be killed anywhere, or two may be
at it at once: identity removes what came twice. Fetched trades are pushed at most 500 at a time, each time as one batch
with an epoch of its own of consecutive ids, whole with its end: there is no half of one.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import msgspec

from app import telemetry
from app.buffer.events import EventBuffer
from app.codec import BatchCodec
from app.errors import BufferUnavailable, Interrupted, VenueUnavailable
from app.exchanges.history.base import Ask, History, Past, Refused
from app.model import ORDERBOOK, TRADE, Batch, Check, Repair
from app.pipeline import found, gaps
from app.pipeline.asking import Asking, Venue
from app.pipeline.judging import REACH_US, Judging
from app.pipeline.missing import Missing, Name, Search
from app.store.stored import Row, Stored

#: A gap gets so many pages a run, so that a long one does not keep the others waiting.
PAGES_A_RUN = 20
PAUSE_FIRST_S, PAUSE_LAST_S = 10.0, 3600.0
#: A gap that was given up is looked at so often, for what comes late out of a spool: well within the life of a segment.
LATE_LOOK_S = 600.0
#: So many gaps of a kind are looked up in a run; those that wait longest come first.
GAPS_A_RUN = 500
#: Records that need no fetching are written at most so many a run.
RECORDS_A_RUN = 500
NO_PAST_BOOKS = "no venue tells past books: the next snapshot begins anew"
DETAIL_CHARS = 300


@dataclass
class RepairReport:
    """What one run did. `waiting`: exchanges of which something found is not flushed yet, left to the next run."""

    judged: int = 0
    requests: int = 0
    fetched: int = 0
    closed: list[dict[str, object]] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    #: What could not be asked, and why.
    failed: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


class Walk(NamedTuple):
    """What came of the questions about one thing. `over`: everything that can be asked was asked."""

    over: bool = True
    reached: bool = False
    words: str = ""
    gone: bool = False
    #: Trades pushed; of those whose ids do not count, the last page is `held` to be pushed with the verdict.
    pushed: int = 0
    held: tuple[Past, ...] = ()


class Repairs:
    """One process's repairs; what it remembers between runs is only when to try again, and where it was."""

    def __init__(
        self,
        stored: Stored,
        buffer: EventBuffer,
        venues: Mapping[str, Venue],
        *,
        wall_us: Callable[[], int],
        monotonic_s: Callable[[], float],
        wait: Callable[[float], object],
        step: Callable[[str], None] = lambda name: None,
    ) -> None:
        exchanges = {name: venue.exchange for name, venue in venues.items()}
        self.search = Search(stored, exchanges)
        self.judging = Judging(stored, exchanges, wall_us)
        self._stored, self._buffer, self._venues = stored, buffer, venues
        self._now_us, self._now_s, self._wait = wall_us, monotonic_s, wait
        self._step = step
        self._codec = BatchCodec()
        self._pauses: dict[Name, tuple[int, float]] = {}
        #: Walks along a seam that were interrupted go on here; runs of a gap's ids that the venue answered without.
        self._left: dict[Name, Ask] = {}
        self._lacking: dict[Name, dict[tuple[int, int], str]] = {}
        self._report = RepairReport()

    def run(
        self,
        *,
        deadline_s: float,
        market: str | None = None,
        patient: bool = True,
        keep_going: Callable[[], bool] = lambda: True,
    ) -> RepairReport:
        """Judge what is to be judged, then fetch what is missing, the oldest first, until `deadline_s` seconds are over.

        `patient`: what failed is left alone for a growing pause, and what is older than REACH_US for good. What Redis
        does not take is found again by the next run.
        """
        report = self._report = RepairReport()
        asking = Asking(
            self._now_s() + deadline_s, keep_going, wall_us=self._now_us, monotonic_s=self._now_s, wait=self._wait
        )
        try:
            lists = {depth.stream for depth in self._buffer.depths()}
            report.waiting = [n for n in sorted(self._venues) if {found.rest(n), found.findings(n)} & lists]
            since_us = max(0, self._now_us() - REACH_US) if patient else 0
            judged_gaps, judged_checks = self._judge(market)
            self._close_books(market, since_us)
            which = (self._paused, GAPS_A_RUN) if patient else ()
            for missing in self.search.missing(market, since_us, judged_gaps, judged_checks, *which):
                if missing.exchange in report.waiting:
                    continue
                if not asking.going():
                    break
                self._try(missing, asking)
        except BufferUnavailable as error:
            report.failed["redis"] = str(error)
        except Interrupted:
            pass  # what was fetched is in the list
        report.requests = asking.requests
        return report

    # seams

    def _judge(self, market: str | None) -> tuple[list[Row], list[Row]]:
        """Verdicts on seams, on their way; the gaps and checks among them as rows."""
        gap_rows: list[Row] = []
        check_rows: list[Row] = []
        for epoch, key, (check, gap) in self.judging.verdicts(market):
            exchange = epoch["exchange"]
            if exchange in self._report.waiting:
                continue
            batch = found.about(epoch, gaps=(gap,) if gap else (), checks=(check,))
            if not self._push(found.findings(exchange), batch):
                continue
            self.judging.settled(key)
            self._report.judged += 1
            check_rows.append({**msgspec.structs.asdict(check), "exchange": exchange})
            if gap is not None:
                telemetry.gap_detected(epoch["stream"], gap.symbol, gap.feed, gap.from_id, gap.to_id, gap.size)
                gap_rows.append({**msgspec.structs.asdict(gap), "exchange": exchange, "epoch": epoch["epoch"]})
        return gap_rows, [row for row in check_rows if row["feed"] == TRADE]

    def _close_books(self, market: str | None, since_us: int) -> None:
        """A hole in a book stays one: that is put on record, so that nobody waits."""
        open_: dict[str, list[Row]] = {}
        for gap in self.search.gaps(ORDERBOOK, since_us):
            chosen = (
                market in (None, f"{gap['exchange']}/{gap['symbol']}") and gap["exchange"] not in self._report.waiting
            )
            if gap["state"] == gaps.OPEN and chosen:
                open_.setdefault(gap["exchange"], []).append(gap)
        for exchange, found_gaps in open_.items():
            repairs = tuple(
                self._repair(gap, gaps.UNREPAIRABLE, 0, NO_PAST_BOOKS) for gap in found_gaps[:RECORDS_A_RUN]
            )
            self._push(found.rest(exchange), found.finding(exchange, uuid.uuid4().hex, self._now_us(), repairs=repairs))

    # what is missing

    def _try(self, missing: Missing, asking: Asking) -> None:
        """One thing, as far as it goes now."""
        if missing.given_up and missing.arrived <= missing.row["found"]:
            self._pause(missing.name, longest_s=LATE_LOOK_S)
            return
        if missing.given_up or (missing.is_gap and not missing.runs):
            self._settle_gap(missing, Walk(words=missing.row["detail"].partition(gaps.REMAIN)[2], gone=True))
            return
        venue = self._venues[missing.exchange]
        if venue.history is None:
            walk = Walk(words=f"{missing.exchange} tells nothing of the past", gone=True)
        elif missing.exchange in self._report.failed:
            return
        else:
            try:
                walk = (self._fill if missing.is_gap else self._bridge)(missing, venue, venue.history, asking)
            except VenueUnavailable as error:
                self._report.failed[missing.exchange] = error.words
                telemetry.repair_failed(missing.exchange, error)
                self._pause((missing.exchange,), error.wait_s)
                return
            self._pauses.pop((missing.exchange,), None)
        if walk.over:
            self._pause(missing.name)
            (self._settle_gap if missing.is_gap else self._settle_seam)(missing, walk)
        elif walk.pushed:
            self._pauses.pop(missing.name, None)

    def _fill(self, missing: Missing, venue: Venue, history: History, asking: Asking) -> Walk:
        """Fetch the runs of a gap. Over when the venue lacks all that remains. Raises: VenueUnavailable."""
        lacking = self._lacking.setdefault(missing.name, {})
        pushed = pages = 0
        for run, wanted in zip(missing.runs, missing.wanted, strict=True):
            ask: Ask | None = None if run in lacking else history.first(wanted, self._now_us())
            words, before = "", pushed
            while ask is not None:
                if not asking.going() or pages == PAGES_A_RUN:
                    return Walk(over=False, pushed=pushed)
                page = asking.page(venue, history, wanted, ask)
                pages += 1
                if isinstance(page, Refused):
                    return Walk(words=page.words, gone=True, pushed=pushed)
                trades = found.inside(page.trades, run)
                if not self._push_trades(missing, trades):
                    return Walk(over=False, pushed=pushed)
                pushed += len(trades)
                ask, words = (None if page.reached else page.next), page.words
            if pushed == before:
                lacking.setdefault(run, words)
        if any(run not in lacking for run in missing.runs):
            return Walk(over=False, pushed=pushed)
        told = dict.fromkeys(words for words in self._lacking.pop(missing.name).values() if words)
        return Walk(words="; ".join(told) or "the venue does not have them", pushed=pushed)

    def _bridge(self, missing: Missing, venue: Venue, history: History, asking: Asking) -> Walk:
        """Walk from one side of a seam towards the other. Raises: VenueUnavailable."""
        (wanted,) = missing.wanted
        ask = self._left.pop(missing.name, None) or history.first(wanted, self._now_us())
        pushed = 0
        while True:
            if not asking.going():
                self._left[missing.name] = ask
                return Walk(over=False, pushed=pushed)
            page = asking.page(venue, history, wanted, ask)
            if isinstance(page, Refused):
                return Walk(words=page.words, gone=True, pushed=pushed)
            held = self._stored.trades(missing.exchange, missing.symbol, [trade.sequence_id for trade in page.trades])
            trades = [trade for trade in page.trades if trade.sequence_id not in held]
            trades.sort(key=lambda trade: trade.exchange_us or 0)
            if page.reached or page.next is None:
                return Walk(reached=page.reached, words=page.words, pushed=pushed, held=tuple(trades))
            if not self._push_trades(missing, trades):
                return Walk(over=False, pushed=pushed)
            pushed, ask = pushed + len(trades), page.next

    def _push_trades(self, missing: Missing, trades: Sequence[Past], *checks: Check) -> bool:
        """Into the list, in whole epochs; `checks` with the last. False when the list is full."""
        now_us = self._now_us()
        runs = list(found.consecutive(trades))
        for n, run in enumerate(runs, 1):
            said = checks if n == len(runs) else ()
            batch = found.fetched(missing.exchange, missing.symbol, uuid.uuid4().hex, run, now_us, said)
            if not self._push(found.rest(missing.exchange), batch):
                return False
            self._report.fetched += len(run)
        if not runs and checks:
            batch = found.finding(missing.exchange, uuid.uuid4().hex, now_us, checks=checks)
            return self._push(found.rest(missing.exchange), batch)
        return True

    # verdicts

    def _settle_seam(self, missing: Missing, walk: Walk) -> None:
        row, now_us = missing.row, self._now_us()
        verdict, words = ("proved", "every trade between is stored") if walk.reached else (gaps.UNKNOWABLE, walk.words)
        check = Check(missing.symbol, row["feed"], gaps.REFETCH, row["start_us"], row["end_us"], verdict, now_us, words)
        if self._push_trades(missing, walk.held, check):
            self._tell(missing, gaps.REPAIRED if walk.reached else gaps.UNKNOWABLE, walk.pushed + len(walk.held), words)

    def _settle_gap(self, missing: Missing, walk: Walk) -> None:
        gap, now_us, left = missing.row, self._now_us(), missing.runs
        arrived = missing.arrived
        if not left:
            state, detail = gaps.REPAIRED, ""
            self._lacking.pop(missing.name, None)
        elif walk.pushed:
            return  # what was pushed is counted when it is stored
        else:
            state = gaps.PARTLY if arrived else gaps.UNREPAIRABLE
            detail = f"{gaps.words(left)}{gaps.REMAIN}{walk.words}"[:DETAIL_CHARS]
            early = now_us - gap["after_us"] < gaps.SETTLED_US
            if early and arrived <= gap["found"] and (gap["state"] == state or not walk.gone):
                return  # a venue's REST may lag: it is asked again
        self._step("repair.before_verdict")
        repair = self._repair(gap, state, arrived, detail)
        if missing.brought_by is not None:
            batch = found.about(missing.brought_by, repairs=(repair,))
        else:
            batch = found.finding(missing.exchange, uuid.uuid4().hex, now_us, repairs=(repair,))
        if self._push(found.rest(missing.exchange), batch):
            self._tell(missing, state, arrived, detail)

    def _repair(self, gap: Row, state: str, arrived: int, detail: str) -> Repair:
        # The newest stands: later than the one before it, whatever became of the clock.
        found_us = max(self._now_us(), (gap["found_us"] or 0) + 1)
        return Repair(gap["symbol"], gap["feed"], gap["epoch"], gap["number"], found_us, state, arrived, detail)

    def _tell(self, missing: Missing, state: str, arrived: int, detail: str) -> None:
        market = f"{missing.exchange}/{missing.symbol}"
        ids = (missing.row.get("from_id"), missing.row.get("to_id"))
        self._report.closed.append(
            {"market": market, "from_id": ids[0], "to_id": ids[1], "state": state, "found": arrived, "detail": detail}
        )
        telemetry.gap_settled(market, *ids, state, arrived, detail)

    # the way out, and pauses

    def _push(self, stream: str, batch: Batch) -> bool:
        """False when the list is full: what is not on record yet is found again. Raises: BufferUnavailable."""
        self._step("repair.before_push")
        taken = self._buffer.push(stream, self._codec.encode(batch)) is not None
        self._step("repair.after_push")
        if not taken:
            self._report.failed[stream] = "its Redis list is full"
        return taken

    def _paused(self, name: Name) -> bool:
        now_s = self._now_s()
        return any(now_s < self._pauses.get(one, (0, 0.0))[1] for one in (name[:1], name))

    def _pause(self, name: Name, at_least_s: float = 0.0, longest_s: float = PAUSE_LAST_S) -> None:
        tries = self._pauses.get(name, (0, 0.0))[0]
        pause_s = max(at_least_s, min(PAUSE_FIRST_S * 2 ** min(tries, 20), longest_s))
        self._pauses[name] = tries + 1, self._now_s() + pause_s
