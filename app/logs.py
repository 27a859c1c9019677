"""Logging of every process: structlog, readable on a terminal, JSON elsewhere; Celery's own lines go the same way."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from queue import Full, Queue
from typing import TextIO

import structlog

#: Lines wait for their reader so many at a time; what comes beyond that is counted.
MAX_LINES = 10_000
#: An ending process waits so long for whoever reads its log.
LAST_WORDS_S = 2.0


class Unhurried(logging.Handler):
    """Writes on a thread of its own: no stream waits for a pipe that nobody reads, or for a disk that is full.

    Lines that could not be written are counted, and the next one that can is preceded by their number (`log.dropped`).
    """

    def __init__(self, stream: TextIO, max_lines: int = MAX_LINES) -> None:
        super().__init__()
        self._stream, self._max_lines = stream, max_lines
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """Also in a child, which has none of its parent's threads."""
        self._lines: Queue[str] = Queue(self._max_lines)
        self._dropped, self._torn = 0, ""
        self._counting = threading.Lock()
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Never waits."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - as every handler of `logging`
            self.handleError(record)
            return
        try:
            self._lines.put_nowait(line)
        except Full:
            self._drop()
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, args=(self._lines,), name="log", daemon=True)
            self._thread.start()

    def _drop(self) -> None:
        with self._counting:
            self._dropped += 1

    def _write(self, lines: Queue[str]) -> None:
        while True:
            line = lines.get()
            with self._counting:
                dropped, self._dropped = self._dropped, 0
            try:
                if dropped:
                    told = {"event": "log.dropped", "level": "warning", "lines": dropped, "why": "the log took none"}
                    self._put(json.dumps(told))
                self._put(line)
            except (OSError, ValueError):  # full, gone, or closed
                with self._counting:
                    self._dropped += dropped + 1
            finally:
                lines.task_done()

    def _put(self, line: str) -> None:
        """Past the stream's own buffer, which would keep what a full disk refused, and write it later."""
        rest = memoryview(f"{self._torn}{line}\n".encode(errors="backslashreplace"))
        while rest:
            rest = rest[os.write(self._stream.fileno(), rest) :]
            self._torn = "\n" if rest else ""

    def flush(self) -> None:
        """Wait until everything is written, for LAST_WORDS_S at most. `logging` calls it at the end of a process."""
        done = threading.Event()

        def wait() -> None:
            self._lines.join()
            done.set()

        if self._lines.unfinished_tasks:
            threading.Thread(target=wait, name="last words", daemon=True).start()
            done.wait(LAST_WORDS_S)


def configure(level: str | None = None) -> None:
    """Send every logger to stderr. The level comes from the argument, else COLLECTOR_LOG_LEVEL, else INFO."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor
    if sys.stderr.isatty():
        renderer = structlog.dev.ConsoleRenderer(colors="NO_COLOR" not in os.environ)
    else:
        renderer = structlog.processors.JSONRenderer()
    handler = Unhurried(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    for before in root.handlers:
        before.flush()
    root.handlers[:] = [handler]
    root.setLevel(level or os.environ.get("COLLECTOR_LOG_LEVEL", "INFO").upper())
    # Two lines for every run of every periodic task say nothing that Flower and our own lines do not.
    for noisy in (
        "celery.worker.strategy",
        "celery.app.trace",
        "botocore",
        "boto3",
        "urllib3",
        "s3transfer",
        "httpx",
        "httpcore",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
