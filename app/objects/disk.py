"""Bytes on a local disk: what they hash to, and how they stay after a power cut. POSIX."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

#: How much of a file is in memory at once, in bytes.
PIECE_BYTES = 1024 * 1024


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """The rest of `file`, a piece at a time."""
    while piece := file.read(PIECE_BYTES):
        yield piece


def sha256_of(file: BinaryIO) -> str:
    """Hex SHA-256 of the rest of `file`, in bounded memory."""
    sha = hashlib.sha256()
    for piece in pieces(file):
        sha.update(piece)
    return sha.hexdigest()


def fsync_directory(directory: Path) -> None:
    """Make the names in `directory` durable: a rename or link lives in the directory, not in the file."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directories(directory: Path) -> None:
    """Create `directory` and what it lacks above it, each durable in its parent."""
    missing: list[Path] = []
    while not directory.is_dir():
        missing.append(directory)
        directory = directory.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        fsync_directory(path.parent)
