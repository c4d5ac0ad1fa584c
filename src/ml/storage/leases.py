"""Leases: one writer at a time for a name in a store. A lease ends by itself when its holder dies.

In Blob Storage it is the service's own lease of 15 seconds, renewed by a thread; in a folder it is a lock on a file
(`flock`). A process that waits for a lease logs who holds it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from ml.storage.stores import AzureStore, FolderStore, Store

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, BlobLeaseClient

log = logging.getLogger(__name__)

FOLDER = "ops/_leases"  # of the leases in the lake
LEASE_SECONDS = 15  # the shortest that the service offers, so that the lease of a dead holder ends soon
RENEW_SECONDS = 5  # between renewals: two may fail before the lease is lost
CERTAIN_SECONDS = 12  # after the last renewal, in which the lease is certainly held
RETRY_SECONDS = 1.0  # between two attempts to acquire it
LOG_SECONDS = 30  # between two log lines about waiting


class LeaseError(OSError):
    """A lease was not acquired in time, or was lost. The data are not the cause: the run may be retried."""


class Lease(Protocol):
    def check(self) -> None:
        """Raise LeaseError unless the lease is still held. Call it before each step that must not overlap."""


@contextmanager
def hold(store: Store, name: str, who: str, wait: float) -> Iterator[Lease]:
    """Hold the lease `name` of a store in the body of `with`.

    `who` is what others read about the holder. Raises LeaseError after waiting `wait` seconds for another holder.
    """
    since = datetime.now(UTC).isoformat(timespec="seconds")
    holder = f"{who} (process {os.getpid()} on {socket.gethostname()}, since {since})"
    if isinstance(store, FolderStore):
        with _hold_in_folder(store, name, holder, wait) as lease:
            yield lease
    elif isinstance(store, AzureStore):
        with _hold_in_azure(store, name, holder, wait) as lease:
            yield lease
    else:
        raise TypeError(f"{type(store).__name__} has no leases")


def _wait_for(name: str, acquire: Callable[[], bool], holder: Callable[[], str], wait: float) -> None:
    """Call `acquire` until it succeeds; log who holds the lease meanwhile."""
    started = logged = time.monotonic()
    first = True
    while not acquire():
        now = time.monotonic()
        if now - started >= wait:
            raise LeaseError(
                f"lease {name} is held by {holder()}; waited {wait:.0f} s. It ends with its holder, or "
                f"{LEASE_SECONDS} s after its holder was killed: check what the holder does, then run this again"
            )
        if first or now - logged >= LOG_SECONDS:
            log.info("waiting for lease %s, which is held by %s", name, holder())
            first, logged = False, now
        time.sleep(min(RETRY_SECONDS, max(wait - (now - started), 0.01)))


class _FileLease:
    """A lock on a file; it lasts until the file is closed or its process ends."""

    def check(self) -> None:
        return


@contextmanager
def _hold_in_folder(store: FolderStore, name: str, who: str, wait: float) -> Iterator[Lease]:
    path = store.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:

        def acquire() -> bool:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        _wait_for(name, acquire, lambda: path.read_text(encoding="utf-8") or "a process that has just started", wait)
        file.truncate(0)
        file.write(who)
        file.flush()
        yield _FileLease()


class _BlobLease:
    """A blob's lease and the thread that renews it."""

    def __init__(self, name: str, lease: BlobLeaseClient) -> None:
        self.name = name
        self._lease = lease
        self._renewed_at = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease {name}", daemon=True)
        self._thread.start()

    def _renew(self) -> None:
        from azure.core.exceptions import AzureError

        while not self._ended.wait(RENEW_SECONDS):
            requested_at = time.monotonic()
            try:
                self._lease.renew(retry_total=0, connection_timeout=3, read_timeout=3)
            except AzureError as error:  # `check` raises it; storage may respond again in time
                log.warning("lease %s could not be renewed: %s", self.name, error)
            else:
                self._renewed_at = requested_at

    def check(self) -> None:
        since_renewal = time.monotonic() - self._renewed_at
        if since_renewal > CERTAIN_SECONDS:
            raise LeaseError(
                f"lease {self.name} is lost: it could not be renewed for {since_renewal:.0f} s, so another process may "
                "write now. Nothing was written since; run this again"
            )

    def end(self) -> None:
        from azure.core.exceptions import AzureError

        self._ended.set()
        self._thread.join()
        try:
            self._lease.release()
        except AzureError as error:  # the work is done, and the lease ends by itself
            log.warning("lease %s could not be released and ends by itself: %s", self.name, error)


@contextmanager
def _hold_in_azure(store: AzureStore, name: str, who: str, wait: float) -> Iterator[Lease]:
    from azure.core.exceptions import HttpResponseError, ResourceExistsError
    from azure.storage.blob import BlobLeaseClient

    blob: BlobClient = store.client.get_blob_client(name)
    try:
        blob.upload_blob(b"", overwrite=False)
    except ResourceExistsError:
        pass
    except HttpResponseError as error:
        if error.status_code != 412:  # it exists and is leased
            raise
    lease = BlobLeaseClient(blob)

    def acquire() -> bool:
        try:
            lease.acquire(lease_duration=LEASE_SECONDS)
        except ResourceExistsError:  # 409 LeaseAlreadyPresent
            return False
        return True

    _wait_for(name, acquire, lambda: blob.get_blob_properties().metadata.get("holder", "an unknown holder"), wait)
    held = _BlobLease(name, lease)
    try:
        blob.set_blob_metadata({"holder": who.encode("ascii", "replace").decode()}, lease=lease)
        yield held
    finally:
        held.end()
