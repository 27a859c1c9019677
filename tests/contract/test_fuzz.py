"""Bad input can never crash a stream: real frames, made bad in every way we know, through the real session and on.

What comes out of the session goes into the outbox, into batches, and into a segment: nothing that passes the session is
refused later. `COLLECTOR_TEST_SEED` repeats a run or makes another one; a failure names its seed.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.connection.actions import Close
from app.errors import FrameRejected
from app.exchanges.base import Subscription
from app.model import Event, Quarantined
from tests.support.fuzzed import VENUES, Connection, recorded, stored_whole
from tests.support.mutations import ODD, mutated
from tests.unit.exchanges.golden import frames

SEED = int(os.environ.get("COLLECTOR_TEST_SEED", "20261121"))
FRAMES = 10_000

each_venue = pytest.mark.parametrize("venue", VENUES)


def stream(venue: str, rng: random.Random) -> Iterator[tuple[bytes, bool]]:
    """(frame, whether it is as it was recorded), without an end: runs of recorded frames, more than half of them bad."""
    files = recorded(venue)
    pool = [line for lines in files for line in lines]
    while True:
        lines = rng.choice(files)
        start = rng.randrange(len(lines))
        run = lines[start : start + rng.randrange(1, 20)]
        if rng.random() < 0.2:
            rng.shuffle(run)
        for frame in run:
            bad = rng.random() < 0.55
            for _ in range(1 if rng.random() < 0.9 else 3):
                yield (mutated(rng, frame, pool), False) if bad else (frame, True)


def as_alone(venue: str, asked: Subscription, frame: bytes) -> list[tuple[str, str, str]]:
    """The events of a frame on a connection of its own."""
    try:
        messages: Any = VENUES[venue].decoder(asked).decode(frame.decode())
    except FrameRejected:
        return []
    return [(m.symbol, m.feed, m.data) for m in messages if hasattr(m, "feed")]


@each_venue
def test_no_frame_however_bad_ends_a_session_or_is_refused_later(venue: str, tmp_path: Path) -> None:
    rng = random.Random(f"{SEED} {venue}")
    connection = Connection(venue)
    close: Close | None = None
    left, payload = 0, b""
    try:
        for payload, whole in (frame for frame, _ in zip(stream(venue, rng), range(FRAMES), strict=False)):
            outputs = connection.receive(payload)
            if whole:  # whatever came before it
                found = [(o.symbol, o.feed, o.data) for o in outputs if isinstance(o, Event)]
                assert found == as_alone(venue, connection.asked, payload)
            outputs += connection.tick(rng.choice((0.01, 0.25, 0.25, 2.0))) if rng.random() < 0.2 else []
            asked_to = [output for output in outputs if isinstance(output, Close)]
            if close is None and asked_to:
                close, left = asked_to[0], rng.randrange(5)  # what is under way is still read
            elif close is not None and (left := left - 1) <= 0:
                connection.close()
                connection.open()
                close = None
        connection.close()
        stored_whole(connection, tmp_path)
    except Exception as error:
        error.add_note(f"COLLECTOR_TEST_SEED={SEED}, {venue}, epoch {connection.epoch}, last frame {payload[:2000]!r}")
        raise


json_values = st.recursive(
    st.sampled_from([odd for odd in ODD if not isinstance(odd, list | dict)]) | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
#: Ids, times and counts as a venue may never have meant them.
odd_numbers = st.integers(-3, 3) | st.integers(2**63 - 3, 2**63 + 1) | st.sampled_from([10**11, 10**14, 10**17, 2**64])


@each_venue
@settings(deadline=None)
@given(payload=st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
@example(payload=b"")
@example(payload=b"[" * 100_000)
@example(payload=b'{"data":' * 100_000)
@example(payload=b"\xef\xbb\xbf{}")
def test_any_bytes_and_any_json_are_quarantined_as_they_are_or_say_nothing(venue: str, payload: bytes) -> None:
    connection = Connection(venue)
    outputs = connection.receive(payload)
    assert [type(output) for output in outputs] in ([], [Quarantined], [Close])
    connection.close()


@each_venue
@settings(deadline=None)
@given(draw=st.data())
def test_whatever_the_numbers_of_a_frame_are_what_comes_out_of_it_fits_everywhere(
    venue: str, draw: st.DataObject
) -> None:
    connection = Connection(venue)
    lines = st.sampled_from([line for lines in recorded(venue) for line in lines if len(line) < 600])
    frame = draw.draw(lines)
    for _ in range(draw.draw(st.integers(1, 4))):
        changed = re.sub(
            rb"(?<=[:\"])-?\d{2,}(?=[,}\"])|(?<=:)-?\d|(?<=:\")\d(?=\")",
            lambda found: str(draw.draw(odd_numbers)).encode() if draw.draw(st.booleans()) else found[0],
            frame,
        )
        connection.receive(changed)
    connection.close()


@each_venue
@pytest.mark.parametrize("word", ["a", "a.", "channel:a,", " "])
def test_a_word_of_two_hundred_thousand_characters_in_an_answer_keeps_nobody_waiting(venue: str, word: str) -> None:
    connection = Connection(venue)
    for line in frames(venue, "control"):
        for found in re.finditer(r'"[^"]*"', line):
            connection.receive(
                f"{line[: found.end() - 1]}{word * (200_000 // len(word))}{line[found.end() - 1 :]}".encode()
            )
    connection.close()
