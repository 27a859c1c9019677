"""Where telemetry's events go: structlog, with a logger for each kind of event."""

from __future__ import annotations

from functools import cache
from typing import Any

import structlog


@cache
def _logger(noun: str) -> Any:
    return structlog.get_logger(f"collector.{noun}")


class EventLog:
    """The first word of an event names its logger: `[collector] log_level` may say `collector.connection=warning`."""

    def info(self, event: str, **facts: Any) -> None:
        _logger(event.partition(".")[0]).info(event, **facts)

    def warning(self, event: str, **facts: Any) -> None:
        _logger(event.partition(".")[0]).warning(event, **facts)

    def critical(self, event: str, **facts: Any) -> None:
        _logger(event.partition(".")[0]).critical(event, **facts)

    def error(self, event: str, **facts: Any) -> None:
        _logger(event.partition(".")[0]).error(event, **facts)
