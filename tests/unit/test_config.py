"""Settings: what is read from where, what is refused, and what a person is shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import SECTIONS, ExchangeSettings, Loaded, MarketGroup, describe, load
from app.errors import InvalidSymbol, SettingsError
from app.exchanges.base import Decoder, Exchange, Limits, Request, Subscription
from app.model import Market
from app.settings_rules import BOUNDS, complaint, shown
from app.settings_sources import OLDER_NAMES, key_lines

ROOT = Path(__file__).parents[2]

CUSTOMERS = """\
[collector]
feeds = ["orderbook", "trades"]
batch_interval_secs = 5
archive_interval_secs = 3600
metrics_port = 9090

[aws]
region = "us-west-2"
bucket = "your-bucket-name"

[database]
path = "data/collector.db"

[[markets]]
exchange = "binance"
symbols = ["btcusdt", "ethusdt"]

[[markets]]
exchange = "coinbase"
symbols = ["BTC-USD"]
"""
MARKET = '[[markets]]\nexchange = "binance"\nsymbols = ["btcusdt"]\n'

Load = Callable[..., Loaded]


class Venue(Exchange):
    """An exchange with just what the settings ask of one."""

    limits = Limits(markets_per_connection=1, messages_per_s=1, idle_timeout_s=1)
    heartbeat = None
    symbols_path = "/symbols"
    symbol_example = "letters and digits"

    def __init__(self, name: str, spell: Callable[[str], str] = str) -> None:
        self.name, self.spell = name, spell  # type: ignore[misc]
        self.ws_url, self.rest_url = f"wss://{name}.test/ws", f"https://{name}.test"  # type: ignore[misc]
        self.orderbook_channels, self.trade_channels = ("book", "book5"), ("trade",)  # type: ignore[misc]

    def canonical(self, symbol: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9./-]+", symbol):
            raise InvalidSymbol(self.name, symbol, "letters and digits only")
        return self.spell(symbol)

    def endpoint(self, ws_url: str, subscription: Subscription) -> str:
        raise NotImplementedError

    def subscribe(self, subscription: Subscription, nonce: str) -> list[Request]:
        raise NotImplementedError

    def resubscribe(self, subscription: Subscription, symbol: str, feed: str, nonce: str) -> list[Request]:
        raise NotImplementedError

    def decoder(self, subscription: Subscription) -> Decoder:
        raise NotImplementedError

    def listed(self, body: bytes) -> frozenset[str]:
        raise NotImplementedError


@pytest.fixture
def load_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """load_text(toml, **environment): writes settings.toml, enters its directory and loads."""
    venues = [Venue("binance", str.lower), *map(Venue, ("coinbase", "upbit", "okx", "bybit"))]
    monkeypatch.setattr("app.exchanges.EXCHANGES", {venue.name: venue for venue in venues}, raising=False)
    monkeypatch.chdir(tmp_path)

    def loading(text: str | None = MARKET, **environ: str) -> Loaded:
        if text is not None:
            (tmp_path / "settings.toml").write_text(text, encoding="utf-8")
        return load(environ=environ)

    return loading


def faults(load_text: Load, text: str | None = MARKET, **environ: str) -> Sequence[str]:
    with pytest.raises(SettingsError) as raised:
        load_text(text, **environ)
    return raised.value.faults


def test_the_documented_config_of_the_predecessor_loads_byte_for_byte(load_text: Load) -> None:
    loaded = load_text(CUSTOMERS, AWS_ACCESS_KEY="AKIA", AWS_SECRET_KEY="hush")
    settings = loaded.settings
    assert (settings.aws.region, settings.aws.bucket, settings.storage.mode) == ("us-west-2", "your-bucket-name", "s3")
    assert (settings.aws.access_key, settings.aws.secret_key) == ("AKIA", "hush")
    assert settings.markets == (
        MarketGroup("binance", ("btcusdt", "ethusdt"), ("orderbook", "trade")),
        MarketGroup("coinbase", ("BTC-USD",), ("orderbook", "trade")),
    )
    assert settings.all_markets() == (
        Market("binance", "btcusdt"),
        Market("binance", "ethusdt"),
        Market("coinbase", "BTC-USD"),
    )
    assert loaded.warnings == ()


def test_the_shipped_settings_load_with_the_real_exchanges() -> None:
    loaded = load(ROOT / "settings.toml", environ={})
    assert [(group.exchange, group.symbols) for group in loaded.settings.markets] == [
        ("binance", ("btcusdt", "ethusdt")),
        ("coinbase", ("BTC-USD", "ETH-USD")),
        ("upbit", ("KRW-BTC", "KRW-ETH")),
        ("okx", ("BTC-USDT", "ETH-USDT")),
        ("bybit", ("BTCUSDT", "ETHUSDT")),
    ]
    assert {group.feeds for group in loaded.settings.markets} == {("orderbook", "trade")}
    assert loaded.settings.storage.mode == "local"


def test_config_path_names_the_file_whatever_its_ending(load_text: Load, tmp_path: Path) -> None:
    file = tmp_path / "elsewhere"
    file.write_text(MARKET.replace("binance", "okx"), encoding="utf-8")
    loaded = load_text(MARKET, CONFIG_PATH=str(file))
    assert [group.exchange for group in loaded.settings.markets] == ["okx"]
    assert (loaded.file, loaded.origins["markets[1].exchange"]) == (file, "elsewhere:2")


def test_every_layer_wins_over_the_one_below_and_leaves_the_other_keys_alone(load_text: Load, tmp_path: Path) -> None:
    (tmp_path / ".secrets.toml").write_text('[redis]\nurl = "redis://:hidden@db:6379/1"\n')
    (tmp_path / ".secrets.toml").chmod(0o600)
    text = MARKET + '[redis]\nurl = "redis://file:6379/0"\nprefix = "mine"\n[collector]\nmetrics_port = 1\n'
    loaded = load_text(
        text, METRICS_PORT="2", COLLECTOR_COLLECTOR__METRICS_PORT="3", COLLECTOR_REDIS__TIMEOUT_SECS="0.5"
    )
    settings = loaded.settings
    assert (settings.redis.url, settings.redis.prefix, settings.redis.timeout_secs) == (
        "redis://:hidden@db:6379/1",
        "mine",
        0.5,
    )
    assert settings.collector.metrics_port == 3
    assert {key: loaded.origins[key] for key in ("redis.url", "redis.prefix", "redis.timeout_secs")} == {
        "redis.url": ".secrets.toml:2",
        "redis.prefix": "settings.toml:6",
        "redis.timeout_secs": "environment COLLECTOR_REDIS__TIMEOUT_SECS",
    }
    assert loaded.warnings == (
        "METRICS_PORT of the environment is an older name and is ignored, because COLLECTOR_COLLECTOR__METRICS_PORT is set",
    )


@pytest.mark.parametrize(
    "markets", ['[{exchange = "okx", symbols = ["A"]}]', '[{"exchange": "okx", "symbols": ["A"]}]']
)
def test_markets_of_the_environment_replace_those_of_the_file(load_text: Load, markets: str) -> None:
    loaded = load_text(MARKET, COLLECTOR_MARKETS=markets)
    assert loaded.settings.all_markets() == (Market("okx", "A"),)
    assert loaded.origins["markets[1].symbols"] == "environment COLLECTOR_MARKETS"


def test_variables_of_dynaconf_itself_change_nothing(load_text: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERGE_ENABLED_FOR_DYNACONF", "true")
    monkeypatch.setenv("AUTO_CAST_FOR_DYNACONF", "true")
    monkeypatch.setenv("DYNACONF_REDIS__PREFIX", "theirs")
    text = MARKET + '[collector]\nfeeds = ["orderbook"]\n'
    loaded = load_text(text, COLLECTOR_COLLECTOR__FEEDS='["trades"]', COLLECTOR_AWS__HOME_SERVER_NAME="x1")
    assert loaded.settings.collector.feeds == ("trades",)
    assert loaded.settings.redis.prefix == "collector"


def test_a_text_setting_gets_the_text_of_the_environment_as_it_is(load_text: Load) -> None:
    loaded = load_text(
        MARKET,
        COLLECTOR_AWS__HOME_SERVER_NAME="5",
        COLLECTOR_AWS__BUCKET="2026-01-17",
        AWS_ACCESS_KEY="true",
        AWS_SECRET_KEY="1e9",
    )
    aws = loaded.settings.aws
    assert (aws.home_server_name, aws.bucket, aws.access_key, aws.secret_key) == ("5", "2026-01-17", "true", "1e9")


def test_a_nested_exchange_key_comes_from_the_environment_too(load_text: Load) -> None:
    loaded = load_text(
        MARKET, COLLECTOR_EXCHANGES__OKX__WS_URL="ws://127.0.0.1:8443/ws", COLLECTOR_EXCHANGES__OKX__CONNECTIONS="2"
    )
    okx = loaded.settings.exchanges["okx"]
    assert okx == ExchangeSettings("ws://127.0.0.1:8443/ws", "https://okx.test", None, "book", "trade", 2)
    assert loaded.settings.exchanges["bybit"] == ExchangeSettings(
        "wss://bybit.test/ws", "https://bybit.test", None, "book", "trade"
    )


def test_empty_variables_are_as_good_as_none(load_text: Load) -> None:
    assert (
        load_text(
            MARKET, COLLECTOR_AWS__BUCKET="", BUCKET_NAME="", AWS_ACCESS_KEY="", CONFIG_PATH=""
        ).settings.aws.bucket
        is None
    )


def test_every_older_name_is_honoured_and_names_its_successor(load_text: Load) -> None:
    older = {
        "BATCH_INTERVAL": "2",
        "ARCHIVE_INTERVAL_SECS": "120",
        "WS_MESSAGE_TIMEOUT_SECS": "40",
        "WS_INITIAL_RETRY_DELAY_SECS": "3",
        "WS_MAX_RETRY_DELAY_SECS": "50",
        "BUCKET_NAME": "old-bucket",
        "AWS_REGION": "eu-west-1",
        "METRICS_PORT": "9191",
        "FEEDS": "trades, orderbook",
        "HOME_SERVER_NAME": "tokyo-1",
        "LOG_RETENTION_DAYS": "3",
        "DATABASE_PATH": "/srv/c/ledger.db",
        "ARCHIVE_DIR": "/srv/c/out",
    }
    loaded = load_text(MARKET, **older)
    shown_values = {key: value for key, value, _ in describe(loaded)}
    assert {name: shown_values[OLDER_NAMES[name]] for name in older} == older
    assert loaded.warnings == tuple(
        f"{name} of the environment is an older name and still sets {key}; "
        f"write COLLECTOR_{key.upper().replace('.', '__')} instead"
        for name, key in OLDER_NAMES.items()
    )


def test_directories_lie_beside_the_database_unless_they_are_named(load_text: Load) -> None:
    loaded = load_text(MARKET + '[database]\npath = "/srv/c/ledger.db"\n[spool]\ndir = "/fast/spool"\n')
    settings = loaded.settings
    assert settings.archive.dir == Path("/srv/c/archive")
    assert settings.spool.dir == Path("/fast/spool")
    assert settings.storage.local_path == Path("/srv/c/objects")
    assert settings.storage.segments_path == Path("/srv/c/segments")
    assert loaded.origins["archive.dir"] == "default, beside database.path"
    assert loaded.origins["spool.dir"] == "settings.toml:7"


def test_a_secret_comes_from_a_file_and_an_open_file_is_warned_about(load_text: Load, tmp_path: Path) -> None:
    closed, open_ = tmp_path / "closed", tmp_path / "open"
    for file, text, mode in ((closed, "redis://:s3cret@db:6379/0\n", 0o600), (open_, "hush\n", 0o640)):
        file.write_text(text)
        file.chmod(mode)
    loaded = load_text(
        MARKET, COLLECTOR_REDIS__URL_FILE=str(closed), AWS_SECRET_KEY_FILE=str(open_), AWS_ACCESS_KEY="AKIA"
    )
    assert loaded.settings.redis.url == "redis://:s3cret@db:6379/0"
    assert loaded.settings.aws.secret_key == "hush"
    assert loaded.origins["redis.url"] == "environment COLLECTOR_REDIS__URL_FILE"
    assert loaded.warnings == (
        f"AWS_SECRET_KEY_FILE = {open_} holds secrets and is open to group or others; chmod 600 {open_}",
    )


def test_a_secret_file_that_is_missing_or_doubled_is_a_fault(load_text: Load, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("x")
    assert faults(
        load_text,
        MARKET,
        COLLECTOR_REDIS__URL_FILE="/nowhere/url",
        AWS_ACCESS_KEY="AKIA",
        AWS_ACCESS_KEY_FILE=str(tmp_path / "s"),
    ) == (
        "AWS_ACCESS_KEY and AWS_ACCESS_KEY_FILE are both set in the environment; remove one of them",
        "COLLECTOR_REDIS__URL_FILE = '/nowhere/url' (environment) cannot be read: No such file or directory; correct the path",
    )


def test_all_faults_come_at_once_with_value_origin_and_remedy(load_text: Load) -> None:
    text = """\
[collector]
metrics_port = 0
batch_interval_secs = "5"
archive_interval_secs = 30
[websocket]
batch_interval_secs = 5
message_timeout_sec = 9
[aws]
home_server_name = "../etc"
[redsi]
url = "x"
[[markets]]
exchange = "binnance"
symbols = ["btcusdt"]
[[markets]]
exchange = "okx"
symbols = ["BTC USDT", "a/b"]
feeds = ["trade"]
[[markets]]
symbols = ["x"]
"""
    assert faults(load_text, text, COLLECTOR_BUFFER__BATCH_MAX_EVENTS="true") == (
        "redsi (settings.toml:10) is no section; did you mean redis?",
        'collector.batch_interval_secs = "5" (settings.toml:3) is no number; write it without quotes',
        "collector.archive_interval_secs = 30 (settings.toml:4) is out of bounds; give a value from 60 to 86,400",
        "collector.metrics_port = 0 (settings.toml:2) is out of bounds; give a value from 1 to 65,535",
        (
            'aws.home_server_name = "../etc" (settings.toml:9) is no plain name; '
            "use letters, digits, '.', '_', '-', at most 64, no '..', a letter or digit first"
        ),
        "websocket.batch_interval_secs (settings.toml:6) is no setting; it is collector.batch_interval_secs",
        "websocket.message_timeout_sec (settings.toml:7) is no setting; did you mean message_timeout_secs?",
        (
            "buffer.batch_max_events = true (environment COLLECTOR_BUFFER__BATCH_MAX_EVENTS) is no whole number; "
            "write digits only, without quotes"
        ),
        'markets[1].exchange = "binnance" (settings.toml:13) is no known exchange; did you mean binance?',
        'markets[2].feeds = "trade" (settings.toml:18) is no feed; did you mean trades?',
        'markets[2].symbols = "BTC USDT" (settings.toml:17) is no symbol of okx: letters and digits only',
        'markets[2].symbols = "a/b" (settings.toml:17) is no symbol of okx; write letters and digits',
        "markets[3].exchange (settings.toml:19) is missing; every [[markets]] needs it",
    )


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("[websocket]\nmessage_timeout_secs = 4", ("websocket.message_timeout_secs = 4 (settings.toml:2) must not be shorter than "
         "collector.batch_interval_secs = 5 (default); change one of them")),
        ("[websocket]\ninitial_retry_delay_secs = 30", ("websocket.initial_retry_delay_secs = 30 (settings.toml:2) must be shorter than "
         "websocket.message_timeout_secs = 30 (default); change one of them")),
        ("[websocket]\nmax_retry_delay_secs = 0.5", ("websocket.max_retry_delay_secs = 0.5 (settings.toml:2) must not be shorter than "
         "websocket.initial_retry_delay_secs = 1 (default); change one of them")),
        ('[storage]\nmode = "s3"', 'storage.mode = "s3" (settings.toml:2) needs a bucket; give [aws] bucket, or set the mode to local'),
        ('[storage]\nmode = "tape"', 'storage.mode = "tape" (settings.toml:2) is not one of local, s3; choose one of them'),
        ('[spool]\ndir = "data/archive"', 'spool.dir = "data/archive" (settings.toml:2) is the path of archive.dir too; give each its own'),
        ('[aws]\nsecret_key = "hush"', ('aws.secret_key = "********" (settings.toml:2) is given without aws.access_key; '
         "give both, or neither and leave the search to boto3")),
        ('[exchanges.okx]\ntrade_channel = "tick"', ('exchanges.okx.trade_channel = "tick" (settings.toml:2) is no such channel of okx; '
         "choose from trade")),
        ("[exchanges.okex]", "exchanges.okex (settings.toml:1) is no setting; did you mean okx?"),
        ('database = "x.db"', "database (settings.toml:1) is no table; write [database] and its keys in lines below"),
        ('[[markets]]\nexchange = "binance"\nsymbols = ["BTCUSDT"]', ('markets[2].symbols = "btcusdt" (settings.toml:6) is listed in '
         "markets[1] already (spelled alike, binance has one btcusdt); list each market once")),
        ("[collector]\nmetrics_port = 9090.0", ("collector.metrics_port = 9090.0 (settings.toml:2) is no whole number; "
         "write digits only, without quotes")),
    ],
)  # fmt: skip
def test_a_rule_that_is_broken_is_told_in_one_sentence(load_text: Load, lines: str, fault: str) -> None:
    text = f"{MARKET}{lines}\n" if lines.startswith("[[") else f"{lines}\n{MARKET}"
    assert faults(load_text, text) == (fault,)


def test_a_market_may_have_its_feeds_in_two_groups(load_text: Load) -> None:
    book, trades = (f'{MARKET}feeds = ["{feed}"]\n' for feed in ("orderbook", "trades"))
    assert [group.feeds for group in load_text(book + trades).settings.markets] == [("orderbook",), ("trade",)]


def test_no_market_at_all_is_answered_with_an_example(load_text: Load) -> None:
    (fault,) = faults(load_text, "[collector]\nmetrics_port = 1\n")
    assert fault.splitlines()[1:] == ["    [[markets]]", '    exchange = "binance"', '    symbols = ["btcusdt"]']


def test_a_file_that_is_missing_or_no_toml_says_which_and_where(load_text: Load, tmp_path: Path) -> None:
    assert faults(load_text, None, CONFIG_PATH="/nowhere/c.toml")[0] == (
        "/nowhere/c.toml: the settings cannot be read (No such file or directory); create it or correct CONFIG_PATH"
    )
    assert re.fullmatch(r"settings\.toml: not TOML: .*\(at line 2, column \d+\); correct that place",
                        faults(load_text, "[collector]\nmetrics_port = = 1\n")[0])  # fmt: skip


def test_a_variable_that_nearly_names_a_setting_is_warned_about_and_others_are_left_alone(load_text: Load) -> None:
    loaded = load_text(
        MARKET, COLLECTOR_REDIS_URL="redis://x", COLLECTOR_TEST_REQUIRE="s3", COLLECTOR_SERVICE_PORT_9090_TCP="1"
    )
    assert loaded.warnings == (
        "COLLECTOR_REDIS_URL of the environment is no setting and is ignored; did you mean COLLECTOR_REDIS__URL?",
    )


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        ("exchanges.ws_url", ["wss://a.b/c", "ws://127.0.0.1:1", "ws://[::1]:1", "ws://localhost"],
         ["ws://a.b", "https://a.b", "wss://", "wss://a b", "wss://a:0", "wss://a:99999", "a.b", "wss://169.254.169.254",
          "wss://2852039166", "wss://[fe80::1]", "wss://[::ffff:169.254.169.254]", "ws://127.0.0.1.evil.com"]),
        ("exchanges.rest_url", ["https://a.b", "http://127.1:80"], ["http://a.b", "https://[fd00:ec2::254]", "file:///etc/passwd"]),
        ("exchanges.proxy", ["http://p:3128", "socks5h://u:p@p:1080"], ["ftp://p", "socks5h://169.254.1.1:1080"]),
        ("aws.endpoint_url", ["https://s3.example", "http://localhost:9000"], ["http://minio:9000"]),
        ("redis.url", ["redis://h", "rediss://u:p@h:1/3", "redis://[::1]/"], ["redis://h/name", "http://h", "redis://:p#w@h/0"]),
        ("redis.prefix", ["collector", "a.b-c_d", "x" * 64], ["", ".a", "a..b", "a/b", "a b", "a%2e", "é", "x" * 65, "a\n"]),
    ],
)  # fmt: skip
def test_addresses_and_names_that_could_lead_elsewhere_are_refused(rule: str, good: list[str], bad: list[str]) -> None:
    assert {value: complaint(rule, value) for value in good} == dict.fromkeys(good)
    assert [value for value in bad if complaint(rule, value) is None] == []


@given(st.text(max_size=20), st.text("abc", max_size=5))
def test_a_password_in_an_address_is_never_shown(rest: str, user: str) -> None:
    assert "CANARY" not in shown("redis.url", f"redis://{user}:CANARY{rest}@host:6379/0")


def test_a_planted_secret_appears_in_no_description_repr_or_fault(load_text: Load) -> None:
    environ = {
        "AWS_ACCESS_KEY": "CANARY1",
        "AWS_SECRET_KEY": "CANARY2",
        "COLLECTOR_REDIS__URL": "redis://:CANARY3@h:6379/0",
        "COLLECTOR_EXCHANGES__OKX__PROXY": "http://u:CANARY4@p:3128",
    }
    loaded = load_text(MARKET, **environ)
    assert "CANARY" not in str(describe(loaded))
    shown_values = {key: value for key, value, _ in describe(loaded)}
    assert shown_values["redis.url"] == "redis://:********@h:6379/0"
    assert "CANARY" not in repr(loaded)
    told = faults(
        load_text,
        MARKET,
        **{k: v.replace("CANARY", "CANARY ") for k, v in environ.items()},
        COLLECTOR_AWS__SECRET_KYE="CANARY5",
    )
    assert len(told) == 3 and "CANARY" not in "".join(told)


def test_the_description_has_every_key_once_with_its_origin(load_text: Load) -> None:
    loaded = load_text(MARKET)
    rows = describe(loaded)
    sections = [f"{name}.{f.name}" for name, cls in SECTIONS.items() for f in fields(cls)]
    exchanges = [f"exchanges.{name}.{f.name}" for name in loaded.settings.exchanges for f in fields(ExchangeSettings)]
    assert [key for key, _, _ in rows] == sections + exchanges + [f"markets[1].{f.name}" for f in fields(MarketGroup)]
    assert ("markets[1].symbols", "btcusdt", "settings.toml:3") in rows
    assert ("redis.timeout_secs", "2", "default") in rows


def test_every_number_has_bounds_and_its_default_lies_within() -> None:
    classes = {**SECTIONS, "exchanges": ExchangeSettings, "markets": MarketGroup}
    numbers = {
        f"{name}.{key}" for name, cls in classes.items() for key, hint in get_type_hints(cls).items()
        if hint in (int, float, int | None, float | None)
    }  # fmt: skip
    assert set(BOUNDS) == numbers
    defaults = {f"{name}.{f.name}": f.default for name, cls in SECTIONS.items() for f in fields(cls)}
    assert {key: complaint(key, default) for key, default in defaults.items() if complaint(key, default)} == {}


def test_keys_are_found_in_the_line_where_they_are_written() -> None:
    text = '# redis\n[redis] # here\n"url" = "a"\n\n[exchanges.okx]\nproxy="p"\n[[markets]]\na = 1\n[[ markets ]]\n  a = 2\n'
    assert key_lines(text) == {
        "redis": 2, "redis.url": 3, "exchanges.okx": 5, "exchanges.okx.proxy": 6,
        "markets[1]": 7, "markets[1].a": 8, "markets[2]": 9, "markets[2].a": 10,
    }  # fmt: skip


def test_importing_the_settings_is_cheap() -> None:
    code = (
        "import sys, app.config; print(sorted({'dynaconf', 'pyarrow', 'boto3', 'redis', 'celery'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=True
    )
    assert answer.stdout == "[]\n"
