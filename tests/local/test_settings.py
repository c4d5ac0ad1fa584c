"""Settings, secrets and the environment that decides which cloud answers."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from local import environment, machine
from local.settings import PORTS, SECRETS, Settings, SettingsError, from_environment, load_secrets
from local.unit import Unit, ordered


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "run", {name: port.default + 20000 for name, port in PORTS.items()})


# settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", "8080.0", "\u0663"])
def test_an_invalid_port_is_refused_with_its_variable_and_the_allowed_range(text: str) -> None:
    with pytest.raises(SettingsError, match=r"AIRFLOW_PORT is '.*': set a port number from 1 to 65535"):
        from_environment({"AIRFLOW_PORT": text})


def test_one_port_for_two_services_is_refused_with_both_names() -> None:
    with pytest.raises(SettingsError, match="AIRFLOW_PORT and MLFLOW_PORT are both 8080"):
        from_environment({"MLFLOW_PORT": "8080"})


def test_every_port_has_a_default_and_a_variable_and_an_empty_variable_counts_as_unset() -> None:
    assert from_environment({"PROXY_PORT": ""}).ports == {name: port.default for name, port in PORTS.items()}
    variables = {port.variable: str(30000 + i) for i, port in enumerate(PORTS.values())}
    assert list(from_environment(variables).ports.values()) == [30000 + i for i in range(len(PORTS))]


def test_a_relative_run_dir_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert from_environment({"RUN_DIR": "here"}).run_dir == tmp_path / "here"


# secrets --------------------------------------------------------------------------------------------------------


def test_secrets_are_generated_once_even_by_eight_threads_at_once(settings: Settings) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(load_secrets, [settings] * 8))
    assert all(secrets == results[0] for secrets in results)
    assert set(results[0]) == set(SECRETS)


def test_only_the_owner_can_read_the_secrets(settings: Settings) -> None:
    load_secrets(settings)
    assert stat.S_IMODE((settings.run_dir / "secrets.json").stat().st_mode) == 0o600


def test_a_secret_that_a_newer_version_needs_is_added_and_the_others_stay(settings: Settings) -> None:
    before = load_secrets(settings)
    path = settings.run_dir / "secrets.json"
    path.write_text(json.dumps({"tenant_id": before["tenant_id"]}))
    after = load_secrets(settings)
    assert after["tenant_id"] == before["tenant_id"]
    assert set(after) == set(SECRETS)
    assert after["client_secret"] != before["client_secret"]


# environment ----------------------------------------------------------------------------------------------------


def test_exports_survive_a_shell(settings: Settings) -> None:
    variables = environment.full(settings) | {"AWKWARD": 'it\'s; $HOME `date` "x"\n!'}
    script = environment.exports(variables) + "\nenv -0"
    shell = subprocess.run(["sh", "-c", script], env={"PATH": os.environ["PATH"]}, capture_output=True, check=True)
    exported = dict(line.split("=", 1) for line in shell.stdout.decode().split("\0") if line)
    assert {name: exported[name] for name in variables} == variables


def test_storage_variables_have_the_names_that_the_stages_and_the_sdks_read(settings: Settings) -> None:
    from azure.storage.blob import BlobServiceClient

    variables = environment.storage(settings)
    assert variables["AZURE_STORAGE_ENDPOINT"] == "http://127.0.0.1:30000/devstoreaccount1"
    assert variables["AZURE_STORAGE_QUEUE_ENDPOINT"] == "http://127.0.0.1:30001/devstoreaccount1"
    client = BlobServiceClient.from_connection_string(variables["AZURE_STORAGE_CONNECTION_STRING"])
    assert client.url.rstrip("/") == variables["AZURE_STORAGE_ENDPOINT"]


def test_connections_are_json_that_airflow_reads(settings: Settings) -> None:
    from airflow.sdk import Connection

    variables = environment.airflow(settings)
    for conn_id, expected in environment.connections(settings).items():
        connection = Connection.from_json(variables[f"AIRFLOW_CONN_{conn_id.upper()}"], conn_id=conn_id)
        assert connection.conn_type == expected["conn_type"]
        assert connection.password == expected["password"]
        assert connection.extra_dejson == expected.get("extra", {})


def test_airflow_knows_every_option_that_is_set(settings: Settings) -> None:
    from airflow.configuration import conf

    for name in environment.airflow(settings):
        if name.startswith("AIRFLOW__"):
            section, option = name.removeprefix("AIRFLOW__").lower().split("__")
            assert option in conf.configuration_description.get(section, {}).get("options", {}), name


def test_clients_reach_the_cloud_through_the_proxy_and_trust_only_its_authority(settings: Settings) -> None:
    variables = environment.full(settings)
    assert variables["HTTPS_PROXY"] == "http://127.0.0.1:28899"
    assert variables["NO_PROXY"] == "localhost,127.0.0.1"
    assert (
        variables["REQUESTS_CA_BUNDLE"] == variables["SSL_CERT_FILE"] == str(settings.run_dir / "standins" / "ca.pem")
    )


def test_a_file_in_the_state_directory_overrides_the_environment_of_one_machines_airflow(settings: Settings) -> None:
    load_secrets(settings)
    path = settings.run_dir / "airflow.env"
    path.write_text("# slower\nMLFLOW_TRACKING_URI=http://127.0.0.1:1\n\nAIRFLOW__CORE__PARALLELISM=2\n")
    variables = environment.full(settings)
    assert (variables["MLFLOW_TRACKING_URI"], variables["AIRFLOW__CORE__PARALLELISM"]) == ("http://127.0.0.1:1", "2")
    assert environment.storage(settings)["MLFLOW_TRACKING_URI"] == settings.url("mlflow")
    path.write_text("PARALLELISM 2\n")
    with pytest.raises(SettingsError, match="'PARALLELISM 2' is not a line NAME=value"):
        environment.full(settings)


def test_two_machines_share_no_secret_and_no_path(tmp_path: Path) -> None:
    first, second = (environment.airflow(Settings(tmp_path / name, dict.fromkeys(PORTS, 9))) for name in ("a", "b"))
    for name in ("AIRFLOW_HOME", "AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET"):
        assert first[name] != second[name]


# the machine ----------------------------------------------------------------------------------------------------


def test_the_machine_declares_its_units_in_an_order_that_can_be_started(settings: Settings) -> None:
    units = ordered(machine.units(settings))
    assert {name for unit in units.values() for name in unit.ports} == set(PORTS)
    assert all(unit.check for unit in units.values() if not unit.once)


def test_no_command_line_contains_a_secret(settings: Settings) -> None:
    secrets = set(load_secrets(settings).values())
    for unit in machine.units(settings):
        assert not [word for word in unit.command for secret in secrets if secret in word], unit.name


def test_services_inherit_no_variable_of_the_shell_that_could_change_them(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "AIRFLOW__CORE__EXECUTOR", "HTTP_PROXY"):
        monkeypatch.setenv(name, "from the shell")
    for unit in machine.units(settings):
        assert "from the shell" not in {**environment.basics(), **unit.environment}.values(), unit.name


def test_an_order_that_cannot_be_started_is_refused() -> None:
    with pytest.raises(ValueError, match="unit b starts after a, which is not declared before it"):
        ordered([Unit("b", ["/bin/true"], after=["a"]), Unit("a", ["/bin/true"])])
    with pytest.raises(ValueError, match="unit a is declared twice"):
        ordered([Unit("a", ["/bin/true"]), Unit("a", ["/bin/true"])])


def test_every_service_reads_the_resources_that_the_shell_names(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ML_RESOURCES", raising=False)
    assert "ML_RESOURCES" not in environment.full(settings)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ML_RESOURCES", "mine")
    for variables in (environment.full(settings), environment.standins(settings)):
        assert variables["ML_RESOURCES"] == str(tmp_path / "mine")
