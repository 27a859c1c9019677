"""Shell completion, asked as a shell asks: by its environment variables, word by word."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.cli import collector
from app.commands.completion import SHELLS
from app.drill.catalogue import ROWS
from app.exchanges import EXCHANGES
from tests.support.rig import CHECKOUT, Rig


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """Three markets, and a Redis that nobody can reach: completion asks nobody."""
    rig = Rig(tmp_path, "redis://127.0.0.1:1/0")
    rig.write({"binance": ["btcusdt", "ethusdt"], "okx": ["BTC-USDT"]})
    return rig


def completed(line: str, config: Path) -> list[str]:
    """What bash would offer for the last word of `line`."""
    words = line.split(" ")
    asked = {"_COLLECTOR_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    answer = CliRunner().invoke(collector, [], prog_name="collector", env={**asked, "CONFIG_PATH": str(config)})
    assert answer.exit_code == 0 and answer.stderr == "", answer.output
    return [row.partition(",")[2] for row in answer.stdout.splitlines() if row]


def test_commands_and_options_are_offered(rig: Rig) -> None:
    assert completed("collector ver", rig.path) == ["verify"]
    assert completed("collector markets ", rig.path) == ["add", "list", "remove"]
    assert "--deep" in completed("collector audit --", rig.path)
    assert completed("collector gaps --state un", rig.path) == ["unrepairable", "unknowable"]
    assert completed("collector completion ", rig.path) == list(SHELLS)


@pytest.mark.parametrize("command", ["verify", "audit", "gaps", "repair", "certificate"])
def test_markets_are_those_of_the_settings(rig: Rig, command: str) -> None:
    line = f"collector {command} --market"
    assert completed(f"{line} ", rig.path) == ["binance/btcusdt", "binance/ethusdt", "okx/BTC-USDT"]
    assert completed(f"{line} binance/e", rig.path) == ["binance/ethusdt"]


def test_without_settings_nothing_is_offered_and_nothing_is_said(tmp_path: Path) -> None:
    assert completed("collector verify --market ", tmp_path / "none.toml") == []


def test_exchanges_symbols_and_feeds_are_offered_where_they_are_due(rig: Rig) -> None:
    assert completed("collector markets add ", rig.path) == list(EXCHANGES)
    assert completed("collector markets remove okx ", rig.path) == ["BTC-USDT"]
    assert completed("collector markets remove bybit ", rig.path) == []
    assert completed("collector markets add okx X --feeds t", rig.path) == ["trades"]


def test_rows_of_the_drill_are_offered_behind_those_that_are_written(rig: Rig) -> None:
    drilled = [row.id for row in ROWS if row.drilled]
    assert completed("collector drill --only ", rig.path) == drilled
    reds = [row for row in drilled if row.startswith("R") and row != "R3"]
    assert completed("collector drill --only K1,R3,r", rig.path) == [f"K1,R3,{row}" for row in reds]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_each_shell_asks_for_this_command(shell: str) -> None:
    answer = CliRunner().invoke(collector, ["completion", shell])
    assert answer.exit_code == 0
    assert f"_COLLECTOR_COMPLETE={shell}_complete" in answer.stdout


@pytest.mark.exhaustive
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_real_shell_completes(rig: Rig, shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "collector").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m app "$@"\n')
    (bin_ / "collector").chmod(0o755)
    asks = {
        "bash": 'eval "$(collector completion bash)"; COMP_WORDS=(collector markets rem); COMP_CWORD=2;'
        ' _collector_completion collector; printf "%s\\n" "${COMPREPLY[@]}"',
        "zsh": 'autoload -U compinit; compinit -u; eval "$(collector completion zsh)"; whence -w _collector_completion',
        "fish": 'collector completion fish | source; complete -C "collector markets rem"',
    }
    environ = {**rig.environ, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(
        [shell, "-c", asks[shell]], cwd=CHECKOUT, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    expected = "function" if shell == "zsh" else "remove"
    assert expected in done.stdout, (done.stdout, done.stderr)
