"""What an S3 store really does, by trying it. Pure, over one way to put.

Three puts to one fixed key, which always hold the same bytes: nothing piles up, nothing needs a Delete, and two probes
at once do not disturb each other.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable

from app.objects.store import Capabilities

#: Reserved, and no object's: keys of ours never start with a dot.
PROBE_PREFIX = ".collector-probe/"
PROBE_KEY = PROBE_PREFIX + "capabilities"
PROBE_BODY = b"Collector puts this object to see what the store checks. It holds no data.\n"


class Answer(enum.Enum):
    """What the store said to one put."""

    STORED = "stored"
    #: 412: the precondition failed, because the key is taken.
    TAKEN = "taken"
    #: The bytes did not have the checksum that was sent with them.
    MISMATCH = "mismatch"
    #: Refused for another reason, such as a header it does not implement or a policy.
    REFUSED = "refused"


def probe(put: Callable[[bytes, str, bool], Answer]) -> Capabilities:
    """What the store was seen to do.

    `put(body, sha256, if_none_match)` puts `body` under `PROBE_KEY` with the hex checksum `sha256` and, if asked,
    `If-None-Match: *`; it raises where the store gave no answer.
    """
    right, wrong = hashlib.sha256(PROBE_BODY).hexdigest(), hashlib.sha256(PROBE_BODY + b"wrong").hexdigest()
    # Without this one, a store that refuses every checksum would look like one that checks them.
    control = put(PROBE_BODY, right, False)
    return Capabilities(
        refuses_overwrite=put(PROBE_BODY, right, True) is Answer.TAKEN,
        refuses_wrong_sha256=control is Answer.STORED and put(PROBE_BODY, wrong, False) is Answer.MISMATCH,
    )
