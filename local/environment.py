"""The environment that decides which cloud answers: here, the local one.

One code path: Dags, operators and `python -m ml` have no local mode. They find Azure's services through these
variables and Airflow's Connections, which name the real services in production.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local.settings import REPOSITORY, Settings, SettingsError, load_secrets

ACCOUNT = "devstoreaccount1"
RESOURCE_GROUP = "mlops"
FACTORY = "mlops-adf"
WORKSPACE = "mlops-ws"
LANDED_QUEUE = "landed"
POWERBI_GROUP = "f089354e-8366-4e18-aea3-4cb4a3a50b48"
POWERBI_DATASET = "cfafbeb1-8037-4d0c-896e-a46fb27ff229"

# Variables that services inherit from the shell that starts them. With any other variable, the machine would depend on
# the shell that started it.
_INHERITED = ("HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR")


def basics() -> dict[str, str]:
    """The variables that every process of the machine needs, and no others of the shell that starts it."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    return {"LANG": "C.UTF-8", **inherited, "PATH": path, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}


def commit() -> str:
    """The commit of this checkout, "-dirty" when files differ from it; "unknown" without git. Model versions record it."""
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True
        )
    except FileNotFoundError:
        return "unknown"
    return result.stdout.strip() or "unknown"


def resources() -> dict[str, str]:
    """The folder of config files, queries and expectations, when this shell names one: every service reads the same."""
    folder = os.environ.get("ML_RESOURCES")
    return {"ML_RESOURCES": str(Path(folder).absolute())} if folder else {}


def storage(settings: Settings) -> dict[str, str]:
    """Blob and Queue Storage and the tracking server: what a cluster's identity can reach. Telemetry is off."""
    key = load_secrets(settings)["storage_key"]
    blob, queue = f"{settings.url('blob')}/{ACCOUNT}", f"{settings.url('queue')}/{ACCOUNT}"
    connection = {
        "DefaultEndpointsProtocol": "http",
        "AccountName": ACCOUNT,
        "AccountKey": key,
        "BlobEndpoint": blob,
        "QueueEndpoint": queue,
    }
    return {
        "LANDING_URI": "az://landing",
        "LAKE_URI": "az://lake",
        "REPORTS_URI": "az://reports",
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": key,
        "AZURE_STORAGE_ENDPOINT": blob,
        "AZURE_STORAGE_QUEUE_ENDPOINT": queue,
        "AZURE_STORAGE_CONNECTION_STRING": ";".join(f"{name}={value}" for name, value in connection.items()) + ";",
        "ML_COMMIT": commit(),
        "ML_ENVIRONMENT": "local",
        **resources(),
        "MLFLOW_TRACKING_URI": settings.url("mlflow"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GX_ANALYTICS_ENABLED": "false",
    }


def standins(settings: Settings) -> dict[str, str]:
    """The credentials that the stand-ins accept, and where the data is that they work on."""
    secrets = load_secrets(settings)
    return {
        "STANDINS_TENANT_ID": secrets["tenant_id"],
        "STANDINS_CLIENT_ID": secrets["client_id"],
        "STANDINS_CLIENT_SECRET": secrets["client_secret"],
        "STANDINS_SUBSCRIPTION_ID": secrets["subscription_id"],
        "STANDINS_DATABRICKS_TOKEN": secrets["databricks_token"],
        "STANDINS_WARM": "start",  # a cluster that is warm when the first day arrives
        "STANDINS_POWERBI_GROUP_ID": POWERBI_GROUP,
        "STANDINS_POWERBI_DATASET_ID": POWERBI_DATASET,
        **storage(settings),
    }


def connections(settings: Settings) -> dict[str, dict[str, Any]]:
    """Airflow's Connections by id. A deployment only points these at a real subscription."""
    secrets = load_secrets(settings)
    principal = {"login": secrets["client_id"], "password": secrets["client_secret"]}
    subscription = {"tenantId": secrets["tenant_id"], "subscriptionId": secrets["subscription_id"]}
    return {
        "azure_data_factory_default": {
            "conn_type": "azure_data_factory",
            **principal,
            "extra": {
                **subscription,
                "resource_group_name": RESOURCE_GROUP,
                "factory_name": FACTORY,
                "monitor_url": settings.url("standins", "https"),  # base of the links to runs; Azure's own by default
            },
        },
        "azure_ml_default": {
            "conn_type": "azure_ml",
            **principal,
            "extra": {**subscription, "resource_group": RESOURCE_GROUP, "workspace": WORKSPACE},
        },
        "databricks_default": {
            "conn_type": "databricks",
            "host": "127.0.0.1",
            "schema": "https",
            "port": settings.ports["standins"],
            "password": secrets["databricks_token"],
        },
        "powerbi_default": {
            "conn_type": "powerbi",
            **principal,
            "extra": {
                "tenant_id": secrets["tenant_id"],
                "trust_env": True,
                "group_id": POWERBI_GROUP,
                "dataset_id": POWERBI_DATASET,
            },
        },
        "landing_queue": {
            "conn_type": "wasb",
            "host": f"{settings.url('queue')}/{ACCOUNT}",
            "login": ACCOUNT,
            "password": secrets["storage_key"],
            "extra": {"queue": LANDED_QUEUE},
        },
    }


def cloud(settings: Settings) -> dict[str, str]:
    """How every client reaches Azure's names here: through the stand-ins' proxy, with trust in their authority."""
    return {
        "HTTPS_PROXY": settings.url("proxy"),
        "NO_PROXY": "localhost,127.0.0.1",
        "REQUESTS_CA_BUNDLE": str(settings.ca_file),  # requests: azure-core, msal, databricks
        "SSL_CERT_FILE": str(settings.ca_file),  # OpenSSL's default: aiohttp and httpx, so the triggers
        "ARM_CLOUD_METADATA_URL": "https://management.azure.com/metadata/endpoints",  # azure-ai-ml
    }


def airflow(settings: Settings) -> dict[str, str]:
    """Airflow's own configuration; each value that differs from Airflow's default has its reason."""
    secrets = load_secrets(settings)
    home = settings.run_dir / "airflow"
    database = f"airflow:{secrets['postgres_airflow_password']}@127.0.0.1:{settings.ports['postgres']}/airflow"
    options = {
        "CORE__EXECUTOR": "mlops.executor.WatchedLocalExecutor",
        "CORE__PARALLELISM": "6",  # tasks mostly wait for remote work; more would only compete for two cores
        "CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",  # a paused consumer loses events for good
        "CORE__FERNET_KEY": secrets["airflow_fernet_key"],
        "CORE__EXECUTION_API_SERVER_URL": f"{settings.url('airflow')}/execution/",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{database}",
        "DATABASE__SQL_ALCHEMY_CONN_ASYNC": f"postgresql+asyncpg://{database}",
        "API__HOST": "127.0.0.1",  # the default is every interface
        "API__PORT": str(settings.ports["airflow"]),
        "API__BASE_URL": settings.url("airflow"),
        "API__WORKERS": "1",
        "API__SECRET_KEY": secrets["airflow_secret_key"],
        "API_AUTH__JWT_SECRET": secrets["airflow_jwt_secret"],
        "DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "DAG_PROCESSOR__REFRESH_INTERVAL": "5",  # with the default, a new file is not read for five minutes
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        "LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "LOGGING__COLORED_CONSOLE_LOG": "False",
    }
    variables = {f"AIRFLOW__{name}": value for name, value in options.items()}
    for conn_id, connection in connections(settings).items():
        variables[f"AIRFLOW_CONN_{conn_id.upper()}"] = json.dumps(connection)
    return {"AIRFLOW_HOME": str(home), **variables}


def overrides(settings: Settings) -> dict[str, str]:
    """Lines NAME=value of `airflow.env` in the state directory: they override this machine's Airflow environment.

    For a proxy in front of a service, shorter time-outs in a test, or an option to be tried. Read when the machine starts.
    Raises SettingsError on a line of another form.
    """
    path = settings.run_dir / "airflow.env"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    assignments = [line.partition("=") for line in lines if line.strip() and not line.startswith("#")]
    if invalid := [name for name, equals, _ in assignments if not equals or not name.isidentifier()]:
        raise SettingsError(f"{path}: {invalid[0]!r} is not a line NAME=value.")
    return {name: value for name, _, value in assignments}


def full(settings: Settings) -> dict[str, str]:
    """The variables of every Airflow component and of a user's shell."""
    variables = {"RUN_DIR": str(settings.run_dir), **storage(settings), **cloud(settings), **airflow(settings)}
    return variables | overrides(settings)


def exports(variables: Mapping[str, str]) -> str:
    """Shell lines that set the variables: for `eval "$(python -m local env)"`."""
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())
