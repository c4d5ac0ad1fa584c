"""Files that a run downloads from Blob Storage or uploads to it: wheels, scripts, code and data folders.

Called inside the run, with the run's own storage credentials (AZURE_STORAGE_*).
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient


class FileError(RuntimeError):
    """A file cannot be read; the message names it and, for an unknown form, lists the supported ones."""


def locate(uri: str) -> tuple[str, str]:
    """The container and path of a file in Blob Storage. Raises FileError.

    Supported: `abfss://` and `wasbs://container@account.…/path`, `https://account.blob.…/container/path` (also in
    Azurite's form), `az://container/path`, and `dbfs:/mnt/container/path` (every container is mounted).
    """
    account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
    parts = urlsplit(uri)
    path = parts.path.lstrip("/")
    uri_account = account
    if parts.scheme in ("abfs", "abfss", "wasb", "wasbs") and parts.username:
        container, uri_account = parts.username, (parts.hostname or "").partition(".")[0]
    elif parts.scheme == "az":
        container = parts.netloc
    elif parts.scheme == "dbfs" and path.startswith("mnt/"):
        container, _, path = path.removeprefix("mnt/").partition("/")
    elif parts.scheme in ("http", "https"):
        if (parts.hostname or "").endswith(".blob.core.windows.net"):
            uri_account = (parts.hostname or "").partition(".")[0]
        else:
            uri_account, _, path = path.partition("/")
        container, _, path = path.partition("/")
    else:
        raise FileError(
            f"{uri!r}: this stand-in reads abfss://container@account.…/path, wasbs://…, az://container/path, "
            "https://account.blob.core.windows.net/container/path and dbfs:/mnt/container/path"
        )
    if uri_account != account:
        raise FileError(f"{uri!r}: the run's storage account is {account!r}, not {uri_account!r}")
    return container, path


def _container(name: str) -> ContainerClient:
    from azure.storage.blob import ContainerClient

    account = os.environ["AZURE_STORAGE_ACCOUNT_NAME"]
    endpoint = os.environ.get("AZURE_STORAGE_ENDPOINT") or f"https://{account}.blob.core.windows.net"
    credential = {"account_name": account, "account_key": os.environ["AZURE_STORAGE_ACCOUNT_KEY"]}
    return ContainerClient(endpoint, name, credential=credential)


def read(uri: str) -> bytes:
    """The content of a file: a blob, or a local one given as `file:/path` or `/path`. Raises FileError."""
    if uri.startswith(("/", "file:")):
        path = Path(url2pathname(urlsplit(uri).path))
        if not path.is_file():
            raise FileError(f"{uri!r}: the file does not exist")
        return path.read_bytes()
    from azure.core.exceptions import ResourceNotFoundError

    container, name = locate(uri)
    try:
        return _container(container).download_blob(name).readall()
    except ResourceNotFoundError as error:
        raise FileError(f"{uri!r}: container {container!r} has no blob {name!r}") from error


def download(uri: str, target: Path) -> Path:
    """Download a file, or all files below a folder, to `target`. Raises FileError when neither exists."""
    container, name = locate(uri)
    client = _container(container)
    blobs = {blob.name for blob in client.list_blobs(name_starts_with=name.rstrip("/"))}
    if name in blobs:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(client.download_blob(name).readall())
        return target
    folder = f"{name.rstrip('/')}/" if name.rstrip("/") else ""
    names = sorted(blob for blob in blobs if blob.startswith(folder) and blob != folder)
    if not names:
        raise FileError(f"{uri!r}: container {container!r} has neither a file nor a folder {name!r}")
    for blob in names:
        path = (target / blob.removeprefix(folder)).resolve()
        if not path.is_relative_to(target.resolve()):
            raise FileError(f"{uri!r}: {blob!r} is outside the folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(client.download_blob(blob).readall())
    return target


def upload(source: Path, uri: str) -> None:
    """Upload a file to `uri`, or all files of a folder below it."""
    container, name = locate(uri)
    client = _container(container)
    files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    for path in files:
        suffix = "" if path == source else f"/{path.relative_to(source).as_posix()}"
        with path.open("rb") as content:
            client.upload_blob(f"{name.rstrip('/')}{suffix}", content, overwrite=True)


def install(uri: str, cache: Path) -> Path:
    """Install a wheel without its dependencies into a folder below `cache` that is named by the wheel's digest.

    Returns the folder. Raises FileError when the file is not a plain wheel.
    """
    content = read(uri)
    folder = cache / hashlib.sha256(content).hexdigest()
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=cache, prefix=".tmp-"))
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as wheel:
            names = wheel.namelist()
            if not any(name.endswith(".dist-info/METADATA") for name in names):
                raise FileError(f"{uri!r} is a zip file but not a wheel: it has no .dist-info/METADATA")
            if any(name.partition("/")[0].endswith(".data") for name in names):
                raise FileError(f"{uri!r} has a .data folder; this stand-in installs plain wheels only")
            wheel.extractall(temporary)
        temporary.rename(folder)
    except zipfile.BadZipFile as error:
        raise FileError(f"{uri!r} is not a wheel: {error}") from error
    except OSError:
        if not folder.is_dir():  # otherwise another run has just installed the same wheel
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
