"""A real terminal (a pty) at the standard error of a command that runs inside the test's own process."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from io import StringIO
from unittest.mock import patch

from app.cli import collector
from tests.support.rig import Rig


class Screen:
    """What was written to the terminal; whole once `terminal` is left."""

    def __init__(self) -> None:
        self.text = ""


@contextmanager
def terminal() -> Iterator[Screen]:
    """While it lasts, sys.stderr is a terminal."""
    master, slave = os.openpty()
    screen, read = Screen(), bytearray()

    def watch() -> None:
        with suppress(OSError):  # EIO: nobody has the other end any more
            while piece := os.read(master, 4096):
                read.extend(piece)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        with os.fdopen(slave, "w", buffering=1) as stderr, redirect_stderr(stderr):
            yield screen
    finally:
        watcher.join(10)
        os.close(master)
        screen.text = read.decode()


def run(rig: Rig, *arguments: str, **environ: str) -> tuple[int, str, str]:
    """(exit code, standard output, the screen) of `collector ARGUMENTS` on a terminal."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stdout, code = StringIO(), 0
    with patch.dict(os.environ, {"CONFIG_PATH": str(rig.path), "TERM": "xterm", **environ}):
        try:
            with terminal() as screen, redirect_stdout(stdout):
                try:
                    collector.main(list(arguments), "collector", standalone_mode=False)
                except SystemExit as end:
                    code = end.code if isinstance(end.code, int) else 1
                for handler in root.handlers:
                    handler.flush()
                sys.stderr.flush()
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
    return code, stdout.getvalue(), screen.text
