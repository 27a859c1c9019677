"""dev.py: finds a Python, makes .venv once, and runs commands in it. All is played with scripts, offline."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
#: Pythons too old for Collector but not for dev.py, where pyenv has some.
OLD_PYTHONS = sorted(Path.home().glob(".pyenv/versions/3.[89].*/bin/python3"))

#: Plays .venv/bin/python: answers what set-up asks, and writes down every other call with its environment.
PLAYED = """#!/bin/sh
case "$*" in
  *version_info*) echo 3 12;;
  "-m pip --version") ;;
  *) printf '%s\\n' "$*" >> "$PLAY_LOG"; env > "$PLAY_LOG.env"
     case "$*" in *"$PLAY_FAIL"*) echo told why; exit "${PLAY_CODE:-1}";; esac;;
esac
"""


LINT = [
    "-m ruff check .",
    "-m mypy --strict app tasks",
    "-m bandit -q -c pyproject.toml -r app tasks celeryconfig.py dev.py",
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a played .venv that is ready to be used but was never marked."""
    root = tmp_path / "checkout"
    for folder in (".venv/bin", "benchmarks"):
        (root / folder).mkdir(parents=True)
    shutil.copy(ROOT / "dev.py", root)
    shutil.copy(ROOT / "Makefile", root)
    (root / "requirements.lock").write_text("one==1 \\\n    --hash=sha256:00\ntwo==2 \\\n    --hash=sha256:00\n")
    (root / "pyproject.toml").write_text("")
    for name in ("all", "flush"):
        (root / "benchmarks" / f"{name}.py").write_text("")
    for name in ("python", "collector"):
        played(root / ".venv" / "bin" / name)
    return root


def played(path: Path, script: str = PLAYED) -> Path:
    path.write_text(script)
    path.chmod(0o755)
    return path


def run(root: Path, *command: str, python: str = sys.executable, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `python dev.py command` with nothing on PATH but the system's own tools."""
    environ = {"PATH": "/usr/bin:/bin", "PLAY_LOG": str(root / "calls"), "PLAY_FAIL": "never", **environ}
    arguments = [python, str(root / "dev.py"), *command]
    return subprocess.run(arguments, env=environ, capture_output=True, text=True, timeout=60, check=False)


def calls(root: Path) -> list[str]:
    path = root / "calls"
    return path.read_text().splitlines() if path.exists() else []


def environment(root: Path) -> dict[str, str]:
    lines = (root / "calls.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.fixture
def dev(checkout: Path) -> ModuleType:
    """The module itself, for its pure parts."""
    spec = importlib.util.spec_from_file_location("dev", checkout / "dev.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def installs(root: Path) -> list[str]:
    pip = "-m pip install --quiet --disable-pip-version-check --no-input"
    return [
        f"{pip} --require-hashes -r {root}/requirements.lock",
        f"{pip} --no-deps --no-build-isolation --editable {root}",
    ]


def test_the_first_command_installs_with_hashes_and_the_second_starts_at_once(checkout: Path) -> None:
    first, second = run(checkout, "test", "-k", "words"), run(checkout, "test")
    assert (first.returncode, second.returncode) == (0, 0)
    tests = "-m pytest -ra -m not exhaustive -n 3 --dist loadscope --no-loadscope-reorder"
    assert calls(checkout) == [*installs(checkout), f"{tests} -k words", tests]
    assert "[3/4] installing 2 packages ..." in first.stderr.splitlines()
    assert (first.stdout, second.stderr) == ("", "")


@pytest.mark.parametrize("changed", ["requirements.lock", "pyproject.toml"])
def test_a_changed_lock_or_project_is_installed_anew(checkout: Path, changed: str) -> None:
    run(checkout, "setup")
    with (checkout / changed).open("a") as file:
        file.write("# changed\n")
    (checkout / "calls").unlink()
    run(checkout, "setup")
    assert calls(checkout) == installs(checkout)


def test_a_failed_install_shows_why_leaves_no_ready_mark_and_exits_2(checkout: Path) -> None:
    failed = run(checkout, "test", PLAY_FAIL="--require-hashes")
    assert failed.returncode == 2
    assert "told why" in failed.stderr and "installing 2 packages failed" in failed.stderr
    assert json.loads((checkout / ".venv" / "collector.json").read_text())["state"] == "installing"
    assert calls(checkout) == installs(checkout)[:1]


def test_an_interrupted_venv_is_made_anew(checkout: Path, dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    run(checkout, "setup", PLAY_FAIL="--editable")
    assert not dev.reusable()
    leftover = checkout / ".venv" / "leftover"
    leftover.touch()
    played(checkout / "base")
    monkeypatch.setattr(
        dev, "venv_command", lambda _: ["/bin/sh", "-c", f"mkdir {dev.VENV}/bin; cp {checkout}/base {dev.PYTHON}"]
    )
    monkeypatch.setenv("PLAY_LOG", str(checkout / "again"))
    monkeypatch.setenv("PLAY_FAIL", "never")
    dev.setup()
    assert (checkout / "again").read_text().splitlines() == installs(checkout)
    assert dev.ready() and not leftover.exists()


def test_a_venv_of_a_checkout_that_moved_is_not_trusted(checkout: Path, dev: ModuleType) -> None:
    assert dev.reusable()
    dev.mark("ready")
    assert dev.ready() and dev.reusable()
    text = dev.MARKER.read_text().replace(str(dev.VENV), "/elsewhere/.venv")
    dev.MARKER.write_text(text)
    assert not dev.ready() and not dev.reusable()
    dev.MARKER.write_text(text[:9])
    assert not dev.ready()


def test_tests_and_demo_do_not_see_the_settings_of_the_shell_but_run_does(checkout: Path) -> None:
    shell = {
        "COLLECTOR_REDIS__URL": "redis://prod", "AWS_SECRET_KEY": "x", "AWS_PROFILE": "prod", "APP": "other",
        "CONFIG_PATH": "/etc/c.toml", "https_proxy": "http://p", "NO_PROXY": "x", "METRICS_PORT": "1",
        "FEEDS": "trades", "DATABASE_PATH": "/srv/x.db", "WS_MAX_RETRY_DELAY_SECS": "1", "MERGE_ENABLED_FOR_DYNACONF": "true",
    }  # fmt: skip
    proxies = {"https_proxy": "http://p", "NO_PROXY": "x"}
    kept = {
        "COLLECTOR_TEST_REQUIRE": "redis",
        "COLLECTOR_TEST_SEED": "7",
        "COLLECTOR_FRAMES": "/frames",
        "HOME": "/home/x",
    }
    seen = {}
    for command in ("test", "demo", "drill", "soak", "live", "run"):
        run(checkout, command, **shell, **kept)
        seen[command] = {name: value for name, value in environment(checkout).items() if name in {**shell, **kept}}
        asked = environment(checkout).get("COLLECTOR_TEST_LIVE")
        assert asked == ("1" if command == "live" else None)
    tidy = dict.fromkeys(("test", "demo", "drill", "soak"), kept)
    assert seen == {**tidy, "live": {**kept, **proxies}, "run": {**shell, **kept}}


def test_exit_codes_and_arguments_go_through(checkout: Path) -> None:
    answer = run(checkout, "demo", "--duration", "60", PLAY_FAIL="demo", PLAY_CODE="7")
    assert (answer.returncode, calls(checkout)[-1]) == (7, "demo --duration 60")


def test_lint_runs_all_and_fails_when_one_does(checkout: Path) -> None:
    assert run(checkout, "lint", PLAY_FAIL="ruff").returncode == 1
    assert calls(checkout)[-3:] == LINT


@pytest.mark.parametrize(
    ("told", "code", "words"),
    [
        ({"name": "one", "version": "1", "vulns": []}, 0, "known holes: 0 in 1 packages"),
        ({"name": "one", "skip_reason": "not there"}, 0, "known holes: 0 in 0 packages; not seen: one"),
        (
            {"name": "one", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]},
            1,
            "one 1: CVE-1, mended in 2",
        ),
    ],
)
def test_check_fails_for_a_known_hole(checkout: Path, told: dict[str, object], code: int, words: str) -> None:
    checked(checkout, f"echo '{json.dumps({'dependencies': [told]})}'; exit {code}", code, words)


#: How pip_audit 2.10 ends behind a proxy that refuses, behind a wall, and before a service that answers 503.
UNREACHABLE = [
    "requests.exceptions.ProxyError: HTTPSConnectionPool(host=index.example, port=443): Max retries exceeded",
    "ERROR:pip_audit._cli:Could not connect\\nERROR:pip_audit._cli:Tip: your network may be blocking this service.",
    "Traceback (most recent call last):\\npip_audit._service.interface.ServiceError",
]
BROKEN = [
    "/checkout/.venv/bin/python: No module named pip_audit",
    "ERROR:pip_audit._cli:invalid requirements input: requirements.lock",
    "ERROR:pip_audit._cli:requirement one is not pinned: one",
    "requests.exceptions.ProxyError: x\\nDuring handling of the above exception\\nKeyError: requests.exceptions",
]


@pytest.mark.parametrize("said", UNREACHABLE)
def test_check_goes_on_and_says_so_where_nobody_can_be_asked_for_known_holes(checkout: Path, said: str) -> None:
    words = f"known holes: not looked for, the network or its service did not answer: {last(said)}"
    checked(checkout, f"printf '{said}' >&2; exit 1", 0, words)


@pytest.mark.parametrize("said", BROKEN)
def test_check_fails_where_known_holes_could_not_be_looked_for(checkout: Path, said: str) -> None:
    words = f"known holes: pip_audit could not look (exit code 3): {last(said)}"
    checked(checkout, f"printf '{said}' >&2; exit 3", 1, words)


def last(said: str) -> str:
    return said.split("\\n")[-1]


def checked(checkout: Path, answer: str, code: int, words: str) -> None:
    """`check` where pip_audit does as `answer`, a script, says: it ends with `code` and has `words`."""
    played(checkout / ".venv" / "bin" / "python", PLAYED.replace("*) printf", f"*pip_audit*) {answer};;\n  *) printf"))
    done = run(checkout, "check", "-k", "words")
    assert done.returncode == code and words in done.stderr
    tests = "-m pytest -ra -m not exhaustive -n 3 --dist loadscope --no-loadscope-reorder -k words"
    assert calls(checkout)[2:] == LINT + [tests] * (code == 0)


def test_benchmarks_are_run_all_or_by_name(checkout: Path) -> None:
    run(checkout, "bench")
    assert calls(checkout)[-1] == f"{checkout}/benchmarks/all.py"
    run(checkout, "bench", "flush", "--rows", "5")
    assert calls(checkout)[-1] == f"{checkout}/benchmarks/flush.py --rows 5"
    assert "there are: all, flush" in run(checkout, "bench", "flsh").stderr


def test_make_hands_its_variables_on(checkout: Path) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    environ = {"PATH": "/usr/bin:/bin", "PLAY_LOG": str(checkout / "calls"), "PLAY_FAIL": "never"}
    for words in (["demo", "DURATION=60", "PORT=9191"], ["drill", "ONLY=K1,R3"], ["soak", "MINUTES=2"],
                  ["live", "EXCHANGE=okx"], ["test", "ARGS=-k 'a or b'"]):  # fmt: skip
        command = [make, "-C", str(checkout), f"PYTHON={sys.executable}", *words]
        subprocess.run(command, env=environ, check=True, capture_output=True, timeout=60)
    assert calls(checkout)[2:] == [
        "demo --duration 60 --port 9191",
        "drill --only K1,R3",
        "soak --minutes 2",
        "-m pytest -ra -m live -k okx",
        "-m pytest -ra -m not exhaustive -n 3 --dist loadscope --no-loadscope-reorder -k a or b",
    ]


def test_make_says_so_where_python_is_missing(checkout: Path) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    command = [make, "-C", str(checkout), "PYTHON=no-such-python", "test"]
    answer = subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)
    assert "python3 is missing: install Python 3.11 to 3.14" in answer.stderr


def test_a_shim_that_runs_nothing_is_passed_over(
    dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys, "_base_executable", str(played(tmp_path / "running", "#!/bin/sh\necho 3 8\n")), raising=False
    )
    played(tmp_path / "python3.14", "#!/bin/sh\necho 'no such version' >&2; exit 127\n")
    thirteen = played(tmp_path / "python3.13", "#!/bin/sh\necho 3 13\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(dev.fit_pythons()) == [(str(thirteen), (3, 13))]


def test_without_the_venv_module_uv_or_virtualenv_make_it_and_else_one_command_is_told(
    dev: ModuleType, tmp_path: Path
) -> None:
    bare = str(played(tmp_path / "bare", "#!/bin/sh\nexit 1\n"))
    whole = str(played(tmp_path / "whole", "#!/bin/sh\nexit 0\n"))
    venv = str(dev.VENV)
    found = [(bare, (3, 12)), (whole, (3, 11))]
    assert dev.venv_command(found, which=lambda _: None) == [whole, "-m", "venv", venv]
    uv = ["uv", "venv", "--allow-existing", "--seed", "--python", bare, venv]
    assert dev.venv_command(found[:1], which=lambda name: name) == uv
    virtualenv = ["virtualenv", "--python", bare, venv]
    assert dev.venv_command(found[:1], which=lambda name: "v" if name == "virtualenv" else None) == virtualenv
    with pytest.raises(dev.Stop, match=f"{bare} has no venv module.*Install it with:"):
        dev.venv_command(found[:1], which=lambda _: None)
    with pytest.raises(dev.Stop, match=r"Python 3\.11 to 3\.14 is needed and none was found"):
        dev.venv_command([], which=lambda _: None)


@pytest.mark.parametrize(
    ("version", "system", "release", "root", "command"),
    [
        ((3, 12), "Linux", 'ID=debian\n', True, "apt-get install -y python3.12-venv"),
        (None, "Linux", 'ID=linuxmint\nID_LIKE="ubuntu debian"\n', False, "sudo apt-get install -y python3-venv"),
        (None, "Linux", 'ID="rocky"\nID_LIKE="rhel centos fedora"\n', False, "sudo dnf install -y python3.13"),
        (None, "Linux", "ID=alpine\n", True, "apk add python3 py3-pip"),
        (None, "Linux", "ID=arch\n", True, "pacman -S --needed python"),
        (None, "Darwin", "", False, "brew install python@3.13"),
        (None, "Linux", "ID=nixos\n", False, "uv python install 3.13"),
    ],
)  # fmt: skip
def test_every_system_gets_its_own_command(
    dev: ModuleType, version: tuple[int, int] | None, system: str, release: str, root: bool, command: str
) -> None:
    assert dev.install_command(version, system, release, root) == command


def test_an_unknown_command_is_told_the_known_ones(checkout: Path) -> None:
    answer = run(checkout, "tset")
    assert answer.returncode == 2 and answer.stderr.startswith("'tset' is no command\n\nusage: python3 dev.py COMMAND")
    assert calls(checkout) == []


@pytest.mark.skipif(not OLD_PYTHONS, reason="pyenv has no Python 3.8 or 3.9 here")
def test_an_old_python_can_say_what_is_missing(checkout: Path, tmp_path: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    tools = tmp_path / "tools"
    tools.mkdir()
    answer = run(checkout, "demo", python=str(OLD_PYTHONS[0]), PATH=str(tools))
    assert answer.returncode == 2
    assert answer.stderr.startswith("Python 3.11 to 3.14 is needed and none was found (this is Python 3.")
    assert not (checkout / ".venv").exists() and os.listdir(tools) == []
