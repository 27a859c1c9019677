"""What an object store must do for us. Implemented by `local.LocalStore` and `bucket.BucketStore`.

The contract suite (tests/contract/test_stores.py) runs over both, and over two real S3 servers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec


class Capabilities(msgspec.Struct, frozen=True):
    """What a store was *seen* to do, by trying it (never taken from its name).

    Only a store that refuses a wrong checksum is believed without reading the bytes back; only one that refuses a
    second put under `If-None-Match` protects a key against another writer.
    """

    refuses_wrong_sha256: bool
    refuses_overwrite: bool


class Proof(msgspec.Struct, frozen=True):
    """How the bytes in the store were proved equal to ours: `store_sha256` (the store computed it) or `read_back`."""

    how: str
    sha256: str
    size_bytes: int


class Store(Protocol):
    """Immutable objects by key. Keys come from `layout` and never contain `..`, `\\` or a leading slash."""

    #: Stable name for ledger and manifests, such as `local` or `s3:bucket`.
    name: str

    def prepare(self) -> None:
        """Make the store usable (directory, bucket on 404 only); may be repeated.

        Raises: StoreRefused, StoreUnavailable.
        """

    def capabilities(self) -> Capabilities:
        """Probed once per instance. Raises: StoreRefused, StoreUnavailable."""

    def put(self, key: str, path: Path, sha256: str) -> bool:
        """Store the file under a free key. True: stored now; False: equal bytes were already there (ours, adopted).

        Raises: KeyTaken when other bytes stand there; VerifyFailed when the file itself no longer has this sha256
        (nothing was stored); StoreUnavailable, StoreRefused; ValueError for a key that no layout makes; OSError where
        `path` cannot be read.
        """

    def prove(self, key: str, sha256: str, size_bytes: int) -> Proof:
        """Prove that the object's bytes are ours, the cheapest way that really proves it.

        Raises: VerifyFailed where they are not, or there are none; StoreUnavailable, StoreRefused.
        """

    def open(self, key: str) -> BinaryIO:
        """The object's bytes as a readable, seekable file; the caller closes it.

        Raises: VerifyFailed where there is no such object; StoreUnavailable, StoreRefused.
        """

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Every key that starts with `prefix`, ascending; what cannot be a key of ours is passed over."""
