"""How long to wait before the next connection attempt. Pure."""

from __future__ import annotations

#: A venue that says "too many" without saying for how long is left alone for this.
DEFAULT_RETRY_AFTER_S = 60.0
#: The longest ban that a venue documents (Binance, rest-api.md: "from 2 minutes to 3 days"), whatever a header says.
LONGEST_RETRY_AFTER_S = 3 * 86_400.0


def told_s(retry_after: str) -> float | None:
    """Seconds that a `Retry-After` header asks for, three days at most; None where it says none (or a date).

    >>> [told_s(text) for text in ("7", "9" * 400, "", "-1", "Wed, 21 Oct 2026 07:28:00 GMT")]
    [7.0, 259200.0, None, None, None]
    """
    return min(float(retry_after), LONGEST_RETRY_AFTER_S) if retry_after.isdecimal() else None


def delay_s(failures: int, initial_s: float, longest_s: float, jitter: float) -> float:
    """Seconds to wait after `failures` attempts in a row that brought no data: doubled each time, up to `longest_s`.

    `jitter` is a random number of [0, 1); it spreads the result over +-25 %, so that many streams cut at the same
    moment do not come back at the same moment.

    >>> [delay_s(n, 1, 60, 0.5) for n in (0, 1, 2, 3, 9)]
    [0.0, 1.0, 2.0, 4.0, 60.0]
    """
    if failures <= 0:
        return 0.0
    return float(min(initial_s * 2 ** min(failures - 1, 32), longest_s)) * (0.75 + 0.5 * jitter)
