"""Flower's configuration. `celery -A app flower` finds it through FLOWER_CONF, which app/celery.py sets; Flower executes it.

The environment (FLOWER_*) is known here, and the command line, which is read once more afterwards and wins. Flower lets
everybody in who reaches it, on all addresses, unless told otherwise: here it listens on this machine alone, changes nothing,
and refuses to start where others could reach it without a password.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

from tornado.options import options

from app.addresses import is_here
from celeryconfig import settings


def _from_file(name: str) -> str | None:
    """What the file that FLOWER_<name>_FILE names holds: secrets need not stand in the environment."""
    path = os.environ.get(f"FLOWER_{name}_FILE")
    return Path(path).read_text(encoding="utf-8").strip() if path else None


def _kept_secret() -> str:
    """The secret that signs logins: of the environment, else one that is made once and kept beside the ledger."""
    if given := os.environ.get("FLOWER_COOKIE_SECRET") or _from_file("COOKIE_SECRET"):
        return given
    path = settings.database.path.parent / "flower-cookie-secret"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(48))
    except FileExistsError:
        pass
    return path.read_text(encoding="ascii")


def _refusal(address: str, passwords: list[str]) -> str | None:
    """Why Flower must not be started like this; None: it may."""
    if [one for one in passwords if not all(one.partition(":")[::2])]:
        return "FLOWER_BASIC_AUTH must be user:password (several: separated by commas), and neither of them empty"
    if passwords or options.auth:
        return None
    if not is_here(address) and not options.unix_socket:
        return (
            f"Flower would let everybody in who reaches {address}: set FLOWER_BASIC_AUTH=user:password"
            " (or FLOWER_BASIC_AUTH_FILE), or listen on 127.0.0.1"
        )
    if (os.environ.get("FLOWER_UNAUTHENTICATED_API") or "0").lower() not in ("0", "false", "no", "n", "f", "off"):
        return "FLOWER_UNAUTHENTICATED_API opens the API to every page a browser visits: leave it out"
    return None


try:
    address = options.address or "127.0.0.1"
    _in_file = _from_file("BASIC_AUTH")
    basic_auth = (options.basic_auth or []) if _in_file is None else [_in_file]
    read_only = True
    cookie_secret = _kept_secret()
    _why = _refusal(address, basic_auth)
except OSError as error:
    _why = f"{error.filename}: {error.strerror}"
if _why is not None:
    print(f"error: {_why}", file=sys.stderr)
    sys.exit(2)
