"""Files by name: one small interface over Azure Blob Storage and a plain folder.

The URI decides which: `az://container` or `file:///folder`. Azure credentials come from the environment: an account
key when `AZURE_STORAGE_ACCOUNT_KEY` is set, else the identity of the current user (azure-identity). Tables are read
in `ml.storage.tables`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient


@dataclass(frozen=True)
class Blob:
    """One stored file. `etag` changes whenever its content is written again."""

    name: str  # path inside the store, with forward slashes
    size: int  # bytes
    etag: str
    md5: bytes = b""  # of its content, as the writer declared it; empty when not declared
    written: datetime | None = field(default=None, compare=False)  # by the store's clock


class Store(Protocol):
    def list(self, prefix: str = "") -> list[Blob]:
        """Every file whose name starts with `prefix`, by name."""

    def read(self, name: str) -> bytes:
        """The content of a file. Raises FileNotFoundError."""

    def fetch(self, name: str, path: Path) -> None:
        """Download a file to a local path, a piece at a time. Raises FileNotFoundError."""

    def write(self, name: str, content: bytes, content_type: str = "application/octet-stream") -> None:
        """Write or replace a file in one step: readers see either the old content or the new."""

    def create(self, name: str, content: bytes) -> bool:
        """Create a file in one step; False when it exists. Of several concurrent calls exactly one creates it."""

    def delete(self, name: str) -> None:
        """Remove a file; a missing file is no error."""


class FolderStore:
    """A store in a plain folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, name: str) -> Path:
        path = (self.folder / name).resolve()
        if self.folder.resolve() not in path.parents:
            raise ValueError(f"{name!r} is not a path inside the store's folder")
        return path

    def list(self, prefix: str = "") -> list[Blob]:
        blobs = []
        folder = self.folder / prefix.rpartition("/")[0]
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".tmp-")):
            name = path.relative_to(self.folder).as_posix()
            if name.startswith(prefix):
                stat = path.stat()
                etag = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
                blobs.append(Blob(name, stat.st_size, etag, written=datetime.fromtimestamp(stat.st_mtime, UTC)))
        return blobs

    def read(self, name: str) -> bytes:
        return self._path(name).read_bytes()

    def fetch(self, name: str, path: Path) -> None:
        shutil.copyfile(self._path(name), path)

    def write(self, name: str, content: bytes, content_type: str = "application/octet-stream") -> None:
        del content_type  # a folder cannot store it: the file extension says it
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def create(self, name: str, content: bytes) -> bool:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tmp-{os.getpid()}-{threading.get_ident()}-{path.name}")
        temporary.write_bytes(content)
        try:
            path.hardlink_to(temporary)  # unlike a rename, it never replaces
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        return True

    def delete(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)


class AzureStore:
    """A store in a Blob Storage container (Azurite on a machine without a cloud)."""

    def __init__(self, container: str) -> None:
        self.client = container_client(container)

    def list(self, prefix: str = "") -> list[Blob]:
        return [
            Blob(b.name, b.size, b.etag.strip('"'), bytes(b.content_settings.content_md5 or b""), b.last_modified)
            for b in self.client.list_blobs(name_starts_with=prefix or None)
        ]

    def read(self, name: str) -> bytes:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            return self.client.download_blob(name).readall()
        except ResourceNotFoundError as error:
            raise FileNotFoundError(f"{self.client.container_name}/{name}") from error

    def fetch(self, name: str, path: Path) -> None:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            with path.open("wb") as file:
                self.client.download_blob(name).readinto(file)
        except ResourceNotFoundError as error:
            path.unlink()
            raise FileNotFoundError(f"{self.client.container_name}/{name}") from error

    def write(self, name: str, content: bytes, content_type: str = "application/octet-stream") -> None:
        from azure.storage.blob import ContentSettings

        self.client.upload_blob(
            name, content, overwrite=True, content_settings=ContentSettings(content_type=content_type)
        )

    def create(self, name: str, content: bytes) -> bool:
        from azure.core.exceptions import ResourceExistsError

        try:
            self.client.upload_blob(name, content, overwrite=False)  # If-None-Match: *
        except ResourceExistsError:
            # the SDK retries when a response was lost: then the existing file is ours
            return self.read(name) == content
        return True

    def delete(self, name: str) -> None:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            self.client.delete_blob(name)
        except ResourceNotFoundError:
            pass


def account_url() -> str:
    """The Blob endpoint of the storage account in the environment. Raises OSError when no account is set."""
    account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    if not account:
        raise OSError("AZURE_STORAGE_ACCOUNT_NAME is not set: set it to the storage account that holds the data")
    return os.environ.get("AZURE_STORAGE_ENDPOINT") or f"https://{account}.blob.core.windows.net"


def container_client(container: str) -> ContainerClient:
    from azure.storage.blob import ContainerClient

    key = os.environ.get("AZURE_STORAGE_ACCOUNT_KEY")
    if key:
        credential = {"account_name": os.environ["AZURE_STORAGE_ACCOUNT_NAME"], "account_key": key}
        return ContainerClient(account_url(), container, credential=credential)
    from azure.identity import DefaultAzureCredential

    return ContainerClient(account_url(), container, credential=DefaultAzureCredential())


def open_store(uri: str) -> Store:
    """The store at a URI: `az://container` or `file:///folder`. Raises ValueError for any other."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return FolderStore(Path(url2pathname(parts.path)))
    if parts.scheme == "az" and parts.netloc and parts.path in ("", "/"):
        return AzureStore(parts.netloc)
    raise ValueError(f"{uri!r}: expected az://container or file:///folder")


def landing() -> Store:
    """The store into which upstream puts day files: `<source>/<YYYY-MM-DD>/<file>`."""
    return open_store(os.environ.get("LANDING_URI", "az://landing"))


def lake() -> Store:
    """The store of tables and bronze files."""
    return open_store(os.environ.get("LAKE_URI", "az://lake"))


def reports() -> Store:
    """The store of pages for people."""
    return open_store(os.environ.get("REPORTS_URI", "az://reports"))
