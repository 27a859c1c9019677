"""Logging of every process: structlog, readable on a terminal, JSON elsewhere; Celery's own lines go the same way."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from queue import Full, Queue
from types import TracebackType
from typing import Any, Protocol

import structlog

from app import __version__, telemetry_logs
from app.clock import monotonic_s, wall_us
from app.config import NO_FILES, Settings
from app.log_files import DailyFile
from app.redaction import Redaction, secrets
from app.settings_rules import log_levels

#: Lines wait for their reader so many at a time; what comes beyond that is counted.
MAX_LINES = 10_000
#: An ending process waits so long for whoever reads its log.
LAST_WORDS_S = 2.0
#: A library's warning or error is logged at most so often in so many seconds, by the line of its code. Our own lines are
#: limited in telemetry.
MOST_OF_A_KIND, WINDOW_S = 20, 10.0
#: Two lines for every run of every periodic task say nothing that Flower and our own lines do not.
NOISY = (
    "celery.worker.strategy", "celery.app.trace", "botocore", "boto3", "urllib3", "s3transfer", "httpx", "httpcore",
)  # fmt: skip


class Sink(Protocol):
    """Where lines go."""

    def fileno(self) -> int:
        """The descriptor to write to now. Raises: OSError."""


class Unhurried(logging.Handler):
    """Writes on a thread of its own: no stream waits for a pipe that nobody reads, or for a disk that is full.

    Lines that could not be written are counted, and the next one that can is preceded by their number (`log.dropped`).
    """

    def __init__(
        self, sink: Sink, max_lines: int = MAX_LINES, refused: Callable[[Exception], None] = lambda error: None
    ) -> None:
        """`refused` is called on that thread, with what kept a line from being written."""
        super().__init__()
        self._sink, self._max_lines, self._refused = sink, max_lines, refused
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """Also in a child, which has none of its parent's threads."""
        self._lines: Queue[str] = Queue(self._max_lines)
        self._dropped, self._torn = 0, ""
        self.dropped = 0  # by this process until now
        self._hung = False  # nothing was written for as long as anybody waits
        self._counting = threading.Lock()
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Never waits."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - a line that cannot be written, as it stands: `handleError` would print it unmasked
            self._drop()
            return
        try:
            self._lines.put_nowait(line)
        except Full:
            self._drop()
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, args=(self._lines,), name="log", daemon=True)
            self._thread.start()

    def _drop(self, lines: int = 1) -> None:
        with self._counting:
            self._dropped += lines
            self.dropped += 1

    def _write(self, lines: Queue[str]) -> None:
        while True:
            line = lines.get()
            with self._counting:
                dropped, self._dropped = self._dropped, 0
            try:
                if dropped:
                    told = {"event": "log.dropped", "level": "warning", "timestamp": _iso(wall_us()), "lines": dropped}
                    self._put(json.dumps(told | {"why": "the log took none"}))
                    dropped = 0
                self._put(line)
            except (OSError, ValueError) as error:  # full, gone, or closed
                self._drop(dropped + 1)
                self._refused(error)
            finally:
                self._hung = False
                lines.task_done()

    def _put(self, line: str) -> None:
        """Past the stream's own buffer, which would keep what a full disk refused, and write it later."""
        rest = memoryview(f"{self._torn}{line}\n".encode(errors="backslashreplace"))
        while rest:
            rest = rest[os.write(self._sink.fileno(), rest) :]
            self._torn = "\n" if rest else ""

    def flush(self) -> None:
        """Wait until everything is written, for LAST_WORDS_S at most. `logging` calls it at the end of a process."""
        done = threading.Event()

        def wait() -> None:
            self._lines.join()
            done.set()

        if self._lines.unfinished_tasks and not self._hung:
            threading.Thread(target=wait, name="last words", daemon=True).start()
            self._hung = not done.wait(LAST_WORDS_S)


class Limited(logging.Handler):
    """Hands records to `outputs`; of a library's warnings that repeat themselves only the first, then how many there were."""

    def __init__(self, outputs: Iterable[Unhurried], now_s: Callable[[], float] = monotonic_s) -> None:
        super().__init__()
        self.outputs, self._now_s = tuple(outputs), now_s
        self._since_s, self._kinds = now_s(), dict[tuple[str, str, int], int]()

    def emit(self, record: logging.LogRecord) -> None:
        """Called under the handler's lock."""
        self._turn()
        if record.levelno >= logging.WARNING and not isinstance(record.msg, dict):  # a dict is an event of ours
            kind = record.name, record.pathname, record.lineno
            self._kinds[kind] = times = self._kinds.get(kind, 0) + 1
            if times > MOST_OF_A_KIND:
                return
        for output in self.outputs:
            if record.levelno >= output.level:
                output.handle(record)

    def _turn(self) -> None:
        now_s = self._now_s()
        if now_s - self._since_s >= WINDOW_S:
            kinds, self._kinds, since_s, self._since_s = self._kinds, {}, self._since_s, now_s
            for (name, path, line), times in kinds.items():
                if times > MOST_OF_A_KIND:
                    where = f"{name} ({os.path.basename(path)}:{line})"
                    telemetry_logs.log_limited(where, times - MOST_OF_A_KIND, round(now_s - since_s, 1))

    def flush(self) -> None:
        """Wait for the last words."""
        for output in self.outputs:
            output.flush()

    @property
    def dropped(self) -> int:
        """Lines that some output did not take, in this process until now."""
        return sum(output.dropped for output in self.outputs)


def configure(levels: str | None = None, settings: Settings | None = None, process: str | None = None) -> Limited:
    """Send every logger to stderr, and where `process` (a type such as `stream`) is named also to its file.

    `levels` as in [collector] log_level, whose value is the default. What `settings` and the environment hold of secrets
    is masked in every line. Raises: ValueError for levels that are none.
    """
    levels = levels or (settings.collector.log_level if settings else "INFO")
    chosen = log_levels(levels)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _stamped,
        structlog.processors.format_exc_info,
    ]
    masked = Redaction(secrets(settings, os.environ) if settings else ())
    json_lines: structlog.typing.Processor = structlog.processors.JSONRenderer()
    readable: structlog.typing.Processor = structlog.dev.ConsoleRenderer(
        colors="NO_COLOR" not in os.environ, exception_formatter=structlog.dev.plain_traceback
    )

    def output(sink: Sink, renderer: structlog.typing.Processor, **more: Any) -> Unhurried:
        handler = Unhurried(sink, **more)
        last = (structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer, lambda _, __, text: masked(text))
        handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last))
        return handler

    outputs = [output(sys.stderr, readable if sys.stderr.isatty() else json_lines)]
    files = _files(settings, process)
    if settings:
        outputs[0].setLevel(settings.collector.log_stderr_level)
    if files:

        def refused(error: Exception) -> None:
            telemetry_logs.log_file_refused(str(files.directory), error)

        outputs.append(output(files, json_lines, refused=refused))
    root = logging.getLogger()
    for before in root.handlers:
        before.flush()
    root.handlers[:] = [limited := Limited(outputs)]
    for name, level in {"": "INFO", **dict.fromkeys(NOISY, "WARNING"), **chosen}.items():
        logging.getLogger(name).setLevel(level)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda told: _uncaught(told.exc_type, told.exc_value, told.exc_traceback, told.thread)
    if process:
        telemetry_logs.process_started(process, __version__, str(files.directory) if files else None, levels)
    return limited


def _iso(at_us: float) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _stamped(logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A library's line by the time of its record: each output formats it anew."""
    record = event.get("_record")
    event["timestamp"] = _iso(record.created * 1e6 if record else wall_us())
    return event


def _files(settings: Settings | None, process: str | None) -> DailyFile | None:
    if settings is None or process is None or settings.collector.log_dir == NO_FILES:
        return None
    return DailyFile(settings.collector.log_dir, process, settings.collector.log_retention_days, wall_us)


def _uncaught(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None, thread: Any = None
) -> None:
    """Python would print it to stderr, and what it says unmasked."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error or kind(), trace)
        return
    where = thread.name if thread else "main thread"
    telemetry_logs.failed_unexpectedly(where, (kind, error or kind(), trace))


def bind(**facts: str) -> None:
    """Every line of this thread says so, until `unbind`."""
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**facts)


def unbind() -> None:
    """The thread has another task, or none."""
    structlog.contextvars.clear_contextvars()
