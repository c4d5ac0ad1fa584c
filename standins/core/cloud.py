"""Parts that all services of the local cloud share: settings, state, the ledger, background work."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from standins.core.auth import Tokens
from standins.core.database import Database
from standins.core.documents import Documents
from standins.core.ledger import Ledger

log = logging.getLogger(__name__)
T = TypeVar("T")


class SettingsError(ValueError):
    """A setting is missing or invalid; the message names the environment variables."""


@dataclass(frozen=True)
class Settings:
    """Identities that are accepted (tenant, client, tokens), the storage account, the state folder."""

    state_dir: Path
    port: int  # of the TLS server
    proxy_port: int
    tenant_id: str
    client_id: str
    client_secret: str
    subscription_id: str
    databricks_token: str
    storage_account: str
    storage_key: str
    blob_endpoint: str  # https://<account>.blob.core.windows.net, or Azurite's http://127.0.0.1:PORT/<account>
    queue_endpoint: str
    token_seconds: int = 3599  # lifetime of a token in seconds; Entra ID gives about an hour
    power_bi_group: str = ""  # id of the only workspace
    power_bi_dataset: str = ""  # id of its only dataset

    @classmethod
    def from_environment(
        cls, state_dir: Path, port: int, proxy_port: int, env: Mapping[str, str] = os.environ
    ) -> Settings:
        """Read STANDINS_* and AZURE_STORAGE_*. Raises SettingsError."""
        names = {
            "tenant_id": "STANDINS_TENANT_ID",
            "client_id": "STANDINS_CLIENT_ID",
            "client_secret": "STANDINS_CLIENT_SECRET",
            "subscription_id": "STANDINS_SUBSCRIPTION_ID",
            "databricks_token": "STANDINS_DATABRICKS_TOKEN",
            "storage_account": "AZURE_STORAGE_ACCOUNT_NAME",
            "storage_key": "AZURE_STORAGE_ACCOUNT_KEY",
            "blob_endpoint": "AZURE_STORAGE_ENDPOINT",
            "power_bi_group": "STANDINS_POWERBI_GROUP_ID",
            "power_bi_dataset": "STANDINS_POWERBI_DATASET_ID",
            "queue_endpoint": "AZURE_STORAGE_QUEUE_ENDPOINT",
        }
        missing = [name for name in names.values() if not env.get(name)]
        if missing:
            raise SettingsError(f"environment variables are not set: {', '.join(missing)}")
        seconds = env.get("STANDINS_TOKEN_SECONDS", str(cls.token_seconds))
        if not seconds.lstrip("-").isdigit():
            raise SettingsError(f"STANDINS_TOKEN_SECONDS must be a whole number of seconds; found {seconds!r}")
        values = {field: env[name].rstrip("/") for field, name in names.items()}
        return cls(state_dir, port, proxy_port, **values, token_seconds=int(seconds))


class Cloud:
    """State and services of one local cloud. `stopping` is set when the process must end; background work checks it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._database = Database(settings.state_dir / "standins.sqlite")
        self.documents = Documents(self._database)
        self.ledger = Ledger(self._database)
        self.tokens = Tokens(settings.state_dir)
        self.stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._threads_lock = threading.Lock()
        self._shared: dict[object, object] = {}
        self._shared_lock = threading.RLock()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Documents and ledger entries written inside are committed together or not at all.

        Keep it short: other threads wait for its end.
        """
        with self._database.transaction():
            yield

    def shared(self, create: Callable[[Cloud], T]) -> T:
        """The object that `create(cloud)` returned on the first call: routes and background work share it."""
        with self._shared_lock:
            if create not in self._shared:
                self._shared[create] = create(self)
            return self._shared[create]  # type: ignore[return-value]  # the key created the value

    def retry_until_writable(self, write: Callable[[], T]) -> T:
        """Call `write` until the state can be written, and return its result. A full disk may be temporary.

        For background work; a request must fail at once. Raises sqlite3.OperationalError when the process must end.
        """
        while True:
            try:
                return write()
            except sqlite3.OperationalError as error:
                log.warning("the state cannot be written; trying again: %s", error)
                if self.stopping.wait(1):
                    raise

    def background(self, name: str, work: Callable[..., Any], *args: Any) -> threading.Thread:
        """Run `work(*args)` in a thread; `close` waits a moment for it. An exception is logged with the name.

        Work must notice `stopping` within a second, and must be resumable after a restart: the process may be
        killed at any time.
        """

        def guarded() -> None:
            try:
                work(*args)
            except Exception:  # nothing above this frame in the thread would report it
                if not self.stopping.is_set():
                    log.exception("%s failed", name)

        # A daemon: work that does not notice `stopping` must not keep the process alive.
        thread = threading.Thread(target=guarded, name=name, daemon=True)
        with self._threads_lock:
            self._threads = [t for t in self._threads if t.is_alive()] + [thread]
            thread.start()
        return thread

    def every(self, name: str, seconds: float, work: Callable[[], Any]) -> threading.Thread:
        """Call `work` now and then every `seconds` until the process ends; an exception skips one call."""

        def repeat() -> None:
            last_error = ""
            while not self.stopping.is_set():
                try:
                    work()
                    last_error = ""
                except Exception as error:  # noqa: BLE001 - a watcher must survive an outage of the storage account
                    if str(error) != last_error:
                        log.warning("%s: %s; trying again every %s s", name, error, seconds)
                    last_error = str(error)
                self.stopping.wait(seconds)

        return self.background(name, repeat)

    def close(self, patience: float = 1.5) -> None:
        """Stop background work; wait at most `patience` seconds for it."""
        self.stopping.set()
        deadline = time.monotonic() + patience
        with self._threads_lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        unfinished = [thread.name for thread in threads if thread.is_alive()]
        if unfinished:
            log.warning("unfinished background work, resumed by the next start: %s", ", ".join(unfinished))
            return  # the database stays open for these threads: they may still commit
        self._database.close()
