"""Settings: what is read from where, and what a person is shown."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from app.config import SECTIONS, ExchangeSettings, Loaded, MarketGroup, describe, load
from app.errors import SettingsError
from app.exchanges import EXCHANGES
from app.model import Market
from app.settings_sources import OLDER_NAMES

ROOT = Path(__file__).parents[2]

#: The configuration in the documents of the version before this one.
DOCUMENTED = """\
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


def load_text(folder: Path, text: str, **environ: str) -> Loaded:
    file = folder / "settings.toml"
    file.write_text(text, encoding="utf-8")
    return load(file, environ)


def test_the_documented_config_loads_byte_for_byte_through_config_path(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(DOCUMENTED)
    environ = {"CONFIG_PATH": str(tmp_path / "config.toml"), "AWS_ACCESS_KEY": "AKIA", "AWS_SECRET_KEY": "hush"}
    loaded = load(environ=environ)
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
    assert (loaded.warnings, loaded.origins["aws.bucket"]) == ((), "config.toml:9")


def test_the_shipped_settings_record_two_markets_of_every_exchange() -> None:
    settings = load(ROOT / "settings.toml", environ={}).settings
    assert [(group.exchange, group.symbols) for group in settings.markets] == [
        ("binance", ("btcusdt", "ethusdt")),
        ("coinbase", ("BTC-USD", "ETH-USD")),
        ("upbit", ("KRW-BTC", "KRW-ETH")),
        ("okx", ("BTC-USDT", "ETH-USDT")),
        ("bybit", ("BTCUSDT", "ETHUSDT")),
    ]
    assert {group.feeds for group in settings.markets} == {("orderbook", "trade")}
    assert settings.storage.mode == "local"


def test_without_config_path_the_current_directory_comes_before_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(environ={}).file == ROOT / "settings.toml"
    (tmp_path / "settings.toml").write_text(MARKET)
    assert load(environ={}).file == Path("settings.toml")
    (tmp_path / "elsewhere").write_text(MARKET)
    assert load(environ={"CONFIG_PATH": "elsewhere"}).origins["markets[1].exchange"] == "elsewhere:2"


def test_every_layer_wins_over_the_one_below_and_leaves_the_other_keys_alone(tmp_path: Path) -> None:
    secrets = tmp_path / ".secrets.toml"
    secrets.write_text('[redis]\nurl = "redis://:hidden@db:6379/1"\n')
    secrets.chmod(0o600)
    text = MARKET + '[redis]\nurl = "redis://file:6379/0"\nprefix = "mine"\n[collector]\nmetrics_port = 1\n'
    environ = {"METRICS_PORT": "2", "COLLECTOR_COLLECTOR__METRICS_PORT": "3", "COLLECTOR_REDIS__TIMEOUT_SECS": "0.5"}
    loaded = load_text(tmp_path, text, **environ)
    redis = loaded.settings.redis
    assert (redis.url, redis.prefix, redis.timeout_secs) == ("redis://:hidden@db:6379/1", "mine", 0.5)
    assert loaded.settings.collector.metrics_port == 3
    assert {key: loaded.origins[key] for key in ("redis.url", "redis.prefix", "redis.timeout_secs")} == {
        "redis.url": ".secrets.toml:2",
        "redis.prefix": "settings.toml:6",
        "redis.timeout_secs": "environment COLLECTOR_REDIS__TIMEOUT_SECS",
    }
    (warning,) = loaded.warnings
    assert warning == (
        "METRICS_PORT of the environment is an older name and is ignored, "
        "because COLLECTOR_COLLECTOR__METRICS_PORT is set"
    )


@pytest.mark.parametrize(
    "markets", ['[{exchange = "okx", symbols = ["BTC-USDT"]}]', '[{"exchange": "okx", "symbols": ["BTC-USDT"]}]']
)
def test_markets_of_the_environment_replace_those_of_the_file(tmp_path: Path, markets: str) -> None:
    loaded = load_text(tmp_path, MARKET, COLLECTOR_MARKETS=markets)
    assert loaded.settings.all_markets() == (Market("okx", "BTC-USDT"),)
    assert loaded.origins["markets[1].symbols"] == "environment COLLECTOR_MARKETS"


def test_variables_of_dynaconf_itself_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERGE_ENABLED_FOR_DYNACONF", "true")
    monkeypatch.setenv("AUTO_CAST_FOR_DYNACONF", "true")
    monkeypatch.setenv("DYNACONF_REDIS__PREFIX", "theirs")
    text = MARKET + '[collector]\nfeeds = ["orderbook"]\n[aws]\nsecret_key = "@format {env[HOME]}"\naccess_key = "a"\n'
    settings = load_text(tmp_path, text, COLLECTOR_COLLECTOR__FEEDS='["trades"]').settings
    assert settings.collector.feeds == ("trades",)
    assert settings.redis.prefix == "collector"
    assert settings.aws.secret_key == "@format {env[HOME]}"


def test_a_text_setting_gets_the_text_of_the_environment_as_it_is(tmp_path: Path) -> None:
    environ = {
        "COLLECTOR_AWS__HOME_SERVER_NAME": "5",
        "COLLECTOR_AWS__BUCKET": "2026-01-17",
        "AWS_ACCESS_KEY": "true",
        "AWS_SECRET_KEY": "1e9",
    }
    aws = load_text(tmp_path, MARKET, **environ).settings.aws
    assert (aws.home_server_name, aws.bucket, aws.access_key, aws.secret_key) == ("5", "2026-01-17", "true", "1e9")


def test_a_nested_exchange_key_comes_from_the_environment_and_other_exchanges_speak_for_themselves(
    tmp_path: Path,
) -> None:
    environ = {
        "COLLECTOR_EXCHANGES__OKX__WS_URL": "ws://127.0.0.1:8443/ws",
        "COLLECTOR_EXCHANGES__OKX__CONNECTIONS": "2",
    }
    exchanges = load_text(tmp_path, MARKET, **environ).settings.exchanges
    assert list(exchanges) == list(EXCHANGES)
    okx, bybit = EXCHANGES["okx"], EXCHANGES["bybit"]
    channels = okx.orderbook_channels[0], okx.trade_channels[0]
    assert exchanges["okx"] == ExchangeSettings("ws://127.0.0.1:8443/ws", okx.rest_url, None, *channels, 2)
    assert (exchanges["bybit"].ws_url, exchanges["bybit"].connections) == (bybit.ws_url, None)


def test_empty_variables_are_as_good_as_none(tmp_path: Path) -> None:
    loaded = load_text(tmp_path, MARKET, COLLECTOR_AWS__BUCKET="", BUCKET_NAME="", AWS_ACCESS_KEY="")
    assert (loaded.settings.aws.bucket, loaded.settings.aws.access_key, loaded.warnings) == (None, None, ())


def test_every_older_name_is_honoured_and_names_its_successor(tmp_path: Path) -> None:
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
    loaded = load_text(tmp_path, MARKET, **older)
    told = {key: value for key, value, _ in describe(loaded)}
    assert {name: told[key] for name, key in OLDER_NAMES.items()} == older
    assert loaded.warnings == tuple(
        f"{name} of the environment is an older name and still sets {key}; "
        f"write COLLECTOR_{key.upper().replace('.', '__')} instead"
        for name, key in OLDER_NAMES.items()
    )


def test_directories_lie_beside_the_database_unless_they_are_named(tmp_path: Path) -> None:
    loaded = load_text(tmp_path, MARKET + '[database]\npath = "/srv/c/ledger.db"\n[spool]\ndir = "/fast/spool"\n')
    settings = loaded.settings
    assert settings.archive.dir == Path("/srv/c/archive")
    assert settings.spool.dir == Path("/fast/spool")
    assert settings.storage.local_path == Path("/srv/c/objects")
    assert settings.storage.segments_path == Path("/srv/c/segments")
    assert loaded.origins["archive.dir"] == "default, beside database.path"
    assert loaded.origins["spool.dir"] == "settings.toml:7"


def test_a_secret_comes_from_a_file_and_an_open_file_is_warned_about(tmp_path: Path) -> None:
    closed, open_ = tmp_path / "closed", tmp_path / "open"
    for file, text, mode in ((closed, "redis://:s3cret@db:6379/0\n", 0o600), (open_, "hush\n", 0o640)):
        file.write_text(text)
        file.chmod(mode)
    environ = {"COLLECTOR_REDIS__URL_FILE": str(closed), "AWS_SECRET_KEY_FILE": str(open_), "AWS_ACCESS_KEY": "AKIA"}
    loaded = load_text(tmp_path, MARKET, **environ)
    assert loaded.settings.redis.url == "redis://:s3cret@db:6379/0"
    assert loaded.settings.aws.secret_key == "hush"
    assert loaded.origins["redis.url"] == "environment COLLECTOR_REDIS__URL_FILE"
    (warning,) = loaded.warnings
    assert warning == f"AWS_SECRET_KEY_FILE = {open_} holds secrets and is open to group or others; chmod 600 {open_}"


@pytest.mark.parametrize(
    ("lines", "mode", "warned"),
    [
        ('[redis]\nurl = "redis://:s3cret@db:6379/0"\n', 0o644, True),
        ('[aws]\naccess_key = "AKIA"\nsecret_key = "hush"\n', 0o640, True),
        ('[redis]\nurl = "redis://:s3cret@db:6379/0"\n', 0o600, False),
        ('[redis]\nurl = "redis://db:6379/0"\n', 0o644, False),
    ],
)
def test_a_settings_file_that_holds_a_secret_and_is_open_is_warned_about(
    tmp_path: Path, lines: str, mode: int, warned: bool
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(MARKET + lines)
    file.chmod(mode)
    said = f"settings.toml holds secrets and is open to group or others; chmod 600 {file}"
    assert load(file, {}).warnings == ((said,) if warned else ())


def test_a_planted_secret_appears_in_no_description_repr_or_fault(tmp_path: Path) -> None:
    environ = {
        "AWS_ACCESS_KEY": "CANARY1",
        "AWS_SECRET_KEY": "CANARY2",
        "COLLECTOR_REDIS__URL": "redis://:CANARY3@h:6379/0",
        "COLLECTOR_EXCHANGES__OKX__PROXY": "http://u:CANARY4@p:3128",
    }
    loaded = load_text(tmp_path, MARKET, **environ)
    told = {key: value for key, value, _ in describe(loaded)}
    assert (told["redis.url"], told["aws.secret_key"]) == ("redis://:********@h:6379/0", "********")
    assert "CANARY" not in str(describe(loaded)) + repr(loaded)
    spoilt = {name: value.replace("CANARY", "CANARY ") for name, value in environ.items()}
    with pytest.raises(SettingsError) as raised:
        load_text(tmp_path, MARKET, **spoilt, COLLECTOR_AWS__SECRET_KYE="CANARY5")
    assert [fault.split(" ")[0] for fault in raised.value.faults] == [
        "aws.secret_kye",
        "redis.url",
        "exchanges.okx.proxy",
    ]
    assert "CANARY" not in str(raised.value)


def test_the_description_has_every_key_once_with_its_origin(tmp_path: Path) -> None:
    loaded = load_text(tmp_path, MARKET)
    rows = describe(loaded)
    sections = [f"{name}.{f.name}" for name, cls in SECTIONS.items() for f in fields(cls)]
    exchanges = [f"exchanges.{name}.{f.name}" for name in EXCHANGES for f in fields(ExchangeSettings)]
    assert [key for key, _, _ in rows] == sections + exchanges + [f"markets[1].{f.name}" for f in fields(MarketGroup)]
    assert ("markets[1].symbols", "btcusdt", "settings.toml:3") in rows
    assert ("markets[1].feeds", "orderbook", "default, as collector.feeds") in rows
    assert ("redis.timeout_secs", "2", "default") in rows


def test_importing_the_settings_is_cheap() -> None:
    heavy = {"dynaconf", "pyarrow", "boto3", "redis", "celery"}
    code = f"import sys, app.config; print(sorted({heavy} & set(sys.modules)))"
    answer = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ), text=True)
    assert answer == "[]\n"
