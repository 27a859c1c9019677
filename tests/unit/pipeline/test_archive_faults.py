"""What a failure of the archive is called."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import OperationalError

from app.errors import CollectorError, KeyTaken, StoreRefused, StoreUnavailable, VerifyFailed
from app.metrics import VALUES
from app.pipeline.archive_faults import kind_of, step_of

SQLITE = OperationalError("SELECT", None, Exception("malformed"))


@pytest.mark.parametrize(
    ("at", "error", "kind", "step"),
    [
        ("parquet", SQLITE, "write", "fetch"),
        ("parquet", OSError("full"), "write", "parquet"),
        ("parquet", CollectorError("rows"), "write", "parquet"),
        ("upload", StoreUnavailable("s3", "k", "503"), "unavailable", "upload"),
        ("upload", StoreRefused("s3", "k", "403"), "refused", "upload"),
        ("upload", VerifyFailed("s3", "k", "the file rotted"), "verify", "upload"),
        ("verify", VerifyFailed("s3", "k", "5 bytes, not 6", "size"), "verify", "verify_size"),
        ("verify", VerifyFailed("s3", "k", "there is no such object"), "verify", "verify_head"),
        ("verify", VerifyFailed("s3", "k", "sha256 a, not b", "sha256"), "verify", "verify_sha256"),
        ("verify", StoreUnavailable("s3", "k", "timeout"), "unavailable", "verify_head"),
        ("manifest", KeyTaken("s3", "k", "other bytes"), "conflict", "manifest"),
    ],
)
def test_kind_and_step(at: str, error: Exception, kind: str, step: str) -> None:
    assert (kind_of(error), step_of(at, error)) == (kind, step)
    assert step in VALUES["archive_failures_total"]["stage"]
