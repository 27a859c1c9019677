"""docs/security.md answers every row, each test it names is there, and what is said there of code as a whole is so."""

from __future__ import annotations

import ast
import re
import ssl
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.connection import tls
from app.errors import InvalidSymbol
from app.exchanges import EXCHANGES, SOURCES
from app.objects import layout
from app.objects.local import LocalStore
from app.pipeline.plan import slots
from app.settings_rules import is_name

ROOT = Path(__file__).parents[2]
ROWS = [
    "Secrets", "Celery", "Flower", "Redis", "S3", "SSRF", "Path and key injection", "Parsing", "SQL", "Web UI", "Metrics",
    "TLS to venues", "Container", "Supply chain", "Multi-tenant", "Deletion",
]  # fmt: skip


@cache
def table() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Area -> its answer, and what holds it."""
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| ([^|`]+?) \| (.+?) \| (`(?:tests|docker).+?) \|$", text)
    return {area: (answer, tuple(re.findall(r"`([^`]+)`", held))) for area, answer, held in rows}


def test_every_row_is_answered() -> None:
    assert list(table()) == ROWS
    assert [area for area, (answer, _) in table().items() if len(answer) < 9] == []


@pytest.mark.parametrize("area", ROWS)
def test_every_test_that_is_named_is_there(area: str) -> None:
    for named in table()[area][1]:
        file, _, name = named.partition("::")
        assert (ROOT / file).is_file(), file
        if name:
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, named


def sources() -> list[Path]:
    return [*(ROOT / "app").rglob("*.py"), *(ROOT / "tasks").rglob("*.py"), ROOT / "celeryconfig.py"]


def test_nothing_evaluates_or_unpickles_what_it_is_given() -> None:
    called, imported = set(), set()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                called.add((node.func.id, path.name))
            elif isinstance(node, ast.Import):
                imported |= {(alias.name.partition(".")[0], path.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(((node.module or "").partition(".")[0], path.name))
    assert {one for one in called if one[0] in ("eval", "exec", "compile", "__import__")} == set()
    unsafe = {"pickle", "marshal", "shelve", "dill", "yaml", "ast", "xml", "jsonpickle"}
    assert {one for one in imported if one[0] in unsafe} == {("shelve", "schedule.py")}


def test_connections_are_verified_and_of_tls_1_2_at_least() -> None:
    context = tls.context()
    assert context.check_hostname and context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    switched_off = re.compile(
        r"CERT_NONE|_create_unverified|verify\s*=\s*False|check_hostname\s*=\s*False|sslopt=\{\"cert"
    )
    assert [path.name for path in sources() if switched_off.search(path.read_text(encoding="utf-8"))] == []
    made = re.compile(r"create_default_context|SSLContext\(")
    assert [path.name for path in sources() if made.search(path.read_text(encoding="utf-8"))] == ["tls.py"]


HOSTILE = (
    "../../etc/passwd", "..", ".", "a/b", "a\\b", "a%2eb", "%2e%2e", "btc\0usdt", "btc\nusdt", "ＢＴＣ-USDT", "BTC−USDT",
    "-rf", "btcusdt{x=\"1\"}", 'btc"usdt', "CON", "x" * 65, "BTC-USDT:spot", "btcusdt@trade", "btc usdt", "", "btc.usdt..",
)  # fmt: skip


@pytest.mark.parametrize("venue", sorted({**EXCHANGES, **{"-".join(key): one for key, one in SOURCES.items()}}))
@settings(max_examples=40)
@given(text=st.one_of(st.sampled_from(HOSTILE), st.text(max_size=70), st.text("./\\%-_:ABCabc019{}\"'\n", max_size=20)))
def test_no_symbol_that_an_exchange_takes_leaves_a_path_a_key_or_a_label(venue: str, text: str) -> None:
    exchange = {**EXCHANGES, **{"-".join(key): one for key, one in SOURCES.items()}}[venue]
    try:
        symbol = exchange.canonical(text)
    except InvalidSymbol:
        return
    if not is_name(symbol):  # refused as the settings are read
        return
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", symbol)
    key = layout.object_key(exchange.name, symbol, "trade", 1_790_000_000_000_000)
    assert layout.parse_key(key).symbol == symbol
    root = Path("/srv/objects")
    assert (root / key).resolve().is_relative_to(root / exchange.name / symbol)
    (names,) = slots([symbol], 1, 9).values()
    assert names == (symbol,)


def test_the_stores_refuse_a_key_that_leaves_them(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    store = LocalStore(tmp_path / "store")
    store.prepare()
    for key in ("../file", "/etc/passwd", "a/../../file", "binance/btcusdt/trade/../../../x.parquet", "a\0b"):
        with pytest.raises((ValueError, OSError)):
            store.put(key, file, "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881")
