"""`collector check`: what the settings mean, and whether everything they name is there."""

from __future__ import annotations

import json
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import redis

from app.config import Settings, describe
from app.errors import CollectorError
from app.objects.disk import make_directories

#: Less free space than this under the data directory is worth a word.
LOW_DISK_BYTES = 2 * 1024**3


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print settings, faults and warnings as one JSON object.")
@click.option("--online", is_flag=True, help="Also ask each venue whether it lists the configured symbols.")
def check(as_json: bool, online: bool) -> None:
    """Show the effective settings with the origin of each, and test Redis, database, directories and store.

    All faults are listed at once, each with what to do. Secrets are masked. Exit code 0 when the collector can run, 2
    when it cannot. The Procfile's `release` runs this before every deployment.

    With --online each venue is asked over REST, once: a symbol that it does not list, or a venue that does not serve this
    place, is a fault too. The collector records the others all the same, so the exit code is then 1.
    """
    from app.commands.settings import loaded

    found = loaded()
    faults: list[str] = []
    notes: list[str] = []
    warnings = list(found.warnings)
    for name, examine in (
        ("Redis", _redis), ("database", _database), ("directories", _directories), ("store", _store), ("streams", _streams),
    ):  # fmt: skip
        try:
            for kind, sentence in examine(found.settings):
                {"fault": faults, "warning": warnings, "note": notes}[kind].append(f"{name}: {sentence}")
        except (CollectorError, OSError) as error:
            faults.append(f"{name}: {error}")
    code = 2 if faults else 0
    if online:
        for kind, sentence in _symbols(found.settings):
            {"fault": faults, "warning": warnings}[kind].append(f"symbols: {sentence}")
        code = code or int(bool(faults))
    rows = describe(found)
    if as_json:
        settings = {key: {"value": value, "origin": origin} for key, value, origin in rows}
        click.echo(json.dumps({"settings": settings, "faults": faults, "warnings": warnings, "notes": notes}))
    else:
        width = max(len(key) for key, _, _ in rows)
        for key, value, origin in rows:
            click.echo(f"{key:<{width}}  {value}  [{origin}]")
        for sentence in notes:
            click.echo(f"note: {sentence}")
        for sentence in warnings:
            click.echo(f"warning: {sentence}")
        for sentence in faults:
            click.echo(f"fault: {sentence}")
        click.echo(f"{len(faults)} faults, {len(warnings)} warnings" + ("" if faults else ": ready to run"))
    sys.exit(code)


Finding = tuple[str, str]


def _redis(settings: Settings) -> Iterator[Finding]:
    client = redis.Redis.from_url(settings.redis.url, socket_timeout=settings.redis.timeout_secs)
    try:
        client.ping()
    except redis.AuthenticationError:
        yield "fault", "it refuses the password of [redis] url"
        return
    except redis.RedisError as error:
        yield (
            "fault",
            (
                f"cannot be reached: {error}; start one, or set [redis] url (COLLECTOR_REDIS__URL);"
                " `collector run` starts one of its own where no url is set"
            ),
        )
        return

    def config(name: str) -> str | None:
        try:
            answer = client.config_get(name)
        except redis.RedisError:
            return None  # a managed Redis may hide its configuration
        return str(answer[name]) if isinstance(answer, dict) and name in answer else None

    policy = config("maxmemory-policy")
    if policy is None:
        yield "warning", "does not show its configuration; make sure that maxmemory-policy is noeviction"
    elif policy != "noeviction":
        yield "fault", f"maxmemory-policy is {policy}: it would evict received events; set it to noeviction"
    limit = int(config("maxmemory") or 0)
    lists = len({market.exchange for market in settings.all_markets()})
    if limit and limit < (wanted := lists * settings.buffer.list_max_bytes):
        yield (
            "warning",
            (
                f"maxmemory is {limit} bytes, the lists of {lists} connections may grow to {wanted} ([buffer] list_max_bytes):"
                " a full Redis takes no tasks either; lower the bound or raise maxmemory"
            ),
        )
    if config("appendonly") == "no" and not config("save"):
        yield "warning", "keeps nothing on disk (appendonly no, no save): a restart loses what is not yet flushed"
    elif config("appendonly") == "no":
        yield "warning", "appendonly is no: a crash loses what came after the last snapshot; set appendonly yes"


def _database(settings: Settings) -> Iterator[Finding]:
    from app.store.ledger import Ledger

    Ledger(settings.database.path)
    yield from ()


def _directories(settings: Settings) -> Iterator[Finding]:
    wanted = {
        "[archive] dir": settings.archive.dir,
        "[spool] dir": settings.spool.dir,
        "[storage] segments_path": settings.storage.segments_path,
    }
    for key, path in wanted.items():
        try:
            make_directories(path)
            probe = path / ".collector-check"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            yield "fault", f"{key} = {path}: cannot be written: {error.strerror}"
    for path in {settings.database.path.parent, *wanted.values()}:
        if path.exists() and path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            yield (
                "warning",
                f"{path} can be changed by its group or others, and what it holds with it; chmod go-w {path}",
            )
    yield from _disk(settings.storage.segments_path)


def _disk(path: Path) -> Iterator[Finding]:
    if path.exists() and (free := shutil.disk_usage(path).free) < LOW_DISK_BYTES:
        yield "warning", f"only {free / 1024**3:.1f} GiB are free under {path}"


def _store(settings: Settings) -> Iterator[Finding]:
    from app.wiring import Wiring

    for store in Wiring(settings).stores:
        store.prepare()
        can = store.capabilities()
        if not can.refuses_wrong_sha256:
            yield "note", f"{store.name} does not check sha256 itself: every object is read back to prove it"
        if not can.refuses_overwrite:
            yield "warning", f"{store.name} ignores If-None-Match: make sure that only one collector writes this prefix"


def _streams(settings: Settings) -> Iterator[Finding]:
    from app.pipeline.plan import chosen, streams

    exchanges = chosen(settings)
    for stream in streams(settings, exchanges):
        limit = exchanges[stream.exchange].limits.markets_per_connection
        if (carried := len(stream.subscription.symbols)) > limit:
            yield (
                "fault",
                (
                    f"{stream.name} carries {carried} markets, {stream.exchange} allows {limit} on one connection;"
                    f" raise [exchanges.{stream.exchange}] connections, or leave it out"
                ),
            )


def _symbols(settings: Settings) -> Iterator[Finding]:
    from app.pipeline.symbols import findings
    from app.wiring import Wiring

    yield from findings(settings, settings.all_markets(), Wiring(settings).budget)
