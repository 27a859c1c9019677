"""The environment of child processes."""

from __future__ import annotations

from collections.abc import Mapping

#: Names (and beginnings of names) that would change what a rehearsal does, and are therefore not passed on to it.
LEAKS = ("COLLECTOR_", "AWS_", "COINBASE_", "FLOWER_", "CELERY_")
LEAKING_NAMES = {
    "APP", "CONFIG_PATH", "PORT", "BROKER_URL", "BATCH_INTERVAL", "ARCHIVE_INTERVAL_SECS", "WS_MESSAGE_TIMEOUT_SECS",
    "WS_INITIAL_RETRY_DELAY_SECS", "WS_MAX_RETRY_DELAY_SECS", "BUCKET_NAME", "METRICS_PORT", "FEEDS", "HOME_SERVER_NAME",
    "LOG_RETENTION_DAYS", "DATABASE_PATH", "ARCHIVE_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
}  # fmt: skip


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without anything that could change settings, credentials or routes of a rehearsal."""
    return {
        name: value
        for name, value in environ.items()
        if not name.upper().startswith(LEAKS) and name.upper() not in LEAKING_NAMES
    }
