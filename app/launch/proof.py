"""The account of a demo: what came in, what became of it, and whether the archive is what the exchanges say they sent.

Every figure comes from what is on disk after the last process has stopped: the ledger, the store read again byte by byte,
and the record that the built-in exchanges wrote of what they sent.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from app.model import ORDERBOOK, TRADE
from app.objects.manifest import Manifest
from app.objects.parquet import Row
from app.objects.store import Store
from app.pipeline.verify import verify
from app.store.ledger import Ledger

#: exchange, symbol, data type, and what makes the event one: the trade's id, or the hash of the book frame.
Item = tuple[str, str, str, str]


@dataclass
class Account:
    """The figures, and what is wrong in sentences."""

    figures: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def account(ledger: Ledger, store: Store, sent: Path, *, at_least: int = 0) -> Account:
    """Recount everything. Memory grows with the number of events: for demos and tests, not for years of data."""
    archived: Counter[Item] = Counter()
    payloads: set[tuple[Item, bytes]] = set()

    def seen(description: Manifest, rows: Iterator[list[Row]]) -> None:
        market = description.exchange, description.symbol, description.data_type
        for chunk in rows:
            for identity, _, _, data, _ in chunk:
                item = _item(*market, identity, data)
                archived[item] += 1
                payloads.add((item, _hash(data)))

    checked = verify(store, ledger, seen=seen)
    ranges, losses = ledger.records("ranges"), ledger.records("losses")
    result = Account()
    exchanges: dict[str, dict[str, int]] = {}
    for (exchange, _, data_type, _), count in archived.items():
        feeds = exchanges.setdefault(exchange, {ORDERBOOK: 0, TRADE: 0})
        feeds[data_type] += count
    result.figures = {
        "received": _received(ledger),
        "stored": _sum(ranges, "stored"),
        "duplicates": _sum(ranges, "duplicates"),
        "replays": sum(_int(r, "times") * (_int(r, "last") - _int(r, "first") + 1) for r in ledger.records("replays")),
        "quarantined": len(ledger.records("quarantine")),
        "lost": _sum(losses, "count"),
        "archived": checked.rows,
        "objects": checked.objects,
        "verified": checked.verified,
        "exchanges": dict(sorted(exchanges.items())),
    }
    result.faults += [f"{fault.key}: {fault.fault}" for fault in checked.faults]
    result.faults += _unbalanced(result.figures, at_least)
    result.faults += _differences(archived, payloads, sent, _duplicates(ranges))
    return result


def _received(ledger: Ledger) -> int:
    """Units numbered at receipt: what each connection said at its end; of one that could not say it, what is on record."""
    total = 0
    ended = set()
    for epoch in ledger.records("epochs"):
        if epoch["last_numbers"] is not None:
            ended.add(epoch["epoch"])
            total += sum(last for _, _, last in msgspec.json.decode(str(epoch["last_numbers"])))
    silent: dict[tuple[Any, ...], int] = {}
    for name in ("ranges", "losses"):
        for row in ledger.records(name):
            if row["epoch"] not in ended:
                key = row["epoch"], row["symbol"], row["feed"]
                silent[key] = max(silent.get(key, 0), _int(row, "last"))
    return total + sum(silent.values())


def _unbalanced(f: dict[str, Any], at_least: int) -> list[str]:
    faults = []
    if f["received"] != f["stored"] + f["duplicates"] + f["quarantined"] + f["lost"]:
        faults.append("received is not stored + duplicates + quarantined + lost")
    if f["quarantined"] or f["lost"]:
        faults.append(f"{f['quarantined']} quarantined and {f['lost']} lost; a rehearsal should have neither")
    if f["archived"] != f["stored"]:
        faults.append(f"{f['archived']} rows archived of {f['stored']} stored")
    if f["verified"] != f["objects"]:
        faults.append(f"{f['verified']} of {f['objects']} objects verified")
    if f["received"] < at_least:
        faults.append(f"{f['received']} events received; at least {at_least} were expected")
    return faults


def _differences(
    archived: Counter[Item], payloads: set[tuple[Item, bytes]], sent_file: Path, duplicates: Counter[tuple[str, str]]
) -> list[str]:
    """Where archive and record of the exchanges differ; what is sent twice is stored once, and counted as a duplicate."""
    sent: Counter[Item] = Counter()
    sent_payloads: set[tuple[Item, bytes]] = set()
    with sent_file.open("rb") as lines:
        for line in lines:
            entry = msgspec.json.decode(line)
            if "data" in entry:
                item = _item(entry["venue"], entry["symbol"], entry["feed"], entry["id"] or "", entry["data"])
                sent[item] += 1
                sent_payloads.add((item, _hash(entry["data"])))
    faults = []
    if unsent := archived - sent:
        faults.append(f"{unsent.total()} archived rows were never sent, or stand twice, such as {next(iter(unsent))}")
    if altered := payloads - sent_payloads:
        faults.append(f"{len(altered)} archived rows differ from what was sent, such as {next(iter(altered))[0]}")
    missing = sent - archived
    absent = [item for item in missing if item not in archived]
    if absent:
        faults.append(f"{len(absent)} sent events are not in the archive, such as {absent[0]}")
    repeated = Counter[tuple[str, str]]()
    for item, count in missing.items():
        repeated[item[0], item[2]] += count
    if repeated != +duplicates:
        faults.append(f"sent again {dict(repeated)}, counted as duplicates {dict(duplicates)}")
    for exchange in sorted({item[0] for item in sent}):
        for data_type in (ORDERBOOK, TRADE):
            if not any(item[0] == exchange and item[2] == data_type for item in archived):
                faults.append(f"{exchange} delivered no {data_type}")
    return faults


def _item(exchange: str, symbol: str, data_type: str, identity: str, data: str) -> Item:
    return exchange, symbol, data_type, identity if data_type == TRADE else _hash(data).hex()


def _hash(data: str) -> bytes:
    return hashlib.sha256(data.encode()).digest()


def _duplicates(ranges: list[dict[str, object]]) -> Counter[tuple[str, str]]:
    counted: Counter[tuple[str, str]] = Counter()
    for row in ranges:
        counted[str(row["exchange"]), str(row["feed"])] += _int(row, "duplicates")
    return counted


def _sum(rows: list[dict[str, object]], name: str) -> int:
    return sum(_int(row, name) for row in rows if row[name] is not None)


def _int(row: dict[str, object], name: str) -> int:
    value = row[name]
    assert isinstance(value, int)
    return value
