"""The application's parts for one test: settings in a private directory, a private Redis prefix, real everything."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.config import Settings, load
from app.launch.environment import clean
from app.wiring import Wiring

CHECKOUT = Path(__file__).resolve().parents[2]

MARKETS = {
    "binance": ["btcusdt", "ethusdt"],
    "coinbase": ["BTC-USD", "ETH-USD"],
    "upbit": ["KRW-BTC", "KRW-ETH"],
    "okx": ["BTC-USDT", "ETH-USDT"],
    "bybit": ["BTCUSDT", "ETHUSDT"],
}


class Rig:
    """`write` makes the settings file, `wiring` the parts, `collector` runs the command, `environ` is for processes."""

    def __init__(self, directory: Path, redis_url: str) -> None:
        self.directory = directory
        self.redis_url = redis_url
        self.prefix = f"test-{uuid.uuid4().hex[:12]}"
        self.path = directory / "settings.toml"
        self.write()

    def write(
        self,
        markets: Mapping[str, list[str]] = MARKETS,
        venues: Mapping[str, Mapping[str, str]] | None = None,
        **sections: Mapping[str, Any],
    ) -> Settings:
        """Write settings.toml: `venues` as the exchange server tells its URLs, `sections` as tables. Returns them read."""
        tables: dict[str, dict[str, Any]] = {
            "collector": {
                "feeds": ["orderbook", "trades"], "batch_interval_secs": 1, "log_dir": str(self.directory / "logs"),
            },
            "database": {"path": str(self.directory / "data" / "collector.db")},
            "redis": {"url": self.redis_url, "prefix": self.prefix, "timeout_secs": 1},
            "storage": {"segment_secs": 3600},
        }  # fmt: skip
        for name, values in sections.items():
            tables.setdefault(name, {}).update(values)
        lines = []
        for name, values in tables.items():
            lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
        for name, urls in (venues or {}).items():
            lines += ["", f"[exchanges.{name}]", *(f"{key} = {_toml(value)}" for key, value in urls.items())]
        for name, symbols in markets.items():
            lines += ["", "[[markets]]", f'exchange = "{name}"', f"symbols = {_toml(symbols)}"]
        self.path.write_text("\n".join(lines) + "\n")
        return self.settings

    @property
    def settings(self) -> Settings:
        return load(self.path, {}).settings

    def wiring(self, *, step: Callable[[str], None] = lambda name: None, **changes: Any) -> Wiring:
        """Fresh wiring, as a new process would have it; `changes` replace whole sections of the settings."""
        return Wiring(replace(self.settings, **changes), step=step)

    @property
    def environ(self) -> dict[str, str]:
        return {**clean(os.environ), "CONFIG_PATH": str(self.path)}

    def collector(self, *arguments: str, timeout_s: float = 60, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run `collector ARGUMENTS` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "app", *arguments], cwd=CHECKOUT, env={**self.environ, **environ},
            capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return str(value) if isinstance(value, int | float) else '"' + str(value).replace("\\", "\\\\") + '"'
