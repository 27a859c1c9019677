"""The Celery application inside the test process, with a real broker: what it takes, what it refuses, what beat sends."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.contrib.testing.worker import start_worker
from kombu import Exchange, Producer, Queue
from kombu.exceptions import ContentDisallowed, EncodeError

from tests.support.path import until
from tests.support.redis_process import RedisProcess


@pytest.fixture(scope="module")
def app(redis_server: RedisProcess) -> Iterator[Any]:
    """`celery -A app` with its tasks. Its logging takes the root logger over: that is undone."""
    from app.celery import app

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    app.loader.import_default_modules()
    yield app
    root.handlers[:] = handlers
    root.setLevel(level)


class Marks:
    """What the task of these tests was given."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.changed = threading.Event()


@pytest.fixture
def marks(app: Any) -> Iterator[Marks]:
    """A task `tests.mark` of the default queue, and a worker of that queue."""
    marks = Marks()

    @app.task(name="tests.mark", shared=False)
    def mark(value: Any) -> None:
        marks.seen.append(value)
        marks.changed.set()

    with start_worker(
        app, pool="threads", concurrency=1, queues=["default"], perform_ping_check=False, shutdown_timeout=15
    ):
        yield marks
    app.tasks.pop("tests.mark")


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.row("C6")
def test_a_pickled_message_is_refused_unread_and_the_worker_goes_on(app: Any, marks: Marks, tmp_path: Path) -> None:
    bomb = tmp_path / "exploded"
    with app.connection_for_write() as connection:
        queue = app.amqp.queues["default"]
        Producer(connection.default_channel).publish(
            pickle.dumps(((Bomb(bomb),), {}, {})),
            exchange=queue.exchange,
            routing_key=queue.routing_key,
            content_type="application/x-python-serialize",
            content_encoding="binary",
            headers={"task": "tests.mark", "id": "1", "lang": "py", "argsrepr": "", "kwargsrepr": ""},
        )
    app.send_task("tests.mark", ("after",))
    until(marks.changed.is_set, "the message after it is handled")
    assert marks.seen == ["after"]
    assert not bomb.exists()


@pytest.mark.row("C6")
def test_an_unknown_task_is_discarded_and_the_worker_goes_on(app: Any, marks: Marks) -> None:
    app.send_task("tests.never_registered", (1,), queue="default")
    app.send_task("tests.mark", ("after",))
    until(marks.changed.is_set, "the message after it is handled")
    assert marks.seen == ["after"]


def test_a_task_for_a_queue_that_does_not_exist_is_an_error_where_it_is_sent(app: Any) -> None:
    from celery.exceptions import QueueNotFound

    with pytest.raises(QueueNotFound):
        app.send_task("flush.run", queue="flsuh")


def test_only_json_goes_out_and_comes_in(app: Any) -> None:
    assert (app.conf.task_serializer, list(app.conf.accept_content)) == ("json", ["json"])
    assert list(app.conf.result_accept_content) == ["json"]
    with pytest.raises(EncodeError):
        app.send_task("flush.run", (object(),))
    with app.connection_for_write() as connection:
        queue = Queue("tests", Exchange("tests"), routing_key="tests", channel=connection.default_channel)
        queue.declare()
        Producer(connection.default_channel).publish({}, exchange="tests", routing_key="tests", serializer="pickle")
        message = queue.get(accept=app.conf.accept_content)
        queue.delete()
        with pytest.raises(ContentDisallowed):
            _ = message.payload


def test_every_task_goes_to_the_queue_of_the_process_that_runs_it(app: Any) -> None:
    routes = {
        name: app.amqp.router.route({}, name)["queue"].name
        for name, task in app.tasks.items()
        if task.__module__.startswith("tasks.")
    }
    assert routes == {
        "streams.run": "streams",
        "streams.supervise": "default",
        "flush.run": "flush",
        "epochs.reckon": "flush",
        "gaps.repair": "gaps",
        "archive.run": "archive",
        "archive.housekeeping": "archive",
        "books.certify": "archive",
    }
    assert {queue.name: queue.routing_key for queue in app.conf.task_queues} == {
        name: name for name in ("default", "streams", "flush", "gaps", "archive")
    }


def test_what_beat_sends_is_worthless_once_the_next_one_is_due(app: Any) -> None:
    schedule = app.conf.beat_schedule
    assert {entry["task"] for entry in schedule.values()} == {
        "streams.supervise", "flush.run", "epochs.reckon", "gaps.repair", "archive.run", "archive.housekeeping",
        "books.certify",
    }  # fmt: skip
    assert {name: entry["options"]["expires"] for name, entry in schedule.items()} == {
        name: entry["schedule"] for name, entry in schedule.items()
    }
    assert {entry["task"] for entry in schedule.values()} <= set(app.tasks)


def test_every_task_is_acknowledged_early(app: Any) -> None:
    """A message that is not acknowledged when Redis goes away ends its worker: kombu has no address to give it back to."""
    assert not any(app.tasks[name].acks_late for name in app.tasks)
    assert app.tasks["streams.run"].max_retries == 0
    assert app.conf.result_backend is None


def test_a_stream_task_on_the_main_thread_of_a_child_is_refused(app: Any) -> None:
    task = app.tasks["streams.run"]
    task.push_request(delivery_info={"routing_key": "streams"})
    try:
        with pytest.raises(RuntimeError, match="threads pool"):
            task.run("binance-0-orderbook.trade")
    finally:
        task.pop_request()
