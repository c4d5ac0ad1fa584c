"""What every service of the stand-ins shares: settings, state, the ledger, background work."""

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
    """The environment does not say what the stand-ins need; the message names every missing variable."""


@dataclass(frozen=True)
class Settings:
    """Who may ask (tenant, client, tokens), where the data is (storage), where state is kept."""

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
    token_seconds: int = 3599  # how long a token is good for; Entra ID gives about an hour
    power_bi_group: str = "f089354e-8366-4e18-aea3-4cb4a3a50b48"  # the one workspace there is
    power_bi_dataset: str = "cfafbeb1-8037-4d0c-896e-a46fb27ff229"  # and its one dataset

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
            "queue_endpoint": "AZURE_STORAGE_QUEUE_ENDPOINT",
        }
        missing = [name for name in names.values() if not env.get(name)]
        if missing:
            raise SettingsError(f"these environment variables are not set: {', '.join(missing)}")
        seconds = env.get("STANDINS_TOKEN_SECONDS", str(cls.token_seconds))
        if not seconds.lstrip("-").isdigit():
            raise SettingsError(f"STANDINS_TOKEN_SECONDS: found {seconds!r}; whole seconds are needed")
        names |= {"power_bi_group": "STANDINS_POWERBI_GROUP_ID", "power_bi_dataset": "STANDINS_POWERBI_DATASET_ID"}
        found = {field: env[name].rstrip("/") for field, name in names.items() if env.get(name)}
        return cls(state_dir, port, proxy_port, **found, token_seconds=int(seconds))


class Cloud:
    """The stand-ins' shared parts. `stopping` is set when the process is to end: background work looks at it."""

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
        self._ones: dict[object, object] = {}
        self._ones_lock = threading.RLock()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Documents and ledger entries written inside appear together or not at all. Keep it short: others wait."""
        with self._database.transaction():
            yield

    def one(self, make: Callable[[Cloud], T]) -> T:
        """What `make(cloud)` gave when first asked for: what one service's routes and its work share."""
        with self._ones_lock:
            if make not in self._ones:
                self._ones[make] = make(self)
            return self._ones[make]  # type: ignore[return-value]  # the key made the value

    def patiently(self, do: Callable[[], T]) -> T:
        """What `do` gives, once the state can be written: a full disk passes, and no work may hang for ever because of it.

        For background work; a request is to fail at once. Raises sqlite3.OperationalError when the process is to end.
        """
        while True:
            try:
                return do()
            except sqlite3.OperationalError as error:
                log.warning("the state cannot be written, trying again: %s", error)
                if self.stopping.wait(1):
                    raise

    def background(self, name: str, work: Callable[..., Any], *args: Any) -> threading.Thread:
        """Run `work(*args)` in a thread that `close` waits for a moment. An exception is logged with the name.

        Work must notice `stopping` within a second, and be such that it can be taken up again after
        a restart: the process may be killed at any time.
        """

        def guarded() -> None:
            try:
                work(*args)
            except Exception:  # the last one who can tell: a thread's exception reaches nobody
                if not self.stopping.is_set():
                    log.exception("%s failed", name)

        # A daemon: work that does not notice `stopping` must not keep the process.
        thread = threading.Thread(target=guarded, name=name, daemon=True)
        with self._threads_lock:
            self._threads = [t for t in self._threads if t.is_alive()] + [thread]
            thread.start()
        return thread

    def every(self, name: str, seconds: float, work: Callable[[], Any]) -> threading.Thread:
        """Call `work` now and again every `seconds` until the process ends; an exception skips one turn."""

        def repeat() -> None:
            last = ""
            while not self.stopping.is_set():
                try:
                    work()
                    last = ""
                except Exception as error:  # noqa: BLE001 - a watcher must outlive a storage account that is down for a while
                    if str(error) != last:
                        log.warning("%s: %s; trying again every %s s", name, error, seconds)
                    last = str(error)
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
        left = [thread.name for thread in threads if thread.is_alive()]
        if left:
            log.warning("still at work when the process ended, to be taken up again: %s", ", ".join(left))
            return  # the database stays open for them: what they commit in their last moment counts
        self._database.close()
