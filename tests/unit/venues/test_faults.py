from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.venues.cli import VENUES
from app.venues.faults import CATALOGUE, LIMITS, VENUE_NAMES, Fault, FaultError, Param, fault, faults
from app.venues.spoiled import KINDS

WORDS = st.text("abcdefghijklmnopqrstuvwxyzABC0123456789-. ", min_size=1, max_size=12).filter(lambda t: t.strip() == t)
#: Values that are right by themselves, and wrong together with others.
CODES = st.sampled_from([1000, 1001, 1012, 3000, 4999])
STATUSES = st.sampled_from([403, 418, 429, 451, 503])


def values(key: str, param: Param) -> st.SearchStrategy[Any]:
    if key in ("code", "status"):
        return CODES if key == "code" else STATUSES
    if isinstance(param.of, tuple):
        return st.sampled_from(param.of) if param.of else WORDS
    if param.of is int:
        return st.integers(int(param.low), int(param.high))
    return st.floats(param.low, param.high)


@st.composite
def asked(draw: st.DrawFn) -> dict[str, Any]:
    name = draw(st.sampled_from(sorted(CATALOGUE)))
    kind = CATALOGUE[name]
    known = dict(kind.params) | {key: limit for key in sorted(kind.limits) if (limit := LIMITS[key])}
    keys = draw(st.sets(st.sampled_from(sorted(known))))
    given = {"fault": name} | {key: draw(values(key, known[key])) for key in sorted(keys)}
    if name == "reset" and "venue" in given:
        given["venue"] = "okx"
    if name == "refuse-symbol":
        given["symbol"] = "BTC-USDT"
    return given


@given(given=st.lists(asked(), max_size=4))
def test_a_fault_reads_the_same_as_json_and_as_text_and_says_itself_again(given: list[dict[str, Any]]) -> None:
    by_json = faults(json.dumps(given))
    lines = [",".join([one["fault"], *(f"{k}={v}" for k, v in one.items() if k != "fault")]) for one in given]
    assert faults(" ; ".join(lines)) == faults("\n".join(f"  {line}  # why" for line in lines)) == by_json
    assert [fault(one.plain()) for one in by_json] == by_json
    for one, wanted in zip(by_json, given, strict=True):
        assert one.plain().items() >= wanted.items()
        assert one.params.keys() == CATALOGUE[one.name].params.keys(), "every parameter has a value"


@given(text=st.text(max_size=60) | st.text(alphabet='lose,=;#{}[]"\n: venukx1', max_size=60))
def test_any_other_text_is_refused_in_a_sentence(text: str) -> None:
    try:
        assert all(isinstance(one, Fault) for one in faults(text))
    except FaultError as error:
        assert len(str(error)) > 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("half-opened", "no fault 'half-opened'; did you mean 'half-open'?"),
        ("lose,vanue=okx", "lose has no 'vanue'; did you mean 'venue'?"),
        ("lose,venue=kraken", "lose: venue is 'kraken', not binance or coinbase or upbit or okx or bybit"),
        ("lose,feed", "lose: 'feed' is not key=value"),
        ("lose,count=2,count=3", "lose has 'count' twice"),
        ("lose,probability=1.5", "lose: probability is 1.5, not from 0.0 to 1.0"),
        ("lose,count=2.5", "lose: count is '2.5', not an integer"),
        ("slow,byte_s=soon", "slow: byte_s is 'soon', not a number"),
        ("slow,byte_s=nan", "slow: byte_s is nan, not from 0.0 to 1000000000.0"),
        ("silence,count=3", "silence has no 'count'; there is after_s, connection, feed, for_s, symbol, venue"),
        ("close,code=1006", "close: 1006 is no code that a close frame may carry"),
        ("close,code=2000", "close: 2000 is no code that a close frame may carry"),
        (f"close,reason={'x' * 124}", "close: a close frame holds no more than 123 bytes of reason"),
        ("http,status=444", "http: 444 is no HTTP status"),
        ("reset,venue=upbit", "reset: upbit has no numbers that start over; okx and bybit have"),
        ("refuse-symbol,venue=okx", "refuse-symbol needs a symbol"),
        ("oversized,bytes=70000000", "oversized: bytes is 70000000, not from 1 to 67108864"),
        ("[1]", "write an object, or a list of objects"),
        ('{"fault": true}', "no fault True"),
        ('{"fault": "lose", "count": true}', "lose: count is True, not an integer"),
    ],
)
def test_what_is_wrong_is_told_with_what_would_be_right(text: str, words: str) -> None:
    with pytest.raises(FaultError) as told:
        faults(text)
    assert str(told.value).startswith(words)


def test_broken_json_is_told_as_such() -> None:
    with pytest.raises(FaultError, match="not JSON"):
        faults('{"fault": ')


def test_every_venue_can_be_named_and_every_kind_of_garbage() -> None:
    assert tuple(VENUES) == VENUE_NAMES
    assert CATALOGUE["garbage"].params["kind"].of == ("any", *KINDS)
