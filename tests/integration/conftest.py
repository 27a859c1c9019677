"""Tests marked `containers` need a Docker engine; without one they are skipped before any of their fixtures is made.

COLLECTOR_TEST_REQUIRE=docker makes them fail instead.
"""

from __future__ import annotations

import os
from functools import cache

import pytest


@cache
def engine() -> bool:
    """Whether a Docker engine answers."""
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=5)
    except DockerException:
        return False
    try:
        return bool(client.ping())
    except DockerException:
        return False
    finally:
        client.close()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs an engine where there is none."""
    if item.get_closest_marker("containers") is None or engine():
        return
    if "docker" in os.environ.get("COLLECTOR_TEST_REQUIRE", "").split(","):
        pytest.fail("no Docker engine")
    pytest.skip("no Docker engine")
