"""Reads objects and manifests again and says what is wrong. Trusts neither the ledger nor the store's word.

Objects may be picked by prefix, by market and by hour: the UTC hour their segment was opened in, which is in their key.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field
from typing import BinaryIO, NamedTuple

from app.errors import VerifyFailed
from app.objects import layout, manifest, parquet
from app.objects.manifest import Manifest
from app.objects.parquet import Row
from app.objects.store import Store
from app.store.ledger import VERIFIED, Ledger


class Fault(NamedTuple):
    """Something wrong with one object: which, and a sentence."""

    key: str
    fault: str


@dataclass
class VerifyReport:
    """Objects found, those whose every byte is as their manifest says, rows in these, and what is wrong."""

    objects: int = 0
    #: Objects there are to read; `objects` of them have been read so far.
    listed: int = 0
    verified: int = 0
    rows: int = 0
    faults: list[Fault] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "faults": [fault._asdict() for fault in self.faults]}


@dataclass(frozen=True)
class Scope:
    """Which objects are asked for."""

    prefix: str = ""
    #: `exchange/symbol` of each market; none: all.
    markets: Collection[str] = ()
    #: The hours they begin in: from `since_ms`, before `until_ms`, in ms since the Unix epoch.
    since_ms: int | None = None
    until_ms: int | None = None

    def holds(self, key: str) -> bool:
        """Whether `key` is one of them. A stranger's key has neither market nor hour."""
        if not key.startswith(self.prefix):
            return False
        if not self.markets and self.since_ms is None and self.until_ms is None:
            return True
        try:
            parts = layout.parse_key(layout.described_key(key) or key)
        except ValueError:
            return False
        return (
            (not self.markets or f"{parts.exchange}/{parts.symbol}" in self.markets)
            and (self.since_ms is None or parts.start_ms >= self.since_ms)
            and (self.until_ms is None or parts.start_ms < self.until_ms)
        )

    def listed(self, store: Store) -> set[str]:
        """Their keys and those of their manifests. Raises: StoreUnavailable, StoreRefused."""
        prefixes = [f"{market}/" for market in self.markets] or [self.prefix]
        return {key for prefix in prefixes for key in store.keys(prefix) if self.holds(key)}


def verify(
    store: Store,
    ledger: Ledger | None,
    *,
    prefix: str = "",
    scope: Scope | None = None,
    seen: Callable[[Manifest, Iterator[list[Row]]], None] | None = None,
    progress: Callable[[VerifyReport], None] = lambda report: None,
) -> VerifyReport:
    """Check every object of `scope` (else below `prefix`), and everything of it that the ledger says is there.

    Each object is read whole: its bytes against the manifest's sha256, its rows against the manifest's count. `seen`
    is given the rows of each object that is right. Raises: StoreUnavailable, StoreRefused.
    """
    report = VerifyReport()
    scope = scope or Scope(prefix)
    keys = scope.listed(store)
    elsewhere = ledger.conflicts(store.name) if ledger else {}
    promised = {
        entry.key: entry
        for entry in (ledger.objects() if ledger else [])
        if entry.state == VERIFIED and entry.store == store.name and scope.holds(entry.key)
    }
    found = {key for key in keys if key.endswith(".parquet")}
    report.listed = len(found)
    for key in sorted(promised.keys() - found):
        report.faults.append(Fault(key, "the ledger says it was verified, but the store has no such object"))
    for key in sorted(found):
        report.objects += 1
        try:
            described = _manifest(store, key, keys)
            if key in promised and promised[key].sha256 != described.sha256:
                raise ValueError("the ledger and the manifest name different bytes")
            report.rows += _check(store, described, seen)
            report.verified += 1
        except (ValueError, VerifyFailed) as error:
            report.faults.append(Fault(key, _said(str(error), elsewhere, key)))
        progress(report)
    for key in sorted(keys - found):
        if layout.described_key(key) not in found:
            report.faults.append(Fault(key, "not an object, nor the manifest of one"))
    return report


def _said(fault: str, elsewhere: dict[str, int], key: str) -> str:
    segment = elsewhere.get(key, elsewhere.get(layout.manifest_key(key)))
    if segment is None:
        return fault
    return (
        f"{fault}; other bytes than ours were found here when segment {segment} was archived, its rows have another key"
    )


def _manifest(store: Store, key: str, keys: set[str]) -> Manifest:
    name = layout.manifest_key(key)
    if name not in keys:
        raise ValueError("it has no manifest (an upload that was stopped; the next archive cycle puts it right)")
    with store.open(name) as file:
        described = manifest.decode(file.read())
    if described.key != key:
        raise ValueError(f"its manifest describes {described.key}")
    return described


def _check(store: Store, described: Manifest, seen: Callable[[Manifest, Iterator[list[Row]]], None] | None) -> int:
    with store.open(described.key) as remote, tempfile.TemporaryFile() as local:
        digest = _copy(remote, local)
        if digest != described.sha256:
            raise ValueError(f"its bytes have sha256 {digest}, its manifest says {described.sha256}")
        local.seek(0)
        rows = sum(len(chunk) for chunk in parquet.read(local))
        if rows != described.rows:
            raise ValueError(f"it has {rows} rows, its manifest says {described.rows}")
        if seen is not None:
            local.seek(0)
            seen(described, parquet.read(local))
    return rows


def _copy(source: BinaryIO, target: BinaryIO) -> str:
    digest = hashlib.sha256()
    while piece := source.read(1024 * 1024):
        digest.update(piece)
        target.write(piece)
    return digest.hexdigest()
