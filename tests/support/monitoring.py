"""The queries of monitoring/: of each alert and each panel, and the selectors they are made of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

MONITORING = Path(__file__).parents[2] / "monitoring"
DASHBOARDS = ("collector", "system")
#: Beginnings of the names that somebody here can answer for; node-exporter's are `node_`.
OURS = ("collector_", "flower_", "celery_")
_SELECTOR = re.compile(r"\b((?:collector|flower|celery|node)_\w+|up|ALERTS)\b(\{[^}]*\})?")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")


class Query(NamedTuple):
    """An expression, and who asks it: an alert's name, or dashboard/panel/target."""

    name: str
    expr: str

    @property
    def selectors(self) -> tuple[str, ...]:
        """Every selector of series in it, as written."""
        return tuple(match[0] for match in _SELECTOR.finditer(self.expr))

    @property
    def of_the_host(self) -> bool:
        """Whether node-exporter has to answer it."""
        return any(selector.startswith("node_") for selector in self.selectors)


def labels_of(selector: str) -> tuple[str, set[str]]:
    """The name of a selector, and the labels it asks for."""
    name, _, rest = selector.partition("{")
    return name, set(_LABEL.findall(rest))


def rules() -> list[dict[str, Any]]:
    """Every alert, as written."""
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[Query]:
    return [Query(rule["alert"], rule["expr"]) for rule in rules()]


def dashboard(name: str) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode((MONITORING / "grafana" / "dashboards" / f"{name}.json").read_bytes())
    return found


def panels(name: str) -> list[dict[str, Any]]:
    """Panels of a dashboard that show something: rows are headings."""
    return [panel for panel in dashboard(name)["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Query]:
    """Every query of every panel, with all of what a variable may choose."""
    for name in DASHBOARDS:
        for panel in panels(name):
            for target in panel["targets"]:
                expr = re.sub(r"\$\w+", ".*", target["expr"])
                yield Query(f"{name}/{panel['title']}/{target['refId']}", expr)
