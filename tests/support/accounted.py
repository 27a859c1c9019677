"""What the built-in exchanges say they sent, compared with what a data directory holds, connection by connection.

The n-th event of a feed that a connection was sent has number n in the epoch of that connection, so the two can be laid
side by side without any counter of the application: each sent event is stored, a duplicate of one that is, or inside a
declared loss; nothing else is stored, and nothing twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from tests.chaos.content import Held, audited, held
from tests.support.rig import Rig

#: exchange, symbol, data type
Feed = tuple[str, str, str]
DATA_TYPES = {"orderbooks": "orderbook", "trades": "trade"}
#: Reasons of an end after which the venue may believe to have sent what never arrived: nobody said goodbye.
ABRUPT = (None, "stream_ended", "dead_timeout", "data_timeout")


class Account(NamedTuple):
    """How many events were stored, were duplicates, are declared lost; and the sent ones that never arrived."""

    stored: int
    duplicates: int
    lost: int
    #: The text of each, by feed: the end of what connections without a goodbye were sent.
    unread: dict[Feed, list[str]]
    held: Held

    def reasons(self, exchange: str) -> list[str | None]:
        """Why each epoch of `exchange` ended, in order; None: it has not, or could not say so."""
        epochs = self.held.epochs
        mine = [epoch for epoch, told in epochs.items() if told[1] == exchange]
        return [epochs[epoch][3] for epoch in sorted(mine, key=lambda epoch: self.held.opened_us[epoch])]


def accounted(rig: Rig, lines: Iterable[dict[str, Any]]) -> Account:
    """Everything flushed so far against `lines` of the sent file (halt the data and flush before), and the audit's word.

    One stream per exchange: its epochs are the venue's connections in order. Raises: AssertionError.
    """
    found = held(rig)
    sent: dict[str, dict[int, dict[Feed, list[dict[str, Any]]]]] = {}
    for line in lines:
        if "opened" in line:
            sent.setdefault(line["venue"], {})[line["connection"]] = {}
        elif "data" in line:
            feed = line["venue"], line["symbol"], line["feed"]
            sent[line["venue"]][line["connection"]].setdefault(feed, []).append(line)
    epochs: dict[str, list[str]] = {}
    for epoch in sorted(found.opened_us, key=lambda epoch: found.opened_us[epoch]):
        epochs.setdefault(found.epochs[epoch][1], []).append(epoch)
    assert {name: len(of) for name, of in epochs.items()} == {name: len(of) for name, of in sent.items()}
    lost: dict[tuple[str, str, str], set[int]] = {}
    for (epoch, symbol, feed, first, last, count, _), times in found.losses.items():
        assert times == 1
        if count is None:  # of unknown extent: it names no number
            continue
        lost.setdefault((epoch, symbol, feed), set()).update(range(first, last + 1))
    rows: dict[tuple[str, str, str], Counter[str]] = {}
    texts: dict[Feed, set[str]] = {}
    for (table, exchange, symbol, _, _, _, data, epoch), times in found.rows.items():
        assert times == 1, f"twice: {data}"
        rows.setdefault((epoch, symbol, DATA_TYPES[table]), Counter())[data] += 1
        texts.setdefault((exchange, symbol, DATA_TYPES[table]), set()).add(data)
    total = Counter[str]()
    unread: dict[Feed, list[str]] = {}
    for venue, connections in sent.items():
        for epoch, number in zip(epochs[venue], sorted(connections), strict=True):
            assert {key[1:] for key in rows if key[0] == epoch} <= {feed[1:] for feed in connections[number]}
            for feed, events in connections[number].items():
                key = epoch, feed[1], feed[2]
                fate, missing = found.fates.get(key), lost.get(key, set())
                numbers = fate.numbers if fate else set()
                assert not numbers & missing, f"{key}: stored and declared lost: {sorted(numbers & missing)}"
                arrived = max(numbers | missing, default=0)
                silent = set(range(1, arrived + 1)) - numbers - missing
                assert not silent, f"{key}: neither stored nor declared lost: {sorted(silent)}"
                assert arrived <= len(events), f"{key}: {arrived} numbers for {len(events)} events sent"
                tail = [event for event in events[arrived:] if not event.get("maybe")]
                assert not tail or found.epochs[epoch][3] in ABRUPT, f"{key}: {len(tail)} sent and not received"
                if tail:
                    unread.setdefault(feed, []).extend(event["data"] for event in tail)
                expected = Counter(events[n - 1]["data"] for n in numbers)
                stored = rows.get(key, Counter())
                assert not stored - expected, f"{key}: never sent, or altered: {(stored - expected).most_common(2)}"
                absent = (expected - stored).total()
                assert fate is None or absent == fate.duplicates, f"{key}: {absent} rows absent"
                if feed[2] == "orderbook":  # of a trade the id decides, and its words may differ
                    assert set(expected) <= texts.get(feed, set())
                total.update(stored=stored.total(), duplicates=absent, lost=len(missing))
    assert audited(rig, deep=False) == []
    return Account(total["stored"], total["duplicates"], total["lost"], unread, found)
