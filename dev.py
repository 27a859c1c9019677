#!/usr/bin/env python3
"""Sets Collector up and runs it: python3 dev.py COMMAND [arguments]; `python3 dev.py help` lists the commands.

Every command first makes `.venv` ready: with the packages of requirements.lock, each checked by its hash. That needs
the network once; when nothing has changed, the next call starts at once and without it. No root, no Docker.
Only the standard library is used, and only what Python 3.8 knows, so that an old Python can still say what is missing.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements.lock"
#: Says what .venv holds, and is written last. State `installing`: it was interrupted, and is made anew.
MARKER = VENV / "collector.json"
LOG = VENV / "setup.log"

FIT = [(3, 14), (3, 13), (3, 12), (3, 11)]

#: What must not leak from a person's shell into a demo, a drill or a test. `run` keeps everything.
LEAKS = re.compile(
    r"COLLECTOR_.*|AWS_.*|DYNACONF_.*|.*_FOR_DYNACONF|CELERY_.*|FLOWER_.*|APP|CONFIG_PATH"
    r"|BATCH_INTERVAL|ARCHIVE_INTERVAL_SECS|WS_.*_SECS|BUCKET_NAME|METRICS_PORT|FEEDS|HOME_SERVER_NAME"
    r"|LOG_RETENTION_DAYS|DATABASE_PATH|ARCHIVE_DIR"
)
#: Nor these, except into `live`, which may need them to reach the exchanges.
PROXIES = re.compile(r"(?i:.*_proxy)")
KEPT = {"COLLECTOR_TEST_REQUIRE", "COLLECTOR_TEST_SEED", "COLLECTOR_FRAMES"}

PARALLEL = ["-n", "3", "--dist", "loadscope", "--no-loadscope-reorder"]

#: How pip_audit's last line begins where the network or the service is to blame: its own advice, or an exception.
UNASKED = re.compile(
    r"ERROR:pip_audit\S*Tip: your network may be blocking"
    r"|requests\.exceptions\.\w+|pip_audit\._service\.interface\.(ConnectionError|ServiceError)"
)

COMMANDS = [
    "setup",
    "demo",
    "drill",
    "soak",
    "run",
    "live",
    "test",
    "test-exhaustive",
    "bench",
    "lint",
    "check",
    "lock",
]

USAGE = """usage: python3 dev.py COMMAND [arguments]

  setup   make .venv ready (every other command does so first)
  demo    record built-in exchanges for a while and prove the record complete: demo --duration 60
  drill   let every fault happen for real, and see each promise kept: drill --only K1,R3
  soak    the same under load, by chance: soak --minutes 10
  run     run everything in one go with settings.toml
  live    test against the real exchanges: live --exchange binance
  test    run the tests: test -k words
  test-exhaustive
          run those that take their time: a kill at every step, long loads
  bench   run every benchmark, or one: bench ingest
  lint    ruff, mypy and bandit
  check   lint, the packages of requirements.lock against what is known of them, and the tests
  lock    resolve pyproject.toml into requirements.lock anew"""


class Stop(Exception):
    """Ends the program with a message for the person, and exit code 2."""


def say(text, end="\n"):
    sys.stderr.write(text + end)
    sys.stderr.flush()


def version_of(python):
    """(major, minor) that `python` really runs, None where it does not: a shim on PATH may name nothing."""
    command = [str(python), "-c", "import sys; print(*sys.version_info[:2])"]
    try:
        answer = subprocess.check_output(command, stderr=subprocess.DEVNULL, timeout=30)
        return tuple(int(part) for part in answer.split())
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def runs(*command):
    """Whether `command` ends well; what it says is not shown."""
    return subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0


def fit_pythons():
    """(path, version) of every Python that can run Collector: the running one, then those on PATH, newest first."""
    running = getattr(sys, "_base_executable", None) or sys.executable  # not .venv's own, which may be made anew
    names = [running] + [f"python{major}.{minor}" for major, minor in FIT] + ["python3", "python"]
    seen = set()
    for name in names:
        path = shutil.which(name) if name else None
        if path and path not in seen and not path.startswith(str(VENV)):
            seen.add(path)
            version = version_of(path)
            if version in FIT:
                yield path, version


def venv_command(pythons, which=shutil.which):
    """The command that makes .venv. Raises: Stop with the one command that brings what is missing."""
    for path, _ in pythons:
        if runs(path, "-c", "import venv, ensurepip"):
            return [path, "-m", "venv", str(VENV)]
    wanted = pythons[0][0] if pythons else ">=3.11,<3.15"  # uv can bring a Python of its own
    if which("uv"):
        return ["uv", "venv", "--allow-existing", "--seed", "--python", wanted, str(VENV)]
    if which("virtualenv") and pythons:
        return ["virtualenv", "--python", wanted, str(VENV)]
    missing = f"{wanted} has no venv module" if pythons else "Python 3.11 to 3.14 is needed and none was found"
    command = install_command(pythons[0][1] if pythons else None)
    raise Stop(f"{missing} (this is Python {platform.python_version()}). Install it with:\n\n    {command}\n")


def install_command(version, system=None, release=None, root=None):
    """The one command for this system. `version`: of a Python that only lacks venv, None where there is no Python."""
    system = system or platform.system()
    major, minor = version or (3, 13)
    wanted = f"{major}.{minor}"
    if system == "Darwin":
        return "brew install python@" + wanted
    if release is None:
        paths = [p for p in ("/etc/os-release", "/usr/lib/os-release") if os.path.exists(p)]
        release = Path(paths[0]).read_text(encoding="utf-8") if paths else ""
    kinds = set(re.findall(r"[a-z]+", " ".join(re.findall(r"(?m)^ID(?:_LIKE)?=(.*)$", release))))
    sudo = "" if (os.geteuid() == 0 if root is None else root) else "sudo "
    if kinds & {"debian", "ubuntu"}:
        return sudo + f"apt-get install -y python{wanted if version else 3}-venv"
    if kinds & {"fedora", "rhel", "centos"}:
        return sudo + "dnf install -y python" + wanted
    if "suse" in kinds or "opensuse" in kinds:
        return sudo + "zypper install -y python" + wanted.replace(".", "")
    if "alpine" in kinds:
        return sudo + "apk add python3 py3-pip"
    if "arch" in kinds:
        return sudo + "pacman -S --needed python"
    return "uv python install " + wanted


def inputs():
    """What .venv is made from: when any of it changes, it is no longer ready."""
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (LOCK, ROOT / "pyproject.toml")}
    version = version_of(PYTHON)
    return dict(sums, path=str(VENV), python=".".join(map(str, version)) if version else None)


def marked():
    """The marker's content; {} where there is none or it is torn."""
    try:
        content = json.loads(MARKER.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    except (OSError, ValueError):
        return {}


def mark(state):
    temporary = MARKER.with_suffix(".new")
    temporary.write_text(json.dumps(dict(inputs(), state=state)), encoding="utf-8")
    os.replace(temporary, MARKER)


def ready():
    wanted = dict(inputs(), state="ready")
    return wanted["python"] is not None and marked() == wanted


def reusable():
    """Whether packages may be installed into the .venv that is there; else it is made anew."""
    there = marked()
    if there and (there.get("state") != "ready" or there.get("path") != str(VENV)):
        return False  # interrupted half-way, or its scripts point to where the checkout was before
    return version_of(PYTHON) in FIT and runs(str(PYTHON), "-m", "pip", "--version")


def step(number, text, command):
    """Run one step, showing its seconds; its output goes to the log. Raises: Stop with the log's last lines."""
    started, tty = time.monotonic(), sys.stderr.isatty()
    line = f"[{number}/4] {text} ..."
    say(line, "" if tty else "\n")
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            while child.poll() is None:
                try:
                    child.wait(1)
                except subprocess.TimeoutExpired:
                    if tty:
                        say(f"\r{line} {time.monotonic() - started:.0f} s", "")
        finally:  # Ctrl-C reaches the child too; wait, or it writes into the .venv of the next set-up
            child.wait()
        output.seek(0)
        told = output.read().decode("utf-8", "replace")
    shown = f"\r{line}" if tty else f"[{number}/4] {text}: done in"
    say(f"{shown} {time.monotonic() - started:.0f} s" if child.returncode == 0 else "")
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n{told}\n")
    if child.returncode:
        last = "\n".join(told.splitlines()[-20:])
        raise Stop(f"{last}\n\n{text} failed, the lines above say why. Mend it and run the same command again.")


def install(number, text, arguments):
    """`pip install` with uv where it is on PATH, else (or where uv fails) with pip."""
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    if shutil.which("uv"):
        try:
            uv = ["uv", "pip", "install", "--quiet", "--python", str(PYTHON)]
            return step(number, f"{text} with uv", uv + arguments)
        except Stop as stop:  # uv does not read pip's configuration: mirrors, certificates
            say(f"{stop}\nnow with pip")
    return step(number, text, pip + arguments)


def setup():
    """Make .venv ready. Safe to interrupt and to run twice at once."""
    with open(__file__) as own:
        try:
            import fcntl

            fcntl.flock(own, fcntl.LOCK_EX)  # a second set-up waits for the first
        except ImportError:
            raise Stop("Collector needs Linux or macOS; on Windows run it inside WSL.") from None
        if ready():
            return
        if reusable():
            say("[1/4] .venv is there\n[2/4] and gets what is missing")
            mark("installing")
        else:
            command = venv_command(list(fit_pythons()))
            say(f"[1/4] {' '.join(command[:-1])}")
            shutil.rmtree(VENV, ignore_errors=True)
            VENV.mkdir()
            mark("installing")
            step(2, "making .venv", command)
        count = len(re.findall(r"(?m)^[\w.-]+==", LOCK.read_text(encoding="utf-8")))
        install(3, f"installing {count} packages", ["--require-hashes", "-r", str(LOCK)])
        install(4, "installing collector", ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)])
        mark("ready")


def clean(environ, proxies=False):
    """`environ` without what would make a demo or a test depend on whose shell it runs in."""
    kept = {name: value for name, value in environ.items() if name in KEPT or not LEAKS.fullmatch(name)}
    return kept if proxies else {name: value for name, value in kept.items() if not PROXIES.fullmatch(name)}


def become(command, environ):
    """Replace this process, so that signals and the exit code are the command's own."""
    sys.stdout.flush()
    os.chdir(ROOT)
    os.execve(command[0], command, environ)


def lint(environ):
    ruff = [str(PYTHON), "-m", "ruff", "check", "."]
    mypy = [str(PYTHON), "-m", "mypy", "--strict", "app", "tasks"]
    bandit = [
        str(PYTHON),
        "-m",
        "bandit",
        "-q",
        "-c",
        "pyproject.toml",
        "-r",
        "app",
        "tasks",
        "celeryconfig.py",
        "dev.py",
    ]
    # All speak, also where the first finds something.
    return max([subprocess.call(command, cwd=ROOT, env=environ) for command in (ruff, mypy, bandit)])


def known_holes(environ):
    """0 where no package of the lock has a known hole, or where the network or the service did not answer, which it says;
    else 1 and which, or why it could not look."""
    command = [str(PYTHON), "-m", "pip_audit", "--disable-pip", "--require-hashes", "-r", LOCK.name]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", "10"]
    asked = subprocess.run(command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    try:
        packages = json.loads(asked.stdout.decode("utf-8", "replace"))["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (asked.stderr.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"])[-1][:300]
        if UNASKED.match(last):
            say(f"known holes: not looked for, the network or its service did not answer: {last}")
            return 0
        say(f"known holes: pip_audit could not look (exit code {asked.returncode}): {last}")
        return 1
    found = [(one["name"], one.get("version", "?"), hole) for one in packages for hole in one.get("vulns", [])]
    for name, version, hole in found:
        say(f"{name} {version}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'no version yet'}")
    skipped = [one["name"] for one in packages if "skip_reason" in one]
    unseen = f"; not seen: {', '.join(skipped)}" if skipped else ""
    say(f"known holes: {len(found)} in {len(packages) - len(skipped)} packages{unseen}")
    return 1 if found else 0


def lock():
    """Resolve for every Python and system that is supported, with hashes and without the name of an index."""
    uv = shutil.which("uv")
    with tempfile.TemporaryDirectory() as place:
        if not uv:
            subprocess.check_call([str(PYTHON), "-m", "venv", place])
            subprocess.check_call([place + "/bin/pip", "install", "--quiet", "uv"])
            uv = place + "/bin/uv"
        command = [uv, "pip", "compile", "--quiet", "pyproject.toml", "--output-file", LOCK.name]
        command += ["--universal", "--all-extras", "--generate-hashes", "--no-header", "--python-version", "3.11"]
        return subprocess.call(command, cwd=ROOT)


def tests(command):
    """Three at a time, by file, the long files first: most tests wait for processes. `-n 0`: one after the other."""
    chosen = ["-m", "exhaustive" if command == "test-exhaustive" else "not exhaustive"]
    return [str(PYTHON), "-m", "pytest", "-ra"] + chosen + PARALLEL


def live(arguments):
    """The command of the tests marked `live`, all or those of one exchange."""
    words = ["-k" if word == "--exchange" else word for word in arguments]
    return [str(PYTHON), "-m", "pytest", "-ra", "-m", "live"] + words


def bench(arguments):
    """The command of a benchmark; without a name of all of them."""
    found = {path.stem: path for path in sorted((ROOT / "benchmarks").glob("[a-z]*.py"))}
    name = arguments[0] if arguments else "all"
    if name not in found:
        raise Stop(f"no benchmark {name!r}; there are: {', '.join(found)}")
    return [str(PYTHON), str(found[name])] + arguments[1:]


def main(arguments):
    command, rest = (arguments[0] if arguments else "help"), arguments[1:]
    if command in ("help", "-h", "--help"):
        print(USAGE)
        return 0
    if command not in COMMANDS:
        raise Stop(f"{command!r} is no command\n\n{USAGE}")
    setup()
    tidy = clean(os.environ)
    if command == "setup":
        say(".venv is ready")
    elif command == "lint":
        return lint(tidy)
    elif command == "lock":
        return lock()
    elif command == "check":
        # In this order: what takes seconds, then minutes.
        worst = max(lint(tidy), known_holes(dict(clean(os.environ, proxies=True))))
        return worst or subprocess.call(tests("test") + rest, cwd=ROOT, env=tidy)
    elif command in ("test", "test-exhaustive"):
        become(tests(command) + rest, tidy)
    elif command == "bench":
        become(bench(rest), tidy)
    elif command == "live":
        become(live(rest), dict(clean(os.environ, proxies=True), COLLECTOR_TEST_LIVE="1"))
    else:
        become([str(VENV / "bin" / "collector"), command] + rest, dict(os.environ) if command == "run" else tidy)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Stop as stop:
        say(str(stop))
        sys.exit(2)
    except KeyboardInterrupt:
        say("\ninterrupted; the same command goes on from here")
        sys.exit(130)
