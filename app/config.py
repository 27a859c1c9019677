"""settings.toml and the environment -> one frozen `Settings`, validated once.

This file holds the shape, with every default; docs/settings.md tells each key's reason. Importing it is cheap: what
reads (settings_sources, the only importer of dynaconf) and what judges (settings_check) is imported by `load` alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from app.model import Market

#: `log_dir = "none"`.
NO_FILES = Path("none")


@dataclass(frozen=True, slots=True)
class Collector:
    feeds: tuple[str, ...] = ("orderbook",)
    batch_interval_secs: float = 5
    archive_interval_secs: float = 3600
    max_batch_size: int = 10_000
    metrics_port: int = 9090
    log_retention_days: int = 1
    #: Levels: of all loggers, of single ones (settings_rules.log_levels).
    log_level: str = "INFO"
    #: Of the files of lasting processes; NO_FILES: none are written.
    log_dir: Path = Path("logs")
    #: What of it goes to stderr too.
    log_stderr_level: str = "DEBUG"


@dataclass(frozen=True, slots=True)
class Aws:
    region: str = "us-west-2"
    bucket: str | None = None
    home_server_name: str | None = None
    endpoint_url: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Database:
    path: Path = Path("data/collector.db")


@dataclass(frozen=True, slots=True)
class Archive:
    #: Where Parquet files are written before they are in the store.
    dir: Path = Path("data/archive")
    deadline_secs: float = 300


@dataclass(frozen=True, slots=True)
class Websocket:
    message_timeout_secs: float = 30
    initial_retry_delay_secs: float = 1
    max_retry_delay_secs: float = 60
    connect_timeout_secs: float = 10
    #: Another connection takes the place of an open one after so long; 0: only where the venue names a time.
    rotate_secs: float = 0
    max_frame_bytes: int = 32 * 1024 * 1024
    #: Number of the processor that a process of streams alone keeps to (Linux); -1: whichever the system gives it.
    cpu_pin: int = -1


@dataclass(frozen=True, slots=True)
class Redis:
    url: str = field(default="redis://127.0.0.1:6379/0", repr=False)
    #: First part of every key of ours.
    prefix: str = "collector"
    timeout_secs: float = 2


@dataclass(frozen=True, slots=True)
class Buffer:
    batch_interval_ms: int = 50
    batch_max_events: int = 500
    #: Bound of the memory queue of one stream, and of all streams of a process.
    stream_max_bytes: int = 8 * 1024 * 1024
    process_max_bytes: int = 64 * 1024 * 1024
    #: Bound of the Redis list of one stream.
    list_max_bytes: int = 256 * 1024 * 1024
    lease_secs: float = 15


@dataclass(frozen=True, slots=True)
class Spool:
    dir: Path = Path("data/spool")
    max_bytes: int = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Storage:
    #: "local", "s3" or "both"; s3 where the user names an [aws] bucket.
    mode: str = "local"
    local_path: Path = Path("data/objects")
    segments_path: Path = Path("data/segments")
    segment_secs: int = 3600
    #: Bound of segments, unfinished objects and a local store together; 0: the file system's.
    max_local_bytes: int = 0
    quarantine_max_bytes: int = 256 * 1024 * 1024
    #: What a store takes for 10^9 bytes and month, for the dashboard's projection.
    price_per_gb_month: float = 0.023


@dataclass(frozen=True, slots=True)
class Quality:
    #: 0: no book is asked for.
    rest_check_secs: float = 0


@dataclass(frozen=True, slots=True)
class Web:
    #: Whoever asks the web process has to give it; without one it answers this machine alone.
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Security:
    #: Names, addresses and networks of the operator's own, where endpoints may be although they are private.
    private_hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExchangeSettings:
    ws_url: str
    rest_url: str
    #: May carry a password.
    proxy: str | None = field(repr=False)
    orderbook_channel: str
    trade_channel: str
    #: None: as few connections as the venue's limits allow (app/pipeline/plan.py).
    connections: int | None = None
    #: Which feed of the venue, where it has several (app/exchanges/__init__.py); None: the one it is known by.
    source: str | None = None
    #: Name and private key for requests that may be signed; both or neither.
    api_key: str | None = field(default=None, repr=False)
    api_secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class MarketGroup:
    """One [[markets]] table; symbols canonical."""

    exchange: str
    symbols: tuple[str, ...]
    #: Data types (`orderbook`, `trade`).
    feeds: tuple[str, ...]
    base_url: str | None = None
    data_timeout_secs: float | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    collector: Collector
    aws: Aws
    database: Database
    archive: Archive
    websocket: Websocket
    redis: Redis
    buffer: Buffer
    spool: Spool
    storage: Storage
    quality: Quality
    web: Web
    security: Security
    #: By exchange name, for every registered exchange.
    exchanges: dict[str, ExchangeSettings]
    markets: tuple[MarketGroup, ...]

    def all_markets(self) -> tuple[Market, ...]:
        """Every market, in configuration order, each once."""
        return tuple(dict.fromkeys(Market(g.exchange, s) for g in self.markets for s in g.symbols))


#: Section of settings.toml -> its keys. [exchanges.<name>] and [[markets]] come beside them.
SECTIONS: dict[str, type] = {
    "collector": Collector,
    "aws": Aws,
    "database": Database,
    "archive": Archive,
    "websocket": Websocket,
    "redis": Redis,
    "buffer": Buffer,
    "spool": Spool,
    "storage": Storage,
    "quality": Quality,
    "web": Web,
    "security": Security,
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """`Settings` and where they come from."""

    settings: Settings
    #: Dotted key -> `settings.toml:12`, `environment COLLECTOR_REDIS__URL`, ...; a key that is absent has its default.
    origins: dict[str, str]
    #: Sentences for the operator: older names, secrets that others may read.
    warnings: tuple[str, ...]
    #: The file that was read; None where there is none and all comes from the environment.
    file: Path | None


def load(path: str | Path | None = None, environ: Mapping[str, str] = os.environ) -> Loaded:
    """Read and check the settings once.

    `path`: the file, else CONFIG_PATH of `environ`, else settings.toml of the current directory, else of the checkout.
    Raises: SettingsError with every fault; nothing is created or connected.
    """
    from app.exchanges import EXCHANGES, SOURCES
    from app.settings_check import check
    from app.settings_sources import read

    keys = {name: tuple(f.name for f in fields(cls)) for name, cls in SECTIONS.items()}
    sources = read(path, environ, {**keys, "exchanges": (), "markets": ()})
    settings, origins = check(sources, EXCHANGES, SOURCES)
    return Loaded(settings, origins, tuple(sources.warnings), sources.file)


def describe(loaded: Loaded) -> list[tuple[str, str, str]]:
    """(key, value, origin) of every setting, in the order of the file; secrets and passwords are stars."""
    from app.settings_rules import shown

    settings = loaded.settings
    tables: list[tuple[str, str, object]] = [(name, name, getattr(settings, name)) for name in SECTIONS]
    tables += [(f"exchanges.{name}", "exchanges", exchange) for name, exchange in settings.exchanges.items()]
    tables += [(f"markets[{number}]", "markets", group) for number, group in enumerate(settings.markets, 1)]
    return [
        (key, shown(f"{rule}.{f.name}", getattr(table, f.name)), loaded.origins.get(key, "default"))
        for name, rule, table in tables
        for f in fields(table)  # type: ignore[arg-type]
        for key in (f"{name}.{f.name}",)
    ]
