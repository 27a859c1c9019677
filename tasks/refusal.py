"""Messages that are none: refused one by one.

Celery unpacks the body of a message before any of its own checks, and a body that is no (arguments, keywords, options) ends
the whole worker: seen with 5.7, `Unrecoverable error: ValueError`, the message back in the queue for the next worker.
"""

from __future__ import annotations

from typing import Any

from celery import Task as CeleryTask
from celery.exceptions import InvalidTaskError
from celery.worker.request import Request


class CheckedRequest(Request):
    """A message for a task. Raises: InvalidTaskError for one of another shape; the worker logs it, drops it, goes on."""

    def __init__(self, message: Any, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(message, *args, **kwargs)
            arguments, keywords, options = self._payload  # type: ignore[attr-defined]
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise InvalidTaskError(f"not a task's message: {type(error).__name__}: {error}") from error
        if not (
            isinstance(arguments, list | tuple) and isinstance(keywords, dict) and isinstance(options, dict | None)
        ):
            raise InvalidTaskError("not a task's message: its body is no list, object, object")


class Task(CeleryTask):  # type: ignore[type-arg]
    """Every task of this application."""

    Request = "tasks.refusal:CheckedRequest"
