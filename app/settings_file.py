"""The settings file is replaced as a whole, by one that was read and found right before, or not at all."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from app.config import Loaded, Settings, load
from app.errors import SettingsError
from app.settings_editing import Feed, recorded

BOM = b"\xef\xbb\xbf"


class Edit(NamedTuple):
    """The new text of the file, and what is to be recorded then."""

    text: str
    recorded: set[Feed]


def editable(loaded: Loaded) -> Path:
    """The file that has the markets. Raises: SettingsError where they come from anywhere else."""
    if loaded.file is None:
        raise SettingsError("there is no settings file, all settings come from the environment; change them there")
    for key, origin in loaded.origins.items():
        if key.startswith("markets[") and key.endswith(".symbols") and not origin.startswith(f"{loaded.file.name}:"):
            raise SettingsError(
                f"the markets come from {origin}, which wins over {loaded.file}; change them there, or remove them there"
            )
    return loaded.file


def edit(
    file: Path, change: Callable[[str, Settings], Edit], environ: Mapping[str, str] = os.environ
) -> tuple[Settings, Settings]:
    """Replace the text of `file` by that of `change(text, settings)`; the settings before and after.

    The new file takes the place of the old one, with its mode and owner, only if it reads as the same settings but for
    the markets, and these record what was meant; two that edit at once do so one after the other. Raises: SettingsError
    with every fault; the file is then as it was.
    """
    try:
        with _locked(file.parent):
            before = load(file, environ)
            editable(before)
            content = file.read_bytes()
            text = content.removeprefix(BOM).decode()
            meant = change(text, before.settings)
            if meant.text == text:
                return before.settings, before.settings
            new = (BOM if content.startswith(BOM) else b"") + meant.text.encode()
            return before.settings, _replace(file.resolve(), new, before.settings, meant.recorded, environ)
    except OSError as error:
        raise SettingsError(
            f"{file} cannot be replaced: {error.strerror}; see who may write it and its directory, or edit it by hand"
        ) from error


def _replace(file: Path, content: bytes, before: Settings, wanted: set[Feed], environ: Mapping[str, str]) -> Settings:
    """In the directory of the file, beside the same .secrets.toml: what is tried there is what will be read."""
    old = file.stat()
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".new")
    try:
        with os.fdopen(handle, "wb") as new:
            os.fchmod(handle, stat.S_IMODE(old.st_mode))
            if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(handle, old.st_uid, old.st_gid)
            new.write(content)
            new.flush()
            os.fsync(handle)
        try:
            after = load(name, environ).settings
        except SettingsError as error:
            said = [fault.replace(name, str(file)).replace(Path(name).name, file.name) for fault in error.faults]
            raise SettingsError(*said) from None
        if recorded(after) != wanted or replace(after, markets=()) != replace(before, markets=()):
            raise SettingsError(f"{file} cannot be changed without changing something else; edit it by hand")
        os.replace(name, file)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
    _sync(file.parent)
    return after


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Holds the directory: the file itself is another one after each edit."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
