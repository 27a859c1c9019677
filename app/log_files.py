"""Log files of our own: one a process type, process and UTC day, never two writers of one, old ones deleted.

The day stands in the name, so that nothing is renamed while it is written (`TimedRotatingFileHandler` renames, writes
through a buffer that keeps what a full disk refused, and deletes a file that already has the new name). Only the thread
that writes calls anything here: a disk that hangs stops no one else.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from app import telemetry_logs

DAY_S = 86_400
#: Names of our files; nothing else is ever deleted: collector-stream-4711-2026-11-21.log
OURS = re.compile(r"collector-[a-z0-9_]{1,32}-\d+(?:-\d+)?-\d{4}-\d{2}-\d{2}\.log")


def process_type(node: str) -> str:
    """The type of a process from its Celery node name: `stream-4711@host` is a `stream`, `celery@host` a `worker`."""
    name = re.sub(r"[-_.]?\d+$", "", node.partition("@")[0])
    word = re.sub(r"[^a-z0-9_]", "_", name.lower())[:32]
    return "worker" if word in ("", "celery") else word


class DailyFile:
    """Where the lines of this process go today. `process`: its type; `keep_days`: files older than that are deleted."""

    def __init__(self, directory: Path, process: str, keep_days: float, wall_us: Callable[[], int]) -> None:
        self.directory, self._process, self._keep_s, self._wall_us = directory, process, keep_days * DAY_S, wall_us
        self._fd = -1
        self._day, self._identity = "", (0, 0, 0)

    def fileno(self) -> int:
        """Of today's file, opened (and old ones deleted) when the day, or the process by a fork, is another one.

        Raises: OSError.
        """
        day = datetime.fromtimestamp(self._wall_us() / 1e6, UTC).strftime("%Y-%m-%d")
        if day != self._day or not self._ours() or not os.fstat(self._fd).st_nlink:  # somebody may have deleted it
            self.close()
            self._fd = self._open(day)
            self._day, self._identity = day, _identity(self._fd)
            self.clean()
        return self._fd

    def _ours(self) -> bool:
        """Whether our descriptor is still the file that this process opened.

        Celery closes every descriptor in the process it forks for beat, and another file may get the number of ours.
        """
        try:
            return self._identity == _identity(self._fd)
        except OSError:
            return False

    def close(self) -> None:
        """Let the file go; a descriptor that is another's by now, or a parent's, is only forgotten."""
        if self._ours():
            os.close(self._fd)
        self._fd, self._day = -1, ""

    def _open(self, day: str) -> int:
        self.directory.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            more = f"-{number}" if number > 1 else ""  # containers that share a directory may share a process id
            path = self.directory / f"collector-{self._process}-{os.getpid()}{more}-{day}.log"
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o640)
            if _locked(fd):
                return fd
            os.close(fd)
        raise AssertionError

    def clean(self) -> None:
        """Delete files of ours whose last line is older than `keep_days` and that nobody writes."""
        now_s = self._wall_us() / 1e6
        try:
            entries = [entry for entry in os.scandir(self.directory) if OURS.fullmatch(entry.name)]
        except OSError as error:
            telemetry_logs.log_file_kept(str(self.directory), error)
            return
        for entry in entries:
            try:
                told = entry.stat(follow_symlinks=False)
                age_s = now_s - told.st_mtime
                if age_s > self._keep_s and _deserted(entry.path):
                    os.unlink(entry.path)
                    telemetry_logs.log_file_deleted(entry.name, told.st_size, age_s)
            except FileNotFoundError:
                continue  # another process was faster
            except OSError as error:
                telemetry_logs.log_file_kept(entry.name, error)


def _identity(fd: int) -> tuple[int, int, int]:
    """This process, and device and number of the file."""
    told = os.fstat(fd)
    return os.getpid(), told.st_dev, told.st_ino


def _locked(fd: int) -> bool:
    """Whether nobody else has the file; True where the file system knows no locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def _deserted(path: str) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with suppress(OSError):
        try:
            return _locked(fd)
        finally:
            os.close(fd)
    return False
