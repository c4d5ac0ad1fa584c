"""Files by name: what a listing says, and a file that is made only if it is not there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ResourceExistsError

from ml.storage.stores import AzureStore, FolderStore, Store


def test_a_listing_says_what_is_there_and_when_it_was_written(lake: Store) -> None:
    before = datetime.now(UTC)
    lake.write("a/2", b"two")
    lake.write("a/1", b"one and more")
    lake.write("b/1", b"")
    found = lake.list("a/")
    assert [(blob.name, blob.size) for blob in found] == [("a/1", 12), ("a/2", 3)]
    for blob in found:
        assert blob.written is not None
        assert abs(blob.written - before) < timedelta(seconds=60)
    assert lake.list("a/") == found


def test_of_many_at_once_one_makes_it(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for name in map(str, range(30)):
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda n, name=name: store.create(f"log/{name}", f"{n}".encode()), range(8)))
        assert made.count(True) == 1
        assert store.read(f"log/{name}") == f"{made.index(True)}".encode()
    assert len(store.list("log/")) == 30, "nothing is left beside them"


class Storage:
    """A container whose answers are lost: the SDK asks again, and is told that the file is there."""

    def __init__(self, there: bytes) -> None:
        self.there = there

    def upload_blob(self, name: str, content: bytes, *, overwrite: bool) -> None:
        assert not overwrite
        raise ResourceExistsError(name)

    def download_blob(self, name: str) -> Any:
        return type("Download", (), {"readall": lambda _: self.there})()


@pytest.mark.parametrize(
    ("there", "ours"), [(b"ours", True), (b"theirs", False)], ids=["the-answer-was-lost", "the-race-was-lost"]
)
def test_what_is_there_tells_whose_it_is(there: bytes, ours: bool) -> None:
    store = AzureStore.__new__(AzureStore)
    store.client = Storage(there)  # type: ignore[assignment]
    assert store.create("log/1", b"ours") is ours
