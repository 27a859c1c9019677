"""`collector web`: dashboard, health, readiness, metrics."""

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
    """Serve the dashboard, /api, /health, /ready and /metrics; it only reads.

    On an address that others can reach it wants [web] token: as the password that a browser asks for (any user), or as
    bearer token. Without one it answers /health and /ready alone there (docs/dashboard.md).
    """
    import uvicorn

    from app.pipeline.supervise import follow_settings
    from app.web.application import application

    wiring = wired("web")
    threading.Thread(target=follow_settings, args=(wiring, threading.Event()), name="settings", daemon=True).start()
    chosen = port or int(os.environ.get("PORT") or wiring.settings.collector.metrics_port)
    # uvicorn ends gracefully on SIGTERM and then raises it once more: an orderly stop is exit code 0.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server: uvicorn.Server
    app = application(wiring, host, lambda: server.should_exit)
    server = uvicorn.Server(
        uvicorn.Config(app, host, chosen, log_config=None, access_log=False, timeout_graceful_shutdown=5)
    )
    server.run()
