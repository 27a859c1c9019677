"""Fixtures that several kinds of tests share: a real Redis, settings of a private directory, the built-in exchanges.

The Redis of the session has a port of its own, chosen before anything imports the application, and each test a prefix of
its own in it. A missing binary skips, or fails where COLLECTOR_TEST_REQUIRE names `redis`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.launch.environment import clean
from tests.support import browser as browsers
from tests.support import exchanges, redis_process
from tests.support.rig import Rig

for name in set(os.environ) - set(clean(os.environ)):
    if not name.startswith("COLLECTOR_TEST_") and name != "COLLECTOR_FRAMES":
        del os.environ[name]
#: An import of celeryconfig anywhere in the suite finds no broker, and settings of the checkout.
os.environ["COLLECTOR_REDIS__URL"] = f"redis://127.0.0.1:{redis_process.PORT}/0"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that talk to the real exchanges run only when asked for by name."""
    if "live" not in config.getoption("markexpr"):
        for item in items:
            if "live" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="talks to the real exchanges: make live"))


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis_process.RedisProcess]:
    """A Redis for the whole session. Tests that stop or freeze a Redis use `own_redis`."""
    with redis_process.running(tmp_path_factory.mktemp("redis"), redis_process.PORT) as server:
        yield server


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[redis_process.RedisProcess]:
    """A Redis for one test, which may freeze, stop and start it."""
    with redis_process.running(tmp_path / "own-redis") as server:
        yield server


@pytest.fixture
def rig(redis_server: redis_process.RedisProcess, tmp_path: Path) -> Rig:
    """Settings, wiring and directories of one test on the session's Redis, under a prefix of its own."""
    return Rig(tmp_path, redis_server.url)


@pytest.fixture
def exchange_server(tmp_path: Path) -> Iterator[Callable[..., exchanges.ExchangeProcess]]:
    """Starts built-in exchanges: `exchange_server(rate=20, seed=1)`; all are stopped after the test."""
    started: list[exchanges.ExchangeProcess] = []

    def start(**options: Any) -> exchanges.ExchangeProcess:
        started.append(exchanges.ExchangeProcess(tmp_path / f"exchanges-{len(started)}", **options))
        return started[-1]

    yield start
    for process in started:
        process.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium; a test opens windows of its own in it (tests/support/browser.py)."""
    with browsers.chromium() as opened:
        yield opened


@pytest.fixture(scope="session")
def frames() -> Path:
    """The directory of captured frames; skips where there is none."""
    path = Path(os.environ.get("COLLECTOR_FRAMES") or Path(__file__).parents[2] / "shared" / "frames")
    if not path.is_dir():
        pytest.skip(f"no captured frames at {path} (COLLECTOR_FRAMES)")
    return path
