"""`collector exporter`: celery-prometheus-exporter, with the repair it needs."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from app import telemetry_logs
from app.buffer.client import verified
from app.commands.settings import loaded

QUEUES = ("default", "streams", "flush", "gaps", "archive")


@click.command()
@click.option("--addr", default="127.0.0.1:9808", show_default=True, help="Address and port to listen on.")
def exporter(addr: str) -> None:
    """Serve metrics of the Celery workers and queues (celery-prometheus-exporter).

    Two repairs: a moment without Redis ended the thread that measures queue lengths, so that they froze for ever; and
    the broker's URL with its password stays out of the process list.
    """
    settings = loaded("exporter").settings
    os.environ["BROKER_URL"] = verified(settings.redis.url)  # read when the module is imported
    import celery_prometheus_exporter as upstream

    def measure(self: Any) -> None:
        try:
            with self.celery_app.connection_for_read() as connection:
                client = connection.default_channel.client
                for queue in self.queue_list:
                    self.set_queue_length(queue, client.llen(queue))
        except Exception as error:  # noqa: BLE001 - whatever it is, the next tick tries again
            telemetry_logs.queue_lengths_failed(error)

    thread = upstream.QueueLenghtMonitoringThread  # sic
    thread.measure_queues_length = measure
    thread.periodicity_seconds = 5
    options = {"global_keyprefix": f"{settings.redis.prefix}:celery:"}
    sys.argv = [
        "collector exporter", "--addr", addr, "--enable-events", "--transport-options", json.dumps(options),
        "--queue-list", *QUEUES,
    ]  # fmt: skip
    upstream.main()
