"""`celery -A app flower`, as an operator starts it: a real Flower, who it lets in, and when it refuses to start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tornado.web import create_signed_value

from app.launch.redis_server import free_port
from tests.support.path import until
from tests.support.redis_process import RedisProcess
from tests.support.rig import CHECKOUT, Rig

PASSWORD = "canary-flower-pa55"
ME = ("me", PASSWORD)


class Flower:
    """One started Flower; `log` is all it wrote."""

    def __init__(self, rig: Rig, *options: str, **environ: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = rig.directory / f"flower-{self.port}.log"
        command = [sys.executable, "-m", "celery", "-A", "app", "flower", f"--port={self.port}", *options]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=CHECKOUT, env={**rig.environ, **environ}, stdin=subprocess.DEVNULL, stdout=output,
                stderr=output,
            )  # fmt: skip

    def get(self, path: str = "/", **options: object) -> httpx.Response:
        return httpx.get(self.url + path, trust_env=False, **options)  # type: ignore[arg-type]

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return bool(self.get("/healthcheck").status_code)
        except httpx.TransportError:
            return False

    def refused(self) -> str:
        """Why it did not start."""
        assert self.process.wait(150) == 2, self.log.read_text()
        (line,) = [line for line in self.log.read_text().splitlines() if line.startswith("error: ")]
        return line


@contextmanager
def flower(rig: Rig, *options: str, **environ: str) -> Iterator[Flower]:
    """A Flower that answers, until the block is left."""
    started = Flower(rig, *options, **environ)
    try:
        until(started.answers, "Flower answers", 150)
        yield started
    finally:
        started.process.terminate()
        started.process.wait(60)


@pytest.fixture(scope="module")
def guarded(redis_server: RedisProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Flower, Flower]]:
    """One that wants a password, its password in a file; beside it one that should not have been started."""
    rig = Rig(tmp_path_factory.mktemp("flower"), redis_server.url)
    secret = rig.directory / "password"
    secret.write_text(f"me:{PASSWORD}\n")
    open_to_all = Flower(rig, "--address=0.0.0.0")
    with flower(rig, FLOWER_BASIC_AUTH_FILE=str(secret)) as started:
        yield started, open_to_all


def test_nobody_comes_in_without_the_password(guarded: tuple[Flower, Flower]) -> None:
    started, _ = guarded
    pages = {path: [started.get(path, auth=who).status_code for who in (None, ("me", "wrong"), ("", ""), ME)]
             for path in ("/", "/tasks", "/broker", "/api/workers", "/api/tasks")}  # fmt: skip
    assert pages == {path: [401, 401, 401, 200] for path in pages}


@pytest.mark.parametrize(
    "path",
    [
        "/api/task/async-apply/flush.run", "/api/task/send-task/flush.run", "/api/task/apply/flush.run",
        "/api/task/revoke/1", "/api/worker/shutdown/w", "/api/worker/pool/restart/w", "/api/worker/queue/add-consumer/w",
    ],
)  # fmt: skip
def test_with_the_password_it_changes_nothing_either(guarded: tuple[Flower, Flower], path: str) -> None:
    answered = httpx.post(guarded[0].url + path, auth=ME, json={"args": []}, trust_env=False)
    assert answered.status_code == 403, answered.text
    assert "read" in answered.text.lower()


def test_it_listens_on_this_machine_alone_and_tells_the_password_to_nobody(guarded: tuple[Flower, Flower]) -> None:
    started, _ = guarded
    process = Path(f"/proc/{started.process.pid}")
    if (process / "net" / "tcp").exists():
        listening = [line.split()[1] for line in (process / "net" / "tcp").read_text().splitlines()[1:]]
        assert f"0100007F:{started.port:04X}" in listening and f"00000000:{started.port:04X}" not in listening
        assert PASSWORD not in (process / "cmdline").read_text() + (process / "environ").read_text()
    assert PASSWORD not in started.log.read_text()
    pages = started.get("/", auth=ME).text + started.get("/metrics").text
    assert PASSWORD not in pages


def test_open_to_everybody_it_does_not_start(guarded: tuple[Flower, Flower]) -> None:
    why = guarded[1].refused()
    assert why.startswith("error: Flower would let everybody in who reaches 0.0.0.0: set FLOWER_BASIC_AUTH=")


@pytest.mark.exhaustive
def test_what_would_open_it_is_refused_by_name(rig: Rig) -> None:
    refused = {
        "neither of them empty": Flower(rig, "--address=0.0.0.0", FLOWER_BASIC_AUTH=""),
        "must be user:password": Flower(rig, FLOWER_BASIC_AUTH="me"),
        "FLOWER_UNAUTHENTICATED_API opens": Flower(rig, FLOWER_UNAUTHENTICATED_API="true"),
        "no-such-file: No such file": Flower(rig, FLOWER_BASIC_AUTH_FILE=str(rig.directory / "no-such-file")),
    }
    for words, started in refused.items():
        assert words in started.refused()


@pytest.mark.exhaustive
def test_who_has_logged_in_stays_so_over_a_restart(rig: Rig) -> None:
    login = {
        "FLOWER_AUTH": "me@example.com", "FLOWER_AUTH_PROVIDER": "flower.views.auth.GithubLoginHandler",
        "FLOWER_OAUTH2_KEY": "k", "FLOWER_OAUTH2_SECRET": "s", "FLOWER_OAUTH2_REDIRECT_URI": "http://127.0.0.1/login",
    }  # fmt: skip
    secret = rig.settings.database.path.parent / "flower-cookie-secret"
    cookies: dict[str, str] = {}
    for _ in range(2):
        with flower(rig, **login) as started:
            assert started.get().status_code == 302
            cookies = cookies or {"user": create_signed_value(secret.read_text(), "user", "me@example.com").decode()}
            assert started.get(cookies=cookies).status_code == 200
            forged = {"user": create_signed_value("guessed", "user", "me@example.com").decode()}
            assert started.get(cookies=forged).status_code == 302
    assert secret.stat().st_mode & 0o777 == 0o600
    with flower(rig, **login, FLOWER_COOKIE_SECRET="another") as started:
        assert started.get(cookies=cookies).status_code == 302
