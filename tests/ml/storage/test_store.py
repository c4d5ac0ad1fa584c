"""Stores of files: what a listing contains, and that `create` never replaces a file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ResourceExistsError

from ml.storage.stores import AzureStore, FolderStore, Store


def test_a_listing_has_name_size_and_time_of_every_file(lake: Store) -> None:
    before = datetime.now(UTC)
    lake.write("a/2", b"two")
    lake.write("a/1", b"one and more")
    lake.write("b/1", b"")
    blobs = lake.list("a/")
    assert [(blob.name, blob.size) for blob in blobs] == [("a/1", 12), ("a/2", 3)]
    for blob in blobs:
        assert blob.written is not None
        assert abs(blob.written - before) < timedelta(seconds=60)
    assert lake.list("a/") == blobs


def test_of_many_concurrent_calls_exactly_one_creates_the_file(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for name in map(str, range(30)):
        with ThreadPoolExecutor(8) as pool:
            created = list(pool.map(lambda n, name=name: store.create(f"log/{name}", f"{n}".encode()), range(8)))
        assert created.count(True) == 1
        assert store.read(f"log/{name}") == f"{created.index(True)}".encode()
    assert len(store.list("log/")) == 30, "no temporary file is left"


class Storage:
    """A container whose responses are lost: the SDK retries, and the service responds that the file exists."""

    def __init__(self, existing: bytes) -> None:
        self.existing = existing

    def upload_blob(self, name: str, content: bytes, *, overwrite: bool) -> None:
        assert not overwrite
        raise ResourceExistsError(name)

    def download_blob(self, name: str) -> Any:
        return type("Download", (), {"readall": lambda _: self.existing})()


@pytest.mark.parametrize(
    ("existing", "created"), [(b"ours", True), (b"theirs", False)], ids=["response-lost", "race-lost"]
)
def test_an_existing_file_with_our_content_counts_as_created(existing: bytes, created: bool) -> None:
    store = AzureStore.__new__(AzureStore)
    store.client = Storage(existing)  # type: ignore[assignment]
    assert store.create("log/1", b"ours") is created
