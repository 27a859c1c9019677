"""The second source of an exchange, and the key that goes with it, as a user writes them."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from app.config import ExchangeSettings, Loaded, describe, load
from app.errors import SettingsError
from app.exchanges import EXCHANGES, exchange_of
from app.launch.environment import clean
from app.pipeline.plan import chosen, streams
from app.wiring import Wiring

MARKET = '[[markets]]\nexchange = "coinbase"\nsymbols = ["BTC-USD"]\n'
ADVANCED = '[exchanges.coinbase]\nsource = "advanced"\n'
NAME = "organizations/CANARY1/apiKeys/1e"
ED = base64.b64encode(b"CANARY2-".ljust(32, b"x")).decode()
PEM = (
    ec.derive_private_key(7**80, ec.SECP256R1())
    .private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    .decode()
)


def load_text(folder: Path, text: str, **environ: str) -> Loaded:
    file = folder / "settings.toml"
    file.write_text(text, encoding="utf-8")
    return load(file, environ)


def faults(folder: Path, text: str, **environ: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as raised:
        load_text(folder, text, **environ)
    return raised.value.faults


def coinbase(loaded: Loaded) -> ExchangeSettings:
    return loaded.settings.exchanges["coinbase"]


def test_a_source_brings_its_addresses_and_channels(tmp_path: Path) -> None:
    assert coinbase(load_text(tmp_path, ADVANCED + MARKET)) == ExchangeSettings(
        "wss://advanced-trade-ws.coinbase.com", "https://api.coinbase.com", None, "level2", "market_trades",
        source="advanced",
    )  # fmt: skip
    plain, named = (
        coinbase(load_text(tmp_path, text + MARKET)) for text in ("", ADVANCED.replace("advanced", "exchange"))
    )
    assert plain == replace(named, source=None)
    assert plain.ws_url == EXCHANGES["coinbase"].ws_url


def test_a_source_that_is_none_is_told_with_those_there_are(tmp_path: Path) -> None:
    text = '[exchanges.coinbase]\nsource = "pro"\n[exchanges.okx]\nsource = "advanced"\n'
    assert faults(tmp_path, text + MARKET) == (
        'exchanges.coinbase.source = "pro" (settings.toml:2) is no source of coinbase; choose from exchange, advanced',
        'exchanges.okx.source = "advanced" (settings.toml:4) is no source of okx; leave the key out, it has only one',
    )


def test_a_channel_of_the_other_source_is_none_of_this_one(tmp_path: Path) -> None:
    assert faults(tmp_path, ADVANCED + 'orderbook_channel = "level2_batch"\n' + MARKET) == (
        'exchanges.coinbase.orderbook_channel = "level2_batch" (settings.toml:3) is no such channel of coinbase; '
        "choose from level2",
    )


def test_the_streams_of_a_source_keep_their_names_and_read_from_it(tmp_path: Path) -> None:
    settings = load_text(tmp_path, ADVANCED + MARKET).settings
    assert chosen(settings) == {**EXCHANGES, "coinbase": exchange_of("coinbase", "advanced")}
    (stream,) = streams(settings, chosen(settings))
    assert (stream.name, stream.exchange, stream.source) == ("coinbase-0-orderbook", "coinbase", "advanced")
    assert stream.ws_url == "wss://advanced-trade-ws.coinbase.com"
    assert stream.subscription.orderbook_channel == "level2"
    assert Wiring(settings).streams == {stream.name: stream}


# one feed under two names


@pytest.mark.parametrize(
    "markets",
    [
        '[[markets]]\nexchange = "coinbase"\nsymbols = ["BTC-USD", "BTC-USDC"]\n',
        MARKET + '[[markets]]\nexchange = "coinbase"\nsymbols = ["btc-usdc"]\nfeeds = ["trades"]\n',
    ],
    ids=["in one group", "in two"],
)
def test_a_market_and_its_name_in_usdc_are_one_feed_and_not_recorded_as_two(tmp_path: Path, markets: str) -> None:
    (fault,) = faults(tmp_path, ADVANCED + '[collector]\nfeeds = ["trades"]\n' + markets)
    assert fault.startswith("markets[") and fault.endswith(
        " is the feed of BTC-USD under another name; list one of them"
    )
    assert 'symbols = "BTC-USDC" (settings.toml:' in fault
    assert len(load_text(tmp_path, markets).settings.all_markets()) == 2, "the Exchange feed has both"


def test_two_feeds_of_the_two_names_and_products_with_books_of_their_own_are_recorded(tmp_path: Path) -> None:
    groups = [
        '[[markets]]\nexchange = "coinbase"\nsymbols = ["USDT-USD", "USDT-USDC", "ETH-USDC"]\n',
        '[[markets]]\nexchange = "coinbase"\nsymbols = ["BTC-USD"]\nfeeds = ["trades"]\n',
        '[[markets]]\nexchange = "coinbase"\nsymbols = ["BTC-USDC"]\nfeeds = ["orderbook"]\n',
    ]
    loaded = load_text(tmp_path, ADVANCED + "".join(groups))
    assert [market.symbol for market in loaded.settings.all_markets()] == [
        "USDT-USD", "USDT-USDC", "ETH-USDC", "BTC-USD", "BTC-USDC",
    ]  # fmt: skip


# the key


@pytest.mark.parametrize("secret", [ED, PEM, PEM.replace("\n", "\\n")], ids=["base64", "PEM", "PEM on one line"])
def test_a_key_comes_from_the_environment(tmp_path: Path, secret: str) -> None:
    loaded = load_text(tmp_path, ADVANCED + MARKET, COINBASE_API_KEY=NAME, COINBASE_API_SECRET=secret)
    assert (coinbase(loaded).api_key, coinbase(loaded).api_secret) == (NAME, secret)
    assert loaded.origins["exchanges.coinbase.api_secret"] == "environment COINBASE_API_SECRET"
    assert loaded.warnings == ()


def test_a_secret_comes_from_a_file_and_our_own_names_win(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text(PEM)
    file.chmod(0o600)
    environ = {"COINBASE_API_KEY": "other", "COLLECTOR_EXCHANGES__COINBASE__API_KEY": NAME}
    loaded = load_text(tmp_path, ADVANCED + MARKET, COINBASE_API_SECRET_FILE=str(file), **environ)
    assert (coinbase(loaded).api_key, coinbase(loaded).api_secret) == (NAME, PEM.strip())
    assert loaded.origins["exchanges.coinbase.api_secret"] == "environment COINBASE_API_SECRET_FILE"
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("environ", "fault"),
    [
        (
            {"COINBASE_API_KEY": NAME},
            'exchanges.coinbase.api_key = "********" (environment COINBASE_API_KEY) is given without '
            "exchanges.coinbase.api_secret; give both, or neither: public data needs no key",
        ),
        (
            {"COINBASE_API_SECRET": ED},
            'exchanges.coinbase.api_secret = "********" (environment COINBASE_API_SECRET) is given without '
            "exchanges.coinbase.api_key; give both, or neither: public data needs no key",
        ),
        (
            {"COINBASE_API_KEY": NAME, "COINBASE_API_SECRET": "CANARY3 ?"},
            'exchanges.coinbase.api_secret = "********" (environment COINBASE_API_SECRET) is neither PEM nor base64; '
            "copy it whole: an EC key in PEM with both of its lines of dashes, or an Ed25519 key in base64",
        ),
    ],
    ids=["no secret", "no name", "no key at all"],
)
def test_half_a_key_or_a_wrong_one_is_one_sentence_that_names_the_setting(
    tmp_path: Path, environ: dict[str, str], fault: str
) -> None:
    assert faults(tmp_path, ADVANCED + MARKET, **environ) == (fault,)


def test_a_key_that_the_source_does_not_take_is_warned_about_and_never_stops_it(tmp_path: Path) -> None:
    loaded = load_text(tmp_path, MARKET, COINBASE_API_KEY=NAME, COINBASE_API_SECRET="CANARY3 ?")
    assert loaded.warnings == (
        "exchanges.coinbase.api_key (environment COINBASE_API_KEY) is not used: this source of data takes no key",
        "exchanges.coinbase.api_secret (environment COINBASE_API_SECRET) is not used: this source of data takes no key",
    )


def test_no_part_of_a_key_appears_in_a_description_repr_warning_or_fault(tmp_path: Path) -> None:
    environ = {"COINBASE_API_KEY": NAME, "COINBASE_API_SECRET": ED}
    loaded = load_text(tmp_path, ADVANCED + MARKET, **environ)
    told = {key: value for key, value, _ in describe(loaded)}
    assert [told[f"exchanges.coinbase.{key}"] for key in ("source", "api_key", "api_secret")] == [
        "advanced",
        *["********"] * 2,
    ]
    shown = str(describe(loaded)) + repr(loaded) + str(load_text(tmp_path, MARKET, **environ).warnings)
    for text in (ED[:-4], PEM.splitlines()[1]):
        shown += str(faults(tmp_path, ADVANCED + MARKET, COINBASE_API_KEY=NAME, COINBASE_API_SECRET=text))
    hidden = [NAME, "CANARY", ED[:20], *PEM.splitlines()[1:-1]]
    assert [secret for secret in hidden if secret in shown] == []


def test_a_rehearsal_is_given_no_key() -> None:
    assert clean({"COINBASE_API_KEY": NAME, "COINBASE_API_SECRET_FILE": "x", "HOME": "/h"}) == {"HOME": "/h"}
