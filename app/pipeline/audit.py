"""Proves conservation: what was received is where it should be, counted row by row and number by number, or it is named.

Believes no counter: numbers come from ranges and losses, rows are counted now, objects answer through their manifests or,
`deep`, by being read whole. Changes nothing, and may run while everything else does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

from app.clock import wall_us
from app.errors import VerifyFailed
from app.model import Market
from app.objects import manifest
from app.objects.manifest import Manifest
from app.objects.parquet import Row
from app.pipeline import sent as sent_files
from app.pipeline.reckoning import going
from app.pipeline.sent import Progress, SentReport
from app.pipeline.survey import Survey, survey
from app.pipeline.verify import VerifyReport, verify
from app.quality.balance import Balance, Difference, conserve
from app.quality.reckon import reckon
from app.store.ledger import REMOVED, REMOVING, VERIFIED, ObjectEntry
from app.store.reading import epochs_of_rows
from app.wiring import Wiring

#: epoch, first, last, stored
_Listed = tuple[str, int, int, int]
_SUMMED = tuple(f.name for f in fields(Balance) if f.name not in ("exchange", "symbol", "feed"))


@dataclass
class Audit:
    """What was found. Balanced where there is no difference."""

    balances: list[Balance] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    #: Epochs without an end that somebody has, or may have.
    epochs_open: list[str] = field(default_factory=list)
    #: Manifests that agree with the ledger, and the rows that these name.
    manifests: int = 0
    rows: int = 0
    #: What no process of this host can look at.
    not_visible: list[str] = field(default_factory=list)
    deep: VerifyReport | None = None
    sent: SentReport | None = None

    @property
    def balanced(self) -> bool:
        return not self.differences

    def totals(self) -> dict[str, int]:
        """Every column of the balances, summed."""
        return {name: sum(getattr(balance, name) for balance in self.balances) for name in _SUMMED}

    def as_dict(self) -> dict[str, Any]:
        """The JSON contract of `collector audit` (docs/cli.md)."""
        return {
            "balanced": self.balanced,
            "totals": self.totals(),
            "feeds": [asdict(balance) for balance in self.balances],
            "differences": [asdict(difference) for difference in self.differences],
            "epochs_open": self.epochs_open,
            "manifests": self.manifests,
            "rows": self.rows,
            "not_visible": self.not_visible,
            "deep": self.deep
            and {"objects": self.deep.objects, "verified": self.deep.verified, "rows": self.deep.rows},
            "sent": self.sent and asdict(self.sent),
        }


def audit(
    wiring: Wiring,
    *,
    market: Market | None = None,
    deep: bool = False,
    sent: Sequence[Path] = (),
    progress: Progress = lambda what, done, total, unit: None,
) -> Audit:
    """The balance of all markets, or of one. `sent`: what the built-in exchanges wrote, to be compared row by row.

    Raises: BufferUnavailable, StoreUnavailable, StoreRefused, OSError for a file of `sent`; SQLAlchemy's errors for an
    unusable ledger.
    """
    progress("spools, lists, segments", 0, 0, "")
    verified = {entry.key: entry for entry in _verified(wiring)}
    read = survey(
        wiring, count=True, archived={(e.segment, e.exchange, e.symbol, e.data_type) for e in verified.values()}
    )
    conserved = conserve(read.records)
    result = Audit(conserved.balances, [*read.unreadable, *conserved.differences])
    reckoned = reckon(read.records, going(wiring, read), wall_us())
    dead = {batch.epoch for batch in reckoned}
    for batch in reckoned:
        if batch.epoch not in read.records.epochs:
            where, why = f"{batch.exchange}, epoch {batch.epoch}", "every batch of it was lost: not declared yet"
            result.differences.append(Difference(f"stream {batch.stream}", where, why))
    for epoch in conserved.open:
        if epoch.id in dead:
            where, why = (
                f"{epoch.exchange}, epoch {epoch.id}",
                "it has no end, and nobody has it any more: not declared yet",
            )
            result.differences.append(Difference(f"stream {epoch.stream}", where, why))
        else:
            result.epochs_open.append(epoch.id)
    result.differences += _counted(read)
    _manifests(wiring, read, result, market, progress)
    result.not_visible = _hosts(wiring, read)
    if deep:
        result.differences += _rows_by_epoch(read)
        result.deep = _deep(wiring, result, market, set(verified), progress)
    if market is not None:
        result.balances = [b for b in result.balances if (b.exchange, b.symbol) == (market.exchange, market.symbol)]
        result.differences = [d for d in result.differences if _is_about(d, market)]
    if sent:
        result.sent, found = sent_files.compare(wiring, read, sent, result.balances, market, progress)
        result.differences += found
    return result


def _is_about(difference: Difference, market: Market) -> bool:
    text = f" {difference.what} {difference.where}/"
    return str(market) in text or "/" not in difference.where


def _verified(wiring: Wiring) -> list[ObjectEntry]:
    store = wiring.store.name
    return [entry for entry in wiring.ledger.objects() if entry.state == VERIFIED and entry.store == store]


def _counted(read: Survey) -> Iterator[Difference]:
    """Rows of segments and quarantine, as they are counted now, against what the ranges say."""
    places = [(f"segment {one.entry.number}", str(one.path), one.told) for one in read.segments]
    for what, path, told in [*places, ("ledger", "removed segments", read.ledger)]:
        said: Counter[tuple[str, str, str]] = Counter()
        aside: Counter[tuple[str, str, str]] = Counter()
        for row in told.ranges:
            key = row["exchange"], row["symbol"], row["feed"]
            said[key] += row["stored"]
            aside[key] += row["quarantined"]
        if what != "ledger":
            for key in sorted(said.keys() | told.rows):
                if (rows := told.rows.get(key, 0)) != said[key]:
                    yield _differs(what, key, path, f"it holds {rows} rows, and its ranges say {said[key]}")
        for key in sorted(aside.keys() | told.quarantined):
            if (rows := told.quarantined.get(key, 0)) != aside[key]:
                yield _differs(what, key, path, f"{rows} rows in quarantine, and the ranges say {aside[key]}")


def _differs(what: str, key: tuple[str, str, str], where: str, why: str) -> Difference:
    exchange, symbol, feed = key
    return Difference(f"{what}, {exchange}/{symbol} {feed}", where, why)


def _manifests(wiring: Wiring, read: Survey, result: Audit, market: Market | None, progress: Progress) -> None:
    """What objects hold by their manifests, against the ledger's ranges, or the segment's while its file is kept."""
    # What was still open when it was read may have been sealed and archived since, with more in it.
    kept = {one.entry.number: one.told for one in read.segments if one.settled}
    gone = {number for number, state in read.ledger.states.items() if state in (REMOVING, REMOVED)}
    listed: dict[tuple[str, str, str], Counter[_Listed]] = {}
    entries = _verified(wiring)
    for place, entry in enumerate(entries, 1):
        key = entry.exchange, entry.symbol, entry.data_type
        if market is not None and key[:2] != (market.exchange, market.symbol):
            continue
        progress("manifests", place, len(entries), "manifests")
        try:
            with wiring.store.open(entry.manifest_key or entry.key) as file:
                told = manifest.decode(file.read())
        except (VerifyFailed, ValueError) as error:
            result.differences.append(Difference(f"manifest of {entry.key}", wiring.store.name, str(error)))
            continue
        ranges = Counter((r.epoch, r.first, r.last, r.stored) for r in told.ranges)
        why = _contradiction(entry, told)
        if not why and entry.segment in kept and ranges != _ranges(kept[entry.segment].ranges)[key]:
            why = f"its ranges are not those of segment {entry.segment}"
        if why:
            result.differences.append(Difference(f"manifest of {entry.key}", wiring.store.name, why))
            continue
        result.manifests += 1
        result.rows += told.rows
        if entry.segment in gone:
            listed.setdefault(key, Counter()).update(ranges)
    if {entry.store for entry in wiring.ledger.objects()} - {store.name for store in wiring.stores}:
        result.not_visible.append("objects in stores that the settings no longer name")
        return
    for key, ranges in _ranges(read.ledger.ranges).items():
        if market is not None and key[:2] != (market.exchange, market.symbol):
            continue
        held = listed.get(key, Counter())
        stored = {one for one in ranges if one[3]}
        for epoch, first, last, rows in sorted(stored - held.keys()):
            why = f"the ledger says that {rows} rows of them are archived, but no readable manifest lists them"
            result.differences.append(Difference(f"numbers {first}..{last}", _where(key, epoch), why))
        for (epoch, first, last, _), times in sorted(held.items()):
            if times > 1:
                why = f"{times} manifests list them: archived twice"
                result.differences.append(Difference(f"numbers {first}..{last}", _where(key, epoch), why))
        for epoch, first, last, _ in sorted(held.keys() - ranges.keys()):
            why = "a manifest lists them, but not the ledger"
            result.differences.append(Difference(f"numbers {first}..{last}", _where(key, epoch), why))


def _where(key: tuple[str, str, str], epoch: str) -> str:
    return f"{key[0]}/{key[1]} {key[2]}, epoch {epoch}"


def _contradiction(entry: ObjectEntry, told: Manifest) -> str:
    stored = sum(r.stored for r in told.ranges)
    if told.rows != entry.rows or told.sha256 != entry.sha256:
        return f"it describes {told.rows} rows of sha256 {told.sha256}, the ledger {entry.rows} of {entry.sha256}"
    return "" if told.rows == stored else f"it says {told.rows} rows, and its ranges {stored}"


def _ranges(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str], Counter[_Listed]]:
    found: dict[tuple[str, str, str], Counter[_Listed]] = {}
    for r in rows:
        key = r["exchange"], r["symbol"], r["feed"]
        found.setdefault(key, Counter())[r["epoch"], r["first"], r["last"], r["stored"]] += 1
    return found


def _rows_by_epoch(read: Survey) -> Iterator[Difference]:
    """The rows of segments, counted by connection."""
    for one in read.segments:
        try:
            rows = epochs_of_rows(one.path, settled=one.settled)
        except DBAPIError:
            continue  # removed meanwhile: its objects are read
        said: Counter[tuple[str, str, str, str]] = Counter()
        for r in one.told.ranges:
            said[r["exchange"], r["symbol"], r["feed"], r["epoch"]] += r["stored"]
        for key in sorted(said.keys() | rows):
            # What was added since the ranges were read can only be more.
            if (held := rows.get(key, 0)) < said[key] or (one.settled and held > said[key]):
                why = f"{held} rows of epoch {key[3]}, and its ranges say {said[key]}"
                yield _differs(f"segment {one.entry.number}", key[:3], str(one.path), why)


def _deep(wiring: Wiring, result: Audit, market: Market | None, verified: set[str], progress: Progress) -> VerifyReport:
    """Every object read whole: bytes, rows, and rows of each connection."""

    def seen(told: Manifest, chunks: Iterator[list[Row]]) -> None:
        rows = Counter(row[4] for chunk in chunks for row in chunk)
        said: Counter[str] = Counter()
        for r in told.ranges:
            said[r.epoch] += r.stored
        for epoch in sorted(said.keys() | rows.keys()):
            if rows[epoch] != said[epoch]:
                why = f"{rows[epoch]} rows of epoch {epoch}, and its manifest says {said[epoch]}"
                result.differences.append(Difference(f"object {told.key}", wiring.store.name, why))

    if not wiring.ledger.objects():
        return VerifyReport()  # the store may not even have been made
    report = verify(
        wiring.store, wiring.ledger, prefix=f"{market}/" if market else "", seen=seen,
        progress=lambda r: progress("objects read whole", r.objects, r.listed, "objects"),
    )  # fmt: skip
    under_way = {entry.key for entry in wiring.ledger.objects()} - verified
    for fault in report.faults:
        if fault.key not in under_way:  # being uploaded at this moment
            result.differences.append(Difference(f"object {fault.key}", wiring.store.name, fault.fault))
    return report


def _hosts(wiring: Wiring, read: Survey) -> list[str]:
    """Hosts that have a stream: their spools can only be read there."""
    names = wiring.board.leased(sorted({epoch.stream for epoch in read.records.epochs.values()}))
    holders = {(wiring.lease(f"stream:{name}", 1.0).holder() or "").split(":")[0] for name in names}
    return [f"spools on {host}" for host in sorted(holders - {"", wiring.host})]
