"""Objects as files under one directory."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from app.errors import KeyTaken, StoreRefused, StoreUnavailable, VerifyFailed
from app.objects.disk import fsync_directory, make_directories, pieces, sha256_of
from app.objects.layout import checked_key, is_key
from app.objects.store import Capabilities, Proof

#: Files that are not objects yet. A leading dot, so that no key can reach it.
INCOMING = ".incoming"

#: What only the operator can change, and how. Every other OSError is worth a retry.
_REFUSALS = {
    errno.EACCES: "give the user that runs Collector read and write permission there",
    errno.EPERM: "give the user that runs Collector permission there, on a file system that has hard links",
    errno.EROFS: "the file system is read-only: mount it writable, or set [storage] local_path elsewhere",
    errno.EEXIST: "a file stands where a directory is needed: move it away",
    errno.ENOTDIR: "a file stands where a directory is needed: move it away",
    errno.EISDIR: "a directory stands where a file is needed: move it away",
    errno.ELOOP: "a symbolic link leads in a circle: remove it",
    errno.EXDEV: "the whole of [storage] local_path must be one file system",
    errno.EOPNOTSUPP: "the file system has no hard links: set [storage] local_path to one that has",
    errno.EMLINK: "the file system allows no more links: set [storage] local_path elsewhere",
    errno.ENAMETOOLONG: "the file system allows no name as long as that: set [storage] local_path elsewhere",
}
_RETRIES = {
    errno.ENOSPC: "the disk is full: free space, or set [storage] local_path elsewhere",
    errno.EDQUOT: "the disk quota is used up: raise it, or set [storage] local_path elsewhere",
    errno.EIO: "the disk reports an input/output error: look at the system log and replace it",
}


class LocalStore:
    """Objects under `root`: each is linked into place whole and durable, and no link ever replaces another."""

    name = "local"

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / INCOMING

    def prepare(self) -> None:
        """Make the directory, prove that it can be written and linked in, and remove what killed processes left."""
        with self._faults("", self.root):
            make_directories(self._incoming)
            for leftover in self._incoming.glob("*.tmp"):
                _remove_unless_held(leftover)
            with self._temporary() as (_, path):
                twin = path.with_suffix(".link.tmp")
                os.link(path, twin)
                twin.unlink()

    def capabilities(self) -> Capabilities:
        """A directory computes no checksum, so everything is read back; linking refuses a name that is taken."""
        return Capabilities(refuses_wrong_sha256=False, refuses_overwrite=True)

    def put(self, key: str, path: Path, sha256: str) -> bool:
        """As `Store.put`: copy, hash, fsync, link without replacing, fsync the directory."""
        with open(path, "rb") as source:
            size_bytes = os.fstat(source.fileno()).st_size
            target = self._target(key)
            with self._faults(key, target):
                if target.exists():
                    return self._adopt(key, target, sha256, size_bytes)
                make_directories(self._incoming)
                make_directories(target.parent)
                with self._temporary() as (file, temporary):
                    sha = hashlib.sha256()
                    for piece in pieces(source):
                        file.write(piece)
                        sha.update(piece)
                    if sha.hexdigest() != sha256:
                        found = sha.hexdigest()
                        raise VerifyFailed(self.name, key, f"{path} has sha256 {found}, not {sha256}; write it anew")
                    file.flush()
                    os.fsync(file.fileno())
                    try:
                        os.link(temporary, target)
                    except FileExistsError:
                        return self._adopt(key, target, sha256, size_bytes)
                fsync_directory(target.parent)
                return True

    def prove(self, key: str, sha256: str, size_bytes: int) -> Proof:
        """As `Store.prove`: the file is read back from the disk, as far as the system allows."""
        with self._read(key) as file:
            difference = _difference(file, sha256, size_bytes)
        if difference:
            raise VerifyFailed(self.name, key, difference, "sha256" if difference.startswith("sha256") else "size")
        return Proof(how="read_back", sha256=sha256, size_bytes=size_bytes)

    def open(self, key: str) -> BinaryIO:
        """As `Store.open`."""
        target = self._target(key)
        with self._faults(key, target):
            try:
                return open(target, "rb")
            except (FileNotFoundError, IsADirectoryError) as error:
                raise VerifyFailed(self.name, key, f"there is no object at {target}") from error

    def keys(self, prefix: str = "") -> Iterator[str]:
        """As `Store.keys`."""
        with self._faults("", self.root):
            yield from (key for key in _walk(self.root, "", prefix) if is_key(key))

    def _adopt(self, key: str, target: Path, sha256: str, size_bytes: int) -> bool:
        with self._read(key) as file:
            difference = _difference(file, sha256, size_bytes)
            if difference:
                raise KeyTaken(self.name, key, f"other bytes stand at {target}: {difference}")
            # Whoever linked it may have been killed before this, and then only the cache has it.
            os.fsync(file.fileno())
        fsync_directory(target.parent)
        return False

    def _target(self, key: str) -> Path:
        target = self.root / checked_key(key)
        # The key has no way out of the root; a symbolic link inside it may be one.
        if not target.resolve().is_relative_to(self.root.resolve()):
            raise StoreRefused(self.name, key, f"{target} leads outside {self.root}: remove the symbolic link")
        return target

    @contextmanager
    def _read(self, key: str) -> Iterator[BinaryIO]:
        """The object's file, errors while it is read being the store's."""
        with self.open(key) as file, self._faults(key, self.root / key):
            yield file

    @contextmanager
    def _temporary(self) -> Iterator[tuple[BinaryIO, Path]]:
        """A new file that is ours while it is locked, gone afterwards: what stays is only what was linked."""
        path = self._incoming / f"{token_hex(16)}.tmp"
        with open(path, "xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield file, path
            finally:
                path.unlink(missing_ok=True)

    @contextmanager
    def _faults(self, key: str, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            number = error.errno or 0
            said = f"{error.filename or path}: {error.strerror or error}"
            if number in _REFUSALS:
                raise StoreRefused(self.name, key, f"{said}; {_REFUSALS[number]}") from error
            raise StoreUnavailable(self.name, key, f"{said}; {_RETRIES.get(number, 'tried again later')}") from error


def _difference(file: BinaryIO, sha256: str, size_bytes: int) -> str:
    """How the file is not the one described, "" where it is."""
    stored_bytes = os.fstat(file.fileno()).st_size
    if stored_bytes != size_bytes:
        return f"{stored_bytes} bytes, not {size_bytes}"
    if hasattr(os, "posix_fadvise"):
        # Otherwise the cache would vouch for the disk. Only pages already written are dropped, which put() saw to.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    stored = sha256_of(file)
    return "" if stored == sha256 else f"sha256 {stored}, not {sha256}"


def _walk(directory: Path, above: str, prefix: str) -> Iterator[str]:
    """Keys of the files below `directory`, ascending as whole keys: `a-b/c` comes before `a/b`."""
    with os.scandir(directory) as entries:
        visible = [entry for entry in entries if not entry.is_symlink() and not entry.name.startswith(".")]
    for name in sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in visible):
        key = above + name
        if name.endswith("/"):
            if key.startswith(prefix) or prefix.startswith(key):
                yield from _walk(directory / name, key, prefix)
        elif key.startswith(prefix):
            yield key


def _remove_unless_held(path: Path) -> None:
    """Remove a temporary file whose process is gone: a lock ends with its process, a clock would be a guess."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
    except (BlockingIOError, FileNotFoundError):
        pass
