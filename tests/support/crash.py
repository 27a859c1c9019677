"""Stations (flush, archive, stream) in real processes that are killed at a chosen boundary.

A nursery is one process that has imported everything; each run is a fork of it, so that a hundred of them take seconds.
A run passes boundaries: the named steps of the pipeline (`flush.before_commit`), and with `effects` also the moment before
each thing that outlives a process (`effect.commit`, `effect.link`, `effect.put_object`). At the n-th of them it sends
itself SIGKILL. Boundaries are written down as they are passed, so the record is there whatever became of the process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import msgspec

from tests.support.rig import Rig

CHECKOUT = Path(__file__).resolve().parents[2]
#: A run that takes longer is killed, and its outcome says so.
RUN_TIMEOUT_S = 60.0


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One run: a station under the settings of a file."""

    station: str
    settings: str
    #: Where boundaries and the result are written, and what the process prints.
    record: str
    #: Kill at the n-th boundary whose name starts with `prefix`; None: never.
    kill_at: int | None = None
    prefix: str = ""
    #: The moments before writes, links, commits and requests are boundaries too.
    effects: bool = False
    options: dict[str, Any] = {}
    environ: dict[str, str] = {}


@dataclass(frozen=True)
class Outcome:
    """What became of a run."""

    #: The signal that ended it, 0 where it ended by itself.
    signal: int
    #: Boundaries in the order they were passed; the last one is where it was killed.
    passed: list[str] = field(default_factory=list)
    #: What the station returned, None where it did not come to that.
    result: Any = None

    @property
    def was_killed(self) -> bool:
        return self.signal == signal.SIGKILL


class Run:
    """A run under way."""

    def __init__(self, nursery: Nursery, pid: int, record: Path) -> None:
        self._nursery, self.pid, self._record = nursery, pid, record

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    @property
    def passed(self) -> list[str]:
        """Boundaries passed so far."""
        return [line["passed"] for line in self._lines() if "passed" in line]

    def wait(self) -> Outcome:
        """The outcome, when it has ended. Raises: AssertionError when the station failed by itself or hung."""
        ended = self._nursery.ask({"wait": self.pid})
        log = self._record.with_suffix(".log").read_text(errors="replace")[-4000:]
        assert not ended["hung"], f"the run did not end within {RUN_TIMEOUT_S:g} s: {self.passed[-5:]}\n{log}"
        results = [line for line in self._lines() if "passed" not in line]
        faults = [line["fault"] for line in results if "fault" in line]
        assert not faults, f"the station failed:\n{faults[0]}\n{log}"
        assert ended["signal"] or results, f"the run ended without a word:\n{log}"
        return Outcome(ended["signal"], self.passed, results[0]["result"] if results else None)

    def _lines(self) -> list[dict[str, Any]]:
        whole, _, _torn = self._record.read_bytes().rpartition(b"\n")
        return [msgspec.json.decode(line) for line in whole.splitlines()]


class Nursery:
    """The process that the runs are forks of."""

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        self._directory = directory
        self._runs = 0
        self._errors = (directory / "nursery.log").open("w+b")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.crash"], cwd=CHECKOUT, env=dict(environ),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip

    def start(
        self,
        station: str,
        settings: Path,
        *,
        kill_at: int | None = None,
        prefix: str = "",
        effects: bool = False,
        environ: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Run:
        """Begin a run; several may be under way."""
        self._runs += 1
        record = self._directory / f"{self._runs:05d}.jsonl"
        record.touch()
        order = Order(
            station=station, settings=str(settings), record=str(record), kill_at=kill_at, prefix=prefix,
            effects=effects, options=options, environ=dict(environ or {}),
        )  # fmt: skip
        return Run(self, self.ask({"order": msgspec.to_builtins(order)})["pid"], record)

    def run(self, station: str, settings: Path, **arguments: Any) -> Outcome:
        """Begin a run and wait for its end."""
        return self.start(station, settings, **arguments).wait()

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(question) + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError((self._directory / "nursery.log").read_text())
        answer: dict[str, Any] = msgspec.json.decode(line)
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()
        self._errors.close()


@contextmanager
def nursery(directory: Path, environ: Mapping[str, str]) -> Iterator[Nursery]:
    """A nursery for the time of a `with`."""
    made = Nursery(directory, environ)
    try:
        yield made
    finally:
        made.close()


class CeleryWorker:
    """A worker process as the Procfile starts one, for these queues; `environ` names its settings."""

    def __init__(
        self, name: str, queues: str, threads: int, directory: Path, environ: Mapping[str, str], *options: str
    ) -> None:
        self._log = (directory / f"{name}.log").open("w+b")
        command = [
            sys.executable, "-m", "celery", "-A", "app", "worker", "-P", "threads", "-Q", queues, "-c", str(threads),
            "-n", f"{name}@%h", "--without-gossip", "--without-mingle", "--loglevel", "INFO", *options,
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, cwd=CHECKOUT, env=dict(environ), stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            start_new_session=True,
        )  # fmt: skip
        self.pid = self._process.pid

    def signal(self, number: int) -> int:
        """Send a signal that ends it; returns its exit code, -N where signal N ended it."""
        self._process.send_signal(number)
        return self.wait()

    def wait(self, seconds: float = 30) -> int:
        """Its exit code, when it has ended."""
        return self._process.wait(seconds)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def log(self) -> str:
        return Path(self._log.name).read_text(errors="replace")

    def close(self) -> None:
        with suppress(ProcessLookupError):  # with -B it has a child
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()


@contextmanager
def celery_workers(
    names: tuple[str, ...], queues: str, rig: Rig, *options: str, threads: int
) -> Iterator[dict[str, CeleryWorker]]:
    """Workers of one settings file for the time of a `with`."""
    workers = {name: CeleryWorker(name, queues, threads, rig.directory, rig.environ, *options) for name in names}
    try:
        yield workers
    finally:
        for worker in workers.values():
            worker.close()


def messenger(rig: Rig) -> Any:
    """A Celery application that sends tasks to the workers of `rig`, as beat does."""
    from celery import Celery

    sender = Celery("tests", broker=rig.redis_url, set_as_current=False)
    sender.conf.broker_transport_options = {"global_keyprefix": f"{rig.prefix}:celery:"}
    return sender


def dispatcher(rig: Rig) -> Callable[..., object]:
    """Sends the task of a stream to a worker of `rig` ("": to any), as the supervisor task does."""
    from celery.utils.nodenames import worker_direct

    sender = messenger(rig)

    def send(stream: str, worker: str = "") -> object:
        queue = worker_direct(worker) if worker else "streams"
        return sender.send_task("streams.run", (stream,), queue=queue, expires=15)

    return send


def places(passed: list[str]) -> list[int]:
    """Where to kill, 1 being the first boundary: each boundary, seen with the one before it, once; and after the last.

    What a run does to every market or claim again and again looks the same each time.

    >>> places(["a", "b", "a", "b", "a", "c"])
    [1, 2, 3, 6, 7]
    """
    pairs = list(zip(["", *passed], passed, strict=False))
    return [number for number, pair in enumerate(pairs, 1) if pair not in pairs[: number - 1]] + [len(passed) + 1]


# In the nursery


def _serve() -> None:
    """Answer orders and waits, a line each, until the test run closes the pipe; then end what still runs."""
    import boto3.session  # type: ignore[import-untyped]
    import httpx  # noqa: F401
    import pyarrow.parquet  # type: ignore[import-untyped]  # noqa: F401

    import app.objects.bucket
    import app.objects.local
    import app.pipeline.archive
    import app.pipeline.flush
    import app.pipeline.periodic
    import app.pipeline.repair
    import app.pipeline.stream
    import app.pipeline.supervise
    import app.store.ledger  # noqa: F401
    from app.config import load

    load(CHECKOUT / "settings.toml", {})  # for what it imports
    boto3.session.Session("none", "none").client("s3", "us-east-1")  # the same

    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    children: set[int] = set()
    for line in iter(sys.stdin.buffer.readline, b""):
        question = msgspec.json.decode(line)
        if "order" in question:
            order = msgspec.convert(question["order"], Order)
            pid = os.fork()
            if pid == 0:
                _child(order)
            children.add(pid)
            answers.write(msgspec.json.encode({"pid": pid}) + b"\n")
        else:
            answers.write(msgspec.json.encode(_wait(question["wait"])) + b"\n")
            children.discard(question["wait"])
    for pid in children:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _wait(pid: int) -> dict[str, Any]:
    until_s = time.monotonic() + RUN_TIMEOUT_S
    hung = False
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return {"signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, "hung": hung}
        if time.monotonic() > until_s and not hung:
            hung = True
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


# In a run


def _child(order: Order) -> None:
    """Never returns."""
    output = os.open(Path(order.record).with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    record = os.open(order.record, os.O_WRONLY | os.O_APPEND)
    try:
        boundaries = Boundaries(record, order.kill_at, order.prefix)
        if order.effects:
            _watch_effects(boundaries.passed)
        os.environ.update(order.environ)
        result = {"result": _STATIONS[order.station](Path(order.settings), boundaries.passed, order.options)}
    except BaseException:  # noqa: BLE001 - what it was is for the test to say
        result = {"fault": traceback.format_exc()}
    os.write(record, msgspec.json.encode(result) + b"\n")
    os._exit(0)


class Boundaries:
    """Writes down what is passed, and kills its process at the chosen boundary."""

    def __init__(self, record: int, kill_at: int | None, prefix: str) -> None:
        self._record, self._kill_at, self._prefix = record, kill_at, prefix
        self._count = 0

    def passed(self, name: str) -> None:
        os.write(self._record, msgspec.json.encode({"passed": name}) + b"\n")
        if name.startswith(self._prefix):
            self._count += 1
            if self._count == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)


def _watch_effects(passed: Callable[[str], None]) -> None:
    """The moment before each of these is a boundary; the moment after it is the next boundary."""
    from sqlalchemy.engine.default import DefaultDialect

    from app.buffer.events import EventBuffer
    from app.objects.bucket import BucketStore

    def watch(owner: Any, name: str, called: Callable[..., str]) -> None:
        real = getattr(owner, name)

        @wraps(real)
        def watched(*args: Any, **kwargs: Any) -> Any:
            passed(f"effect.{called(*args)}")
            return real(*args, **kwargs)

        setattr(owner, name, watched)

    for name in ("fsync", "link", "replace", "truncate", "unlink"):
        watch(os, name, lambda *_, name=name: name)
    watch(DefaultDialect, "do_commit", lambda *_: "commit")
    watch(BucketStore, "_ask", lambda _self, _key, operation, *_: operation)
    watch(EventBuffer, "push_all", lambda *_: "push")


def _flush(settings: Path, step: Callable[[str], None], options: dict[str, Any]) -> Any:
    """`now_us`: what the clock says. `claim_batches`. `seal`: the open segment afterwards."""
    import app.pipeline.flush as flushing
    from app import wiring
    from app.config import load

    if "now_us" in options:
        wiring.wall_us = lambda: options["now_us"]  # type: ignore[attr-defined]
    flushing.CLAIM_BATCHES = options.get("claim_batches", flushing.CLAIM_BATCHES)
    flush = wiring.Wiring(load(settings, {}).settings, step=step).flush()
    report = flush.run()
    if options.get("seal"):
        flush.turn_over(report, now=True)
    return report.as_dict()


def _flush_until_told(settings: Path, step: Callable[[str], None], options: dict[str, Any]) -> Any:
    """Run after run, until there is a key `<prefix>:enough` and the lists are empty. `seal_every`: runs."""
    import app.pipeline.flush as flushing
    from app import wiring
    from app.config import load

    flushing.CLAIM_BATCHES = options["claim_batches"]
    read = load(settings, {}).settings
    made = wiring.Wiring(read, step=step)
    done: dict[str, Any] = {"runs": 0, "stored": 0, "replays": 0, "failed": [], "raised": []}
    while True:
        enough = made.redis.exists(f"{read.redis.prefix}:enough") and not made.buffer.depths()
        done["runs"] += 1
        try:
            flush = made.flush()
            report = flush.run(deadline_s=0)
            done["stored"] += report.counts.stored
            done["replays"] += report.counts.replays
            done["failed"] += report.failed.values()
            if done["runs"] % options["seal_every"] == 0:
                flush.turn_over(report, now=True)
        except Exception as error:  # noqa: BLE001 - beat would run it again; the test looks at what it was
            done["raised"].append(f"{type(error).__name__}: {error}")
        if enough:
            return done


def _drain(settings: Path, step: Callable[[str], None], options: dict[str, Any]) -> Any:
    """Deliver what is in the spools; whether nothing is left."""
    from app.config import load
    from app.pipeline.supervise import drain_spools
    from app.wiring import Wiring

    return drain_spools(Wiring(load(settings, {}).settings, step=step))


def _archive(settings: Path, step: Callable[[str], None], options: dict[str, Any]) -> Any:
    """`final`; `truncate_step_bytes`; `cycles`: so many, one after the other."""
    from app.config import load
    from app.errors import StoreUnavailable
    from app.store import segment
    from app.wiring import Wiring

    segment.TRUNCATE_STEP_BYTES = options.get("truncate_step_bytes", segment.TRUNCATE_STEP_BYTES)
    archive = Wiring(load(settings, os.environ).settings, step=step).archive()
    reports: list[Any] = []
    for _ in range(options.get("cycles", 1)):
        try:
            reports.append(archive.run(final=options.get("final", False)).as_dict())
        except StoreUnavailable as error:  # beat would run it again; the test looks at what it was
            reports.append(str(error))
    return reports


def _collect(settings: Path, step: Callable[[str], None], options: dict[str, Any]) -> Any:
    """The life of one stream task, as a worker's thread has it; SIGTERM asks it to stop. Returns why it ended."""
    from app.config import load
    from app.pipeline.supervise import collect
    from app.wiring import Wiring

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    return collect(Wiring(load(settings, {}).settings, step=step), options["stream"], stop)


def _supervise(settings: Path, step: Callable[[str], None], options: dict[str, Any]) -> Any:
    """The supervisor task, `rounds` times in a row; returns the streams that were sent."""
    from tasks.streams import supervise

    return [name for _ in range(options["rounds"]) for name in supervise()]


def _repair(settings: Path, step: Callable[[str], None], options: dict[str, Any]) -> Any:
    """Repairs and flushes in turn, as two tasks of one worker, until a run does nothing; what was settled."""
    from app.config import load
    from app.wiring import Wiring

    made = Wiring(load(settings, {}).settings, step=step)
    settled: list[Any] = []
    while True:
        report = made.repairs.run(deadline_s=20, patient=False)
        assert report.failed == {}
        assert made.flush().run().failed == {}
        settled += report.closed
        if not (report.fetched or report.closed or report.judged or report.waiting):
            return settled


_STATIONS: dict[str, Callable[[Path, Callable[[str], None], dict[str, Any]], Any]] = {
    "flush": _flush,
    "flush_until_told": _flush_until_told,
    "archive": _archive,
    "drain": _drain,
    "collect": _collect,
    "supervise": _supervise,
    "repair": _repair,
}

if __name__ == "__main__":
    _serve()
