"""docs/reliability.md names the tests of each row, and each test that carries a row is named there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Family -> number of its last row.
FAMILIES = {"K": 11, "R": 6, "D": 5, "S": 10, "T": 2, "X": 13, "C": 7, "O": 2}


def rows() -> dict[str, str]:
    """Row -> its cell of tests, in the order of the page."""
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    return dict(re.findall(r"(?m)^\| ([A-Z]\d+) \| [^|]+ \| ([^|]+) \| [^|]+ \|$", text))


def documented() -> set[tuple[str, str]]:
    return {(row, test) for row, cell in rows().items() for test in re.findall(r"`(tests/\S+?\.py::\w+)`", cell)}


def carried() -> set[tuple[str, str]]:
    """(row, path::name) of every `@pytest.mark.row("...")`."""
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        if "mark.row(" not in text:
            continue
        for function in ast.walk(ast.parse(text)):
            for mark in function.decorator_list if isinstance(function, ast.FunctionDef) else ():
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.row":
                    (row,) = (ast.literal_eval(argument) for argument in mark.args)
                    found.add((row, f"{path.relative_to(ROOT).as_posix()}::{function.name}"))
    return found


def test_every_row_is_there_once_and_in_order() -> None:
    assert list(rows()) == [f"{family}{n}" for family, last in FAMILIES.items() for n in range(1, last + 1)]


def test_every_row_names_existing_tests_that_carry_it_and_no_test_carries_a_row_unnamed() -> None:
    assert documented() == carried()


def test_a_row_without_a_test_says_so() -> None:
    tested = {row for row, _ in documented()}
    assert {row for row, cell in rows().items() if cell.strip() == "not yet"} == set(rows()) - tested
