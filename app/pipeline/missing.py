"""What is to be fetched again, from what is stored alone. Writes nothing."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

from app.errors import FrameRejected
from app.exchanges.base import Exchange
from app.exchanges.history.base import Between
from app.model import TRADE
from app.pipeline import gaps
from app.pipeline.seams import SEAM, epoch_of, presences, sides
from app.store.stored import Row, Stored

#: Clocks of hosts differ by less.
SLACK_US = 3600 * 1_000_000

#: What one thing that is missing is remembered by.
Name = tuple[object, ...]
#: Exchange and symbol; first and last id.
Market = tuple[str, str]
Run = tuple[int, int]


def name_of(row: Row) -> Name:
    """The name of a gap, or of the seam of a check."""
    return tuple(row.get(part) for part in ("exchange", "symbol", "epoch", "number", "end_us"))


class Missing(NamedTuple):
    """One thing to fetch: a gap of trades whose ids count, or the seam of others. `row`: the gap's or the check's."""

    exchange: str
    symbol: str
    row: Row
    #: One walk for each: the stored trades on either side.
    wanted: tuple[Between, ...]
    #: Of a gap, the ids that are not stored, one run a walk.
    runs: tuple[tuple[int, int], ...] = ()
    #: The epoch of kind `rest` that brought the last of what was found.
    brought_by: Row | None = None

    @property
    def is_gap(self) -> bool:
        return "from_id" in self.row

    @property
    def name(self) -> Name:
        return name_of(self.row)

    @property
    def arrived(self) -> int:
        """Of a gap, how many of its ids are stored."""
        return int(self.row["to_id"]) - int(self.row["from_id"]) + 1 - gaps.size(self.runs)

    @property
    def given_up(self) -> bool:
        """A gap that is not asked for any more; what comes late may still close it."""
        return self.is_gap and gaps.closed(self.row)

    def says(self) -> dict[str, object]:
        """For people, and for `--json`."""
        size = gaps.size(self.runs) if self.is_gap else None
        what = (
            gaps.words(self.runs)
            if self.is_gap
            else " ".join(f"after {w.older_id} before {w.newer_id}" for w in self.wanted)
        )
        return {"market": f"{self.exchange}/{self.symbol}", "missing": what, "size": size}


class Search:
    """Looks for what is missing."""

    def __init__(self, stored: Stored, exchanges: Mapping[str, Exchange]) -> None:
        self._stored, self._exchanges = stored, exchanges

    def missing(
        self,
        market: str | None = None,
        since_us: int = 0,
        also_gaps: Sequence[Row] = (),
        also_checks: Sequence[Row] = (),
        leave: Callable[[Name], bool] = lambda name: False,
        at_most: int | None = None,
    ) -> list[Missing]:
        """Everything not repaired that ended at `since_us` or later, the oldest first.

        `also_...`: found a moment ago. `leave`: whether to look at this one another time. `at_most`: so many gaps that are
        open, and so many that were given up.
        """

        def chosen(row: Row) -> bool:
            ours = row["exchange"] in self._exchanges and market in (None, f"{row['exchange']}/{row['symbol']}")
            return ours and not leave(name_of(row))

        left = [gap for gap in self.gaps(TRADE, since_us, also_gaps) if gap["state"] != gaps.REPAIRED and chosen(gap)]
        open_, given_up = ([gap for gap in left if gaps.closed(gap) is closed][:at_most] for closed in (False, True))
        checks = [
            *self._stored.records("checks", since=("end_us", since_us), feed=TRADE, kind=SEAM, verdict=gaps.UNKNOWABLE),
            *self._stored.records("checks", since=("end_us", since_us), feed=TRADE, kind=gaps.REFETCH),
        ]
        seams = gaps.unknowable([*checks, *also_checks])
        seams = [seam for seam in seams if not seam["asked"] and chosen(seam)]
        found = self._of_gaps([*open_, *given_up]) + self._of_seams(seams[:at_most])
        return sorted(found, key=lambda one: int(one.row["after_us"] if one.is_gap else one.row["end_us"]))

    def gaps(self, feed: str, since_us: int, also: Sequence[Row] = ()) -> list[Row]:
        """Gaps of this data type that ended at `since_us` or later, with what became of them (`gaps.states`)."""
        found = self._stored.records("gaps", since=("after_us", since_us), feed=feed)
        repairs = self._stored.records("repairs", since=("found_us", since_us), feed=feed) if found else []
        return list(gaps.states([*found, *also], repairs))

    def _of_gaps(self, holes: list[Row]) -> list[Missing]:
        if not holes:
            return []
        since_us = min(int(str(gap["before_us"])) for gap in holes) - SLACK_US
        exchanges = {gap["exchange"] for gap in holes}
        rest = {
            row["epoch"]: epoch_of(row)
            for row in self._stored.records("epochs", since=("opened_us", since_us))
            if row.get("kind") == "rest" and row["exchange"] in exchanges
        }
        fetched: dict[Market, list[tuple[Run, str]]] = {}
        for run, row in gaps.arrived(self._stored.ranges(rest)):
            fetched.setdefault((row["exchange"], row["symbol"]), []).append((run, row["epoch"]))
        by_market: dict[Market, list[Row]] = {}
        for gap in holes:
            by_market.setdefault((gap["exchange"], gap["symbol"]), []).append(gap)
        return [
            one
            for market, its in by_market.items()
            for one in self._of_market(market, its, fetched.get(market, []), rest)
        ]

    def _of_market(
        self, market: Market, holes: list[Row], fetched: list[tuple[Run, str]], rest: Mapping[str, Row]
    ) -> Iterator[Missing]:
        """`holes` of one market, less what was `fetched` and what came late."""
        (name, symbol), exchange = market, self._exchanges[market[0]]
        ends = [(int(gap["from_id"]), int(gap["to_id"])) for gap in holes]
        by = [[one for one in fetched if gaps.overlap(one[0], hole)] for hole in ends]
        lacking = [gaps.runs_left(*hole, (run for run, _ in its)) for hole, its in zip(ends, by, strict=True)]
        late = sorted(self._came_late(name, symbol, [run for runs in lacking for run in runs]), key=itemgetter(1))
        for gap, hole, its in zip(holes, ends, by, strict=True):
            left = gaps.runs_left(*hole, [*(run for run, _ in its), *_ending_in(hole, late)])
            wanted = (
                Between(exchange.delivered(symbol), str(a - 1), str(b + 1), gap["before_us"], gap["after_us"])
                for a, b in left
            )
            newest = max((rest[epoch] for _, epoch in its), key=lambda row: int(row["opened_us"]), default=None)
            yield Missing(name, symbol, gap, tuple(wanted), tuple(left), newest)

    def _came_late(self, exchange: str, symbol: str, runs: list[Run]) -> Iterator[Run]:
        """The ids of trades of the kept segments whose identity is in one of `runs`, whichever way they came."""
        for identity, text in self._stored.counted_trades(exchange, symbol, runs).items():
            try:
                if span := self._exchanges[exchange].dense_span(identity, text):
                    yield span
            except (ValueError, FrameRejected):
                continue

    def _of_seams(self, seams: list[dict[str, object]]) -> list[Missing]:
        named = {}
        for check in seams:
            try:
                named[id(check)] = sides(str(check["detail"]))
            except ValueError:
                continue  # not one of ours
        known = presences(self._stored.ranges([epoch for pair in named.values() for epoch in pair]))
        found = []
        for check in seams:
            exchange, symbol, feed = (str(check[part]) for part in ("exchange", "symbol", "feed"))
            before, after = (known.get((epoch, symbol, feed)) for epoch in named.get(id(check), ("", "")))
            if before is None or after is None:
                continue
            between = Between(
                self._exchanges[exchange].delivered(symbol), before.last_id, after.first_id, before.last_us,
                after.first_us,
            )  # fmt: skip
            found.append(Missing(exchange, symbol, check, (between,)))
        return found


def _ending_in(run: Run, spans: list[Run]) -> list[Run]:
    """Those of `spans`, ascending by their last id, that end in `run`."""
    return spans[bisect_left(spans, run[0], key=itemgetter(1)) : bisect_right(spans, run[1], key=itemgetter(1))]
