"""What a failure of the archive is called: in the log by its kind, in `archive_failures_total` by the step. Pure."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError

from app.errors import KeyTaken, StoreRefused, StoreUnavailable, VerifyFailed

#: What an error means to whoever looks at `object.failed`. Every other error is of `write`.
KINDS: dict[type[Exception], str] = {
    StoreUnavailable: "unavailable",
    StoreRefused: "refused",
    VerifyFailed: "verify",
    KeyTaken: "conflict",
}


def kind_of(error: Exception) -> str:
    """The `stage` of `object.failed`."""
    return next((kind for known, kind in KINDS.items() if isinstance(error, known)), "write")


def step_of(at: str, error: Exception) -> str:
    """The `stage` of the metric, in the words of the customer's documents: what was being done, and what SQLite read."""
    if isinstance(error, DBAPIError):
        return "fetch"
    if at == "verify":
        return f"verify_{error.about}" if isinstance(error, VerifyFailed) else "verify_head"
    return at
