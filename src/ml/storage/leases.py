"""One writer at a time: a lease on a name in a store, which ends by itself when its holder dies.

In Blob Storage it is the service's own lease of 15 seconds, renewed by a thread; in a folder it is a lock on
a file (`flock`). Whoever waits says for whom.
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

SECONDS = 15  # of a lease: the shortest there is, so that a dead holder's ends soon
RENEW = 5  # seconds between renewals: two may fail before the lease is lost
SURE = 12  # seconds after the last renewal in which it certainly is ours
ASK = 1.0  # seconds between two tries to get it
TELL = 30  # seconds between two words about waiting


class LeaseError(OSError):
    """A lease was not given in time, or was lost. It is nobody's fault in the data: the same may be tried again."""


class Lease(Protocol):
    def check(self) -> None:
        """Raise LeaseError unless the lease is still held. To be called before everything that must not overlap."""


@contextmanager
def hold(store: Store, name: str, who: str, wait: float) -> Iterator[Lease]:
    """Hold the lease `name` of a store in the body of `with`.

    `who` tells others what holds it. Raises LeaseError after waiting `wait` seconds for another holder.
    """
    since = datetime.now(UTC).isoformat(timespec="seconds")
    told = f"{who} (process {os.getpid()} on {socket.gethostname()}, since {since})"
    if isinstance(store, FolderStore):
        with _in_folder(store, name, told, wait) as lease:
            yield lease
    elif isinstance(store, AzureStore):
        with _in_azure(store, name, told, wait) as lease:
            yield lease
    else:
        raise TypeError(f"no leases in {type(store).__name__}")


def _wait_for(name: str, ask: Callable[[], bool], holder: Callable[[], str], wait: float) -> None:
    """Ask until it is given; tell whom we wait for."""
    started = told = time.monotonic()
    first = True
    while not ask():
        now = time.monotonic()
        if now - started >= wait:
            raise LeaseError(
                f"lease {name} is held by {holder()}; waited {wait:.0f} s. It ends with its holder, or {SECONDS} s "
                "after a holder that was killed: look what that one does, then run this again"
            )
        if first or now - told >= TELL:
            log.info("waiting for lease %s, which is held by %s", name, holder())
            first, told = False, now
        time.sleep(min(ASK, max(wait - (now - started), 0.01)))


class _Locked:
    """A file that is locked stays so until it is closed, or its process ends."""

    def check(self) -> None:
        return


@contextmanager
def _in_folder(store: FolderStore, name: str, who: str, wait: float) -> Iterator[Lease]:
    path = store.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:

        def ask() -> bool:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        _wait_for(name, ask, lambda: path.read_text(encoding="utf-8") or "somebody who has just begun", wait)
        file.truncate(0)
        file.write(who)
        file.flush()
        yield _Locked()


class _Renewed:
    """A blob's lease and the thread that renews it."""

    def __init__(self, name: str, lease: BlobLeaseClient) -> None:
        self.name = name
        self._lease = lease
        self._renewed = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease {name}", daemon=True)
        self._thread.start()

    def _renew(self) -> None:
        from azure.core.exceptions import AzureError

        while not self._ended.wait(RENEW):
            asked = time.monotonic()
            try:
                self._lease.renew(retry_total=0, connection_timeout=3, read_timeout=3)
            except AzureError as error:  # told by `check`; storage may answer again in time
                log.warning("lease %s could not be renewed: %s", self.name, error)
            else:
                self._renewed = asked

    def check(self) -> None:
        silent = time.monotonic() - self._renewed
        if silent > SURE:
            raise LeaseError(
                f"lease {self.name} is lost: it could not be renewed for {silent:.0f} s, so another process may write "
                "now. Nothing was written since; run this again"
            )

    def end(self) -> None:
        from azure.core.exceptions import AzureError

        self._ended.set()
        self._thread.join()
        try:
            self._lease.release()
        except AzureError as error:  # the work is done, and the lease ends by itself
            log.warning("lease %s could not be given back and ends by itself: %s", self.name, error)


@contextmanager
def _in_azure(store: AzureStore, name: str, who: str, wait: float) -> Iterator[Lease]:
    from azure.core.exceptions import HttpResponseError, ResourceExistsError
    from azure.storage.blob import BlobLeaseClient

    blob: BlobClient = store.client.get_blob_client(name)
    try:
        blob.upload_blob(b"", overwrite=False)
    except ResourceExistsError:
        pass
    except HttpResponseError as error:
        if error.status_code != 412:  # it is there and leased
            raise
    lease = BlobLeaseClient(blob)

    def ask() -> bool:
        try:
            lease.acquire(lease_duration=SECONDS)
        except ResourceExistsError:  # 409 LeaseAlreadyPresent
            return False
        return True

    _wait_for(name, ask, lambda: blob.get_blob_properties().metadata.get("holder", "somebody"), wait)
    renewed = _Renewed(name, lease)
    try:
        blob.set_blob_metadata({"holder": who.encode("ascii", "replace").decode()}, lease=lease)
        yield renewed
    finally:
        renewed.end()
