"""Markets added to and removed from a settings file's text: the lines concerned change, and no other byte."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.config import Settings, load
from app.errors import SettingsError
from app.model import ORDERBOOK, TRADE
from app.settings_editing import added, default_feeds, recorded, removed

BOTH = (ORDERBOOK, TRADE)
HAND_WRITTEN = """\
# Recorder of the desk.
[collector]
feeds = ["orderbook", "trades"]   # both

# The big one.
[[markets]]
exchange = "binance"      # spot
symbols = [
    "BTCUSDT", "ethusdt",   # majors
    # doubtful
    "solusdt",              # until March
]

# Quiet: give it time.
[[markets]]
# said the venue
exchange = 'coinbase'
symbols = ['BTC-USD'] # one
data_timeout_secs = 90
# For the office.
[exchanges.okx]
connections = 2

[[markets]]
exchange = "okx"
symbols = ["BTC-USDT","ETH-USDT"]
feeds = ["trades"]
# The end.
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings")


def read(text: str, directory: Path) -> Settings:
    (directory / "settings.toml").write_bytes(text.encode())
    return load(directory / "settings.toml", {}).settings


def difference(before: str, after: str) -> list[str]:
    """Lines taken away (-) and given (+), in order."""
    return [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"]


def add(text: str, directory: Path, exchange: str, *symbols: str, feeds: tuple[str, ...] = BOTH) -> str:
    return added(text, read(text, directory), exchange, symbols, feeds)


def remove(text: str, directory: Path, exchange: str, *symbols: str) -> str:
    """As an exchange in lower case would."""
    return removed(text, read(text, directory), exchange, lambda symbol: symbol.lower() in symbols)


def test_a_market_joins_the_group_with_its_feeds_in_the_layout_of_its_list(directory: Path) -> None:
    assert difference(HAND_WRITTEN, add(HAND_WRITTEN, directory, "binance", "dogeusdt", "xrpusdt")) == [
        '+     "dogeusdt",',
        '+     "xrpusdt",',
    ]
    assert difference(HAND_WRITTEN, add(HAND_WRITTEN, directory, "okx", "SOL-USDT", feeds=(TRADE,))) == [
        '- symbols = ["BTC-USDT","ETH-USDT"]',
        '+ symbols = ["BTC-USDT","ETH-USDT", "SOL-USDT"]',
    ]


def test_a_market_for_which_there_is_no_group_gets_one_behind_the_last(directory: Path) -> None:
    """Other feeds than its exchange's groups, or groups with a timeout of their own: those are not joined."""
    asked = {("okx", BOTH): None, ("coinbase", BOTH): None, ("okx", (ORDERBOOK,)): '+ feeds = ["orderbook"]'}
    for (exchange, feeds), line in asked.items():
        text = add(HAND_WRITTEN, directory, exchange, "SOL-USD", feeds=feeds)
        assert difference(HAND_WRITTEN, text) == [
            "+ ", "+ [[markets]]", f'+ exchange = "{exchange}"', '+ symbols = ["SOL-USD"]', *filter(None, [line]),
        ]  # fmt: skip
        assert text.endswith("# The end.\n")
        assert read(text, directory).markets[3].feeds == feeds


def test_a_list_that_ends_with_a_comment_gets_its_comma(directory: Path) -> None:
    text = '[[markets]]\nexchange = "okx"\nsymbols = [\n    "A-B"\n    # more to come\n]\n'
    changed = add(text, directory, "okx", "C-D", feeds=(ORDERBOOK,))
    assert difference(text, changed) == ['-     "A-B"', '+     "A-B",', '+     "C-D",']


def test_a_symbol_goes_with_the_comment_behind_it_and_no_other(directory: Path) -> None:
    assert difference(HAND_WRITTEN, remove(HAND_WRITTEN, directory, "binance", "solusdt")) == [
        '-     "solusdt",              # until March'
    ]
    text = remove(HAND_WRITTEN, directory, "binance", "btcusdt")
    assert difference(HAND_WRITTEN, text) == [
        '-     "BTCUSDT", "ethusdt",   # majors', '+     "ethusdt",   # majors',
    ]  # fmt: skip


def test_a_group_without_symbols_goes_and_comments_on_lines_of_their_own_stay(directory: Path) -> None:
    text = remove(HAND_WRITTEN, directory, "coinbase", "btc-usd")
    assert difference(HAND_WRITTEN, text) == [
        "- [[markets]]", "- exchange = 'coinbase'", "- symbols = ['BTC-USD'] # one", "- data_timeout_secs = 90",
    ]  # fmt: skip
    assert "# Quiet: give it time.\n# said the venue\n# For the office.\n[exchanges.okx]" in text


def test_a_market_of_several_groups_is_removed_from_all(directory: Path) -> None:
    text = add(HAND_WRITTEN, directory, "okx", "BTC-USDT", feeds=(ORDERBOOK,))
    left = read(remove(text, directory, "okx", "btc-usdt"), directory)
    assert [group.symbols for group in left.markets if group.exchange == "okx"] == [("ETH-USDT",)]


def test_a_bracket_in_a_list_or_a_text_opens_no_table(directory: Path) -> None:
    text = (
        '[[markets]]\nexchange="okx"\nsymbols = [\n"A-B" # [x]\n,\n"C-D"\n\n]\n[aws]\nregion = """\n[[markets]]\n"""\n'
    )
    settings = read(text.replace('"""\n[[markets]]\n"""', '"here"'), directory)
    changed = added(text, settings, "okx", ["E-F"], default_feeds(settings))
    wanted = tomllib.loads(text)
    wanted["markets"][0]["symbols"].append("E-F")
    assert tomllib.loads(changed) == wanted
    assert difference(text, changed) == ['- "C-D"', '+ "C-D",', '+ "E-F"']


def test_groups_that_are_no_tables_are_left_to_a_person(directory: Path) -> None:
    text = 'markets = [{exchange = "okx", symbols = ["A-B"]}]\n'
    with pytest.raises(SettingsError, match=r"0 tables \[\[markets\]\], the settings in effect have 1 groups"):
        add(text, directory, "okx", "C-D", feeds=(ORDERBOOK,))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_stay_what_they_are(directory: Path, end: str) -> None:
    text = HAND_WRITTEN.replace("\n", end)
    for changed in (
        add(text, directory, "binance", "dogeusdt"),
        add(text, directory, "upbit", "KRW-BTC"),
        remove(text, directory, "coinbase", "btc-usd"),
    ):
        assert changed.count("\n") == changed.count(end)
        assert changed != text


def test_a_file_that_ends_within_its_last_line_is_continued(directory: Path) -> None:
    text = '[[markets]]\nexchange = "okx"\nsymbols = ["A-B"]'
    assert add(text, directory, "upbit", "KRW-BTC", feeds=(ORDERBOOK,)) == (
        text + '\n\n[[markets]]\nexchange = "upbit"\nsymbols = ["KRW-BTC"]\n'
    )


SYMBOL = st.from_regex(r"[A-Z]{2,5}-[A-Z]{3}", fullmatch=True)
COMMENT = st.sampled_from(["", "\n", "# said\n", "\n# one\n\n# two\n"])


@st.composite
def files(draw: st.DrawFn) -> str:
    """Settings with groups of okx in many layouts, comments around, and other tables between them."""
    symbols = draw(st.lists(SYMBOL, unique=True, min_size=1, max_size=8))
    cuts = sorted(draw(st.sets(st.integers(1, len(symbols)), max_size=3)) | {len(symbols)})
    text = draw(COMMENT)
    for start, end in zip([0, *cuts], cuts, strict=False):
        quoted = [f'"{symbol}"' for symbol in symbols[start:end]]
        layout = draw(
            st.sampled_from(["[{}]", "[ {} ]", "[\n  {},\n]", "[\n\t{} # last\n]", "[ # first\n{}\n# end\n]"])
        )
        between = draw(st.sampled_from([",", ", ", ",\n  ", ",  # next\n"]))
        text += f'[[markets]]{draw(st.sampled_from(["", "  # group"]))}\nexchange = "okx"\n'
        text += f"symbols = {layout.format(between.join(quoted))}\n"
        text += draw(st.sampled_from(["", 'feeds = ["trades"]\n', "data_timeout_secs = 9 # slow\n"]))
        text += draw(COMMENT) + draw(st.sampled_from(["", "[exchanges.okx]\nconnections = 3\n" + draw(COMMENT)]))
        text = text.replace("[exchanges.okx]", "[exchanges.upbit]", text.count("[exchanges.okx]") - 1)
    return text


def tree(text: str) -> dict[str, Any]:
    """What the file says of all but the markets."""
    return {name: table for name, table in tomllib.loads(text).items() if name != "markets"}


def comments(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.lstrip().startswith("#")]


@given(files(), st.lists(SYMBOL, unique=True, min_size=1, max_size=3), st.sampled_from([BOTH, (ORDERBOOK,), (TRADE,)]))
@hypothesis_settings(deadline=None, max_examples=25)
def test_adding_then_removing_leaves_the_markets_and_every_comment_as_they_were(
    directory: Path, text: str, symbols: list[str], feeds: tuple[str, ...]
) -> None:
    try:
        before = read(text, directory)
    except SettingsError:
        return  # two tables of one exchange
    new = [symbol for symbol in symbols if symbol not in {market.symbol for market in before.all_markets()}]
    grown = added(text, before, "okx", new, feeds) if new else text
    after = read(grown, directory)
    assert recorded(after) - recorded(before) == {
        (market, feed) for market in after.all_markets() if market.symbol in new for feed in feeds
    }
    assert recorded(before) <= recorded(after)
    again = removed(grown, after, "okx", lambda symbol: symbol in new)
    assert recorded(read(again, directory)) == recorded(before)
    assert [tree(text), comments(text)] == [tree(grown), comments(grown)] == [tree(again), comments(again)]


@given(files(), st.data())
@hypothesis_settings(deadline=None, max_examples=25)
def test_removing_takes_those_markets_and_no_comment_with_a_line_of_its_own(
    directory: Path, text: str, data: st.DataObject
) -> None:
    try:
        before = read(text, directory)
    except SettingsError:
        return
    gone = data.draw(st.sets(st.sampled_from([market.symbol for market in before.all_markets()]), min_size=1))
    left = removed(text, before, "okx", lambda symbol: symbol in gone)
    assert (tree(left), comments(left)) == (tree(text), comments(text))
    wanted = {(market, feed) for market, feed in recorded(before) if market.symbol not in gone}
    if wanted:
        assert recorded(read(left, directory)) == wanted
