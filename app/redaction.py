"""Secrets out of texts: the last line of defence. The first is that nothing of ours ever formats one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from app.config import SECTIONS, Settings
from app.settings_rules import ADDRESSES, SECRETS, STARS

#: What is shorter cannot be told from other text. Inside an address it is masked all the same.
SHORTEST = 5
#: Variables of the environment that others read (boto3, Flower), by their names.
_NAMED_SECRET = re.compile(
    r".*(SECRET|PASSWORD|PASSWD|TOKEN|BASIC_AUTH|ACCESS_KEY|API_KEY).*(?<!_FILE)(?<!_DIR)(?<!_PATH)"
)
#: `scheme://user:password@`, whoever's it is.
_USERINFO = re.compile(r"(://[^\s/:@\"'\\]*:)[^\s/@\"'\\]+@")


class Redaction:
    """Masks `secrets`, in every spelling a log, a traceback or an address gives them, and any password in an address."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = sorted({form for secret in secrets for form in _spellings(secret)}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, forms))) if forms else None

    def __call__(self, text: str) -> str:
        """`text` with stars."""
        if self._known is not None:
            text = self._known.sub(STARS, text)
        return _USERINFO.sub(rf"\1{STARS}@", text) if "@" in text else text


def secrets(settings: Settings, environ: Mapping[str, str]) -> set[str]:
    """Every secret that `settings` or `environ` hold: keys, tokens, passwords inside addresses."""
    found: set[str] = set()
    tables: list[tuple[str, object]] = [(name, getattr(settings, name)) for name in SECTIONS]
    tables += [("exchanges", exchange) for exchange in settings.exchanges.values()]
    tables += [("markets", group) for group in settings.markets]
    for name, table in tables:
        for f in fields(table):  # type: ignore[arg-type]
            value = getattr(table, f.name)
            if not isinstance(value, str):
                continue
            if f"{name}.{f.name}" in SECRETS:
                found.add(value)
            elif f"{name}.{f.name}" in ADDRESSES:
                found.update(_of_address(value))
    for name, value in environ.items():
        if _NAMED_SECRET.fullmatch(name):
            found.update(part for pair in value.split(",") for part in (pair, pair.partition(":")[2]))
    return {secret for secret in found if secret}


def _of_address(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    if parts.password:
        yield parts.password
    for name, value in parse_qsl(parts.query):
        if re.search(r"(?i)password|passwd|secret|token|key", name):
            yield value


def _spellings(secret: str) -> set[str]:
    """`secret` and each of its lines (a PEM has several), plain, as an address, as Python and JSON write them."""
    plain = {secret, unquote(secret)}
    plain |= {line for text in plain for line in text.splitlines() if not line.startswith("-----")}
    forms = plain | {quote(text, safe=safe) for text in plain for safe in ("", "/")}
    forms |= {repr(text)[1:-1] for text in plain}
    for ascii_only in (True, False):  # a traceback inside a line: the repr of a text, in JSON
        forms |= {json.dumps(text, ensure_ascii=ascii_only)[1:-1] for text in forms}
    return {form for form in forms if len(form) >= SHORTEST}
