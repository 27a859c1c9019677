"""Every line of the Procfile, started as a platform starts it: it comes up, and SIGTERM ends it with 0 and no traceback.

All lines run side by side on the built-in exchanges, and beside them a bare worker and one with beat, each with a Redis
prefix and a directory of its own: what they recorded until their SIGTERM is accounted for as well.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import pytest

from app.launch.redis_server import free_port
from app.pipeline.supervise import drain_spools
from tests.support.exchanges import ExchangeProcess
from tests.support.path import archived, compare, figures, finish, records, until
from tests.support.redis_process import RedisProcess
from tests.support.rig import CHECKOUT, MARKETS, Rig

LINES = dict(line.split(": ", 1) for line in (CHECKOUT / "Procfile").read_text().splitlines() if line.strip())
#: `release` ends by itself.
LASTING = [name for name in LINES if name != "release"]
BARE, BEAT = "worker alone", "worker with beat"
READY_S, STOP_S = 60.0, 30.0
#: `[websocket] cpu_pin`: a processor that this process may use.
PINNED = min(os.sched_getaffinity(0))


@dataclass
class Process:
    """One started line, and what became of it."""

    popen: subprocess.Popen[bytes]
    log: Path
    ready: Callable[[], bool]
    came_up: bool = False
    #: Of each thread, while it ran: the processors that it may use.
    processors: frozenset[frozenset[int]] = frozenset()
    code: int | None = None

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def says(self, event: str) -> list[dict[str, object]]:
        """Lines of the log that tell of `event`."""
        lines = [line for line in self.output.splitlines() if line.startswith("{")]
        return [entry for entry in map(msgspec.json.decode, lines) if entry.get("event") == event]


@dataclass
class Ran:
    """All processes after they ended, the rigs they worked for, and what the exchanges sent to each."""

    processes: dict[str, Process]
    rigs: dict[str, Rig]
    exchanges: dict[str, ExchangeProcess]


def start(name: str, line: str, rig: Rig, logs: Path, ready: Callable[[Process], bool], **environ: str) -> Process:
    """`line` by a shell, as a platform does; `exec`, so that the signal reaches what the line names."""
    log = logs / f"{name}.log"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("wb") as output:
        popen = subprocess.Popen(
            ["sh", "-c", f"exec {line}"], cwd=CHECKOUT, env={**rig.environ, "PATH": path, **environ},
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    process = Process(popen, log, lambda: ready(process))
    return process


def answers(url: str) -> Callable[[Process], bool]:
    """Ready when something answers under `url`, whatever it answers."""

    def ready(_: Process) -> bool:
        try:
            return bool(httpx.get(url, timeout=5, trust_env=False).status_code)
        except httpx.HTTPError:
            return False

    return ready


def processors(pid: int) -> frozenset[frozenset[int]]:
    threads = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
    return frozenset(frozenset(os.sched_getaffinity(thread)) for thread in threads)


def logged(event: str) -> Callable[[Process], bool]:
    return lambda process: bool(process.says(event))


def committed(rig: Rig) -> bool:
    """Whether every market has rows in a segment."""
    settings = rig.settings
    found: set[tuple[str, str]] = set()
    for path in settings.storage.segments_path.rglob("*.db"):
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            found |= set(connection.execute("SELECT DISTINCT exchange, symbol FROM trades"))
        except sqlite3.OperationalError:
            continue  # it is being made
        finally:
            connection.close()
    return len(found) == len(settings.all_markets())


@pytest.fixture(scope="module")
def ran(redis_server: RedisProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """Start everything at once, wait until all of it works, stop all of it at once."""
    root = tmp_path_factory.mktemp("procfile")
    names = ["lines", BARE, BEAT]
    rigs, exchanges = {}, {}
    for name in names:
        exchanges[name] = ExchangeProcess(root / name / "exchanges", rate=5)
        rigs[name] = Rig(root / name, redis_server.url)
        markets = {"okx": MARKETS["okx"], "bybit": MARKETS["bybit"]}
        rigs[name].write(markets, exchanges[name].venues, websocket={"cpu_pin": PINNED})
    web, flower, exporter = free_port(), free_port(), free_port()
    ready = {
        "release": lambda process: process.popen.poll() is not None,
        "web": answers(f"http://127.0.0.1:{web}/health"),
        "stream": logged("worker.ready"),
        "worker": logged("worker.ready"),
        "archive": logged("worker.ready"),
        "beat": logged("beat: Starting..."),
        "flower": answers(f"http://127.0.0.1:{flower}/flower/"),
        "exporter": answers(f"http://127.0.0.1:{exporter}/metrics"),
    }
    ports = {
        "PORT": str(web), "FLOWER_PORT": str(flower), "EXPORTER_ADDR": f"127.0.0.1:{exporter}", "STREAM_THREADS": "8",
    }  # fmt: skip
    processes = {name: start(name, line, rigs["lines"], root, ready[name], **ports) for name, line in LINES.items()}
    schedule = root / "schedule"
    processes[BARE] = start(BARE, "celery -A app worker -n bare@%h", rigs[BARE], root, logged("worker.ready"))
    processes[BEAT] = start(
        BEAT, f"celery -A app worker -B -s '{schedule}' -n beat@%h", rigs[BEAT], root, logged("worker.ready")
    )
    try:
        end_s = time.monotonic() + READY_S
        for process in processes.values():
            while not process.came_up and time.monotonic() < end_s:
                process.came_up = process.ready() or (process.popen.poll() is not None and process.ready())
                time.sleep(0.05)
        for name in ("lines", BEAT):
            until(lambda: committed(rigs[name]), f"{name}: every market is in a segment", 30)  # noqa: B023
        # All at once, while data flows: no order of stopping is needed.
        for process in processes.values():
            if process.popen.poll() is None:
                process.processors = processors(process.popen.pid)
                process.popen.send_signal(signal.SIGTERM)
        sent_s = time.monotonic()
        for process in processes.values():
            try:
                process.code = process.popen.wait(max(0.1, sent_s + STOP_S - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.code = None
        for server in exchanges.values():
            server.halt()
        yield Ran(processes, rigs, exchanges)
    finally:
        for process in processes.values():
            if process.popen.poll() is None:
                process.popen.kill()
                process.popen.wait()
        for server in exchanges.values():
            server.stop()


@pytest.mark.row("K9")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", [*LINES, BARE, BEAT])
def test_a_line_comes_up_and_ends_cleanly_on_sigterm(name: str, ran: Ran) -> None:
    process = ran.processes[name]
    assert process.came_up, process.output[-3000:]
    assert process.code == 0, process.output[-3000:]
    assert "Traceback" not in process.output


def test_the_procfile_names_every_process(ran: Ran) -> None:
    assert list(LINES) == ["release", "web", "stream", "worker", "archive", "beat", "flower", "exporter"]


def test_the_lines_consume_each_queue_once(ran: Ran) -> None:
    consumed = [
        queue
        for line in LINES.values()
        for option, value in zip(line.split(), line.split()[1:], strict=False)
        if option == "-Q"
        for queue in value.split(",")
    ]
    assert sorted(consumed) == ["archive", "default", "flush", "gaps", "streams"]


def test_a_worker_of_streams_alone_keeps_to_the_processor_that_the_settings_name(ran: Ran) -> None:
    """And workers without streams keep off it, where there is another one; whoever does everything may use all."""
    every = os.sched_getaffinity(0)
    others = every - {PINNED} or every
    wanted = {"stream": {PINNED}, "worker": others, "archive": others}
    for name, process in ran.processes.items():
        assert name == "release" or process.processors == {frozenset(wanted.get(name, every))}, name
    for name, processors in wanted.items():
        assert [entry["cpus"] for entry in ran.processes[name].says("worker.pinned")] == [sorted(processors)]
    assert ran.processes[BARE].says("worker.pinned") == []


def test_a_bare_worker_says_that_it_needs_a_beat(ran: Ran) -> None:
    (ready,) = ran.processes[BARE].says("worker.ready")
    assert "celery -A app beat" in str(ready["needs"])
    (ready,) = ran.processes[BEAT].says("worker.ready")
    assert "needs" not in ready


def test_every_lasting_process_writes_what_it_says_to_a_file_of_its_own(ran: Ran) -> None:
    files: dict[str, list[str]] = {}
    for path in (ran.rigs["lines"].directory / "logs").iterdir():
        process, pid = path.name.removeprefix("collector-").split("-")[:2]
        assert process not in files, path.name
        assert int(pid) == ran.processes[process].popen.pid
        files[process] = path.read_text().splitlines()
    assert sorted(files) == sorted(LASTING)
    for name, lines in files.items():
        assert lines == [line for line in ran.processes[name].output.splitlines() if line.startswith("{")], name
        told = [msgspec.json.decode(line) for line in lines]
        assert (told[0]["event"], told[0]["process"]) == ("process.started", name)
        assert all({"event", "level", "logger", "timestamp"} <= line.keys() for line in told), name


def test_a_worker_with_beat_writes_two_files_one_for_each_process(ran: Ran) -> None:
    worker = ran.processes[BEAT].popen.pid
    paths = list((ran.rigs[BEAT].directory / "logs").iterdir())
    files = {int(path.name.split("-")[2]): path.read_text() for path in paths}
    assert len(files) == len(paths) == 2
    assert "worker.ready" in files.pop(worker)
    (beat,) = files.values()
    assert "beat: Starting..." in beat


def test_lines_of_a_task_name_it_and_its_id(ran: Ran) -> None:
    lines = [entry for name in ("stream", "worker") for entry in ran.processes[name].says("connection.opened")]
    assert {line["task"] for line in lines} == {"streams.run"}
    assert len({line["task_id"] for line in lines}) == 2
    committed = ran.processes["worker"].says("flush.committed")
    assert {line["task"] for line in committed} == {"flush.run"}


@pytest.mark.row("K9")
@pytest.mark.parametrize("name", ["lines", BARE, BEAT])
def test_what_was_received_before_the_sigterm_is_all_there(name: str, ran: Ran) -> None:
    wiring = ran.rigs[name].wiring()
    assert drain_spools(wiring)
    until(lambda: wiring.lease("lock:flush", 1).holder() is None, "no flush is going on", 35)
    finish(wiring)
    assert {row["reason"] for row in records(wiring, "epochs")} == {"stop"}
    assert figures(wiring, ran.exchanges[name].sent_file).figures["lost"] == 0
    rows = archived(wiring)
    texts = {data for found in rows.values() for _, data in found}
    sent = [e for e in ran.exchanges[name].sent() if not e.get("maybe") or e["data"] in texts]
    assert compare(wiring, sent) == {}


def test_no_port_is_open_to_others_but_that_of_the_web_process(ran: Ran) -> None:
    for name in LASTING:
        assert ("0.0.0.0" in LINES[name]) is (name == "web"), LINES[name]
