"""Numbers in questions: bounded before anything is done with them."""

from __future__ import annotations

MOST = 2**63 - 1


def number(name: str, text: str, least: int = 0, most: int = MOST) -> int:
    """`text` as a number from `least` to `most`. Raises: ValueError with what would do."""
    # So long a text is beyond every bound; Python itself refuses some thousand digits in words of its own.
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(MOST)) and least <= int(text) <= most):
        raise ValueError(f"{name} is {text[:20]!r}: give a number from {least} to {most}")
    return int(text)
