"""The locks of flush and archive: one run at a time, and none that waits for itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import BufferUnavailable
from app.pipeline import periodic
from app.wiring import Wiring
from tests.support.path import NEVER, until
from tests.support.redis_process import RedisProcess
from tests.support.rig import Rig


def _killed(server: RedisProcess) -> None:
    """Killed with its memory on disk: a server that has just started takes a moment to open its file."""
    assert server.client().execute_command("WAITAOF", 1, 0, 10_000)[0] == 1
    server.kill()


def _flushes(wiring: Wiring) -> bool:
    try:
        return "skipped" not in periodic.flush(wiring, NEVER)
    except BufferUnavailable:
        return False


def test_a_run_from_which_redis_was_taken_does_not_wait_for_its_own_lock(
    own_redis: RedisProcess, tmp_path: Path
) -> None:
    wiring = Rig(tmp_path, own_redis.url).wiring()

    def dies(name: str) -> None:
        if name == "segment.before_create":
            _killed(own_redis)

    with pytest.raises(BufferUnavailable):
        periodic.flush(Wiring(wiring.settings, step=dies), NEVER)
    own_redis.start()
    assert "skipped" in periodic.flush(wiring, NEVER), "Redis has kept the lock, and another process waits for it"


def test_the_process_of_that_run_takes_its_lock_again_at_once(own_redis: RedisProcess, tmp_path: Path) -> None:
    steps: list[str] = []

    def dies(name: str) -> None:
        steps.append(name)
        if steps.count("segment.before_create") == 1 and name == "segment.before_create":
            _killed(own_redis)

    wiring = Wiring(Rig(tmp_path, own_redis.url).settings, step=dies)
    with pytest.raises(BufferUnavailable):
        periodic.flush(wiring, NEVER)
    own_redis.start()
    until(lambda: _flushes(wiring), "the next run flushes", 10)
