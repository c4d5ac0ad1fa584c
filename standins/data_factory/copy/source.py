"""The source of a Copy activity: which blobs it reads, and their download."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from azure.core import MatchConditions
from azure.core.exceptions import ResourceModifiedError, ResourceNotFoundError
from azure.storage.blob import BlobProperties, ContainerClient

from standins.data_factory.copy.definition import Copy
from standins.data_factory.copy.formats import CopyError


def source_files(copy: Copy, client: ContainerClient) -> Iterator[tuple[BlobProperties, PurePosixPath]]:
    """The files to copy, each with its path below the folder in front of the first wildcard."""
    store = copy.source.get("storeSettings", {})
    location = copy.source_dataset["typeProperties"]["location"]
    if location.get("fileName") and "wildcardFileName" not in store:
        yield _single_file(client, str(PurePosixPath(location.get("folderPath") or "", location["fileName"])))
        return
    folder = str(store.get("wildcardFolderPath") or location.get("folderPath") or "").strip("/")
    file = str(store.get("wildcardFileName") or "*")
    base = "/".join(_before_wildcard(folder.split("/"))) if folder else ""
    folder_pattern, file_pattern = _pattern(folder), _pattern(file)
    prefix = f"{base}/" if base else ""
    for blob in client.list_blobs(name_starts_with=prefix or None):
        parent, _, leaf = str(blob.name).rpartition("/")
        levels = parent.split("/") if parent else []
        depths = range(len(levels) + 1) if store.get("recursive", True) else [len(levels)]
        if file_pattern.fullmatch(leaf) and any(folder_pattern.fullmatch("/".join(levels[:depth])) for depth in depths):
            yield blob, PurePosixPath(str(blob.name)[len(prefix) :])


def _single_file(client: ContainerClient, name: str) -> tuple[BlobProperties, PurePosixPath]:
    try:
        return client.get_blob_client(name).get_blob_properties(), PurePosixPath(PurePosixPath(name).name)
    except ResourceNotFoundError as error:
        raise _missing(f"{client.container_name}/{name}") from error


def _before_wildcard(levels: list[str]) -> list[str]:
    for position, level in enumerate(levels):
        if "*" in level or "?" in level:
            return levels[:position]
    return levels


def _pattern(wildcards: str) -> re.Pattern[str]:
    """`*` matches any number of characters except `/`, `?` matches at most one."""
    translated = {"*": "[^/]*", "?": "[^/]?"}
    return re.compile("".join(translated.get(character) or re.escape(character) for character in wildcards))


def download(client: ContainerClient, blob: BlobProperties, name: str, path: Path, check: Callable[[], None]) -> int:
    """Download one version of a blob to `path`; returns its size in bytes."""
    try:
        stream = client.download_blob(str(blob.name), etag=blob.etag, match_condition=MatchConditions.IfNotModified)
        with path.open("wb") as file:
            for chunk in stream.chunks():
                check()
                file.write(chunk)
    except ResourceNotFoundError as error:
        raise _missing(name) from error
    except ResourceModifiedError as error:
        raise CopyError(
            "DataConsistencySourceDataChanged",
            f"Source file '{name}' is changed by other clients during the copy activity run. Run it again.",
        ) from error
    return path.stat().st_size


def _missing(name: str) -> CopyError:
    return CopyError(
        "UserErrorFileNotFound", f"The required Blob is missing: '{name}'. Check that the file exists and run again."
    )
