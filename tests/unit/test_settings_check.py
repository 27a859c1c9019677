"""What is refused, and how it is told: all at once, each with key, value, origin and remedy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.config import load
from app.errors import SettingsError

MARKET = '[[markets]]\nexchange = "binance"\nsymbols = ["btcusdt"]\n'


def faults(folder: Path, text: str, **environ: str) -> tuple[str, ...]:
    file = folder / "settings.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as raised:
        load(file, environ)
    return raised.value.faults


def test_all_faults_come_at_once_with_value_origin_and_remedy(tmp_path: Path) -> None:
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
symbols = ["BTC-USDT"]
feeds = ["trade"]
"""
    assert faults(tmp_path, text, COLLECTOR_BUFFER__BATCH_MAX_EVENTS="true") == (
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
    )


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (
            "[websocket]\nmessage_timeout_secs = 4",
            "websocket.message_timeout_secs = 4 (settings.toml:2) must not be shorter than "
            "collector.batch_interval_secs = 5 (default); change one of them",
        ),
        (
            "[websocket]\ninitial_retry_delay_secs = 30",
            "websocket.initial_retry_delay_secs = 30 (settings.toml:2) must be shorter than "
            "websocket.message_timeout_secs = 30 (default); change one of them",
        ),
        (
            "[websocket]\nmax_retry_delay_secs = 0.5",
            "websocket.max_retry_delay_secs = 0.5 (settings.toml:2) must not be shorter than "
            "websocket.initial_retry_delay_secs = 1 (default); change one of them",
        ),
        (
            '[storage]\nmode = "s3"',
            'storage.mode = "s3" (settings.toml:2) needs a bucket; give [aws] bucket, or set the mode to local',
        ),
        (
            '[storage]\nmode = "both"',
            'storage.mode = "both" (settings.toml:2) needs a bucket; give [aws] bucket, or set the mode to local',
        ),
        (
            '[storage]\nmode = "tape"',
            'storage.mode = "tape" (settings.toml:2) is not one of local, s3, both; choose one of them',
        ),
        (
            '[spool]\ndir = "data/archive"',
            'spool.dir = "data/archive" (settings.toml:2) is the path of archive.dir too; give each its own',
        ),
        (
            '[aws]\nsecret_key = "hush"',
            'aws.secret_key = "********" (settings.toml:2) is given without aws.access_key; '
            "give both, or neither and leave the search to boto3",
        ),
        ("[exchanges.okex]", "exchanges.okex (settings.toml:1) is no setting; did you mean okx?"),
        ('database = "x.db"', "database (settings.toml:1) is no table; write [database] and its keys in lines below"),
        (
            "[collector]\nmetrics_port = 9090.0",
            "collector.metrics_port = 9090.0 (settings.toml:2) is no whole number; write digits only, without quotes",
        ),
    ],
)
def test_a_rule_that_is_broken_is_told_in_one_sentence(tmp_path: Path, lines: str, fault: str) -> None:
    assert faults(tmp_path, f"{lines}\n{MARKET}") == (fault,)


def test_a_secret_file_that_is_missing_or_given_twice_is_a_fault(tmp_path: Path) -> None:
    environ = {"COLLECTOR_REDIS__URL_FILE": "/nowhere/url", "AWS_ACCESS_KEY": "AKIA", "AWS_ACCESS_KEY_FILE": "/x"}
    assert faults(tmp_path, MARKET, **environ) == (
        "AWS_ACCESS_KEY and AWS_ACCESS_KEY_FILE are both set in the environment; remove one of them",
        (
            "COLLECTOR_REDIS__URL_FILE = '/nowhere/url' (environment) cannot be read: No such file or directory; "
            "correct the path"
        ),
    )


def test_a_file_that_is_missing_or_no_toml_says_which_and_where(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as raised:
        load(environ={"CONFIG_PATH": "/nowhere/c.toml"})
    assert raised.value.faults[0] == (
        "/nowhere/c.toml: the settings cannot be read (No such file or directory); create it or correct CONFIG_PATH"
    )
    told = faults(tmp_path, "[collector]\nmetrics_port = = 1\n")[0]
    assert re.fullmatch(r".*/settings\.toml: not TOML: .*\(at line 2, column \d+\); correct that place", told)


def test_no_market_at_all_is_answered_with_an_example(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "[collector]\nmetrics_port = 1\n")
    assert fault.splitlines()[1:] == ["    [[markets]]", '    exchange = "binance"', '    symbols = ["btcusdt"]']


def test_a_private_endpoint_is_told_with_what_to_add_and_is_right_once_it_is_added(tmp_path: Path) -> None:
    text = f'{MARKET}[exchanges.okx]\nrest_url = "https://10.0.0.7"\n[aws]\nendpoint_url = "http://store:9000"\n'
    assert faults(tmp_path, text) == (
        'aws.endpoint_url = "http://store:9000" (settings.toml:7) has the wrong scheme; use https://'
        " (http:// for this machine and [security] private_hosts only)",
        'exchanges.okx.rest_url = "https://10.0.0.7" (settings.toml:5) is a private address; if it is meant, add'
        " '10.0.0.7' to [security] private_hosts",
    )
    (tmp_path / "settings.toml").write_text(f'{text}[security]\nprivate_hosts = ["10.0.0.0/8", "store"]\n')
    assert load(tmp_path / "settings.toml", {}).settings.security.private_hosts == ("10.0.0.0/8", "store")
    (fault,) = faults(tmp_path, f'{MARKET}[security]\nprivate_hosts = ["*"]\n')
    assert "names '*', which is no host" in fault
