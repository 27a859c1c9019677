"""What may go wrong at a venue, and how a user asks for it. Pure.

A *fault* is one line of a user: `lose,venue=binance,feed=trade,probability=0.01`, or the same as a JSON object. When it
strikes is in `rules`, what it does in `mischief`, `gate` and `tricks`.
"""

from __future__ import annotations

import http
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any

import msgspec

from app.venues.dialect import ORDERBOOK, TRADE
from app.venues.spoiled import KINDS

VENUE_NAMES = ("binance", "coinbase", "upbit", "okx", "bybit")
MEBIBYTE = 1 << 20


class FaultError(ValueError):
    """A fault that cannot be, in a sentence that says what would."""


class Param(msgspec.Struct, frozen=True):
    """One value of a fault. `of` is int or float (from `low` to `high`), or the words that it may be; () is any text."""

    default: float | str
    of: type[int] | type[float] | tuple[str, ...]
    low: float = 0
    high: float = 1e9


class Kind(msgspec.Struct, frozen=True):
    """One kind of fault. `limits`: what may narrow it down. `lasting`: it strikes whenever it can, not once."""

    #: What a fault of this kind waits for: `frame`, `request`, `message` (of a client), `step` (of a market) or `time`.
    place: str
    text: str
    limits: frozenset[str]
    params: dict[str, Param] = {}
    lasting: bool = False


TIMES, DRAWS, WHERE = frozenset({"after_s", "for_s"}), frozenset({"probability", "count", "skip"}), frozenset({"venue"})
ON_FRAME = WHERE | {"symbol", "feed", "connection"} | DRAWS | TIMES
#: The limits every fault may have, by name.
LIMITS: dict[str, Param | None] = {
    "venue": Param("", VENUE_NAMES),
    "symbol": Param("", ()),
    "feed": Param("", (ORDERBOOK, TRADE)),
    "connection": Param(0, int, 1),
    "probability": Param(1.0, float, 0, 1),
    "count": Param(0, int),
    "skip": Param(0, int),
    "after_s": Param(0.0, float),
    "for_s": Param(0.0, float),
}

CATALOGUE: dict[str, Kind] = {
    "half-open": Kind(
        "frame", "the peer goes silent: nothing is read or written any more, and no FIN is sent", ON_FRAME
    ),
    "cut": Kind(
        "frame",
        "the connection ends without a close frame, by RST or by FIN",
        ON_FRAME,
        {"how": Param("rst", ("rst", "fin"))},
    ),
    "close": Kind(
        "frame",
        "the venue closes cleanly, with this code and reason",
        ON_FRAME,
        {"code": Param(1001, int, 1000, 4999), "reason": Param("going away", ())},
    ),
    "planned-cut": Kind(
        "frame",
        "Binance `serverShutdown`, OKX notice 64008, elsewhere no word; close_s later the connection is closed (0: never)",
        ON_FRAME,
        {"close_s": Param(60.0, float), "code": Param(1001, int, 1000, 4999)},
    ),
    "max-age": Kind(
        "time",
        "a connection is closed when it is this old: Binance's 24 h cut, sooner",
        WHERE | {"connection", "count"} | TIMES,
        {"age_s": Param(86_400.0, float), "code": Param(1001, int, 1000, 4999)},
        lasting=True,
    ),
    "silence": Kind(
        "frame",
        "a feed falls silent; acknowledgements, heartbeats and the other feeds go on",
        WHERE | {"symbol", "feed", "connection"} | TIMES,
        lasting=True,
    ),
    "lose": Kind("frame", "a frame is made and not sent: a real hole, listed as withheld", ON_FRAME),
    "duplicate": Kind("frame", "a frame is sent several times", ON_FRAME, {"times": Param(2, int, 2, 1000)}),
    "reorder": Kind(
        "frame",
        "a frame comes after the next ones of its feed instead of before them",
        ON_FRAME,
        {"by": Param(1, int, 1, 1000)},
    ),
    "slow": Kind("frame", "a frame arrives byte by byte", ON_FRAME, {"byte_s": Param(1.0, float)}),
    "garbage": Kind(
        "frame",
        "a spoiled copy of a frame is sent before it",
        ON_FRAME,
        {"kind": Param("any", ("any", *KINDS))},
    ),
    "oversized": Kind(
        "frame", "a huge frame is sent, streamed", ON_FRAME, {"bytes": Param(64 * MEBIBYTE, int, 1, 64 * MEBIBYTE)}
    ),
    "bomb": Kind(
        "frame",
        "a small compressed frame that inflates to this many bytes; with RSV1 all the same where nothing was negotiated",
        ON_FRAME,
        {"bytes": Param(64 * MEBIBYTE, int, 1, 256 * MEBIBYTE)},
    ),
    "compress": Kind(
        "request",
        "permessage-deflate is taken up where the client offers it",
        WHERE | {"connection"} | DRAWS | TIMES,
        lasting=True,
    ),
    "slow-handshake": Kind(
        "request",
        "the answer to the opening handshake comes byte by byte, or never (0); at most 30 s",
        WHERE | {"connection"} | DRAWS | TIMES,
        {"byte_s": Param(1.0, float)},
    ),
    "http": Kind(
        "request",
        "handshake, REST or both are refused, in the venue's words",
        WHERE | DRAWS | TIMES,
        {
            "status": Param(429, int, 400, 599),
            "retry_after_s": Param(0, int),
            "on": Param("both", ("both", "handshake", "rest")),
        },
        lasting=True,
    ),
    "late-rest": Kind("request", "REST answers late", WHERE | DRAWS | TIMES, {"s": Param(5.0, float)}, lasting=True),
    "late-ack": Kind(
        "message",
        "subscriptions are answered late, while their data already comes; pongs are in time",
        WHERE | {"connection"} | DRAWS | TIMES,
        {"s": Param(5.0, float)},
        lasting=True,
    ),
    "refuse-symbol": Kind(
        "message",
        "a symbol that was fine is unknown to new subscriptions, and with listing=drop not listed either",
        WHERE | {"symbol", "connection"} | DRAWS | TIMES,
        {"listing": Param("keep", ("keep", "drop"))},
        lasting=True,
    ),
    "skew": Kind(
        "step",
        "the venue's timestamps are shifted",
        WHERE | {"symbol"} | TIMES,
        {"ms": Param(1000, int, -86_400_000, 86_400_000)},
        lasting=True,
    ),
    "burst": Kind(
        "step",
        "the rate is multiplied",
        WHERE | {"symbol"} | TIMES,
        {"factor": Param(50.0, float, 0.001, 1e6)},
        lasting=True,
    ),
    "reset": Kind(
        "step",
        "book numbers start over: Bybit a snapshot with u=1, OKX an update whose seqId is below its prevSeqId",
        WHERE | {"symbol"} | DRAWS | TIMES,
    ),
    "heartbeat": Kind(
        "time",
        "the heartbeat rules, in other time: all waits times `scale`; strict=yes: data sent does not keep a client alive",
        WHERE | TIMES,
        {"scale": Param(1.0, float, 1e-6, 1e6), "strict": Param("no", ("no", "yes"))},
        lasting=True,
    ),
}


class Fault(msgspec.Struct, frozen=True):
    """One fault as asked for: only what the user gave, and the value of every parameter."""

    name: str
    limits: dict[str, Any]
    params: dict[str, Any]

    @property
    def kind(self) -> Kind:
        return CATALOGUE[self.name]

    def plain(self) -> dict[str, Any]:
        """The JSON object that asks for it."""
        return {"fault": self.name} | self.limits | self.params


def fault(given: dict[str, Any]) -> Fault:
    """The fault of this JSON object, or of these texts. Raises: FaultError."""
    rest = dict(given)
    name = rest.pop("fault", None)
    kind = CATALOGUE.get(name) if isinstance(name, str) else None
    if kind is None:
        raise FaultError(f"no fault {name!r}{_near(str(name), CATALOGUE)}")
    assert isinstance(name, str)
    limits, params = {}, {key: param.default for key, param in kind.params.items()}
    for key, value in rest.items():
        if param := kind.params.get(key):
            params[key] = _value(name, key, value, param)
        elif key in kind.limits and (limit := LIMITS[key]):
            limits[key] = _value(name, key, value, limit)
        else:
            raise FaultError(f"{name} has no {key!r}{_near(key, [*kind.params, *kind.limits])}")
    _check(name, limits, params)
    return Fault(name, limits, params)


def faults(text: str) -> list[Fault]:
    """The faults of a text: JSON (an object or a list), or `name,key=value,...` separated by `;` or lines, `#` comments.

    Raises: FaultError.
    """
    if text.lstrip().startswith(("{", "[")):
        try:
            value = msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise FaultError(f"not JSON: {error}") from error
        listed = value if isinstance(value, list) else [value]
        if not all(isinstance(one, dict) for one in listed):
            raise FaultError("write an object, or a list of objects")
        return [fault(one) for one in listed]
    return [fault(_parts(line)) for line in _lines(text)]


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        for part in line.partition("#")[0].split(";"):
            if part.strip():
                yield part.strip()


def _parts(line: str) -> dict[str, str]:
    name, *pairs = [part.strip() for part in line.split(",")]
    found = {"fault": name}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise FaultError(f"{name}: {pair!r} is not key=value")
        if key.strip() in found:
            raise FaultError(f"{name} has {key.strip()!r} twice")
        found[key.strip()] = value.strip()
    return found


def _value(name: str, key: str, value: Any, param: Param) -> Any:
    of = param.of
    if isinstance(of, tuple):
        value = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
        if not isinstance(value, str) or not value or (of and value not in of):
            raise FaultError(f"{name}: {key} is {value!r}, not {' or '.join(of) or 'a text'}")
        return value
    try:
        if isinstance(value, bool) or (of is int and isinstance(value, float) and not value.is_integer()):
            raise ValueError
        number = of(value)
    except (TypeError, ValueError, OverflowError):
        raise FaultError(f"{name}: {key} is {value!r}, not a{'n integer' if of is int else ' number'}") from None
    if not param.low <= number <= param.high:
        raise FaultError(f"{name}: {key} is {value}, not from {of(param.low)} to {of(param.high)}")
    return number


def _check(name: str, limits: dict[str, Any], params: dict[str, Any]) -> None:
    """What no single value shows."""
    code = params.get("code", 1000)
    if code in (1004, 1005, 1006) or 1014 < code < 3000:
        raise FaultError(f"{name}: {code} is no code that a close frame may carry")
    if len(str(params.get("reason", "")).encode()) > 123:
        raise FaultError(f"{name}: a close frame holds no more than 123 bytes of reason")
    if "status" in params and params["status"] not in set(http.HTTPStatus):
        raise FaultError(f"{name}: {params['status']} is no HTTP status")
    if name == "reset" and limits.get("venue") not in (None, "okx", "bybit"):
        raise FaultError(f"reset: {limits['venue']} has no numbers that start over; okx and bybit have")
    if name == "refuse-symbol" and "symbol" not in limits:
        raise FaultError("refuse-symbol needs a symbol")


def _near(word: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = get_close_matches(word, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; there is {', '.join(known)}"
