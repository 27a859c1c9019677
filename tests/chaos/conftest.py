"""The nursery whose runs are killed, one for the whole session."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from app.launch.environment import clean
from tests.support import crash


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[crash.Nursery]:
    with crash.nursery(tmp_path_factory.mktemp("nursery"), clean(os.environ)) as made:
        yield made
