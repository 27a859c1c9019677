from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from app.objects.bucket import BucketStore
from app.objects.local import LocalStore
from app.objects.store import Store


def stores(root: Path) -> list[Store]:
    return [LocalStore(root), BucketStore("archive", "us-west-2")]


def test_both_stores_have_every_method_of_the_contract_and_a_stable_name(tmp_path: Path) -> None:
    local, bucket = stores(tmp_path)
    assert (local.name, bucket.name) == ("local", "s3:archive")


@pytest.mark.parametrize("method", [name for name in vars(Store) if not name.startswith("_") and name != "name"])
def test_a_method_takes_the_arguments_of_the_contract(method: str, tmp_path: Path) -> None:
    wanted = list(inspect.signature(getattr(Store, method)).parameters.values())[1:]
    for store in stores(tmp_path):
        assert list(inspect.signature(getattr(store, method)).parameters.values()) == wanted


def test_no_store_can_delete(tmp_path: Path) -> None:
    for store in stores(tmp_path):
        assert [name for name in dir(store) if "delete" in name or "remove" in name] == []
