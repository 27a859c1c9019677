"""The ledger, rebuilt from what is true by itself: segments, manifests, its own copy, and what can be read of it still.

Every source is asked for everything; what the ledger says stands, then its copy (`<path>.backup`, made after each archive
cycle that removed a segment), then what a segment's file or a manifest says. Only where the copy is gone too is anything
lost: outcomes of units that left no row anywhere (quarantined frames, ranges of nothing but duplicates, replays).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from app.clock import wall_us
from app.errors import CollectorError
from app.objects import layout, manifest
from app.objects.manifest import Manifest
from app.objects.store import Store
from app.store.ledger import OPEN, REMOVED, REMOVING, SEALING, VERIFIED, WRITTEN, backup_path
from app.store.restore import Row, replace, rows_of
from app.store.salvage import damage_of
from app.store.schema import LEDGER_RECORDS, ledger
from app.store.segment import SealedSegment, relative_path

#: Records of a manifest, and the tables they stand in.
_TOLD = {"ranges": "ranges", "gaps": "gaps", "losses": "losses", "repairs": "repairs"}
Tables = dict[str, dict[tuple[Any, ...], Row]]


@dataclass
class RebuildReport:
    """What was looked at, and how the rebuilt ledger differs from the one that was there."""

    #: What is wrong with the ledger that was there: "" nothing, `gone`, or SQLite's words.
    fault: str = ""
    segment_files: int = 0
    manifests: int = 0
    had_backup: bool = False
    #: Table -> rows that were not there, or were others.
    added: dict[str, int] = field(default_factory=dict)
    #: Sentences about what does not fit together.
    findings: list[str] = field(default_factory=list)
    replaced: bool = False

    @property
    def differs(self) -> bool:
        return bool(self.fault or self.added)


def rebuild(path: Path, segments_root: Path, stores: Iterable[Store], *, dry_run: bool) -> RebuildReport:
    """Rebuild the ledger at `path`, and put it in its place where it differs (and this is no `dry_run`).

    Nobody else may use it meanwhile. Raises: CollectorError where nothing says whose data this is; StoreError; OSError.
    """
    report = RebuildReport(fault=_fault(path), had_backup=backup_path(path).exists())
    now = _keyed(rows_of(path))
    tables = _keyed(rows_of(backup_path(path)))
    for name, rows in now.items():
        tables[name] |= rows
    before = {name: dict(rows) for name, rows in now.items()}
    files = dict(_files(segments_root, report))
    report.segment_files = len(files)
    told = [(store.name, one) for store in stores for one in _manifests(store, report)]
    data_directory = _identity(tables, files, [one for _, one in told])
    told = [(name, one) for name, one in told if one.data_dir == data_directory]
    report.manifests = len(told)
    _segments(tables, files, [one for _, one in told], report)
    for store_name, one in told:
        _object(tables, store_name, one)
    for _, one in told:
        if tables["segments"][(one.segment,)]["state"] == REMOVED:
            _records(tables, one)
    tables["meta"] = {}
    for name, rows in tables.items():
        if name != "meta" and (fresh := sum(before[name].get(key) != row for key, row in rows.items())):
            report.added[name] = fresh
    if report.differs and not dry_run:
        replace(path, data_directory, {name: rows.values() for name, rows in tables.items()}, wall_us())
        report.replaced = True
    return report


def _fault(path: Path) -> str:
    if not path.exists():
        return "gone"
    return damage_of(path)


def _keyed(rows: dict[str, list[Row]]) -> Tables:
    keys = {table.name: [column.name for column in table.primary_key] for table in ledger.sorted_tables}
    return {name: {tuple(row[key] for key in keys[name]): row for row in found} for name, found in rows.items()}


def _files(root: Path, report: RebuildReport) -> Iterator[tuple[int, tuple[Path, dict[str, str]]]]:
    for path in sorted(root.glob("*/*.db")):
        settled = not path.with_name(f"{path.name}-wal").exists()
        try:
            meta = SealedSegment(path, settled=settled).meta()
            yield int(meta["segment"]), (path.relative_to(root), meta)
        except (SQLAlchemyError, CollectorError, KeyError) as error:
            report.findings.append(f"{path}: cannot be read ({error}); the flush looks at it when it starts")


def _manifests(store: Store, report: RebuildReport) -> Iterator[Manifest]:
    keys = set(store.keys(""))
    for key in sorted(keys):
        if layout.described_key(key) not in keys:
            continue
        try:
            with store.open(key) as file:
                yield manifest.decode(file.read())
        except ValueError as error:
            report.findings.append(f"{store.name}: {key}: {error}")


def _identity(tables: Tables, files: dict[int, tuple[Path, dict[str, str]]], told: list[Manifest]) -> str:
    """UUID of the data directory."""
    if ("data_directory",) in tables["meta"]:
        return str(tables["meta"]["data_directory",]["value"])
    named = {meta["data_directory"] for _, meta in files.values()} or {one.data_dir for one in told}
    if len(named) != 1:
        found = f"{len(named)} data directories are named: {', '.join(sorted(named))}" if named else "nothing was found"
        raise CollectorError(f"whose data this is cannot be told: {found}; put back a copy of the ledger and try again")
    return named.pop()


def _segments(
    tables: Tables, files: dict[int, tuple[Path, dict[str, str]]], told: list[Manifest], report: RebuildReport
) -> None:
    rows = tables["segments"]
    objects: dict[int, dict[str, Manifest]] = {}
    for one in told:
        objects.setdefault(one.segment, {})[f"{one.exchange} {one.symbol} {one.data_type}"] = one
    open_number = max((n for n, (_, meta) in files.items() if not meta["sealed_us"]), default=None)
    for number, (path, meta) in files.items():
        known = rows.get((number,))
        if (
            known is not None
            and (known["state"] in (REMOVING, REMOVED) or meta["sealed_us"])
            and known["state"] != OPEN
        ):
            continue
        state = OPEN if number == open_number else SEALING  # the flush finishes and counts it
        rows[number,] = {
            "number": number, "path": str(path), "opened_us": int(meta["opened_us"]), "sealed_us": None, "state": state,
            "rows": None,
        }  # fmt: skip
    for number, found in objects.items():
        known = rows.get((number,))
        if number in files or (known is not None and known["state"] == REMOVED):
            continue
        one = next(iter(found.values()))
        rows[number,] = {
            "number": number, "path": relative_path(number, one.opened_us), "opened_us": one.opened_us,
            "sealed_us": one.sealed_us, "state": REMOVED, "rows": sum(m.rows for m in found.values()),
        }  # fmt: skip
    for (number,), row in rows.items():
        if row["state"] not in (REMOVING, REMOVED) and number not in files:
            report.findings.append(f"segment {number}: its file {row['path']} is not there, and no object tells of it")


def _object(tables: Tables, store: str, one: Manifest) -> None:
    key = one.segment, one.exchange, one.symbol, one.data_type, store
    if key in tables["objects"] and tables["objects"][key]["state"] == VERIFIED:
        return
    removed = tables["segments"][(one.segment,)]["state"] == REMOVED
    tables["objects"][key] = {
        "segment": one.segment, "exchange": one.exchange, "symbol": one.symbol, "data_type": one.data_type,
        "store": store, "key": one.key, "rows": one.rows, "size_bytes": one.size_bytes, "sha256": one.sha256,
        # While the segment is there, the archive proves it once more.
        "state": VERIFIED if removed else WRITTEN, "proved_by": "manifest" if removed else None,
        "manifest_key": layout.manifest_key(one.key) if removed else None,
    }  # fmt: skip


def _records(tables: Tables, one: Manifest) -> None:
    """What the manifest of a removed segment tells, where nothing better is known."""
    market = {"exchange": one.exchange, "symbol": one.symbol, "feed": one.data_type}
    for epoch in one.epochs:
        values = {
            **msgspec.structs.asdict(epoch),
            "stream": one.exchange,
            "exchange": one.exchange,
            "last_numbers": None,
        }
        values |= {
            "opened_us": epoch.opened_us or one.opened_us,
            "overlaps": msgspec.json.encode(epoch.overlaps).decode(),
        }
        tables["epochs"].setdefault((epoch.epoch,), values)
    for name in (*_TOLD, "checks"):
        keys = [column.name for column in LEDGER_RECORDS[name].primary_key]
        for record in getattr(one, name, ()):
            row = {**msgspec.structs.asdict(record), **market}
            tables[name].setdefault(tuple(row[key] for key in keys), row)
