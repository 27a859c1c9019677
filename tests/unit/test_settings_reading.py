"""Types are strict: what is not written as the type of its key is refused, not bent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.settings_reading import convert, meant


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (int, 5, 5),
        (int | None, 5, 5),
        (float, 5, 5),
        (float, 0.5, 0.5),
        (str, "5", "5"),
        (Path, "data/x.db", Path("data/x.db")),
        (tuple[str, ...], ["a", "b"], ("a", "b")),
    ],
)
def test_a_value_of_its_type_is_taken(hint: Any, value: object, expected: object) -> None:
    assert convert(hint, value) == expected


@pytest.mark.parametrize(
    ("hint", "value", "why"),
    [
        (int, True, "is no whole number"),
        (int, 5.0, "is no whole number"),
        (int, "5", "is no whole number"),
        (float, False, "is no number"),
        (float, float("nan"), "is no number"),
        (float, float("inf"), "is no number"),
        (str, 5, "is no text"),
        (str, " ", "is empty"),
        (Path, "a\0b", "is empty"),
        (Path, "~/data", "begins with '~'"),
        (tuple[str, ...], "a", "is no list of texts"),
        (tuple[str, ...], [], "is no list of texts"),
        (tuple[str, ...], ["a", 5], "is no list of texts"),
    ],
)
def test_a_value_of_another_type_is_refused(hint: Any, value: object, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}"):
        convert(hint, value)


def test_the_environment_may_write_a_list_with_commas_and_a_text_without_quotes() -> None:
    assert convert(tuple[str, ...], "a, b", text="a, b") == ("a", "b")
    assert convert(str, 5, text="5") == "5"


def test_the_nearest_name_is_meant_and_without_one_all_are_told() -> None:
    assert meant("Prefx", ("url", "prefix")) == "did you mean prefix?"
    assert meant("q", ("url", "prefix")) == "known are: url, prefix"
