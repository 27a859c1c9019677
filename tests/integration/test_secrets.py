"""Secrets never come out: a different one in every place that takes one, real processes on good and failing paths, and
then every output is searched: logs, files, pages, answers, objects, manifests, databases, Redis, the process list."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pyarrow.parquet
import pytest
import redis
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.sync.server import ServerConnection

from app.launch.redis_server import free_port
from app.settings_rules import SECRETS
from app.web.application import application
from tests.integration.test_commands import call
from tests.support import s3_servers
from tests.support.exchanges import ExchangeProcess
from tests.support.path import Scripted, until
from tests.support.redis_process import running
from tests.support.rig import CHECKOUT, Rig

PEM = ec.derive_private_key(7**80, ec.SECP256R1()).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
).decode()  # fmt: skip

#: Where a secret goes -> the secret. Those of the settings by the rule that calls them secret.
CANARIES = {
    **{rule: f"canary-{rule}-0123456789" for rule in SECRETS},
    "aws.access_key": s3_servers.ACCESS_KEY,
    "aws.secret_key": s3_servers.SECRET_KEY,
    "exchanges.api_key": "organizations/CANARYORG/apiKeys/CANARYNAME",
    "exchanges.api_secret": PEM,
    "password of Redis": "canary/redis pass+word%1",
    "wrong password of Redis": "canary/redis wr\u00f6ng",
    "wrong access key": "AKIACANARYWRONG",
    "wrong secret key": "canary/s3+wrong/0123456789",
    "password of a proxy": "canary@proxy",
    "password of Flower": "canary-flower",
    "cookie secret of Flower": "canary-cookie-0123456789",
}


def spellings(secret: str) -> set[bytes]:
    """As it is, line by line, in an address, in JSON, in Python, in base64."""
    plain = {secret, *(line for line in secret.splitlines() if not line.startswith("-----"))}
    forms = plain | {quote(text, safe=safe) for text in plain for safe in ("", "/")}
    forms |= {json.dumps(text)[1:-1] for text in plain} | {repr(text)[1:-1] for text in plain}
    return {form.encode() for form in forms} | {base64.b64encode(text.encode()) for text in plain}


def planted() -> dict[str, str]:
    """The environment that gives every setting that is a secret, those of Coinbase by their plain names."""
    named = {"exchanges.api_key": "COINBASE_API_KEY", "exchanges.api_secret": "COINBASE_API_SECRET"}
    return {
        named.get(rule) or f"COLLECTOR_{rule.replace('.', '__').upper()}": CANARIES[rule] for rule in sorted(SECRETS)
    }


class Installation:
    """Processes of one rig with all secrets, and what came out of them."""

    def __init__(self, root: Path, rig: Rig, environ: dict[str, str]) -> None:
        self.root, self.rig = root, rig
        self.processes: list[subprocess.Popen[bytes]] = []
        self.secrets, self.environ = environ, {**rig.environ, **environ}
        self.outputs: dict[str, bytes] = {}

    def start(self, name: str, *command: str, **environ: str) -> Path:
        """A process; returns the file of what it prints."""
        log = self.root / f"{name}.out"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *command], cwd=CHECKOUT, env={**self.environ, **environ},
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        return log

    def end(self) -> None:
        """All at once."""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def command_lines(self) -> Iterator[tuple[str, bytes]]:
        """Of these processes and their children: what everybody on the machine may read."""
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                session = (path / "stat").read_text().rpartition(")")[2].split()[3]
                if int(session) in {process.pid for process in self.processes}:
                    yield f"command line of {path.name}", (path / "cmdline").read_bytes()

    def call(self, name: str, *command: str, **environ: str) -> None:
        """A command of ours, in this process."""
        done = call(self.rig, *command, **{**self.secrets, **environ})
        self.outputs[name] = (done.stdout + done.stderr).encode()

    def get(self, url: str, **options: Any) -> int:
        answer = httpx.get(url, timeout=15, trust_env=False, **options)
        self.outputs[f"{url} ({answer.status_code})"] = str(answer.headers).encode() + answer.content
        return answer.status_code


@pytest.fixture(scope="module")
def proxy() -> Iterator[int]:
    """The port of a proxy that lets nobody through."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(4096)
                        connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=refuse, daemon=True).start()
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, proxy: int) -> Iterator[Installation]:
    """Everything has run and was gathered."""
    root = tmp_path_factory.mktemp("secrets")
    (root / "s3" / "market-data").mkdir(parents=True)

    def refuses(connection: ServerConnection, number: int) -> None:
        connection.send('{"type":"error","message":"authentication failure for BTC-USD"}')

    with ExitStack() as stack:
        exchanges = ExchangeProcess(root / "exchanges", rate=10)
        stack.callback(exchanges.stop)
        venue = stack.enter_context(Scripted(refuses))
        store = stack.enter_context(s3_servers.rclone(root / "s3"))
        server = stack.enter_context(running(root / "redis"))
        server.client().config_set("requirepass", CANARIES["password of Redis"])

        def url(word: str) -> str:
            return f"redis://:{quote(CANARIES[word], safe='')}@127.0.0.1:{server.port}/0"

        rig = Rig(root, server.url)
        rig.write(
            {"okx": ["BTC-USDT"], "bybit": ["BTCUSDT"], "coinbase": ["BTC-USD"]},
            {
                "okx": exchanges.venues["okx"],
                "bybit": {"proxy": f"http://user:{quote(CANARIES['password of a proxy'])}@127.0.0.1:{proxy}"},
                "coinbase": {**venue.venue, "source": "advanced"},
            },
            storage={"segment_secs": 5, "mode": "both"},
            aws={"bucket": "market-data", "region": "us-east-1", "endpoint_url": store.url},
        )
        web, flower = free_port(), free_port()
        site = Installation(root, rig, {
            "COLLECTOR_REDIS__URL": url("password of Redis"),
            **planted(),
            "FLOWER_BASIC_AUTH": f"admin:{CANARIES['password of Flower']}",
            "FLOWER_COOKIE_SECRET": CANARIES["cookie secret of Flower"], "COLLECTOR_LOG_LEVEL": "debug",
        })  # fmt: skip
        stack.callback(site.end)
        wrong = {"COLLECTOR_REDIS__URL": url("wrong password of Redis")}
        locked = {
            "COLLECTOR_AWS__ACCESS_KEY": CANARIES["wrong access key"],
            "COLLECTOR_AWS__SECRET_KEY": CANARIES["wrong secret key"],
        }
        site.start("worker", "celery", "-A", "app", "worker", "-B", "-s", str(root / "schedule"), "-n", "all@%h")
        site.start("web", "app", "web", "--port", str(web))
        site.start("flower", "celery", "-A", "app", "flower", "--address=127.0.0.1", f"--port={flower}")
        refused = site.start("refused", "celery", "-A", "app", "worker", "-n", "refused@%h", **wrong)
        exporter = site.start("exporter", "app", "exporter", "--addr", f"127.0.0.1:{free_port()}", **wrong)
        for name, words, environ in (
            ("check", "check --json", {}),
            ("check, wrong password", "check", wrong),
            ("check, wrong key", "check", locked),
            ("status, wrong password", "status", wrong),
            ("archive, wrong key", "archive", {**locked, "COLLECTOR_REDIS__PREFIX": "other"}),
            ("a setting misspelt", "check", {"COLLECTOR_AWS__SECRET_KEI": CANARIES["wrong secret key"]}),
        ):
            site.call(name, *words.split(), **environ)
        until(
            lambda: b"WRONGPASS" in refused.read_bytes() or b"invalid username-password" in refused.read_bytes(),
            "Redis refuses",
            30,
        )
        until(lambda: exporter.read_bytes(), "the exporter speaks", 30)
        until(
            lambda: [*(root / "s3").rglob("*.parquet")] and [*(root / "data" / "objects").rglob("*.parquet")],
            "objects",
            40,
        )
        pages(site, web, flower)
        site.call("status", "status", "--json")
        gather(site, redis.Redis.from_url(url("password of Redis")))
        yield site


def pages(site: Installation, web: int, flower: int) -> None:
    """Every page and answer without a parameter of the web process and of Flower."""
    until(lambda: answers(f"http://127.0.0.1:{web}/health"), "the web process answers", 20)
    for route in application(site.rig.wiring()).routes:
        path = getattr(route, "path", "")
        if "{" not in path and "stream" not in path:
            site.get(f"http://127.0.0.1:{web}{path}", headers={"Authorization": f"Bearer {CANARIES.get('web.token')}"})
    auth = ("admin", CANARIES["password of Flower"])
    until(lambda: answers(f"http://127.0.0.1:{flower}/healthcheck"), "Flower answers", 20)
    host = socket.gethostname()
    for path in ("workers", "worker/all@" + host, "tasks", "broker", "metrics"):
        site.get(f"http://127.0.0.1:{flower}/{path}", auth=auth)
    assert site.get(f"http://127.0.0.1:{flower}/workers") == 401


def answers(url: str) -> bool:
    try:
        return bool(httpx.get(url, timeout=5, trust_env=False).status_code)
    except httpx.HTTPError:
        return False


def gather(site: Installation, client: redis.Redis) -> None:
    """Files, objects, Redis, command lines."""
    sources = {site.rig.path}
    for path in site.root.rglob("*"):
        if path.is_file() and path not in sources:
            site.outputs[str(path.relative_to(site.root))] = path.read_bytes()
            if path.suffix == ".parquet":
                file = pyarrow.parquet.ParquetFile(path)
                text = f"{file.schema_arrow.metadata} {file.metadata} {file.read().to_pylist()}"
                site.outputs[f"{path.name}, read"] = text.encode()
    read: dict[bytes, Callable[[bytes], object]] = {
        b"string": client.get, b"list": lambda key: client.lrange(key, 0, -1), b"hash": client.hgetall,
        b"set": client.smembers, b"zset": lambda key: client.zrange(key, 0, -1),
    }  # fmt: skip
    for key in client.scan_iter(count=1000):
        with suppress(redis.ResponseError, KeyError):  # it may be gone, or another one, by now
            text = repr(read[client.type(key)](key))
            bodies = [base64.b64decode(body) for body in re.findall(r'"body": "([A-Za-z0-9+/=]+)"', text)]
            site.outputs[f"Redis {key!r}"] = b" ".join([text.encode(), *bodies])
    site.outputs.update(site.command_lines())


@pytest.mark.exhaustive
@pytest.mark.timeout(150)
def test_no_secret_comes_out_of_any_process(searched: Installation) -> None:
    found = [
        (name, where)
        for name, secret in CANARIES.items()
        for where, output in searched.outputs.items()
        if any(form in output for form in spellings(secret))
    ]
    assert found == []


@pytest.mark.exhaustive
def test_the_good_and_the_failing_paths_were_walked(searched: Installation) -> None:
    out = {name: output.decode(errors="replace") for name, output in searched.outputs.items()}
    assert '"event": "object.verified"' in out["worker.out"]
    assert "authentication failure" in out["worker.out"]
    assert "407" in out["worker.out"]
    assert "refuses the password" in out["check, wrong password"]
    assert re.search(r"fault: store: .*(403|Access|Signature|refused)", out["check, wrong key"])
    assert json.loads(out["check"].splitlines()[0])["settings"]["redis.url"]["value"].startswith(
        "redis://:********@127.0.0.1:"
    )
    names = set(out)
    assert [name for name in names if name.endswith("/workers (200)")]
    assert [name for name in names if name.endswith(".parquet, read")] and [n for n in names if n.endswith(".json")]
    assert [name for name in names if name.startswith("Redis") and "celery" in name]
    for process in ("all", "web", "flower", "exporter", "refused"):
        assert [name for name in names if name.startswith(f"logs/collector-{process}-")], process
