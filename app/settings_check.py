"""The plain tree of the settings -> frozen `Settings`, or every fault at once.

A fault is a sentence: key, value, where it came from, what to do. settings_reading judges single values,
settings_markets exchanges and markets; here are the sections, what follows from other keys, and rules between keys.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from app.config import SECTIONS, Security, Settings
from app.errors import SettingsError
from app.exchanges.base import Exchange
from app.settings_markets import NO_SOURCES, BySource, exchange_settings, feed_types, market_groups
from app.settings_reading import Reading, meant, names
from app.settings_rules import shown
from app.settings_sources import Sources

#: Paths that follow `database.path`: who moves the database to a large disk means its neighbours too.
BESIDE_DATABASE = {
    "archive.dir": "archive",
    "spool.dir": "spool",
    "storage.local_path": "objects",
    "storage.segments_path": "segments",
}

#: Rules between two numbers: the left key, what must hold, the right key, and how to say that it does not.
RELATIONS: tuple[tuple[str, Callable[[Any, Any], bool], str, str], ...] = (
    ("websocket.message_timeout_secs", operator.ge, "collector.batch_interval_secs", "must not be shorter than"),
    ("websocket.initial_retry_delay_secs", operator.lt, "websocket.message_timeout_secs", "must be shorter than"),
    ("websocket.max_retry_delay_secs", operator.ge, "websocket.initial_retry_delay_secs", "must not be shorter than"),
    ("buffer.process_max_bytes", operator.ge, "buffer.stream_max_bytes", "must not be smaller than"),
    # One slow answer of Redis must not cost every lease.
    ("buffer.lease_secs", operator.gt, "redis.timeout_secs", "must be longer than"),
)


def check(
    sources: Sources, exchanges: Mapping[str, Exchange], by_source: BySource = NO_SOURCES
) -> tuple[Settings, dict[str, str]]:
    """The settings, and the origin of every key. `exchanges`: the registry, by name; `by_source`: feeds to choose from.

    Raises: SettingsError with every fault.
    """
    reading = Reading(sources)
    known = (*SECTIONS, "exchanges", "markets")
    for name in sorted(set(sources.tree) - set(known)):
        reading.faults.append(f"{name} ({sources.origin(name)}) is no section; {meant(name, known)}")
    security = _section(reading, "security", Security)
    reading.private_hosts = security.get("private_hosts", ())
    given = {name: _section(reading, name, cls) for name, cls in SECTIONS.items() if cls is not Security}
    given["security"] = security
    _derive_paths(reading, given)
    _choose_storage(reading, given)
    sections = {name: cls(**given[name]) for name, cls in SECTIONS.items()}
    values = {f"{name}.{f.name}": getattr(s, f.name) for name, s in sections.items() for f in fields(s)}
    for key in values:
        reading.origins.setdefault(key, "default")
    _relate(reading, values)
    feeds = feed_types(reading, "collector.feeds", values["collector.feeds"])
    venues = exchange_settings(reading, exchanges, by_source)
    chosen = {name: by_source.get((name, venues[name].source or ""), exchange) for name, exchange in exchanges.items()}
    settings = Settings(**sections, exchanges=venues, markets=market_groups(reading, chosen, feeds))
    if reading.faults:
        raise SettingsError(*reading.faults)
    return settings, reading.origins


def _section(reading: Reading, name: str, cls: type) -> dict[str, Any]:
    table = reading.sources.tree.get(name, {})
    homes = {key: f"{section}.{key}" for section, other in SECTIONS.items() for key in names(other)}
    if isinstance(table, dict):  # a key of another section says where it belongs
        for key in sorted((set(table) & set(homes)) - set(names(cls))):
            reading.faults.append(
                f"{name}.{key} ({reading.sources.origin(f'{name}.{key}')}) is no setting; it is {homes[key]}"
            )
        table = {key: value for key, value in table.items() if key in names(cls) or key not in homes}
    return reading.record(cls, name, name, reading.table(name, table, names(cls)))


def _derive_paths(reading: Reading, given: dict[str, dict[str, Any]]) -> None:
    if "path" not in given["database"]:
        return
    for key, name in BESIDE_DATABASE.items():
        section, _, field_name = key.partition(".")
        if field_name not in given[section]:
            given[section][field_name] = given["database"]["path"].parent / name
            reading.origins[key] = "default, beside database.path"


def _choose_storage(reading: Reading, given: dict[str, dict[str, Any]]) -> None:
    bucket = "bucket" in given["aws"] or "aws.bucket" in reading.faulty
    mode = given["storage"].get("mode")
    if mode in ("s3", "both") and not bucket:
        reading.fault(
            "storage.mode", "storage.mode", mode, "needs a bucket; give [aws] bucket, or set the mode to local"
        )
    elif bucket and "mode" not in given["storage"]:
        given["storage"]["mode"] = "s3"
        reading.origins["storage.mode"] = "default, as aws.bucket is given"
    for one, other in (("access_key", "secret_key"), ("secret_key", "access_key")):
        if one in given["aws"] and other not in given["aws"] and f"aws.{other}" not in reading.faulty:
            why = f"is given without aws.{other}; give both, or neither and leave the search to boto3"
            reading.fault(f"aws.{one}", f"aws.{one}", given["aws"][one], why)


def _relate(reading: Reading, values: Mapping[str, Any]) -> None:
    for left, holds, right, must in RELATIONS:
        if not {left, right} & reading.faulty and not holds(values[left], values[right]):
            other = f"{right} = {shown(right, values[right])} ({reading.origins[right]})"
            reading.fault(left, left, values[left], f"{must} {other}; change one of them")
    owners: dict[Path, str] = {}
    for key in ("database.path", *BESIDE_DATABASE):
        owner = owners.setdefault(values[key], key)
        if owner != key:
            reading.fault(key, key, values[key], f"is the path of {owner} too; give each its own")
