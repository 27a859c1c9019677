"""Real frames made bad: what a faulty venue, proxy or wire could make of them, from a random source that is given."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

#: Values that stand where another was: of every JSON type, at the edges of 32, 53, 63 and 64 bits, and beyond all.
ODD: list[Any] = [
    None, True, False, [], {}, [[]], [{}], "", " ", "0", "-1", "null", "1e3", "NaN", "\x00", "\ud800", "₿" * 70, "x" * 5000,
    "9223372036854775807", "9223372036854775808", "18446744073709551616", "0001-01-01T00:00:00.000000Z", "-" * 400,
    "9999-12-31T23:59:59.999999-23:59", 0, -1, 1, 2, 10**11, 10**17, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64,
    10**100, 10**4000, 0.5, -0.0, 1e308, float("nan"), float("inf"), float("-inf"), {"data": [1]}, ["snapshot"],
]  # fmt: skip
_MEMBER = re.compile(rb'"\w+":(?:"[^"\\]*"|-?\d+|null|true)')
_NUMBER = re.compile(rb"-?\d+")

Places = list[tuple[Any, Any]]


def mutated(rng: random.Random, frame: bytes, others: Sequence[bytes]) -> bytes:
    """`frame` after one to three mutations; `others` are frames of the same connection to take pieces from."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        frame = rng.choice(MUTATIONS)(rng, frame, others)
    return frame


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value inside `tree`."""
    if isinstance(tree, dict | list):
        for key, value in list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)):
            yield tree, key
            yield from places(value)


def _flipped(rng: random.Random, frame: bytes, others: Sequence[bytes]) -> bytes:
    changed = bytearray(frame)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _without(rng: random.Random, frame: bytes, others: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(frame) + 1)
    return frame[:at] + frame[at + rng.choice((1, 1, 2, 9, 100)) :]


def _with(rng: random.Random, frame: bytes, others: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(frame) + 1)
    pieces = (
        rng.randbytes(rng.randrange(1, 9)),
        rng.choice((b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b" ", b"0")),
    )
    return frame[:at] + rng.choice(pieces) + frame[at:]


def _cut(rng: random.Random, frame: bytes, others: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(frame) + 1)
    return rng.choice((frame[:at], frame[at:]))


def _spliced(rng: random.Random, frame: bytes, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others)
    return frame[: rng.randrange(len(frame) + 1)] + other[rng.randrange(len(other) + 1) :]


def _joined(rng: random.Random, frame: bytes, others: Sequence[bytes]) -> bytes:
    return rng.choice((b"%s%s", b"%s\n%s", b"[%s,%s]", b'{"data":%s,"data":%s}')) % (frame, rng.choice(others))


def _duplicated_key(rng: random.Random, frame: bytes, others: Sequence[bytes]) -> bytes:
    """A member stands twice in its object, once with the value of another frame's."""
    members = list(_MEMBER.finditer(frame))
    if not members:
        return frame
    member = rng.choice(members)
    name = member[0].partition(b":")[0]
    twins = [other[0] for other in _MEMBER.finditer(rng.choice(others)) if other[0].startswith(name + b":")]
    return frame[: member.start()] + rng.choice([*twins, name + b":" + _odd_text(rng)]) + b"," + frame[member.start() :]


def _other_number(rng: random.Random, frame: bytes, others: Sequence[bytes]) -> bytes:
    """Digits changed where they stand, in a number or in a string: ids and times go back, on, or beyond all bounds."""
    numbers = list(_NUMBER.finditer(frame))
    if not numbers:
        return frame
    found = rng.choice(numbers)
    value = int(found[0][:4000])
    new = rng.choice((value + 1, value - 1, value + 1000, 0, -1, 1, 2**63 - 1, 2**63, 10**30, value * 1000))
    return frame[: found.start()] + str(new).encode() + frame[found.end() :]


def _nested(rng: random.Random, frame: bytes, others: Sequence[bytes]) -> bytes:
    brackets = [at for at, byte in enumerate(frame) if byte in b"[{"]
    at, depth = (rng.choice(brackets) if brackets else 0), rng.choice((5, 200, 3000))
    opened, closed = rng.choice(((b"[", b"]"), (b'{"data":', b"}"), (b'[{"a":', b"}]")))
    return frame[:at] + opened * depth + frame[at:] + closed * rng.choice((0, depth))


def _not_utf8(rng: random.Random, frame: bytes, others: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(frame) + 1)
    return (
        frame[:at] + rng.choice((b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82")) + frame[at:]
    )


def _other_value(rng: random.Random, frame: bytes, others: Sequence[bytes]) -> bytes:
    """Another value somewhere in the tree: an odd one, one of the same name of another frame, its neighbour's, or none."""
    tree, found = _tree(frame)
    if not found:
        return _odd_text(rng)
    container, key = rng.choice(found)
    _, elsewhere = _tree(rng.choice(others))
    namesakes = [holder[name] for holder, name in elsewhere if name == key]
    match rng.randrange(5):
        case 0:
            del container[key]
        case 1 if namesakes:
            container[key] = rng.choice(namesakes)
        case 2:
            other, name = rng.choice(found)
            container[key], other[name] = json.loads(json.dumps([other[name], container[key]]))
        case 3 if isinstance(container, list):
            container.insert(key, container[key])
        case _:
            container[key] = rng.choice(ODD)
    return _written(rng, tree)


def _tree(frame: bytes) -> tuple[Any, Places]:
    try:
        tree = json.loads(frame)
        return tree, list(places(tree))
    except (ValueError, RecursionError):  # of an earlier mutation
        return None, []


def _odd_text(rng: random.Random) -> bytes:
    return _written(rng, rng.choice(ODD))


def _written(rng: random.Random, tree: Any) -> bytes:
    text = json.dumps(tree, separators=rng.choice(((",", ":"), (", ", ": "))), ensure_ascii=rng.random() < 0.5)
    return text.encode("utf-8", "surrogatepass")


def _empty(rng: random.Random, frame: bytes, others: Sequence[bytes]) -> bytes:
    return rng.choice((b"", b" ", b"null", b"{}", b"[]", b"\x00", b"pong", b"ping", b"NaN"))


MUTATIONS: tuple[Callable[[random.Random, bytes, Sequence[bytes]], bytes], ...] = (
    _flipped, _without, _with, _cut, _spliced, _joined, _duplicated_key, _other_number, _other_number, _nested,
    _not_utf8, _other_value, _other_value, _other_value, _empty,
)  # fmt: skip
