"""The settings file is replaced whole or not at all."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from app.config import Settings, load
from app.errors import SettingsError
from app.model import Market
from app.settings_editing import added, default_feeds, recorded
from app.settings_file import BOM, Edit, edit, editable

TEXT = '# kept\n[[markets]]\nexchange = "okx"\nsymbols = ["BTC-USDT"]\n'
ETH = Market("okx", "ETH-USDT")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(TEXT)
    return path


def adding(*symbols: str) -> Callable[[str, Settings], Edit]:
    def change(text: str, settings: Settings) -> Edit:
        feeds = default_feeds(settings)
        wanted = recorded(settings) | {(Market("okx", symbol), feed) for symbol in symbols for feed in feeds}
        return Edit(added(text, settings, "okx", symbols, feeds), wanted)

    return change


def rewriting(old: str, new: str) -> Callable[[str, Settings], Edit]:
    """Something else than it says."""
    return lambda text, settings: Edit(text.replace(old, new), recorded(settings))


def test_the_new_file_has_the_mode_and_the_name_of_the_old_one_and_nothing_is_left_beside_it(file: Path) -> None:
    file.chmod(0o640)
    before, after = edit(file, adding("ETH-USDT"), {})
    assert recorded(after) - recorded(before) == {(ETH, "orderbook")}
    assert load(file, {}).settings == after
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert os.listdir(file.parent) == ["settings.toml"]


def test_a_link_stays_a_link_and_what_it_names_is_replaced(file: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "settings.toml"
    link.symlink_to(file)
    edit(link, adding("ETH-USDT"), {})
    assert link.is_symlink()
    assert "ETH-USDT" in file.read_text()


def test_a_mark_of_byte_order_stays(file: Path) -> None:
    file.write_bytes(BOM + TEXT.encode())
    edit(file, adding("ETH-USDT"), {})
    assert file.read_bytes() == BOM + TEXT.replace('T"]', 'T", "ETH-USDT"]').encode()


def test_a_change_that_changes_nothing_leaves_the_file_alone(file: Path) -> None:
    before = file.stat()
    edit(file, rewriting("nothing", "else"), {})
    after = file.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)


@pytest.mark.parametrize(
    ("old", "new", "faults"),
    [
        ('"okx"', '"kraken"', ["is no known exchange"]),
        (
            '"BTC-USDT"',
            '"a b", "c d"',
            ['"a b" (settings.toml:4) is no symbol', '"c d" (settings.toml:4) is no symbol'],
        ),
        ("[[markets]]", "[[markets", ["not TOML", "no market is to be recorded"]),
        ("# kept", "[redis]\nprefix = 'other'", ["without changing something else"]),
        ('"BTC-USDT"', '"ETH-USDT"', ["without changing something else"]),
    ],
)
def test_what_would_not_be_right_or_not_what_was_meant_changes_nothing(
    file: Path, old: str, new: str, faults: list[str]
) -> None:
    with pytest.raises(SettingsError) as refused:
        edit(file, rewriting(old, new), {})
    assert [words in fault for words, fault in zip(faults, refused.value.faults, strict=True)] == [True] * len(faults)
    # It speaks of the file, not of what was tried beside it.
    assert ".new" not in str(refused.value)
    assert (file.read_text(), os.listdir(file.parent)) == (TEXT, ["settings.toml"])


def test_markets_that_do_not_come_from_the_file_are_changed_where_they_come_from(file: Path) -> None:
    environ = {"COLLECTOR_MARKETS": '[{exchange = "upbit", symbols = ["KRW-BTC"]}]'}
    with pytest.raises(
        SettingsError, match=r"come from environment COLLECTOR_MARKETS, which wins over .*settings.toml"
    ):
        edit(file, adding("ETH-USDT"), environ)
    secrets = file.with_name(".secrets.toml")
    secrets.write_text(TEXT)
    with pytest.raises(SettingsError, match=r"come from \.secrets\.toml:4"):
        edit(file, adding("ETH-USDT"), {})
    assert file.read_text() == TEXT


def test_without_a_file_there_is_nothing_to_edit(file: Path) -> None:
    found = load(file, {})
    assert editable(found) == file
    found = type(found)(found.settings, found.origins, found.warnings, None)
    with pytest.raises(SettingsError, match="no settings file"):
        editable(found)


def test_secrets_beside_the_file_are_read_with_what_is_tried(file: Path) -> None:
    secrets = file.with_name(".secrets.toml")
    secrets.write_text('[redis]\nurl = "redis://:pa55@127.0.0.1:1/0"\n')
    secrets.chmod(0o600)
    _, after = edit(file, adding("ETH-USDT"), {})
    assert after.redis.url == "redis://:pa55@127.0.0.1:1/0"
    assert "pa55" not in file.read_text()


def test_where_it_cannot_be_written_it_says_so(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(SettingsError, match="cannot be replaced: Device or resource busy; see who may write it"):
        edit(file, adding("ETH-USDT"), {})
    assert os.listdir(file.parent) == ["settings.toml"]


def test_edits_at_the_same_time_follow_one_another(file: Path) -> None:
    names = [f"TEST{number:04d}-USDT" for number in range(8)]
    threads = [threading.Thread(target=edit, args=(file, adding(name), {})) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    (group,) = load(file, {}).settings.markets
    assert sorted(group.symbols) == ["BTC-USDT", *names]
