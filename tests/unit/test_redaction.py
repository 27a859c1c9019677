"""Secrets do not come through, however they are spelled; other text does, untouched."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.config import SECTIONS, load
from app.redaction import Redaction, secrets
from app.settings_rules import ADDRESSES, SECRETS, STARS

PEM = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIHcanarycanarycanary0\nAwEHoUQDQgAEcanary/two+\n-----END EC PRIVATE KEY-----\n"
#: What stands around a secret in these tests: a secret that is a piece of it would be masked there too.
AROUND = 'Traceback ValueError: redis://:@127.0.0.1:6379/0 {"exception": "", "error": " refused"}'
texts = st.text(
    st.characters(exclude_characters="*", exclude_categories=["Cs", "Cc"]), min_size=5, max_size=40
).filter(lambda text: text not in AROUND)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(secret=texts, before=st.text(), after=st.text())
@example(secret="canary\"quoted' \\ \u2028 %2F", before="a", after="b")
def test_a_secret_is_masked_plain_in_addresses_in_json_and_in_a_traceback_inside_json(
    secret: str, before: str, after: str
) -> None:
    masked = Redaction([secret])
    assert secret not in masked(f"{before}{secret}{after}")
    url = f"redis://:{quote(secret, safe='')}@127.0.0.1:6379/0"
    assert masked(url) == f"redis://:{STARS}@127.0.0.1:6379/0"
    assert secret not in json.loads(masked(json.dumps({"error": f"{secret} refused"})))["error"]
    trace = f"Traceback\nValueError: {secret!r}"
    for ascii_only in (True, False):
        told = json.loads(masked(json.dumps({"exception": trace}, ensure_ascii=ascii_only)))
        assert secret not in told["exception"] and repr(secret)[1:-1] not in told["exception"]


@settings(max_examples=50, deadline=None)
@given(text=st.text(st.characters(exclude_characters="@")))
def test_text_without_secrets_stays_as_it_is(text: str) -> None:
    assert Redaction()(text) == text
    assert Redaction(["canary-canary"])(text) == text


def test_every_line_of_a_key_in_pem_is_masked_even_alone() -> None:
    masked = Redaction([PEM])
    inside_json = json.dumps({"exception": repr({"key": PEM})})
    for text in (PEM, repr(PEM), json.dumps({"key": PEM}), inside_json, PEM.replace("\n", "")):
        assert "canary" not in masked(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no redis://:x@h:1/0 there", f"no redis://:{STARS}@h:1/0 there"),
        ("socks5h://user:a%40b@proxy:1080", f"socks5h://user:{STARS}@proxy:1080"),
        ('{"url": "wss://u:p@h/ws", "who": "a@b"}', f'{{"url": "wss://u:{STARS}@h/ws", "who": "a@b"}}'),
        ("task stream@host at 12:30:00, see https://h:443/x@y", "task stream@host at 12:30:00, see https://h:443/x@y"),
    ],
)
def test_a_password_inside_an_address_is_masked_whoever_it_belongs_to(text: str, shown: str) -> None:
    assert Redaction()(text) == shown


def test_a_word_too_short_to_be_told_from_text_is_masked_inside_addresses_only() -> None:
    masked = Redaction(["info"])
    assert masked('{"level": "info"} redis://:info@h/0') == f'{{"level": "info"}} redis://:{STARS}@h/0'


def test_the_secrets_are_those_of_the_settings_and_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(
        '[redis]\nurl = "redis://user:canary%2Fredis@h:6379/0"\n[aws]\nbucket = "b"\n'
        '[exchanges.okx]\nproxy = "http://p:canary-proxy@h:1"\nws_url = "wss://h/?token=canary-token&b=1"\n'
        '[[markets]]\nexchange = "okx"\nsymbols = ["BTC-USDT"]\nbase_url = "wss://h/?key=canary-base"\n'
    )
    (tmp_path / "key").write_text("canary-file\n")
    environ = {
        "AWS_ACCESS_KEY": "canary-id", "AWS_SECRET_KEY": "canary-key", "COINBASE_API_KEY": "canary-name",
        "COINBASE_API_SECRET_FILE": str(tmp_path / "key"),
    }  # fmt: skip
    loaded = load(tmp_path / "settings.toml", environ).settings
    others = {
        "FLOWER_BASIC_AUTH": "admin:canary-flower,other:canary-other", "AWS_SESSION_TOKEN": "canary-session",
        "AWS_SECRET_ACCESS_KEY": "canary-boto", "PATH": "/usr/bin", "SECRETS_DIR": "/run/secrets", "EMPTY_TOKEN": "",
    }  # fmt: skip
    assert secrets(loaded, others) == {
        "canary%2Fredis", "canary-proxy", "canary-token", "canary-base", "canary-id", "canary-key", "canary-name",
        "canary-file", "admin:canary-flower", "canary-flower", "other:canary-other", "canary-other", "canary-session",
        "canary-boto",
    }  # fmt: skip
    for rule in SECRETS | ADDRESSES.keys():  # every rule names a field of a table that `secrets` looks into
        assert rule.partition(".")[0] in {*SECTIONS, "exchanges", "markets"}
