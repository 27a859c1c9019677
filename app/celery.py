"""The Celery instance. `celery -A app worker` finds it here; the only file of app/ that imports celery."""

from __future__ import annotations

from celery import Celery

app = Celery("collector", task_cls="tasks.refusal:Task")
app.config_from_object("celeryconfig")
