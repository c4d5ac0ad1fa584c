"""The machine's state directory, its ports and its secrets. Each of them is defined here only."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Port:
    """A TCP port on loopback: its service, and the environment variable that changes it."""

    service: str
    variable: str
    default: int


PORTS = {
    "airflow": Port("Airflow", "AIRFLOW_PORT", 8080),
    "mlflow": Port("MLflow", "MLFLOW_PORT", 5000),
    "postgres": Port("PostgreSQL", "POSTGRES_PORT", 5442),
    "blob": Port("Azurite (blobs)", "BLOB_PORT", 10000),
    "queue": Port("Azurite (queues)", "QUEUE_PORT", 10001),
    "standins": Port("the stand-ins", "STANDINS_PORT", 8443),
    "proxy": Port("the stand-ins' proxy", "PROXY_PORT", 8899),
}


class SettingsError(Exception):
    """A setting that cannot be used; the message names the variable, its value and the remedy."""


@dataclass(frozen=True)
class Settings:
    """One machine: its state directory and its ports (by the names of `PORTS`)."""

    run_dir: Path
    ports: Mapping[str, int]

    @property
    def log_dir(self) -> Path:
        return self.run_dir / "log"

    @property
    def ca_file(self) -> Path:
        """Certificate of the private authority; the stand-ins create it at their first start."""
        return self.run_dir / "standins" / "ca.pem"

    def url(self, port: str, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.ports[port]}"

    def make_directories(self) -> None:
        """Create the state directory with private content; others may traverse it, as PostgreSQL may be another user."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.run_dir.chmod(0o711)
        for name in ("log", "requests", "standins", "azurite", "airflow", "postgres"):
            (self.run_dir / name).mkdir(exist_ok=True)
        for name in ("log", "requests", "standins", "azurite", "airflow"):
            (self.run_dir / name).chmod(0o700)


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """The machine that the environment names. Raises SettingsError on an invalid port or one that is used twice."""
    run_dir = Path(environment.get("RUN_DIR") or REPOSITORY / ".run").absolute()
    ports: dict[str, int] = {}
    for name, port in PORTS.items():
        text = environment.get(port.variable) or str(port.default)
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
            raise SettingsError(f"{port.variable} is {text!r}: set a port number from 1 to 65535.")
        for other, number in ports.items():
            if number == int(text):
                both = f"{PORTS[other].variable} and {port.variable}"
                raise SettingsError(
                    f"{both} are both {text}: give {PORTS[other].service} or {port.service} another port."
                )
        ports[name] = int(text)
    return Settings(run_dir, ports)


def _uuid() -> str:
    return str(uuid.uuid4())


def _key(size: int) -> Callable[[], str]:
    return lambda: base64.urlsafe_b64encode(secrets.token_bytes(size)).decode()


SECRETS: Mapping[str, Callable[[], str]] = {
    "tenant_id": _uuid,
    "subscription_id": _uuid,
    "client_id": _uuid,
    "client_secret": lambda: secrets.token_urlsafe(30),
    "databricks_token": lambda: "dapi" + secrets.token_hex(16),
    "storage_key": lambda: base64.b64encode(secrets.token_bytes(64)).decode(),
    "postgres_password": lambda: secrets.token_hex(16),
    "postgres_airflow_password": lambda: secrets.token_hex(16),
    "postgres_mlflow_password": lambda: secrets.token_hex(16),
    "airflow_admin_password": lambda: secrets.token_urlsafe(12),
    "airflow_fernet_key": _key(32),
    "airflow_jwt_secret": _key(48),
    "airflow_secret_key": _key(48),
}


def load_secrets(settings: Settings) -> dict[str, str]:
    """The machine's secrets, generated once and kept in `secrets.json` (mode 0600); missing ones are added."""
    settings.make_directories()
    path = settings.run_dir / "secrets.json"
    with locked(settings.run_dir / "secrets.lock"):
        values: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        missing = {name: generate() for name, generate in SECRETS.items() if name not in values}
        if missing:
            values |= missing
            write_private(path, json.dumps(values, indent=2) + "\n")
    return values


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock for a block; the kernel releases it when the holder dies."""
    with private(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def private(path: Path) -> IO[str]:
    """Open a lock file that only its owner may open, because any user who can read a file can lock it."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "a")


def write_private(path: Path, text: str) -> None:
    """Write or replace a file that only its owner may read, in one step: readers see the old text or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        temporary.replace(path)
    except OSError:  # a full disk: leave no partial file
        temporary.unlink(missing_ok=True)
        raise
