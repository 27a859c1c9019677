"""The local spool of one stream: batches that Redis could not take, on disk, in order.

A directory of numbered files, each a row of records: length u32, CRC-32 u32, element. Appends are fsynced. A torn tail
(the machine died in the middle of an append) ends the file; what stands before it is whole. A file is removed when its
last element has been delivered; a crash before that delivers its elements again, and the flush counts them as replays.
A damaged one is kept beside, as `.damaged`.
"""

from __future__ import annotations

import fcntl
import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from app.codec import HEADER_BYTES, events_in
from app.errors import SpoolFull

#: Records whose events are counted when a stream takes its spool up.
COUNTED_RECORDS = 50_000
_RECORD = struct.Struct(">II")
#: A file is closed and a new one begun at this size, so that delivered bytes leave the disk while others wait.
FILE_BYTES = 8 * 1024 * 1024
#: What the spools of a host hold together is looked up so often; what this process appends meanwhile is added.
LOOK_S = 1.0


class Bound:
    """At most `max_bytes` in all spools below `root`. Shared by the spools of a process."""

    def __init__(self, root: Path, max_bytes: int, now_s: Callable[[], float]) -> None:
        self.root, self._max_bytes, self._now_s = root, max_bytes, now_s
        self._held_bytes, self._look_s = 0, -math.inf

    def take(self, size: int) -> None:
        """Count `size` bytes in. Raises: SpoolFull, and nothing is counted."""
        if self._now_s() >= self._look_s:
            self._held_bytes, self._look_s = size_bytes(self.root), self._now_s() + LOOK_S
        if self._held_bytes + size > self._max_bytes:
            raise SpoolFull(self._held_bytes, self._max_bytes)
        self._held_bytes += size

    def look_again(self) -> None:
        """There may be less by now."""
        self._look_s = -math.inf


class Spool:
    """The spool of one stream, `root/<stream>/`. Used by one process at a time (see `lock`)."""

    def __init__(
        self,
        bound: Bound,
        stream: str,
        on_damage: Callable[[str, int, int], None] = lambda path, at_byte, size_bytes: None,
    ) -> None:
        self.directory = bound.root / stream
        self._bound = bound
        self._on_damage = on_damage
        self._tail: BinaryIO | None = None
        self._tail_bytes = 0
        self._lock: BinaryIO | None = None
        self._lock_late = False
        #: How far into each file everything has been delivered.
        self._delivered: dict[str, int] = {}
        self._waiting: bool | None = None

    def lock(self) -> bool:
        """Take the directory for this process, until `close`. False when another process of this host has it.

        Raises: OSError where the disk gives no place for it: then nothing waits there, and `append` tries again.
        """
        self._lock_late = True
        self.directory.mkdir(parents=True, exist_ok=True)
        # Not opened for writing: a file system that is read-only by now still says who uses the directory.
        handle = os.fdopen(os.open(self.directory / "lock", os.O_RDONLY | os.O_CREAT, 0o644), "rb")
        self._lock_late = False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.close()
            return False
        self._lock = handle
        return True

    def close(self) -> None:
        """Close the files and give the lock back."""
        for handle in (self._tail, self._lock):
            if handle is not None:
                handle.close()
        self._tail = self._lock = None

    def __bool__(self) -> bool:
        """True while anything waits. Looked up once: while the lock is held nobody else changes the directory."""
        if self._waiting is None:
            self._waiting = bool(self._files())
        return self._waiting

    def _files(self) -> list[Path]:
        return sorted(self.directory.glob("*.spool"))

    def waiting(self) -> tuple[int, int]:
        """(bytes, events) that wait, by what its records say of themselves; delivered ones of the oldest file are in it.

        A stream waits for the answer: of more than COUNTED_RECORDS records the events of these are told. Raises: OSError.
        """
        size = events = records = 0
        for path in self._files():
            with path.open("rb") as file:
                while records < COUNTED_RECORDS and len(head := file.read(_RECORD.size + HEADER_BYTES)) > _RECORD.size:
                    length, _ = _RECORD.unpack_from(head)
                    if length < HEADER_BYTES:
                        break  # torn
                    events, records = events + events_in(head[_RECORD.size :]), records + 1
                    file.seek(length - HEADER_BYTES, os.SEEK_CUR)
                size += path.stat().st_size
        return size, events

    def append(self, element: bytes) -> None:
        """Write one element durably. Raises: SpoolFull (nothing written); OSError, after which nothing half stays."""
        if self._lock_late and not self.lock():
            raise BlockingIOError(f"{self.directory} is in use by another process of this host")
        self._bound.take(_RECORD.size + len(element))
        if self._tail is None or self._tail_bytes >= FILE_BYTES:
            self._begin_file()
        tail = self._tail
        assert tail is not None
        start = self._tail_bytes
        self._waiting = True
        rest = memoryview(_RECORD.pack(len(element), zlib.crc32(element)) + element)
        try:
            while rest:
                rest = rest[tail.write(rest) :]
            os.fsync(tail.fileno())
            self._tail_bytes = tail.tell()
        except OSError:
            self._bound.look_again()
            self._tail = None  # it may end in half a record: the next append begins a new file
            tail.close()
            if start:
                os.truncate(tail.name, start)
            else:  # a disk stays full for many attempts: none leaves an empty file behind
                os.unlink(tail.name)
            raise

    def _begin_file(self) -> None:
        if self._tail is not None:
            self._tail.close()
        taken = [int(path.stem) for path in (*self._files(), *self.directory.glob("*.damaged"))]
        number = max(taken, default=0) + 1
        # Unbuffered: a buffer would write what a full disk refused once more when the file is closed.
        self._tail = (self.directory / f"{number:012d}.spool").open("xb", buffering=0)
        self._tail_bytes = 0
        directory = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(directory)  # the file's name, too, must outlive the machine
        finally:
            os.close(directory)

    def drain(self, deliver: Callable[[bytes], bool]) -> bool:
        """Hand out every element, oldest first, until `deliver` says no. True when the spool is empty.

        What `deliver` raises goes through; everything not delivered stays. Raises: OSError, where a file that was delivered
        cannot be removed: it is not delivered again by this process, nor does it keep what comes from Redis.
        """
        kept: OSError | None = None
        for path in self._files():
            end = start = self._delivered.get(path.name, 0)
            for element, end in read_records(path, start):
                if not deliver(element):
                    return False
                self._delivered[path.name] = end
            damaged_bytes = path.stat().st_size - end
            if self._tail is not None and Path(self._tail.name) == path:
                self._tail.close()
                self._tail = None
            try:
                if damaged_bytes:
                    self._on_damage(str(path), end, damaged_bytes)
                    path.rename(path.with_suffix(".damaged"))
                else:
                    path.unlink()
            except OSError as error:
                kept = error
                continue
            self._bound.look_again()
            self._delivered.pop(path.name, None)  # the next file may get this one's number
        self._waiting = False
        if kept is not None:
            raise kept
        return True


def read_records(path: Path, start: int = 0) -> Iterator[tuple[bytes, int]]:
    """The whole records of a spool file from byte `start`, each with the byte after it, up to the end or a torn one."""
    with path.open("rb") as file:
        file.seek(start)
        while len(head := file.read(_RECORD.size)) == _RECORD.size:
            length, checksum = _RECORD.unpack(head)
            element = file.read(length)
            # No element is empty: zeros are what a file system may leave of an append that never reached the disk.
            if not length or len(element) != length or zlib.crc32(element) != checksum:
                return
            yield element, file.tell()


def streams(root: Path) -> list[str]:
    """Streams with anything in their spool."""
    return sorted({path.parent.name for path in root.glob("*/*.spool")})


def size_bytes(root: Path, stream: str = "*") -> int:
    """Bytes in all spools below `root`, or in that of one stream."""
    total = 0
    for path in root.glob(f"{stream}/*.spool"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # drained meanwhile
            continue
    return total


def sizes(root: Path) -> dict[str, int]:
    """Stream -> bytes in its spool, of every stream that has a directory below `root`, also of empty ones."""
    return {directory.name: size_bytes(directory.parent, directory.name) for directory in root.glob("*/")}
