import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.venues.cli import VENUES, exchange_server, listening, recordings, table
from app.venues.faults import CATALOGUE, LIMITS, faults
from app.venues.instruments import DOLLARS
from app.venues.spoiled import KINDS


def test_the_table_is_what_a_user_pastes_into_the_settings() -> None:
    text = table(listening("127.0.0.1", 8900, 5))
    for lines in (
        '[exchanges.binance]\nws_url = "ws://127.0.0.1:8900/binance"\nrest_url = "http://127.0.0.1:8900/binance"\n',
        '[exchanges.coinbase]\nws_url = "ws://127.0.0.1:8900/coinbase"\nrest_url = "http://127.0.0.1:8900/coinbase"\n',
        '[exchanges.upbit]\nws_url = "ws://127.0.0.1:8900/upbit/websocket/v1"\nrest_url = "http://127.0.0.1:8900/upbit"\n',
        '[exchanges.okx]\nws_url = "ws://127.0.0.1:8900/okx/ws/v5/public"\nrest_url = "http://127.0.0.1:8900/okx"\n',
        '[exchanges.bybit]\nws_url = "ws://127.0.0.1:8900/bybit/v5/public/spot"\nrest_url = "http://127.0.0.1:8900/bybit"\n',
    ):
        assert lines in text
    assert "curl -X POST http://127.0.0.1:8900/control/stop" in text


def test_a_version_6_host_is_bracketed() -> None:
    assert listening("::1", 1, 5).venues["okx"].rest_url == "http://[::1]:1/okx"


def test_a_chosen_file_takes_the_place_of_the_venues_folder(tmp_path: Path) -> None:
    (tmp_path / "bybit").mkdir()
    (tmp_path / "okx").mkdir()
    (tmp_path / "bybit" / "a.jsonl").write_text('{"topic":"orderbook.50.AUSDT","data":{}}\n')
    (tmp_path / "okx" / "b.jsonl").write_text('{"arg":{"channel":"books","instId":"B-USDT"},"data":[{}]}\n')
    chosen = tmp_path / "chosen.jsonl"
    chosen.write_text('{"topic":"orderbook.50.CUSDT","data":{}}\n')
    found = recordings(tmp_path, (("bybit", chosen),))
    assert found is not None
    assert {name: found[name].symbols for name in VENUES} == {
        "binance": [], "coinbase": [], "upbit": [], "okx": ["B-USDT"], "bybit": ["CUSDT"],
    }  # fmt: skip
    assert recordings(None, ()) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rate", "0"], "generating needs a rate"),
        (["--frames-file", "kraken=x"], "write VENUE=FILE with one of binance, coinbase, upbit, okx, bybit"),
        (["--frames", "/no/such/place"], "does not exist"),
    ],
)
def test_a_wrong_option_is_explained(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(exchange_server, arguments)
    assert result.exit_code == 2 and words in " ".join(result.output.split())


def test_help_teaches_the_rehearsal() -> None:
    output = CliRunner().invoke(exchange_server, ["--help"]).output
    assert "control/stop" in output and "KRW-BTC" in output


def test_a_port_that_is_taken_is_told_without_a_traceback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CliRunner().invoke(exchange_server, ["--port", str(taken.getsockname()[1])])
    assert result.exit_code == 1 and "address already in use" in result.output


def test_the_documentation_names_every_option_and_every_base() -> None:
    text = (Path(__file__).parents[3] / "docs" / "rehearse.md").read_text()
    options = [option for parameter in exchange_server.params for option in parameter.opts]
    assert [option for option in options if option not in text] == []
    assert [base for base in DOLLARS if not base.startswith("TEST") and base not in text] == []


def test_the_documentation_has_every_fault_with_an_example_that_can_be_used() -> None:
    text = (Path(__file__).parents[3] / "docs" / "rehearse.md").read_text()
    rows = [row.split(" | ") for row in text.splitlines() if row.startswith("| `") and row.count(" | ") == 3]
    told = {row[0].strip("|* `"): row for row in rows if row[0].strip("|* `") in CATALOGUE}
    assert list(told) == list(CATALOGUE)
    letters = {
        "V": {"venue", "after_s", "for_s"},
        "R": {"venue", "after_s", "for_s", "probability", "count", "skip"},
        "F": set(LIMITS),
    }
    for name, (first, limits, example, _) in told.items():
        (fault,) = faults(example.strip("`"))
        assert fault.name == name
        assert (" *" in first) is CATALOGUE[name].lasting
        letter, *more = limits.split(", ")
        assert letters[letter] | set(more) == CATALOGUE[name].limits, name
        assert all(param in "".join(told[name]) for param in CATALOGUE[name].params if param != "kind"), name
    assert [kind for kind in KINDS if f"`{kind}`" not in text] == []


def test_the_list_of_faults_is_made_of_lines_that_can_be_used() -> None:
    result = CliRunner().invoke(exchange_server, ["--list-faults"])
    assert result.exit_code == 0
    lines = [line for line in result.output.splitlines() if line and not line.startswith(" ")]
    names = [line.partition(",")[0] for line in lines]
    assert names == list(CATALOGUE)
    for line in lines:
        assert faults(line + (",symbol=x" if line.startswith("refuse-symbol") else ""))


def test_a_wrong_fault_is_explained_before_anything_is_served(tmp_path: Path) -> None:
    listed = tmp_path / "faults"
    listed.write_text("cut\nloose,venue=okx\n")
    for given in ("loose,venue=okx", str(listed)):
        result = CliRunner().invoke(exchange_server, ["--faults", given])
        assert result.exit_code == 2 and "did you mean 'lose'?" in " ".join(result.output.split())
