"""Finds the seams that nobody has judged yet, and judges them from what is stored. Writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from app.errors import FrameRejected
from app.exchanges.base import Exchange
from app.model import FEEDS, TRADE
from app.pipeline.seams import Judged, Key, Presence, Seam, epoch_of, judge, marks, presences, seam
from app.store.stored import Row, Stored

#: A connection that is not known to have ended may still have events on their way, for so long.
SETTLE_US = 10 * 1_000_000
#: Epochs are looked through from the newest so many at a time until each feed's last one is found.
EPOCHS_A_LOOK = 50
#: A process that begins looks so far back for what nobody has judged; the others look at the kept segments.
REACH_US = 8 * 86_400 * 1_000_000


class Verdict(NamedTuple):
    """A seam judged: the record of the epoch that begins there, and what was found."""

    epoch: Row
    key: Key
    judged: Judged


class Judging:
    """One process's view; it remembers what it has judged, so that a run that finds nothing new costs next to nothing."""

    def __init__(self, stored: Stored, exchanges: Mapping[str, Exchange], wall_us: Callable[[], int]) -> None:
        self._stored, self._exchanges, self._now_us = stored, exchanges, wall_us
        self._seen: set[Key] = set()
        self._began = False

    def verdicts(self, market: str | None = None) -> list[Verdict]:
        """Every seam that can be judged now. The same again next time, until `settled` is told or they are stored."""
        reach_us = self._now_us() - REACH_US
        fresh = {
            key for key in self._stored.present(since_us=None if self._began else reach_us) if key[2] in FEEDS.values()
        } - self._seen
        if not fresh:
            self._began = True
            return []
        epochs = self._epochs(reach_us)
        if any(key[0] not in epochs for key in fresh):
            epochs = self._epochs(0)  # a connection that has lasted so long
        oldest_us = min((epochs[key[0]]["opened_us"] for key in fresh if key[0] in epochs), default=0)
        self._seen |= fresh & marks(self._stored.records("checks", since=("end_us", oldest_us), kind="seam"))
        streams = {epoch: row for epoch, row in epochs.items() if row.get("kind", "stream") == "stream"}
        self._seen |= {key for key in fresh if key[0] in epochs and key[0] not in streams}
        open_ = {key for key in fresh - self._seen if key[0] in streams and self._of(market, streams[key[0]], key)}
        found = list(self._judge(open_, streams)) if open_ else []
        self._began = self._began or market is None
        return found

    def settled(self, key: Key) -> None:
        """This verdict is on its way."""
        self._seen.add(key)

    def _of(self, market: str | None, epoch: Row, key: Key) -> bool:
        return epoch["exchange"] in self._exchanges and market in (None, f"{epoch['exchange']}/{key[1]}")

    def _judge(self, keys: set[Key], epochs: dict[str, Row]) -> Iterator[Verdict]:
        after = presences(self._stored.ranges({key[0] for key in keys}))
        gaps = [gap for gap in self._stored.gaps({key[0] for key in keys}) if gap["feed"] == TRADE]
        for exchange in sorted({epochs[key[0]]["exchange"] for key in keys}):
            own = {key: after[key] for key in keys if epochs[key[0]]["exchange"] == exchange and key in after}
            around = self._around(exchange, own, epochs)
            for key, presence in sorted(own.items(), key=lambda one: one[1].first_us):
                joint = seam(presence, around.get(key[1:], ()), epochs)
                if joint.before is None:
                    self._seen.add(key)
                elif self._over(joint, epochs):
                    first = self._first(exchange, presence)
                    if judged := judge(joint, first, gaps, self._now_us()):
                        yield Verdict(epochs[key[0]], key, judged)

    def _over(self, joint: Seam, epochs: dict[str, Row]) -> bool:
        """Whether everything that the connection before brought is stored."""
        before = joint.before
        ended = before is None or epochs[before.epoch]["ended_us"] is not None
        return ended or self._now_us() - joint.after.first_us >= SETTLE_US

    def _epochs(self, since_us: int) -> dict[str, Row]:
        """Those that were opened from then on, by name."""
        return {row["epoch"]: epoch_of(row) for row in self._stored.records("epochs", since=("opened_us", since_us))}

    def _around(
        self, exchange: str, own: Mapping[Key, Presence], epochs: dict[str, Row]
    ) -> dict[tuple[str, str], list[Presence]]:
        """Presences of the feeds of `own`, at least up to the one before each, by (symbol, feed). Older epochs are added to
        `epochs` where these do not go back so far."""
        found: dict[tuple[str, str], list[Presence]] = {}
        wanted = {key[1:]: presence for key, presence in sorted(own.items(), key=lambda one: -one[1].first_us)}
        symbols = {symbol for symbol, _ in wanted}

        def reached(names: Collection[str]) -> bool:
            names = sorted(names, key=lambda epoch: int(epochs[epoch]["opened_us"]), reverse=True)
            for start in range(0, len(names), EPOCHS_A_LOOK):
                ranges = self._stored.ranges(names[start : start + EPOCHS_A_LOOK], symbols)
                for key, presence in presences(ranges).items():
                    found.setdefault(key[1:], []).append(presence)
                if all(
                    any(
                        one.epoch != presence.epoch and one.first_us <= presence.first_us for one in found.get(feed, ())
                    )
                    for feed, presence in wanted.items()
                ):
                    return True
            return False

        known = {name for name, row in epochs.items() if row["exchange"] == exchange}
        if wanted and not reached(known):
            older = {name: row for name, row in self._epochs(0).items() if name not in epochs}
            epochs |= {name: row for name, row in older.items() if row.get("kind", "stream") == "stream"}
            reached({name for name, row in epochs.items() if row["exchange"] == exchange} - known)
        return found

    def _first(self, exchange: str, after: Presence) -> tuple[int, int] | None:
        """The ids of the first trade of `after`, None where they do not count or cannot be told."""
        if after.feed != TRADE:
            return None
        text = self._stored.trades(exchange, after.symbol, [after.first_id]).get(after.first_id, "")
        try:
            return self._exchanges[exchange].dense_span(after.first_id, text)
        except (ValueError, FrameRejected):
            return None
