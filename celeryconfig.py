"""Celery: broker, queues, routes, schedule. Every deviation from Celery's defaults says why."""

from __future__ import annotations

from typing import Any

from kombu import Queue

from app.buffer.client import verified
from app.config import load

_loaded = load()
settings = _loaded.settings
settings_file = _loaded.file

broker_url = verified(settings.redis.url)
broker_connection_retry_on_startup = True
# The default of 100 attempts would end the worker during a long outage of Redis.
broker_connection_max_retries = None
broker_transport_options = {
    # Keys of this collector's queues stay apart from those of another one on the same Redis.
    "global_keyprefix": f"{settings.redis.prefix}:celery:",
    "visibility_timeout": 7200,
    "socket_timeout": 15,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 10,
    "client_name": "collector-celery",
}
task_publish_retry_policy = {"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 1}

# Nothing waits for a result: what a task did stands in the segments and the ledger.
result_backend = None
task_ignore_result = True
# JSON only: a pickled message is refused, not run.
accept_content = ["json"]
task_serializer = "json"
result_accept_content = ["json"]

include = (
    "tasks.streams", "tasks.flush", "tasks.epochs", "tasks.archive", "tasks.books", "tasks.gaps", "tasks.lifecycle",
    "tasks.stopping",
)  # fmt: skip
task_default_queue = "default"
task_queues = tuple(Queue(name, routing_key=name) for name in ("default", "streams", "flush", "gaps", "archive"))
# A task for a queue that does not exist is an error, not a new queue that nobody reads.
task_create_missing_queues = False
task_routes = {
    "streams.run": {"queue": "streams"},
    "streams.supervise": {"queue": "default"},
    "flush.*": {"queue": "flush"},
    "epochs.*": {"queue": "flush"},
    # A queue of its own: it waits for venues, which the flush must not.
    "gaps.*": {"queue": "gaps"},
    "archive.*": {"queue": "archive"},
    # Beside the archive, not the flush: it computes, and would share the flush's GIL.
    "books.*": {"queue": "archive"},
}

# Stream tasks are endless: they need threads (a prefork child never hears the stop), one slot each, and no messages
# reserved behind them. A bare `celery -A app worker` runs everything in this one process. The number is only a bound, a
# thread is made when a task needs it: there is room for 48 streams that are added while the worker runs.
worker_pool = "threads"
worker_concurrency = 2 * len(settings.all_markets()) + 64
worker_prefetch_multiplier = 1
worker_disable_prefetch = True
# A queue of each worker's own: the supervisor says which worker is to have a stream.
worker_direct = True
worker_send_task_events = True
task_send_sent_event = True
worker_hijack_root_logger = False
worker_redirect_stdouts = False
# Of four roots only this one is ours to speak through; see tasks/lifecycle.py.
worker_cancel_long_running_tasks_on_connection_loss = False

enable_utc = True
timezone = "UTC"


def _every(task: str, seconds: float, **options: Any) -> dict[str, Any]:
    """A periodic task whose message is worthless once the next one is due."""
    return {"task": task, "schedule": seconds, "options": {"expires": seconds, **options}}


beat_schedule = {
    # With the time to connect, a killed worker's streams are collected again within their lease and 5 s.
    "supervise": _every("streams.supervise", 3.0),
    "flush": _every("flush.run", settings.collector.batch_interval_secs),
    "reckon": _every("epochs.reckon", 30.0),
    "archive": _every("archive.run", settings.collector.archive_interval_secs),
    "books": _every("books.certify", 60.0),
    "repair": _every("gaps.repair", 10.0),
    "housekeeping": _every("archive.housekeeping", 3600.0),
}
beat_scheduler = "tasks.schedule:Schedule"
# A rebuildable cache of when each task last ran; lives with the data.
beat_schedule_filename = str(settings.database.path.parent / "celerybeat-schedule")
