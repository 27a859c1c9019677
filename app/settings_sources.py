"""settings.toml, .secrets.toml and the environment -> one plain tree, with the origin of every value.

The only importer of dynaconf, which reads and merges; what the values must be is settings_check's. dynaconf is kept to
plain habits: whole lists and tables are replaced, never appended to, and a text such as `@format ...` stays a text.
Later wins: settings.toml, .secrets.toml, older names of the environment, `COLLECTOR_SECTION__KEY`.
"""

from __future__ import annotations

import difflib
import json
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.settings_rules import SECRETS

PREFIX = "COLLECTOR_"
SECRETS_FILE = ".secrets.toml"
#: Docker, Podman and Kubernetes put secrets here, open to whoever runs inside; the host is what has to close them.
MOUNTED_SECRETS = Path("/run/secrets")

#: Plain names of the environment: they are the documented way to give keys.
PLAIN_NAMES = {
    "AWS_ACCESS_KEY": "aws.access_key",
    "AWS_SECRET_KEY": "aws.secret_key",
    "COINBASE_API_KEY": "exchanges.coinbase.api_key",
    "COINBASE_API_SECRET": "exchanges.coinbase.api_secret",
    "COLLECTOR_LOG_LEVEL": "collector.log_level",
}

#: Names of the environment from before settings.toml; still honoured, each with a warning.
OLDER_NAMES = {
    "BATCH_INTERVAL": "collector.batch_interval_secs",
    "ARCHIVE_INTERVAL_SECS": "collector.archive_interval_secs",
    "WS_MESSAGE_TIMEOUT_SECS": "websocket.message_timeout_secs",
    "WS_INITIAL_RETRY_DELAY_SECS": "websocket.initial_retry_delay_secs",
    "WS_MAX_RETRY_DELAY_SECS": "websocket.max_retry_delay_secs",
    "BUCKET_NAME": "aws.bucket",
    "AWS_REGION": "aws.region",
    "METRICS_PORT": "collector.metrics_port",
    "FEEDS": "collector.feeds",
    "HOME_SERVER_NAME": "aws.home_server_name",
    "LOG_RETENTION_DAYS": "collector.log_retention_days",
    "DATABASE_PATH": "database.path",
    "ARCHIVE_DIR": "archive.dir",
}

_TABLE = re.compile(r"\s*\[(\[)?\s*([\w.\"' -]+?)\s*\]")
_PASSWORD = re.compile(r"//[^/@]*:[^/@]+@")
_KEY = re.compile(r"\s*([\w.\"' -]+?)\s*=")


@dataclass(slots=True)
class Sources:
    """What was found. Keys are dotted, as `redis.url`; the first of [[markets]] is `markets[1]`."""

    file: Path | None = None
    tree: dict[str, Any] = field(default_factory=dict)
    #: Where a value, or the table around it, comes from: `settings.toml:12`, `environment COLLECTOR_REDIS__URL`.
    origins: dict[str, str] = field(default_factory=dict)
    #: The environment's own text of a value, before it was parsed: the bucket "5" is a text and not a number.
    texts: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def origin(self, key: str) -> str:
        """Where `key` was set, or the nearest table around it; "default" where nowhere."""
        while key:
            if key in self.origins:
                return self.origins[key]
            key = key[:-1].rpartition("[")[0] if key.endswith("]") else key.rpartition(".")[0]
        return "default"

    def put(self, key: str, origin: str) -> None:
        """Note that `key`, with everything below it, now comes from `origin`."""
        for known in [k for k in self.origins if k == key or k.startswith((f"{key}.", f"{key}["))]:
            del self.origins[known]
        self.origins[key] = origin


def settings_file(path: str | Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file to read: `path`, else CONFIG_PATH, else settings.toml here, else the checkout's; None: there is none."""
    named = path or environ.get("CONFIG_PATH")
    if named:
        return Path(named)
    places = (Path("settings.toml"), Path(__file__).resolve().parent.parent / "settings.toml")
    return next((place for place in places if place.is_file()), None)


def read(path: str | Path | None, environ: Mapping[str, str], sections: Mapping[str, tuple[str, ...]]) -> Sources:
    """Everything that is set anywhere. `sections` (section -> its keys) tells slips of the pen from others' variables.

    Faults (a file that is missing or no TOML) are collected in the answer, never raised.
    """
    sources = Sources(file=settings_file(path, environ))
    merged = _dynaconf()
    if sources.file is not None:
        _load_file(merged, sources.file, sources)
        secrets = sources.file.with_name(SECRETS_FILE)
        if secrets.is_file():
            _warn_if_readable(secrets, SECRETS_FILE, sources)
            apart = _dynaconf()
            _load_file(apart, secrets, sources)
            merged.update({k.replace(".", "__"): v for k, v in _leaves(_tree(apart))})
    for key, (name, text) in _environment(environ, sections, sources).items():
        value = _json(text)
        dunder = key.replace(".", "__")
        merged.update({dunder: text if value is None else value}, tomlfy=value is None)
        sources.put(key, f"environment {name}")
        sources.texts[key] = text
    sources.tree = _tree(merged)
    if sources.file is not None and sources.file.is_file() and _holds_secrets(sources):
        _warn_if_readable(sources.file, sources.file.name, sources)
    return sources


def _dynaconf() -> Any:
    from dynaconf import Dynaconf

    settings = Dynaconf(
        settings_files=[], environments=False, envvar_prefix=None, load_dotenv=False, core_loaders=[], loaders=[]
    )
    # Set, not passed: variables such as MERGE_ENABLED_FOR_DYNACONF win over arguments, and lists would be appended to.
    settings.set("MERGE_ENABLED_FOR_DYNACONF", False)
    settings.set("AUTO_CAST_FOR_DYNACONF", False)
    return settings


def _tree(settings: Any) -> dict[str, Any]:
    """dynaconf's values with top-level names in lower case (it keeps them in upper case, and all others as written)."""
    tree: dict[str, Any] = {name.lower(): value for name, value in settings.as_dict().items()}
    if tree.get("load_dotenv") is False:  # dynaconf lists this argument of ours among the settings
        del tree["load_dotenv"]
    return tree


def _load_file(settings: Any, path: Path, sources: Sources) -> None:
    from dynaconf.loaders import toml_loader

    try:
        text = path.read_text(encoding="utf-8-sig")
        # The text goes in, not the path, whose end would choose the format and bring `*.local.toml` along.
        toml_loader.load(settings, env="_envless", silent=False, filename=[text + "\n"])
    except OSError as error:
        sources.faults.append(
            f"{path}: the settings cannot be read ({error.strerror}); create it or correct CONFIG_PATH"
        )
    except UnicodeDecodeError:
        sources.faults.append(f"{path}: not UTF-8 text; save it as UTF-8")
    except ValueError as error:
        sources.faults.append(f"{path}: not TOML: {error}; correct that place")
    else:
        sources.origins.update({key: f"{path.name}:{line}" for key, line in key_lines(text).items()})


def key_lines(text: str) -> dict[str, int]:
    """Line (from 1) of every table and key of a TOML text, in the order of the text.

    A scan by line, for messages only: a `key =` inside a multi-line text would be taken for one.

    >>> key_lines('[redis]\\nurl = "x"\\n[[markets]]\\nexchange = "okx"\\n')
    {'redis': 1, 'redis.url': 2, 'markets[1]': 3, 'markets[1].exchange': 4}
    """
    lines: dict[str, int] = {}
    table, arrays = "", dict[str, int]()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _TABLE.match(line):
            table = _plain(header[2])
            if header[1]:
                arrays[table] = arrays.get(table, 0) + 1
                table = f"{table}[{arrays[table]}]"
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            lines.setdefault(".".join(filter(None, (table, _plain(key[1])))), number)
    return lines


def _plain(dotted: str) -> str:
    name = ".".join(part.strip().strip("\"'") for part in dotted.split("."))
    section, dot, rest = name.partition(".")
    return section.lower() + dot + rest


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        key = f"{above}{name}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value


def _environment(
    environ: Mapping[str, str], sections: Mapping[str, tuple[str, ...]], sources: Sources
) -> dict[str, tuple[str, str]]:
    """key -> (name, text) of all that the environment sets; an empty variable is as good as none."""
    chosen: dict[str, tuple[str, str]] = {}
    for name, key in OLDER_NAMES.items():
        if environ.get(name):
            new = PREFIX + key.upper().replace(".", "__")
            won = environ.get(new) or environ.get(f"{new}_FILE")
            what = f"is ignored, because {new} is set" if won else f"still sets {key}; write {new} instead"
            sources.warnings.append(f"{name} of the environment is an older name and {what}")
            chosen[key] = name, environ[name]
    for name, key in {**PLAIN_NAMES, **dict(_prefixed(environ, sections, sources))}.items():
        text = _direct_or_file(name, environ, sources)
        if text:
            chosen[key] = name if environ.get(name) else f"{name}_FILE", text
    return chosen


def _prefixed(
    environ: Mapping[str, str], sections: Mapping[str, tuple[str, ...]], sources: Sources
) -> Iterator[tuple[str, str]]:
    meant = {f"{PREFIX}{s}_{k}".upper(): f"{PREFIX}{s}__{k}".upper() for s, keys in sections.items() for k in keys}
    for name in sorted(environ):
        if not name.startswith(PREFIX) or not environ[name]:
            continue
        base = name.removesuffix("_FILE")
        key = base.removeprefix(PREFIX).lower().replace("__", ".")
        if "." in key or key in sections:
            yield base, key
        elif near := difflib.get_close_matches(base, meant, 1, 0.85):
            sources.warnings.append(
                f"{name} of the environment is no setting and is ignored; did you mean {meant[near[0]]}?"
            )


def _direct_or_file(name: str, environ: Mapping[str, str], sources: Sources) -> str | None:
    file = environ.get(f"{name}_FILE")
    if not file:
        return environ.get(name)
    if environ.get(name):
        sources.faults.append(f"{name} and {name}_FILE are both set in the environment; remove one of them")
        return None
    try:
        text = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        sources.faults.append(f"{name}_FILE = {file!r} (environment) cannot be read: {why}; correct the path")
        return None
    _warn_if_readable(Path(file), f"{name}_FILE = {file}", sources)
    if not text:
        sources.faults.append(f"{name}_FILE = {file!r} (environment) is empty; write the value into it")
    return text


def _holds_secrets(sources: Sources) -> bool:
    """Whether the settings file itself has a key, or an address with a password."""
    secrets = {rule.rpartition(".")[2] for rule in SECRETS}
    here = f"{sources.file.name}:" if sources.file is not None else ""
    return any(
        sources.origin(key).startswith(here) and (key.rpartition(".")[2] in secrets or _PASSWORD.search(str(value)))
        for key, value in _leaves(sources.tree)
    )


def _warn_if_readable(path: Path, shown: str, sources: Sources) -> None:
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) and not path.is_relative_to(MOUNTED_SECRETS):
        sources.warnings.append(f"{shown} holds secrets and is open to group or others; chmod 600 {path}")


def _json(text: str) -> Any | None:
    """The value of a JSON list or object that is no TOML (its objects have colons); None where it is neither."""
    if not text.lstrip().startswith(("[", "{")):
        return None
    try:
        tomllib.loads(f"key={text}")
    except tomllib.TOMLDecodeError:
        try:
            return json.loads(text)
        except ValueError:
            return None
    return None
