"""What is found in files and environment, before anything is judged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.settings_sources import Sources, key_lines, read

SECTIONS = {"redis": ("url", "prefix"), "aws": ("bucket",), "markets": ()}


def test_keys_are_found_in_the_line_where_they_are_written() -> None:
    lines = [
        "# redis", "[redis] # here", '"url" = "a"', "", "[exchanges.okx]", 'proxy="p"',
        "[[markets]]", "a = 1", "[[ markets ]]", "  a = 2",
    ]  # fmt: skip
    assert key_lines("\n".join(lines)) == {
        "redis": 2, "redis.url": 3, "exchanges.okx": 5, "exchanges.okx.proxy": 6,
        "markets[1]": 7, "markets[1].a": 8, "markets[2]": 9, "markets[2].a": 10,
    }  # fmt: skip


NAMES = st.text("abcxyz_", min_size=1, max_size=6)


@given(st.dictionaries(NAMES, st.dictionaries(NAMES, st.integers(), min_size=1), min_size=1))
def test_every_key_of_a_plain_text_is_found(tree: dict[str, dict[str, int]]) -> None:
    expected, lines = {}, []
    for section, keys in tree.items():
        lines.append(f"[{section}]")
        expected[section] = len(lines)
        for key, value in keys.items():
            lines.append(f"{key} = {value}")
            expected[f"{section}.{key}"] = len(lines)
    assert key_lines("\n".join(lines)) == expected


def test_the_origin_of_a_key_is_its_own_or_that_of_the_table_around_it() -> None:
    sources = Sources(origins={"markets[1]": "f:1", "markets[1].symbols": "f:3", "markets": "f:0"})
    keys = ("markets[1].symbols", "markets[1].feeds", "markets[2].feeds", "redis.url")
    assert [sources.origin(key) for key in keys] == ["f:3", "f:1", "f:0", "default"]
    sources.put("markets", "environment COLLECTOR_MARKETS")
    assert sources.origin("markets[1].symbols") == "environment COLLECTOR_MARKETS"


def test_a_variable_that_nearly_names_a_setting_is_warned_about_and_others_are_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("")
    environ = {"COLLECTOR_REDIS_URL": "x", "COLLECTOR_TEST_REQUIRE": "s3", "COLLECTOR_SERVICE_PORT_9090_TCP": "1"}
    sources = read(file, environ, SECTIONS)
    assert (sources.tree, sources.faults) == ({}, [])
    assert sources.warnings == [
        "COLLECTOR_REDIS_URL of the environment is no setting and is ignored; did you mean COLLECTOR_REDIS__URL?"
    ]


def test_a_whole_table_of_the_environment_replaces_that_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[redis]\nurl = "a"\nprefix = "p"\n')
    sources = read(file, {"COLLECTOR_REDIS": '{url = "b"}'}, SECTIONS)
    assert sources.tree == {"redis": {"url": "b"}}
    assert sources.origin("redis.url") == "environment COLLECTOR_REDIS"


def test_secrets_that_others_may_read_are_warned_about_and_only_their_keys_are_replaced(tmp_path: Path) -> None:
    file, secrets = tmp_path / "settings.toml", tmp_path / ".secrets.toml"
    file.write_text('[redis]\nurl = "a"\nprefix = "p"\n')
    secrets.write_text('[redis]\nurl = "hidden"\n')
    secrets.chmod(0o644)
    sources = read(file, {}, SECTIONS)
    assert sources.tree == {"redis": {"url": "hidden", "prefix": "p"}}
    assert sources.warnings == [f".secrets.toml holds secrets and is open to group or others; chmod 600 {secrets}"]


def test_secrets_where_containers_are_given_theirs_are_not_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "redis_url"
    secret.write_text("redis://:hidden@redis:6379/0\n")
    secret.chmod(0o444)
    environ = {"COLLECTOR_REDIS__URL_FILE": str(secret)}
    assert read(None, environ, SECTIONS).warnings == [
        f"COLLECTOR_REDIS__URL_FILE = {secret} holds secrets and is open to group or others; chmod 600 {secret}"
    ]
    monkeypatch.setattr("app.settings_sources.MOUNTED_SECRETS", tmp_path)
    sources = read(None, environ, SECTIONS)
    assert sources.warnings == []
    assert sources.tree["redis"] == {"url": "redis://:hidden@redis:6379/0"}
