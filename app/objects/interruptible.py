"""A store whose slow answers a stop need not wait for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from app.interruptible import interruptible
from app.objects.store import Capabilities, Proof, Store

T = TypeVar("T")


class InterruptibleStore:
    """`store`, each question of which raises Interrupted soon after `interrupted()` says so.

    An upload that is given up goes on until its connection ends, and may still come about: the next cycle finds its own
    bytes under the key, or none. Nothing is ever stored half.
    """

    def __init__(self, store: Store, interrupted: Callable[[], bool]) -> None:
        self.name = store.name
        self._store, self._interrupted = store, interrupted

    def prepare(self) -> None:
        """As `Store.prepare`."""
        self._ask("prepare", self._store.prepare)

    def capabilities(self) -> Capabilities:
        """As `Store.capabilities`."""
        return self._ask("capabilities", self._store.capabilities)

    def put(self, key: str, path: Path, sha256: str) -> bool:
        """As `Store.put`."""
        return self._ask(f"put {key}", lambda: self._store.put(key, path, sha256))

    def prove(self, key: str, sha256: str, size_bytes: int) -> Proof:
        """As `Store.prove`."""
        return self._ask(f"prove {key}", lambda: self._store.prove(key, sha256, size_bytes))

    def open(self, key: str) -> BinaryIO:
        """As `Store.open`."""
        return self._ask(f"open {key}", lambda: self._store.open(key), lambda file: file.close())

    def keys(self, prefix: str = "") -> Iterator[str]:
        """As `Store.keys`, which nothing that a stop waits for asks."""
        return self._store.keys(prefix)

    def _ask(self, what: str, call: Callable[[], T], discard: Callable[[T], Any] = lambda result: None) -> T:
        return interruptible(call, self._interrupted, f"store {self.name}: {what}", discard)
