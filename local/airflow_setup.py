"""Airflow's metadata database and login: `python -m local.airflow_setup`, before the components start."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from psycopg2 import sql  # type: ignore[import-untyped]

from local import environment, postgres
from local.settings import Settings, from_environment, load_secrets, write_private


def migrate(settings: Settings) -> None:
    """Migrate the database to the installed version, unless the database's comment says that it has this version."""
    marker = f"migrated by apache-airflow-core {version('apache-airflow-core')}"
    connection = postgres.connect(settings, "airflow")
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'airflow'")
        if cursor.fetchone() == (marker,):
            return
    command = [str(Path(sys.executable).with_name("airflow")), "db", "migrate"]
    subprocess.run(command, check=True, env={**environment.basics(), **environment.airflow(settings)})
    with connection, connection.cursor() as cursor:
        cursor.execute(sql.SQL("COMMENT ON DATABASE airflow IS {}").format(sql.Literal(marker)))


def write_password(settings: Settings) -> None:
    """Give Airflow's simple login manager the generated password; otherwise it would generate and print its own."""
    passwords = {"admin": load_secrets(settings)["airflow_admin_password"]}
    write_private(
        Path(environment.airflow(settings)["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]), json.dumps(passwords)
    )


if __name__ == "__main__":
    write_password(from_environment())
    migrate(from_environment())
