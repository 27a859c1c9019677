"""Deletion, tested by mutation: a guard of app/pipeline/removal.py is taken out of a copy, and what it stood against happens.

A guard whose absence nothing here notices would be one that no test holds.
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest

from app.errors import RemovalRefused
from app.pipeline import removal
from tests.chaos.sealed import Sealed
from tests.chaos.test_archive_killed import UNPROVED, _first, _in_ledger, archived
from tests.support.rig import Rig

__all__ = ["archived"]

#: The guard, the copy without it, and what is amiss with the archive when segment 1 is to go.
MUTANTS: dict[str, tuple[str, str, Any]] = {
    "an object counts before it is verified": (
        "if entry_.state == VERIFIED and entry_.store == store.name",
        "if entry_.store == store.name",
        lambda rig: _in_ledger(rig, "UPDATE objects SET state = 'written' WHERE segment = 1 AND data_type = 'trade'"),
    ),
    "another store's proof counts too": (
        "if entry_.state == VERIFIED and entry_.store == store.name",
        "if entry_.state == VERIFIED",
        lambda rig: _in_ledger(rig, "UPDATE objects SET store = 's3:away' WHERE segment = 1 AND data_type = 'trade'"),
    ),
    "objects of markets that it does not hold pass": (
        "if extra := stored.keys() - held.keys():",
        "if (extra := stored.keys() - held.keys()) and False:",
        UNPROVED["the ledger has an object of a market that the segment does not hold"][0],
    ),
    "the number of rows is not compared": (
        "if entry.rows != rows:", "if False:", UNPROVED["an object has another number of rows in the ledger"][0],
    ),
    "the sha256 is not compared": (
        "if held.sha256 != entry.sha256 or held.rows != rows:",
        "if held.rows != rows:",
        UNPROVED["an object names another sha256 in the ledger"][0],
    ),
    "the ranges are not compared": (
        "if {(r.epoch, r.first, r.last, r.stored) for r in held.ranges} != ranges:",
        "if False:",
        UNPROVED["a manifest tells other ranges"][0],
    ),
}  # fmt: skip


def remove(rig: Rig, module: Any) -> None:
    """Segment 1 by the `Removal` of this module. Raises: RemovalRefused."""
    wiring = rig.wiring()
    root = wiring.settings.storage.segments_path
    module.Removal(wiring.ledger, root, wiring.stores, step=lambda name: None).remove(_first(rig)[0])


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", MUTANTS)
def test_each_guard_alone_keeps_what_is_not_proved(name: str, archived: tuple[Rig, Sealed]) -> None:
    rig, _ = archived
    guard, without, tamper = MUTANTS[name]
    tamper(rig)
    file = _first(rig)[1]
    with pytest.raises(RemovalRefused):
        remove(rig, removal)
    assert file.exists()

    source = Path(str(removal.__file__)).read_text(encoding="utf-8")
    assert source.count(guard) == 1, "the guard is written in other words now: write them here too"
    mutant = types.ModuleType("mutant")
    exec(compile(source.replace(guard, without), "mutant", "exec"), mutant.__dict__)
    remove(rig, mutant)
    assert not file.exists(), "without it the segment goes unproved: nothing but this guard stood between"
