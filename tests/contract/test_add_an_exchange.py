"""The exchange that docs/add-an-exchange.md shows keeps the promises it explains."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from app.errors import FrameRejected
from app.exchanges.base import Ack, Decoded, Exchange, Rejected, Subscription
from app.model import ORDERBOOK, TRADE

ROOT = Path(__file__).parents[2]
BOTH = Subscription(("BTC-USD",), (ORDERBOOK, TRADE), "book", "trades")


@pytest.fixture(scope="module")
def source() -> str:
    (found,) = re.findall(r'```python\n("""Acme.*?)```', (ROOT / "docs" / "add-an-exchange.md").read_text(), re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def acme(source: str) -> Exchange:
    module = ModuleType("acme")
    sys.modules["acme"] = module  # msgspec looks up the annotations of a Struct by its module's name
    exec(compile(source, "docs/add-an-exchange.md", "exec"), module.__dict__)
    exchange = module.__dict__["Acme"]()
    assert isinstance(exchange, Exchange)
    return exchange


def test_the_frames_in_its_docstrings_decode(acme: Exchange, source: str) -> None:
    frames = re.findall(r'"""`(\{.*\})`"""', source)
    decoder = acme.decoder(BOTH)
    assert [decoder.decode(frame) for frame in frames] == [
        (Decoded("BTC-USD", ORDERBOOK, "7", 1790000000123000, frames[0]),),
        (Decoded("BTC-USD", TRADE, "42", 1790000000123000, frames[1], 41, 42, True),),
        (Ack("n-0"),),
        (Rejected("n-0", "unknown market FOO-USD"),),
    ]


@pytest.mark.parametrize(
    "frame", ["", "[]", '{"ch":"trades","m":"ETH-USD","id":1,"ts":1}', '{"ch":"trades","m":"BTC-USD"']
)
def test_it_rejects_what_it_was_not_asked_for_and_what_is_no_frame(acme: Exchange, frame: str) -> None:
    with pytest.raises(FrameRejected):
        acme.decoder(BOTH).decode(frame)


def test_it_asks_for_every_feed_once(acme: Exchange) -> None:
    assert [request.feeds for request in acme.subscribe(BOTH, "n")] == [(("BTC-USD", ORDERBOOK), ("BTC-USD", TRADE))]


def test_its_source_passes_the_linter(source: str, tmp_path: Path) -> None:
    (tmp_path / "acme.py").write_text(source)
    pytest.importorskip("ruff")
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--line-length", "120", str(tmp_path / "acme.py")]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip() == "All checks passed!"
