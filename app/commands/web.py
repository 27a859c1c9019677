"""`collector web`: health, readiness, metrics."""

from __future__ import annotations

import os
import signal
import sys
import threading

import click

from app.commands.settings import wired


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), help="Default: $PORT, else [collector] metrics_port.")
def web(host: str, port: int | None) -> None:
    """Serve /health, /ready and /metrics."""
    import uvicorn

    from app.pipeline.supervise import follow_settings
    from app.web.application import application

    wiring = wired("web")
    threading.Thread(target=follow_settings, args=(wiring, threading.Event()), name="settings", daemon=True).start()
    chosen = port or int(os.environ.get("PORT") or wiring.settings.collector.metrics_port)
    # uvicorn ends gracefully on SIGTERM and then raises it once more: an orderly stop is exit code 0.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(application(wiring), host=host, port=chosen, log_config=None, access_log=False)
