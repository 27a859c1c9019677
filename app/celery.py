"""The Celery instance. `celery -A app worker` finds it here; the only file of app/ that imports celery."""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery

# Flower reads it after this file and looks into the current directory otherwise; `--conf` on its command line wins.
os.environ.setdefault("FLOWER_CONF", str(Path(__file__).with_name("flowerconfig.py")))

app = Celery("collector", task_cls="tasks.refusal:Task")
app.config_from_object("celeryconfig")
